"""IDE channels and bus masters, as a driver uses them."""

import errno
import struct
from typing import Any

import pytest

from ringfence.bus import BlockQueue
from ringfence.devices.disk.ata import AtaDisk
from ringfence.devices.disk.cdrom import Cdrom
from ringfence.devices.ide.channel import IdeChannel
from ringfence.devices.ide.piix import PiixIde
from support.disks import Memory, MemoryDisk, SlowWorkers
from support.fake_devices import Wire

BSY, DRDY, DF, DSC, DRQ, ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
SECTORS = 4096


class Bench:
    """A channel with a disk and a CD-ROM, and a driver for it."""

    def __init__(self, *, cached: bool = True, views: bool = True, readonly: bool = False) -> None:
        content = b"".join(struct.pack("<I", n) * 128 for n in range(SECTORS))
        self.disk = MemoryDisk(content, cached=cached, readonly=readonly)
        self.cd = MemoryDisk(bytes(range(256)) * 8 * 64, cached=cached, readonly=True)
        self.workers = SlowWorkers()
        self.irq = Wire()
        self.hard = AtaDisk(BlockQueue(self.disk, self.workers if not cached else None))
        self.optical = Cdrom(BlockQueue(self.cd))
        self.channel = IdeChannel((self.hard, self.optical), self.irq)
        other = IdeChannel((None, None), Wire())
        self.memory = Memory(views=views)
        self.function = PiixIde((self.channel, other))
        self.function.attach(Slot(self.memory))
        self.function.config_write(0x20, 4, 0xC000)
        self.function.config_write(0x04, 2, 0x0005)
        self.bar = next(bar for bar in self.function.bars if bar.window.address is not None)

    def out(self, register: int, value: int) -> None:
        self.channel.write(register, 1, value)

    def inp(self, register: int) -> int:
        return self.channel.read(register, 1)

    def issue(
        self, command: int, *, lba: int = 0, count: int = 1, features: int = 0, device: int = 0
    ) -> None:
        """A command with a 28-bit address."""
        self.out(6, 0xE0 | device << 4 | lba >> 24)
        self.out(2, count >> 8 & 0xFF)
        for register, value in ((1, features), (2, count), (3, lba), (4, lba >> 8)):
            self.out(register, value & 0xFF)
        self.out(5, lba >> 16 & 0xFF)
        self.out(7, command)

    def issue48(self, command: int, *, lba: int, count: int) -> None:
        self.out(6, 0x40)
        for register, value in ((2, count), (3, lba), (4, lba >> 8), (5, lba >> 16)):
            self.out(register, (count >> 8 if register == 2 else value >> 24) & 0xFF)
            self.out(register, value & 0xFF)
        self.out(7, command)

    def data(self, size: int) -> bytes:
        return self.channel.read_string(0, 2, size // 2)

    def packet(self, *command: int, limit: int = 0xFFFE, dma: bool = False) -> bytes:
        """A packet command; what it gave, read block by block."""
        self.out(6, 0x10)
        self.out(1, int(dma))
        self.out(4, limit & 0xFF)
        self.out(5, limit >> 8)
        self.out(7, 0xA0)
        assert self.inp(8) & DRQ
        assert self.inp(2) & 3 == 1
        self.channel.write_string(0, 2, bytes(command).ljust(12, b"\0"))
        seen = b""
        while self.inp(7) & DRQ and not dma:
            assert self.inp(2) & 3 == 2
            length = self.inp(4) | self.inp(5) << 8
            assert 0 < length <= limit
            seen += self.data(length)
        return seen

    def sense(self) -> tuple[int, int]:
        data = self.packet(0x03, 0, 0, 0, 18)
        return data[2], data[12]

    def prd(self, *entries: tuple[int, int], at: int = 0x1000) -> None:
        for index, (address, size) in enumerate(entries):
            last = 0x80000000 if index == len(entries) - 1 else 0
            self.memory.write(at + 8 * index, struct.pack("<II", address, size & 0xFFFF | last))
        self.bm(4, at, 4)

    def bm(self, register: int, value: int, size: int = 1) -> None:
        self.bar.window.device.write(register, size, value)

    def bm_status(self) -> int:
        return self.bar.window.device.read(2, 1)


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


def test_pio_read_of_several_sectors() -> None:
    bench = Bench()
    bench.issue(0x20, lba=7, count=3)
    for sector in (7, 8, 9):
        assert bench.irq.level
        assert bench.inp(7) == DRDY | DSC | DRQ
        assert not bench.irq.level, "reading the status takes the interrupt back"
        assert bench.data(512) == struct.pack("<I", sector) * 128
    assert bench.inp(8) == DRDY | DSC
    assert not bench.irq.level
    assert bench.irq.edges == 3


def test_several_blocks_in_one_string() -> None:
    bench = Bench()
    bench.issue(0x20, lba=1, count=4)
    assert bench.data(2048) == bytes(bench.disk.data[512:2560])
    assert bench.data(4) == bytes(4)
    assert bench.inp(7) == DRDY | DSC


def test_byte_and_word_and_long_reads() -> None:
    bench = Bench()
    bench.issue(0x20, lba=5)
    read = [bench.channel.read(0, 1), bench.channel.read(0, 2), bench.channel.read(0, 4)]
    assert read == [5, 0, 0x00000500]


def test_pio_write_and_multiple() -> None:
    bench = Bench()
    bench.issue(0xC6, count=4)
    assert bench.inp(7) == DRDY | DSC
    edges = bench.irq.edges
    bench.issue(0xC5, lba=100, count=6)
    content = bytes(range(256)) * 12
    bench.channel.write_string(0, 2, content[:2048])
    assert bench.inp(7) & DRQ
    bench.channel.write_string(0, 4, content[2048:])
    assert bench.inp(7) == DRDY | DSC
    assert bench.irq.edges - edges == 2
    assert bench.disk.data[51200 : 51200 + 3072] == content
    assert bench.inp(2) == 0


def test_chs() -> None:
    bench = Bench()
    bench.out(6, 0xA0 | 3)
    bench.out(2, 17)
    bench.out(7, 0x91)
    assert bench.inp(7) == DRDY | DSC
    bench.out(6, 0xA0 | 2)
    for register, value in ((2, 1), (3, 5), (4, 9), (5, 0)):
        bench.out(register, value)
    bench.out(7, 0x20)
    sector = (9 * 4 + 2) * 17 + 4
    assert bench.data(4) == struct.pack("<I", sector)
    bench.data(508)
    bench.out(3, 18)
    bench.out(7, 0x20)
    assert (bench.inp(7), bench.inp(1)) == (DRDY | DSC | ERR, 0x10)


def test_48_bit_commands_and_the_high_order_byte() -> None:
    bench = Bench()
    bench.issue48(0x24, lba=SECTORS - 2, count=2)
    assert bench.data(1024) == bytes(bench.disk.data[-1024:])
    bench.issue48(0x24, lba=SECTORS - 1, count=2)
    assert bench.inp(7) & ERR
    bench.issue48(0x27, lba=0, count=0)
    assert bench.inp(3) | bench.inp(4) << 8 == SECTORS - 1
    bench.out(8, 0x80)
    assert bench.inp(3) == 0


@pytest.mark.parametrize(
    ("command", "lba", "count"),
    [(0x20, SECTORS, 1), (0x20, SECTORS - 1, 2), (0xC8, 0xFFFFFFF, 1), (0x30, SECTORS, 256)],
)
def test_sectors_that_are_not_there(command: int, lba: int, count: int) -> None:
    bench = Bench()
    bench.issue(command, lba=lba, count=count)
    assert bench.inp(7) == DRDY | DSC | ERR
    assert bench.inp(1) == 0x10


def test_unknown_commands_are_aborted() -> None:
    bench = Bench()
    for command in (0x00, 0x87, 0xF1, 0xFF, 0xA1):
        bench.issue(command)
        assert (bench.inp(7), bench.inp(1)) == (DRDY | DSC | ERR, 0x04)


def test_identify() -> None:
    bench = Bench()
    bench.issue(0xEC)
    words = struct.unpack("<256H", bench.data(512))
    assert words[60] | words[61] << 16 == SECTORS == words[100]
    assert words[27].to_bytes(2, "big") == b"Ri"
    assert words[83] & 0x0400
    assert sum(struct.pack("<256H", *words)) & 0xFF == 0


def test_reset_and_signatures() -> None:
    bench = Bench()
    bench.issue(0x20, count=2)
    bench.out(8, 0x04)
    assert bench.inp(8) & BSY
    bench.out(8, 0x00)
    assert [bench.inp(r) for r in (7, 1, 2, 3, 4, 5)] == [DRDY | DSC, 1, 1, 1, 0, 0]
    bench.out(6, 0x10)
    assert [bench.inp(r) for r in (7, 4, 5)] == [0, 0x14, 0xEB]


def test_absent_drives_read_as_zeros() -> None:
    channel = IdeChannel((None, AtaDisk(BlockQueue(MemoryDisk(4096)))), Wire())
    channel.write(2, 1, 0x55)
    assert channel.read(2, 1) == 0
    assert channel.read(7, 1) == 0
    channel.write(6, 1, 0x10)
    assert channel.read(7, 1) == DRDY | DSC


def test_interrupts_can_be_masked() -> None:
    bench = Bench()
    bench.out(8, 0x02)
    bench.issue(0x20)
    assert not bench.irq.level
    bench.out(8, 0x00)
    assert bench.irq.level


@pytest.mark.parametrize("views", [True, False])
def test_dma_both_ways(views: bool) -> None:
    bench = Bench(views=views)
    bench.prd((0x3000, 512), (0x8000, 0x400))
    bench.bm(0, 0x08)
    bench.issue(0xC8, lba=10, count=3)
    bench.bm(0, 0x09)
    assert bench.irq.level
    assert bench.bm_status() & 7 == 4
    assert bench.memory.data[0x3000:0x3200] == bench.disk.data[5120:5632]
    assert bench.memory.data[0x8000:0x8400] == bench.disk.data[5632:6656]
    bench.bm(0, 0)
    bench.bm(2, 4)
    assert bench.bm_status() & 7 == 0
    bench.memory.write(0x20000, b"ringfence" + bytes(503))
    bench.prd((0x20000, 512))
    bench.bm(0, 0x01)
    bench.issue(0xCA, lba=20)
    assert bench.inp(7) == DRDY | DSC
    assert bench.disk.data[10240:10249] == b"ringfence"


def test_dma_tables_of_the_wrong_length() -> None:
    bench = Bench()
    bench.prd((0x3000, 512))
    bench.bm(0, 0x09)
    bench.issue(0xC8, lba=0, count=2)
    assert bench.bm_status() & 7 == 0, "over, without an interrupt: the drive has more"
    assert bench.inp(8) & DRQ
    bench = Bench()
    bench.prd((0x3000, 4096))
    bench.bm(0, 0x09)
    bench.issue(0xC8, lba=0, count=2)
    assert bench.bm_status() & 7 == 5, "the interrupt came, and descriptors are left"


def test_dma_needs_bus_mastering() -> None:
    bench = Bench()
    bench.prd((0x3000, 512))
    bench.function.config_write(0x04, 2, 0x0001)
    bench.bm(0, 0x09)
    bench.issue(0xC8, lba=1)
    assert not any(bench.memory.data[0x3000:0x3200])


def test_slow_disks_keep_the_drive_busy() -> None:
    bench = Bench(cached=False)
    bench.issue(0x20, lba=3)
    assert bench.inp(7) == BSY
    assert not bench.irq.level
    bench.workers.drain()
    assert bench.irq.level
    assert bench.data(4) == struct.pack("<I", 3)


def test_a_reset_forgets_what_is_under_way() -> None:
    bench = Bench(cached=False)
    bench.issue(0x20, lba=3)
    bench.out(8, 0x04)
    bench.out(8, 0x00)
    assert not bench.irq.level
    assert bench.inp(7) == DRDY | DSC


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize(
    ("command", "error"), [(0x20, 0x40), (0x30, 0x04), (0xC8, 0x40), (0xE7, 4)]
)
def test_errors_of_the_host_are_the_drives(number: int, command: int, error: int) -> None:
    bench = Bench()
    bench.disk.error = OSError(number, "host")
    bench.prd((0x3000, 512))
    bench.bm(0, 0x09)
    bench.issue(command, lba=1)
    if command == 0x30:
        bench.channel.write_string(0, 2, bytes(512))
    assert bench.inp(7) & (ERR | DRQ | BSY) == ERR
    assert bench.inp(1) == error
    bench.disk.error = None
    bench.issue(0x20, lba=1)
    assert bench.data(4) == struct.pack("<I", 1), "it goes on when the host is well again"


def test_readonly_disks_refuse_writes() -> None:
    bench = Bench(readonly=True)
    for command in (0x30, 0xCA, 0xC5):
        bench.issue(command, lba=1)
        assert bench.inp(7) & ERR


def test_write_cache_off_writes_through() -> None:
    bench = Bench()
    bench.issue(0xEF, features=0x82)
    before = bench.disk.flushes
    bench.issue(0x30, lba=1)
    bench.channel.write_string(0, 2, bytes(512))
    assert bench.disk.flushes == before + 1
    bench.issue(0xE7)
    assert bench.disk.flushes == before + 2


def test_trim() -> None:
    bench = Bench()
    bench.prd((0x3000, 512))
    bench.memory.write(0x3000, struct.pack("<QQ", 16 | 8 << 48, 100 | 1 << 48))
    bench.bm(0, 0x01)
    bench.issue(0x06, features=1)
    assert bench.inp(7) == DRDY | DSC
    assert bench.disk.discarded == [(8192, 4096), (51200, 512)]
    bench.memory.write(0x3000, struct.pack("<Q", SECTORS - 1 | 2 << 48))
    bench.bm(0, 0)
    bench.bm(0, 1)
    bench.issue(0x06, features=1)
    assert bench.inp(7) & ERR


def test_smart() -> None:
    bench = Bench()

    def smart(feature: int) -> None:
        for register, value in ((6, 0xE0), (1, feature), (2, 1), (4, 0x4F), (5, 0xC2), (7, 0xB0)):
            bench.out(register, value)

    smart(0xDA)
    assert (bench.inp(7), bench.inp(4), bench.inp(5)) == (DRDY | DSC, 0x4F, 0xC2)
    smart(0xD0)
    assert sum(bench.data(512)) & 0xFF == 0
    smart(0xD9)
    smart(0xD0)
    assert bench.inp(7) & ERR


def test_packets() -> None:
    bench = Bench()
    assert bench.packet(0x12, 0, 0, 0, 36)[8:32] == b"Virtual Ringfence CD-ROM"
    assert bench.packet(0x00) == b""
    assert bench.inp(7) & ERR, "a unit attention comes first"
    assert bench.sense() == (6, 0x29)
    assert bench.packet(0x25) == struct.pack(">II", 63, 2048)
    assert bench.packet(0x28, 0, 0, 0, 0, 5, 0, 0, 3) == bytes(bench.cd.data[10240:16384])
    limited = bench.packet(0x28, 0, 0, 0, 0, 5, 0, 0, 3, limit=1000)
    assert limited == bytes(bench.cd.data[10240:16384])
    assert bench.packet(0x28, 0, 0, 0, 0, 63, 0, 0, 2) == b""
    assert bench.sense() == (5, 0x21)
    assert bench.packet(0xFF) == b""
    assert bench.sense() == (5, 0x20)
    raw = bench.packet(0xBE, 0, 0, 0, 0, 1, 0, 0, 1, 0xF8)
    assert (len(raw), raw[12:16]) == (2352, bytes([0, 2, 1, 1]))
    assert raw[16:2064] == bytes(bench.cd.data[2048:4096])


def test_packet_dma() -> None:
    bench = Bench()
    bench.sense()
    bench.prd((0x3000, 4096))
    bench.bm(0, 0x09)
    bench.packet(0x28, 0, 0, 0, 0, 2, 0, 0, 2, dma=True)
    assert bench.inp(7) == DRDY | DSC
    assert bench.memory.data[0x3000:0x4000] == bench.cd.data[4096:8192]


def test_a_change_of_discs() -> None:
    bench = Bench()
    bench.sense()
    assert bench.packet(0x00) == b""
    assert bench.packet(0x1E, 0, 0, 0, 1) == b""
    assert not bench.optical.press_eject()
    assert bench.packet(0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)[4] == 1, "the guest is asked"
    bench.packet(0x1B, 0, 0, 0, 2)
    assert bench.sense() == (5, 0x53)
    bench.packet(0x1E, 0, 0, 0, 0)
    assert bench.optical.press_eject()
    bench.optical.insert(None)
    bench.packet(0x00)
    assert bench.sense() == (6, 0x28)
    bench.packet(0x25)
    assert bench.sense() == (2, 0x3A)
    bench.optical.insert(BlockQueue(MemoryDisk(2048)))
    bench.packet(0x00)
    assert bench.sense() == (6, 0x28)
    assert bench.packet(0x25) == struct.pack(">II", 0, 2048)


def test_disk_commands_to_a_cdrom_show_what_it_is() -> None:
    bench = Bench()
    bench.issue(0xEC, device=1)
    assert bench.inp(7) & ERR
    assert (bench.inp(4), bench.inp(5)) == (0x14, 0xEB)
    bench.issue(0xA1, device=1)
    assert bench.inp(7) & DRQ
    assert struct.unpack("<H", bench.data(512)[:2]) == (0x85C0,)
    assert bench.inp(7) == DRDY | DSC


@pytest.mark.parametrize("left", [0, 200, 512, 700])
def test_a_transfer_goes_on_after_a_restore(left: int) -> None:
    bench = Bench()
    bench.issue(0x20, lba=40, count=3)
    first = bench.data(left)
    other = Bench()
    other.channel.restore(bench.channel.state())
    assert other.irq.level is bench.irq.level
    assert first + other.data(1536 - left) == bytes(bench.disk.data[20480:22016])
    assert other.inp(7) == DRDY | DSC


def test_function_state() -> None:
    bench = Bench()
    bench.prd((0x3000, 512))
    bench.bm(0, 0x08)
    other = Bench()
    other.function.restore(bench.function.state())
    assert other.function.state() == bench.function.state()
