"""A screen without a machine: a framebuffer that tests paint."""

from threading import Lock
from typing import Any

from ringfence.accel.video import Picture
from ringfence.bus.screen import Canvas


class Painting:
    """Something to look at, with keys and a mouse that remember what came."""

    def __init__(self, width: int = 320, height: int = 200) -> None:
        self.lock = Lock()
        self.strokes: list[tuple[int, bool]] = []
        self.moves: list[tuple[int, int, int, int]] = []
        self.leds: frozenset[str] = frozenset()
        self.plans = 0
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        with self.lock:
            self.width, self.height = width, height
            self.data = bytearray(4 * width * height)
            self.changes = object()

    def paint(self, x: int, y: int, width: int, height: int, color: int) -> None:
        with self.lock:
            for line in range(y, y + height):
                at = 4 * (self.width * line + x)
                self.data[at : at + 4 * width] = color.to_bytes(4, "little") * width
            self.changes = object()

    def fill(self, data: bytes) -> None:
        with self.lock:
            self.data[:] = data
            self.changes = object()

    # The screen.

    def new_canvas(self) -> Canvas:
        return Picture()

    def stamp(self) -> object:
        return self.changes

    def plan(self) -> tuple[Any, Any]:
        with self.lock:
            self.plans += 1
            return bytes(self.data), {
                "kind": "linear32",
                "width": self.width,
                "height": self.height,
                "start": 0,
                "pitch": 4 * self.width,
                "split": 0xFFFFFFFF,
                "split_pans": False,
                "repeat": 1,
                "double": 1,
                "row": 1,
                "preset": 0,
                "panning": 0,
                "shift": (0, 0),
                "row_bits": (False, False),
                "mask": 0,
                "palette": [],
                "text": None,
            }


class Strokes:
    """A keyboard that remembers."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bool]] = []
        self.leds: frozenset[str] = frozenset()

    def send(self, number: int, down: bool) -> None:
        self.sent.append((number, down))


class Moves:
    """A mouse that remembers."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int, int, int]] = []

    def send(self, right: int, down: int, wheel: int, buttons: int) -> None:
        self.sent.append((right, down, wheel, buttons))
