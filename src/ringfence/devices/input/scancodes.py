"""What a key sends, in each of the three scan code sets.

Source: IBM PS/2 hardware technical reference, "101- and 102-key keyboard", scan code tables, and
"Scan code translation" of the keyboard controller.
"""

from ringfence.bus.keys import EXTENDED, KEYS, PAUSE, PRINT_SCREEN

__all__ = ["BREAK", "TRANSLATION", "codes", "number_of_set3", "set3_modes"]

BREAK = 0xF0
_PREFIX = 0xE0

# The set 2 code of each set 1 code, 00h to 7Fh, in the controller's translation (IBM PS/2 hardware
# technical reference, "Scan code translation").
_SET2_BY_SET1 = bytes.fromhex(
    "0076161e26252e363d3e46454e55660d"
    "151d242d2c353c43444d545b5a141c1b"
    "232b34333b424b4c520e125d1a22212a"
    "32313a41494a597c1129580506040c03"
    "0b020a0109777e6c757d7b6b73747969"
    "727a70717f606178070f171f272f373f"
    "474f565e08101820283038404850576f"
    "13193951535c5f6263646567686a6d6e"
)
#: Set 1 code by set 2 code, as the controller translates.
TRANSLATION = {code: index for index, code in enumerate(_SET2_BY_SET1)}
TRANSLATION |= {0x00: 0xFF, 0x83: 0x41, 0x84: 0x54}

#: The fake left shift that comes with Print Screen.
_FAKE_SHIFT = 0x12
_PRINT, _SYSRQ, _F7 = 0x7C, 0x84, 0x83
_PAUSE_2 = (0xE1, 0x14, 0x77, 0xE1, BREAK, 0x14, BREAK, 0x77)
_CTRL_PAUSE_2 = (_PREFIX, 0x7E, _PREFIX, BREAK, 0x7E)

#: Set 3 codes that are not those of set 2.
_SET3 = {
    KEYS[name]: code
    for name, code in {
        "backslash": 0x5C,
        "less": 0x13,
        "ctrl": 0x11,
        "alt": 0x19,
        "capslock": 0x14,
        "rightctrl": 0x58,
        "altgr": 0x39,
        "esc": 0x08,
        "f1": 0x07,
        "f2": 0x0F,
        "f3": 0x17,
        "f4": 0x1F,
        "f5": 0x27,
        "f6": 0x2F,
        "f7": 0x37,
        "f8": 0x3F,
        "f9": 0x47,
        "f10": 0x4F,
        "f11": 0x56,
        "f12": 0x5E,
        "printscreen": 0x57,
        "scrolllock": 0x5F,
        "pause": 0x62,
        "insert": 0x67,
        "delete": 0x64,
        "left": 0x61,
        "home": 0x6E,
        "end": 0x65,
        "up": 0x63,
        "down": 0x60,
        "pageup": 0x6F,
        "pagedown": 0x6D,
        "right": 0x6A,
        "numlock": 0x76,
        "kp-divide": 0x77,
        "kp-multiply": 0x7E,
        "kp-minus": 0x84,
        "kp-plus": 0x7C,
        "kp-enter": 0x79,
        "meta": 0x8B,
        "rightmeta": 0x8C,
        "menu": 0x8D,
    }.items()
}
#: Keys that send a release in set 3 after power-on, and keys that neither do so nor repeat.
_MAKE_BREAK = ("shift", "rightshift", "ctrl", "alt", "capslock")
_MAKE_ONLY = (
    *(f"f{number}" for number in range(1, 13)),
    *("esc", "numlock", "scrolllock", "pause", "printscreen", "insert", "home", "end"),
    *("pageup", "pagedown", "rightctrl", "altgr", "kp-enter", "kp-divide", "kp-multiply"),
    *(f"kp-{key}" for key in ("minus", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "dot")),
    *("meta", "rightmeta", "menu"),
)
TYPEMATIC, SENDS_BREAK = 1, 2


def set3_code(number: int) -> int:
    """The set 3 code of a key; 0: it has none."""
    code = _SET3.get(number)
    if code is not None:
        return code
    return 0 if number & EXTENDED else _SET2_BY_SET1[number & 0x7F]


_NUMBER_BY_SET3 = {set3_code(number): number for number in sorted(KEYS.values(), reverse=True)}


def number_of_set3(code: int) -> int | None:
    """The key with a code of set 3."""
    return _NUMBER_BY_SET3.get(code)


def set3_modes() -> bytearray:
    """For each code of set 3 whether its key repeats and sends a release, after power-on."""
    modes = bytearray([TYPEMATIC]) * 256
    for name in _MAKE_BREAK:
        modes[set3_code(KEYS[name])] = SENDS_BREAK
    for name in _MAKE_ONLY:
        modes[set3_code(KEYS[name])] = 0
    return modes


def codes(number: int, down: bool, scan_set: int, held: frozenset[str]) -> tuple[int, ...]:
    """What a key sends when it goes down or up.

    Args:
        number: The key.
        down: Whether it goes down.
        scan_set: 1, 2 or 3.
        held: Which of ``shift``, ``ctrl`` and ``alt`` are held.
    """
    if scan_set == 3:
        code = set3_code(number)
        return (code,) if down else (BREAK, code)
    sent = _set2(number, down, held)
    return _as_set1(sent) if scan_set == 1 else sent


def _set2(number: int, down: bool, held: frozenset[str]) -> tuple[int, ...]:
    if number == PAUSE:
        # Pause has no release: all of it is sent at once.
        return (_CTRL_PAUSE_2 if "ctrl" in held else _PAUSE_2) if down else ()
    if number == PRINT_SCREEN:
        if "alt" in held:
            return (_SYSRQ,) if down else (BREAK, _SYSRQ)
        if held:
            return (_PREFIX, _PRINT) if down else (_PREFIX, BREAK, _PRINT)
        if down:
            return (_PREFIX, _FAKE_SHIFT, _PREFIX, _PRINT)
        return (_PREFIX, BREAK, _PRINT, _PREFIX, BREAK, _FAKE_SHIFT)
    code = _F7 if number == KEYS["f7"] else _SET2_BY_SET1[number & 0x7F]
    prefix = (_PREFIX,) if number & EXTENDED else ()
    return (*prefix, code) if down else (*prefix, BREAK, code)


def _as_set1(sent: tuple[int, ...]) -> tuple[int, ...]:
    """Codes of set 2 as a keyboard sends them in set 1."""
    translated, releasing = [], 0
    for value in sent:
        if value == BREAK:
            releasing = 0x80
        elif value in (_PREFIX, 0xE1):
            translated.append(value)
        else:
            translated.append(TRANSLATION[value] | releasing)
            releasing = 0
    return tuple(translated)
