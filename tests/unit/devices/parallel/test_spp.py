"""The parallel port, driven as a BIOS and a kernel drive it."""

import pytest

from ringfence.devices.parallel.spp import ParallelPort
from support.fake_devices import HandClock, Port, Wire


class Bench:
    def __init__(self) -> None:
        self.printer, self.wire, self.clock = Port(), Wire(), HandClock()
        self.device = ParallelPort(self.printer, self.wire, self.clock)

    def send(self, data: bytes, control: int = 0x0C) -> None:
        """INT 17h: data, then a pulse of the strobe."""
        for byte in data:
            assert self.device.read(1, 1) & 0x80, "not busy"
            self.device.write(0, 1, byte)
            self.device.write(2, 1, control | 1)
            self.device.write(2, 1, control)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_is_found(bench: Bench) -> None:
    """SeaBIOS and parport_pc write patterns and read them back."""
    for value in (0xAA, 0x55):
        bench.device.write(0, 1, value)
        assert bench.device.read(0, 1) == value
    bench.device.write(2, 1, 0x0C)
    assert bench.device.read(2, 1) & 0x3F == 0x0C
    assert bench.device.read(1, 1) & 0xB8 == 0x98, "ready, selected, paper, no error"


def test_printing(bench: Bench) -> None:
    bench.send(b"hello\f")
    assert bench.printer.written == b"", "gathered"
    bench.clock.advance(2_000_000)
    assert bench.printer.written == b"hello\f"
    assert bench.wire.edges == 0
    bench.send(b"abc", control=0x1C)
    assert bench.wire.edges == 3
    assert not bench.wire.level
    bench.device.flush()
    assert bench.printer.written == b"hello\fabc"


def test_an_input_prints_nothing(bench: Bench) -> None:
    bench.device.write(0, 1, 0x12)
    bench.device.write(2, 1, 0x2D)
    assert bench.device.read(0, 1) == 0xFF
    bench.device.flush()
    assert bench.printer.written == b""
