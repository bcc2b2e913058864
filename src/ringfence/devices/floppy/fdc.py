"""The floppy disk controller Intel 82077AA, with up to two drives.

Source: Intel 82077AA data sheet (290166-007). Offsets 0 to 5 are the ports 3F0h to 3F5h, offset 7
is 3F7h; 3F6h between them is the IDE controller's. Data moves by ISA DMA, or byte by byte through
the FIFO. Left out: SCAN commands, FM (single density), tape drives, and rotational delays: a disk
turns as fast as it has to.
"""

from collections.abc import Callable
from typing import ClassVar, Protocol

from ringfence.bus import BlockQueue, Clock, IrqLine, State, Timer, restore_fields, save_fields
from ringfence.devices.floppy import commands
from ringfence.devices.floppy.drive import FloppyDrive
from ringfence.errors import StateError

__all__ = ["DmaChannel", "FloppyController"]

SRA, SRB, DOR, TDR, MSR, FIFO, _, DIR = range(8)
# Digital output register (2.1.3).
_NOT_RESET, _DMA_GATE = 0x04, 0x08
# Main status register (2.1.5).
_RQM, _DIO, _NON_DMA, _BUSY = 0x80, 0x40, 0x20, 0x10
_SOFT_RESET = 0x80
_CHANGED = 0x80
# Phases.
IDLE, COMMAND, EXECUTION, RESULT, READING, WRITING = range(6)
#: Nanoseconds that the mechanism or a reset takes.
_DELAY = 200_000
_VERSION = 1
_FIELDS = {
    "_dor": 0xFF,
    "_tdr": 0xFF,
    "_rate": 3,
    "_phase": WRITING,
    "_command": 0xFF,
    "_parameters": 0xFF,
    "_result": 0xFF,
    "_data": 0xFF,
    "_at": 1 << 20,
    "_interrupt": 1,
    "_reset_senses": 4,
    "_seek_status": 0x1FF,
    "_pending": 2,
    "specify": 0xFFFF,
    "configuration": 0xFF,
    "precompensation": 0xFF,
    "lock": 1,
    "perpendicular": 0xFF,
}


class DmaChannel(Protocol):
    """The ISA DMA channel that serves the controller."""

    @property
    def ready(self) -> bool:
        """Whether the channel would answer a request now."""

    @property
    def left(self) -> int:
        """Bytes until the terminal count."""

    def put(self, data: bytes) -> bool:
        """Moves bytes to memory; true if that was the terminal count."""

    def get(self, length: int) -> tuple[bytes, bool]:
        """Moves bytes from memory; and whether that was the terminal count."""


class FloppyController:
    """The controller.

    Args:
        drives: Drives A: and B:, as far as there are any.
        irq: Its interrupt.
        dma: Its DMA channel.
        clock: The machine's clock.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 8

    def __init__(
        self,
        drives: tuple[FloppyDrive | None, FloppyDrive | None],
        irq: IrqLine,
        dma: DmaChannel,
        clock: Clock,
    ) -> None:
        self.drives = drives
        self.dma = dma
        self._irq = irq
        self._clock = clock
        self._timer: Timer | None = None
        self._then: Callable[[], None] = _nothing
        self._phase = IDLE
        self._parameters: list[int] = []
        self._result: list[int] = []
        self._data: list[int] = []
        self._at = self._pending = self._interrupt = 0
        self.reset()

    def reset(self) -> None:
        """Power-on: the controller is held in reset until the guest lets it go."""
        self.cancel()
        self._dor = self._tdr = 0
        self._rate = 2
        self._seek_status = [0x100] * 4
        self.lock = 0
        self._defaults(hard=True)
        for drive in self.drives:
            if drive is not None:
                drive.reset()

    def read(self, offset: int, size: int) -> int:
        """Reads a register."""
        if offset == FIFO:
            return self._read_fifo()
        if offset == MSR:
            return self._main_status()
        if offset == DOR:
            return self._dor
        if offset == TDR:
            return self._tdr | 0xFC
        if offset == DIR:
            drive = self._drive(self._dor & 3)
            return 0x7F | (_CHANGED if drive is None or drive.changed else 0)
        if offset == SRA:
            return (0x80 if self._interrupt else 0) | 0x40
        if offset == SRB:
            return 0xC0 | (0x20 if self._dor & 1 else 0) | self._dor >> 4 & 3
        return 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a register."""
        if offset == FIFO:
            self._write_fifo(value)
        elif offset == DOR:
            self._write_dor(value)
        elif offset == MSR:
            self._rate = value & 3
            if value & _SOFT_RESET:
                self._defaults(hard=False)
                self._later(1)
        elif offset == DIR:
            self._rate = value & 3
        elif offset == TDR:
            self._tdr = value & 3

    def state(self) -> State:
        """Registers, phases and drives."""
        self.settle()
        state = save_fields(self, _VERSION, _FIELDS)
        for index, drive in enumerate(self.drives):
            state[f"drive{index}"] = [] if drive is None else drive.numbers()
        return state

    def restore(self, state: State) -> None:
        """Takes them."""
        numbers = []
        for index, drive in enumerate(self.drives):
            value = state.get(f"drive{index}")
            wanted = 0 if drive is None else len(drive.numbers())
            if (
                not isinstance(value, list)
                or len(value) != wanted
                or not all(type(n) is int and 0 <= n < 256 for n in value)
            ):
                raise StateError(f"FloppyController: 'drive{index}' is not the state of a drive")
            numbers.append(value)
        lengths = {"seek_status": range(4, 5), "parameters": range(17), "result": range(33)}
        for name, length in lengths.items():
            if isinstance(state.get(name), list) and len(state[name]) not in length:
                raise StateError(f"FloppyController: {name!r} has {len(state[name])} entries")
        own = {key: value for key, value in state.items() if not key.startswith("drive")}
        self.cancel()
        restore_fields(self, own, _VERSION, _FIELDS)
        for drive, values in zip(self.drives, numbers, strict=True):
            if drive is not None:
                drive.set_numbers(values)
        if self._phase in (EXECUTION, COMMAND) or self._at > len(self._data):
            # A command that was half done ends as if the disk had been pulled out.
            self._phase = self._phase if self._phase == COMMAND and self._parameters else IDLE
            self._at = 0
            self._data = []
        self._drive_irq()
        if self._pending:
            self._later(self._pending)

    # For commands.

    @property
    def rate(self) -> int:
        """Data rate, as the configuration control register names it."""
        return self._rate

    @property
    def by_dma(self) -> bool:
        """Whether data moves by DMA rather than through the FIFO."""
        return not self.specify & 1

    def drive(self, number: int) -> FloppyDrive | None:
        """The drive that is selected by a command's second byte."""
        return self._drive(number & 3)

    def finish(self, result: list[int], *, interrupt: bool = True) -> None:
        """Ends a command with its result bytes."""
        self._result = result
        self._at = 0
        self._data = []
        self._phase = RESULT if result else IDLE
        if interrupt:
            self._set_interrupt(True)

    def seek_ended(self, drive: int, status: int) -> None:
        """A seek will have ended soon."""
        self._seek_status[drive] = status
        self._later(2)

    def sense(self) -> tuple[int, int]:
        """ST0 and cylinder for SENSE INTERRUPT; 80h if there is nothing to tell."""
        self._set_interrupt(False)
        if self._reset_senses:
            number = 4 - self._reset_senses
            self._reset_senses -= 1
            return 0xC0 | number, self._cylinder(number)
        for number, status in enumerate(self._seek_status):
            if status < 0x100:
                self._seek_status[number] = 0x100
                return status, self._cylinder(number)
        return 0x80, 0

    def execute(self) -> None:
        """A command waits for the disk."""
        self._phase = EXECUTION

    def give(self, data: bytes, then: Callable[[], None]) -> None:
        """Gives bytes to the host through the FIFO."""
        self._data = list(data)
        self._at = 0
        self._phase = READING
        self._then = then
        self._set_interrupt(True)

    def want(self, length: int, then: Callable[[], None]) -> None:
        """Takes bytes from the host through the FIFO; they are in :attr:`collected` then."""
        self._data = [0] * length
        self._at = 0
        self._phase = WRITING
        self._then = then
        self._set_interrupt(True)

    @property
    def collected(self) -> bytes:
        """Bytes that the host gave."""
        return bytes(self._data)

    # For the board.

    def insert(self, number: int, queue: BlockQueue | None) -> None:
        """Changes the disk in a drive."""
        drive = self.drives[number]
        if drive is not None:
            self.cancel()
            if self._phase in (EXECUTION, READING, WRITING):
                self._phase = IDLE
            drive.insert(queue)

    def settle(self) -> None:
        """Waits for what the host does for the drives."""
        for drive in self.drives:
            if drive is not None and drive.queue is not None:
                drive.queue.settle()

    def cancel(self) -> None:
        """Ends what is under way."""
        for drive in self.drives:
            if drive is not None and drive.queue is not None:
                drive.queue.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Registers.

    def _defaults(self, *, hard: bool) -> None:
        """What a reset sets; a locked FIFO configuration outlives a soft one."""
        if hard or not self.lock:
            self.configuration = self.precompensation = 0
        if hard:
            self.specify = 0
            self.perpendicular = 0
        self._then = _nothing
        self._phase = IDLE
        self._command = 0
        self._parameters = []
        self._result = []
        self._data = []
        self._at = 0
        self._reset_senses = 0
        self._pending = 0
        self._interrupt = 0
        self._seek_status = [0x100] * 4
        self._drive_irq()

    def _drive(self, number: int) -> FloppyDrive | None:
        return self.drives[number] if number < 2 else None

    def _cylinder(self, number: int) -> int:
        drive = self._drive(number)
        return 0 if drive is None else drive.cylinder

    def _main_status(self) -> int:
        if not self._dor & _NOT_RESET:
            return 0
        phase = self._phase
        if phase == IDLE:
            return _RQM
        if phase == COMMAND:
            return _RQM | _BUSY
        if phase == EXECUTION:
            return _BUSY
        if phase == RESULT:
            return _RQM | _DIO | _BUSY
        return _RQM | _BUSY | _NON_DMA | (_DIO if phase == READING else 0)

    def _write_dor(self, value: int) -> None:
        before, self._dor = self._dor, value
        if not value & _NOT_RESET:
            if before & _NOT_RESET:
                self.cancel()
                self._defaults(hard=False)
        elif not before & _NOT_RESET:
            self._later(1)
        self._drive_irq()

    def _read_fifo(self) -> int:
        if self._phase == READING:
            self._set_interrupt(False)
            value = self._data[self._at]
            self._at += 1
            if self._at >= len(self._data):
                self._ended()
            return value
        if self._phase != RESULT or self._at >= len(self._result):
            return 0
        self._set_interrupt(False)
        value = self._result[self._at]
        self._at += 1
        if self._at >= len(self._result):
            self._phase = IDLE
        return value

    def _write_fifo(self, value: int) -> None:
        if not self._dor & _NOT_RESET:
            return
        if self._phase == WRITING:
            self._set_interrupt(False)
            self._data[self._at] = value
            self._at += 1
            if self._at >= len(self._data):
                self._ended()
        elif self._phase == IDLE:
            self._command = value
            self._parameters = []
            self._phase = COMMAND
            if commands.parameters(value) == 0:
                self._run()
        elif self._phase == COMMAND:
            self._parameters.append(value)
            if len(self._parameters) >= commands.parameters(self._command):
                self._run()

    def _run(self) -> None:
        """All bytes of a command are there."""
        self._phase = IDLE
        commands.run(self, self._command, self._parameters)

    def _ended(self) -> None:
        """The host has moved all bytes through the FIFO."""
        self._phase = EXECUTION
        then, self._then = self._then, _nothing
        then()
        if self._phase == EXECUTION and not self._busy():
            # What was to follow is lost, as after a restore.
            self._phase = IDLE

    def _busy(self) -> bool:
        return any(d is not None and d.queue is not None and d.queue.busy for d in self.drives)

    # Interrupts.

    def _later(self, kind: int) -> None:
        """An interrupt that comes in a while: 1 after a reset, 2 after a seek."""
        if self._timer is not None:
            self._timer.cancel()
        self._pending = kind
        self._timer = self._clock.call_at(self._clock.now() + _DELAY, self._expired)

    def _expired(self) -> None:
        self._timer = None
        kind, self._pending = self._pending, 0
        if kind == 1:
            # Polling finds all four drives not ready to be what they were (5.2.2).
            self._reset_senses = 4
        self._set_interrupt(True)

    def _set_interrupt(self, level: bool) -> None:
        self._interrupt = int(level)
        self._drive_irq()

    def _drive_irq(self) -> None:
        self._irq.set(bool(self._interrupt and self._dor & _DMA_GATE))


def _nothing() -> None:
    """Does nothing."""
