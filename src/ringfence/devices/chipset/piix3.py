"""The ISA bridge of an Intel 82371SB (PIIX3): interrupt router, chip selects.

Source: Intel 82371FB/82371SB (PIIX/PIIX3) data sheet (290550-002), section 2.2. Four registers
say to which ISA interrupt each of the lines PIRQA# to PIRQD# goes; sharing one is allowed. Left
out: what the registers for ISA timing, chip selects, DMA and APM do, which are kept and read back.
"""

from collections.abc import Callable

from ringfence.bus import IrqLine
from ringfence.devices.pci.function import PciDevice, PciIdentity

__all__ = ["PIRQ_ROUTE", "ROUTABLE", "Piix3"]

#: PIRQ route control registers A to D.
PIRQ_ROUTE = 0x60
_ROUTES = 4
_DISABLED, _IRQ = 0x80, 0x0F
#: Interrupts that a route can name; the others are reserved.
ROUTABLE = frozenset({3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15})

#: Registers with a value after reset.
_RESET = (
    (0x04, 0x0007, 2),  # command: I/O, memory, master, fixed
    (0x06, 0x0200, 2),  # status: medium DEVSEL timing
    (0x4C, 0x4D, 1),  # I/O recovery
    (0x4E, 0x0003, 2),  # X-bus chip selects
    (PIRQ_ROUTE, 0x80808080, 4),
    (0x69, 0x02, 1),  # top of memory
    (0x70, 0x80, 1),  # motherboard device interrupt
    (0x76, 0x0C0C, 2),  # DMA channels
    (0xA0, 0x08, 1),  # SMI control
    (0xA2, 0x0000, 2),
    (0xA8, 0x0F, 1),
)
_WRITABLE = (
    (0x04, 0x0008, 2),
    (0x0C, 0, 2),
    (0x3C, 0, 1),
    (0x4C, 0x7F, 1),
    (0x4E, 0x03FF, 2),
    (PIRQ_ROUTE, 0x8F8F8F8F, 4),
    (0x69, 0xFE, 1),
    (0x6A, 0x80F7, 2),
    (0x70, 0xEF, 1),
    (0x71, 0xEF, 1),
    (0x76, 0x8F8F, 2),
    (0x78, 0x7FFF, 2),
    (0x80, 0x7F, 1),
    (0x82, 0x0F, 1),
    (0xA0, 0x1F, 1),
    (0xA2, 0x00FF, 2),
    (0xA4, 0xE0FFFFFF, 4),
    (0xA8, 0xFF, 1),
    (0xAA, 0x00FF, 2),
    (0xAC, 0xFF, 1),
    (0xAE, 0xFF, 1),
)


class Piix3(PciDevice):
    """The bridge.

    Args:
        line: Gives an end to drive an ISA interrupt by.
    """

    def __init__(self, line: Callable[[int], IrqLine]) -> None:
        super().__init__(PciIdentity(0x8086, 0x7000, 0x060100))
        for offset, value, size in _RESET:
            self.set_default(offset, value, size)
        for offset, mask, size in _WRITABLE:
            self.set_mask(offset, mask, size)
        self._lines = {irq: line(irq) for irq in ROUTABLE}
        #: How many pins pull each PIRQ line.
        self._pulls = [0] * _ROUTES

    def reset(self) -> None:
        """No line is routed."""
        super().reset()
        self._settle()

    def config_written(self, offset: int, size: int) -> None:
        """Follows new routes."""
        if offset < PIRQ_ROUTE + _ROUTES and offset + size > PIRQ_ROUTE:
            self._settle()

    def restored(self) -> None:
        """Follows the restored routes."""
        self._settle()

    def set_pin(self, device: int, pin: int, level: bool) -> None:
        """An interrupt pin of a device on bus 0 has changed.

        Boards wire INTA# of device 1 to PIRQA#, of device 2 to PIRQB#, and so on.
        """
        line = (device - 1 + pin - 1) % _ROUTES
        self._pulls[line] += 1 if level else -1
        self._settle()

    def route(self, line: int) -> int | None:
        """The ISA interrupt of PIRQA# (0) to PIRQD# (3), or ``None``."""
        value = self.register(PIRQ_ROUTE + line, 1)
        irq = value & _IRQ
        return irq if not value & _DISABLED and irq in ROUTABLE else None

    def _settle(self) -> None:
        asserted = {self.route(line) for line in range(_ROUTES) if self._pulls[line] > 0}
        for irq, wire in self._lines.items():
            wire.set(irq in asserted)
