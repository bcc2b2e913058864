"""The 82540EM against its manual, as drivers use it."""

import struct
import zlib

import pytest

from ringfence.devices.net import e1000_registers as r
from ringfence.devices.net.e1000 import E1000Chip
from support.fake_devices import FlatMemory, HandClock, Wire, Wires
from support.peer import checksum

MAC = bytes.fromhex("525400123456")
OTHER = bytes.fromhex("525400abcdef")
TX, RX, BUFFERS = 0x1000, 0x2000, 0x10000
EOP, IFCS, IC, RS, DEXT, VLE, TSE = 1, 2, 4, 8, 0x20, 0x40, 4


class Bench:
    def __init__(self) -> None:
        self.wires, self.wire, self.memory, self.clock = Wires(), Wire(), FlatMemory(), HandClock()
        self.chip = E1000Chip(self.wires, MAC, self.memory, self.wire.set, self.clock)

    def start(self, rctl: int = r.RCTL_BAM | r.RCTL_SECRC, count: int = 8) -> None:
        chip = self.chip
        chip.write(r.CTRL, r.CTRL_SLU)
        chip.write(r.IMS, r.ICR_ALL)
        chip.read(r.ICR)
        chip.write(r.TDBAL, TX)
        chip.write(r.TDLEN, count * 16)
        chip.write(r.TCTL, r.TCTL_EN)
        chip.write(r.RDBAL, RX)
        chip.write(r.RDLEN, count * 16)
        for index in range(count):
            self.memory.write(RX + 16 * index, struct.pack("<QQ", BUFFERS + 0x1000 * index, 0))
        chip.write(r.RCTL, r.RCTL_EN | rctl)
        chip.write(r.RDT, count - 1)

    def descriptors(self, *raw: bytes) -> None:
        tail = self.chip.read(r.TDT)
        for entry in raw:
            self.memory.write(TX + 16 * tail, entry)
            tail = (tail + 1) % (self.chip.read(r.TDLEN) // 16)
        self.chip.write(r.TDT, tail)

    def transmit(self, frame: bytes, command: int = EOP | IFCS | RS, at: int = 0x8000) -> bytes:
        self.memory.write(at, frame)
        return struct.pack("<QHBBBBH", at, len(frame), 0, command, 0, 0, 0)

    def received(self, index: int = 0) -> tuple[bytes, int, int, int]:
        fields = struct.unpack("<QHHBBH", self.memory.read(RX + 16 * index, 16))
        address, length, _, status, errors, special = fields
        return self.memory.read(address, length), status, errors, special

    def deliver(self, *frames: bytes) -> None:
        self.wires.coming += frames
        self.chip.frames_waiting()


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.start()
    return bench


def tcp(payload: bytes, flags: int = 0x18) -> bytes:
    """A TCP packet with empty checksums, but for the pseudo header's sum without the length."""
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 0, 7, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    pseudo = ~checksum(ip[12:20] + b"\0\x06") & 0xFFFF
    head = struct.pack(">HHIIBBHHH", 80, 81, 1000, 0, 0x50, flags, 100, pseudo, 0)
    return OTHER + MAC + b"\x08\x00" + ip + head + payload


def check_tcp(frame: bytes) -> None:
    assert checksum(frame[14:34]) == 0
    segment = frame[34 : 14 + int.from_bytes(frame[16:18], "big")]
    assert checksum(frame[26:34] + struct.pack(">HH", 6, len(segment)) + segment) == 0


def test_reset_values() -> None:
    bench = Bench()
    assert bench.chip.read(r.STATUS) & 2, "the link is up"
    assert bench.chip.read(r.RA) == int.from_bytes(MAC[:4], "little")
    assert bench.chip.read(r.RA + 4) == r.RAH_AV | int.from_bytes(MAC[4:], "little")
    assert not bench.wire.level


def read_word(bench: Bench, address: int) -> int:
    """By the pins of the Microwire EEPROM, as older drivers do."""

    def clock(data: int) -> int:
        base = r.EECD_REQ | r.EECD_CS | (r.EECD_DI if data else 0)
        bench.chip.write(r.EECD, base)
        bench.chip.write(r.EECD, base | r.EECD_SK)
        value = bench.chip.read(r.EECD)
        bench.chip.write(r.EECD, base)
        return int(bool(value & r.EECD_DO))

    for bit in f"110{address:06b}":
        clock(int(bit))
    value = 0
    for _ in range(16):
        value = value << 1 | clock(0)
    bench.chip.write(r.EECD, 0)
    return value


def test_eeprom(bench: Bench) -> None:
    words = [read_word(bench, index) for index in range(64)]
    assert struct.pack("<3H", *words[:3]) == MAC
    assert sum(words) & 0xFFFF == 0xBABA
    for index in (0, 5, 63):
        bench.chip.write(r.EERD, index << 8 | r.EERD_START)
        value = bench.chip.read(r.EERD)
        assert value & r.EERD_DONE
        assert value >> 16 == words[index]


def test_phy(bench: Bench) -> None:
    def mdic(register: int, phy: int = 1) -> int:
        bench.chip.write(r.MDIC, register << 16 | phy << 21 | r.MDIC_READ)
        return bench.chip.read(r.MDIC)

    assert mdic(2) & 0xFFFF == 0x0141
    assert mdic(1) & 0x24 == 0x24, "link and end of negotiation"
    assert mdic(1, phy=2) & r.MDIC_ERROR


def test_transmit(bench: Bench) -> None:
    frame = OTHER + MAC + b"\x08\x00" + bytes(range(100))
    half = bench.transmit(frame[:50], 0)
    rest = bench.transmit(frame[50:], at=0x9000)
    bench.descriptors(half, rest)
    assert bench.wires.sent == [frame]
    assert bench.memory.read(TX + 28, 1) == b"\1", "done"
    assert bench.memory.read(TX + 12, 1) == b"\0", "no report was asked for"
    assert bench.wire.level
    assert bench.chip.read(r.ICR) == r.ICR_TXDW | r.ICR_TXQE
    assert not bench.wire.level
    assert bench.chip.read(r.GPTC) == 1
    assert bench.chip.read(r.GPTC) == 0, "statistics clear when read"


def test_legacy_checksum(bench: Bench) -> None:
    frame = bytearray(tcp(b"payload"))
    raw = bytearray(bench.transmit(bytes(frame), EOP | IC | RS))
    raw[10], raw[13] = 24, 14
    bench.descriptors(bytes(raw))
    (sent,) = bench.wires.sent
    assert checksum(sent[14:]) != checksum(bytes(frame[14:]))


def context(mss: int = 0, *, tse: bool = False, total: int = 0) -> bytes:
    command = DEXT | 1 | 2 | (TSE if tse else 0)
    lower = struct.pack("<BBHBBH", 14, 24, 33, 34, 50, 0)
    return lower + struct.pack("<IBBH", total | command << 24, 0, 54, mss)


def data(at: int, length: int, command: int, options: int = 3, tag: int = 0) -> bytes:
    return struct.pack("<QIBBH", at, length | 1 << 20 | command << 24, 0, options, tag)


def test_segmentation(bench: Bench) -> None:
    packet = tcp(bytes(range(250)) * 10, flags=0x19)
    bench.memory.write(0x8000, packet)
    bench.descriptors(
        context(1000, tse=True, total=2500),
        data(0x8000, 54, DEXT | TSE),
        data(0x8036, 2500, DEXT | TSE | EOP | RS),
    )
    frames = bench.wires.sent
    assert [len(frame) for frame in frames] == [1054, 1054, 554]
    assert b"".join(frame[54:] for frame in frames) == packet[54:]
    for number, frame in enumerate(frames):
        check_tcp(frame)
        assert int.from_bytes(frame[38:42], "big") == 1000 + 1000 * number
        assert int.from_bytes(frame[18:20], "big") == 7 + number
    assert [frame[47] for frame in frames] == [0x10, 0x10, 0x19]


def test_tags(bench: Bench) -> None:
    bench.chip.write(r.CTRL, r.CTRL_SLU | r.CTRL_VME)
    frame = OTHER + MAC + b"\x08\x00" + bytes(60)
    bench.memory.write(0x8000, frame)
    bench.descriptors(data(0x8000, len(frame), DEXT | EOP | VLE, 0, 0x123))
    tagged = frame[:12] + b"\x81\x00\x01\x23" + frame[12:]
    assert bench.wires.sent == [tagged]
    bench.deliver(MAC + OTHER + tagged[12:])
    got, status, _, special = bench.received()
    assert got == MAC + OTHER + frame[12:]
    assert status & 0x08
    assert special == 0x123


def test_receive(bench: Bench) -> None:
    frame = MAC + OTHER + b"\x08\x06" + bytes(range(80))
    bench.deliver(frame)
    got, status, errors, _ = bench.received()
    assert (got, status & 3, errors) == (frame, 3, 0)
    assert bench.chip.read(r.RDH) == 1
    assert bench.wire.level
    assert bench.chip.read(r.ICR) & r.ICR_RXT0


def test_large_frames_take_several_descriptors() -> None:
    bench = Bench()
    bench.start(rctl=r.RCTL_BAM | r.RCTL_LPE | 3 << 16)
    frame = MAC + OTHER + b"\x08\x06" + bytes(600)
    bench.deliver(frame)
    parts = [bench.received(index) for index in range(3)]
    whole = frame + zlib.crc32(frame).to_bytes(4, "little")
    assert b"".join(part[0] for part in parts) == whole
    assert [part[1] & 3 for part in parts] == [1, 1, 3]


def test_frames_wait_for_descriptors(bench: Bench) -> None:
    frames = [MAC + OTHER + b"\x08\x06" + bytes([number] * 50) for number in range(10)]
    bench.deliver(*frames)
    assert len(bench.wires.coming) == 3
    bench.chip.write(r.RDT, 2)
    assert not bench.wires.coming


def test_filters() -> None:
    broadcast, stranger = b"\xff" * 6, bytes.fromhex("020000000009")
    group = bytes.fromhex("01005e000001")
    cases = [
        (0, [False, False, False, True]),
        (r.RCTL_BAM, [True, False, False, True]),
        (r.RCTL_UPE, [False, True, False, True]),
        (r.RCTL_MPE, [True, False, True, True]),
    ]
    for rctl, wanted in cases:
        for address, passes in zip((broadcast, stranger, group, MAC), wanted, strict=True):
            bench = Bench()
            bench.start(rctl=rctl)
            bench.deliver(address + OTHER + b"\x08\x06" + bytes(50))
            assert bool(bench.chip.read(r.RDH)) is passes, (hex(rctl), address.hex())
    bench = Bench()
    bench.start(rctl=0)
    # Bits 47:36 of the address select the bit (MO = 0).
    index = int.from_bytes(group[4:], "little") >> 4
    bench.chip.write(r.MTA + 4 * (index >> 5), 1 << (index & 31))
    bench.deliver(group + OTHER + b"\x08\x06" + bytes(50))
    assert bench.chip.read(r.RDH) == 1


def test_checksums_are_reported(bench: Bench) -> None:
    bench.chip.write(r.RXCSUM, r.RXCSUM_IPOFL | r.RXCSUM_TUOFL)
    bench.memory.write(0x8000, tcp(b"x" * 100))
    bench.descriptors(context(200, tse=True, total=100), data(0x8000, 154, DEXT | TSE | EOP))
    good = bytearray(MAC + OTHER + bench.wires.sent[0][12:])
    bench.deliver(bytes(good))
    assert bench.received(0)[1:3] == (0x63, 0)
    good[-1] ^= 1
    bench.deliver(bytes(good))
    assert bench.received(1)[1:3] == (0x63, 0x20)
    good[-1] ^= 1
    good[22] ^= 1
    bench.deliver(bytes(good))
    assert bench.received(2)[2] == 0x40


def test_hostile_rings_end(bench: Bench) -> None:
    """The longest ring with the longest descriptors takes bounded work at a time."""
    bench.chip.write(r.TDBAL, 0)
    bench.chip.write(r.TDLEN, 0xFFF80)
    bench.chip.write(r.TDH, 0)
    for index in range(0, 1 << 20, 16):
        bench.memory.bytes[index + 8 : index + 12] = b"\xff\xff\x1f\x20"
    bench.chip.write(r.TDT, 0xFFFE)
    bench.chip.write(r.TDT, 60000)
    assert bench.chip.read(r.TDH) in (4096, 0)
    for _ in range(20):
        bench.clock.advance(1)
    assert not bench.memory.stray


def test_state(bench: Bench) -> None:
    bench.descriptors(bench.transmit(OTHER + MAC + bytes(30), 0))
    bench.deliver(MAC + OTHER + bytes(60))
    state = bench.chip.state()
    other = Bench()
    other.memory.bytes[:] = bench.memory.bytes
    other.chip.restore(state)
    assert other.chip.state() == state
    other.descriptors(other.transmit(bytes(30)))
    assert other.wires.sent == [OTHER + MAC + bytes(60)]
