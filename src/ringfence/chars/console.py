"""The host's end of a serial line alone, as a program gets to see it."""

import re
from collections.abc import Callable

from ringfence.chars.stream import Stream

__all__ = ["Console"]


class Console:
    """What a guest prints, and a keyboard to answer it with.

    All of it may be used from any thread. Output that nobody reads is kept up to a limit.
    """

    def __init__(self, line: Stream) -> None:
        self._line = line

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Console {self.name!r} {state}, {self._line.unread} bytes to read>"

    def send(self, data: bytes | str) -> None:
        """Types ``data``; it waits on the host until the guest takes it."""
        self._line.send(data)

    def receive(self, timeout: float | None = None) -> bytes:
        """All output not read yet, waiting for some.

        Empty when the machine has ended, or when nothing came within ``timeout`` seconds.
        """
        return self._line.receive(timeout)

    #: The names that files have.
    write = send
    read = receive

    def expect(self, text: str | re.Pattern[str], timeout: float | None = 30.0) -> str:
        """Waits for ``text`` (a pattern: a match of it) and returns the output up to its end.

        Raises:
            GuestTimeout: it did not come within ``timeout`` seconds; the message shows what did.
            GuestStopped: the machine ended before it came.
        """
        return self._line.expect(text, timeout)

    def tail(self, limit: int = 2000) -> str:
        """The last ``limit`` bytes of all output, read or not."""
        return self._line.tail(limit)

    def listen(self, listener: Callable[[bytes], None]) -> Callable[[], None]:
        """Calls ``listener`` with all further output, in the machine's thread.

        It must return at once and not raise: the guest stands still meanwhile.

        Returns:
            A call that ends it.
        """
        return self._line.listen(listener)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self._line.name

    @property
    def closed(self) -> bool:
        """Whether the machine has ended."""
        return self._line.closed

    @property
    def dropped(self) -> int:
        """How many bytes of output were dropped because nobody read them."""
        return self._line.dropped

    @property
    def pending_input(self) -> int:
        """How many bytes wait for the guest to take them."""
        return self._line.pending_input
