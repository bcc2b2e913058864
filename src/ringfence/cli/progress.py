"""How far a download is, on standard error: a bar on a terminal, nothing elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from ringfence.images import Progress

_WIDTH = 30
_INTERVAL = 0.1  # seconds between redraws


class ProgressBar:
    """A line that is redrawn in place.

    An instance is called with each step of a pull.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._item = ""
        self._drawn = 0.0
        self._open = False

    def __call__(self, step: "Progress") -> None:
        """Shows a step; another item ends the line of the one before."""
        now = monotonic()
        if step.item != self._item:
            self.close()
            self._item = step.item
        elif step.done != step.total and now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        self._open = True
        self._stream.write(f"\r\x1b[K{line(step)}")
        self._stream.flush()

    def close(self) -> None:
        """Ends the line."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False


def line(step: "Progress") -> str:
    """One step as text."""
    if not step.total:
        return f"{step.item}  {human_size(step.done)}" if step.done else step.item
    filled = min(_WIDTH, _WIDTH * step.done // step.total)
    bar = "━" * filled + "─" * (_WIDTH - filled)
    return f"{step.item}  {bar}  {human_size(step.done)} of {human_size(step.total)}"


def human_size(size: int) -> str:
    """``size`` bytes to three digits or so, for people: ``21.3 MiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.1f} {unit}" if value < 100 and unit != "B" else f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


@contextmanager
def shown(stream: TextIO | None = None) -> Iterator[ProgressBar | None]:
    """A bar on ``stream`` (standard error) if it is a terminal, else None."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield None
        return
    bar = ProgressBar(stream)
    try:
        yield bar
    finally:
        bar.close()
