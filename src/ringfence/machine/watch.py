"""Watches a console for the kernel's last words.

A panicked Linux neither powers off nor shuts down unless told to (``panic=``), so what it prints
is the only sign. The texts are those of ``kernel/panic.c`` and ``mm/oom_kill.c``.
"""

from collections.abc import Callable

__all__ = ["ConsoleWatch"]

_PANIC = b"Kernel panic - not syncing"
_PANIC_END = b"---[ end Kernel panic"
_KILLED = b"Out of memory: Killed process"
# Long enough for each mark, should it come in two pieces.
_KEPT = max(len(_PANIC), len(_PANIC_END), len(_KILLED)) + 8
_LONGEST_MESSAGE = 500


class ConsoleWatch:
    """Looks for panics and for processes killed for want of memory.

    Args:
        panicked: Called once with the message, when its line is whole.
        finished: Called once when the kernel says that it has finished panicking.
    """

    def __init__(self, panicked: Callable[[str], None], finished: Callable[[], None]) -> None:
        self._panicked = panicked
        self._finished = finished
        self._tail = b""
        self._message: bytearray | None = None
        self._told = False
        self._ended = False
        #: How many processes the guest has killed for want of memory.
        self.kills = 0

    @property
    def panic(self) -> str | None:
        """The message of the panic, as far as it has come."""
        return None if self._message is None else _clean(bytes(self._message))

    def feed(self, data: bytes) -> None:
        """Takes console output."""
        text = self._tail + data
        before = len(self._tail)
        self.kills += _count_new(text, _KILLED, before)
        if self._message is None:
            at = text.find(_PANIC)
            if at >= 0:
                self._message = bytearray(text[at + len(_PANIC) :])
        elif not self._told:
            self._message += data
        if self._message is not None and not self._told:
            line, end, _ = bytes(self._message).partition(b"\n")
            if end or len(line) > _LONGEST_MESSAGE:
                self._message = bytearray(line[:_LONGEST_MESSAGE])
                self._told = True
                self._panicked(_clean(bytes(self._message)))
        if self._told and not self._ended and _PANIC_END in text:
            self._ended = True
            self._finished()
        self._tail = text[-_KEPT:]


def _count_new(text: bytes, mark: bytes, before: int) -> int:
    """How often ``mark`` ends behind the first ``before`` bytes."""
    return text.count(mark, max(before - len(mark) + 1, 0))


def _clean(line: bytes) -> str:
    """The message without the colon before it and the line end behind it."""
    return line.decode(errors="replace").strip().removeprefix(":").strip()
