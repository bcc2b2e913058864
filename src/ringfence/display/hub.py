"""One picture for all who look at a screen: drawn while somebody does, and for all of them once."""

import logging
from collections.abc import Callable
from threading import Condition, Thread
from time import monotonic
from typing import NamedTuple

from ringfence.bus.screen import Canvas, Part
from ringfence.display.source import ScreenSource

__all__ = ["ScreenHub", "Update"]

_LOG = logging.getLogger(__name__)
_RATE = 30


class Update(NamedTuple):
    """What has changed.

    Attributes:
        generation: Counts the pictures.
        resized: The picture has another size.
        copy: Lines that moved, before the parts changed: from, to, how many.
        parts: What differs.
    """

    generation: int
    resized: bool
    copy: tuple[int, int, int] | None
    parts: list[Part]


class ScreenHub:
    """Draws a screen for its viewers.

    Args:
        source: The screen.
        rate: Most pictures a second.

    Attributes:
        canvas: The picture. Whoever reads it holds :attr:`lock`, or may get half of two pictures.
        generation: Which picture it is.
    """

    def __init__(self, source: ScreenSource, rate: int = _RATE) -> None:
        self.lock = Condition()
        self.generation = 0
        self._source = source
        self._interval = 1 / rate
        self._canvas: Canvas | None = None
        self._stamp: object = self
        self._size = (0, 0)
        self._viewers: list[Callable[[Update], None]] = []
        self._thread: Thread | None = None

    @property
    def canvas(self) -> Canvas:
        """The picture."""
        if self._canvas is None:
            self._canvas = self._source.new_canvas()
        return self._canvas

    @property
    def viewers(self) -> int:
        """How many look."""
        return len(self._viewers)

    def subscribe(self, viewer: Callable[[Update], None]) -> Callable[[], None]:
        """Calls ``viewer`` at each change, in a thread of the hub's; it must return at once.

        Returns:
            A call that ends it.
        """
        with self.lock:
            self._viewers.append(viewer)
            if self._thread is None:
                self._thread = Thread(target=self._serve, name="ringfence-screen", daemon=True)
                self._thread.start()

        def leave() -> None:
            with self.lock:
                if viewer in self._viewers:
                    self._viewers.remove(viewer)
                self.lock.notify_all()

        return leave

    def refresh(self) -> None:
        """Draws the picture now, whether or not somebody looks."""
        stamp = self._source.stamp()
        with self.lock:
            if stamp == self._stamp and stamp is not None:
                return
            self._stamp = stamp
            plan = self._source.plan()
            if plan is None:
                return
            copy, parts = self.canvas.draw_scrolled(*plan)
            if not parts and copy is None:
                return
            self.generation += 1
            resized = self.canvas.size != self._size
            self._size = self.canvas.size
            update = Update(self.generation, resized, copy, parts)
            for viewer in list(self._viewers):
                viewer(update)

    def _serve(self) -> None:
        """Body of the thread: for as long as somebody looks."""
        while True:
            began = monotonic()
            try:
                self.refresh()
            except Exception:  # noqa: BLE001 - told, not hidden
                # A viewer must not take the machine with it.
                _LOG.exception("the screen can't be drawn")
            with self.lock:
                left = self._interval - (monotonic() - began)
                self.lock.wait_for(lambda: not self._viewers, max(left, 0.001))
                if not self._viewers:
                    self._thread = None
                    return
