"""Parallel flash memory with the Intel command set, one chip on an 8-bit bus.

Sources: JEDEC JESD68.01 (common flash interface), Intel 28F640J5 data sheet (290606) for the
commands. While the chip gives its array, a guest reads it as ROM without an exit; after a command
the reads come here, until the command "read array". Firmware keeps its variables in one.

Left out: block locks, which are accepted and lock nothing; suspending; times, for all is done at
once.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from ringfence.bus import State, restore_fields, save_fields

__all__ = ["SECTOR", "CfiFlash", "FlashStore"]

#: Bytes that are erased together.
SECTOR = 4096

PROGRAM, PROGRAM_SETUP, ERASE, CLEAR_STATUS, LOCK = 0x10, 0x40, 0x20, 0x50, 0x60
READ_STATUS, READ_ID, READ_CFI, BUFFER, CONFIRM, READ_ARRAY = 0x70, 0x90, 0x98, 0xE8, 0xD0, 0xFF
STATUS_READY, STATUS_ERASE_ERROR, STATUS_PROGRAM_ERROR = 0x80, 0x20, 0x10
_MANUFACTURER, _DEVICE = 0x89, 0x18
_BUFFER_SIZE = 256
_VERSION = 1


class FlashStore(Protocol):
    """Where the contents of a flash chip are kept."""

    def load(self) -> bytes:
        """All of them."""

    def store(self, offset: int, data: bytes) -> None:
        """Keeps ``data``, which is now at ``offset``."""


class CfiFlash:
    """The chip.

    Args:
        memory: The array: an engine's memory object.
        size: Its bytes, whole sectors.
        store: Where changes are kept.
        show: Called with whether the guest reads the array itself.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 8})

    def __init__(
        self, memory: Any, size: int, store: FlashStore, show: Callable[[bool], None]
    ) -> None:
        self._memory = memory
        self._store = store
        self._show = show
        self._array = True
        self.LENGTH = size
        self._table = _cfi_table(size)
        self.reset()

    def reset(self) -> None:
        """Gives the array; nothing is under way."""
        self._command = READ_ARRAY
        self._cycle = self._left = self._start = 0
        self._status = STATUS_READY
        self._buffer = bytearray()
        self._settle()

    def read(self, offset: int, size: int) -> int:
        """Array, status, identity or table, as the last command wants it."""
        if self._command == READ_ARRAY:
            return int.from_bytes(self._memory.view()[offset : offset + size], "little")
        if self._command == READ_ID:
            return _DEVICE if offset & 1 else _MANUFACTURER if offset & 0xFF == 0 else 0
        if self._command == READ_CFI:
            return self._table.get(offset & 0xFF, 0)
        return self._status

    def write(self, offset: int, size: int, value: int) -> None:
        """A command, or data for one."""
        if self._cycle == 0:
            self._begin(offset, value & 0xFF)
        elif self._cycle == 1:
            self._second(offset, size, value)
        elif self._cycle == 2:
            self._fill(offset, size, value)
        else:
            self._finish(value & 0xFF)
        self._settle()

    def state(self) -> State:
        """Contents, and what is under way."""
        state = save_fields(self, _VERSION, _FIELDS)
        return state | {"contents": bytes(self._memory.view()[: self.LENGTH])}

    def restore(self, state: State) -> None:
        """Takes both; the store gets the contents."""
        own = {key: value for key, value in state.items() if key != "contents"}
        contents = state.get("contents")
        if type(contents) is not bytes or len(contents) != self.LENGTH:
            contents = None
        restore_fields(self, own if contents is not None else {}, _VERSION, _FIELDS)
        assert contents is not None
        self._buffer = self._buffer[:_BUFFER_SIZE]
        self._memory.view()[: self.LENGTH] = contents
        self._memory.written()
        self._store.store(0, contents)
        self._array = self._command != READ_ARRAY
        self._settle()

    def _begin(self, offset: int, command: int) -> None:
        """First cycle of a command."""
        if command in (PROGRAM, PROGRAM_SETUP, ERASE, LOCK):
            self._cycle = 1
        elif command == BUFFER:
            self._cycle = 1
            self._start = offset
            self._buffer = bytearray()
        elif command == CLEAR_STATUS:
            # All of it, "ready" too until the next operation: by the zero OVMF knows a flash from
            # a ROM. The data sheet keeps the bit.
            self._status = 0
            command = READ_ARRAY
        elif command not in (READ_STATUS, READ_ID, READ_CFI):
            command = READ_ARRAY
        self._command = command

    def _second(self, offset: int, size: int, value: int) -> None:
        """Data, confirmation or count."""
        self._cycle = 0
        if self._command in (PROGRAM, PROGRAM_SETUP):
            self._program(offset, value.to_bytes(size, "little"))
        elif self._command == ERASE:
            if value & 0xFF == CONFIRM:
                start = offset // SECTOR * SECTOR
                self._put(start, b"\xff" * min(SECTOR, self.LENGTH - start))
            elif value & 0xFF == READ_ARRAY:
                self._command = READ_ARRAY
            else:
                self._status |= STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR
        elif self._command == BUFFER:
            self._left = min((value & 0xFFFF) + 1, _BUFFER_SIZE)
            self._start = offset
            self._cycle = 2

    def _fill(self, offset: int, size: int, value: int) -> None:
        """Data for the buffer."""
        if not self._buffer:
            self._start = offset
        self._buffer += value.to_bytes(size, "little")[: self._left]
        self._left = max(self._left - size, 0)
        if self._left == 0:
            self._cycle = 3

    def _finish(self, command: int) -> None:
        """Writes the buffer, if it is confirmed."""
        self._cycle = 0
        if command == CONFIRM:
            self._program(self._start, bytes(self._buffer))
        else:
            self._status |= STATUS_ERASE_ERROR | STATUS_PROGRAM_ERROR
        self._buffer = bytearray()

    def _program(self, offset: int, data: bytes) -> None:
        """Clears bits: programming sets none."""
        data = data[: self.LENGTH - offset]
        old = self._memory.view()[offset : offset + len(data)]
        self._put(offset, bytes(a & b for a, b in zip(old, data, strict=True)))

    def _put(self, offset: int, data: bytes) -> None:
        self._memory.view()[offset : offset + len(data)] = data
        self._memory.written(offset, len(data))
        self._store.store(offset, data)
        self._status |= STATUS_READY

    def _settle(self) -> None:
        array = self._command == READ_ARRAY
        if array is not self._array:
            self._array = array
            self._show(array)


_FIELDS = {
    "_command": 0xFF,
    "_cycle": 3,
    "_left": _BUFFER_SIZE,
    "_start": (1 << 32) - 1,
    "_status": 0xFF,
}


def _cfi_table(size: int) -> dict[int, int]:
    """What the query command gives (JESD68.01, section 2.5), by offset."""
    blocks = size // SECTOR - 1
    table = bytearray(0x10)
    table += b"QRY" + b"\x01\0" + b"\x31\0" + bytes(4)
    table += b"\x45\x55\0\0\x07\x07\x0a\0\x04\x04\x04\0"
    table += bytes([size.bit_length() - 1, 2, 0, _BUFFER_SIZE.bit_length() - 1, 0, 1])
    table += blocks.to_bytes(2, "little") + (SECTOR >> 8).to_bytes(2, "little")
    table += bytes(0x31 - len(table)) + b"PRI11" + bytes(12)
    return dict(enumerate(table))
