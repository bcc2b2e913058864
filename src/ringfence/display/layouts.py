"""Keyboard layouts: which keys write a character.

A layout is a table of the keys as they lie, a text for each level (plain, with Shift, with AltGr);
a ``·`` is a key that writes nothing there. Dead keys are those that wait for the letter to which
they add an accent.
"""

import unicodedata
from typing import NamedTuple

from ringfence.bus.keys import KEYS
from ringfence.errors import ConfigError

__all__ = ["LAYOUTS", "Chord", "Layout", "layout"]

#: Keys to hold, by number: modifiers first.
Chord = tuple[int, ...]

_KEYS = """
grave 1 2 3 4 5 6 7 8 9 0 minus equal
q w e r t y u i o p leftbracket rightbracket
a s d f g h j k l semicolon apostrophe backslash
less z x c v b n m comma dot slash
"""
_ALWAYS = {
    " ": "space",
    "\n": "enter",
    "\r": "enter",
    "\t": "tab",
    "\b": "backspace",
    "\x1b": "esc",
    "\x7f": "delete",
}
#: The combining character that each dead key adds.
_DEAD = {
    "^": "\u0302",
    "´": "\u0301",
    "`": "\u0300",
    "¨": "\u0308",
    "~": "\u0303",
}


class Layout(NamedTuple):
    """A layout.

    Attributes:
        name: Its name.
        chords: For each character the chords that write it, one after the other.
    """

    name: str
    chords: dict[str, tuple[Chord, ...]]

    def chords_for(self, text: str) -> list[Chord]:
        """What to press for a text.

        Raises:
            ConfigError: a character can't be written by this layout.
        """
        pressed: list[Chord] = []
        for character in text:
            found = self.chords.get(character) or self._accented(character)
            if found is None:
                raise ConfigError(
                    f"{character!r} can't be typed with the keyboard layout {self.name!r}"
                )
            pressed += found
        return pressed

    def _accented(self, character: str) -> tuple[Chord, ...] | None:
        """A letter with an accent by a dead key and the letter."""
        letters = unicodedata.normalize("NFD", character)
        if len(letters) != 2:
            return None
        letter = self.chords.get(letters[0])
        for dead, combining in _DEAD.items():
            accent = self.chords.get(f"dead {dead}")
            if combining == letters[1] and letter and accent:
                return (*accent, *letter)
        return None


def _layout(
    name: str, plain: str, shift: str, altgr: dict[str, str] | None = None, dead: str = ""
) -> Layout:
    """Makes a layout of its levels; ``altgr`` names keys by what they write plainly."""
    numbers = [KEYS[key] for key in _KEYS.split()]
    assert len(plain) == len(shift) == len(numbers), name
    chords: dict[str, tuple[Chord, ...]] = {
        character: ((KEYS[key],),) for character, key in _ALWAYS.items()
    }
    levels = [
        (plain, ()),
        (shift, (KEYS["shift"],)),
    ]
    found = [
        (character, (*modifiers, number))
        for level, modifiers in levels
        for character, number in zip(level, numbers, strict=True)
    ]
    found += [
        (character, (KEYS["altgr"], numbers[plain.index(key)]))
        for key, character in (altgr or {}).items()
    ]
    for character, chord in found:
        if character == "·":
            continue
        if character in dead:
            chords.setdefault(f"dead {character}", (chord,))
            chords.setdefault(character, (chord, (KEYS["space"],)))
        else:
            chords.setdefault(character, (chord,))
    return Layout(name, chords)


_ALL = (
    _layout(
        "us",
        "`1234567890-=qwertyuiop[]asdfghjkl;'\\·zxcvbnm,./",
        '~!@#$%^&*()_+QWERTYUIOP{}ASDFGHJKL:"|·ZXCVBNM<>?',
    ),
    _layout(
        "uk",
        "`1234567890-=qwertyuiop[]asdfghjkl;'#\\zxcvbnm,./",
        '¬!"£$%^&*()_+QWERTYUIOP{}ASDFGHJKL:@~|ZXCVBNM<>?',
        {"`": "¦", "4": "€", "a": "á", "e": "é", "i": "í", "o": "ó", "u": "ú"},
    ),
    _layout(
        "de",
        "^1234567890ß´qwertzuiopü+asdfghjklöä#<yxcvbnm,.-",
        "°!\"§$%&/()=?`QWERTZUIOPÜ*ASDFGHJKLÖÄ'>YXCVBNM;:_",
        dict(zip("237890ßqe+<m", "²³{[]}\\@€~|µ", strict=True)),
        dead="^´`",
    ),
    _layout(
        "fr",
        "²&é\"'(-è_çà)=azertyuiop^$qsdfghjklmù*<wxcvbn,;:!",
        "·1234567890°+AZERTYUIOP¨£QSDFGHJKLM%µ>WXCVBN?./§",
        dict(zip("é\"'(-è_çà)=e$", "~#{[|`\\^@]}€¤", strict=True)),
        dead="^¨",
    ),
    _layout(
        "es",
        "º1234567890'¡qwertyuiop`+asdfghjklñ´ç<zxcvbnm,.-",
        'ª!"·$%&/()=?¿QWERTYUIOP^*ASDFGHJKLÑ¨Ç>ZXCVBNM;:_',
        dict(zip("º12346e`+´ç", "\\|@#~¬€[]{}", strict=True)),
        dead="`^´¨",
    ),
    _layout(
        "it",
        "\\1234567890'ìqwertyuiopè+asdfghjklòàù<zxcvbnm,.-",
        '|!"£$%&/()=?^QWERTYUIOPé*ASDFGHJKLç°§>ZXCVBNM;:_',
        dict(zip("eè+òà", "€[]@#", strict=True)),
    ),
    _layout(
        "se",
        "§1234567890+´qwertyuiopå¨asdfghjklöä'<zxcvbnm,.-",
        '½!"#¤%&/()=?`QWERTYUIOPÅ^ASDFGHJKLÖÄ*>ZXCVBNM;:_',
        dict(zip("23457890+e<", "@£$€{[]}\\€|", strict=True)) | {"¨": "~"},
        dead="´`¨^~",
    ),
    _layout(
        "ch",
        "§1234567890'^qwertzuiopü¨asdfghjklöä$<yxcvbnm,.-",
        '°+"*ç%&/()=?`QWERTZUIOPè!ASDFGHJKLéà£>YXCVBNM;:_',
        dict(zip("123678eüä$<", "¦@#¬|¢€[{}\\", strict=True)) | {"¨": "]", "^": "~"},
        dead="^`¨~",
    ),
)

#: All layouts by name.
LAYOUTS: dict[str, Layout] = {entry.name: entry for entry in _ALL} | {
    "en": _ALL[0],
    "gb": _ALL[1],
}


def layout(name: str) -> Layout:
    """The layout ``name``.

    Raises:
        ConfigError: there is none.
    """
    found = LAYOUTS.get(name)
    if found is None:
        raise ConfigError(
            f"there is no keyboard layout {name!r}; there are {', '.join(sorted(LAYOUTS))}"
        )
    return found
