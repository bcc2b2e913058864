"""The contract of engines, as protocols in the shape of the KVM API.

``ringfence._core`` fulfils it; tests fulfil it with a scripted machine.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

__all__ = ["Capabilities", "Engine", "EngineMachine", "EngineMemory", "EngineVcpu", "ExitKinds"]


class ExitKinds(NamedTuple):
    """The classes of exits. ``run`` returns instances of exactly these."""

    #: ``port``, ``size``; the next ``run`` gets the value.
    port_in: type[Any]
    #: ``port``, ``size``, ``value``.
    port_out: type[Any]
    #: ``address``, ``size``; the next ``run`` gets the value.
    mmio_read: type[Any]
    #: ``address``, ``size``, ``value``.
    mmio_write: type[Any]
    #: ``HLT`` on a machine without interrupt hardware.
    halt: type[Any]
    #: A triple fault.
    shutdown: type[Any]
    #: ``VMCALL`` or ``VMMCALL``.
    hypercall: type[Any]
    #: A breakpoint that a debugger asked for.
    debug: type[Any]
    #: Another thread called ``interrupt``.
    interrupted: type[Any]
    #: ``port``, ``size``, ``count``: several elements; the next ``run`` gets their bytes. An
    #: engine without it sends them one by one.
    port_in_string: type[Any] = type(None)
    #: ``port``, ``size``, ``data``: several elements of ``size`` bytes; or one by one.
    port_out_string: type[Any] = type(None)


class Capabilities(NamedTuple):
    """Whether and why an engine can run here."""

    name: str
    available: bool
    #: Why not, or a remark.
    reason: str = ""
    #: What the user can do about it.
    mend: str = ""
    #: Whether ``auto`` may pick it: it runs guests, and better than another would.
    advised: bool = True


class EngineVcpu(Protocol):
    """A virtual processor."""

    def run(self, completion: int | bytes = 0) -> Any:
        """Runs the guest until something leaves the engine; the interpreter is released."""

    def interrupt(self) -> None:
        """Makes ``run`` return soon, or at once if it is not running."""

    def registers(self) -> dict[str, int]:
        """General registers, RIP and RFLAGS by name."""

    def set_registers(self, values: dict[str, int]) -> None:
        """Sets those that are named."""

    def system_registers(self) -> dict[str, Any]:
        """Segment, table and control registers by name."""

    def set_system_registers(self, values: dict[str, Any]) -> None:
        """Sets those that are named."""

    def state(self) -> dict[str, Any]:
        """The whole state of the processor by name; see ``ringfence._core.Vcpu.state``."""

    def set_state(self, values: dict[str, Any]) -> None:
        """Goes on where the processor of ``values`` stopped, on whichever engine that was."""

    def statistics(self) -> Mapping[str, int]:
        """Counters of the engine."""

    def recent_code(self) -> list[str]:
        """Disassembly around the last instruction, newest last."""

    def start_profile(self, hertz: int) -> None:
        """Counts ``hertz`` times per second of processor time what it goes into; 0 stops."""

    def profile(self, most: int = 0) -> dict[str, Any]:
        """``phases`` (samples by name) and the ``most`` hottest ``blocks`` since the start."""


class EngineMemory(Protocol):
    """Host memory that is mapped into machines at no, one or several addresses."""

    @property
    def size(self) -> int:
        """Bytes."""

    def view(self) -> memoryview:
        """A writable view without a copy; tell what is written by :meth:`written`."""

    def written(self, offset: int = 0, size: int | None = None) -> None:
        """Drops code translated from these bytes and marks their pages dirty."""

    def dirty_pages(self, offset: int = 0, size: int | None = None) -> bytes:
        """Pages written to since the last call, a bit each from bit 0 of the first byte on."""


class EngineMachine(Protocol):
    """Guest memory, interrupt hardware and processors of one virtual machine."""

    def map_memory(self, address: int, size: int, *, readonly: bool = False) -> None:
        """Adds zeroed memory, committed lazily."""

    def map(
        self,
        address: int,
        memory: Any,
        *,
        offset: int = 0,
        size: int | None = None,
        readonly: bool = False,
        log_dirty: bool = False,
        replace: bool = False,
        smm: bool = False,
    ) -> None:
        """Shows memory made by :meth:`Engine.create_memory`, also while processors run."""

    def unmap(self, address: int, size: int, *, smm: bool = False) -> None:
        """Takes memory away; accesses leave as exits from then on."""

    def smi(self, vcpu: int = 0) -> None:
        """Raises SMI# at a processor: it enters system-management mode."""

    def dirty_pages(self, address: int, size: int) -> bytes:
        """Pages written to since the last call, in a range that is mapped with ``log_dirty``."""

    def a20(self, enabled: bool) -> None:
        """Address line A20 of the processors."""

    def dma_read(self, address: int, size: int) -> bytes:
        """Reads as a bus master does: FFh where there is no memory."""

    def dma_write(self, address: int, data: Any) -> None:
        """Writes as a bus master does: dropped where there is no RAM."""

    def read(self, address: int, size: int) -> bytes:
        """Copies out of guest memory."""

    def write(self, address: int, data: Any) -> None:
        """Copies into guest memory."""

    def irq_line(self, gsi: int, level: bool) -> None:
        """Sets the level of a global system interrupt."""

    def signal_msi(self, address: int, data: int) -> None:
        """Delivers a message-signalled interrupt."""

    def vcpu(self, index: int) -> EngineVcpu:
        """A virtual processor."""

    @property
    def nanoseconds(self) -> int:
        """Time since the machine was made, on the guest's TSC."""

    @property
    def instructions(self) -> int:
        """Instructions that a deterministic machine has executed; 0 in others."""

    def stop_at(self, instructions: int | None) -> None:
        """Makes ``run`` of a deterministic machine return, interrupted, at that number."""

    def set_deadline(self, nanoseconds: int | None) -> None:
        """Makes ``run`` of a deterministic machine return, interrupted, at that time."""


class Engine(Protocol):
    """A way to virtualize."""

    @property
    def name(self) -> str:
        """``bt``, ``kvm``."""

    @property
    def exits(self) -> ExitKinds:
        """The classes of its exits."""

    @property
    def error(self) -> type[Exception]:
        """What its methods raise."""

    def create_memory(self, size: int) -> EngineMemory:
        """Makes memory of whole pages, zeroed, to be mapped.

        Raises:
            EngineError: the host refuses.
        """

    def create_machine(
        self, vcpus: int, *, cpu: str = "host", seed: int | None = None
    ) -> EngineMachine:
        """Makes a machine without memory, its processors of the model ``cpu``.

        With a ``seed`` it is deterministic: one processor, time is the number of executed
        instructions, random numbers come from the seed.

        Raises:
            ConfigError: there is no such model, or the host can't run it; or the engine has no
                deterministic machines.
            EngineError: the host refuses.
        """
