"""What a viewer has not been sent yet."""

from ringfence.bus.screen import Part
from ringfence.display.hub import Update

__all__ = ["Damage", "clip"]

#: More parts than this become one: telling them apart would cost more than it saves.
_MOST_PARTS = 64


def clip(part: Part, width: int, height: int) -> Part | None:
    """A part within a picture of this size; ``None`` if nothing of it is."""
    left, top = max(part[0], 0), max(part[1], 0)
    right, bottom = min(part[0] + part[2], width), min(part[1] + part[3], height)
    return (left, top, right - left, bottom - top) if left < right and top < bottom else None


class Damage:
    """Parts of the picture that differ from what a viewer shows, and lines that moved there.

    A move is good only for a viewer that shows the picture before it, whole: otherwise its lines
    are parts like others.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.copy: tuple[int, int, int] | None = None
        #: Number of the picture that the viewer was sent parts of last.
        self.sent = 0

    def __bool__(self) -> bool:
        return bool(self.parts) or self.copy is not None

    def add(self, part: Part) -> None:
        """Adds a part."""
        if part in self.parts:
            return
        self.parts.append(part)
        if len(self.parts) > _MOST_PARTS:
            left = min(entry[0] for entry in self.parts)
            top = min(entry[1] for entry in self.parts)
            right = max(entry[0] + entry[2] for entry in self.parts)
            bottom = max(entry[1] + entry[3] for entry in self.parts)
            self.parts = [(left, top, right - left, bottom - top)]

    def update(self, update: Update, width: int, *, moves: bool) -> None:
        """Adds what has changed in a picture of a width, for a viewer that knows moves or not."""
        if update.copy is not None:
            if moves and not self and self.sent < update.generation:
                self.copy = update.copy
            else:
                _, to, lines = update.copy
                self.settle(width)
                self.add((0, to, width, lines))
        for part in update.parts:
            self.add(part)

    def settle(self, width: int) -> None:
        """Makes a move that was not sent a part like others."""
        if self.copy is not None:
            _, to, lines = self.copy
            self.copy = None
            self.add((0, to, width, lines))

    def take(self) -> tuple[tuple[int, int, int] | None, list[Part]]:
        """Everything; nothing is left."""
        taken = self.copy, self.parts
        self.copy, self.parts = None, []
        return taken
