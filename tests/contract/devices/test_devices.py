"""What every device of the catalog keeps to: reset, widths, odd accesses, saved state."""

import copy
import random
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from ringfence.bus import AddressMap, Device, MmioBus, PortBus
from ringfence.devices.catalog import CATALOG, FUNCTIONS, load, load_function
from ringfence.devices.chipset.acpi_pm import AcpiPm
from ringfence.devices.chipset.fw_cfg import FwCfg
from ringfence.devices.disk.ata import AtaDisk
from ringfence.devices.disk.cdrom import Cdrom
from ringfence.devices.dma.i8237 import IsaDma
from ringfence.devices.floppy.drive import FloppyDrive
from ringfence.devices.ide.channel import IdeChannel
from ringfence.devices.pci.function import PciDevice
from ringfence.devices.pci.host_bridge import HostBridge
from ringfence.devices.pci.mechanism import Ecam
from ringfence.devices.pci.pci_bus import PciBus
from ringfence.errors import ConfigError, StateError
from support import disks
from support.fake_devices import HandClock, Port, Wire, Wires
from support.fake_engine import FakeMemory


class NoStore:
    """Keeps nothing."""

    def load(self) -> bytes:
        return bytes(8192)

    def store(self, offset: int, data: bytes) -> None:
        pass


def with_files(device: FwCfg) -> FwCfg:
    device.add_file("etc/file", bytes(300))
    return device


def bus_with_bridge() -> PciBus:
    bus = PciBus(AddressMap(PortBus(), MmioBus()))
    bus.add(HostBridge(), 0)
    return bus


def channel(model: type[Any]) -> Any:
    """A disk and a CD-ROM drive on one cable."""
    return model((AtaDisk(disks.queue(1 << 20)), Cdrom(disks.queue(1 << 20))), Wire())


def floppy(model: type[Any]) -> Device:
    """A drive with a disk and one without."""
    drives = (FloppyDrive(disks.queue(1440 << 10)), FloppyDrive(None))
    dma = IsaDma(disks.Memory())
    found: Device = model(drives, Wire(), dma.channel(2), HandClock())
    return found


BUILDERS: dict[str, Callable[[type[Any]], Device]] = {
    "uart16550": lambda model: model(Port(waiting=bytearray(b"input" * 9)), Wire(), HandClock()),
    "rtc": lambda model: model(Wire(), HandClock(1_700_000_000_000_000_000)),
    "i8042": lambda model: model(Wire(), lambda: None, clock=HandClock(), aux_irq=Wire()),
    "ne2000": lambda model: model(Wires(coming=[b"\xff" * 60] * 99), Wire(), bytes(6)),
    "acpi-pm": lambda model: model(Wire(), HandClock(), lambda: None),
    "sleep": lambda model: model(lambda: None),
    "smi-command": lambda model: model(lambda enabled: None),
    "reset-control": lambda model: model(lambda: None),
    "system-control": lambda model: model(lambda: None),
    "pci-config": lambda model: model(bus_with_bridge()),
    "vga": lambda model: model(HandClock(), 1 << 18),
    "ide-channel": channel,
    "fw-cfg": lambda model: with_files(model()),
    "flash": lambda model: model(FakeMemory(8192), 8192, NoStore(), lambda array: None),
    "isa-dma": lambda model: model(disks.Memory()),
    "floppy": floppy,
    "parallel": lambda model: model(Port(), Wire(), HandClock()),
    "post": lambda model: model(),
    "debug-exit": lambda model: model(lambda status: None),
    "debug-console": lambda model: model(Port(), HandClock()),
}
POKES = 3000
FUNCTION_BUILDERS: dict[str, Callable[[type[Any]], PciDevice]] = {
    "i440fx": lambda model: model(),
    "ich9-lpc": lambda model: model(lambda irq: Wire(), AcpiPm(Wire(), HandClock(), lambda: None)),
    "ich9-smbus": lambda model: model(),
    "q35-mch": lambda model: model(Ecam(PciBus(AddressMap(PortBus(), MmioBus())))),
    "piix3": lambda model: model(lambda irq: Wire()),
    "piix3-ide": lambda model: model((channel(IdeChannel), IdeChannel((None, None), Wire()))),
    "ahci": lambda model: model([AtaDisk(disks.queue()), None, Cdrom(None, sata=True)]),
    "piix4-pm": lambda model: model(AcpiPm(Wire(), HandClock(), lambda: None)),
}


@pytest.fixture(params=sorted(CATALOG))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def device(name: str) -> Device:
    return BUILDERS[name](load(name))


def poke(device: Device, seed: int, count: int = POKES) -> list[int]:
    """Random accesses of widths the device takes; what the reads gave."""
    rng = random.Random(seed)
    seen = []
    for _ in range(count):
        size = rng.choice(sorted(device.WIDTHS))
        offset = rng.randrange(device.LENGTH)
        if rng.random() < 0.5:
            value = rng.choice([0, 1, 0xFF, 0x80, rng.getrandbits(8 * size)])
            device.write(offset, size, value & (1 << 8 * size) - 1)
        else:
            seen.append(device.read(offset, size))
    return seen


def test_every_model_has_a_builder() -> None:
    assert set(BUILDERS) == set(CATALOG)


def test_every_function_has_a_builder() -> None:
    # Those of other folders have suites of their own.
    assert set(FUNCTION_BUILDERS) <= set(FUNCTIONS)


@pytest.mark.parametrize("function", sorted(FUNCTION_BUILDERS))
def test_configuration_space_takes_anything(function: str) -> None:
    build = FUNCTION_BUILDERS[function]
    device, other = build(load_function(function)), build(load_function(function))
    for entry in (device, other):
        PciBus(AddressMap(PortBus(), MmioBus())).add(entry)
    identity = [device.config_read(at, 4) for at in (0, 8, 0x2C)]
    rng = random.Random(9)
    for _ in range(POKES):
        size = rng.choice([1, 2, 4])
        at = rng.randrange(0, 256, size)
        device.config_write(at, size, rng.getrandbits(8 * size))
        assert 0 <= device.config_read(at, size) < 1 << 8 * size
    assert [device.config_read(at, 4) for at in (0, 8, 0x2C)] == identity
    state = copy.deepcopy(device.state())
    other.restore(state)
    assert other.state() == state
    device.reset()
    fresh = build(load_function(function))
    fresh.reset()
    assert device.state() == fresh.state()
    with pytest.raises(StateError):
        device.restore({**state, "device": "Toaster"})


def test_unknown_model() -> None:
    with pytest.raises(ConfigError, match="uart16550"):
        load("flux-capacitor")


def test_order_of_methods(device: Device) -> None:
    """The house order: ``__init__``, reset, read, write, state, restore."""
    order = ["reset", "read", "write", "state", "restore"]
    if "__init__" in vars(type(device)):
        order.insert(0, "__init__")
    found = [method for method in vars(type(device)) if method in order]
    assert found == order


def test_reads_fit_their_width(device: Device) -> None:
    bus = PortBus()
    bus.add(0x100, device, name="device")
    rng = random.Random(1)
    for _ in range(POKES):
        size = rng.choice([1, 2, 4])
        # Ports before, within and behind the device.
        port = rng.randrange(0xFC, 0x104 + device.LENGTH)
        if rng.random() < 0.5:
            bus.write(port, size, rng.getrandbits(32))
        else:
            assert 0 <= bus.read(port, size) < 1 << 8 * size


def test_random_accesses_harm_nobody(device: Device) -> None:
    for seed in range(5):
        for value in poke(device, seed):
            assert value >= 0


def test_reset_gives_one_state(device: Device, name: str) -> None:
    fresh = BUILDERS[name](load(name))
    fresh.reset()
    poke(device, 7)
    device.reset()
    kept = {"rtc"}  # its memory is battery-backed
    if name not in kept:
        first, second = device.state(), fresh.state()
        # Divisor and scratch of a UART survive a reset by the data sheet.
        for key in ("scr", "dll", "dlm"):
            first.pop(key, None)
            second.pop(key, None)
        assert first == second


def test_state_restores(device: Device, name: str) -> None:
    poke(device, 3)
    state = device.state()
    other = BUILDERS[name](load(name))
    other.restore(state)
    assert other.state() == state
    again = BUILDERS[name](load(name))
    again.restore(state)
    assert poke(other, 4, 400) == poke(again, 4, 400)


def test_state_is_plain_and_does_not_change(device: Device) -> None:
    poke(device, 5)
    state = device.state()

    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(entry) for key, entry in value.items())
        if isinstance(value, list):
            return all(plain(entry) for entry in value)
        return type(value) in (int, bool, str, bytes)

    assert plain(state)
    assert state["version"] >= 1
    before = copy.deepcopy(state)
    poke(device, 6)
    assert state == before


def test_foreign_states_are_refused(device: Device) -> None:
    state = device.state()
    wrong: list[dict[str, Any]] = [
        {},
        {**state, "device": "Toaster"},
        {**state, "version": 99},
    ]
    for key, value in state.items():
        if key in ("device", "version"):
            continue
        wrong.append({other: state[other] for other in state if other != key})
        wrong.append({**state, key: "text"})
        if type(value) is int:
            wrong += [{**state, key: -1}, {**state, key: 1 << 70}]
        elif isinstance(value, bytes):
            wrong.append({**state, key: value + b"\0"})
        elif isinstance(value, list):
            wrong += [{**state, key: [-1]}, {**state, key: [1 << 70]}, {**state, key: ["x"]}]
    for entry in wrong:
        with pytest.raises(StateError):
            device.restore(entry)
    assert device.state() == state


def test_restored_extremes_harm_nobody(device: Device) -> None:
    """The largest values that a restore takes are survived too."""
    state = device.state()
    numbers = [key for key, value in state.items() if type(value) is int and key != "version"]
    for seed, key in product(range(2), numbers):
        for bits in range(64, -1, -1):
            try:
                device.restore({**state, key: (1 << bits) - 1})
            except StateError:
                continue
            poke(device, seed, 200)
            break
