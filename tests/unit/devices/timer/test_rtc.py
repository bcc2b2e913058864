"""The clock against the MC146818 data sheet."""

import datetime as dt

import pytest

from ringfence.devices.timer.calendar import civil, seconds_of
from ringfence.devices.timer.rtc import Rtc
from support.fake_devices import HandClock, Wire

SECOND = 1_000_000_000
A, B, C, D = 10, 11, 12, 13
START = dt.datetime(2024, 2, 28, 23, 59, 57, tzinfo=dt.UTC)


class Bench:
    def __init__(self, start: dt.datetime = START, memory: tuple[int, int] = (0, 0)) -> None:
        self.clock = HandClock(int(start.timestamp()) * SECOND)
        self.wire = Wire()
        self.rtc = Rtc(self.wire, self.clock, memory)

    def get(self, index: int) -> int:
        self.rtc.write(0, 1, index)
        return self.rtc.read(1, 1)

    def put(self, index: int, value: int) -> None:
        self.rtc.write(0, 1, index)
        self.rtc.write(1, 1, value)

    def time(self) -> list[int]:
        """Century, year, month, day, hour, minute, second."""
        return [self.get(index) for index in (0x32, 9, 8, 7, 4, 2, 0)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_time_in_bcd(bench: Bench) -> None:
    assert bench.time() == [0x20, 0x24, 0x02, 0x28, 0x23, 0x59, 0x57]
    assert bench.get(6) == 4, "a Wednesday, counted from Sunday as 1"
    bench.clock.advance(3 * SECOND)
    assert bench.time() == [0x20, 0x24, 0x02, 0x29, 0, 0, 0], "2024 is a leap year"


def test_binary_and_twelve_hours(bench: Bench) -> None:
    bench.put(B, 0x06)
    assert bench.time() == [20, 24, 2, 28, 23, 59, 57]
    bench.put(B, 0x04)
    assert bench.get(4) == 11 | 0x80
    bench.put(B, 0x00)
    assert bench.get(4) == 0x11 | 0x80
    bench.clock.advance(3 * SECOND)
    assert bench.get(4) == 0x12, "midnight is 12 AM"


def test_setting_the_time_with_set(bench: Bench) -> None:
    bench.put(B, 0x82)
    for index, value in [(0x32, 0x19), (9, 0x99), (8, 0x12), (7, 0x31), (4, 0x23), (2, 0x59)]:
        bench.put(index, value)
    bench.put(0, 0x58)
    bench.clock.advance(10 * SECOND)
    assert bench.get(0) == 0x58, "time stands while SET is set"
    bench.put(B, 0x02)
    assert bench.time() == [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58]
    bench.clock.advance(2 * SECOND)
    assert bench.time() == [0x20, 0, 1, 1, 0, 0, 0]


def test_setting_a_register_while_running(bench: Bench) -> None:
    bench.put(4, 0x05)
    assert bench.time() == [0x20, 0x24, 0x02, 0x28, 0x05, 0x59, 0x57]


def test_divider_reset_holds_and_releases(bench: Bench) -> None:
    bench.put(A, 0x76)
    bench.clock.advance(5 * SECOND)
    assert bench.get(0) == 0x57
    bench.put(A, 0x26)
    bench.clock.advance(SECOND // 2 - 1000)
    assert bench.get(0) == 0x57
    bench.clock.advance(2000)
    assert bench.get(0) == 0x58, "the first update comes half a second after the release"


def test_update_in_progress(bench: Bench) -> None:
    assert bench.get(A) == 0x26
    bench.clock.advance(SECOND - 244_000)
    assert bench.get(A) == 0xA6
    bench.clock.advance(244_000)
    assert bench.get(A) == 0x26
    bench.put(B, 0x82)
    bench.clock.advance(SECOND - 100_000)
    assert bench.get(A) == 0x26, "no update while SET is set"


def test_update_interrupt(bench: Bench) -> None:
    bench.put(A, 0x20)
    bench.put(B, 0x12)
    assert not bench.wire.level
    bench.clock.advance(SECOND)
    assert bench.wire.level
    assert bench.get(C) == 0x90
    assert not bench.wire.level
    assert bench.get(C) == 0
    bench.clock.advance(3 * SECOND)
    assert bench.wire.edges == 2, "one until it is read"
    assert bench.get(C) == 0xB0, "midnight is the alarm that nobody set"


def test_flags_without_interrupts(bench: Bench) -> None:
    bench.clock.advance(SECOND)
    assert bench.get(C) == 0x50
    assert bench.clock.timers == [], "nobody waits"


@pytest.mark.parametrize(
    ("rate", "hertz"), [(1, 256), (2, 128), (3, 8192), (6, 1024), (13, 8), (15, 2)]
)
def test_periodic_rates(bench: Bench, rate: int, hertz: int) -> None:
    bench.put(A, 0x20 | rate)
    bench.put(B, 0x42)
    for _ in range(20):
        before = bench.wire.edges
        bench.clock.advance(SECOND // hertz)
        assert bench.wire.edges == before + 1
        assert bench.get(C) & 0xC0 == 0xC0


def test_rate_zero_is_off(bench: Bench) -> None:
    bench.put(A, 0x20)
    bench.put(B, 0x42)
    bench.clock.advance(10 * SECOND)
    assert not bench.wire.level


def test_alarm(bench: Bench) -> None:
    for index, value in [(5, 0x00), (3, 0x00), (1, 0x01)]:
        bench.put(index, value)
    bench.put(B, 0x22)
    bench.clock.advance(4 * SECOND - 1)
    assert not bench.wire.level
    bench.clock.advance(1)
    assert bench.wire.level
    assert bench.get(C) & 0xA0 == 0xA0
    bench.clock.advance(86_400 * SECOND - 1)
    assert not bench.wire.level
    bench.clock.advance(1)
    assert bench.wire.level


@pytest.mark.parametrize(
    ("alarm", "after"),
    [
        ((0xFF, 0xFF, 0xFF), 1),
        ((0xFF, 0xFF, 0x30), 33),
        ((0xFF, 0x01, 0xC0), 63),
        ((0x23, 0xFF, 0xFF), 1),
        ((0x22, 0xFF, 0xFF), 22 * 3600 + 3),
        ((0x23, 0x59, 0x57), 86_400),
    ],
)
def test_alarm_with_dont_care(bench: Bench, alarm: tuple[int, int, int], after: int) -> None:
    for index, value in zip((5, 3, 1), alarm, strict=True):
        bench.put(index, value)
    bench.get(C)
    bench.put(B, 0x22)
    bench.clock.advance(after * SECOND - 1)
    assert not bench.wire.level
    bench.clock.advance(1)
    assert bench.wire.level


def test_alarm_that_never_comes(bench: Bench) -> None:
    bench.put(5, 0x77)
    bench.put(B, 0x22)
    bench.clock.advance(3 * 86_400 * SECOND)
    assert not bench.wire.level


def test_reset_keeps_time_and_memory(bench: Bench) -> None:
    bench.put(B, 0x72)
    bench.put(0x40, 0x5A)
    bench.clock.advance(SECOND)
    bench.rtc.reset()
    assert not bench.wire.level
    assert bench.get(B) == 0x02
    assert bench.get(0x40) == 0x5A
    assert bench.get(0) == 0x58


def test_valid_ram_and_memory_size() -> None:
    bench = Bench(memory=(3 << 30, 5 << 30))
    assert bench.get(D) == 0x80
    assert bench.get(0x15) | bench.get(0x16) << 8 == 640
    assert bench.get(0x17) | bench.get(0x18) << 8 == 0xFFFF
    assert bench.get(0x34) | bench.get(0x35) << 8 == ((3 << 30) - (16 << 20)) >> 16
    assert sum(bench.get(0x5B + n) << 8 * n for n in range(3)) == (5 << 30) >> 16


def test_state_keeps_the_distance_to_the_wall(bench: Bench) -> None:
    bench.put(9, 0x30)
    other = Bench()
    other.rtc.restore(bench.rtc.state())
    assert other.time() == bench.time()
    other.clock.advance(SECOND)
    assert other.get(0) == 0x58


def test_hostile_values_harm_nobody(bench: Bench) -> None:
    for index in (0x32, 9, 8, 7, 6, 4, 2, 0):
        bench.put(index, 0xFF)
        bench.time()
        bench.rtc.restore(bench.rtc.state())


def test_calendar_agrees_with_datetime() -> None:
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    for days in range(-700_000, 1_000_000, 997):
        seconds = days * 86_400 + 12_345
        moment = epoch + dt.timedelta(seconds=seconds)
        year, month, day, weekday, second = civil(seconds)
        assert (year, month, day) == (moment.year, moment.month, moment.day)
        assert (weekday, second) == (moment.isoweekday() % 7 + 1, 12_345)
        assert seconds_of(year, month, day) + second == seconds
