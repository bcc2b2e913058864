"""What every network card on the PCI bus keeps to: state, hostile registers and rings."""

import random
from collections.abc import Callable

import pytest

from ringfence.bus import AddressMap, MmioBus, PortBus
from ringfence.devices.net.e1000_pci import E1000
from ringfence.devices.net.rtl8029 import Rtl8029
from ringfence.devices.pci.function import PciDevice
from ringfence.devices.pci.pci_bus import PciBus
from ringfence.errors import StateError
from support.fake_devices import FlatMemory, HandClock, Wires

MAC = bytes.fromhex("525400123456")
FRAMES = [b"\xff" * 6 + bytes(54), MAC + bytes(1508), MAC + bytes(9000), b"short"]


class Bench:
    """A card on a bus, its windows at fixed places."""

    def __init__(self, build: Callable[[Wires, HandClock], PciDevice]) -> None:
        self.wires, self.clock = Wires(), HandClock()
        self.memory = FlatMemory(1 << 16)
        self.ports, self.mmio = PortBus(), MmioBus()
        self.card = build(self.wires, self.clock)
        bus = PciBus(AddressMap(self.ports, self.mmio), self.memory, lambda address, data: None)
        bus.add(self.card, 3, name="card")
        self.place()

    def place(self) -> None:
        self.card.config_write(0x10, 4, 0xC000 if isinstance(self.card, Rtl8029) else 0xF0000000)
        self.card.config_write(0x18, 4, 0xC100)
        self.card.config_write(0x04, 2, 7)

    def poke(self, rng: random.Random, count: int) -> None:
        for _ in range(count):
            choice = rng.random()
            size = rng.choice([1, 2, 4])
            value = rng.choice([0, 1, 0xFF, 0x1000, 0xFFFF, rng.getrandbits(32)])
            if choice < 0.3:
                base = rng.choice([0xC000, 0xC100])
                self.ports.write(base + rng.randrange(64), size, value)
                self.ports.read(base + rng.randrange(64), size)
            elif choice < 0.6:
                at = rng.choice([0, 0x100, 0x400, 0x2800, 0x3800, 0x5400]) + 4 * rng.randrange(16)
                self.mmio.write(0xF0000000 + at, 4, value)
                self.mmio.read(0xF0000000 + at, size)
            elif choice < 0.7:
                self.memory.write(rng.randrange(1 << 16), rng.randbytes(16))
            elif choice < 0.8:
                self.wires.coming.append(rng.choice(FRAMES))
                getattr(self.card, "chip", getattr(self.card, "card", None)).frames_waiting()
                self.wires.coming.clear()
                self.wires.sent.clear()
            elif choice < 0.82:
                self.card.config_write(4 * rng.randrange(16), 4, value)
                self.place()
            elif choice < 0.83:
                self.card.reset()
                self.place()
            else:
                self.clock.advance(1)


BUILDERS: dict[str, Callable[[Wires, HandClock], PciDevice]] = {
    "e1000": lambda wires, clock: E1000(wires, MAC, clock),
    "rtl8029": lambda wires, clock: Rtl8029(wires, MAC),
}


@pytest.fixture(params=sorted(BUILDERS))
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(BUILDERS[request.param])


def test_random_accesses_harm_nobody(bench: Bench) -> None:
    bench.poke(random.Random(5), 6000)


@pytest.mark.soak
def test_ten_million_random_accesses(bench: Bench) -> None:
    bench.poke(random.Random(6), 10_000_000)


def test_state_goes_on_elsewhere(bench: Bench) -> None:
    bench.poke(random.Random(7), 500)
    state = bench.card.state()
    other = Bench(BUILDERS["e1000" if isinstance(bench.card, E1000) else "rtl8029"])
    other.memory.bytes[:] = bench.memory.bytes
    other.card.restore(state)
    assert other.card.state() == state


def test_foreign_states_are_refused(bench: Bench) -> None:
    state = bench.card.state()
    chip = state["chip"]
    wrong = [{**state, "device": "Toaster"}, {key: state[key] for key in state if key != "chip"}]
    wrong += [{**state, "chip": {**chip, key: "text"}} for key in chip]
    wrong += [{**state, "chip": {**chip, key: [-1]}} for key, v in chip.items() if type(v) is list]
    for entry in wrong:
        with pytest.raises(StateError):
            bench.card.restore(entry)
    assert bench.card.state() == state


def test_nothing_moves_without_bus_mastering(bench: Bench) -> None:
    bench.card.config_write(0x04, 2, 3)
    before = bytes(bench.memory.bytes)
    rng = random.Random(8)
    for _ in range(500):
        bench.mmio.write(0xF0000000 + 4 * rng.randrange(0x1000), 4, rng.getrandbits(32))
    assert bytes(bench.memory.bytes) == before
