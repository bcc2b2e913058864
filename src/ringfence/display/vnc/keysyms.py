"""Keys by the names that viewers send: X11 keysyms (RFC 6143, section 7.5.4)."""

from ringfence.bus.keys import KEYS
from ringfence.display.layouts import Layout

__all__ = ["key_of"]

#: Keysyms of keys that write nothing, from the X11 protocol's table.
_NAMED = {
    0xFF08: "backspace",
    0xFF09: "tab",
    0xFE20: "tab",
    0xFF0D: "enter",
    0xFF13: "pause",
    0xFF14: "scrolllock",
    0xFF15: "printscreen",
    0xFF1B: "esc",
    0xFF50: "home",
    0xFF51: "left",
    0xFF52: "up",
    0xFF53: "right",
    0xFF54: "down",
    0xFF55: "pageup",
    0xFF56: "pagedown",
    0xFF57: "end",
    0xFF61: "printscreen",
    0xFF63: "insert",
    0xFF67: "menu",
    0xFF6B: "pause",
    0xFF7F: "numlock",
    0xFF80: "space",
    0xFF89: "tab",
    0xFF8D: "kp-enter",
    0xFF95: "kp-7",
    0xFF96: "kp-4",
    0xFF97: "kp-8",
    0xFF98: "kp-6",
    0xFF99: "kp-2",
    0xFF9A: "kp-9",
    0xFF9B: "kp-3",
    0xFF9C: "kp-1",
    0xFF9D: "kp-5",
    0xFF9E: "kp-0",
    0xFF9F: "kp-dot",
    0xFFAA: "kp-multiply",
    0xFFAB: "kp-plus",
    0xFFAC: "kp-comma",
    0xFFAD: "kp-minus",
    0xFFAE: "kp-dot",
    0xFFAF: "kp-divide",
    **{0xFFB0 + digit: f"kp-{digit}" for digit in range(10)},
    **{0xFFBE + number: f"f{number + 1}" for number in range(12)},
    0xFFE1: "shift",
    0xFFE2: "rightshift",
    0xFFE3: "ctrl",
    0xFFE4: "rightctrl",
    0xFFE5: "capslock",
    0xFFE7: "meta",
    0xFFE8: "rightmeta",
    0xFFE9: "alt",
    0xFFEA: "altgr",
    0xFFEB: "meta",
    0xFFEC: "rightmeta",
    0xFE03: "altgr",
    0xFF7E: "altgr",
    0xFFFF: "delete",
}
_UNICODE = 0x01000000
#: Dead keys, by the accent they write.
_DEAD = {0xFE50: "`", 0xFE51: "´", 0xFE52: "^", 0xFE53: "~", 0xFE57: "¨"}


def key_of(keysym: int, layout: Layout) -> int | None:
    """The number of the key (``bus.keys``) that sends a keysym; ``None``: there is none.

    Modifiers are the viewer's to send: only the key itself counts.
    """
    name = _NAMED.get(keysym)
    if name is not None:
        return KEYS[name]
    if keysym in _DEAD:
        chords = layout.chords.get(f"dead {_DEAD[keysym]}") or layout.chords.get(_DEAD[keysym])
    elif 0x20 <= keysym <= 0xFF:
        chords = layout.chords.get(chr(keysym))
    elif _UNICODE <= keysym <= _UNICODE + 0x10FFFF:
        chords = layout.chords.get(chr(keysym - _UNICODE))
    elif keysym == 0x20AC:
        chords = layout.chords.get("€")
    else:
        chords = None
    return chords[0][-1] if chords else None
