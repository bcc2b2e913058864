"""The compiled part of Ringfence: engines and interrupt hardware.

Imported by ``ringfence.engines`` and ``ringfence.accel`` alone.

Numbers that do not fit the register or field they are for raise :class:`OverflowError`, arguments
of a wrong type :class:`TypeError`; everything else that is refused is a :class:`CoreError`.
"""

from os import PathLike
from typing import Any, Final, TypeAlias, final

from typing_extensions import Buffer

__all__ = [
    "Chain",
    "CoreError",
    "Debug",
    "Exit",
    "Halt",
    "Hypercall",
    "Interrupted",
    "Machine",
    "Memory",
    "MmioRead",
    "MmioWrite",
    "Picture",
    "PortIn",
    "PortInString",
    "PortOut",
    "PortOutString",
    "Shutdown",
    "Vcpu",
    "Video",
    "VirtQueue",
    "host_tsc_hz",
    "kvm_probe",
]

class CoreError(Exception):
    """An engine can't go on, or refuses what it is asked; ``code`` is stable.

    Of the host: ``unsupported`` (it can't run the engine), ``host`` (it refused a resource),
    ``out_of_memory``. Of the caller: ``unknown_engine``, ``cpu_model`` (there is none like that,
    or this host can't run it), ``bad_argument``, ``bad_state``, ``busy`` (the processor is
    running), ``unaligned``, ``overlap``, ``unmapped`` and ``not_logged`` (guest memory). Of the
    guest: ``emulation`` (it did what the engine can't), ``queue`` (it broke the rules of a
    virtqueue). Defects of ours: ``internal``, ``panic``,
    ``broken`` (after a panic).
    """

    code: str

@final
class PortIn:
    """``IN``: the next :meth:`Vcpu.run` gets the value."""

    __match_args__ = ("port", "size")
    port: Final[int]
    size: Final[int]
    def __new__(cls, port: int, size: int) -> PortIn: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class PortOut:
    """``OUT``."""

    __match_args__ = ("port", "size", "value")
    port: Final[int]
    size: Final[int]
    value: Final[int]
    def __new__(cls, port: int, size: int, value: int) -> PortOut: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class PortInString:
    """``REP INS``, ``count`` elements at once: the next :meth:`Vcpu.run` gets their bytes."""

    __match_args__ = ("port", "size", "count")
    port: Final[int]
    size: Final[int]
    count: Final[int]
    def __new__(cls, port: int, size: int, count: int) -> PortInString: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class PortOutString:
    """``REP OUTS``, several elements at once."""

    __match_args__ = ("port", "size", "data")
    port: Final[int]
    size: Final[int]
    data: Final[bytes]
    def __new__(cls, port: int, size: int, data: bytes) -> PortOutString: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class MmioRead:
    """A load where no memory is: the next :meth:`Vcpu.run` gets the value."""

    __match_args__ = ("address", "size")
    address: Final[int]
    size: Final[int]
    def __new__(cls, address: int, size: int) -> MmioRead: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class MmioWrite:
    """A store where no writable memory is."""

    __match_args__ = ("address", "size", "value")
    address: Final[int]
    size: Final[int]
    value: Final[int]
    def __new__(cls, address: int, size: int, value: int) -> MmioWrite: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Halt:
    """``HLT`` on a machine without interrupt hardware."""

    def __new__(cls) -> Halt: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Shutdown:
    """The processor shut down: a triple fault."""

    def __new__(cls) -> Shutdown: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Hypercall:
    """``VMCALL`` or ``VMMCALL``."""

    def __new__(cls) -> Hypercall: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Debug:
    """A breakpoint or single step that a debugger asked for."""

    __match_args__ = ("address",)
    address: Final[int]
    def __new__(cls, address: int) -> Debug: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Interrupted:
    """Another thread called :meth:`Vcpu.interrupt`."""

    def __new__(cls) -> Interrupted: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

Exit: TypeAlias = (
    PortIn
    | PortOut
    | PortInString
    | PortOutString
    | MmioRead
    | MmioWrite
    | Halt
    | Shutdown
    | Hypercall
    | Debug
    | Interrupted
)

@final
class Memory:
    """Host memory of whole pages, to be mapped into machines at no, one or several addresses.

    A writable buffer of bytes; thread-safe. Made of zeros, committed when it is touched.
    """

    def __new__(cls, size: int) -> Memory: ...
    @property
    def size(self) -> int: ...
    def __len__(self) -> int: ...
    def view(self) -> memoryview:
        """A writable view of the bytes, without a copy.

        What is written through it to pages that may hold code, or whose changes are logged, must be
        told by :meth:`written`.
        """
    def written(self, offset: int = 0, size: int | None = None) -> None:
        """Drops code translated from these bytes and marks their pages dirty."""
    def dirty_pages(self, offset: int = 0, size: int | None = None) -> bytes:
        """Pages written to since the last call: a bit each, from bit 0 of the first byte on.

        Finds stores of the guest where the object is mapped with ``log_dirty``, and what
        :meth:`written` told. Whatever is written after the call is found by the next one.
        """

@final
class Machine:
    """One virtual machine: guest memory, interrupt hardware, processors. Thread-safe.

    The interrupt hardware is two PICs, a PIT, an HPET, an I/O APIC, and a local APIC per
    processor. ``cpu`` is the model of all processors: ``model,+feature,-feature``. ``engine`` is
    ``bt`` or ``kvm``; of
    ``kvm``, ``device`` is the path (``/dev/kvm``), and ``chips`` says where the interrupt hardware
    is: in the ``kernel``, our ``own``, or ``auto``.
    With a ``seed`` the machine is deterministic: on ``bt``, with one processor; time is the number
    of executed instructions, an instruction a nanosecond and a tick of the TSC, and random numbers
    come from the seed.
    """

    def __new__(
        cls,
        engine: str = "bt",
        *,
        vcpus: int = 1,
        cpu: str = "host",
        device: str | PathLike[str] | None = None,
        chips: str = "auto",
        seed: int | None = None,
    ) -> Machine: ...
    def io_event(
        self,
        fd: int,
        *,
        port: int | None = None,
        address: int | None = None,
        size: int = 4,
        value: int | None = None,
    ) -> None:
        """Signals ``fd``, an eventfd, at each write to a port or an address without memory.

        Only a write of ``size`` bytes, and of ``value`` if that is given. It then leaves the engine
        no more.
        """
    def remove_io_event(
        self,
        *,
        port: int | None = None,
        address: int | None = None,
        size: int = 4,
        value: int | None = None,
    ) -> None:
        """Undoes :meth:`io_event`."""
    def irq_event(self, fd: int, gsi: int) -> int:
        """Raises an edge of ``gsi`` each time ``fd``, an eventfd, is signalled.

        Gives a number for :meth:`remove_irq_event`. The eventfd no longer blocks its readers.
        """
    def msi_event(self, fd: int, address: int, data: int) -> int:
        """As :meth:`irq_event`, with a message-signalled interrupt."""
    def remove_irq_event(self, number: int) -> None:
        """Undoes :meth:`irq_event` or :meth:`msi_event`."""
    def map_memory(self, address: int, size: int, *, readonly: bool = False) -> None:
        """Adds zeroed memory; committed lazily."""
    def map(
        self,
        address: int,
        memory: Memory,
        *,
        offset: int = 0,
        size: int | None = None,
        readonly: bool = False,
        log_dirty: bool = False,
        replace: bool = False,
        smm: bool = False,
    ) -> None:
        """Shows ``size`` bytes from ``offset`` of ``memory`` (all the rest) at ``address``.

        Processors may run; none sees the old map any more when this returns. Stores to a
        ``readonly`` mapping leave as :class:`MmioWrite`. With ``log_dirty``, stores mark their
        pages for :meth:`dirty_pages`. An overlap is refused, or with ``replace`` what was mapped
        there gives way, in one step. With ``smm``, only processors in system-management mode see
        it, over whatever else is there.
        """
    def unmap(self, address: int, size: int, *, smm: bool = False) -> None:
        """Takes memory away, whole mappings or parts; objects keep their contents.

        Accesses leave as :class:`MmioRead` and :class:`MmioWrite` when this returns; so do
        instruction fetches, in aligned words of 8 bytes.
        """
    def dirty_pages(self, address: int, size: int) -> bytes:
        """As :meth:`Memory.dirty_pages`, for a range that is mapped with ``log_dirty``."""
    def smi(self, vcpu: int = 0) -> None:
        """Raises SMI# at a processor.

        It saves its state at SMBASE (30000h after power-up) plus FE00h, in the layout of AMD64,
        and goes to SMBASE plus 8000h. Raises :class:`CoreError` with code ``unsupported`` on an
        engine without system-management mode.
        """
    def a20(self, enabled: bool) -> None:
        """Address line A20: while it is disabled, bit 20 of the processors' addresses is 0."""
    def dma_read(self, address: int, size: int) -> bytes:
        """Reads as a bus master does: FFh where there is no memory."""
    def dma_write(self, address: int, data: Buffer) -> None:
        """Writes as a bus master does: bytes are dropped where there is no RAM."""
    def discard(self, address: int, size: int) -> int:
        """Gives pages back to the host, which read as zeros then; gives how many bytes."""
    def read(self, address: int, size: int) -> bytes:
        """Copies guest memory; raises :class:`CoreError` where there is none."""
    def write(self, address: int, data: Buffer) -> None:
        """Copies into guest memory, ROM included."""
    def fill(self, address: int, size: int, byte: int = 0) -> None:
        """Fills guest memory."""
    def irq_line(self, gsi: int, level: bool) -> None:
        """Sets the level of a global system interrupt (0 to 23; 0 to 15 reach the PICs too)."""
    def pm_timer(self, port: int | None) -> None:
        """Answers double-word reads of the ACPI power management timer at ``port``."""
    def signal_msi(self, address: int, data: int) -> None:
        """Delivers a message-signalled interrupt."""
    def attach_video(self, video: Video) -> None:
        """Serves memory window and busiest ports of a VGA inside the engine; a machine has one."""
    def vcpu(self, index: int) -> Vcpu:
        """A virtual processor. 0 is the bootstrap processor; the others wait for INIT and SIPI."""
    @property
    def hpet(self) -> bool:
        """Whether there are high precision event timers at FED00000h."""
    @property
    def vcpus(self) -> int: ...
    @property
    def nanoseconds(self) -> int:
        """Time since the machine was made, on the guest's TSC."""
    @property
    def tsc_hz(self) -> int: ...
    @property
    def instructions(self) -> int:
        """Instructions that a deterministic machine has executed; 0 in others."""
    def stop_at(self, instructions: int | None) -> None:
        """Makes ``run`` of a deterministic machine return :class:`Interrupted` at a number.

        It is the number of instructions since the machine was made; ``None``: never.
        """
    def set_deadline(self, nanoseconds: int | None) -> None:
        """Makes ``run`` of a deterministic machine return :class:`Interrupted` at a time.

        It is in nanoseconds of the machine's clock; ``None``: never.
        """

@final
class Vcpu:
    """One virtual processor.

    ``run`` belongs to one thread at a time. The rest of the methods need it stopped, or raise
    :class:`CoreError` with code ``busy``; ``interrupt`` alone may be called at any time.
    """

    @property
    def index(self) -> int: ...
    def run(self, completion: int | bytes | None = None) -> Exit:
        """Runs the guest until something leaves the engine, with the interpreter released.

        ``completion`` answers the :class:`PortIn` or :class:`MmioRead` returned last; bytes answer
        a :class:`PortInString`.
        """
    def interrupt(self) -> None:
        """Makes ``run`` return :class:`Interrupted` soon, or at once if it is not running."""
    def registers(self) -> dict[str, int]:
        """``rax`` to ``r15``, ``rip``, ``rflags``."""
    def set_registers(self, values: dict[str, int]) -> None:
        """Sets those that are named."""
    def system_registers(self) -> dict[str, Any]:
        """Segment, descriptor-table and control registers.

        ``es cs ss ds fs gs ldtr tr`` (dicts of ``base limit attributes selector``), ``gdtr``,
        ``idtr`` (dicts of ``base limit``), ``cr0 cr2 cr3 cr4 cr8 efer apic_base``.
        """
    def set_system_registers(self, values: dict[str, Any]) -> None:
        """Sets those that are named.

        Attributes are descriptor bits 8 to 23 as in the VMX access-rights format (0x9b code16,
        0xc09b code32, 0xa09b code64, 0xc093 data32, 0x8b busy TSS, 0x10000 unusable).
        """
    def xsave(self) -> bytes:
        """Standard-format XSAVE image."""
    def set_xsave(self, image: Buffer) -> None: ...
    def state(self) -> dict[str, Any]:
        """The whole state of the processor.

        ``registers``, ``system_registers``, ``xcr0``, ``xsave``, ``debug`` (``dr0 dr1 dr2 dr3 dr6
        dr7``), ``msrs`` (by number), ``events`` (``interrupt_shadow nmi_pending nmi_blocked``, and
        ``injected``: kind, vector and error code of an event that is being delivered, or None),
        ``activity`` (``running halted waiting-for-startup``). Not in the middle of an instruction
        that waits for a device.
        """
    def set_state(self, values: dict[str, Any]) -> None:
        """Goes on where the processor of ``values`` stopped, on whichever engine that was."""
    def set_debugging(self, *, single_step: bool = False, breakpoints: list[int] = ...) -> None:
        """Leaves with :class:`Debug` after each instruction, or before those at some addresses.

        The addresses are linear, at most four. The instruction that ``run`` begins with is not
        stopped at.
        """
    def set_interpreter(self, interpreter: bool) -> None:
        """Makes the interpreter execute everything, or lets code be translated again."""
    def statistics(self) -> dict[str, int]:
        """Counters of the engine."""
    def start_profile(self, hertz: int) -> None:
        """Counts ``hertz`` times per second of processor time what it goes into; 0 stops."""
    def profile(self, most: int = 0) -> dict[str, Any]:
        """What was counted since the start.

        ``phases`` are samples by name: ``translated``, ``slow_paths`` and ``stubs`` of translated
        code, ``outside`` the engine (device models), ``dispatch``, ``translate``, ``interpret``,
        ``tlb_miss``. ``blocks`` are the ``most`` hottest pieces of translated code, as dicts of
        ``address user samples guest host``; the last two are listings.
        """
    def recent_code(self) -> list[str]:
        """Disassembly of the code around the last instruction, newest last: for error messages."""

@final
class Video:
    """Memory of a VGA, and the registers between it and the processors. Thread-safe."""

    def __new__(cls, size: int) -> Video: ...
    @property
    def size(self) -> int: ...
    @property
    def memory(self) -> Memory:
        """The memory itself, to be mapped."""
    @property
    def text_memory(self) -> Memory:
        """What is to be mapped at the window of a text mode."""
    def direct_text(self) -> int | None:
        """Where the window shows a text mode that can be mapped."""
    def enter_text(self) -> None:
        """Fills the text memory from the planes: it is the newer one from now on."""
    def sync_text(self, *, leave: bool = False) -> None:
        """Brings the planes up to date with the text memory, and ends its reign or not."""
    def reset(self) -> None:
        """Registers, latches and timing as after power-on."""
    def set_decode(self, ports: bool, window: bool) -> None:
        """Lets the engine find the ports and the memory window, or not."""
    def port_read(self, port: int) -> int:
        """Reads port 3C4h, 3C5h, 3CEh, 3CFh, 3BAh or 3DAh."""
    def port_write(self, port: int, value: int) -> None:
        """Writes port 3C4h, 3C5h, 3CEh or 3CFh."""
    def take_flip_flop_reset(self) -> bool:
        """Whether a read of the input status reset the flip-flop since this was asked last."""
    def set_misc(self, value: int) -> None:
        """Sets the miscellaneous output register."""
    def set_bank(self, offset: int | None, *, linear: bool = True) -> None:
        """Shows a mode of the VBE in the window, from ``offset`` bytes on."""
    def set_watched(self, watched: bool) -> None:
        """Leaves every change of a register to Python."""
    def set_timing(
        self, frame: int, lines: int, shown: int, retrace: tuple[int, int], line_shown: int
    ) -> None:
        """Tells when lines and frames begin and end.

        ``frame`` in nanoseconds, ``line_shown`` in thousandths of a line.
        """
    @property
    def registers(self) -> bytes:
        """Sequencer index and five registers, graphics index and nine."""
    def set_registers(self, values: Buffer) -> None:
        """Sets them."""
    @property
    def latches(self) -> int:
        """The latches, plane 0 lowest."""
    def set_latches(self, latches: int) -> None:
        """Sets the latches."""
    @property
    def writes(self) -> int:
        """Changes with writes through the window."""
    def direct(self) -> tuple[int, int, int] | None:
        """Address, size and offset in memory of the window where it is plain memory now."""
    def read(self, address: int, size: int) -> int:
        """A load from the window."""
    def write(self, address: int, size: int, value: int) -> None:
        """A store to the window."""
    def clear(self) -> None:
        """Makes the whole memory zero."""
    def peek(self, offset: int, size: int) -> bytes:
        """Copies out of the memory; zeros beyond its end."""
    def poke(self, offset: int, data: Buffer) -> None:
        """Copies into the memory; what lies beyond its end is dropped."""

@final
class Picture:
    """A picture that was drawn last, and what has changed since. Thread-safe."""

    def __new__(cls) -> Picture: ...
    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
    def draw(self, source: Video | Buffer, plan: dict[str, Any]) -> list[tuple[int, int, int, int]]:
        """Draws what video memory, or a copy of a framebuffer, shows by a plan.

        Returns what has changed: left, top, width, height.
        """
    def draw_scrolled(
        self, source: Video | Buffer, plan: dict[str, Any]
    ) -> tuple[tuple[int, int, int] | None, list[tuple[int, int, int, int]]]:
        """The same for those who can move lines by themselves.

        Returns a move that comes first (first line before, first line after, how many), and what
        differs after it.
        """
    def rgb(self, part: tuple[int, int, int, int]) -> bytes:
        """Pixels of a part, cut to the picture: red, green, blue, a byte each."""
    def packed(
        self,
        part: tuple[int, int, int, int],
        wire: tuple[int, bool, tuple[int, int, int], tuple[int, int, int]],
    ) -> bytes:
        """Pixels of a part in another format.

        The format is ``size`` (1, 2 or 4) bytes each, highest first or not; for red, green and
        blue the largest value, and the shift to the left.
        """
    def zrle(
        self,
        part: tuple[int, int, int, int],
        wire: tuple[int, bool, tuple[int, int, int], tuple[int, int, int]],
    ) -> bytes:
        """A part as the tiles of ZRLE (RFC 6143, section 7.7.6), before they are compressed."""

def kvm_probe(device: str | PathLike[str]) -> dict[str, Any]:
    """Runs tiny guests on a KVM device.

    Without a usable one: ``absence`` (``missing denied busy no-driver not-kvm version lacks
    other``) and ``reason``. Otherwise ``chips`` (whether it has interrupt hardware), ``modes`` (by
    name, why guests don't run in that mode or None), ``refused`` (instructions of a 64-bit kernel
    that it can't execute), ``cpuid`` (whether guests see the CPUID of their machine),
    ``kernel_speed`` and ``user_speed`` (64-bit instructions a second).
    """

@final
class VirtQueue:
    """A virtqueue from the device's side (VIRTIO 1.2, sections 2.6 to 2.8).

    Every method but the position's raises :class:`CoreError` with code ``queue`` when the driver
    broke the rules.
    """

    def __new__(
        cls,
        machine: Machine,
        size: int,
        descriptors: int,
        driver: int,
        device: int,
        *,
        packed: bool = False,
        event_index: bool = False,
        indirect: bool = False,
    ) -> VirtQueue: ...
    def pop(self) -> Chain | None:
        """The next buffer that the driver made available."""
    def available(self) -> bool:
        """Whether there is one."""
    def push(self, chain: Chain, written: int = 0) -> None:
        """Gives a buffer back, of whose writable part ``written`` bytes were written."""
    def needs_interrupt(self) -> bool:
        """Whether the driver wants one for what was pushed since the last call."""
    def enable_notification(self) -> bool:
        """Asks to be notified of buffers; true when one came meanwhile."""
    def disable_notification(self) -> None:
        """Asks not to be notified."""
    def position(self) -> tuple[int, int, int]:
        """How far the device has got: available, used, not yet signalled."""
    def set_position(self, available: int, used: int, unsignalled: int) -> None:
        """Goes on where another queue has got to."""

@final
class Chain:
    """A buffer of a virtqueue: what the device reads, then what it writes.

    Offsets count from the start of either part. Memory that has gone meanwhile ends a copy early.
    """

    @property
    def id(self) -> int: ...
    @property
    def readable(self) -> int:
        """Bytes that the device may read."""
    @property
    def writable(self) -> int:
        """Bytes that the device may write."""
    def segments(self) -> list[tuple[int, int]]:
        """Guest physical address and length of each piece of the writable part."""
    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Copies out of the readable part; less than ``size`` where it ends."""
    def write(self, offset: int, data: Buffer) -> int:
        """Copies into the writable part; gives how many bytes fitted."""
    def fill(self, offset: int, size: int, byte: int = 0) -> int:
        """Fills bytes of the writable part; gives how many there were."""
    def readable_views(self, offset: int, size: int) -> list[memoryview]:
        """The readable part itself, in pieces."""
    def writable_views(self, offset: int, size: int) -> list[memoryview]:
        """The writable part itself, in pieces; tell :meth:`written` what was written to them."""
    def written(self, offset: int, size: int) -> None:
        """Tells processors what was written through a view."""
    def frames(
        self,
        skip: int,
        *,
        checksum: tuple[int, int] | None = None,
        segment: int = 0,
        version: int = 4,
    ) -> list[bytes]:
        """The Ethernet frames of a packet behind ``skip`` bytes of header.

        ``checksum``: complete the one that starts and is put where these say (the second counts
        from the first). ``segment``: cut into TCP segments of as many bytes, over IP ``version``.
        Code ``bad_argument`` when the packet does not fit what is asked for.
        """

def host_tsc_hz() -> int:
    """Frequency of the host's time-stamp counter, in hertz."""
