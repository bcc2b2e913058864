"""A Microwire EEPROM of 64 words of 16 bits (National Semiconductor NM93C46 data sheet).

A command is a start bit, two bits of operation and six of address, clocked in on rising edges of SK
while CS is high; data comes out, most significant bit first, behind a zero bit.
"""

from ringfence.bus import State, restore_fields, save_fields

__all__ = ["WORDS", "MicrowireEeprom"]

WORDS = 64
_ADDRESS_BITS = 6
_READ, _WRITE, _ERASE, _EXTENDED = 2, 1, 3, 0
_ENABLE, _WRITE_ALL, _ERASE_ALL, _DISABLE = 3, 1, 2, 0
_VERSION = 1
_FIELDS = {
    "_words": 0xFFFF,
    "_select": 1,
    "_clock": 1,
    "_command": (1 << 32) - 1,
    "_count": 64,
    "_out": 1,
    "_enabled": 1,
}


class MicrowireEeprom:
    """The chip behind its four pins.

    Args:
        words: What it holds when the card is made.
    """

    def __init__(self, words: list[int]) -> None:
        self._words = list(words)
        self._select = self._clock = False
        self._command = 0
        self._count = 0
        self._out = True
        self._enabled = False

    @property
    def words(self) -> list[int]:
        """The contents."""
        return self._words

    @property
    def output(self) -> bool:
        """Level of the data output DO."""
        return self._out

    def set(self, *, select: bool, clock: bool, data: bool) -> None:
        """Drives CS, SK and DI."""
        if not select:
            if self._select and self._count:
                self._finish()
            self._command = self._count = 0
            self._out = True
        elif clock and not self._clock:
            self._shift(data)
        self._select, self._clock = select, clock

    def state(self) -> State:
        """Contents and what the command in progress has got to."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes all of it."""
        words = self._words
        restore_fields(self, state, _VERSION, _FIELDS)
        self._words = (self._words + words)[:WORDS] if len(self._words) < WORDS else self._words
        del self._words[WORDS:]

    def _shift(self, data: bool) -> None:
        if not self._count and not data:
            return  # waits for the start bit
        if self._count < 3 + _ADDRESS_BITS + 16:
            self._command = (self._command << 1 | data) & 0xFFFFFFFF
            self._count += 1
        head = 3 + _ADDRESS_BITS
        if self._count < head:
            return
        operation = self._operation()
        if operation != _READ:
            return
        if self._count == head:
            self._out = False  # the dummy bit
            return
        # Reading goes on with the next word for as long as the clock does.
        bit = self._count - head - 1
        address = self._command >> (self._count - head) & WORDS - 1
        self._out = bool(self._words[address] >> 15 - bit & 1)
        if bit == 15:
            self._command = 1 << 8 | _READ << 6 | (address + 1) % WORDS
            self._count = head

    def _operation(self) -> int:
        return self._command >> (self._count - 3) & 3

    def _finish(self) -> None:
        """CS falls: a complete command that changes the contents is carried out."""
        head = 3 + _ADDRESS_BITS
        if self._count < head:
            return
        operation = self._operation()
        extra = self._count - head
        address = self._command >> extra & WORDS - 1
        value = self._command & 0xFFFF
        if operation == _EXTENDED:
            kind = address >> _ADDRESS_BITS - 2
            if kind in (_ENABLE, _DISABLE):
                self._enabled = kind == _ENABLE
            elif self._enabled and kind == _ERASE_ALL:
                self._words = [0xFFFF] * WORDS
            elif self._enabled and extra == 16:
                self._words = [value] * WORDS
        elif self._enabled and operation == _ERASE:
            self._words[address] = 0xFFFF
        elif self._enabled and operation == _WRITE and extra == 16:
            self._words[address] = value
