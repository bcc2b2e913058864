"""The keyboard at the other end of the 8042's cable: an IBM enhanced (MF-II) keyboard.

Source: IBM PS/2 hardware technical reference, "101- and 102-key keyboard": commands, scan code
sets 1 to 3, typematic repetition. Left out: the fake shifts around the cursor keys while Num Lock
is on, which drivers ignore.
"""

from collections.abc import Callable

from ringfence.bus import State, restore_fields, save_fields
from ringfence.bus.contracts import Clock, Timer
from ringfence.bus.keys import KEYS, PAUSE
from ringfence.devices.input import scancodes

__all__ = ["Keyboard"]

_ACK, _RESEND, _ECHO, _PASSED = 0xFA, 0xFE, 0xEE, 0xAA
_IDENTITY = (0xAB, 0x83)
_QUEUE = 16
#: What takes the place of a key when the queue is full: by the scan code set.
_OVERRUN = (0x00, 0xFF, 0x00, 0x00)
_DEFAULT_RATE = 0x2B
_MILLISECOND = 1_000_000
_VERSION = 2
_FIELDS = {
    "_queue": 0xFF,
    "_replies": 0xFF,
    "_held": 0xFF,
    "_leds": 7,
    "_rate": 0x7F,
    "_set": 3,
    "_modes": 256,
    "_scanning": 1,
    "_command": 0xFF,
    "_last": 0xFF,
    "_breaking": 1,
}
_MODIFIERS = {
    KEYS["shift"]: "shift",
    KEYS["rightshift"]: "shift",
    KEYS["ctrl"]: "ctrl",
    KEYS["rightctrl"]: "ctrl",
    KEYS["alt"]: "alt",
    KEYS["altgr"]: "alt",
}
#: Commands of set 3 for all keys, and for single ones: what the keys do then.
_ALL_KEYS = {0xF7: 1, 0xF8: 2, 0xF9: 0, 0xFA: 3}
_ONE_KEY = {0xFB: 1, 0xFC: 2, 0xFD: 0}


class Keyboard:
    """Answers commands and sends keys.

    Args:
        ready: Called when there is something to send.
        clock: Time by which a held key repeats; without one it does not.
    """

    def __init__(self, ready: Callable[[], None], clock: Clock | None = None) -> None:
        self._ready = ready
        self._clock = clock
        self._timer: Timer | None = None
        self._repeating = 0
        self.reset()

    def reset(self) -> None:
        """Power-on state, its self-test passed long ago."""
        self._queue: list[int] = []
        self._replies: list[int] = []
        #: Numbers of the keys that are down, in the order in which they went down.
        self._held: list[int] = []
        self._leds = 0
        self._command = 0
        self._last = 0
        self._breaking = False
        self._scanning = True
        self._rate = _DEFAULT_RATE
        self._set = 2
        self._modes = scancodes.set3_modes()
        self._cancel()

    def receive(self, value: int) -> None:
        """Takes a byte from the host: a command or the parameter of one."""
        if self._command:
            command = self._command
            # A byte that is a command itself cancels the one that waits for a parameter; keys of
            # set 3 are named until one comes.
            if value < 0xED and (value < 0x80 or command in _ONE_KEY):
                if command not in _ONE_KEY:
                    self._command = 0
                self._parameter(command, value)
                return
            self._command = 0
        self._replies.clear()
        if value in (0xED, 0xF0, 0xF3) or value in _ONE_KEY:
            self._command = value
            self._reply(_ACK)
        elif value in _ALL_KEYS:
            self._modes[:] = bytes([_ALL_KEYS[value]]) * len(self._modes)
            self._reply(_ACK)
        elif value == 0xEE:
            self._reply(_ECHO)
        elif value == 0xF2:
            self._reply(_ACK, *_IDENTITY)
        elif value == 0xF4:
            self._queue.clear()
            self._scanning = True
            self._reply(_ACK)
        elif value in (0xF5, 0xF6):
            self._queue.clear()
            self._leds = 0
            self._defaults()
            self._scanning = value == 0xF6
            self._reply(_ACK)
        elif value == 0xFE:
            self._reply(self._last)
        elif value == 0xFF:
            self.reset()
            self._reply(_ACK, _PASSED)
        else:
            self._reply(_RESEND)

    def send(self, *, translate: bool) -> int | None:
        """The next byte for the host, or ``None``; translated to set 1 by the cable's far end."""
        while self._replies or self._queue:
            value = (self._replies or self._queue).pop(0)
            if value != _RESEND:
                self._last = value
            if not translate:
                return value
            if value == scancodes.BREAK:
                # Translation folds the prefix of a release into bit 7 of the code.
                self._breaking = True
                continue
            code = scancodes.TRANSLATION.get(value, value)
            if self._breaking:
                self._breaking = False
                code |= 0x80
            return code
        return None

    def key(self, number: int, down: bool) -> bool:
        """Presses or releases a key (``bus.keys``); one that is down already stays as it is.

        Returns:
            Whether the keyboard had room for it.
        """
        number &= 0xFF
        if down == (number in self._held):
            return True
        if down:
            self._held.append(number)
        else:
            self._held.remove(number)
        sent = self._send_key(number, down)
        if down and number != PAUSE:
            self._repeating = number
            self._repeat_after((self._rate >> 5 & 3) + 1, 250 * _MILLISECOND)
        elif not down and number == self._repeating:
            self._cancel()
        return sent

    def state(self) -> State:
        """All of it, but that a held key no longer repeats."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes a saved state."""
        restore_fields(self, state, _VERSION, _FIELDS)
        self._set = max(self._set, 1)
        for queue in (self._queue, self._replies):
            del queue[_QUEUE:]
        self._cancel()

    @property
    def leds(self) -> int:
        """Lights: scroll lock 1, num lock 2, caps lock 4."""
        return self._leds

    @property
    def idle(self) -> bool:
        """Whether all keys have been taken by the host."""
        return not self._queue

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the keys that are down."""
        return tuple(self._held)

    def _parameter(self, command: int, value: int) -> None:
        if command == 0xED:
            self._leds = value & 7
        elif command == 0xF3:
            self._rate = value
        elif command in _ONE_KEY:
            self._modes[value] = _ONE_KEY[command]
        elif value == 0:
            self._reply(_ACK, self._set)
            return
        elif value <= 3:
            self._set = value
            self._queue.clear()
        else:
            self._reply(_RESEND)
            return
        self._reply(_ACK)

    def _defaults(self) -> None:
        self._rate = _DEFAULT_RATE
        self._set = 2
        self._modes = scancodes.set3_modes()
        self._cancel()

    def _send_key(self, number: int, down: bool) -> bool:
        if not self._scanning:
            return True
        if self._set == 3:
            mode = self._modes[scancodes.set3_code(number)]
            if not down and not mode & scancodes.SENDS_BREAK:
                return True
        held = frozenset(_MODIFIERS[key] for key in self._held if key in _MODIFIERS)
        sent = scancodes.codes(number, down, self._set, held)
        if len(self._queue) + len(sent) > _QUEUE:
            overrun = _OVERRUN[self._set]
            # One overrun code takes the last place.
            if self._queue and self._queue[-1] != overrun:
                self._queue.append(overrun)
            return False
        self._queue += sent
        self._ready()
        return True

    def _repeat_after(self, count: int, nanoseconds: int) -> None:
        self._cancel()
        if self._clock is not None:
            self._timer = self._clock.call_at(self._clock.now() + count * nanoseconds, self._repeat)

    def _repeat(self) -> None:
        """The key that went down last is sent again while it is held."""
        self._timer, number = None, self._repeating
        mode = self._modes[scancodes.set3_code(number)] if self._set == 3 else scancodes.TYPEMATIC
        # A host that does not take what was sent gets no more of it.
        if mode & scancodes.TYPEMATIC and not self._queue:
            self._send_key(number, True)
        # Period: (8 + A) * 2^B * 4.17 ms.
        period = (8 + (self._rate & 7)) << (self._rate >> 3 & 3)
        self._repeat_after(period, 4_170_000)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _reply(self, *values: int) -> None:
        self._replies += values
