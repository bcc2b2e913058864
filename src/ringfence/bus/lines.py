"""Interrupt wires: one driver, several drivers wired together, none."""

from collections.abc import Callable

__all__ = ["Line", "SharedLine", "unconnected"]


class Line:
    """A wire with one driver; tells its listener of changes only."""

    __slots__ = ("_level", "_listener")

    def __init__(self, listener: Callable[[bool], None]) -> None:
        self._listener = listener
        self._level = False

    @property
    def level(self) -> bool:
        """The level driven last."""
        return self._level

    def set(self, level: bool) -> None:
        """Drives the wire."""
        if level is not self._level:
            self._level = level
            self._listener(level)

    def disconnect(self) -> None:
        """Cuts the wire: nobody hears of it any more."""
        self._listener = _nobody


class SharedLine:
    """A wire with several drivers: asserted while any of them asserts it.

    COM1 and COM3 of a PC share one so.
    """

    __slots__ = ("_asserted", "_line")

    def __init__(self, listener: Callable[[bool], None]) -> None:
        self._line = Line(listener)
        self._asserted = 0

    @property
    def level(self) -> bool:
        """The level of the wire."""
        return self._line.level

    def driver(self) -> Line:
        """A new end to drive it by."""
        return Line(self._count)

    def disconnect(self) -> None:
        """Cuts the wire behind all drivers."""
        self._line.disconnect()

    def _count(self, level: bool) -> None:
        # Each end reports changes only, so a count is enough.
        self._asserted += 1 if level else -1
        self._line.set(self._asserted > 0)


def unconnected() -> Line:
    """A wire that leads nowhere."""
    return Line(_nobody)


def _nobody(level: bool) -> None:
    """Listens to nothing."""
