"""A wire behind a file descriptor that carries one frame per read and write.

One thread per port waits for frames and keeps a few of them for the guest; while the guest does not
take them, the rest waits with the kernel.
"""

import os
import select
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Condition, Thread

__all__ = ["DescriptorPort"]

LIMIT = 256
#: The largest that an IP packet can be, with an Ethernet header and a VLAN tag.
LARGEST = 65535 + 18


class DescriptorPort:
    """A datagram socket or TAP device.

    Args:
        descriptor: Its file descriptor, which the port closes at its end. Reads may block.
        name: What messages call it.
        owner: An object that must live as long as the descriptor.
    """

    def __init__(self, descriptor: int, name: str, owner: object = None) -> None:
        self.name = name
        self.dropped = 0
        self._descriptor = descriptor
        self._owner = owner
        os.set_blocking(descriptor, False)
        self._changed = Condition()
        self._frames: deque[bytes] = deque()
        self._wake: Callable[[], None] = _nothing
        self._closed = False
        self._thread: Thread | None = None
        self._pipe = os.pipe()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def send(self, frame: bytes) -> None:
        """Sends a frame; it is lost when the far end is not there or does not keep up."""
        try:
            if not self._closed:
                os.write(self._descriptor, frame)
                return
        except OSError:
            pass
        self.dropped += 1

    def receive(self) -> bytes | None:
        """The next frame."""
        try:
            frame = self._frames.popleft()
        except IndexError:
            return None
        if len(self._frames) == LIMIT // 2:
            with self._changed:
                self._changed.notify()
        return frame

    def on_receive(self, callback: Callable[[], None]) -> None:
        """Sets what is called when a frame comes; from then on, frames are waited for."""
        self._wake = callback
        if self._thread is None and not self._closed:
            self._thread = Thread(target=self._serve, name=f"ringfence-{self.name}", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Gives the descriptor back; harmless when it was."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._wake = _nothing
            self._changed.notify()
        os.write(self._pipe[1], b"x")
        # The thread may wait for a lock that the caller holds, so it clears up by itself.
        if self._thread is None:
            self._release()

    def _release(self) -> None:
        for descriptor in (self._descriptor, *self._pipe):
            with suppress(OSError):
                os.close(descriptor)
        self._owner = None

    def _serve(self) -> None:
        """Body of the thread."""
        try:
            self._wait_for_frames()
        finally:
            self._release()

    def _wait_for_frames(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._pipe[0], select.POLLIN)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or len(self._frames) < LIMIT)
                if self._closed:
                    return
            poll.poll()
            came = False
            while len(self._frames) < LIMIT:
                try:
                    frame = os.read(self._descriptor, LARGEST)
                except BlockingIOError:
                    break
                except OSError:
                    # The far end of a datagram socket may come back; don't spin meanwhile.
                    self._changed_wait()
                    break
                if not frame:
                    self._changed_wait()
                    break
                self._frames.append(frame)
                came = True
            if came:
                self._wake()

    def _changed_wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, 0.1)


def _nothing() -> None:
    """Nobody listens."""
