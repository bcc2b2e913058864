"""Timers of a machine."""

import threading
import time
from collections.abc import Iterator

import pytest

from ringfence.machine.clock import MachineClock


class Bench:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.failures: list[BaseException] = []
        self.clock = MachineClock(self.lock, time.monotonic_ns, self.failures.append)
        self.fired: list[str] = []
        self.done = threading.Event()

    def at(self, milliseconds: float, name: str) -> object:
        def call() -> None:
            self.fired.append(name)
            if name == "end":
                self.done.set()

        with self.lock:
            return self.clock.call_at(self.clock.now() + int(milliseconds * 1e6), call)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    with bench.lock:
        bench.clock.close()


def test_order_is_that_of_deadlines(bench: Bench) -> None:
    with bench.lock:
        bench.at(30, "end")
        bench.at(10, "first")
        bench.at(20, "second")
        bench.at(-5, "past")
    assert bench.done.wait(5)
    assert bench.fired == ["past", "first", "second", "end"]


def test_cancelled_calls_are_not_made(bench: Bench) -> None:
    with bench.lock:
        bench.at(5, "no").cancel()  # type: ignore[attr-defined]
        bench.at(10, "end")
    assert bench.done.wait(5)
    assert bench.fired == ["end"]


def test_calls_are_under_the_lock(bench: Bench) -> None:
    held: list[bool] = []

    def call() -> None:
        taken: list[bool] = []

        def attempt() -> None:
            taken.append(bench.lock.acquire(blocking=False))

        other = threading.Thread(target=attempt)
        other.start()
        other.join()
        held.append(not taken[0])
        bench.done.set()

    with bench.lock:
        bench.clock.call_at(bench.clock.now(), call)
    assert bench.done.wait(5)
    assert held == [True]


def test_failures_are_told_and_do_not_stop_the_rest(bench: Bench) -> None:
    with bench.lock:
        bench.clock.call_at(bench.clock.now(), lambda: 1 // 0)  # type: ignore[arg-type,return-value]
        bench.at(5, "end")
    assert bench.done.wait(5)
    assert isinstance(bench.failures[0], ZeroDivisionError)


def test_a_closed_clock_stands_still(bench: Bench) -> None:
    bench.at(20, "no")
    with bench.lock:
        bench.clock.close()
    now = bench.clock.now()
    time.sleep(0.04)
    assert bench.clock.now() == now
    assert bench.fired == []
    bench.at(0, "no")
    time.sleep(0.02)
    assert bench.fired == []


def test_wall_is_the_hosts() -> None:
    assert abs(Bench().clock.wall() - time.time_ns()) < 1_000_000_000
