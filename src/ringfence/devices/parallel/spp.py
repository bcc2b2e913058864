"""Standard parallel port with a printer that is always ready.

Sources: IBM PC/AT technical reference, "Printer adapter"; IEEE 1284-1994, compatibility mode. Data
at offset 0, status at 1, control at 2. The printer takes a byte at each strobe, acknowledges it at
once, and hands it on. Left out: the enhanced modes (EPP, ECP), by whose absence a driver finds a
standard port.
"""

from typing import ClassVar

from ringfence.bus import CharPort, Clock, IrqLine, State, restore_fields, save_fields

__all__ = ["ParallelPort"]

DATA, STATUS, CONTROL = 0, 1, 2
CONTROL_STROBE, CONTROL_AUTOFEED, CONTROL_INIT, CONTROL_SELECT = 0x01, 0x02, 0x04, 0x08
CONTROL_IRQ, CONTROL_INPUT = 0x10, 0x20
#: Not busy, no acknowledge under way, selected, no error; unused bits read as ones.
_READY = 0xDF
_BITS = 0x3F
_FLUSH_DELAY, _FLUSH_SIZE = 1_000_000, 4096
_VERSION = 1
_FIELDS = {"_data": 0xFF, "_control": _BITS}


class ParallelPort:
    """The port and its printer.

    Args:
        port: Takes what is printed.
        irq: Interrupt wire (IRQ 7): an edge for each byte that is acknowledged.
        clock: The machine's clock.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 3

    def __init__(self, port: CharPort, irq: IrqLine, clock: Clock) -> None:
        self._port = port
        self._irq = irq
        self._clock = clock
        self._printed = bytearray()
        self.reset()

    def reset(self) -> None:
        """All lines inactive."""
        self.flush()
        self._data = self._control = 0

    def read(self, offset: int, size: int) -> int:
        """A register; while data is an input, nobody drives its lines."""
        if offset == DATA:
            return 0xFF if self._control & CONTROL_INPUT else self._data
        return _READY if offset == STATUS else self._control | 0xC0

    def write(self, offset: int, size: int, value: int) -> None:
        """Data or control; the strobe's leading edge prints."""
        if offset == DATA:
            self._data = value
        elif offset == CONTROL:
            rising = value & ~self._control
            self._control = value & _BITS
            if rising & CONTROL_STROBE and not value & CONTROL_INPUT:
                self._print()

    def state(self) -> State:
        """Data and control; what was printed is handed on first."""
        self.flush()
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes data and control."""
        restore_fields(self, state, _VERSION, _FIELDS)

    def flush(self) -> None:
        """Hands on what was printed."""
        if self._printed:
            data = bytes(self._printed)
            self._printed.clear()
            self._port.write(data)

    def _print(self) -> None:
        if not self._printed:
            self._clock.call_at(self._clock.now() + _FLUSH_DELAY, self.flush)
        self._printed.append(self._data)
        if len(self._printed) >= _FLUSH_SIZE:
            self.flush()
        if self._control & CONTROL_IRQ:
            self._irq.set(True)
            self._irq.set(False)
