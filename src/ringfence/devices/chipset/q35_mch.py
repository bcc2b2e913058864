"""The host bridge of an Intel Q35 (82G33/82Q35 memory controller hub), function 0 of device 0.

Source: Intel 3 series express chipset family data sheet (316966-002), section 5.1. PCIEXBAR places
the configuration space in memory; the PAM registers are those of the 440FX at another place. Left
out: what the registers for DRAM, graphics and isochronous ports do.
"""

from collections.abc import Callable

from ringfence.bus import Window
from ringfence.devices.pci.function import PciDevice, PciIdentity
from ringfence.devices.pci.host_bridge import PamPiece, pam_pieces
from ringfence.devices.pci.mechanism import Ecam

__all__ = ["PAM", "PCIEXBAR", "Mch"]

PCIEXBAR, PAM = 0x60, 0x90
_PAM_COUNT = 7
_ENABLE, _LENGTH = 1, 0b110
#: Megabytes by the length field; the last value is reserved.
_LENGTHS = (256, 128, 64)
_WRITABLE = (
    (0x04, 0x0102, 2),
    (0x0C, 0, 2),
    (0x3C, 0, 1),
    (0x40, 0xFFFFC001, 4),
    (0x48, 0xFFFFC001, 4),
    (PCIEXBAR, 0xF_FC00_0007, 8),
    (0x68, 0xFFFFF001, 4),
    (PAM, 0x30, 1),
    (PAM + 1, 0x333333333333, 6),
    (0x9D, 0x7F, 1),
    (0x9E, 0x87, 1),
    (0xA0, 0x3FF, 2),
    (0xA2, 0xFFFF, 2),
    (0xA4, 0xFFF00000, 4),
    (0xAC, 0xFFF00000, 4),
    (0xB0, 0xFFF0, 2),
    (0xDC, 0xFFFFFFFF, 4),
)


class Mch(PciDevice):
    """Configuration space of the bridge.

    Args:
        ecam: The configuration space to place, of all buses.
        pam: Called with all pieces when a guest has changed where one of them goes.
        subsystem: Subsystem vendor and identifier.
    """

    def __init__(
        self,
        ecam: Ecam,
        pam: Callable[[list[PamPiece]], None] | None = None,
        subsystem: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(PciIdentity(0x8086, 0x29C0, 0x060000, 2, *subsystem))
        self._pam = pam
        self._seen = bytes(_PAM_COUNT)
        self.set_default(0x04, 0x0006, 2)
        self.set_default(0x06, 0x0090, 2)
        self.set_default(PCIEXBAR, 0xE0000000, 8)
        self.set_default(0x9D, 0x02, 1)
        self.set_default(0x9E, 0x38, 1)
        for offset, mask, size in _WRITABLE:
            self.set_mask(offset, mask, size)
        # A window for each length, of which one is placed.
        for index, size in enumerate(_LENGTHS):
            window = Window("ecam", "memory", size << 20, ecam)
            self.add_window(window, self._placer(index))

    def reset(self) -> None:
        """No configuration space in memory; pieces of memory go to the ROM."""
        super().reset()
        self._settle()

    def config_written(self, offset: int, size: int) -> None:
        """Moves pieces of memory."""
        if offset < PAM + _PAM_COUNT and offset + size > PAM:
            self._settle()

    def restored(self) -> None:
        """Moves pieces of memory."""
        self._settle()

    def ecam_base(self) -> int | None:
        """Where the configuration space is."""
        value = self.register(PCIEXBAR, 8)
        if not value & _ENABLE or (value & _LENGTH) >> 1 >= len(_LENGTHS):
            return None
        return value & 0xF_FC00_0000 & ~((_LENGTHS[(value & _LENGTH) >> 1] << 20) - 1)

    def _placer(self, index: int) -> Callable[[], int | None]:
        def place() -> int | None:
            value = self.register(PCIEXBAR, 8)
            return self.ecam_base() if (value & _LENGTH) >> 1 == index else None

        return place

    def _settle(self) -> None:
        registers = self.register(PAM, _PAM_COUNT).to_bytes(_PAM_COUNT, "little")
        if registers != self._seen:
            self._seen = registers
            if self._pam is not None:
                self._pam(pam_pieces(registers))
