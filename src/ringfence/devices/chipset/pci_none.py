"""PCI configuration mechanism #1 of a machine without PCI devices.

Source: PCI local bus specification 3.0, section 3.2.2.3.2. The address register at offset 0 takes
and gives double words only; the data register at offset 4 answers "no device" for every function.
Byte accesses to the address register are not the mechanism's: CF9h is the reset control register.
"""

from typing import ClassVar

from ringfence.bus import State, restore_fields, save_fields

__all__ = ["EmptyPciConfig"]

ADDRESS, DATA = 0, 4
_VERSION = 1
# Bits 24 to 30 and 0 to 1 read as zero.
_KEPT = 0x80FFFFFC


class EmptyPciConfig:
    """Address and data registers with nothing behind them."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})
    LENGTH: ClassVar[int] = 8

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """The address register reads 0."""
        self._address = 0

    def read(self, offset: int, size: int) -> int:
        """The address register, or all ones for a function that is not there."""
        if offset == ADDRESS and size == 4:
            return self._address
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Sets the address register; data written goes nowhere."""
        if offset == ADDRESS and size == 4:
            self._address = value & _KEPT

    def state(self) -> State:
        """The address register."""
        return save_fields(self, _VERSION, {"_address": _KEPT})

    def restore(self, state: State) -> None:
        """Takes the address register."""
        restore_fields(self, state, _VERSION, {"_address": _KEPT})
        self._address &= _KEPT
