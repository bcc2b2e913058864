"""Sizes and durations as people write them.

Sizes follow the habit of virtual machine monitors: ``K``, ``M``, ``G``, ``T`` are powers of 1024,
with or without ``iB`` or ``B`` behind (``512M``, ``1.5G``, ``64KiB``). Durations are seconds
unless a unit follows (``30``, ``1.5s``, ``250ms``, ``2m``, ``1h``).
"""

from ringfence.errors import ConfigError

__all__ = [
    "GIB",
    "KIB",
    "MIB",
    "NANOSECONDS",
    "TIB",
    "format_size",
    "parse_duration",
    "parse_size",
]

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40
#: Nanoseconds in a second.
NANOSECONDS = 1_000_000_000

_SIZES = {"": 1, "B": 1}
for _letter, _factor in (("K", KIB), ("M", MIB), ("G", GIB), ("T", TIB)):
    _SIZES |= {_letter: _factor, _letter + "B": _factor, _letter + "IB": _factor}
_DURATIONS = {
    "": 1.0,
    "S": 1.0,
    "MS": 1e-3,
    "US": 1e-6,
    "NS": 1e-9,
    "M": 60.0,
    "MIN": 60.0,
    "H": 3600.0,
}
_LONGEST = 64
_LARGEST_SIZE = 1 << 62
_LONGEST_DURATION = 1e9


def parse_size(text: object) -> int:
    """The size in bytes that ``text`` names; a number is taken as it is.

    Raises:
        ConfigError: ``text`` is not a size, is negative, or is not a whole number of bytes.
    """
    if isinstance(text, bool):
        raise ConfigError(f"{text} is not a size")
    if isinstance(text, int):
        if text < 0:
            raise ConfigError(f"{text} is not a size: it is negative")
        return text
    if not isinstance(text, str):
        raise ConfigError(f"{text!r} is not a size; write one like 512M")
    number, unit = _split(text, "size", "512M, 1.5G or 64KiB")
    factor = _SIZES.get(unit.upper())
    if factor is None:
        raise ConfigError(f"{text!r} is not a size: {unit!r} is no unit; use K, M, G or T")
    whole, _, fraction = number.partition(".")
    scale: int = 10 ** len(fraction)
    # Integers throughout: a float would lose bytes of large sizes.
    value, rest = divmod(int((whole or "0") + fraction) * factor, scale)
    if rest:
        raise ConfigError(f"{text!r} is not a size: it is not a whole number of bytes")
    if value > _LARGEST_SIZE:
        raise ConfigError(f"{text!r} is not a size: it is too large")
    return value


def parse_duration(text: object) -> float:
    """The duration in seconds that ``text`` names; a number is taken as seconds.

    Raises:
        ConfigError: ``text`` is not a duration, or is negative or endless.
    """
    if isinstance(text, bool):
        raise ConfigError(f"{text} is not a duration")
    if isinstance(text, int | float):
        value = float(text) if abs(text) <= _LONGEST_DURATION else _LONGEST_DURATION * 2
    elif not isinstance(text, str):
        raise ConfigError(f"{text!r} is not a duration; write one like 30s")
    else:
        number, unit = _split(text, "duration", "30s, 250ms or 2m")
        factor = _DURATIONS.get(unit.upper())
        if factor is None:
            raise ConfigError(f"{text!r} is not a duration: {unit!r} is no unit; use ms, s, m or h")
        value = float(number) * factor
    if not 0 <= value <= _LONGEST_DURATION:
        raise ConfigError(f"{text!r} is not a duration between 0 and {_LONGEST_DURATION:g} s")
    return value


def format_size(size: int) -> str:
    """``size`` bytes in the largest unit that divides them: ``parse_size`` reads it back."""
    for unit, factor in (("T", TIB), ("G", GIB), ("M", MIB), ("K", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _split(text: str, what: str, example: str) -> tuple[str, str]:
    """Splits a number from its unit."""
    stripped = text.strip()
    length = 0
    while length < len(stripped) and stripped[length] in "0123456789.":
        length += 1
    number, unit = stripped[:length], stripped[length:].strip()
    if len(stripped) > _LONGEST or not number.strip(".") or number.count(".") > 1:
        shown = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
        raise ConfigError(f"{shown!r} is not a {what}; write one like {example}")
    return number, unit
