"""Host ends of serial lines."""

from ringfence.chars.console import Console
from ringfence.chars.null import NullPort
from ringfence.chars.stream import Stream

__all__ = ["Console", "NullPort", "Stream"]
