"""A viewer's keys and mouse."""

from ringfence.display.layouts import Layout
from ringfence.display.source import Desk
from ringfence.display.vnc.keysyms import key_of
from ringfence.errors import EngineError

__all__ = ["Person"]

#: Our bits (left 1, right 2, middle 4, side 8, extra 16) of the protocol's buttons.
_BUTTONS = {0: 1, 1: 4, 2: 2, 7: 8}
_WHEEL = {3: -1, 4: 1}
#: Where a relative pointer stays (pointer motion change, of QEMU's extensions).
_CENTER = 0x7FFF
#: Keys that one viewer holds down at most.
_MOST_HELD = 32


class Person:
    """Passes a viewer's input on; releases what it holds when it leaves.

    Attributes:
        relative: The viewer tells how far the pointer moved, not where it is.
    """

    def __init__(self, desk: Desk, layout: Layout, *, view_only: bool = False) -> None:
        self.relative = False
        self._desk = desk
        self._layout = layout
        self._view_only = view_only
        self._held: set[int] = set()
        self._place: tuple[int, int] | None = None
        self._mask = 0

    def keysym(self, keysym: int, down: bool) -> None:
        """A key by what it writes."""
        number = key_of(keysym, self._layout)
        if number is not None:
            self._send(number, down)

    def key(self, number: int, keysym: int, down: bool) -> None:
        """A key by its number, as ``bus.keys`` has them; 0: by what it writes."""
        if 0 < number < 0x100:
            self._send(number, down)
        else:
            self.keysym(keysym, down)

    def pointer(self, mask: int, x: int, y: int) -> None:
        """The pointer's place (or its move) and buttons."""
        if self._view_only:
            return
        if self.relative:
            right, below = x - _CENTER, y - _CENTER
        else:
            right, below = (x - self._place[0], y - self._place[1]) if self._place else (0, 0)
            self._place = (x, y)
        buttons = sum(ours for bit, ours in _BUTTONS.items() if mask >> bit & 1)
        pressed, self._mask = mask & ~self._mask, mask
        wheel = sum(turn for bit, turn in _WHEEL.items() if pressed >> bit & 1)
        self._desk.pointer.send(right, below, wheel, buttons)

    def leave(self) -> None:
        """Releases everything."""
        for number in sorted(self._held):
            self._send(number, False)
        if self._mask and not self._view_only:
            self._desk.pointer.send(0, 0, 0, 0)

    def _send(self, number: int, down: bool) -> None:
        if self._view_only:
            return
        if down:
            if len(self._held) >= _MOST_HELD:
                return
            self._held.add(number)
        else:
            self._held.discard(number)
        try:
            self._desk.keys.send(number, down)
        except EngineError:
            # The machine restarts, or has no keyboard: the key is lost, as with a real one.
            return
