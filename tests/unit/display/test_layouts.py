"""Keyboard layouts."""

import pytest

from ringfence.bus.keys import KEYS
from ringfence.display.layouts import LAYOUTS, layout
from ringfence.errors import ConfigError

SHIFT, ALTGR, SPACE = KEYS["shift"], KEYS["altgr"], KEYS["space"]
#: What these keyboards can't write without the codes of characters.
MISSING = {"it": "`{}~"}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_programs_can_be_typed(name: str) -> None:
    printable = {chr(code) for code in range(32, 127)} - set(MISSING.get(name, ""))
    assert layout(name).chords_for("".join(sorted(printable)) + "\t\n")


@pytest.mark.parametrize(
    ("name", "text", "chords"),
    [
        ("us", "aA", [(KEYS["a"],), (SHIFT, KEYS["a"])]),
        ("us", "@\n", [(SHIFT, KEYS["2"]), (KEYS["enter"],)]),
        ("uk", '"@#', [(SHIFT, KEYS["2"]), (SHIFT, KEYS["apostrophe"]), (KEYS["backslash"],)]),
        ("de", "zy", [(KEYS["y"],), (KEYS["z"],)]),
        ("de", "@", [(ALTGR, KEYS["q"])]),
        ("de", "^", [(KEYS["grave"],), (SPACE,)]),
        ("de", "é", [(KEYS["equal"],), (KEYS["e"],)]),
        ("fr", "a1", [(KEYS["q"],), (SHIFT, KEYS["1"])]),
        ("fr", "ê", [(KEYS["leftbracket"],), (KEYS["e"],)]),
    ],
)
def test_keys(name: str, text: str, chords: list[tuple[int, ...]]) -> None:
    assert layout(name).chords_for(text) == chords


def test_what_can_not_be_typed() -> None:
    with pytest.raises(ConfigError, match="'ж' can't be typed with the keyboard layout 'us'"):
        layout("us").chords_for("ж")
    with pytest.raises(ConfigError, match=r"no keyboard layout 'klingon'; there are ch, de"):
        layout("klingon")
