"""The ways to configuration space: mechanism #1 by ports, and the memory of PCI Express (ECAM).

Sources: PCI local bus specification 3.0, section 3.2.2.3.2; PCI Express base specification 2.0,
section 7.2.2. The address register at offset 0 takes and gives double words only; the data
register is at offset 4. Byte accesses to the address register are not the mechanism's: CF9h, which
lies within it on a PC, is the reset control register. Left out: buses behind bridges.
"""

from typing import ClassVar

from ringfence.bus import State, restore_fields, save_fields
from ringfence.devices.pci.pci_bus import PciBus

__all__ = ["Ecam", "PciConfig"]

ADDRESS, DATA = 0, 4
ENABLE = 1 << 31
# Bits 24 to 30 and 0 to 1 read as zero.
_KEPT = 0x80FFFFFC
_BUS_SHIFT, _PLACE_SHIFT, _REGISTER = 16, 8, 0xFC
_VERSION = 1
_FIELDS = {"_address": _KEPT}
#: ECAM: a megabyte for each bus, 4 KiB for each function.
_ECAM_BUS, _ECAM_PLACE = 1 << 20, 12


class PciConfig:
    """Configuration mechanism #1: an address and a data register.

    Args:
        bus: Bus 0.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})
    LENGTH: ClassVar[int] = 8

    def __init__(self, bus: PciBus) -> None:
        self._bus = bus
        self.reset()

    def reset(self) -> None:
        """The address register reads 0."""
        self._address = 0

    def read(self, offset: int, size: int) -> int:
        """The address register, or a register of the function it selects."""
        address = self._address
        if offset >= DATA:
            if address & ENABLE and not address >> _BUS_SHIFT & 0xFF:
                register = (address & _REGISTER) + offset - DATA
                return self._bus.read(address >> _PLACE_SHIFT & 0xFF, register, size)
        elif offset == ADDRESS and size == 4:
            return address
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Sets the address register, or a register of the function it selects."""
        address = self._address
        if offset >= DATA:
            if address & ENABLE and not address >> _BUS_SHIFT & 0xFF:
                register = (address & _REGISTER) + offset - DATA
                self._bus.write(address >> _PLACE_SHIFT & 0xFF, register, size, value)
        elif offset == ADDRESS and size == 4:
            self._address = value & _KEPT

    def state(self) -> State:
        """The address register."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes the address register."""
        restore_fields(self, state, _VERSION, _FIELDS)
        self._address &= _KEPT


class Ecam:
    """Configuration space in memory.

    Args:
        bus: Bus 0; other buses read as all ones.
        buses: How many buses it spans.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})

    def __init__(self, bus: PciBus, buses: int = 256) -> None:
        self._bus = bus
        self.LENGTH = buses * _ECAM_BUS

    def reset(self) -> None:
        """It has no state."""

    def read(self, offset: int, size: int) -> int:
        """Reads a register of a function; one that crosses a double word is nobody's."""
        if offset >= _ECAM_BUS or (offset & 3) + size > 4:
            return (1 << 8 * size) - 1
        return self._bus.read(offset >> _ECAM_PLACE, offset & 0xFFF, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a register of a function."""
        if offset < _ECAM_BUS and (offset & 3) + size <= 4:
            self._bus.write(offset >> _ECAM_PLACE, offset & 0xFFF, size, value)

    def state(self) -> State:
        """It has no state."""
        return save_fields(self, _VERSION, ())

    def restore(self, state: State) -> None:
        """It has no state."""
        restore_fields(self, state, _VERSION, {})
