"""Block device (VIRTIO 1.2, section 5.2).

Requests go to the backend as they come, several at a time; a driver that has not accepted FLUSH, or
has switched the cache to write-through, gets its writes made durable before they end. Left out:
secure erase, zoned disks, and the legacy commands.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from ringfence.bus import BlockQueue, Chain
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.virtio.device import VirtioDevice
from ringfence.errors import ConfigError

__all__ = ["Block"]

SECTOR = 512
F_SEG_MAX, F_RO, F_BLK_SIZE, F_FLUSH, F_TOPOLOGY, F_CONFIG_WCE, F_MQ, F_DISCARD, F_WRITE_ZEROES = (
    1 << bit for bit in (2, 5, 6, 9, 10, 11, 12, 13, 14)
)
T_IN, T_OUT, T_FLUSH, T_GET_ID, T_DISCARD, T_WRITE_ZEROES = 0, 1, 4, 8, 11, 13
S_OK, S_IOERR, S_UNSUPP = 0, 1, 2
_HEADER, _SERIAL, _RANGE = 16, 20, 16
_WRITEBACK_AT = 32
_UNMAP = 1
_QUEUE_SIZE = 256
_SEGMENTS = _QUEUE_SIZE - 2
#: Ranges of one discard, and sectors of each: 1 GiB.
_RANGES, _RANGE_SECTORS = 16, 1 << 21
#: Zeros written at once where the backend can't be told to forget.
_ZEROS = bytes(1 << 20)


class Block(VirtioDevice):
    """A disk.

    Args:
        disk: The host end.
        serial: Up to 20 characters that the driver shows.
        queues: How many request queues.
        packed: Whether packed rings are offered.
    """

    DEVICE_ID: ClassVar[int] = 2
    CLASS_CODE: ClassVar[int] = 0x010000
    CONFIG_SIZE: ClassVar[int] = 60
    OPTIONS: ClassVar[Mapping[str, Callable[[str], Any]]] = {
        "disk": str,
        "serial": str,
        "queues": int,
    }

    def __init__(
        self, disk: BlockQueue, *, serial: str = "", queues: int = 1, packed: bool = False
    ) -> None:
        if not 1 <= queues <= 64:
            raise ConfigError(f"a disk has 1 to 64 queues, not {queues}")
        features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE
        features |= F_MQ if queues > 1 else 0
        features |= F_RO if disk.readonly else F_DISCARD | F_WRITE_ZEROES
        super().__init__(features, [_QUEUE_SIZE] * queues, packed=packed)
        self._disk = disk
        self._serial = serial.encode("ascii", "replace")[:_SERIAL].ljust(_SERIAL, b"\0")
        self._writeback = True

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:  # noqa: ARG003
        """Refuses: a disk comes with what is in it.

        Raises:
            ConfigError: always; it says how to have one.
        """
        raise ConfigError("a virtio disk comes with its file: --disk FILE,if=virtio")

    def config(self) -> bytes:
        """Capacity, limits, cache mode (5.2.4)."""
        parts = (
            (self._disk.size // SECTOR).to_bytes(8, "little"),
            (0).to_bytes(4, "little"),
            _SEGMENTS.to_bytes(4, "little"),
            bytes(4),
            SECTOR.to_bytes(4, "little"),
            bytes((3, 0)),  # physical blocks of 4 KiB
            (8).to_bytes(2, "little"),
            (0).to_bytes(4, "little"),
            bytes((self._writeback, 0)),
            len(self.queues).to_bytes(2, "little"),
            _RANGE_SECTORS.to_bytes(4, "little"),
            _RANGES.to_bytes(4, "little"),
            (8).to_bytes(4, "little"),
            _RANGE_SECTORS.to_bytes(4, "little"),
            _RANGES.to_bytes(4, "little"),
            bytes((1, 0, 0, 0)),
        )
        return b"".join(parts)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Switches the cache between write-back and write-through."""
        if offset == _WRITEBACK_AT and size == 1 and self.has(F_CONFIG_WCE):
            self._writeback = bool(value & 1)

    def stopped(self) -> None:
        """What is under way ends without the driver."""
        self._disk.cancel()
        self._writeback = True

    def queue_stopped(self, index: int) -> None:
        """What is under way of a queue that is reset must have ended."""
        self._disk.settle()

    def own_state(self) -> dict[str, Any]:
        """Cache mode; what is under way ends first."""
        self._disk.settle()
        return {"writeback": self._writeback}

    def restore_own(self, state: dict[str, Any]) -> None:
        """Takes the cache mode."""
        self._writeback = bool(state.get("writeback", True))

    def handle(self, index: int, chain: Chain) -> int | None:
        """Begins a request."""
        if chain.readable < _HEADER or not chain.writable:
            # There is no place for a status: the driver broke the rules (5.2.6.1).
            self.fail()
            return None
        head = chain.read(0, _HEADER)
        kind, sector = int.from_bytes(head[:4], "little"), int.from_bytes(head[8:16], "little")
        if kind == T_IN:
            return self._read(index, chain, sector)
        if kind == T_OUT:
            return self._write(index, chain, sector)
        if kind == T_FLUSH:
            self._disk.flush(lambda error: self._done(index, chain, error))
            return None
        if kind == T_GET_ID and chain.writable > _SERIAL:
            chain.write(0, self._serial)
            return self._status(chain, S_OK)
        if kind in (T_DISCARD, T_WRITE_ZEROES):
            return self._ranges(index, chain, kind)
        return self._status(chain, S_UNSUPP)

    def _read(self, index: int, chain: Chain, sector: int) -> int | None:
        length = chain.writable - 1
        if not self._fits(sector, length):
            return self._status(chain, S_IOERR)
        buffers = chain.writable_views(0, length)

        def done(error: OSError | None) -> None:
            if error is None:
                chain.written(0, length)
            self._done(index, chain, error, length)

        self._disk.read(sector * SECTOR, buffers, done)
        return None

    def _write(self, index: int, chain: Chain, sector: int) -> int | None:
        length = chain.readable - _HEADER
        if self._disk.readonly or not self._fits(sector, length):
            return self._status(chain, S_IOERR)
        buffers = chain.readable_views(_HEADER, length)
        durable = not (self.has(F_FLUSH) and self._writeback)

        def done(error: OSError | None) -> None:
            if error is None and durable:
                self._disk.flush(lambda failed: self._done(index, chain, failed))
            else:
                self._done(index, chain, error)

        self._disk.write(sector * SECTOR, buffers, done)
        return None

    def _ranges(self, index: int, chain: Chain, kind: int) -> int | None:
        """Discards or zeroes ranges (5.2.6.2), one after the other."""
        length = chain.readable - _HEADER
        feature = F_DISCARD if kind == T_DISCARD else F_WRITE_ZEROES
        if self._disk.readonly or not self.offered & feature:
            return self._status(chain, S_UNSUPP)
        if length <= 0 or length % _RANGE or length > _RANGES * _RANGE:
            return self._status(chain, S_IOERR)
        ranges = []
        data = chain.read(_HEADER, length)
        for at in range(0, length, _RANGE):
            sector = int.from_bytes(data[at : at + 8], "little")
            count = int.from_bytes(data[at + 8 : at + 12], "little")
            flags = int.from_bytes(data[at + 12 : at + 16], "little")
            if flags & ~_UNMAP or (kind == T_DISCARD and flags):
                return self._status(chain, S_UNSUPP)
            if count > _RANGE_SECTORS or not self._fits(sector, count * SECTOR):
                return self._status(chain, S_IOERR)
            if count:
                ranges.append((sector * SECTOR, count * SECTOR))
        zero = kind == T_WRITE_ZEROES

        def following(error: OSError | None = None) -> None:
            if error is not None or not ranges:
                self._done(index, chain, error)
                return
            offset, size = ranges.pop(0)
            if zero:
                self._zero(offset, size, following)
            else:
                self._disk.discard(offset, size, following)

        following()
        return None

    def _zero(self, offset: int, size: int, done: Callable[[OSError | None], None]) -> None:
        """Writes zeros, in pieces."""
        part = min(size, len(_ZEROS))

        def following(error: OSError | None) -> None:
            if error is None and size > part:
                self._zero(offset + part, size - part, done)
            else:
                done(error)

        self._disk.write(offset, [_ZEROS[:part]], following)

    def _fits(self, sector: int, length: int) -> bool:
        return length % SECTOR == 0 and sector * SECTOR + length <= self._disk.size

    def _status(self, chain: Chain, status: int) -> int:
        """Writes the status behind the data; the whole buffer counts as written."""
        chain.write(chain.writable - 1, bytes((status,)))
        return min(chain.writable, 0xFFFFFFFF) if status == S_OK else 1

    def _done(self, index: int, chain: Chain, error: OSError | None, length: int = 0) -> None:
        self._status(chain, S_OK if error is None else S_IOERR)
        self.give(index, chain, min(length + 1, 0xFFFFFFFF))
