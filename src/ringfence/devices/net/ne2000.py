"""NE2000 network card: a DP8390 with a data port, on the ISA bus.

Source: Novell NE2000 as in the DP83905 (AT/LANTIC) data sheet, NE2000 compatible mode: registers at
offset 0 to 0Fh, data port from 10h to 17h, reset port from 18h to 1Fh (reading it resets).
"""

from typing import ClassVar

from ringfence.bus import IrqLine, PacketPort, State
from ringfence.devices.net.dp8390 import Dp8390

__all__ = ["Ne2000"]

DATA, RESET, PORTS = 0x10, 0x18, 0x20


class Ne2000:
    """The card on an ISA bus.

    Args:
        port: Where the cable leads.
        irq: Interrupt wire.
        mac: Its address.
        identity: What reads at 0Ah and 0Bh of page 0.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})
    LENGTH: ClassVar[int] = PORTS

    def __init__(
        self, port: PacketPort, irq: IrqLine, mac: bytes, *, identity: bytes = b"\0\0"
    ) -> None:
        self._chip = Dp8390(port, mac, irq.set, identity)

    def reset(self) -> None:
        """Power-on."""
        self._chip.power_on()

    def read(self, offset: int, size: int) -> int:
        """Reads a register, the data port, or resets."""
        if DATA <= offset < RESET:
            return self._chip.data_read(size)
        if offset >= RESET:
            self._chip.reset()
            return (1 << 8 * size) - 1
        value = 0
        for index in range(min(size, DATA - offset)):
            value |= self._chip.read(offset + index) << 8 * index
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a register or the data port; the reset port only ends a reset."""
        if DATA <= offset < RESET:
            self._chip.data_write(size, value)
        elif offset < DATA:
            for index in range(min(size, DATA - offset)):
                self._chip.write(offset + index, value >> 8 * index & 0xFF)

    def state(self) -> State:
        """The chip's state."""
        return self._chip.state()

    def restore(self, state: State) -> None:
        """Takes the chip's state."""
        self._chip.restore(state)

    def frames_waiting(self) -> None:
        """Told by the host end that frames wait."""
        self._chip.frames_waiting()
