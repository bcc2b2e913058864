"""The base of PCI functions: base registers, interrupts, messages, DMA, saved state."""

from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.bus import AddressMap, MmioBus, PortBus
from ringfence.devices.pci.function import PciDevice, PciIdentity
from ringfence.devices.pci.pci_bus import PciBus
from ringfence.errors import StateError


class Cells:
    """A region whose reads tell the offset."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})

    def __init__(self) -> None:
        self.written: list[tuple[int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return offset

    def write(self, offset: int, size: int, value: int) -> None:
        self.written.append((offset, value))


class Card(PciDevice):
    FIELDS: ClassVar[dict[str, int]] = {"counter": 0xFF}

    def __init__(self, *, msi: int = 0, msix: int = 0) -> None:
        super().__init__(PciIdentity(0x1234, 0x5678, 0x020000, 7, 0x1AF4, 9), pin=1)
        self.cells = Cells()
        self.counter = 0
        self.add_bar(0, self.cells, size=0x1000)
        self.add_bar(1, self.cells, size=0x40, kind="io")
        self.add_bar(2, self.cells, size=0x10000, kind="memory64", prefetchable=True)
        self.add_rom(b"\x55\xaa" + bytes(3000))
        if msi:
            self.add_msi(msi)
        if msix:
            self.add_msix(msix, bar=4)


class Memory:
    def __init__(self) -> None:
        self.data = bytearray(range(256))

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.data[address : address + size])

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        self.data[address : address + len(data)] = data

    def view(self, address: int, size: int) -> memoryview | None:
        return memoryview(self.data)[address : address + size]

    def written(self, address: int, size: int) -> None:
        pass


class Bench:
    def __init__(self, *cards: Card) -> None:
        self.ports, self.mmio, self.memory = PortBus(), MmioBus(), Memory()
        self.messages: list[tuple[int, int]] = []
        self.pins: list[tuple[int, int, bool]] = []
        self.bus = PciBus(
            AddressMap(self.ports, self.mmio),
            self.memory,
            lambda address, data: self.messages.append((address, data)),
        )
        self.bus.intx = lambda device, pin, level: self.pins.append((device, pin, level))
        for card in cards:
            self.bus.add(card)


def capability(card: PciDevice, identifier: int) -> int:
    at = card.register(0x34, 1)
    while at and card.register(at, 1) != identifier:
        at = card.register(at + 1, 1)
    return at


def test_identity() -> None:
    card = Card()
    assert card.config_read(0, 4) == 0x56781234
    assert card.config_read(8, 4) == 0x02000007
    assert card.config_read(0x2C, 4) == 0x00091AF4
    assert card.config_read(0x3D, 1) == 1
    assert card.config_read(6, 2) & 0x10 == 0, "no capabilities"
    assert card.config_read(0x200, 4) == 0xFFFFFFFF


def test_sizing() -> None:
    card = Card()
    sizes = []
    for register in (0x10, 0x14, 0x18, 0x1C, 0x20, 0x24, 0x30):
        card.config_write(register, 4, 0xFFFFFFFF)
        sizes.append(card.config_read(register, 4))
    assert sizes == [0xFFFFF000, 0xFFFFFFC1, 0xFFFF000C, 0xFFFFFFFF, 0, 0, 0xFFFFF001]


def test_windows_follow_registers() -> None:
    card = Card()
    bench = Bench(card)
    card.config_write(0x10, 4, 0xE0000000)
    card.config_write(0x14, 4, 0xC000)
    assert bench.mmio.ranges() == [], "decoding is off"
    card.config_write(4, 2, 3)
    assert bench.mmio.read(0xE0000010, 4) == 0x10
    assert bench.ports.read(0xC004, 1) == 4
    card.config_write(0x10, 4, 0xE1000000)
    assert bench.mmio.read(0xE0000010, 4) == 0xFFFFFFFF
    assert bench.mmio.read(0xE1000020, 4) == 0x20
    card.config_write(0x1C, 4, 0x12)
    assert bench.mmio.read(0x1200000044, 4) == 0x44
    card.config_write(0x30, 4, 0xE2000001)
    assert bench.mmio.read(0xE2000000, 2) == 0xAA55
    card.config_write(4, 2, 0)
    assert bench.mmio.ranges() == []
    assert bench.ports.ranges() == []


def test_windows_over_each_other_take_turns() -> None:
    first, second = Card(), Card()
    bench = Bench(first, second)
    for card in (first, second):
        card.config_write(0x10, 4, 0xE0000000)
        card.config_write(4, 2, 2)
    bench.mmio.write(0xE0000000, 4, 1)
    assert (first.cells.written, second.cells.written) == ([(0, 1)], [])
    first.config_write(4, 2, 0)
    bench.mmio.write(0xE0000000, 4, 2)
    assert second.cells.written == [(0, 2)]


def test_interrupt_pin() -> None:
    card = Card()
    bench = Bench(card)
    card.set_irq(True)
    card.set_irq(True)
    assert bench.pins == [(0, 1, True)]
    assert card.config_read(6, 2) & 8
    card.config_write(4, 2, 0x400)
    assert bench.pins[-1] == (0, 1, False)
    assert card.config_read(6, 2) & 8, "pending though disabled"
    card.config_write(4, 2, 0)
    assert bench.pins[-1] == (0, 1, True)
    bench.bus.reset()
    assert bench.pins[-1] == (0, 1, False)


def test_dma_needs_mastering() -> None:
    card = Card()
    bench = Bench(card)
    dma = card.dma
    dma.write(0, b"x")
    assert dma.read(1, 3) == b"\xff\xff\xff"
    assert dma.view(0, 4) is None
    card.config_write(4, 2, 4)
    dma.write(0, b"x")
    assert bench.memory.data[:2] == b"x\x01"
    assert dma.read(1, 3) == b"\x01\x02\x03"
    view = dma.view(8, 2)
    assert view is not None
    view[:] = b"ab"
    assert bench.memory.data[8:10] == b"ab"


def test_msi() -> None:
    card = Card(msi=4)
    bench = Bench(card)
    at = capability(card, 5)
    assert at
    assert not card.notify(1)
    card.config_write(at + 4, 4, 0xFEE00000)
    card.config_write(at + 12, 2, 0x4040)
    card.config_write(4, 2, 4)
    card.config_write(at + 2, 2, 2 << 4 | 1)
    card.set_irq(True)
    assert bench.pins == [], "the pin is silent"
    assert card.notify(3)
    assert bench.messages == [(0xFEE00000, 0x4043)]
    card.config_write(at + 16, 4, 0b10)
    card.notify(1)
    assert len(bench.messages) == 1, "masked"
    assert card.config_read(at + 20, 4) == 2
    card.config_write(at + 16, 4, 0)
    assert bench.messages[-1] == (0xFEE00000, 0x4041)
    assert card.config_read(at + 20, 4) == 0
    card.config_write(at + 2, 2, 1)
    card.notify(3)
    assert bench.messages[-1] == (0xFEE00000, 0x4040), "one vector granted"
    card.config_write(4, 2, 0)
    card.notify(0)
    assert len(bench.messages) == 3, "messages are writes, which need mastering"


def test_msix() -> None:
    card = Card(msix=3)
    bench = Bench(card)
    at = capability(card, 0x11)
    assert card.config_read(at + 2, 2) == 2
    assert card.config_read(at + 4, 4) == 4
    pba = card.config_read(at + 8, 4) & ~7
    card.config_write(0x20, 4, 0xE0000000)
    card.config_write(4, 2, 6)
    base = 0xE0000000 + 16
    bench.mmio.write(base, 4, 0xFEE01000)
    bench.mmio.write(base + 8, 4, 0x55)
    card.config_write(at + 2, 2, 0x8000)
    card.notify(1)
    assert bench.messages == [], "masked after reset"
    assert bench.mmio.read(0xE0000000 + pba, 8) == 2
    bench.mmio.write(base + 12, 4, 0)
    assert bench.messages == [(0xFEE01000, 0x55)]
    assert bench.mmio.read(0xE0000000 + pba, 8) == 0
    card.config_write(at + 2, 2, 0xC000)
    card.notify(1)
    assert len(bench.messages) == 1, "all masked"
    card.config_write(at + 2, 2, 0x8000)
    assert len(bench.messages) == 2
    card.notify(3)
    card.notify(-1)
    assert len(bench.messages) == 2, "no such vectors"


def test_state() -> None:
    card, other = Card(msix=2), Card(msix=2)
    bench, second = Bench(card), Bench(other)
    card.config_write(0x10, 4, 0xE0000000)
    card.config_write(4, 2, 2)
    card.counter = 42
    card.set_irq(True)
    other.restore(card.state())
    assert other.counter == 42
    assert second.mmio.read(0xE0000004, 4) == 4
    assert second.pins == bench.pins
    for wrong in (
        {**card.state(), "counter": 256},
        {**card.state(), "msix": b""},
        {**card.state(), "space": b"short"},
        {key: value for key, value in card.state().items() if key != "msix"},
    ):
        with pytest.raises(StateError):
            other.restore(wrong)
    assert other.state() == card.state()


@given(
    st.lists(
        st.tuples(st.integers(0, 63), st.sampled_from([1, 2, 4]), st.integers(0, 2**32 - 1)),
        max_size=60,
    )
)
def test_no_writes_confuse_the_buses(writes: list[tuple[int, int, int]]) -> None:
    cards = [Card(msi=2, msix=2), Card()]
    bench = Bench(*cards)
    for index, (register, size, value) in enumerate(writes):
        card = cards[index % 2]
        card.config_write(register * 4, size, value & (1 << 8 * size) - 1)
    for card in cards:
        assert card.config_read(0, 4) == 0x56781234
        for bar in card.bars:
            assert bar.window.placed in (None, bar.window.address)
    placed = sorted(
        (bar.window.placed, bar.window.length)
        for card in cards
        for bar in card.bars
        if bar.window.placed is not None and bar.window.space == "memory"
    )
    assert [entry[0] for entry in bench.mmio.ranges()] == [start for start, _ in placed]
