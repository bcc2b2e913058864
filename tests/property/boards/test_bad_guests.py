"""A guest that pokes at everything on a board: ports, memory, base registers, DMA.

Nothing raises and nothing hangs; what is read fits its width; and memory, which is the engine's
own, is not left (the process would end). ``--soak`` makes it ten million operations.
"""

import random
from typing import Any

import pytest

from ringfence.boards import FirmwareImage, MediumEnd
from ringfence.bus import BlockQueue
from ringfence.config import DeviceConfig
from ringfence.engines import pick
from ringfence.machine.memory import GuestMemory, Ram
from support.boards import Bench
from support.disks import MemoryDisk
from support.fake_devices import Port

MEMORY = 64 << 20
OPERATIONS = 60_000
SOAK = 10_000_000


class Network:
    """A cable to nowhere."""

    def send(self, frame: Any) -> None:
        assert len(frame) < 1 << 17

    def on_receive(self, callback: Any) -> None:
        self.callback = callback

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


class Store:
    def load(self) -> bytes:
        return b"\xff" * 0x20000

    def store(self, offset: int, data: bytes) -> None:
        assert 0 <= offset <= offset + len(data) <= 0x20000


class Guest:
    """Random operations on a board with one of everything."""

    def __init__(self, seed: int, *, firmware: bool) -> None:
        self.rng = random.Random(seed)
        engine = pick("bt")
        self.machine = engine.create_machine(1)
        self.memory = GuestMemory(engine, self.machine, MEMORY)
        self.bench = Bench(
            MEMORY,
            display=True,
            dma=self.memory,
            memory_map=self.memory,
            signal_msi=self.machine.signal_msi,
            attach_video=lambda video: None,
            a20=self.machine.a20,
            pm_timer=self.machine.pm_timer,
            hpet=True,
            firmware_log=Port(),
            printer=Port(),
            end=lambda kind, name: Network(),
            media=[
                MediumEnd("disk0", "disk", BlockQueue(MemoryDisk(1 << 20))),
                MediumEnd("cdrom0", "cdrom", BlockQueue(MemoryDisk(1 << 20, readonly=True))),
                MediumEnd("disk1", "disk", BlockQueue(MemoryDisk(1 << 20)), "ahci"),
                MediumEnd("floppy0", "floppy", BlockQueue(MemoryDisk(1_474_560))),
            ],
            devices=[DeviceConfig.parse("e1000,net=x"), DeviceConfig.parse("rtl8029,net=x")],
            firmware=FirmwareImage(b"\x90" * 0x40000, Store()) if firmware else None,
        )
        self.board = self.bench.board
        self.memory.add_ram(Ram(*piece) for piece in self.board.memory_ranges())
        self.functions = [place for place, _ in self.board.pci_bus.functions()]

    def close(self) -> None:
        self.board.close()
        self.memory.close()

    def number(self, size: int) -> int:
        rng = self.rng
        chosen = rng.choice(
            (0, 1, 0xFF, 0x80, 0xFFFFFFFF, rng.randrange(MEMORY), rng.getrandbits(8 * size))
        )
        return chosen & (1 << 8 * size) - 1

    def port(self) -> None:
        rng, ports = self.rng, self.board.ports
        port = rng.randrange(0x10000)
        if rng.random() < 0.95:
            first, last, _ = rng.choice(self.ranges)
            port = rng.randint(first, last)
        size = rng.choice((1, 1, 2, 4))
        if rng.random() < 0.5:
            ports.write(port, size, self.number(size))
        else:
            assert 0 <= ports.read(port, size) < 1 << 8 * size

    def mapped(self) -> None:
        rng, mmio = self.rng, self.board.mmio
        address = rng.getrandbits(rng.choice((20, 32, 40)))
        ranges = mmio.ranges()
        if ranges and rng.random() < 0.95:
            first, last, _ = rng.choice(ranges)
            address = rng.choice((rng.randint(first, last), first + rng.randrange(0x100)))
        size = rng.choice((1, 2, 4, 4, 8))
        if rng.random() < 0.5:
            mmio.write(address, size, self.number(size))
        else:
            assert 0 <= mmio.read(address, size) < 1 << 8 * size

    def configuration(self) -> None:
        rng, ports = self.rng, self.board.ports
        place = rng.choice(self.functions)
        size = rng.choice((1, 2, 4, 4))
        register = rng.choice(
            (4, 4, *range(0x10, 0x34, 4), 0x40, 0x59, 0x5A, 0x60, 0x80, rng.randrange(0, 256, 4))
        )
        value = rng.choice(
            (
                7,
                0xFFFFFFFF,
                0xE0000000 | rng.getrandbits(28),
                rng.getrandbits(16) | 1,
                rng.getrandbits(32),
            )
        )
        ports.write(0xCF8, 4, 1 << 31 | place << 8 | register & 0xFC)
        if rng.random() < 0.7:
            ports.write(0xCFC, size, value & (1 << 8 * size) - 1)
        else:
            assert 0 <= ports.read(0xCFC, size) < 1 << 8 * size

    def run(self, operations: int) -> None:
        rng = self.rng
        for index in range(operations):
            if index % 500 == 0:
                self.ranges = self.board.ports.ranges()
                self.bench.clock.advance(rng.randrange(20_000_000))
                self.memory.write(rng.randrange(MEMORY), rng.randbytes(64))
                self.bench.lines.clear()
                self.bench.events.clear()
            choice = rng.random()
            if choice < 0.55:
                self.port()
            elif choice < 0.8:
                self.mapped()
            else:
                self.configuration()


@pytest.mark.parametrize("firmware", [False, True])
def test_a_bad_guest_harms_nobody(firmware: bool) -> None:
    guest = Guest(4711 + firmware, firmware=firmware)
    guest.run(OPERATIONS)
    state = guest.board.state()
    assert state
    guest.board.reset()
    guest.run(1000)
    guest.close()


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("firmware", [False, True])
def test_ten_million_operations(firmware: bool) -> None:
    for seed in range(10):
        guest = Guest(seed, firmware=firmware)
        guest.run(SOAK // 20)
        guest.close()
