"""Host ends of serial lines."""

from ringfence.chars.null import NullPort
from ringfence.chars.stream import Stream

__all__ = ["NullPort", "Stream"]
