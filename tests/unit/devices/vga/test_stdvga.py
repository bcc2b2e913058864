"""The VGA as a PCI function: what is mapped when, what is saved, and what hostile guests get."""

import random
from typing import Any

import pytest

from ringfence.accel.video import Picture
from ringfence.bus import AddressMap, MmioBus, PortBus
from ringfence.devices.pci.pci_bus import PciBus
from ringfence.devices.vga.edid import edid
from ringfence.devices.vga.stdvga import StdVga
from ringfence.errors import StateError
from support import vga_modes
from support.fake_devices import HandClock

A000, B800, BAR0, BAR2 = 0xA0000, 0xB8000, 0xE0000000, 0xE1000000


class Map:
    """Remembers what is mapped."""

    def __init__(self) -> None:
        self.mapped: dict[int, tuple[Any, int, int]] = {}

    def create(self, size: int) -> Any:
        raise NotImplementedError

    def map(
        self,
        address: int,
        memory: Any,
        *,
        offset: int = 0,
        size: int | None = None,
        readonly: bool = False,
        log_dirty: bool = False,
        replace: bool = False,
    ) -> None:
        assert address not in self.mapped
        assert log_dirty
        self.mapped[address] = (memory, offset, size or memory.size)

    def unmap(self, address: int, size: int) -> None:
        assert self.mapped.pop(address)[2] == size

    def poke(self, address: int, data: bytes) -> None:
        """A store of the guest that leaves to nobody."""
        for start, (memory, offset, size) in self.mapped.items():
            if start <= address < start + size:
                at = address - start + offset
                memory.view()[at : at + len(data)] = data
                memory.written(at, len(data))
                return
        raise AssertionError("not mapped")


class Bench:
    def __init__(self, memory: int = 1 << 20) -> None:
        self.map = Map()
        self.ports, self.mmio = PortBus(), MmioBus()
        self.bus = PciBus(AddressMap(self.ports, self.mmio, self.map))
        self.card = StdVga(HandClock(), memory, rom=b"\x55\xaa" + bytes(510), memory_map=self.map)
        self.place = self.bus.add(self.card, 2)
        self.bus.write(self.place, 0x10, 4, BAR0)
        self.bus.write(self.place, 0x18, 4, BAR2)
        self.decode(3)

    def decode(self, command: int) -> None:
        self.bus.write(self.place, 4, 2, command)

    def mode(self, mode: vga_modes.Mode) -> None:
        vga_modes.program(
            mode,
            lambda port, value: self.ports.write(port, 1, value),
            lambda port: self.ports.read(port, 1),
        )

    def dispi(self, *values: tuple[int, int]) -> None:
        for index, value in values:
            self.ports.write(0x1CE, 2, index)
            self.ports.write(0x1CF, 2, value)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_identity(bench: Bench) -> None:
    assert bench.bus.read(bench.place, 0, 4) == 0x11111234
    assert bench.bus.read(bench.place, 8, 4) >> 8 == 0x030000
    bench.bus.write(bench.place, 0x30, 4, 0xFFFFFFFF)
    assert bench.bus.read(bench.place, 0x30, 4) & 0xFFFFF800 == 0xFFFFF800


def test_text_is_plain_memory(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    assert set(bench.map.mapped) == {BAR0, B800}
    before = bench.card.stamp()
    bench.map.poke(B800, b"H\x07i\x07")
    assert bench.card.stamp() != before
    page = bench.card.text()
    assert page
    assert page.codes[:2] == b"Hi"
    # A font is loaded: the window is planes then, and what was written is in them.
    for port, value in ((0x3C4, 0x0402), (0x3C4, 0x0604), (0x3CE, 0x0005), (0x3CE, 0x0006)):
        bench.ports.write(port, 2, value)
    assert set(bench.map.mapped) == {BAR0}
    bench.mmio.write(A000 + 32 * 0x41, 1, 0xFF)
    for port, value in ((0x3C4, 0x0302), (0x3C4, 0x0204), (0x3CE, 0x1005), (0x3CE, 0x0E06)):
        bench.ports.write(port, 2, value)
    assert set(bench.map.mapped) == {BAR0, B800}
    memory = bench.map.mapped[B800][0]
    assert bytes(memory.view()[:4]) == b"H\x07i\x07"


def test_windows_of_pixels(bench: Bench) -> None:
    bench.mode(vga_modes.BYTES_320X200)
    assert bench.map.mapped[A000][1:] == (0, 0x10000)
    bench.mode(vga_modes.PLANAR_640X480)
    assert A000 not in bench.map.mapped
    bench.dispi((1, 640), (2, 480), (3, 8), (4, 1), (5, 3))
    assert bench.map.mapped[A000][1:] == (0x30000, 0x10000)
    bench.map.poke(A000 + 5, b"x")
    assert bytes(bench.map.mapped[BAR0][0].view()[0x30005:0x30006]) == b"x"


def test_what_is_not_decoded_is_not_there(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    bench.decode(0)
    assert not bench.map.mapped
    assert bench.ports.read(0x3CC, 1) == 0xFF
    assert bench.ports.ranges() == []
    bench.decode(3)
    assert bench.ports.read(0x3CC, 1) == 0x67
    assert set(bench.map.mapped) == {BAR0, B800}


def test_registers_in_memory(bench: Bench) -> None:
    block = bytes(bench.mmio.read(BAR2 + at, 1) for at in range(128))
    assert block == edid()
    assert block[:8] == b"\x00\xff\xff\xff\xff\xff\xff\x00"
    assert sum(block) % 256 == 0
    for index, value in ((1, 800), (2, 600), (3, 16), (4, 0x41)):
        bench.mmio.write(BAR2 + 0x500 + 2 * index, 2, value)
    bench.mmio.write(BAR2 + 0x400, 1, 0x20)
    picture = Picture()
    picture.draw(*bench.card.plan())
    assert picture.size == (800, 600)
    assert bench.mmio.read(BAR2 + 0x502, 2) == 800
    assert bench.mmio.read(BAR2 + 0x604, 4) == 0x1E1E1E1E


def test_state_comes_back(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    bench.map.poke(B800, b"saved".ljust(10))
    state = bench.card.state()
    bench.map.poke(B800, b"later")
    bench.card.restore(state)
    page = bench.card.text()
    assert page
    assert page.codes[:1] == b"s"
    assert bytes(bench.map.mapped[B800][0].view()[:5]) == b"saved"
    other = Bench()
    other.card.restore(state)
    assert other.card.text() == page
    with pytest.raises(StateError):
        other.card.restore({**state, "vga": {**state["vga"], "dispi": [0]}})
    assert other.card.text() == page


@pytest.mark.parametrize("seed", range(8))
def test_whatever_a_guest_does_there_is_a_picture(seed: int) -> None:
    """Random registers and memory, from real modes on: always a picture of bounded size."""
    rng = random.Random(seed)
    bench = Bench(1 << 18)
    picture = Picture()
    modes = [value for value in vars(vga_modes).values() if isinstance(value, vga_modes.Mode)]
    for _ in range(25):
        bench.mode(rng.choice(modes))
        for _ in range(rng.randrange(30)):
            port = rng.choice(
                [0x3C0, 0x3C2, 0x3C4, 0x3C5, 0x3C8, 0x3C9, 0x3CE, 0x3CF, 0x3D4, 0x3D5]
            )
            bench.ports.write(port, rng.choice([1, 2]), rng.getrandbits(16))
        if rng.random() < 0.3:
            bench.dispi(*((rng.randrange(12), rng.getrandbits(16)) for _ in range(12)))
        for _ in range(20):
            address, size = A000 + rng.randrange(0x20000), rng.choice([1, 2, 4, 8])
            bench.mmio.write(address, size, rng.getrandbits(64))
            assert bench.mmio.read(address, size) >> 8 * size == 0
        picture.draw_scrolled(*bench.card.plan())
        assert all(0 < edge <= 4096 for edge in picture.size)
        page = bench.card.text()
        assert page is None or len(page.codes) == len(page.attributes)
        bench.card.stamp()
