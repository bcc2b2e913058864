"""The keyboard at the other end of the 8042's cable: an IBM enhanced (MF-II) keyboard.

Source: IBM PS/2 hardware technical reference, "101- and 102-key keyboard", commands and scan code
sets. Set 2 is sent, which controllers translate to set 1. Left out: sets 1 and 3 (selecting them
is acknowledged and read back, and set 2 goes on being sent), typematic repetition.
"""

from collections.abc import Callable

from ringfence.bus import State, restore_fields, save_fields

__all__ = ["Keyboard"]

_ACK, _RESEND, _ECHO, _PASSED = 0xFA, 0xFE, 0xEE, 0xAA
_IDENTITY = (0xAB, 0x83)
_QUEUE = 16
_OVERRUN = 0x00
_BREAK = 0xF0
_VERSION = 1
_FIELDS = {
    "_queue": 0xFF,
    "_leds": 7,
    "_rate": 0x7F,
    "_set": 3,
    "_scanning": 1,
    "_command": 0xFF,
    "_last": 0xFF,
    "_breaking": 1,
}
# The set 2 code of each set 1 code, 00h to 7Fh, in the controller's translation (IBM PS/2 hardware
# technical reference, "Scan code translation").
_SET2_BY_SET1 = bytes.fromhex(
    "0076161e26252e363d3e46454e55660d"
    "151d242d2c353c43444d545b5a141c1b"
    "232b34333b424b4c520e125d1a22212a"
    "32313a41494a597c1129580506040c03"
    "0b020a0109777e6c757d7b6b73747969"
    "727a70717f606178070f171f272f373f"
    "474f565e08101820283038404850576f"
    "13193951535c5f6263646567686a6d6e"
)
_TRANSLATION = {code: index for index, code in enumerate(_SET2_BY_SET1)}
_TRANSLATION |= {0x00: 0xFF, 0x83: 0x41, 0x84: 0x54}


class Keyboard:
    """Answers commands and sends keys; ``ready`` is called when there is something to send."""

    def __init__(self, ready: Callable[[], None]) -> None:
        self._ready = ready
        self.reset()

    def reset(self) -> None:
        """Power-on state, its self-test passed long ago."""
        self._queue: list[int] = []
        self._leds = 0
        self._rate = 0x2B
        self._set = 2
        self._scanning = True
        self._command = 0
        self._last = 0
        self._breaking = False

    def receive(self, value: int) -> None:
        """Takes a byte from the host: a command or the parameter of one."""
        if self._command:
            command, self._command = self._command, 0
            # A byte that is a command itself cancels the one that waits for a parameter.
            if value < 0x80:
                self._parameter(command, value)
                return
        self._queue.clear()
        if value in (0xED, 0xF0, 0xF3):
            self._command = value
            self._reply(_ACK)
        elif value == 0xEE:
            self._reply(_ECHO)
        elif value == 0xF2:
            self._reply(_ACK, *_IDENTITY)
        elif value == 0xF4:
            self._scanning = True
            self._reply(_ACK)
        elif value == 0xF5:
            self._defaults()
            self._scanning = False
            self._reply(_ACK)
        elif value == 0xF6:
            self._defaults()
            self._reply(_ACK)
        elif 0xF7 <= value <= 0xFD:
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
        while self._queue:
            value = self._queue.pop(0)
            self._last = value
            if not translate:
                return value
            if value == _BREAK:
                # Translation folds the prefix of a release into bit 7 of the code.
                self._breaking = True
                continue
            code = _TRANSLATION.get(value, value)
            if self._breaking:
                self._breaking = False
                code |= 0x80
            return code
        return None

    def press(self, *codes: int) -> None:
        """Sends the set 2 codes of a key pressed (``E0h`` goes before an extended key)."""
        self._key(codes)

    def release(self, *codes: int) -> None:
        """Sends the release of a key: the prefix goes before its last code."""
        self._key((*codes[:-1], _BREAK, codes[-1]))

    def state(self) -> State:
        """All of it."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes a saved state."""
        restore_fields(self, state, _VERSION, _FIELDS)
        del self._queue[_QUEUE:]

    @property
    def leds(self) -> int:
        """Lights: scroll lock 1, num lock 2, caps lock 4."""
        return self._leds

    def _parameter(self, command: int, value: int) -> None:
        if command == 0xED:
            self._leds = value & 7
        elif command == 0xF3:
            self._rate = value
        elif value == 0:
            self._reply(_ACK, self._set)
            return
        elif value <= 3:
            self._set = value
        else:
            self._reply(_RESEND)
            return
        self._reply(_ACK)

    def _defaults(self) -> None:
        self._leds = 0
        self._rate = 0x2B
        self._set = 2

    def _key(self, codes: tuple[int, ...]) -> None:
        if not self._scanning:
            return
        if len(self._queue) + len(codes) > _QUEUE:
            # One overrun code takes the last place (set 2: 00h).
            if self._queue and self._queue[-1] != _OVERRUN:
                self._queue.append(_OVERRUN)
            return
        self._queue += codes
        self._ready()

    def _reply(self, *values: int) -> None:
        self._queue += values
