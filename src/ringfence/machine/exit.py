"""Why a machine ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ringfence.errors import (
    EmulationError,
    EngineError,
    GuestOutOfMemory,
    GuestPanic,
    GuestShutdown,
    GuestTimeout,
    RingfenceError,
)

__all__ = ["ExitReason", "MachineExit"]


class ExitReason(StrEnum):
    """The kinds of ends."""

    #: The guest switched itself off.
    POWER_OFF = "power-off"
    #: The guest reset itself, and the machine was not to start again.
    RESET = "reset"
    #: A processor shut down after a triple fault.
    SHUTDOWN = "shutdown"
    #: The guest's kernel panicked.
    PANIC = "panic"
    #: The guest wrote to the debug-exit port.
    DEBUG_EXIT = "debug-exit"
    #: The host stopped it.
    STOPPED = "stopped"
    #: The machine's time was over.
    TIMEOUT = "timeout"
    #: The guest did what the engine can't.
    EMULATION = "emulation"
    #: The engine or a device of ours failed.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MachineExit:
    """How a machine ended."""

    reason: ExitReason
    #: What the guest, or we, had to say.
    message: str = ""
    #: What the guest wrote to the debug-exit port.
    status: int = 0
    #: After a triple fault, or what can't be emulated: which processor, its registers, and its
    #: last instructions.
    processor: int = 0
    registers: Mapping[str, int] = field(default_factory=dict)
    system_registers: Mapping[str, object] = field(default_factory=dict)
    disassembly: tuple[str, ...] = ()
    #: The end of the guest's console output.
    console: str = ""
    #: What failed.
    cause: BaseException | None = None

    def error(self) -> RingfenceError | None:
        """The end as an error; ``None`` if it was an orderly one."""
        if self.reason is ExitReason.PANIC:
            kind = GuestOutOfMemory if _is_out_of_memory(self.message) else GuestPanic
            return kind(f"the guest's kernel panicked: {self.message}", console=self.console)
        if self.reason is ExitReason.SHUTDOWN:
            return GuestShutdown(
                f"processor {self.processor} of the guest shut down: {self.message}",
                console=self.console,
                registers=self.registers,
                system_registers=self.system_registers,
                disassembly=self.disassembly,
            )
        if self.reason is ExitReason.TIMEOUT:
            return GuestTimeout(self.message, console=self.console)
        if self.reason is ExitReason.EMULATION:
            return EmulationError(
                f"processor {self.processor} of the guest can't go on: {self.message}",
                registers=self.registers,
                system_registers=self.system_registers,
                disassembly=self.disassembly,
            )
        if self.reason is ExitReason.FAILED:
            error = EngineError(self.message)
            error.__cause__ = self.cause
            return error
        return None


def _is_out_of_memory(message: str) -> bool:
    """Whether a panic's message tells of a lack of memory."""
    lowered = message.lower()
    return "out of memory" in lowered or "deadlocked on memory" in lowered
