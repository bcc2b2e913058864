"""Time and timers of a machine, for devices.

Of a machine that runs in the host's time, one thread waits for the nearest deadline and makes the
calls under the machine's lock; it starts with the first timer. A deterministic machine's processor
makes the calls itself, at exact numbers of instructions.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from threading import Condition, RLock, Thread
from time import time_ns

from ringfence.units import NANOSECONDS

__all__ = ["CountedClock", "MachineClock", "TimerCall"]

# How long a disk of a deterministic machine takes, in nanoseconds.
_DISK_TIME = 100_000
# The wall clock of a deterministic machine begins at 2026-01-01 00:00:00 UTC, in nanoseconds.
_EPOCH = 1_767_225_600 * NANOSECONDS


class TimerCall:
    """A call that waits for its time."""

    __slots__ = ("callback", "deadline", "order")

    def __init__(self, deadline: int, order: int, callback: Callable[[], None]) -> None:
        self.deadline = deadline
        self.order = order
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: "TimerCall") -> bool:
        return (self.deadline, self.order) < (other.deadline, other.order)

    def cancel(self) -> None:
        """Makes sure that the call is not made any more."""
        self.callback = None


class MachineClock:
    """The clock of one machine.

    Args:
        lock: The machine's lock, which ``call_at`` is called under.
        now: Nanoseconds since the machine was made, as the guest counts them.
        failed: Called when a timer's call raises.
    """

    def __init__(
        self, lock: RLock, now: Callable[[], int], failed: Callable[[BaseException], None]
    ) -> None:
        self.now = now
        self._condition = Condition(lock)
        self._failed = failed
        self._calls: list[TimerCall] = []
        self._order = 0
        self._thread: Thread | None = None
        self._closed = False

    def wall(self) -> int:
        """Nanoseconds since 1970-01-01 UTC on the host."""
        return time_ns()

    def call_at(self, deadline: int, callback: Callable[[], None]) -> TimerCall:
        """Calls ``callback`` once when ``now()`` reaches ``deadline``."""
        self._order += 1
        call = TimerCall(deadline, self._order, callback)
        if self._closed:
            return call
        heappush(self._calls, call)
        if self._thread is None:
            self._thread = Thread(target=self._serve, name="ringfence-timer", daemon=True)
            self._thread.start()
        elif self._calls[0] is call:
            self._condition.notify()
        return call

    def close(self) -> None:
        """Ends all timers; called under the machine's lock."""
        self._closed = True
        self._calls.clear()
        # The machine's own clock goes with its engine.
        last = self.now()
        self.now = lambda: last
        self._condition.notify()

    def _serve(self) -> None:
        """Body of the thread."""
        with self._condition:
            while not self._closed:
                if not self._calls:
                    self._condition.wait()
                    continue
                left = self._calls[0].deadline - self.now()
                if left > 0:
                    self._condition.wait(left / NANOSECONDS)
                    continue
                callback = heappop(self._calls).callback
                if callback is None:
                    continue
                try:
                    callback()
                except Exception as error:  # noqa: BLE001 - a defect ends the machine, not us
                    self._failed(error)


class CountedClock:
    """The clock of a deterministic machine.

    Args:
        now: Nanoseconds since the machine was made, as the guest counts them.
        set_deadline: Asks the engine to leave when that time has come; ``None``: never.
        failed: Called when a timer's call raises.
    """

    def __init__(
        self,
        now: Callable[[], int],
        set_deadline: Callable[[int | None], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.now = now
        self._set_deadline = set_deadline
        self._failed = failed
        self._calls: list[TimerCall] = []
        self._order = 0
        self._closed = False

    def wall(self) -> int:
        """Nanoseconds since 1970-01-01 UTC, of a day that is always the same."""
        return _EPOCH + self.now()

    def call_at(self, deadline: int, callback: Callable[[], None]) -> TimerCall:
        """Calls ``callback`` once when ``now()`` reaches ``deadline``."""
        self._order += 1
        call = TimerCall(deadline, self._order, callback)
        if not self._closed:
            heappush(self._calls, call)
            if self._calls[0] is call:
                self._set_deadline(deadline)
        return call

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` when a fast disk would have done its work."""
        self.call_at(self.now() + _DISK_TIME, callback)

    def serve(self) -> None:
        """Makes the calls that are due; called under the machine's lock."""
        now = self.now()
        while self._calls and (self._calls[0].deadline <= now or self._calls[0].callback is None):
            callback = heappop(self._calls).callback
            if callback is None:
                continue
            try:
                callback()
            except Exception as error:  # noqa: BLE001 - a defect ends the machine, not us
                self._failed(error)
        if not self._closed:
            self._set_deadline(self._calls[0].deadline if self._calls else None)

    def close(self) -> None:
        """Ends all timers; called under the machine's lock."""
        self._closed = True
        self._calls.clear()
        last = self.now()
        self.now = lambda: last
        self._set_deadline = _nothing


def _nothing(_: int | None) -> None:
    """Does nothing."""
