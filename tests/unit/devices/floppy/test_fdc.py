"""The floppy controller as a BIOS and a driver use it."""

import errno

import pytest

from ringfence.bus import BlockQueue
from ringfence.devices.dma.i8237 import IsaDma
from ringfence.devices.floppy.drive import FloppyDrive
from ringfence.devices.floppy.fdc import FloppyController
from ringfence.devices.floppy.medium import FORMATS, format_of
from support.disks import Memory, MemoryDisk
from support.fake_devices import HandClock, Wire

DOR, MSR, FIFO, DIR = 2, 4, 5, 7
SECTOR = 512


class Bench:
    """A controller with one drive."""

    def __init__(self, size: int = 1440 << 10, *, readonly: bool = False) -> None:
        self.disk = MemoryDisk(bytes(n // SECTOR & 0xFF for n in range(size)), readonly=readonly)
        self.memory = Memory()
        self.isa = IsaDma(self.memory)
        self.isa.write(0x10 + 2 * 0x0A, 1, 0)
        self.irq = Wire()
        self.clock = HandClock()
        self.drive = FloppyDrive(BlockQueue(self.disk))
        self.fdc = FloppyController((self.drive, None), self.irq, self.isa.channel(2), self.clock)

    def start(self, rate: int = 0, *, dma: bool = True) -> "Bench":
        self.fdc.write(DOR, 1, 0x1C)
        self.clock.advance(1_000_000)
        assert self.irq.level
        for number in range(4):
            assert self.command(0x08) == [0xC0 | number, 0]
        self.fdc.write(DIR, 1, rate)
        assert self.command(0x03, 0xAF, 0x02 if dma else 0x03) == []
        self.command(0x07, 0)
        assert self.command(0x08) == [0x20, 0]
        return self

    def command(self, *values: int) -> list[int]:
        """Writes a command; its result bytes."""
        for value in values:
            assert self.fdc.read(MSR, 1) & 0xC0 == 0x80
            self.fdc.write(FIFO, 1, value)
        self.clock.advance(1_000_000)
        return self.result()

    def result(self) -> list[int]:
        result = []
        while self.fdc.read(MSR, 1) & 0xF0 == 0xD0:
            result.append(self.fdc.read(FIFO, 1))
        return result

    def program(self, address: int, size: int, mode: int) -> None:
        self.isa.write(0x0C, 1, 0)
        self.isa.write(0x0B, 1, mode | 2)
        for register, value in ((4, address), (5, size - 1)):
            self.isa.write(register, 1, value & 0xFF)
            self.isa.write(register, 1, value >> 8)
        self.isa.write(0x31, 1, 0)
        self.isa.write(0x0A, 1, 2)


def test_read_by_dma() -> None:
    bench = Bench().start()
    bench.program(0x1000, 3 * SECTOR, 0x44)
    result = bench.command(0xE6, 0x00, 0, 0, 17, 2, 18, 0x1B, 0xFF)
    assert result == [0x04, 0, 0, 0, 1, 2, 2], "on to the first sectors of the other side"
    assert bench.memory.data[0x1000:0x1600] == bench.disk.data[16 * SECTOR : 19 * SECTOR]


def test_write_by_dma() -> None:
    bench = Bench().start()
    bench.command(0x0F, 0, 5)
    assert bench.command(0x08) == [0x20, 5]
    bench.memory.write(0x1000, b"ringfence" + bytes(503))
    bench.program(0x1000, SECTOR, 0x48)
    assert bench.command(0xC5, 0x04, 5, 1, 3, 2, 18, 0x1B, 0xFF)[:3] == [0x04, 0, 0]
    at = ((5 * 2 + 1) * 18 + 2) * SECTOR
    assert bench.disk.data[at : at + 9] == b"ringfence"


def test_without_dma() -> None:
    bench = Bench().start(dma=False)
    bench.command(0x46, 0x00, 0, 0, 18, 2, 18, 0x1B, 0xFF)
    assert bench.irq.level
    seen = b""
    while bench.fdc.read(MSR, 1) & 0x20:
        seen += bytes([bench.fdc.read(FIFO, 1)])
    assert seen == bytes(bench.disk.data[17 * SECTOR : 18 * SECTOR])
    assert bench.result() == [0x40, 0x80, 0, 1, 0, 1, 2], "the end of the cylinder"
    bench.command(0x45, 0x00, 0, 0, 18, 2, 18, 0x1B, 0xFF)
    for _ in range(SECTOR):
        bench.fdc.write(FIFO, 1, 0x77)
    assert bench.result()[1] == 0x80
    assert bench.disk.data[17 * SECTOR : 18 * SECTOR] == b"\x77" * SECTOR


@pytest.mark.parametrize("form", FORMATS)
def test_formats(form: object) -> None:
    entry = next(known for known in FORMATS if known is form)
    rate = min(entry.rates)
    bench = Bench(entry.size).start(rate)
    cylinder = entry.tracks - 1
    bench.command(0x0F, (entry.heads - 1) << 2, cylinder)
    bench.command(0x08)
    bench.program(0x1000, SECTOR, 0x44)
    select = (entry.heads - 1) << 2
    result = bench.command(
        0x46, select, cylinder, entry.heads - 1, entry.sectors, 2, entry.sectors, 0x1B, 0xFF
    )
    assert result[:3] == [select, 0, 0]
    assert bench.memory.data[0x1000:0x1200] == bench.disk.data[-SECTOR:]
    assert bench.command(0x4A, select)[:2] == [select, 0]
    bench.fdc.write(DIR, 1, next(r for r in range(4) if r not in entry.rates))
    assert bench.command(0x4A, select)[1] == 0x01, "at another rate there are no marks"


def test_sizes() -> None:
    assert format_of((2880 << 10) + 1) is None
    odd = format_of(1_000_000)
    assert odd is not None
    assert (odd.tracks, odd.sectors) == (80, 18)


def test_an_image_shorter_than_its_disk() -> None:
    bench = Bench(40 * SECTOR).start()
    bench.command(0x0F, 0, 1)
    bench.command(0x08)
    bench.memory.write(0x1000, b"x" * 1024)
    bench.program(0x1000, 1024, 0x44)
    assert bench.command(0x46, 0, 1, 0, 4, 2, 18, 0x1B, 0xFF)[:3] == [0, 0, 0]
    assert bench.memory.data[0x1000:0x1200] == bench.disk.data[39 * SECTOR :]
    assert bench.memory.data[0x1200:0x1400] == bytes(SECTOR)


@pytest.mark.parametrize(
    ("values", "st1", "st2"),
    [
        ((0, 3, 0, 1, 2, 18), 0x04, 0x10),  # the head is elsewhere
        ((0, 0, 0, 19, 2, 18), 0x04, 0x00),  # no such sector
        ((4, 0, 0, 1, 2, 18), 0x04, 0x00),  # the other side
        ((0, 0, 0, 1, 3, 18), 0x01, 0x00),  # another sector size
        ((1, 0, 0, 1, 2, 18), 0x01, 0x00),  # no drive
    ],
)
def test_what_is_not_there(values: tuple[int, ...], st1: int, st2: int) -> None:
    bench = Bench().start()
    bench.program(0x1000, SECTOR, 0x44)
    result = bench.command(0xE6, *values, 0x1B, 0xFF)
    assert (result[0] & 0xC0, result[1], result[2]) == (0x40, st1, st2)


def test_write_protection_and_errors_of_the_host() -> None:
    bench = Bench(readonly=True).start()
    assert bench.command(0x04, 0)[0] & 0x40
    bench.program(0x1000, SECTOR, 0x48)
    assert bench.command(0xC5, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)[1] == 0x02
    bench = Bench().start()
    bench.disk.error = OSError(errno.EIO, "host")
    bench.program(0x1000, SECTOR, 0x44)
    assert bench.command(0xE6, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)[0] & 0xC0 == 0x40


def test_format_track() -> None:
    bench = Bench().start()
    bench.program(0x1000, 72, 0x48)
    assert bench.command(0x4D, 0x04, 2, 18, 0x54, 0xF6)[:3] == [0x04, 0, 0]
    assert bench.disk.data[18 * SECTOR : 36 * SECTOR] == b"\xf6" * 18 * SECTOR
    assert bench.disk.data[17 * SECTOR] == 17


def test_disk_change() -> None:
    bench = Bench().start()
    assert not bench.fdc.read(DIR, 1) & 0x80
    bench.fdc.insert(0, BlockQueue(MemoryDisk(720 << 10)))
    assert bench.fdc.read(DIR, 1) & 0x80
    bench.command(0x0F, 0, 1)
    assert not bench.fdc.read(DIR, 1) & 0x80
    bench.fdc.insert(0, None)
    bench.command(0x0F, 0, 0)
    assert bench.fdc.read(DIR, 1) & 0x80


def test_unknown_commands_and_others() -> None:
    bench = Bench().start()
    assert bench.command(0x1F) == [0x80]
    assert bench.command(0x08) == [0x80]
    assert bench.command(0x10) == [0x90]
    assert bench.command(0x13, 0, 0x57, 0) == []
    assert bench.command(0x94) == [0x10]
    assert bench.command(0x0E)[8] == 0x57
    bench.fdc.write(MSR, 1, 0x80)
    bench.clock.advance(1_000_000)
    assert bench.command(0x08)[0] == 0xC0
    for _ in range(3):
        bench.command(0x08)
    assert bench.command(0x0E)[8] == 0x57, "a locked configuration outlives a reset"
