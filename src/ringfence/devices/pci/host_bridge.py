"""The host bridge of an Intel 440FX PCIset (82441FX), function 0 of device 0.

Source: Intel 440FX PCIset data sheet (290549-001), section 3.2. An operating system takes a host
bridge for the sign that there is a PCI bus. The PAM registers say for each piece of the memory
from C0000h to FFFFFh whether reads and writes go to DRAM or to PCI; the board makes it so. Left
out: what the registers for DRAM do, which are kept and read back; error status, which never comes.
"""

from collections.abc import Callable

from ringfence.devices.pci.function import PciDevice, PciIdentity

__all__ = ["PAM", "SMRAM", "HostBridge", "PamPiece", "pam_pieces"]

PAM, SMRAM = 0x59, 0x72
_PAM_COUNT = 7

#: Registers with a value after reset: offset and bytes.
_RESET = (
    (0x04, b"\x06\x00\x80\x02"),  # command: memory and bus master, fixed; status
    (SMRAM, b"\x02"),  # system management memory control
)
#: Bits that a guest can set: offset, then a mask per byte.
_WRITABLE = (
    (0x04, b"\x40\x01"),
    (0x0C, b"\x00"),
    (0x0D, b"\xf8"),
    (0x3C, b"\x00"),
    (0x50, b"\xff\xff\xff\xff"),
    (PAM, b"\x30\x33\x33\x33\x33\x33\x33"),
    (0x60, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
    (0x70, b"\xff\xff\x7f"),
)

#: A piece of memory and where it goes: address, size, reads to DRAM, writes to DRAM.
PamPiece = tuple[int, int, bool, bool]


def pam_pieces(registers: bytes) -> list[PamPiece]:
    """What seven PAM registers say (table 5 of the data sheet)."""

    def piece(address: int, size: int, nibble: int) -> PamPiece:
        return address, size, bool(nibble & 1), bool(nibble & 2)

    pieces = [
        piece(0xC0000 + 0x4000 * index, 0x4000, registers[1 + index // 2] >> 4 * (index % 2))
        for index in range(12)
    ]
    # The first register holds the BIOS area in its upper half alone.
    pieces.append(piece(0xF0000, 0x10000, registers[0] >> 4))
    return pieces


class HostBridge(PciDevice):
    """Configuration space of the bridge.

    Args:
        pam: Called with all pieces when a guest has changed where one of them goes.
        subsystem: Subsystem vendor and identifier, which the chip itself has not.
    """

    def __init__(
        self,
        pam: Callable[[list[PamPiece]], None] | None = None,
        subsystem: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__(PciIdentity(0x8086, 0x1237, 0x060000, 2, *subsystem))
        self._pam = pam
        self._seen = bytes(_PAM_COUNT)
        for offset, value in _RESET:
            self.set_default(offset, int.from_bytes(value, "little"), len(value))
        for offset, mask in _WRITABLE:
            self.set_mask(offset, int.from_bytes(mask, "little"), len(mask))
        self.set_mask(0x06, 0, 2)
        self.set_clear(0x06, 0, 2)

    def reset(self) -> None:
        """The defaults of the data sheet: all pieces go to PCI, where the BIOS is."""
        super().reset()
        self._settle()

    def config_written(self, offset: int, size: int) -> None:
        """Moves pieces of memory."""
        if offset < PAM + _PAM_COUNT and offset + size > PAM:
            self._settle()

    def restored(self) -> None:
        """Moves pieces of memory."""
        self._settle()

    def _settle(self) -> None:
        registers = self.register(PAM, _PAM_COUNT).to_bytes(_PAM_COUNT, "little")
        if registers != self._seen:
            self._seen = registers
            if self._pam is not None:
                self._pam(pam_pieces(registers))
