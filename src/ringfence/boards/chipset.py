"""The chips between processor and devices: Intel 440FX with PIIX south bridge."""

from collections.abc import Callable
from typing import Protocol

from ringfence.boards import pc_layout as layout
from ringfence.bus import IrqLine
from ringfence.devices.chipset.acpi_pm import PM_TIMER, AcpiPm
from ringfence.devices.chipset.piix3 import PIRQ_ROUTE, Piix3
from ringfence.devices.chipset.piix4_pm import PM_BASE, PM_ENABLE, Piix4Pm
from ringfence.devices.pci.host_bridge import HostBridge, PamPiece
from ringfence.devices.pci.pci_bus import PciBus
from ringfence.firmware.acpi import PciRoot

__all__ = ["Chipset", "I440Fx"]


class Chipset(Protocol):
    """What boards have of their chipset."""

    #: Memory beyond this lies above 4 GiB.
    low_limit: int
    #: How Open Firmware paths of the PCI bus begin.
    root_path: str

    def configure(self) -> None:
        """Does what firmware does: routes interrupts, places the power management registers."""

    def pm_base(self) -> int:
        """Where the power management registers are."""

    def interrupt(self, device: int, pin: int) -> int:
        """The interrupt of a pin of a device on bus 0, as :meth:`configure` routes it."""

    def pci_root(self, memory: int) -> PciRoot:
        """What the ACPI tables tell of the PCI bus of a machine with ``memory`` bytes."""


class I440Fx:
    """Host bridge 00.0, ISA bridge 01.0, power management 01.3.

    Args:
        bus: Where to plug them in.
        isa: Gives an end to drive an ISA interrupt by.
        pm: The power management registers.
        pam: Told where the pieces of memory below 1 MiB go.
        subsystem: Subsystem vendor and identifier of the host bridge.
        pm_timer: Told the port of the power management timer.
    """

    low_limit = layout.LOW_LIMIT
    root_path = "/pci@i0cf8"

    def __init__(
        self,
        bus: PciBus,
        isa: Callable[[int], IrqLine],
        pm: AcpiPm,
        pam: Callable[[list[PamPiece]], None] | None,
        subsystem: tuple[int, int] = (0, 0),
        pm_timer: Callable[[int | None], None] | None = None,
    ) -> None:
        def moved(base: int | None) -> None:
            if pm_timer is not None:
                pm_timer(None if base is None else base + PM_TIMER)

        self.bridge = Piix3(isa)
        self.power = Piix4Pm(pm, moved)
        bus.intx = self.bridge.set_pin
        bus.add(HostBridge(pam, subsystem), layout.HOST_BRIDGE, name="i440fx")
        bus.add(self.bridge, layout.SOUTH_BRIDGE, name="piix3")
        bus.add(self.power, layout.SOUTH_BRIDGE, number=layout.PM_FUNCTION, name="piix4-pm")

    def configure(self) -> None:
        """Does what firmware does."""
        for line, irq in enumerate(layout.PCI_IRQS):
            self.bridge.config_write(PIRQ_ROUTE + line, 1, irq)
        self.power.config_write(PM_BASE, 4, layout.PM)
        self.power.config_write(PM_ENABLE, 1, 1)

    def pm_base(self) -> int:
        """Where the power management registers are."""
        return self.power.register(PM_BASE, 2) & 0xFFC0 or layout.PM

    def interrupt(self, device: int, pin: int) -> int:
        """The interrupt of a pin."""
        return layout.PCI_IRQS[(device - 1 + pin - 1) % 4]

    def pci_root(self, memory: int) -> PciRoot:
        """What the ACPI tables tell of the bus."""
        high = layout.pci_high(memory)
        return PciRoot(
            router=layout.SOUTH_BRIDGE,
            routes=tuple(range(PIRQ_ROUTE, PIRQ_ROUTE + 4)),
            wiring=tuple(tuple((device - 1 + pin) % 4 for pin in range(4)) for device in range(32)),
            interrupts=layout.PCI_CHOICE,
            memory=(
                (layout.VIDEO, layout.SHADOW - 1),
                (self.low_limit, layout.PCI_MEMORY.stop - 1),
                (high.start, high.stop - 1),
            ),
            io=layout.PCI_IO,
        )
