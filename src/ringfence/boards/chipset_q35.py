"""The chips of the board ``q35``: Intel Q35 with ICH9, configuration space in memory."""

from collections.abc import Callable

from ringfence.boards import pc_layout as layout
from ringfence.bus import IrqLine
from ringfence.devices.chipset.acpi_pm import PM_TIMER, AcpiPm
from ringfence.devices.chipset.ich9 import (
    ACPI_CONTROL,
    PM_BASE,
    ROUTES,
    Ich9Lpc,
    Ich9SmBus,
    pirq_of,
)
from ringfence.devices.chipset.q35_mch import PCIEXBAR, Mch
from ringfence.devices.pci.host_bridge import PamPiece
from ringfence.devices.pci.mechanism import Ecam
from ringfence.devices.pci.pci_bus import PciBus
from ringfence.firmware.acpi import PciRoot
from ringfence.units import GIB

__all__ = ["ICH9", "Q35", "SATA_FUNCTION"]

#: Device number of the south bridge; its functions: LPC bridge 0, SATA 2, SMBus 3.
ICH9 = 0x1F
SATA_FUNCTION, _SMBUS_FUNCTION = 2, 3
_ECAM = 0xB0000000
_ECAM_SIZE = 256 << 20


class Q35:
    """Host bridge 00.0, LPC bridge 1f.0, SMBus 1f.3.

    Arguments are those of :class:`~ringfence.boards.chipset.I440Fx`.
    """

    low_limit = 2 * GIB
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

        self.mch = Mch(Ecam(bus), pam, subsystem)
        self.lpc = Ich9Lpc(isa, pm, moved)
        bus.intx = self.lpc.set_pin
        bus.add(self.mch, layout.HOST_BRIDGE, name="q35-mch")
        bus.add(self.lpc, ICH9, name="ich9-lpc")
        bus.add(Ich9SmBus(), ICH9, number=_SMBUS_FUNCTION, name="ich9-smbus")

    def configure(self) -> None:
        """Does what firmware does."""
        for line, register in enumerate(ROUTES):
            self.lpc.config_write(register, 1, layout.PCI_IRQS[line % 4])
        self.lpc.config_write(PM_BASE, 4, layout.PM)
        self.lpc.config_write(ACPI_CONTROL, 1, 0x80)
        self.mch.config_write(PCIEXBAR + 4, 4, 0)
        self.mch.config_write(PCIEXBAR, 4, _ECAM | 1)

    def pm_base(self) -> int:
        """Where the power management registers are."""
        return self.lpc.register(PM_BASE, 2) & 0xFF80 or layout.PM

    def interrupt(self, device: int, pin: int) -> int:
        """The interrupt of a pin."""
        return layout.PCI_IRQS[pirq_of(device, pin) % 4]

    def pci_root(self, memory: int) -> PciRoot:
        """What the ACPI tables tell of the bus."""
        high = layout.pci_high(memory)
        return PciRoot(
            router=ICH9,
            routes=ROUTES,
            wiring=tuple(
                tuple(pirq_of(device, pin) for pin in range(1, 5)) for device in range(32)
            ),
            interrupts=layout.PCI_CHOICE,
            memory=(
                (layout.VIDEO, layout.SHADOW - 1),
                *self._around(self.mch.ecam_base()),
                (high.start, high.stop - 1),
            ),
            io=layout.PCI_IO,
            ecam=self.mch.ecam_base(),
        )

    def _around(self, ecam: int | None) -> list[tuple[int, int]]:
        """The memory below the I/O APIC, without the configuration space."""
        last = layout.PCI_MEMORY.stop - 1
        if ecam is None or not self.low_limit <= ecam < last:
            return [(self.low_limit, last)]
        pieces = [(self.low_limit, ecam - 1), (ecam + _ECAM_SIZE, last)]
        return [(first, end) for first, end in pieces if first < end]
