"""The keyboard controller and its keyboard, as Linux and BIOSes ask them."""

import pytest

from ringfence.bus.keys import KEYS
from ringfence.devices.input.i8042 import I8042
from support.fake_devices import Wire


class Bench:
    def __init__(self) -> None:
        self.wire = Wire()
        self.resets = 0
        self.gates: list[bool] = []
        self.i8042 = I8042(self.wire, self._reset, self.gates.append)

    def _reset(self) -> None:
        self.resets += 1

    def command(self, *values: int) -> None:
        self.i8042.write(4, 1, values[0])
        for value in values[1:]:
            self.i8042.write(0, 1, value)

    def data(self, value: int) -> None:
        self.i8042.write(0, 1, value)

    @property
    def status(self) -> int:
        return self.i8042.read(4, 1)

    def answers(self) -> list[int]:
        """Everything that waits in the output buffer, as a driver would take it."""
        taken = []
        while self.status & 1:
            taken.append(self.i8042.read(0, 1))
        return taken


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_after_power_on(bench: Bench) -> None:
    assert bench.status == 0x14
    assert not bench.wire.level


def test_self_tests(bench: Bench) -> None:
    bench.command(0xAA)
    assert bench.answers() == [0x55]
    bench.command(0xAB)
    assert bench.answers() == [0x00]


def test_command_byte(bench: Bench) -> None:
    bench.command(0x20)
    assert bench.answers() == [0x65]
    bench.command(0x60, 0x30)
    bench.command(0x20)
    assert bench.answers() == [0x30]
    bench.command(0xAD)
    bench.command(0xA8)
    bench.command(0x20)
    assert bench.answers() == [0x10]


def test_controller_memory(bench: Bench) -> None:
    bench.command(0x7F, 0xA5)
    bench.command(0x3F)
    assert bench.answers() == [0xA5]


def test_auxiliary_device_is_absent(bench: Bench) -> None:
    """Linux takes the port for present when the loop echoes or the test gives 0, FAh or FFh."""
    bench.command(0xD3, 0x5A)
    assert bench.answers() != [0x5A]
    bench.command(0xA9)
    assert bench.answers()[0] not in (0, 0xFA, 0xFF)
    bench.command(0xD4, 0xF2)
    assert bench.status & 0x61 == 0x61, "a time-out, from the auxiliary side"
    assert bench.answers() == [0xFE]
    assert not bench.status & 0x40


def test_reset_line(bench: Bench) -> None:
    bench.command(0xFF)
    assert bench.resets == 0
    bench.command(0xFE)
    assert bench.resets == 1
    bench.command(0xD1, 0xFE)
    assert bench.resets == 2


def test_a20_gate(bench: Bench) -> None:
    bench.command(0xD1, 0xDD)
    bench.command(0xD1, 0xDF)
    bench.command(0xDD)
    bench.command(0xDF)
    assert bench.gates == [False, True, False, True]
    assert bench.resets == 0


def test_keyboard_probe_of_linux(bench: Bench) -> None:
    """atkbd: reset, identify, LEDs, rate, set, enable."""
    bench.data(0xFF)
    assert bench.answers() == [0xFA, 0xAA]
    bench.data(0xF2)
    # Translated: ABh 83h arrive as ABh 41h.
    assert bench.answers() == [0xFA, 0xAB, 0x41]
    bench.data(0xED)
    assert bench.answers() == [0xFA]
    bench.data(0x07)
    assert bench.answers() == [0xFA]
    assert bench.i8042.keyboard.leds == 7
    bench.data(0xF3)
    bench.data(0x00)
    assert bench.answers() == [0xFA, 0xFA] or bench.answers() == []
    bench.data(0xF4)
    assert bench.answers()[-1:] == [0xFA]


def test_untranslated_identity_and_set(bench: Bench) -> None:
    bench.command(0x60, 0x05)
    bench.data(0xF2)
    assert bench.answers() == [0xFA, 0xAB, 0x83]
    bench.data(0xF0)
    assert bench.answers() == [0xFA]
    bench.data(0x00)
    assert bench.answers() == [0xFA, 0x02]
    bench.data(0xEE)
    assert bench.answers() == [0xEE]
    bench.data(0xFE)
    assert bench.answers() == [0xEE], "resend"
    bench.data(0x12)
    assert bench.answers() == [0xFE], "not a command"


@pytest.mark.parametrize(
    ("key", "make", "release"),
    [
        ("a", [0x1E], [0x9E]),
        ("up", [0xE0, 0x48], [0xE0, 0xC8]),
        ("f7", [0x41], [0xC1]),
    ],
)
def test_keys_are_translated(bench: Bench, key: str, make: list[int], release: list[int]) -> None:
    bench.i8042.keyboard.key(KEYS[key], True)
    assert bench.wire.level
    assert bench.answers() == make
    assert not bench.wire.level
    bench.i8042.keyboard.key(KEYS[key], False)
    assert bench.answers() == release


def test_each_byte_is_an_edge(bench: Bench) -> None:
    bench.i8042.keyboard.key(KEYS["up"], True)
    bench.answers()
    assert bench.wire.edges == 2


def test_keyboard_off(bench: Bench) -> None:
    bench.command(0xAD)
    bench.i8042.keyboard.key(KEYS["a"], True)
    assert bench.answers() == []
    bench.command(0xAE)
    assert bench.answers() == [0x1E]
    bench.data(0xF5)
    bench.answers()
    bench.i8042.keyboard.key(KEYS["a"], False)
    assert bench.answers() == [], "scanning is off"


def test_overrun_is_told(bench: Bench) -> None:
    bench.command(0x60, 0x05)
    for _ in range(20):
        bench.i8042.keyboard.key(KEYS["a"], True)
        bench.i8042.keyboard.key(KEYS["a"], False)
    taken = bench.answers()
    assert taken[-1] == 0x00
    assert len(taken) <= 18


def test_interrupt_can_be_off(bench: Bench) -> None:
    bench.command(0x60, 0x44)
    bench.data(0xEE)
    assert bench.status & 1
    assert not bench.wire.level


def test_status_tells_command_from_data(bench: Bench) -> None:
    bench.command(0xAB)
    assert bench.status & 8
    bench.data(0xED)
    assert not bench.status & 8


def test_state_and_restore(bench: Bench) -> None:
    bench.command(0x60, 0x05)
    bench.i8042.keyboard.key(KEYS["a"], True)
    bench.i8042.keyboard.key(KEYS["s"], True)
    bench.data(0xED)
    other = Bench()
    other.i8042.restore(bench.i8042.state())
    assert other.wire.level
    assert other.answers() == bench.answers()
