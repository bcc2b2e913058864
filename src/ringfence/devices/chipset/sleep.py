"""Sleep registers of hardware-reduced ACPI (ACPI 6.4, section 4.8.3.7).

Control at offset 0: the sleep type in bits 2 to 4, enable in bit 5. Status at offset 1: bit 7 tells
of a wake-up, which never comes, for the one sleep there is is soft-off.
"""

from collections.abc import Callable
from typing import ClassVar

from ringfence.bus import State, restore_fields, save_fields

__all__ = ["SLP_TYP_S5", "SleepControl"]

SLP_TYP_S5 = 5
_ENABLE, _TYPE_SHIFT, _TYPE = 0x20, 2, 7
_VERSION = 1
_FIELDS = {"_control": _TYPE << _TYPE_SHIFT}


class SleepControl:
    """The two registers.

    Args:
        power_off: Called when the guest goes to soft-off.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 2

    def __init__(self, power_off: Callable[[], None]) -> None:
        self._power_off = power_off
        self.reset()

    def reset(self) -> None:
        """Awake."""
        self._control = 0

    def read(self, offset: int, size: int) -> int:
        """The sleep type; the status is 0."""
        return self._control if offset == 0 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Enters the sleep that is named, when enabled."""
        if offset == 0:
            self._control = value & _TYPE << _TYPE_SHIFT
            if value & _ENABLE and value >> _TYPE_SHIFT & _TYPE == SLP_TYP_S5:
                self._power_off()

    def state(self) -> State:
        """The sleep type."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes the sleep type."""
        restore_fields(self, state, _VERSION, _FIELDS)
