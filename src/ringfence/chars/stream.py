"""A serial line that a Python program holds the other end of.

The guest's side is a :class:`ringfence.bus.CharPort`; the host's side reads, writes and waits for
texts, from any thread. Output that nobody reads is kept up to a limit, oldest dropped first, and
the end of all output is kept apart for error messages.
"""

import re
from collections.abc import Callable
from threading import Condition
from time import monotonic

from ringfence.errors import GuestStopped, GuestTimeout

__all__ = ["Stream"]

_HISTORY = 64 << 10
_SHOWN = 2000


class Stream:
    """Both ends of a serial line: :class:`~ringfence.bus.CharPort` below, a stream above.

    Args:
        name: What messages call it.
        limit: How many unread bytes of output to keep; ``None`` keeps all.
    """

    def __init__(self, name: str = "console", *, limit: int | None = 1 << 20) -> None:
        self.name = name
        self._limit = limit
        self._condition = Condition()
        self._output = bytearray()
        self._history = bytearray()
        self._input = bytearray()
        self._dropped = 0
        self._closed = False
        self._listeners: list[Callable[[bytes], None]] = []
        self._wake: Callable[[], None] = _nothing

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<Stream {self.name!r} {state}, {len(self._output)} bytes to read>"

    # The guest's end.

    def write(self, data: bytes) -> None:
        """Takes what the guest sent."""
        with self._condition:
            self._output += data
            self._history += data
            if len(self._history) > 2 * _HISTORY:
                del self._history[:-_HISTORY]
            if self._limit is not None and len(self._output) > self._limit:
                excess = len(self._output) - self._limit
                del self._output[:excess]
                self._dropped += excess
            self._condition.notify_all()
        for listener in self._listeners:
            listener(data)

    def read(self, limit: int) -> bytes:
        """Input for the guest, at most ``limit`` bytes."""
        if not self._input:
            return b""
        with self._condition:
            data = bytes(self._input[:limit])
            del self._input[:limit]
            return data

    def on_input(self, callback: Callable[[], None]) -> None:
        """Sets what is called when there is input for the guest."""
        self._wake = callback

    # The host's end.

    def send(self, data: bytes | str) -> None:
        """Types ``data``; it waits on the host until the guest takes it."""
        encoded = data.encode() if isinstance(data, str) else data
        if not encoded:
            return
        with self._condition:
            if self._closed:
                return
            self._input += encoded
            wake = self._wake
        wake()

    def receive(self, timeout: float | None = None) -> bytes:
        """All unread output, waiting for some.

        Empty when the line closed, or when nothing came within ``timeout`` seconds.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._output or self._closed, timeout)
            data = bytes(self._output)
            self._output.clear()
            return data

    def receive_until(self, mark: bytes, timeout: float | None = None) -> bytes | None:
        """Output up to ``mark``, which is taken too; ``None`` if it did not come in time.

        Raises:
            GuestStopped: the line closed before it came.
        """
        with self._condition:
            end = self._wait(lambda start: _find(self._output, mark, start), len(mark), timeout)
            if end is None:
                return None
            data = bytes(self._output[: end - len(mark)])
            del self._output[:end]
            return data

    def expect(self, text: str | re.Pattern[str], timeout: float | None = 30.0) -> str:
        """Waits for ``text`` (a pattern: a match of it) and returns the output up to its end.

        Raises:
            GuestTimeout: it did not come within ``timeout`` seconds; the message shows what did.
            GuestStopped: the line closed before it came.
        """
        if isinstance(text, str):
            mark = text.encode()

            def find(start: int) -> int:
                return _find(self._output, mark, start)

            back = len(mark)
        else:
            pattern = re.compile(text.pattern.encode(), text.flags & ~re.UNICODE)

            def find(start: int) -> int:  # noqa: ARG001 - a match may begin anywhere
                match = pattern.search(self._output)
                return -1 if match is None else match.end()

            back = 0
        wanted = text if isinstance(text, str) else text.pattern
        with self._condition:
            end = self._wait(find, back, timeout)
            if end is None:
                seen = self.tail()
                raise GuestTimeout(
                    f"{self.name}: {wanted!r} did not come within {timeout:g} s; last output:\n"
                    f"{seen}",
                    console=seen,
                )
            data = bytes(self._output[:end])
            del self._output[:end]
            return data.decode(errors="replace")

    def tail(self, limit: int = _SHOWN) -> str:
        """The last ``limit`` bytes of all output, read or not."""
        return bytes(self._history[-limit:]).decode(errors="replace")

    def listen(self, listener: Callable[[bytes], None]) -> Callable[[], None]:
        """Calls ``listener`` with all further output, in the thread of the machine.

        It must return at once and not raise: the guest stands still meanwhile.

        Returns:
            A call that ends it.
        """
        self._listeners = [*self._listeners, listener]

        def forget() -> None:
            self._listeners = [entry for entry in self._listeners if entry is not listener]

        return forget

    def discard(self) -> None:
        """Forgets unread output: for those who listen."""
        with self._condition:
            self._output.clear()

    def close(self) -> None:
        """Ends the line: readers get what is left, then nothing."""
        with self._condition:
            self._closed = True
            self._wake = _nothing
            self._input.clear()
            self._condition.notify_all()

    @property
    def closed(self) -> bool:
        """Whether the machine behind the line has ended."""
        return self._closed

    @property
    def dropped(self) -> int:
        """How many bytes of output were dropped because nobody read them."""
        return self._dropped

    @property
    def unread(self) -> int:
        """How many bytes of output wait to be read."""
        return len(self._output)

    @property
    def pending_input(self) -> int:
        """How many bytes wait for the guest to take them."""
        return len(self._input)

    def _wait(self, find: Callable[[int], int], back: int, timeout: float | None) -> int | None:
        """Waits until ``find(start)`` gives an end; ``None`` on time-out."""
        deadline = None if timeout is None else monotonic() + timeout
        searched, dropped = 0, self._dropped
        while True:
            end = find(max(searched, 0))
            if end >= 0:
                return end
            searched = len(self._output) - back
            if self._closed:
                seen = self.tail()
                raise GuestStopped(
                    f"{self.name}: the machine ended; last output:\n{seen}", console=seen
                )
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return None
            self._condition.wait(left)
            # Offsets move when output is dropped at the front.
            searched -= self._dropped - dropped
            dropped = self._dropped


def _find(data: bytearray, mark: bytes, start: int) -> int:
    """End of the first ``mark`` at or after ``start``, or -1."""
    at = data.find(mark, start)
    return -1 if at < 0 else at + len(mark)


def _nothing() -> None:
    """Does nothing."""
