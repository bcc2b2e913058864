"""Names and numbers of keys: what host ends and the keyboard agree upon.

A number is the key's scan code of set 1 (IBM PS/2 hardware technical reference, "Keyboard"), with
80h added for keys whose code has the prefix E0h; that is how QEMU's extension of the remote
framebuffer protocol counts keys too.
"""

__all__ = ["EXTENDED", "KEYS", "PAUSE", "PRINT_SCREEN"]

#: Added to the number of a key with the prefix E0h.
EXTENDED = 0x80
PRINT_SCREEN = 0x37 | EXTENDED
PAUSE = 0x46 | EXTENDED

#: Keys without a prefix, from number 1 on.
_PLAIN = """
esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab
q w e r t y u i o p leftbracket rightbracket enter ctrl
a s d f g h j k l semicolon apostrophe grave shift backslash
z x c v b n m comma dot slash rightshift kp-multiply alt space capslock
f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 numlock scrolllock
kp-7 kp-8 kp-9 kp-minus kp-4 kp-5 kp-6 kp-plus kp-1 kp-2 kp-3 kp-0 kp-dot
"""
_MORE = {
    "less": 0x56,
    "f11": 0x57,
    "f12": 0x58,
    "yen": 0x7D,
    "ro": 0x73,
    "katakana": 0x70,
    "henkan": 0x79,
    "muhenkan": 0x7B,
    "kp-comma": 0x7E,
}
_EXTENDED = {
    "kp-enter": 0x1C,
    "rightctrl": 0x1D,
    "kp-divide": 0x35,
    "printscreen": 0x37,
    "altgr": 0x38,
    "pause": 0x46,
    "home": 0x47,
    "up": 0x48,
    "pageup": 0x49,
    "left": 0x4B,
    "right": 0x4D,
    "end": 0x4F,
    "down": 0x50,
    "pagedown": 0x51,
    "insert": 0x52,
    "delete": 0x53,
    "meta": 0x5B,
    "rightmeta": 0x5C,
    "menu": 0x5D,
    "power": 0x5E,
    "sleep": 0x5F,
    "wake": 0x63,
}

#: Number of each key by its name: that of the key on a US keyboard.
KEYS: dict[str, int] = {
    **{name: number for number, name in enumerate(_PLAIN.split(), 1)},
    **_MORE,
    **{name: number | EXTENDED for name, number in _EXTENDED.items()},
}
KEYS |= {
    alias: KEYS[name]
    for alias, name in {
        "escape": "esc",
        "return": "enter",
        "del": "delete",
        "ins": "insert",
        "pgup": "pageup",
        "pgdn": "pagedown",
        "control": "ctrl",
        "leftctrl": "ctrl",
        "leftshift": "shift",
        "leftalt": "alt",
        "rightalt": "altgr",
        "super": "meta",
        "win": "meta",
        "print": "printscreen",
        "sysrq": "printscreen",
        "spc": "space",
    }.items()
}
