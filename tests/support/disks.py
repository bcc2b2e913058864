"""A disk in memory that can be told to fail, and workers that wait to be told."""

from collections.abc import Callable, Sequence
from typing import Any

from ringfence.bus import BlockQueue, Done


class MemoryDisk:
    """A :class:`~ringfence.bus.BlockBackend` over a byte array."""

    def __init__(self, data: bytes | int, *, readonly: bool = False, cached: bool = True) -> None:
        self.data = bytearray(data)
        self.size = len(self.data)
        self.readonly = readonly
        self.cached = cached
        #: What the next calls raise.
        self.error: OSError | None = None
        self.flushes = 0
        self.discarded: list[tuple[int, int]] = []

    def _check(self, offset: int, length: int) -> None:
        if self.error is not None:
            raise self.error
        assert 0 <= offset <= offset + length <= self.size, (offset, length)

    def read(self, offset: int, length: int) -> bytes:
        self._check(offset, length)
        return bytes(self.data[offset : offset + length])

    def read_into(self, offset: int, buffers: Sequence[Any]) -> None:
        for buffer in buffers:
            self._check(offset, len(buffer))
            buffer[:] = self.data[offset : offset + len(buffer)]
            offset += len(buffer)

    def try_read_into(self, offset: int, buffers: Sequence[Any]) -> bool:
        if not self.cached:
            return False
        self.read_into(offset, buffers)
        return True

    def write(self, offset: int, data: Any) -> None:
        self.write_from(offset, [data])

    def write_from(self, offset: int, buffers: Sequence[Any]) -> None:
        for buffer in buffers:
            self._check(offset, len(buffer))
            assert not self.readonly
            self.data[offset : offset + len(buffer)] = buffer
            offset += len(buffer)

    def flush(self) -> None:
        self._check(0, 0)
        self.flushes += 1

    def discard(self, offset: int, length: int) -> None:
        self._check(offset, length)
        self.discarded.append((offset, length))


class SlowWorkers:
    """Does work when told to, as a busy host would."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], None], Done]] = []

    def submit(self, work: Callable[[], None], done: Done) -> None:
        self.waiting.append((work, done))

    def drain(self) -> None:
        while self.waiting:
            work, done = self.waiting.pop(0)
            try:
                work()
            except OSError as error:
                done(error)
            else:
                done(None)


def queue(data: bytes | int = 1 << 20, **options: Any) -> BlockQueue:
    return BlockQueue(MemoryDisk(data, **options))


class Memory:
    """Guest memory: a :class:`~ringfence.bus.Dma` that counts what goes beyond it."""

    def __init__(self, size: int = 1 << 20, *, views: bool = True) -> None:
        self.data = bytearray(size)
        self.views = views
        self.outside = 0

    def read(self, address: int, size: int) -> bytes:
        part = bytes(self.data[address : address + size]) if address >= 0 else b""
        self.outside += len(part) < size
        return part.ljust(size, b"\xff")

    def write(self, address: int, data: Any) -> None:
        room = max(len(self.data) - address, 0)
        self.outside += room < len(data)
        part = bytes(data)[:room]
        self.data[address : address + len(part)] = part

    def view(self, address: int, size: int) -> memoryview | None:
        if not self.views or address + size > len(self.data):
            return None
        return memoryview(self.data)[address : address + size]

    def written(self, address: int, size: int) -> None:
        assert address + size <= len(self.data)
