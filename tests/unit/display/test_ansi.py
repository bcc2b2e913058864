"""The screen in a terminal, and the terminal's keys."""

import pytest

from ringfence.accel.video import Picture
from ringfence.bus.keys import KEYS
from ringfence.bus.screen import TextPage
from ringfence.display.ansi import TerminalKeys, TerminalPicture
from ringfence.display.layouts import layout
from support.screens import Painting

PALETTE = tuple(index * 0x111111 for index in range(16))


def page(
    text: str, columns: int, cursor: tuple[int, int] | None = None, attribute: int = 7
) -> TextPage:
    codes = text.encode("cp437")
    return TextPage(codes, bytes([attribute] * len(codes)), columns, cursor, PALETTE, True)


def test_first_everything_then_changes() -> None:
    view = TerminalPicture()
    view.resize(2, 4)
    first = view.page(page("abcdefgh", 4, (0, 1)))
    assert "\x1b[2J" in first
    assert "abcd" in first
    assert "efgh" in first
    assert first.endswith("\x1b[1;2H\x1b[?25h")
    assert view.page(page("abcdefgh", 4, (0, 1))) == ""
    second = view.page(page("abcdefXh", 4, (0, 1)))
    assert "\x1b[2;3H" in second
    assert "X" in second
    assert "abcd" not in second
    assert view.page(page("abcdefXh", 4, None)).endswith("\x1b[?25l")


def test_colors_are_those_of_the_palette() -> None:
    view = TerminalPicture()
    view.resize(1, 1)
    shown = view.page(page("x", 1, attribute=0x9E))
    assert "\x1b[0;5;38;2;238;238;238;48;2;17;17;17m" in shown


def test_a_small_terminal_shows_where_the_cursor_is() -> None:
    view = TerminalPicture()
    view.resize(2, 3)
    shown = view.page(page("aaaabbbbccccdddd", 4, (3, 3)))
    assert "ccc" in shown
    assert "ddd" in shown
    assert "a" not in shown.replace("\x1b", "")
    assert shown.endswith("\x1b[2;3H\x1b[?25h")
    view.resize(10, 10)
    assert "aaaa" in view.page(page("aaaabbbbccccdddd", 4, (3, 3)))


def test_pictures_are_made_of_halves() -> None:
    painting, canvas = Painting(8, 8), Picture()
    painting.paint(0, 0, 8, 4, 0xFF0000)
    canvas.draw(*painting.plan())
    view = TerminalPicture()
    view.resize(4, 8)
    shown = view.picture(canvas)
    assert shown.count("▀") == 32
    assert "\x1b[0;38;2;255;0;0;48;2;255;0;0m" in shown
    view.resize(0, 0)
    assert view.picture(canvas) == ""


@pytest.mark.parametrize(
    ("data", "chords"),
    [
        (b"aA", ["a", "shift a"]),
        (b"\r\t\x7f", ["enter", "tab", "backspace"]),
        (b"\x03", ["ctrl c"]),
        (b"\x1b", ["esc"]),
        (b"\x1bx", ["alt x"]),
        (b"\x1b[A\x1bOB\x1b[5~\x1b[24~", ["up", "down", "pageup", "f12"]),
        (b"\x1b[1;5C\x1b[3;2~", ["ctrl right", "shift delete"]),
        (b"\x1bOP\x1b[15~", ["f1", "f5"]),
        (b"\x1b[Z", ["shift tab"]),
        (b"\x1b[999999999999~\x1b[I", []),
        (b"\xff\xfe", []),
    ],
)
def test_keys(data: bytes, chords: list[str]) -> None:
    keys = TerminalKeys(layout("us"))
    wanted = [tuple(KEYS[name] for name in chord.split()) for chord in chords]
    assert keys.feed(data) == wanted


def test_characters_that_come_in_pieces() -> None:
    keys = TerminalKeys(layout("de"))
    assert keys.feed("ü".encode()[:1]) == []
    assert keys.feed("ü".encode()[1:]) == [(KEYS["leftbracket"],)]
