"""Characters of the IBM PC (code page 437), with the pictures of the control codes."""

__all__ = ["decode"]

_CONTROLS = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
_TABLE = _CONTROLS + bytes(range(32, 256)).decode("cp437")
_TABLE = _TABLE[:127] + "⌂" + _TABLE[128:255] + " "
_TRANSLATION = {code: ord(character) for code, character in enumerate(_TABLE)}


def decode(codes: bytes) -> str:
    """The text of character codes."""
    return codes.decode("latin-1").translate(_TRANSLATION)
