"""Reset control: port CF9h and port 92h.

Sources: Intel 82371AB (PIIX4) data sheet, section 4.2.2 (RC, reset control register), which is
also the reset register of the ACPI tables; IBM PS/2 hardware technical reference, system control
port A (92h).
"""

from collections.abc import Callable
from typing import ClassVar

from ringfence.bus import State, restore_fields, save_fields

__all__ = ["RESET_VALUE", "ResetControl", "SystemControl"]

SYSTEM_RESET, RESET_CPU, FULL_RESET = 0x02, 0x04, 0x08
#: What the ACPI tables tell the guest to write for a reset.
RESET_VALUE = SYSTEM_RESET | RESET_CPU
FAST_RESET, FAST_A20 = 0x01, 0x02
_VERSION = 1


class ResetControl:
    """Port CF9h: a rising RCPU bit resets the machine."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 1

    def __init__(self, reset_line: Callable[[], None]) -> None:
        self._reset_line = reset_line
        self.reset()

    def reset(self) -> None:
        """All bits 0."""
        self._value = 0

    def read(self, offset: int, size: int) -> int:
        """The bits that stay."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        """Sets the kind of reset, or does it."""
        rising = value & ~self._value & RESET_CPU
        self._value = value & (SYSTEM_RESET | RESET_CPU | FULL_RESET)
        if rising:
            self._reset_line()

    def state(self) -> State:
        """The register."""
        return save_fields(self, _VERSION, {"_value": 0x0E})

    def restore(self, state: State) -> None:
        """Takes the register."""
        restore_fields(self, state, _VERSION, {"_value": 0x0E})


class SystemControl:
    """Port 92h: fast reset and the fast A20 gate."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 1

    def __init__(
        self, reset_line: Callable[[], None], a20: Callable[[bool], None] | None = None
    ) -> None:
        self._reset_line = reset_line
        self._a20 = a20
        self.reset()

    def reset(self) -> None:
        """A20 open, as the firmware leaves it."""
        self._value = FAST_A20

    def read(self, offset: int, size: int) -> int:
        """The bits written last."""
        return self._value

    def write(self, offset: int, size: int, value: int) -> None:
        """Moves the A20 gate; a rising bit 0 resets the processor."""
        changed, rising = value ^ self._value, value & ~self._value
        self._value = value & 0xFF
        if changed & FAST_A20 and self._a20 is not None:
            self._a20(bool(value & FAST_A20))
        if rising & FAST_RESET:
            self._reset_line()

    def state(self) -> State:
        """The register."""
        return save_fields(self, _VERSION, {"_value": 0xFF})

    def restore(self, state: State) -> None:
        """Takes the register."""
        restore_fields(self, state, _VERSION, {"_value": 0xFF})
