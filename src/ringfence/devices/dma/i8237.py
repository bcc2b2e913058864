"""The two 8237A DMA controllers of a PC/AT and their page registers.

Sources: Intel 8237A data sheet (231466-005); IBM PC AT technical reference, "DMA channels". One
device at three places: offsets 00h to 0Fh are the first controller (ports 00h to 0Fh), 10h to 2Fh
the second (C0h to DFh, every other port), 30h to 3Fh the page registers (80h to 8Fh). Left out:
memory-to-memory transfers, which no PC can do for want of channels, and priorities: a transfer is
over at once.
"""

from typing import ClassVar

from ringfence.bus import Dma, State, restore_fields, save_fields
from ringfence.errors import StateError

__all__ = ["IsaDma", "IsaDmaChannel"]

_PAGES = 0x30
#: Offset among the page registers, of each channel (4 is the cascade: the refresh register).
_PAGE_OF = (0x7, 0x3, 0x1, 0x2, 0xF, 0xB, 0x9, 0xA)
# Registers of a controller behind those of its channels.
_COMMAND, _REQUEST, _MASK, _MODE, _FLIP_FLOP, _CLEAR, _UNMASK, _MASKS = range(8, 16)
_DISABLED = 0x04
# Mode register.
_TO_MEMORY, _FROM_MEMORY, _AUTO, _DOWN = 0x04, 0x08, 0x10, 0x20
_CASCADE = 4
_VERSION = 1
_FIELDS = {
    "_base_address": 0xFFFF,
    "_base_count": 0xFFFF,
    "_address": 0xFFFF,
    "_count": 0xFFFF,
    "_modes": 0xFC,
    "_pages": 0xFF,
    "_masks": 1,
    "_ended": 1,
    "_commands": 0xFF,
    "_requests": 0x0F,
    "_flip_flops": 1,
    "_temporary": 0xFF,
}
_LENGTHS = {"_pages": 16, "_commands": 2, "_requests": 2, "_flip_flops": 2, "_temporary": 2}


class IsaDmaChannel:
    """A channel as the device that it serves sees it."""

    __slots__ = ("_controller", "number")

    def __init__(self, controller: "IsaDma", number: int) -> None:
        self._controller = controller
        self.number = number

    @property
    def ready(self) -> bool:
        """Whether the channel would answer a request now."""
        return self._controller.ready(self.number)

    @property
    def left(self) -> int:
        """Bytes until the terminal count."""
        return self._controller.left(self.number)

    def put(self, data: bytes) -> bool:
        """Moves bytes from the device to memory; true if that was the terminal count."""
        return self._controller.move(self.number, data, len(data))[1]

    def get(self, length: int) -> tuple[bytes, bool]:
        """Moves bytes from memory to the device; and whether that was the terminal count."""
        return self._controller.move(self.number, None, length)


class IsaDma:
    """Both controllers.

    Args:
        memory: Guest memory.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 0x40

    def __init__(self, memory: Dma) -> None:
        self._memory = memory
        self._pages = [0] * 16
        self._base_address = [0] * 8
        self._base_count = [0] * 8
        self._address = [0] * 8
        self._count = [0] * 8
        self.reset()

    def reset(self) -> None:
        """All channels masked; addresses and counts are as they were, that is undefined."""
        for registers in (
            self._pages,
            self._base_address,
            self._base_count,
            self._address,
            self._count,
        ):
            registers[:] = [0] * len(registers)
        self._modes = [0] * 8
        self._masks = [1] * 8
        self._ended = [0] * 8
        self._commands = [0, 0]
        self._requests = [0, 0]
        self._flip_flops = [0, 0]
        self._temporary = [0, 0]

    def read(self, offset: int, size: int) -> int:
        """Reads a register."""
        if offset >= _PAGES:
            return self._pages[offset & 15]
        unit, register = self._locate(offset)
        if register < _COMMAND:
            channel = 4 * unit + (register >> 1)
            value = (self._count if register & 1 else self._address)[channel]
            return value >> 8 * self._toggle(unit) & 0xFF
        if register == _COMMAND:
            first = 4 * unit
            status = sum(self._ended[first + n] << n for n in range(4))
            self._ended[first : first + 4] = [0] * 4
            return status | self._requests[unit] << 4
        if register == _CLEAR:
            return self._temporary[unit]
        if register == _MASKS:
            return 0xF0 | sum(self._masks[4 * unit + n] << n for n in range(4))
        return 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a register."""
        if offset >= _PAGES:
            self._pages[offset & 15] = value
            return
        unit, register = self._locate(offset)
        channel = 4 * unit + (value & 3)
        if register < _COMMAND:
            self._write_channel(unit, register, value)
        elif register == _COMMAND:
            self._commands[unit] = value
        elif register == _REQUEST:
            bit = 1 << (value & 3)
            self._requests[unit] &= ~bit
            self._requests[unit] |= bit if value & 4 else 0
        elif register == _MASK:
            self._masks[channel] = value >> 2 & 1
        elif register == _MODE:
            self._modes[channel] = value & 0xFC
        elif register == _FLIP_FLOP:
            self._flip_flops[unit] = 0
        elif register == _CLEAR:
            self._clear(unit)
        elif register == _UNMASK:
            self._masks[4 * unit : 4 * unit + 4] = [0] * 4
        else:
            self._masks[4 * unit : 4 * unit + 4] = [value >> n & 1 for n in range(4)]

    def state(self) -> State:
        """All registers."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes all registers."""
        before = self.state()
        restore_fields(self, state, _VERSION, _FIELDS)
        for name in _FIELDS:
            wanted = _LENGTHS.get(name, 8)
            if len(getattr(self, name)) != wanted:
                restore_fields(self, before, _VERSION, _FIELDS)
                raise StateError(f"IsaDma: {name.lstrip('_')!r} has not {wanted} entries")

    # For devices.

    def channel(self, number: int) -> IsaDmaChannel:
        """Channel 0 to 3 (bytes) or 5 to 7 (words)."""
        return IsaDmaChannel(self, number)

    def ready(self, channel: int) -> bool:
        """Whether a request of the channel is granted."""
        unit = channel // 4
        if self._masks[channel] or self._commands[unit] & _DISABLED:
            return False
        # The first controller's requests go through channel 4.
        return bool(unit) or not (self._masks[_CASCADE] or self._commands[1] & _DISABLED)

    def left(self, channel: int) -> int:
        """Bytes until the terminal count."""
        return (self._count[channel] + 1) << (channel >= _CASCADE)

    def move(self, channel: int, data: bytes | None, length: int) -> tuple[bytes, bool]:
        """Moves at most ``length`` bytes; what came out of memory, and whether it is the end."""
        shift = int(channel >= _CASCADE)
        length = min(length, self.left(channel)) >> shift << shift
        mode = self._modes[channel]
        parts: list[bytes] = []
        done = 0
        while done < length:
            count, address = self._piece(channel, (length - done) >> shift, mode)
            size = count << shift
            if data is not None and mode & _TO_MEMORY:
                piece = data[done : done + size]
                self._memory.write(address, piece[::-1] if mode & _DOWN and not shift else piece)
            elif data is None:
                piece = self._memory.read(address, size) if mode & _FROM_MEMORY else bytes(size)
                parts.append(piece[::-1] if mode & _DOWN and not shift else piece)
            step = -count if mode & _DOWN else count
            self._address[channel] = self._address[channel] + step & 0xFFFF
            self._count[channel] = self._count[channel] - count & 0xFFFF
            done += size
        ended = length > 0 and self._count[channel] == 0xFFFF
        if ended:
            self._ended[channel] = 1
            if mode & _AUTO:
                self._address[channel] = self._base_address[channel]
                self._count[channel] = self._base_count[channel]
            else:
                self._masks[channel] = 1
        return b"".join(parts), ended

    def _piece(self, channel: int, units: int, mode: int) -> tuple[int, int]:
        """Units that lie in one piece from the address on, and where that begins in memory."""
        address, shift = self._address[channel], int(channel >= _CASCADE)
        page = self._pages[_PAGE_OF[channel]]
        base = (page & 0xFE if shift else page) << 16
        if mode & _DOWN:
            # Words are moved one by one: each keeps its own order.
            count = 1 if shift else min(units, address + 1)
            return count, base + ((address - count + 1) << shift)
        # The page does not change: the address wraps within it.
        return min(units, 0x10000 - address), base + (address << shift)

    # Registers.

    def _locate(self, offset: int) -> tuple[int, int]:
        """Controller and register."""
        return (0, offset) if offset < 16 else (1, (offset - 16) >> 1)

    def _toggle(self, unit: int) -> int:
        """The byte that is next."""
        which = self._flip_flops[unit]
        self._flip_flops[unit] ^= 1
        return which

    def _write_channel(self, unit: int, register: int, value: int) -> None:
        channel = 4 * unit + (register >> 1)
        base = self._base_count if register & 1 else self._base_address
        shift = 8 * self._toggle(unit)
        base[channel] = base[channel] & ~(0xFF << shift) | value << shift
        current = self._count if register & 1 else self._address
        current[channel] = base[channel]

    def _clear(self, unit: int) -> None:
        """Master clear."""
        self._commands[unit] = self._requests[unit] = 0
        self._flip_flops[unit] = self._temporary[unit] = 0
        self._masks[4 * unit : 4 * unit + 4] = [1] * 4
        self._ended[4 * unit : 4 * unit + 4] = [0] * 4
