"""An AHCI controller as a driver uses it."""

import struct
from typing import Any

import pytest

from ringfence.bus import BlockQueue
from ringfence.devices.ahci.controller import AhciController
from ringfence.devices.disk.ata import AtaDisk
from ringfence.devices.disk.cdrom import Cdrom
from support.disks import Memory, MemoryDisk, SlowWorkers

LISTS, RECEIVED, TABLES, DATA = 0x4000, 0x6000, 0x8000, 0x20000
GHC, IS = 0x04, 0x08
P_IS, P_IE, P_CMD, P_TFD, P_SIG, P_SSTS, P_SCTL, P_SACT, P_CI = (
    *(0x10, 0x14, 0x18, 0x20),
    *(0x24, 0x28, 0x2C, 0x34, 0x38),
)


class Slot:
    """A place on a PCI bus."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.level = False
        self.messages: list[tuple[int, int]] = []

    def set_intx(self, pin: int, level: bool) -> None:
        self.level = level

    def send_msi(self, address: int, data: int) -> None:
        self.messages.append((address, data))

    def place(self, window: Any, address: int | None) -> None:
        window.address = address


class Bench:
    """A disk on port 0 and a CD-ROM drive on port 1, started."""

    def __init__(self, *, slow: bool = False) -> None:
        content = b"".join(struct.pack("<I", n) * 128 for n in range(2048))
        self.disk = MemoryDisk(content, cached=not slow)
        self.cd = MemoryDisk(bytes(range(256)) * 8 * 16, readonly=True)
        self.workers = SlowWorkers()
        self.memory = Memory()
        self.slot = Slot(self.memory)
        self.hba = AhciController(
            [
                AtaDisk(BlockQueue(self.disk, self.workers if slow else None), queue_depth=32),
                Cdrom(BlockQueue(self.cd), sata=True),
            ]
        )
        self.hba.attach(self.slot)
        self.hba.config_write(0x04, 2, 0x0006)
        self.hba.write(GHC, 0x80000002)
        for port in range(2):
            for register, value in ((0x00, LISTS + 0x400 * port), (0x08, RECEIVED + 0x100 * port)):
                self.port(register, value, port)
            self.port(P_IE, 0xFFFFFFFF, port)
            self.port(P_CMD, 0x11, port)
            self.port(P_IS, 0xFFFFFFFF, port)

    def port(self, register: int, value: int, port: int = 0) -> None:
        self.hba.write(0x100 + 0x80 * port + register, value)

    def get(self, register: int, port: int = 0) -> int:
        return self.hba.read(0x100 + 0x80 * port + register)

    def prepare(
        self,
        command: int,
        *,
        slot: int = 0,
        lba: int = 0,
        count: int = 1,
        features: int = 0,
        size: int = 512,
        packet: bytes = b"",
        write: bool = False,
        port: int = 0,
    ) -> None:
        table = TABLES + 0x400 * slot + 0x8000 * port
        parts = lba.to_bytes(6, "little")
        fis = bytes([0x27, 0x80, command, features & 0xFF, *parts[:3], 0x40, *parts[3:]])
        fis += bytes([features >> 8, count & 0xFF, count >> 8]) + bytes(6)
        self.memory.write(table, fis)
        self.memory.write(table + 0x40, packet.ljust(16, b"\0"))
        self.memory.write(table + 0x80, struct.pack("<QII", DATA + 0x1000 * slot, 0, size - 1))
        flags = 5 | (0x20 if packet else 0) | (0x40 if write else 0) | 1 << 16
        header = LISTS + 0x400 * port + 32 * slot
        self.memory.write(header, struct.pack("<IIQ", flags, 0, table))

    def moved(self, slot: int = 0, port: int = 0) -> int:
        at = LISTS + 0x400 * port + 32 * slot + 4
        return int.from_bytes(self.memory.data[at : at + 4], "little")


def test_signatures_and_links() -> None:
    bench = Bench()
    assert [bench.get(P_SIG, port) for port in range(2)] == [0x00000101, 0xEB140101]
    assert [bench.get(P_SSTS, port) & 15 for port in range(3)] == [3, 3, 0]
    bench.port(P_SCTL, 0x301)
    assert bench.get(P_SSTS) & 15 == 1
    bench.port(P_SCTL, 0x300)
    assert bench.get(P_SSTS) & 15 == 3


def test_identify_and_read() -> None:
    bench = Bench()
    bench.prepare(0xEC)
    bench.port(P_CI, 1)
    assert bench.get(P_CI) == 0
    assert bench.get(P_IS) & 2, "a PIO setup FIS"
    words = struct.unpack("<256H", bench.memory.data[DATA : DATA + 512])
    assert words[76] & 0x0100
    assert words[75] == 31
    bench.prepare(0x25, lba=7, count=3, size=1536)
    bench.port(P_CI, 1)
    assert bench.memory.data[DATA : DATA + 1536] == bench.disk.data[3584:5120]
    assert bench.moved() == 1536
    assert bench.memory.data[RECEIVED + 0x40] == 0x34
    assert bench.slot.level
    bench.port(P_IS, 0xFFFFFFFF)
    assert not bench.slot.level


def test_write() -> None:
    bench = Bench()
    bench.memory.write(DATA, b"ringfence" + bytes(503))
    bench.prepare(0x35, lba=9, write=True)
    bench.port(P_CI, 1)
    assert bench.disk.data[9 * 512 : 9 * 512 + 9] == b"ringfence"


def test_queued_commands() -> None:
    bench = Bench(slow=True)
    for slot, lba in ((3, 100), (17, 200), (31, 300)):
        bench.prepare(0x60, slot=slot, lba=lba, features=1, count=slot << 3)
    slots = 1 << 3 | 1 << 17 | 1 << 31
    bench.port(P_SACT, slots)
    bench.port(P_CI, slots)
    assert bench.get(P_CI) == 0, "they are taken"
    assert bench.get(P_SACT) == slots
    assert len(bench.workers.waiting) == 3, "all at once"
    bench.workers.drain()
    assert bench.get(P_SACT) == 0
    assert bench.get(P_IS) & 8
    for slot, lba in ((3, 100), (17, 200), (31, 300)):
        at = DATA + 0x1000 * slot
        assert bench.memory.data[at : at + 4] == struct.pack("<I", lba)


def test_commands_that_are_not_queued_wait_for_each_other() -> None:
    bench = Bench(slow=True)
    for slot in range(3):
        bench.prepare(0x25, slot=slot, lba=slot)
    bench.port(P_CI, 7)
    assert len(bench.workers.waiting) == 1
    bench.workers.drain()
    assert bench.get(P_CI) == 0
    assert bench.memory.data[DATA + 0x2000 : DATA + 0x2004] == struct.pack("<I", 2)


def test_packets() -> None:
    bench = Bench()
    bench.prepare(0xA0, packet=bytes([0x12, 0, 0, 0, 36]), features=1, size=36, port=1)
    bench.port(P_CI, 1, 1)
    assert bench.memory.data[DATA + 8 : DATA + 32] == b"Virtual Ringfence CD-ROM"
    assert bench.moved(port=1) == 36
    bench.prepare(0xA0, packet=bytes([0x00]), port=1)
    bench.port(P_CI, 1, 1)
    assert bench.get(P_TFD, 1) & 1, "a unit attention"
    assert bench.get(P_IS, 1) & 1 << 30
    bench.port(P_CMD, 0x10, 1)
    bench.port(P_CMD, 0x11, 1)
    bench.prepare(0xA0, packet=bytes([0x28, 0, 0, 0, 0, 2, 0, 0, 1]), features=1, size=2048, port=1)
    bench.port(P_CI, 1, 1)
    assert bench.memory.data[DATA : DATA + 2048] == bench.cd.data[4096:6144]


@pytest.mark.parametrize("queued", [False, True])
def test_an_error_stops_the_port_until_it_is_started_again(queued: bool) -> None:
    bench = Bench()
    bench.prepare(0x60 if queued else 0x25, lba=5000, features=1, count=1)
    bench.prepare(0x25, slot=1, lba=1)
    bench.port(P_SACT, 1 if queued else 0)
    bench.port(P_CI, 3)
    assert bench.get(P_TFD) & 1
    assert bench.get(P_IS) & 1 << 30
    assert bench.get(P_CI) & 2, "what follows waits"
    bench.port(P_CMD, 0x10)
    assert bench.get(P_CI) == 0
    bench.port(P_CMD, 0x11)
    bench.port(P_CI, 2)
    assert bench.memory.data[DATA + 0x1000 : DATA + 0x1004] == struct.pack("<I", 1)


def test_errors_of_the_host() -> None:
    bench = Bench()
    bench.disk.error = OSError(5, "host")
    bench.prepare(0x25, lba=1)
    bench.port(P_CI, 1)
    assert bench.get(P_TFD) == 0x4051


def test_software_reset() -> None:
    bench = Bench()
    for control in (4, 0):
        bench.memory.write(TABLES, bytes([0x27, 0, *[0] * 13, control, 0, 0, 0, 0]))
        bench.memory.write(LISTS, struct.pack("<IIQ", 5, 0, TABLES))
        bench.port(P_CI, 1)
        assert bench.get(P_CI) == 0
    assert bench.get(P_TFD) == 0x0150


def test_messages() -> None:
    bench = Bench()
    bench.hba.config_write(0x44, 4, 0xFEE00000)
    bench.hba.config_write(0x48, 4, 0)
    bench.hba.config_write(0x4C, 2, 0x41)
    bench.hba.config_write(0x42, 2, 1)
    bench.prepare(0xEC)
    bench.port(P_CI, 1)
    assert len(bench.slot.messages) == 1
    assert not bench.slot.level


def test_state() -> None:
    bench = Bench()
    bench.prepare(0xEC)
    bench.port(P_CI, 1)
    other = Bench()
    other.hba.restore(bench.hba.state())
    assert other.hba.state() == bench.hba.state()
