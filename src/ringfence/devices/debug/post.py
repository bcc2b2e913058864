"""Port 80h: power-on self-test codes, kept for whoever asks why a boot stopped.

Linux also writes to it as a delay of about a microsecond, so it takes any number of writes.
"""

from typing import ClassVar

from ringfence.bus import State, restore_fields, save_fields

__all__ = ["PostCodes"]

_KEPT = 16
_VERSION = 1
_FIELDS = {"_codes": 0xFF}


class PostCodes:
    """Remembers the last codes, without repetitions."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 1

    def __init__(self) -> None:
        self._codes: list[int] = []

    def reset(self) -> None:
        """Forgets all codes."""
        self._codes.clear()

    def read(self, offset: int, size: int) -> int:
        """The last code: the port is a page register of the DMA controller, which reads back."""
        return self._codes[-1] if self._codes else 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Keeps a code."""
        codes = self._codes
        if not codes or codes[-1] != value:
            codes.append(value & 0xFF)
            if len(codes) > _KEPT:
                del codes[0]

    def state(self) -> State:
        """The codes."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes the codes."""
        restore_fields(self, state, _VERSION, _FIELDS)
        self._codes = self._codes[-_KEPT:]

    @property
    def codes(self) -> list[int]:
        """The last codes, newest last."""
        return list(self._codes)
