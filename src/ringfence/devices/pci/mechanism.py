"""PCI configuration mechanism #1: an address and a data register in front of bus 0.

Source: PCI local bus specification 3.0, section 3.2.2.3.2. The address register at offset 0 takes
and gives double words only; the data register is at offset 4. A function that is not there reads
as all ones. Byte accesses to the address register are not the mechanism's: CF9h, which lies within
it on a PC, is the reset control register. Left out: buses behind bridges.
"""

from typing import ClassVar

from ringfence.bus import PciFunction, State, restore_fields, save_fields
from ringfence.errors import ConfigError, OverlapError, StateError

__all__ = ["PciConfig"]

ADDRESS, DATA = 0, 4
ENABLE = 1 << 31
# Bits 24 to 30 and 0 to 1 read as zero.
_KEPT = 0x80FFFFFC
_BUS_SHIFT, _FUNCTION_SHIFT, _REGISTER = 16, 8, 0xFC
_DEVICES, _FUNCTIONS = 32, 8
_VERSION = 1
_FIELDS = {"_address": _KEPT}


class PciConfig:
    """The two registers, and the functions of bus 0 behind them."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})
    LENGTH: ClassVar[int] = 8

    def __init__(self) -> None:
        #: Functions by the number that bits 8 to 15 of an address hold.
        self._functions: dict[int, PciFunction] = {}
        self.reset()

    def reset(self) -> None:
        """The address register reads 0; all functions are reset."""
        self._address = 0
        for function in self._functions.values():
            function.reset()

    def read(self, offset: int, size: int) -> int:
        """The address register, or a register of the function it selects."""
        if offset >= DATA:
            function = self._selected()
            if function is not None:
                return function.config_read((self._address & _REGISTER) + offset - DATA, size)
        elif offset == ADDRESS and size == 4:
            return self._address
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Sets the address register, or a register of the function it selects."""
        if offset >= DATA:
            function = self._selected()
            if function is not None:
                register = (self._address & _REGISTER) + offset - DATA
                function.config_write(register, size, value)
        elif offset == ADDRESS and size == 4:
            self._address = value & _KEPT

    def state(self) -> State:
        """The address register, and the state of each function under its place."""
        state = save_fields(self, _VERSION, _FIELDS)
        state["functions"] = {
            f"{number >> 3:02x}.{number & 7}": function.state()
            for number, function in self._functions.items()
        }
        return state

    def restore(self, state: State) -> None:
        """Takes the address register and the state of each function."""
        functions = state.get("functions")
        here = {
            f"{number >> 3:02x}.{number & 7}": entry for number, entry in self._functions.items()
        }
        if not isinstance(functions, dict) or set(functions) != set(here):
            raise StateError("PciConfig: the state is of other functions")
        before = self.state()
        try:
            for place, function in here.items():
                function.restore(functions[place])
            restore_fields(self, state, _VERSION, _FIELDS)
        except StateError:
            for place, function in here.items():
                function.restore(before["functions"][place])
            raise
        self._address &= _KEPT

    def add(self, device: int, function: PciFunction, *, number: int = 0) -> None:
        """Puts function ``number`` of ``device`` on the bus.

        Raises:
            ConfigError: there is no such place.
            OverlapError: it is taken.
        """
        if not (0 <= device < _DEVICES and 0 <= number < _FUNCTIONS):
            raise ConfigError(f"there is no PCI device {device:#x} function {number}")
        place = device << 3 | number
        if place in self._functions:
            raise OverlapError(f"PCI device {device:#x} function {number} is taken")
        self._functions[place] = function

    def _selected(self) -> PciFunction | None:
        address = self._address
        if not address & ENABLE or address >> _BUS_SHIFT & 0xFF:
            return None
        return self._functions.get(address >> _FUNCTION_SHIFT & 0xFF)
