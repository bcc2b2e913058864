from ringfence.machine.clock import CountedClock


class Engine:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self.time = 0
        self.deadline: int | None = None
        self.failures: list[BaseException] = []
        self.clock = CountedClock(lambda: self.time, self.set_deadline, self.failures.append)

    def set_deadline(self, deadline: int | None) -> None:
        self.deadline = deadline


def test_calls_are_made_when_served_in_the_order_of_their_time() -> None:
    engine, calls = Engine(), []
    engine.clock.call_at(200, lambda: calls.append("b"))
    engine.clock.call_at(100, lambda: calls.append("a"))
    assert engine.deadline == 100
    engine.clock.serve()
    assert not calls
    engine.time = 100
    engine.clock.serve()
    assert calls == ["a"]
    assert engine.deadline == 200
    engine.time = 5000
    engine.clock.serve()
    assert calls == ["a", "b"]
    assert engine.deadline is None


def test_a_call_may_ask_for_another() -> None:
    engine, times = Engine(), []

    def tick() -> None:
        times.append(engine.time)
        engine.clock.call_at(engine.time + 10, tick)

    engine.clock.call_at(10, tick)
    for engine.time in range(0, 35, 5):
        engine.clock.serve()
    assert times == [10, 20, 30]


def test_cancelled_calls_are_not_made() -> None:
    engine, calls = Engine(), []
    engine.clock.call_at(10, lambda: calls.append(1)).cancel()
    engine.time = 10
    engine.clock.serve()
    assert not calls
    assert engine.deadline is None


def test_a_call_that_raises_is_told_and_the_rest_made() -> None:
    engine, calls = Engine(), []
    engine.clock.call_at(1, lambda: 1 // 0)
    engine.clock.call_at(1, lambda: calls.append(1))
    engine.time = 1
    engine.clock.serve()
    assert [type(failure) for failure in engine.failures] == [ZeroDivisionError]
    assert calls == [1]


def test_the_wall_clock_begins_on_a_fixed_day() -> None:
    engine = Engine()
    engine.time = 5
    assert engine.clock.wall() == 1_767_225_600_000_000_005
    engine.clock.close()
    engine.time = 50
    assert engine.clock.now() == 5
