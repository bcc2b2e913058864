"""A PS/2 mouse with wheel and five buttons.

Source: IBM PS/2 hardware technical reference, "Mouse" (commands, packet of three bytes); the
extensions of the Microsoft IntelliMouse and IntelliMouse Explorer (a fourth byte, asked for by
the sample rates 200, 100, 80 and 200, 200, 80). Left out: scaling 2:1, which is kept and reported;
movements go out as fast as the host takes them, whatever the sample rate.
"""

from collections.abc import Callable

from ringfence.bus import State, restore_fields, save_fields

__all__ = ["Mouse"]

_ACK, _ERROR, _RESEND, _PASSED = 0xFA, 0xFC, 0xFE, 0xAA
_ENABLED, _SCALED, _REMOTE = 0x20, 0x10, 0x40
_KNOCK_WHEEL, _KNOCK_BUTTONS = [200, 100, 80], [200, 200, 80]
_PLAIN, _WHEEL, _BUTTONS = 0, 3, 4
_QUEUE = 16
#: Movement that is kept until it can be sent.
_FARTHEST = 1 << 15
_VERSION = 1
_FIELDS = {
    "_queue": 0xFF,
    "_rates": 0xFF,
    "_identity": 4,
    "_enabled": 1,
    "_remote": 1,
    "_scaled": 1,
    "_wrap": 1,
    "_rate": 0xFF,
    "_resolution": 0xFF,
    "_command": 0xFF,
    "_last": 0xFF,
    "_buttons": 0x1F,
    "_sent_buttons": 0x1F,
    "_moved": 2 * _FARTHEST,
}


class Mouse:
    """Answers commands and sends movements; ``ready`` is called when there is something to send.

    Movements that the host has not taken yet add up, so none is lost.
    """

    def __init__(self, ready: Callable[[], None]) -> None:
        self._ready = ready
        self.reset()

    def reset(self) -> None:
        """Power-on state, its self-test passed long ago."""
        self._queue: list[int] = []
        #: The last three sample rates, by which extensions are asked for.
        self._rates: list[int] = [0, 0, 0]
        self._identity = _PLAIN
        self._wrap = False
        self._command = 0
        self._last = 0
        self._buttons = self._sent_buttons = 0
        #: Counts to the right, up and of the wheel, each kept with an offset: saved numbers have
        #: no sign.
        self._moved: list[int] = [_FARTHEST] * 3
        self._rate, self._resolution = 100, 2
        self._scaled = self._enabled = self._remote = False

    def receive(self, value: int) -> None:
        """Takes a byte from the host: a command or the parameter of one."""
        if self._wrap and value not in (0xEC, 0xFF):
            self._queue = [value]
            return
        command, self._command = self._command, 0
        self._queue.clear()
        if command == 0xF3:
            self._set_rate(value)
        elif command == 0xE8:
            if value > 3:
                self._reply(_ERROR)
                return
            self._resolution = value
            self._reply(_ACK)
        else:
            self._execute(value)

    def send(self) -> int | None:
        """The next byte for the host, or ``None``."""
        if not self._queue and self._enabled and not self._remote and not self._wrap:
            self._packet_if_moved()
        if not self._queue:
            return None
        self._last = self._queue.pop(0)
        return self._last

    def move(self, right: int, down: int, wheel: int = 0) -> None:
        """Moves the mouse by counts to the right and down (towards the user), and its wheel.

        A positive ``wheel`` turns it towards the user: down.
        """
        for index, count in enumerate((right, -down, wheel)):
            value = self._moved[index] - _FARTHEST + count
            self._moved[index] = min(max(value, -_FARTHEST), _FARTHEST) + _FARTHEST
        self._ready()

    def set_buttons(self, buttons: int) -> None:
        """Presses and releases: left 1, right 2, middle 4, side 8, extra 16."""
        if buttons != self._buttons:
            self._buttons = buttons & 0x1F
            self._ready()

    def state(self) -> State:
        """All of it."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes a saved state."""
        restore_fields(self, state, _VERSION, _FIELDS)
        del self._queue[_QUEUE:]
        self._moved = (self._moved + [_FARTHEST] * 3)[:3]
        self._rates = (self._rates + [0] * 3)[:3]

    @property
    def idle(self) -> bool:
        """Whether the host has taken all movements, or does not want any."""
        return not self._enabled or not (self._queue or self._waits())

    @property
    def buttons(self) -> int:
        """The buttons that are down."""
        return self._buttons

    def _execute(self, command: int) -> None:
        if command in (0xF3, 0xE8):
            self._command = command
            self._reply(_ACK)
        elif command == 0xFF:
            self.reset()
            self._reply(_ACK, _PASSED, _PLAIN)
        elif command == 0xFE:
            self._reply(self._last)
        elif command == 0xF6:
            self._defaults()
            self._reply(_ACK)
        elif command in (0xF4, 0xF5):
            self._enabled = command == 0xF4
            self._forget()
            self._reply(_ACK)
        elif command == 0xF2:
            self._reply(_ACK, self._identity)
        elif command in (0xF0, 0xEA):
            self._remote = command == 0xF0
            self._forget()
            self._reply(_ACK)
        elif command in (0xEE, 0xEC):
            self._wrap = command == 0xEE
            self._reply(_ACK)
        elif command == 0xEB:
            self._reply(_ACK)
            self._packet()
        elif command == 0xE9:
            status = (_ENABLED if self._enabled else 0) | (_REMOTE if self._remote else 0)
            status |= _SCALED if self._scaled else 0
            buttons = self._buttons
            # Here bit 2 is the left button, bit 0 the right one.
            status |= (buttons & 1) << 2 | buttons >> 2 << 1 & 2 | buttons >> 1 & 1
            self._reply(_ACK, status, self._resolution, self._rate)
        elif command in (0xE6, 0xE7):
            self._scaled = command == 0xE7
            self._reply(_ACK)
        else:
            self._reply(_RESEND)

    def _set_rate(self, rate: int) -> None:
        self._rate = rate
        self._rates = [*self._rates[1:], rate]
        if self._rates == _KNOCK_WHEEL and self._identity == _PLAIN:
            self._identity = _WHEEL
        elif self._rates == _KNOCK_BUTTONS:
            self._identity = _BUTTONS
        self._reply(_ACK)

    def _defaults(self) -> None:
        self._rate, self._resolution, self._scaled = 100, 2, False
        self._enabled = self._remote = False
        self._forget()

    def _forget(self) -> None:
        """Forgets movements."""
        self._moved = [_FARTHEST] * 3

    def _waits(self) -> bool:
        moved = [count - _FARTHEST for count in self._moved]
        if self._identity == _PLAIN:
            del moved[2:]
        mask = 0x1F if self._identity == _BUTTONS else 0x07
        return any(moved) or bool((self._buttons ^ self._sent_buttons) & mask)

    def _packet_if_moved(self) -> None:
        if self._waits():
            self._packet()

    def _packet(self) -> None:
        """Puts what has changed into the queue, as much as a packet holds."""
        right = self._take(0, 255)
        up = self._take(1, 255)
        buttons = self._sent_buttons = self._buttons
        first = 0x08 | buttons & 7 | (0x10 if right < 0 else 0) | (0x20 if up < 0 else 0)
        self._queue += (first, right & 0xFF, up & 0xFF)
        if self._identity == _WHEEL:
            self._queue.append(self._take(2, 127) & 0xFF)
        elif self._identity == _BUTTONS:
            self._queue.append(self._take(2, 7) & 0x0F | (buttons & 0x18) << 1)

    def _take(self, axis: int, most: int) -> int:
        count = self._moved[axis] - _FARTHEST
        taken = min(max(count, -most), most)
        self._moved[axis] -= taken
        return taken

    def _reply(self, *values: int) -> None:
        self._queue += values
