"""The keyboard's scan code sets and repetition; the mouse's commands and packets."""

import pytest

from ringfence.bus.keys import KEYS
from ringfence.devices.input.i8042 import I8042
from ringfence.devices.input.keyboard import Keyboard
from ringfence.devices.input.mouse import Mouse
from support.fake_devices import HandClock, Wire

MILLISECOND = 1_000_000


class Cable:
    """A keyboard or mouse, and what its host has taken from it."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.keyboard = Keyboard(lambda: None, self.clock)
        self.mouse = Mouse(lambda: None)

    def ask(self, *values: int) -> list[int]:
        taken = []
        for value in values:
            self.keyboard.receive(value)
            taken += self.codes()
        return taken

    def codes(self) -> list[int]:
        taken = []
        while (value := self.keyboard.send(translate=False)) is not None:
            taken.append(value)
        return taken

    def stroke(self, name: str) -> list[int]:
        self.keyboard.key(KEYS[name], True)
        self.keyboard.key(KEYS[name], False)
        return self.codes()

    def tell(self, *values: int) -> list[int]:
        taken = []
        for value in values:
            self.mouse.receive(value)
            taken += self.packet()
        return taken

    def packet(self) -> list[int]:
        taken = []
        while (value := self.mouse.send()) is not None:
            taken.append(value)
        return taken


@pytest.fixture
def cable() -> Cable:
    return Cable()


@pytest.mark.parametrize(
    ("scan_set", "name", "codes"),
    [
        (1, "a", "1e9e"),
        (1, "up", "e048e0c8"),
        (1, "printscreen", "e02ae037e0b7e0aa"),
        (1, "pause", "e11d45e19dc5"),
        (1, "f12", "58d8"),
        (2, "a", "1cf01c"),
        (2, "rightctrl", "e014e0f014"),
        (2, "f7", "83f083"),
        (2, "printscreen", "e012e07ce0f07ce0f012"),
        (2, "pause", "e11477e1f014f077"),
        (2, "less", "61f061"),
        (3, "a", "1c"),
        (3, "shift", "12f012"),
        (3, "up", "63"),
        (3, "esc", "08"),
    ],
)
def test_scan_codes(cable: Cable, scan_set: int, name: str, codes: str) -> None:
    assert cable.ask(0xF0, scan_set) == [0xFA, 0xFA]
    assert cable.ask(0xF0, 0) == [0xFA, 0xFA, scan_set]
    assert bytes(cable.stroke(name)).hex() == codes


def test_codes_that_hang_on_modifiers(cable: Cable) -> None:
    cable.keyboard.key(KEYS["ctrl"], True)
    cable.codes()
    assert bytes(cable.stroke("pause")).hex() == "e07ee0f07e"
    assert bytes(cable.stroke("printscreen")).hex() == "e07ce0f07c"
    cable.keyboard.key(KEYS["ctrl"], False)
    cable.keyboard.key(KEYS["alt"], True)
    cable.codes()
    assert bytes(cable.stroke("printscreen")).hex() == "84f084"


def test_set_3_tells_of_releases_as_asked(cable: Cable) -> None:
    cable.ask(0xF0, 3)
    assert cable.ask(0xF8) == [0xFA]
    assert cable.stroke("a") == [0x1C, 0xF0, 0x1C]
    # From here on this key, and this key alone, sends no release.
    assert cable.ask(0xFD, 0x1C) == [0xFA, 0xFA]
    assert cable.ask(0xF4) == [0xFA]
    assert cable.stroke("a") == [0x1C]
    assert cable.stroke("s") == [0x1B, 0xF0, 0x1B]


def test_a_held_key_repeats(cable: Cable) -> None:
    assert cable.ask(0xF3, 0x20) == [0xFA, 0xFA]
    cable.keyboard.key(KEYS["a"], True)
    assert cable.codes() == [0x1C]
    cable.clock.advance(499 * MILLISECOND)
    assert cable.codes() == []
    cable.clock.advance(2 * MILLISECOND)
    assert cable.codes() == [0x1C]
    # 30 a second.
    repeats = 0
    for _ in range(100):
        cable.clock.advance(10 * MILLISECOND)
        repeats += len(cable.codes())
    assert 29 <= repeats <= 31
    cable.keyboard.key(KEYS["s"], True)
    cable.keyboard.key(KEYS["a"], False)
    cable.codes()
    cable.clock.advance(600 * MILLISECOND)
    assert set(cable.codes()) == {0x1B}, "the last key repeats"
    cable.keyboard.key(KEYS["s"], False)
    cable.codes()
    cable.clock.advance(5000 * MILLISECOND)
    assert cable.codes() == []


def test_a_host_that_takes_nothing_is_not_flooded(cable: Cable) -> None:
    cable.keyboard.key(KEYS["a"], True)
    cable.clock.advance(60_000 * MILLISECOND)
    assert cable.codes() == [0x1C]


def test_a_key_that_is_down_goes_down_once(cable: Cable) -> None:
    cable.keyboard.key(KEYS["a"], True)
    cable.keyboard.key(KEYS["a"], True)
    assert cable.codes() == [0x1C]
    cable.keyboard.key(KEYS["s"], False)
    assert cable.codes() == []


def test_answers_go_before_keys(cable: Cable) -> None:
    cable.keyboard.key(KEYS["capslock"], True)
    cable.keyboard.receive(0xED)
    assert cable.codes() == [0xFA, 0x58]
    assert cable.ask(4) == [0xFA]
    assert cable.keyboard.leds == 4


def test_mouse_reset_and_identity(cable: Cable) -> None:
    assert cable.tell(0xFF) == [0xFA, 0xAA, 0x00]
    assert cable.tell(0xF2) == [0xFA, 0x00]
    assert cable.tell(0xE9) == [0xFA, 0x00, 0x02, 100]
    assert cable.tell(0xE8, 3) == [0xFA, 0xFA]
    assert cable.tell(0xE7) == [0xFA]
    assert cable.tell(0xF4) == [0xFA]
    assert cable.tell(0xE9) == [0xFA, 0x30, 0x03, 100]
    assert cable.tell(0x55) == [0xFE]


def test_mouse_moves(cable: Cable) -> None:
    cable.mouse.move(3, 4)
    assert cable.packet() == [], "it is off after a reset"
    cable.tell(0xF4)
    cable.mouse.move(3, 4)
    assert cable.packet() == [0x28, 3, 0xFC]
    cable.mouse.set_buttons(1)
    assert cable.packet() == [0x09, 0, 0]
    cable.mouse.set_buttons(0)
    cable.mouse.move(-1, 0)
    assert cable.packet() == [0x18, 0xFF, 0]


def test_mouse_loses_no_movement(cable: Cable) -> None:
    cable.tell(0xF4)
    for _ in range(100):
        cable.mouse.move(10, 0)
    packets = cable.packet()
    assert sum(packets[1::3]) == 1000


@pytest.mark.parametrize(
    ("rates", "identity", "size"), [((200, 100, 80), 3, 4), ((200, 200, 80), 4, 4)]
)
def test_mouse_wheel(cable: Cable, rates: tuple[int, ...], identity: int, size: int) -> None:
    for rate in rates:
        assert cable.tell(0xF3, rate) == [0xFA, 0xFA]
    assert cable.tell(0xF2) == [0xFA, identity]
    cable.tell(0xF4)
    cable.mouse.move(0, 0, 1)
    assert cable.packet() == [0x08, 0, 0, 1]
    cable.mouse.set_buttons(0x18)
    packet = cable.packet()
    assert packet == ([0x08, 0, 0, 0x30] if identity == 4 else [])


def test_mouse_in_remote_and_wrap_mode(cable: Cable) -> None:
    assert cable.tell(0xF4, 0xF0) == [0xFA, 0xFA]
    cable.mouse.move(1, 0)
    assert cable.packet() == []
    assert cable.tell(0xEB) == [0xFA, 0x08, 1, 0]
    assert cable.tell(0xEE, 0x42, 0xF4, 0xEC) == [0xFA, 0x42, 0xF4, 0xFA]


def test_mouse_behind_the_controller() -> None:
    keyboard_wire, mouse_wire = Wire(), Wire()
    i8042 = I8042(keyboard_wire, lambda: None, aux_irq=mouse_wire)
    mouse = i8042.mouse
    assert mouse

    def command(*values: int) -> list[int]:
        i8042.write(4, 1, values[0])
        for value in values[1:]:
            i8042.write(0, 1, value)
        taken = []
        while i8042.read(4, 1) & 1:
            taken.append((i8042.read(4, 1) >> 5 & 1, i8042.read(0, 1)))
        assert all(aux for aux, _ in taken) or not any(aux for aux, _ in taken)
        return [value for _, value in taken]

    assert command(0xA9) == [0x00]
    assert command(0xD3, 0x5A) == [0x5A]
    command(0x60, 0x47)
    assert command(0xD4, 0xF2) == [0xFA, 0x00]
    assert command(0xD4, 0xF4) == [0xFA]
    edges = keyboard_wire.edges
    mouse.move(1, 1)
    assert mouse_wire.level
    assert i8042.read(4, 1) & 0x21 == 0x21
    assert [i8042.read(0, 1) for _ in range(3)] == [0x28, 1, 0xFF]
    assert not mouse_wire.level
    assert keyboard_wire.edges == edges
    command(0xA7)
    mouse.move(1, 0)
    assert not i8042.read(4, 1) & 1, "its clock line is held"
