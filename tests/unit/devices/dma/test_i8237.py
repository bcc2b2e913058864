"""The ISA DMA controllers: registers, pages, counts and the wraps between."""

import pytest

from ringfence.devices.dma.i8237 import IsaDma
from support.disks import Memory


class Bench:
    def __init__(self) -> None:
        self.memory = Memory(0x100000)
        self.dma = IsaDma(self.memory)
        self.dma.write(0x10 + 2 * 0x0A, 1, 0)  # the cascade

    def program(self, channel: int, address: int, count: int, mode: int) -> None:
        """``count`` in units of the channel, less one."""
        wide = channel >= 4
        base, step = (0x10, 2) if wide else (0, 1)
        low = channel & 3
        shown = address >> 1 if wide else address
        self.dma.write(base + step * 0x0A, 1, 4 | low)
        self.dma.write(base + step * 0x0C, 1, 0)
        self.dma.write(base + step * 0x0B, 1, mode | low)
        for register, value in ((2 * low, shown & 0xFFFF), (2 * low + 1, count)):
            self.dma.write(base + step * register, 1, value & 0xFF)
            self.dma.write(base + step * register, 1, value >> 8)
        page = {0: 7, 1: 3, 2: 1, 3: 2, 5: 0xB, 6: 9, 7: 0xA}[channel]
        self.dma.write(0x30 + page, 1, address >> 16)
        self.dma.write(base + step * 0x0A, 1, low)


@pytest.mark.parametrize("channel", [0, 1, 2, 3, 5, 6, 7])
def test_both_ways(channel: int) -> None:
    bench = Bench()
    end = bench.dma.channel(channel)
    unit = 2 if channel > 4 else 1
    assert not end.ready
    bench.program(channel, 0x23450, 8 // unit - 1, 0x44)
    assert end.ready
    assert end.left == 8
    assert not end.put(b"abcd")
    assert end.put(b"efgh")
    assert bench.memory.data[0x23450:0x23458] == b"abcdefgh"
    assert not end.ready, "the terminal count masks the channel"
    assert bench.dma.read(0x08 if unit == 1 else 0x20, 1) & 15 == 1 << (channel & 3)
    bench.program(channel, 0x23452, 4 // unit - 1, 0x48)
    assert end.get(100) == (b"cdef", True)


def test_the_page_does_not_change() -> None:
    bench = Bench()
    bench.program(2, 0x1FFFE, 3, 0x44)
    assert bench.dma.channel(2).put(b"wxyz")
    assert bench.memory.data[0x1FFFE:0x20000] == b"wx"
    assert bench.memory.data[0x10000:0x10002] == b"yz"


def test_downwards_and_again() -> None:
    bench = Bench()
    bench.program(1, 0x5003, 3, 0x74)
    end = bench.dma.channel(1)
    assert end.put(b"abcd")
    assert bench.memory.data[0x5000:0x5004] == b"dcba"
    assert end.ready, "it has initialized itself"
    assert end.left == 4


def test_cascade_and_disabled_controllers() -> None:
    bench = Bench()
    bench.program(2, 0x1000, 3, 0x44)
    bench.dma.write(0x10 + 2 * 0x0A, 1, 4)
    assert not bench.dma.channel(2).ready
    bench.dma.write(0x10 + 2 * 0x0A, 1, 0)
    bench.dma.write(0x08, 1, 4)
    assert not bench.dma.channel(2).ready


def test_verify_moves_nothing() -> None:
    bench = Bench()
    bench.program(2, 0x1000, 3, 0x40)
    assert bench.dma.channel(2).put(b"abcd")
    assert bench.memory.data[0x1000:0x1004] == bytes(4)
