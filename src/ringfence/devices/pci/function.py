"""A PCI function: configuration space, base registers, expansion ROM, capabilities, interrupts.

Sources: PCI local bus specification 3.0, chapter 6; PCI Express base specification 2.0, section
7.2.2 (the extended configuration space). A device model derives from :class:`PciDevice`, describes
itself in ``__init__`` and answers for its windows; docs/devices/pci.md tells how.

Left out: parity and system errors, built-in self-test, power states other than D0.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Self

from ringfence.bus import (
    NO_MEMORY,
    Dma,
    PciSlot,
    Region,
    State,
    Window,
    restore_fields,
    save_fields,
)
from ringfence.devices.pci.bars import Bar, BarKind, RomImage
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.pci.msi import Msi, MsiX

__all__ = ["PciDevice", "PciIdentity"]

COMMAND, STATUS, LATENCY, HEADER_TYPE = 0x04, 0x06, 0x0D, 0x0E
BAR0, SUBSYSTEM, ROM_BAR, CAPABILITIES, INTERRUPT_LINE, INTERRUPT_PIN = (
    0x10,
    0x2C,
    0x30,
    0x34,
    0x3C,
    0x3D,
)
COMMAND_IO, COMMAND_MEMORY, COMMAND_MASTER, COMMAND_INTX_OFF = 1 << 0, 1 << 1, 1 << 2, 1 << 10
STATUS_INTERRUPT, STATUS_CAPABILITIES = 1 << 3, 1 << 4
#: Command bits that every function keeps: decoding, mastering, parity, SERR#, INTx disable.
_COMMAND_KEPT = 0x0547
#: Status bits that a one clears: errors, which here never come.
_STATUS_CLEARED = 0xF900
_PAGE = 4096
_CONVENTIONAL, _EXTENDED = 0x100, 0x1000
#: Where the capabilities begin.
_FIRST_CAPABILITY = 0x40


class PciIdentity(NamedTuple):
    """The registers that say what a function is (PCI 3.0, section 6.2.1)."""

    vendor: int
    device: int
    #: Base class, subclass, programming interface: 24 bits.
    class_code: int
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0


class _FunctionDma:
    """Guest memory, as long as the function masters the bus."""

    __slots__ = ("target",)

    def __init__(self) -> None:
        self.target: Dma = NO_MEMORY

    def read(self, address: int, size: int) -> bytes:
        return self.target.read(address, size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self.target.write(address, data)

    def view(self, address: int, size: int) -> memoryview | None:
        return self.target.view(address, size)

    def written(self, address: int, size: int) -> None:
        self.target.written(address, size)


class PciDevice:
    """Base of all functions.

    Args:
        identity: What it is.
        pin: Its interrupt pin: 1 for INTA# to 4 for INTD#, 0 for none.
        express: Whether it has the 4 KiB of configuration space of PCI Express.

    Attributes:
        dma: Guest memory; all ones while the guest does not let the function master the bus.
    """

    #: What ``--device NAME,option=value`` takes: option and what reads its text (and raises
    #: ``ValueError`` for a bad one).
    OPTIONS: ClassVar[Mapping[str, Callable[[str], Any]]] = {}
    #: Version of the saved state.
    VERSION: ClassVar[int] = 1
    #: The model's own attributes to save, with their bounds as ``restore_fields`` has them.
    FIELDS: ClassVar[Mapping[str, int]] = {}

    def __init__(self, identity: PciIdentity, *, pin: int = 0, express: bool = False) -> None:
        size = _EXTENDED if express else _CONVENTIONAL
        self.identity = identity
        self.pin = pin
        self.dma: Dma = _FunctionDma()
        self.msi: Msi | None = None
        self.msix: MsiX | None = None
        self._slot: PciSlot | None = None
        self._bars: list[Bar] = []
        self._next_capability = _FIRST_CAPABILITY
        self._irq = False
        self._masks = bytearray(size)
        self._clears = bytearray(size)
        self._defaults = bytearray(size)
        self._space = bytearray(size)
        self.set_default(0x00, identity.vendor | identity.device << 16, 4)
        self.set_default(0x08, identity.revision | identity.class_code << 8, 4)
        self.set_default(SUBSYSTEM, identity.subsystem_vendor | identity.subsystem << 16, 4)
        self.set_default(INTERRUPT_PIN, pin, 1)
        self.set_mask(COMMAND, _COMMAND_KEPT, 2)
        self.set_mask(0x0C, 0xFF, 1)
        self.set_mask(LATENCY, 0xF8, 1)
        self.set_mask(INTERRUPT_LINE, 0xFF, 1)
        self.set_clear(STATUS, _STATUS_CLEARED, 2)

    # For the bus.

    def attach(self, slot: PciSlot) -> None:
        """Plugs the function into a bus."""
        self._slot = slot
        self._update()

    def reset(self) -> None:
        """Configuration space as after power-on. A model resets itself, and then calls this."""
        self._space[:] = self._defaults
        self._irq = False
        if self.msix is not None:
            self.msix.reset()
        self._update()

    def config_read(self, offset: int, size: int) -> int:
        """Reads a register; the extended space of a conventional function reads as all ones."""
        if offset >= len(self._space):
            return (1 << 8 * size) - 1
        return int.from_bytes(self._space[offset : offset + size], "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Writes the bits of a register that can be written."""
        space = self._space
        if offset >= len(space):
            return
        for index in range(size):
            at, byte = offset + index, value >> 8 * index & 0xFF
            mask = self._masks[at]
            space[at] = (space[at] & ~mask | byte & mask) & ~(self._clears[at] & byte)
        self._update()
        self.config_written(offset, size)

    def state(self) -> State:
        """Configuration space, interrupts and ``FIELDS``."""
        state = save_fields(self, self.VERSION, {"_space": 0, "_irq": 0, **self.FIELDS})
        state["msix"] = self.msix.save() if self.msix is not None else b""
        return state

    def restore(self, state: State) -> None:
        """Takes them; what is fixed in configuration space stays as it is."""
        table = state.get("msix")
        own = {key: value for key, value in state.items() if key != "msix"}
        MsiX.check(type(self).__name__, self.msix, table)
        fields = {"_space": len(self._space), "_irq": 1, **self.FIELDS}
        restore_fields(self, own, self.VERSION, fields)
        for at, mask in enumerate(self._masks):
            self._space[at] = self._defaults[at] & ~mask | self._space[at] & mask
        if self.msix is not None and isinstance(table, bytes):
            self.msix.load(table)
        self._update()
        self.restored()

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:  # noqa: ARG003
        """Makes one from the options of ``--device``, already read by ``OPTIONS``.

        A model that needs a clock or a host end asks ``context`` for it.
        """
        return cls(**options)

    # For models to override.

    def config_written(self, offset: int, size: int) -> None:
        """Called after each write to configuration space."""

    def restored(self) -> None:
        """Called after a restore, when all attributes are set."""

    # For models to call while they describe themselves.

    def add_bar(
        self,
        index: int,
        device: Region,
        *,
        size: int,
        kind: BarKind = "memory32",
        prefetchable: bool = False,
        memory: Any = None,
        log_dirty: bool = False,
        name: str = "",
    ) -> Bar:
        """Gives the function a base address register.

        Args:
            index: 0 to 5; a 64-bit one takes the next one as well.
            device: What answers there; offsets count from the base.
            size: A power of two, at least 4 (I/O; at most 256) or 16 (memory) bytes.
            kind: ``io``, ``memory32`` or ``memory64``.
            prefetchable: Whether reads have no side effects.
            memory: Memory that the guest reaches directly instead (a whole number of pages).
            log_dirty: Whether the engine keeps track of the pages that are written.
            name: For messages.
        """
        bar = Bar(
            BAR0 + 4 * index,
            kind,
            Window(
                name or f"{type(self).__name__.lower()} bar{index}",
                "io" if kind == "io" else "memory",
                size,
                device,
                memory=memory,
                log_dirty=log_dirty,
            ),
            prefetchable=prefetchable,
        )
        for at, default, mask in bar.registers():
            self.set_default(at, default, 4)
            self.set_mask(at, mask, 4)
        self._bars.append(bar)
        return bar

    def add_rom(self, image: bytes) -> Bar:
        """Gives the function an expansion ROM (section 6.2.5.2); rounded up to a power of two."""
        rom = RomImage(image)
        name = f"{type(self).__name__.lower()} rom"
        # Memory is mapped in whole pages.
        shown = rom.image if rom.size % _PAGE == 0 else b""
        window = Window(name, "memory", rom.size, rom, image=shown)
        bar = Bar(ROM_BAR, "rom", window)
        ((at, default, mask),) = bar.registers()
        self.set_default(at, default, 4)
        self.set_mask(at, mask, 4)
        self._bars.append(bar)
        return bar

    def add_window(self, window: Window, address: Callable[[], int | None]) -> None:
        """Gives the function a range that registers of its own place.

        ``address`` is asked after each write to configuration space.
        """
        self._bars.append(Bar(0, "own", window, own=address))

    def add_capability(self, identifier: int, body: bytes, *, writable: bytes = b"") -> int:
        """Adds a capability (section 6.7) and returns its offset.

        Args:
            identifier: Its number.
            body: What follows identifier and link: offset 2 on.
            writable: Masks of the bits of ``body`` that a guest can write.
        """
        offset = self._next_capability
        self._next_capability = offset + 2 + len(body) + 3 & ~3
        if self._next_capability > _CONVENTIONAL:
            raise ValueError("the capabilities do not fit into 256 bytes")
        self._defaults[offset : offset + 2] = bytes([identifier, self._defaults[CAPABILITIES]])
        self._defaults[offset + 2 : offset + 2 + len(body)] = body
        self._masks[offset + 2 : offset + 2 + len(writable)] = writable
        self._defaults[CAPABILITIES] = offset
        self._defaults[STATUS] |= STATUS_CAPABILITIES
        self._space[:] = self._defaults
        return offset

    def add_msi(self, vectors: int = 1) -> None:
        """Adds message-signalled interrupts (section 6.8.1); ``vectors``: 1, 2, 4, 8, 16 or 32."""
        self.msi = Msi(self, vectors)

    def add_msix(self, vectors: int, *, bar: int) -> None:
        """Adds MSI-X (section 6.8.2), with its table in a base register of its own."""
        self.msix = MsiX(self, vectors, bar)

    def set_default(self, offset: int, value: int, size: int) -> None:
        """Sets what a register reads after reset."""
        self._defaults[offset : offset + size] = value.to_bytes(size, "little")
        self._space[offset : offset + size] = value.to_bytes(size, "little")

    def set_mask(self, offset: int, mask: int, size: int) -> None:
        """Sets which bits of a register can be written."""
        self._masks[offset : offset + size] = mask.to_bytes(size, "little")

    def set_clear(self, offset: int, mask: int, size: int) -> None:
        """Sets which bits of a register are cleared by writing a one."""
        self._clears[offset : offset + size] = mask.to_bytes(size, "little")

    # For models to call while the machine runs.

    def register(self, offset: int, size: int) -> int:
        """A register of configuration space as it is."""
        return int.from_bytes(self._space[offset : offset + size], "little")

    def set_register(self, offset: int, value: int, size: int) -> None:
        """Changes a register from inside, masks or not."""
        self._space[offset : offset + size] = value.to_bytes(size, "little")

    @property
    def bus_master(self) -> bool:
        """Whether the guest lets the function reach its memory."""
        return bool(self._space[COMMAND] & COMMAND_MASTER)

    def set_irq(self, level: bool) -> None:
        """Drives the function's interrupt pin.

        With MSI or MSI-X enabled the pin is silent (section 6.8); the level is kept.
        """
        self._irq = level
        self._drive()

    def notify(self, vector: int = 0) -> bool:
        """Sends message ``vector`` by MSI-X or MSI; false when the guest enabled neither.

        A function with a level-triggered cause calls :meth:`set_irq` in any case, and this when
        the cause rises.
        """
        if self.msix is not None and self.msix.enabled:
            self.msix.send(vector)
            return True
        if self.msi is not None and self.msi.enabled:
            self.msi.send(vector)
            return True
        return False

    def send_message(self, address: int, data: int) -> None:
        """Sends an interrupt message: a write to memory, which needs bus mastering."""
        if self._slot is not None and self.bus_master:
            self._slot.send_msi(address, data)

    @property
    def bars(self) -> list[Bar]:
        """Base registers, expansion ROM and other windows."""
        return self._bars

    def _update(self) -> None:
        """Makes windows, DMA and interrupts follow the registers."""
        slot = self._slot
        if slot is None:
            return
        space = self._space
        command = space[COMMAND]
        assert isinstance(self.dma, _FunctionDma)
        self.dma.target = slot.memory if command & COMMAND_MASTER else NO_MEMORY
        for bar in self._bars:
            address = bar.address(space, command)
            if address != bar.window.address:
                slot.place(bar.window, address)
        if self.msi is not None:
            self.msi.settle()
        if self.msix is not None:
            self.msix.settle()
        self._drive()

    def _drive(self) -> None:
        """Drives the pin, and its bit in the status register."""
        space = self._space
        status = space[STATUS] & ~STATUS_INTERRUPT
        space[STATUS] = status | (STATUS_INTERRUPT if self._irq else 0)
        if self._slot is None or not self.pin:
            return
        silent = (
            space[COMMAND + 1] & COMMAND_INTX_OFF >> 8
            or (self.msi is not None and self.msi.enabled)
            or (self.msix is not None and self.msix.enabled)
        )
        self._slot.set_intx(self.pin, self._irq and not silent)
