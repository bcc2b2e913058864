"""Wires within this process: a loop-back plug, and a cable between two cards or programs."""

from collections import deque
from collections.abc import Callable

__all__ = ["FrameQueue", "Loopback", "cable"]

#: Frames that wait for a guest; more are dropped, as a switch drops them.
LIMIT = 1024


class FrameQueue:
    """One end of a cable; what is sent goes to ``peer``, which :func:`cable` sets."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.peer: FrameQueue = self
        self.dropped = 0
        self._limit = limit
        self._frames: deque[bytes] = deque()
        self._wake: Callable[[], None] = _nothing

    def send(self, frame: bytes) -> None:
        """Puts a frame into the queue of the far end."""
        self.peer.put(frame)

    def receive(self) -> bytes | None:
        """The next frame."""
        # One call, so that two threads can't see the same last frame.
        try:
            return self._frames.popleft()
        except IndexError:
            return None

    def on_receive(self, callback: Callable[[], None]) -> None:
        """Sets what is called when a frame comes."""
        self._wake = callback

    def close(self) -> None:
        """Nothing is called any more."""
        self._wake = _nothing

    def put(self, frame: bytes) -> None:
        """Takes a frame from the far end."""
        if len(self._frames) >= self._limit:
            self.dropped += 1
            return
        self._frames.append(frame)
        self._wake()


class Loopback(FrameQueue):
    """A loop-back plug: every frame comes back as it was sent."""


def cable(limit: int = LIMIT) -> tuple[FrameQueue, FrameQueue]:
    """Two ends of one wire."""
    first, second = FrameQueue(limit), FrameQueue(limit)
    first.peer, second.peer = second, first
    return first, second


def _nothing() -> None:
    """Nobody listens."""
