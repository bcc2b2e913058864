"""The NE2000 against the DP8390D data sheet, as a driver uses it."""

import zlib

import pytest

from ringfence.devices.net.ne2000 import Ne2000
from support.fake_devices import Wire, Wires

MAC = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("525400abcdef")
CR, PSTART, PSTOP, BNRY, TPSR, TBCR0, TBCR1, ISR = range(8)
RSAR0, RSAR1, RBCR0, RBCR1, RCR, TCR, DCR, IMR = range(8, 16)
PAR0, CURR, MAR0 = 1, 7, 8
DATA, RESET = 0x10, 0x18
PRX, PTX, OVW, RDC, RST = 0x01, 0x02, 0x10, 0x40, 0x80
FIRST, START, STOP = 0x40, 0x46, 0x60


class Bench:
    def __init__(self) -> None:
        self.wires, self.wire = Wires(), Wire()
        self.card = Ne2000(self.wires, self.wire, MAC)

    def get(self, register: int) -> int:
        return self.card.read(register, 1)

    def put(self, register: int, value: int) -> None:
        self.card.write(register, 1, value)

    def remote(self, command: int, at: int, length: int) -> None:
        self.put(RBCR0, length & 0xFF)
        self.put(RBCR1, length >> 8)
        self.put(RSAR0, at & 0xFF)
        self.put(RSAR1, at >> 8)
        self.put(CR, 0x02 | command)

    def fetch(self, at: int, length: int, width: int = 2) -> bytes:
        self.remote(0x08, at, length)
        parts = [
            self.card.read(DATA, width).to_bytes(width, "little") for _ in range(0, length, width)
        ]
        return b"".join(parts)

    def store(self, at: int, data: bytes) -> None:
        self.remote(0x10, at, len(data))
        for index in range(0, len(data), 2):
            self.card.write(DATA, 2, int.from_bytes(data[index : index + 2], "little"))

    def start(self, rcr: int = 0x04) -> None:
        self.put(CR, 0x21)
        self.put(DCR, 0x49)
        self.put(RCR, rcr)
        self.put(TCR, 0)
        self.put(PSTART, START)
        self.put(PSTOP, STOP)
        self.put(BNRY, START)
        self.put(ISR, 0xFF)
        self.put(IMR, 0x3F)
        self.put(CR, 0x61)
        for index, byte in enumerate(MAC):
            self.put(PAR0 + index, byte)
        self.put(CURR, START)
        self.put(CR, 0x22)

    def current(self) -> int:
        self.put(CR, 0x62)
        value = self.get(CURR)
        self.put(CR, 0x22)
        return value

    def deliver(self, *frames: bytes) -> None:
        self.wires.coming += frames
        self.card.frames_waiting()


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.start()
    return bench


def test_reset() -> None:
    bench = Bench()
    assert bench.get(CR) == 0x21
    assert bench.get(ISR) == RST
    bench.put(CR, 0x22)
    assert bench.get(ISR) == 0
    bench.get(RESET)
    assert bench.get(ISR) == RST


def test_prom_doubles_its_bytes(bench: Bench) -> None:
    prom = bench.fetch(0, 32)
    assert prom[0:12:2] == prom[1:12:2] == MAC
    assert prom[28:32] == b"\x57" * 4


@pytest.mark.parametrize("width", [1, 2, 4])
def test_remote_dma(bench: Bench, width: int) -> None:
    bench.put(DCR, 0x48 if width == 1 else 0x49)
    bench.store(0x4000, bytes(range(64)))
    assert bench.get(ISR) & RDC
    bench.put(ISR, RDC)
    assert bench.fetch(0x4000, 64, width) == bytes(range(64))
    assert bench.get(ISR) & RDC
    assert bench.card.read(DATA, 2) == 0xFFFF, "the count is used up"


def test_bytes_in_word_mode_skip_their_neighbours(bench: Bench) -> None:
    """So drivers read the doubled bytes of the PROM once each."""
    bench.remote(0x08, 0, 32)
    assert bytes(bench.card.read(DATA, 1) for _ in range(6)) == MAC


def test_transmit(bench: Bench) -> None:
    frame = OTHER + MAC + bytes([8, 0]) + bytes(46)
    bench.store(FIRST << 8, frame)
    bench.put(ISR, 0xFF)
    bench.put(TPSR, FIRST)
    bench.put(TBCR0, len(frame))
    bench.put(TBCR1, 0)
    bench.put(CR, 0x26)
    assert bench.wires.sent == [frame]
    assert bench.get(ISR) & PTX
    assert bench.wire.level
    bench.put(ISR, PTX)
    assert not bench.wire.level


def test_receive(bench: Bench) -> None:
    frame = MAC + OTHER + bytes([8, 0]) + bytes(range(100))
    bench.deliver(frame)
    assert bench.wire.level
    assert bench.current() == START + 1
    head = bench.fetch(START << 8, 4)
    assert head == bytes([1, START + 1, len(frame) + 4, 0])
    data = bench.fetch((START << 8) + 4, len(frame) + 4)
    assert data == frame + zlib.crc32(frame).to_bytes(4, "little")


def test_ring_wraps_and_fills(bench: Bench) -> None:
    frame = MAC + OTHER + bytes([8, 0]) + bytes(1486)
    bench.deliver(*[frame] * 10)
    # 26 pages hold four frames of six pages, and one page must stay free.
    assert bench.current() == START + 24
    assert len(bench.wires.coming) == 6, "the rest waits on the host"
    bench.put(BNRY, START + 23)
    assert len(bench.wires.coming) == 2
    assert bench.current() == START + (24 + 24) % 26
    assert bench.fetch((START + 24) << 8, 2) == bytes([1, START + 4]), "the header wraps too"


def test_filters(bench: Bench) -> None:
    broadcast = b"\xff" * 6 + OTHER + bytes(50)
    multicast = bytes.fromhex("01005e000001") + OTHER + bytes(50)
    stranger = OTHER + OTHER + bytes(50)
    for rcr, wanted in [(0x00, 0), (0x04, 1), (0x08, 0), (0x14, 2), (0x20, 0)]:
        bench.start(rcr)
        bench.deliver(broadcast, multicast, stranger)
        assert bench.current() - START == wanted, hex(rcr)
    # 01:00:5e:00:00:01 hashes to bit 31 of the multicast table.
    bench.start(0x08)
    bench.put(CR, 0x62)
    bench.put(MAR0 + 3, 0x80)
    bench.put(CR, 0x22)
    bench.deliver(multicast)
    assert bench.current() == START + 1


def test_stopped_and_loopback_hear_nothing(bench: Bench) -> None:
    frame = MAC + OTHER + bytes(50)
    bench.put(TCR, 0x02)
    bench.deliver(frame)
    assert not bench.wires.coming
    bench.put(TCR, 0)
    bench.put(CR, 0x21)
    bench.deliver(frame)
    bench.put(CR, 0x22)
    assert bench.current() == START
