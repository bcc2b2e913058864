"""Bad guests at the disk controllers: random registers, corrupt descriptors.

Nothing raises, nothing takes long, and neither the medium nor guest memory is left.
"""

import random
import struct
from typing import Any

import pytest

from ringfence.bus import BlockQueue
from ringfence.devices.ahci.controller import AhciController
from ringfence.devices.disk.ata import AtaDisk
from ringfence.devices.disk.cdrom import Cdrom
from ringfence.devices.dma.i8237 import IsaDma
from ringfence.devices.floppy.drive import FloppyDrive
from ringfence.devices.floppy.fdc import FloppyController
from ringfence.devices.ide.channel import IdeChannel
from ringfence.devices.ide.piix import PiixIde
from support.disks import Memory, MemoryDisk, SlowWorkers
from support.fake_devices import HandClock, Wire

OPERATIONS = 6000


class Slot:
    """A place on a PCI bus with memory."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def set_intx(self, pin: int, level: bool) -> None:
        pass

    def send_msi(self, address: int, data: int) -> None:
        pass

    def place(self, window: Any, address: int | None) -> None:
        window.address = address


@pytest.fixture
def operations(request: pytest.FixtureRequest) -> int:
    return OPERATIONS * (1000 if request.config.getoption("--soak") else 1)


def queue(rng: random.Random, workers: SlowWorkers, size: int = 1 << 18) -> BlockQueue:
    disk = MemoryDisk(size, cached=rng.random() < 0.5)
    return BlockQueue(disk, workers if rng.random() < 0.5 else None)


def upset(rng: random.Random, blocks: list[BlockQueue], workers: SlowWorkers) -> None:
    """What the host does meanwhile: work gets done, disks fail and are mended."""
    if rng.random() < 0.3:
        workers.drain()
    for block in blocks:
        disk = block.backend
        assert isinstance(disk, MemoryDisk)
        disk.error = OSError("host") if rng.random() < 0.02 else None


ATA = [0x20, 0x24, 0x25, 0x30, 0x34, 0x35, 0xC4, 0xC5, 0xC6, 0xC8, 0xCA, 0xA0, 0xA1, 0xEC, 0xEF]
ATA += [0xE7, 0x06, 0xB0, 0x90, 0x91, 0xE4, 0xE8, 0x2F, 0x47, 0x08, 0x60, 0x61]
SCSI = [0x00, 0x03, 0x12, 0x1A, 0x1B, 0x1E, 0x25, 0x28, 0x42, 0x43, 0x46, 0x4A, 0x51, 0x52, 0x5A]
SCSI += [0x55, 0xA8, 0xAD, 0xB9, 0xBD, 0xBE]


def packet(rng: random.Random) -> bytes:
    """A command packet, often of the usual kind."""
    body = bytes(rng.choice([0, 0, 0, 1, 2, 16, 0xF8, rng.randrange(256)]) for _ in range(11))
    return bytes([rng.choice(SCSI) if rng.random() < 0.9 else rng.randrange(256)]) + body


@pytest.mark.parametrize("seed", range(3))
def test_ide(seed: int, operations: int) -> None:
    rng = random.Random(seed)
    workers = SlowWorkers()
    disk, cd = queue(rng, workers), queue(rng, workers)
    memory = Memory(views=rng.random() < 0.5)
    channel = IdeChannel((AtaDisk(disk), Cdrom(cd)), Wire())
    function = PiixIde((channel, IdeChannel((None, None), Wire())))
    function.attach(Slot(memory))
    function.config_write(0x20, 4, 0xC000)
    function.config_write(0x04, 2, 0x0005)
    master = function.bars[0].window.device
    for _ in range(operations):
        upset(rng, [disk, cd], workers)
        choice = rng.random()
        if choice < 0.3:
            channel.write(7, 1, rng.choice(ATA) if rng.random() < 0.9 else rng.randrange(256))
        elif choice < 0.5:
            channel.write(
                rng.randrange(1, 7), 1, rng.choice([0, 1, 0x40, 0xE0, rng.randrange(256)])
            )
        elif choice < 0.6:
            channel.write_string(0, 2, packet(rng) + bytes(rng.randrange(0, 4096, 2)))
        elif choice < 0.7:
            size = rng.choice([1, 2, 4])
            assert len(channel.read_string(0, size, 100)) == 100 * size
        elif choice < 0.78:
            assert channel.read(rng.randrange(9), rng.choice([1, 2, 4])) >= 0
        elif choice < 0.8:
            channel.write(8, 1, rng.randrange(256))
        elif choice < 0.9:
            at = rng.choice([0x1000, 0xFFF8, 0xFFFFC, rng.getrandbits(32)])
            entries = rng.randrange(1, 20)
            memory.write(
                at,
                b"".join(
                    struct.pack(
                        "<II",
                        rng.choice([0x2000, 0xFF000, rng.getrandbits(32)]),
                        rng.choice([0, 512, 0x80000200, 0x80000000, rng.getrandbits(32)]),
                    )
                    for _ in range(entries)
                ),
            )
            master.write(4, 4, at)
        else:
            master.write(rng.randrange(3), 1, rng.choice([0, 1, 8, 9, rng.randrange(256)]))
    channel.settle()
    assert IdeChannel((AtaDisk(disk), Cdrom(cd)), Wire()).restore(channel.state()) is None


@pytest.mark.parametrize("seed", range(3))
def test_ahci(seed: int, operations: int) -> None:
    rng = random.Random(seed)
    workers = SlowWorkers()
    disk, cd = queue(rng, workers), queue(rng, workers)
    memory = Memory(views=rng.random() < 0.5)
    controller = AhciController([AtaDisk(disk, queue_depth=32), Cdrom(cd, sata=True)])
    controller.attach(Slot(memory))
    controller.config_write(0x04, 2, 0x0006)
    for _ in range(operations):
        upset(rng, [disk, cd], workers)
        choice = rng.random()
        port = 0x100 + 0x80 * rng.choice([0, 0, 0, 1, 1, 5])
        if choice < 0.2:
            offset = rng.choice(
                [0, 4, 8, port + 4 * rng.randrange(32), rng.randrange(0, 0x1000, 4)]
            )
            value = rng.choice([0, 1, rng.getrandbits(32)])
            controller.write(offset, value)
        elif choice < 0.3:
            assert 0 <= controller.read(rng.randrange(0, 0x1000, 4)) < 1 << 32
        elif choice < 0.6:
            lists, table = 0x4000, 0x8000 + 0x1000 * rng.randrange(8)
            slot = rng.randrange(32)
            fis = bytearray(20)
            fis[0:3] = bytes([0x27, rng.choice([0x80, 0x80, 0x80, 0]), rng.choice(ATA)])
            fis[3:16] = bytes(rng.choice([0, 0, 1, 0x40, rng.randrange(256)]) for _ in range(13))
            memory.write(table, bytes(fis))
            memory.write(table + 0x40, packet(rng))
            count = rng.choice([0, 1, 8, 0xFFFF])
            for index in range(min(count, 16)):
                where = rng.choice([0x20000, 0xFF000, rng.getrandbits(64)])
                size = rng.choice([0, 511, 0x3FFFFF, rng.getrandbits(32)])
                memory.write(table + 0x80 + 16 * index, struct.pack("<QII", where, 0, size))
            flags = rng.choice([5, 0x25, 0x45, rng.getrandbits(16)]) | count << 16
            where = table if rng.random() < 0.95 else rng.getrandbits(64)
            memory.write(lists + 32 * slot, struct.pack("<IIQ", flags, 0, where))
            for register, value in ((0, lists), (4, 0), (8, 0x6000), (12, 0), (0x18, 0x11)):
                controller.write(port + register, value)
            if rng.random() < 0.5:
                controller.write(port + 0x34, 1 << slot)
            controller.write(port + 0x38, 1 << slot)
        elif choice < 0.7:
            memory.write(rng.randrange(1 << 20), rng.randbytes(64))
        elif choice < 0.8:
            controller.write(port + 0x38, rng.getrandbits(32))
        else:
            controller.write(port + 0x18, rng.choice([0, 0x10, 0x11, 0x19]))
    controller.settle()
    other = AhciController([AtaDisk(disk, queue_depth=32), Cdrom(cd, sata=True)])
    other.restore(controller.state())


@pytest.mark.parametrize("seed", range(3))
def test_floppy(seed: int, operations: int) -> None:
    rng = random.Random(seed)
    workers = SlowWorkers()
    disk = queue(rng, workers, 1440 << 10)
    isa = IsaDma(Memory())
    clock = HandClock()
    fdc = FloppyController((FloppyDrive(disk), None), Wire(), isa.channel(2), clock)
    commands = [0x03, 0x04, 0x07, 0x08, 0x0F, 0x10, 0x13, 0x4A, 0x4D, 0x8F, 0x94, 0xC5, 0xE6, 0x56]
    for _ in range(operations):
        upset(rng, [disk], workers)
        choice = rng.random()
        if choice < 0.1:
            fdc.write(2, 1, rng.choice([0x1C, 0x1C, 0x0C, 0, rng.randrange(256)]))
        elif choice < 0.3:
            isa.write(rng.randrange(0x40), 1, rng.choice([0, 2, 0x46, 0x4A, rng.randrange(256)]))
        elif choice < 0.5:
            fdc.write(5, 1, rng.choice(commands))
        elif choice < 0.8:
            fdc.write(5, 1, rng.choice([0, 0, 1, 2, 18, rng.randrange(256)]))
        elif choice < 0.95:
            fdc.read(rng.choice([4, 5, 5, 5, 7]), 1)
        else:
            clock.advance(1_000_000)
    fdc.settle()
    fdc.restore(fdc.state())
