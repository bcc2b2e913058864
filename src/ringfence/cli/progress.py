"""How far a download is, on standard error: a bar on a terminal, nothing elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TextIO

_WIDTH = 30
_INTERVAL = 0.1  # seconds between redraws


class ProgressBar:
    """A line that is redrawn in place.

    An instance is called with what is fetched, the bytes done and the bytes in all (None where
    nobody knows).
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._label = ""
        self._drawn = 0.0
        self._open = False

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Shows the state; a new label ends the line of the one before."""
        now = monotonic()
        if label != self._label:
            self.close()
            self._label = label
        elif done != total and now - self._drawn < _INTERVAL:
            return
        self._drawn = now
        self._open = True
        self._stream.write(f"\r\x1b[K{line(label, done, total)}")
        self._stream.flush()

    def close(self) -> None:
        """Ends the line."""
        if self._open:
            self._stream.write("\n")
            self._stream.flush()
            self._open = False


def line(label: str, done: int, total: int | None) -> str:
    """One state as text."""
    if not total:
        return f"{label}  {human_size(done)}"
    filled = min(_WIDTH, _WIDTH * done // total)
    bar = "━" * filled + "─" * (_WIDTH - filled)
    return f"{label}  {bar}  {human_size(done)} of {human_size(total)}"


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
