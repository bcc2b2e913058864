"""Flash memory with the Intel command set."""

import pytest

from ringfence.devices.flash.cfi import SECTOR, CfiFlash
from ringfence.errors import StateError
from support.fake_engine import FakeMemory

SIZE = 4 * SECTOR


class Store:
    def __init__(self) -> None:
        self.contents = bytearray(b"\xff" * SIZE)

    def load(self) -> bytes:
        return bytes(self.contents)

    def store(self, offset: int, data: bytes) -> None:
        self.contents[offset : offset + len(data)] = data


class Bench:
    def __init__(self) -> None:
        self.memory = FakeMemory(SIZE)
        self.memory.view()[:] = b"\xff" * SIZE
        self.store = Store()
        self.shown: list[bool] = []
        self.chip = CfiFlash(self.memory, SIZE, self.store, self.shown.append)

    def command(self, offset: int, *values: int) -> None:
        for value in values:
            self.chip.write(offset, 1, value)


def test_programming_clears_bits() -> None:
    bench = Bench()
    bench.command(5, 0x10, 0xF0)
    assert bench.shown == [False], "reads come to the chip"
    assert bench.chip.read(5, 1) == 0x80, "the status: ready"
    bench.command(5, 0x40, 0x3C)
    bench.command(5, 0xFF)
    assert bench.shown == [False, True]
    assert bench.chip.read(5, 1) == 0x30
    assert bench.store.contents[5] == 0x30


def test_erasing_a_sector() -> None:
    bench = Bench()
    for at in (SECTOR - 1, SECTOR, 2 * SECTOR - 1, 2 * SECTOR):
        bench.command(at, 0x10, 0)
    bench.command(SECTOR + 7, 0x20, 0xD0, 0xFF)
    found = [bench.chip.read(at, 1) for at in (SECTOR - 1, SECTOR, 2 * SECTOR - 1, 2 * SECTOR)]
    assert found == [0, 0xFF, 0xFF, 0]
    assert bench.store.load() == bytes(bench.memory.view())
    bench.command(0, 0x20, 0x55)
    assert bench.chip.read(0, 1) == 0xB0, "not confirmed: an error in the sequence"
    bench.command(0, 0x50)
    assert bench.chip.read(0, 1) == 0xFF, "the array"
    bench.command(0, 0x70)
    assert bench.chip.read(0, 1) == 0, "cleared, as firmware probes for it"


def test_buffered_writes() -> None:
    bench = Bench()
    bench.command(0x100, 0xE8)
    assert bench.chip.read(0x100, 1) & 0x80
    bench.command(0x100, 3)
    for index, byte in enumerate(b"abcd"):
        bench.command(0x100 + index, byte)
    bench.command(0x100, 0xD0, 0xFF)
    assert bytes(bench.memory.view()[0x100:0x105]) == b"abcd\xff"


def test_identity_and_query() -> None:
    bench = Bench()
    bench.command(0, 0x90)
    assert (bench.chip.read(0, 1), bench.chip.read(1, 1)) == (0x89, 0x18)
    bench.command(0x55, 0x98)
    assert bytes(bench.chip.read(at, 1) for at in (0x10, 0x11, 0x12)) == b"QRY"
    assert 1 << bench.chip.read(0x27, 1) == SIZE
    blocks = bench.chip.read(0x2D, 1) + 1
    assert blocks * (bench.chip.read(0x2F, 1) << 8) == SIZE


def test_state() -> None:
    first, second = Bench(), Bench()
    first.command(9, 0x10, 0x42)
    second.chip.restore(first.chip.state())
    assert second.shown == [False]
    assert second.store.contents[9] == 0x42
    second.command(9, 0xFF)
    assert second.chip.read(9, 1) == 0x42
    with pytest.raises(StateError):
        second.chip.restore({**first.chip.state(), "contents": b""})


def test_the_end_of_the_chip() -> None:
    bench = Bench()
    bench.chip.write(SIZE - 1, 1, 0x10)
    bench.chip.write(SIZE - 1, 4, 0)
    bench.chip.write(SIZE - 2, 1, 0xE8)
    bench.chip.write(SIZE - 2, 1, 0xFF)
    for _ in range(256):
        bench.chip.write(SIZE - 2, 1, 0)
    bench.chip.write(SIZE - 2, 1, 0xD0)
    assert len(bench.memory.view()) == SIZE
    assert len(bench.store.contents) == SIZE
