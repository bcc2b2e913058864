"""Threads that wait for the host's disks, so that no virtual processor has to.

Work is done without the machine's lock; what follows from it, under the lock, by the thread that
did the work or by whoever drains first.
"""

from collections import deque
from collections.abc import Callable
from threading import Condition, RLock, Thread

from ringfence.bus import Done

__all__ = ["DiskWorkers"]

_THREADS = 4
_Work = tuple[Callable[[], None], Done]


class DiskWorkers:
    """A few threads, started when first needed.

    Args:
        lock: The machine's lock.
        failed: Called under the lock when a call raises what is no :class:`OSError`.
    """

    def __init__(self, lock: RLock, failed: Callable[[BaseException], None]) -> None:
        self._lock = lock
        self._failed = failed
        self._condition = Condition()
        self._waiting: deque[_Work] = deque()
        self._finished: deque[tuple[Done, OSError | None]] = deque()
        self._defects: deque[Exception] = deque()
        self._active = 0
        self._idle = 0
        self._threads: list[Thread] = []
        self._closed = False
        #: Of a deterministic machine: makes a call under the lock at a time of its own choice.
        self.later: Callable[[Callable[[], None]], None] | None = None

    def submit(self, work: Callable[[], None], done: Done) -> None:
        """Does ``work`` in a thread, then calls ``done`` under the lock."""
        if self.later is not None:
            self._finished.append((done, _error_of(work)))
            self.later(self._call)
            return
        with self._condition:
            self._active += 1
            self._waiting.append((work, done))
            if self._idle >= len(self._waiting):
                self._condition.notify()
            elif len(self._threads) < _THREADS:
                thread = Thread(
                    target=self._serve, name=f"ringfence-disk{len(self._threads)}", daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def drain(self) -> None:
        """Waits until all work is done, and makes the calls; under the machine's lock."""
        self._finish()
        self._call()

    def close(self) -> None:
        """Waits for what is under way and ends the threads; no call is made any more."""
        self._finish()
        with self._condition:
            self._finished.clear()
            self._closed = True
            self._condition.notify_all()

    def _finish(self) -> None:
        """Waits until all work is done.

        What no thread has begun is done here: the threads may all be waiting for the lock.
        """
        while (work := self._next()) is not None:
            self._do(*work)
        with self._condition:
            self._condition.wait_for(lambda: self._active == 0)

    def _next(self) -> _Work | None:
        with self._condition:
            return self._waiting.popleft() if self._waiting else None

    def _do(self, work: Callable[[], None], done: Done) -> None:
        """Does work, and notes its outcome."""
        error: OSError | None = None
        failure: Exception | None = None
        try:
            work()
        except OSError as caught:
            error = caught
        except Exception as caught:  # noqa: BLE001 - a defect ends the machine, not us
            failure = caught
        with self._condition:
            if failure is None:
                self._finished.append((done, error))
            else:
                self._defects.append(failure)
            self._active -= 1
            self._condition.notify_all()

    def _serve(self) -> None:
        """Body of a thread."""
        while True:
            with self._condition:
                self._idle += 1
                self._condition.wait_for(lambda: self._waiting or self._closed)
                self._idle -= 1
                if not self._waiting:
                    return
                work = self._waiting.popleft()
            self._do(*work)
            del work
            with self._lock:
                self._call()

    def _call(self) -> None:
        """Makes the calls that wait."""
        while self._defects:
            self._failed(self._defects.popleft())
        while self._finished:
            done, error = self._finished.popleft()
            try:
                done(error)
            except Exception as caught:  # noqa: BLE001
                self._failed(caught)


def _error_of(work: Callable[[], None]) -> OSError | None:
    """Does ``work``; what went wrong."""
    try:
        work()
    except OSError as error:
        return error
    return None
