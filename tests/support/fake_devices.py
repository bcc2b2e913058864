"""What stands around a device in its tests: a clock that is set by hand, a wire, a line."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class HandTimer:
    deadline: int
    callback: Callable[[], None] | None

    def cancel(self) -> None:
        self.callback = None


class HandClock:
    """Time that goes on by :meth:`advance` alone."""

    def __init__(self, wall: int = 0) -> None:
        self.time = 0
        self.epoch = wall
        self.timers: list[HandTimer] = []

    def now(self) -> int:
        return self.time

    def wall(self) -> int:
        return self.epoch + self.time

    def call_at(self, deadline: int, callback: Callable[[], None]) -> HandTimer:
        timer = HandTimer(deadline, callback)
        self.timers.append(timer)
        return timer

    def advance(self, nanoseconds: int) -> None:
        """Goes on, making the calls on the way."""
        target = self.time + nanoseconds
        while True:
            self.timers = [timer for timer in self.timers if timer.callback]
            due = [timer for timer in self.timers if timer.deadline <= target]
            if not due:
                break
            timer = min(due, key=lambda entry: entry.deadline)
            self.time = max(self.time, timer.deadline)
            callback, timer.callback = timer.callback, None
            assert callback
            callback()
        self.time = target


@dataclass
class Wire:
    """An interrupt wire that remembers its level and counts its rising edges."""

    level: bool = False
    edges: int = 0

    def set(self, level: bool) -> None:
        self.edges += level and not self.level
        self.level = level


@dataclass
class Port:
    """The host end of a serial line."""

    written: bytearray = field(default_factory=bytearray)
    waiting: bytearray = field(default_factory=bytearray)
    writes: int = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.written += data

    def read(self, limit: int) -> bytes:
        data = bytes(self.waiting[:limit])
        del self.waiting[:limit]
        return data

    def on_input(self, callback: Callable[[], None]) -> None:
        pass


@dataclass
class Wires:
    """The host end of a network card: what was sent, and what is to come."""

    sent: list[bytes] = field(default_factory=list)
    coming: list[bytes] = field(default_factory=list)

    def send(self, frame: bytes) -> None:
        self.sent.append(bytes(frame))

    def receive(self) -> bytes | None:
        return self.coming.pop(0) if self.coming else None

    def on_receive(self, callback: Callable[[], None]) -> None:
        pass


class FlatMemory:
    """Guest memory from address 0 on, as a device reaches it by DMA."""

    def __init__(self, size: int = 1 << 20) -> None:
        self.bytes = bytearray(size)
        self.stray = 0

    def read(self, address: int, size: int) -> bytes:
        assert size < 1 << 20, "a device must bound what it reads"
        data = bytes(self.bytes[address : address + size]) if address < len(self.bytes) else b""
        return data.ljust(size, b"\xff")

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        room = max(len(self.bytes) - address, 0)
        self.stray += len(data) > room
        self.bytes[address : address + min(len(data), room)] = bytes(data[:room])

    def view(self, address: int, size: int) -> memoryview | None:
        if address + size > len(self.bytes):
            return None
        return memoryview(self.bytes)[address : address + size]
