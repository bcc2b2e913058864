"""Signals that end this process, or tell of a new window size.

By default SIGTERM and SIGHUP raise :class:`Terminated` wherever the program is, as SIGINT raises
``KeyboardInterrupt``. An exception can come between taking a lock and noting it, though, so while
a machine runs signals are :func:`deferred` instead: they wait for the program to look.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal asks this process to end. Not an Exception: nothing but cleaning up may catch it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Deferred:
    """The signals that have come.

    Attributes:
        fd: readable when one has come since :meth:`check` was called.
    """

    def __init__(self) -> None:
        self.fd, self._write_end = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_end, False)
        # The interpreter writes here at once, where a handler waits for its turn: a signal just
        # before a system call that blocks would not be seen before that returns.
        self._fd_before = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._end: int | None = None
        self._resized = False

    def check(self) -> bool:
        """Whether the window has another size since the last call.

        Raises:
            KeyboardInterrupt: SIGINT came.
            Terminated: SIGTERM or SIGHUP came.
        """
        with suppress(BlockingIOError):
            os.read(self.fd, 4096)
        if (number := self._end) is not None:
            self._end = None
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
        resized, self._resized = self._resized, False
        return resized

    def close(self) -> None:
        """Gives the file descriptors back."""
        signal.set_wakeup_fd(self._fd_before)
        os.close(self.fd)
        os.close(self._write_end)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Notes a signal; the first one that ends counts."""
        if number == signal.SIGWINCH:
            self._resized = True
        elif self._end is None:
            self._end = number


@contextmanager
def raised() -> Iterator[None]:
    """SIGTERM and SIGHUP raise for as long as the block runs."""

    def terminate(number: int, _frame: FrameType | None) -> None:
        # The first one counts: a second must not interrupt the cleaning up.
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    with _handled((signal.SIGTERM, signal.SIGHUP), terminate):
        yield


@contextmanager
def deferred() -> Iterator[Deferred]:
    """Signals wait, for as long as the block runs, for someone to look."""
    signals = Deferred()
    try:
        with _handled((*_ENDS, signal.SIGWINCH), signals.handle):
            yield signals
    finally:
        signals.close()


@contextmanager
def _handled(numbers: tuple[int, ...], handler: Callable[[int, Any], None]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in numbers}
    # What was ignored when we were started, as by nohup(1), stays so.
    changed = {n: old for n, old in before.items() if old is not signal.SIG_IGN}
    try:
        for number in changed:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in changed.items():
            signal.signal(number, old)
