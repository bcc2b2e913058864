"""The escape key: Ctrl-A and one more key talk to the monitor, all else goes to the guest."""

from collections.abc import Iterator
from enum import Enum

ESCAPE = 0x01  # Ctrl-A

HELP = """\
Ctrl-A x       stop the machine and leave
Ctrl-A p       pause the machine, or let it go on
Ctrl-A h       this help
Ctrl-A Ctrl-A  send Ctrl-A to the guest"""


class Action(Enum):
    """What the user asks of the monitor."""

    QUIT = "quit"
    PAUSE = "pause"
    HELP = "help"


_ACTIONS = {
    ord("x"): Action.QUIT,
    ord("X"): Action.QUIT,
    ord("p"): Action.PAUSE,
    ord("P"): Action.PAUSE,
}


class EscapeKey:
    """Divides what is typed into bytes for the guest and actions for the monitor."""

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, data: bytes) -> Iterator[bytes | Action]:
        """The parts of ``data`` in order; an escape at its end waits for the next call."""
        pending = bytearray()
        for byte in data:
            if not self._escaped:
                if byte == ESCAPE:
                    self._escaped = True
                else:
                    pending.append(byte)
                continue
            self._escaped = False
            if byte == ESCAPE:
                pending.append(byte)
                continue
            if pending:
                yield bytes(pending)
                pending.clear()
            yield _ACTIONS.get(byte, Action.HELP)
        if pending:
            yield bytes(pending)
