"""The LPC bridge of an Intel ICH9: interrupt router, where power management registers sit.

Source: Intel I/O controller hub 9 data sheet (316972-004), section 13.1. Eight lines PIRQA# to
PIRQH# are routed to ISA interrupts, as those of a PIIX; the I/O APIC sees these too. Left out: what
the root complex registers do, SMI, watchdog timer, decoding of LPC ranges.
"""

from collections.abc import Callable

from ringfence.bus import IrqLine, Window
from ringfence.devices.chipset.acpi_pm import AcpiPm
from ringfence.devices.chipset.piix3 import ROUTABLE
from ringfence.devices.chipset.piix4_pm import SmBus
from ringfence.devices.pci.function import PciDevice, PciIdentity

__all__ = ["ACPI_CONTROL", "PM_BASE", "ROUTES", "Ich9Lpc", "Ich9SmBus", "pirq_of"]

PM_BASE, ACPI_CONTROL = 0x40, 0x44
#: Route registers of PIRQA# to PIRQH#.
ROUTES = (0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6A, 0x6B)
_ACPI_ENABLE = 0x80
_DISABLED, _IRQ = 0x80, 0x0F
#: From this device on, pins are wired to PIRQA# to PIRQD# in order.
_INTERNAL = 25
_WRITABLE = (
    (0x04, 0x0140, 2),
    (0x0C, 0, 2),
    (0x3C, 0, 1),
    (PM_BASE, 0xFF80, 4),
    (ACPI_CONTROL, 0x87, 1),
    (0x48, 0xFF80, 4),
    (0x4C, 0x10, 1),
    (0x60, 0x8F8F8F8F, 4),
    (0x64, 0xFF, 1),
    (0x68, 0x8F8F8F8F, 4),
    (0x80, 0x1377, 2),
    (0x82, 0x3FFF, 2),
    (0x84, 0x00FCFFFD, 4),
    (0x88, 0x00FCFFFD, 4),
    (0x8C, 0x00FCFFFD, 4),
    (0x90, 0x00FCFFFD, 4),
    (0xA0, 0x0699, 2),
    (0xA4, 0x08, 1),
    (0xD0, 0xFFFFFFFF, 4),
    (0xD4, 0xFFFF, 2),
    (0xD8, 0xFFFF, 2),
    (0xDC, 0x3F, 1),
    (0xF0, 0xFFFFC001, 4),
)


def pirq_of(device: int, pin: int) -> int:
    """The line, 0 for PIRQA# to 7 for PIRQH#, of a pin (1 to 4) of a device on bus 0."""
    return pin - 1 if device >= _INTERNAL else 4 + (device + pin - 1) % 4


class Ich9Lpc(PciDevice):
    """The bridge.

    Args:
        line: Gives an end to drive an ISA interrupt by.
        pm: The power management registers, which it places.
        moved: Told where they are.
    """

    def __init__(
        self,
        line: Callable[[int], IrqLine],
        pm: AcpiPm,
        moved: Callable[[int | None], None] | None = None,
    ) -> None:
        super().__init__(PciIdentity(0x8086, 0x2918, 0x060100, 2))
        self._moved = moved
        self.set_default(0x04, 0x0007, 2)
        self.set_default(0x06, 0x0210, 2)
        self.set_default(PM_BASE, 1, 4)
        self.set_default(0x48, 1, 4)
        self.set_default(0x60, 0x80808080, 4)
        self.set_default(0x64, 0x10, 1)
        self.set_default(0x68, 0x80808080, 4)
        for offset, mask, size in _WRITABLE:
            self.set_mask(offset, mask, size)
        self.add_window(Window("acpi-pm", "io", pm.LENGTH, pm), self._pm_base)
        self._lines = {irq: line(irq) for irq in ROUTABLE}
        self._pulls = [0] * len(ROUTES)

    def reset(self) -> None:
        """No line is routed, nothing is placed."""
        super().reset()
        self._settle()

    def config_written(self, offset: int, size: int) -> None:
        """Follows new routes."""
        if offset <= ROUTES[-1] and offset + size > ROUTES[0]:
            self._settle()

    def restored(self) -> None:
        """Follows the restored routes."""
        self._settle()

    def set_pin(self, device: int, pin: int, level: bool) -> None:
        """An interrupt pin of a device on bus 0 has changed."""
        self._pulls[pirq_of(device, pin)] += 1 if level else -1
        self._settle()

    def route(self, line: int) -> int | None:
        """The ISA interrupt of PIRQA# (0) to PIRQH# (7), or ``None``."""
        value = self.register(ROUTES[line], 1)
        irq = value & _IRQ
        return irq if not value & _DISABLED and irq in ROUTABLE else None

    def _pm_base(self) -> int | None:
        base = self.register(PM_BASE, 2) & 0xFF80
        place = base if base and self.register(ACPI_CONTROL, 1) & _ACPI_ENABLE else None
        if self._moved is not None:
            self._moved(place)
        return place

    def _settle(self) -> None:
        asserted = {self.route(line) for line, pulls in enumerate(self._pulls) if pulls > 0}
        for irq, wire in self._lines.items():
            wire.set(irq in asserted)


class Ich9SmBus(PciDevice):
    """SMBus host controller (section 19.1) of a bus with nothing on it."""

    def __init__(self) -> None:
        super().__init__(PciIdentity(0x8086, 0x2930, 0x0C0500, 2), pin=1)
        self.smbus = SmBus()
        self.add_bar(4, self.smbus, size=32, kind="io", name="smbus")
        self.set_mask(0x40, 0x1F, 1)

    def reset(self) -> None:
        """Nothing is placed."""
        self.smbus.reset()
        super().reset()
