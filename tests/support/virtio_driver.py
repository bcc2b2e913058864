"""A virtio driver in Python over the MMIO transport, in the memory of a machine without a guest."""

import struct

from ringfence import _core
from ringfence.accel.virtqueue import MachineQueues
from ringfence.devices.virtio import mmio
from ringfence.devices.virtio.device import (
    ACKNOWLEDGE,
    DRIVER,
    DRIVER_OK,
    FEATURES_OK,
    NEEDS_RESET,
    VirtioDevice,
)
from ringfence.devices.virtio.mmio import VirtioMmio
from support.fake_devices import HandClock, Wire

MEMORY = 1 << 22
RINGS, DATA = 0x10000, 0x100000
VERSION_1, PACKED, EVENT_IDX, INDIRECT = 1 << 32, 1 << 34, 1 << 29, 1 << 28
NEXT, WRITE = 1, 2


class Ring:
    """The driver's side of a split or packed ring, as simple as it can be: one buffer at a time."""

    def __init__(self, driver: "Driver", index: int, size: int) -> None:
        self.driver, self.index, self.size = driver, index, size
        self.base = RINGS + 0x4000 * index
        self.areas = (self.base, self.base + 0x2000, self.base + 0x3000)
        self.next = self.used = 0
        self.wrap = self.used_wrap = 1
        self.buffers: dict[int, list[tuple[int, int, bool]]] = {}

    def add(self, readable: list[bytes], writable: list[int]) -> int:
        """Makes a buffer available; gives its number."""
        driver = self.driver
        parts = [(driver.place(data), len(data), False) for data in readable]
        parts += [(driver.place(bytes(length)), length, True) for length in writable]
        if driver.packed:
            return self._add_packed(parts)
        head = self.next % self.size
        slots = [(self.next + index) % self.size for index in range(len(parts))]
        for index, (at, length, write) in enumerate(parts):
            last = index + 1 == len(parts)
            flags = (0 if last else NEXT) | (WRITE if write else 0)
            following = 0 if last else slots[index + 1]
            raw = struct.pack("<QIHH", at, length, flags, following)
            driver.memory.write(self.base + 16 * slots[index], raw)
        count = getattr(self, "count", 0)
        driver.put16(self.areas[1] + 4 + 2 * (count % self.size), head)
        self.count = count + 1
        driver.put16(self.areas[1] + 2, self.count & 0xFFFF)
        self.next += len(parts)
        self.buffers[head] = parts
        return head

    def _add_packed(self, parts: list[tuple[int, int, bool]]) -> int:
        number = self.next
        entries = []
        for index, (at, length, write) in enumerate(parts):
            last = index + 1 == len(parts)
            flags = (0 if last else NEXT) | (WRITE if write else 0)
            flags |= 1 << 7 if self.wrap else 1 << 15
            raw = struct.pack("<QIHH", at, length, number, flags)
            entries.append((self.base + 16 * self.next, raw))
            self.next += 1
            if self.next == self.size:
                self.next, self.wrap = 0, self.wrap ^ 1
        for at, raw in reversed(entries):
            self.driver.memory.write(at, raw)
        self.buffers[number] = parts
        return number

    def collect(self) -> list[tuple[int, int, bytes]]:
        """What was used: number, length, and what was written."""
        driver, found = self.driver, []
        while True:
            if driver.packed:
                raw = driver.memory.read(self.base + 16 * self.used, 16)
                _, written, number, flags = struct.unpack("<QIHH", raw)
                both = flags >> 7 & 1, flags >> 15
                if both != (self.used_wrap, self.used_wrap) or number not in self.buffers:
                    return found
                self.used += len(self.buffers[number])
                if self.used >= self.size:
                    self.used, self.used_wrap = self.used - self.size, self.used_wrap ^ 1
            else:
                if driver.get16(self.areas[2] + 2) == self.used & 0xFFFF:
                    return found
                entry = self.areas[2] + 4 + 8 * (self.used % self.size)
                number, written = struct.unpack("<II", driver.memory.read(entry, 8))
                self.used += 1
            parts = self.buffers.pop(number)
            data = b"".join(driver.memory.read(at, length) for at, length, write in parts if write)
            found.append((number, written, data))


class Driver:
    """Finds a device, negotiates, drives its queues."""

    def __init__(self, device: VirtioDevice, *, packed: bool = False) -> None:
        self.memory = _core.Machine()
        self.memory.map_memory(0, MEMORY)
        self.wire, self.clock = Wire(), HandClock()
        self.device = device
        self.packed = packed
        self.transport = VirtioMmio(device, self.wire, MachineQueues(self.memory), self.clock)
        self.rings: list[Ring] = []
        self._data = DATA

    def get(self, register: int) -> int:
        return self.transport.read(register, 4)

    def put(self, register: int, value: int) -> None:
        self.transport.write(register, 4, value)

    def put16(self, at: int, value: int) -> None:
        self.memory.write(at, value.to_bytes(2, "little"))

    def get16(self, at: int) -> int:
        return int.from_bytes(self.memory.read(at, 2), "little")

    def place(self, data: bytes) -> int:
        if self._data + len(data) > MEMORY:
            self._data = DATA
        at = self._data
        self.memory.write(at, data)
        self._data += len(data) + 64
        return at

    @property
    def offered(self) -> int:
        value = 0
        for select in (0, 1):
            self.put(mmio.DEVICE_FEATURES_SEL, select)
            value |= self.get(mmio.DEVICE_FEATURES) << 32 * select
        return value

    def negotiate(self, features: int) -> bool:
        self.put(mmio.STATUS, 0)
        self.put(mmio.STATUS, ACKNOWLEDGE)
        self.put(mmio.STATUS, ACKNOWLEDGE | DRIVER)
        for select in (0, 1):
            self.put(mmio.DRIVER_FEATURES_SEL, select)
            self.put(mmio.DRIVER_FEATURES, features >> 32 * select & 0xFFFFFFFF)
        self.put(mmio.STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK)
        return bool(self.get(mmio.STATUS) & FEATURES_OK)

    def start(self, features: int = 0, size: int = 16) -> "Driver":
        """All of it: status, features, queues, DRIVER_OK."""
        wanted = features | VERSION_1 | (PACKED if self.packed else 0)
        assert self.negotiate(wanted)
        self.rings = []
        for index in range(len(self.device.queues)):
            self.put(mmio.QUEUE_SEL, index)
            ring = Ring(self, index, min(size, self.get(mmio.QUEUE_SIZE_MAX)))
            for area in ring.areas:
                self.memory.fill(area, 0x1000)
            self.put(mmio.QUEUE_SIZE, ring.size)
            bases = (mmio.QUEUE_DESC, mmio.QUEUE_DRIVER, mmio.QUEUE_DEVICE)
            for register, area in zip(bases, ring.areas, strict=True):
                self.put(register, area)
                self.put(register + 4, 0)
            self.put(mmio.QUEUE_READY, 1)
            self.rings.append(ring)
        self.put(mmio.STATUS, self.get(mmio.STATUS) | DRIVER_OK)
        assert not self.broken
        return self

    def kick(self, queue: int) -> None:
        self.put(mmio.QUEUE_NOTIFY, queue)

    def send(self, queue: int, readable: list[bytes], writable: list[int]) -> tuple[int, bytes]:
        """One buffer, there and back: length and what was written."""
        number = self.rings[queue].add(readable, writable)
        self.kick(queue)
        ((found, written, data),) = self.rings[queue].collect()
        assert found == number
        return written, data

    @property
    def broken(self) -> bool:
        return bool(self.get(mmio.STATUS) & NEEDS_RESET)

    def config(self, offset: int, size: int) -> int:
        return self.transport.read(mmio.CONFIG + offset, size)
