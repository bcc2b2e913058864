"""PCI configuration space against the local bus specification and the 440FX data sheet."""

import pytest

from ringfence.bus import AddressMap, MmioBus, PortBus
from ringfence.devices.pci.host_bridge import HostBridge, PamPiece
from ringfence.devices.pci.mechanism import Ecam, PciConfig
from ringfence.devices.pci.pci_bus import PciBus
from ringfence.errors import ConfigError, OverlapError, StateError


@pytest.fixture
def bus() -> PciBus:
    bus = PciBus(AddressMap(PortBus(), MmioBus()))
    bus.add(HostBridge(), 0)
    return bus


@pytest.fixture
def config(bus: PciBus) -> PciConfig:
    return PciConfig(bus)


def select(config: PciConfig, register: int, *, device: int = 0, on: int = 0) -> None:
    config.write(0, 4, 0x80000000 | on << 16 | device << 11 | register)


def test_address_register(config: PciConfig) -> None:
    config.write(0, 4, 0xFFFFFFFF)
    assert config.read(0, 4) == 0x80FFFFFC, "reserved bits"
    config.write(0, 1, 0)
    config.write(2, 2, 0)
    assert config.read(0, 4) == 0x80FFFFFC, "bytes and words are not the mechanism's"
    assert (config.read(0, 1), config.read(1, 2)) == (0xFF, 0xFFFF)


def test_functions_that_are_not_there(config: PciConfig) -> None:
    for place in ({"device": 1}, {"on": 1}, {"device": 31}):
        select(config, 0, **place)
        config.write(4, 4, 0x12345678)
        assert [config.read(4, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    config.write(0, 4, 0)
    assert config.read(4, 4) == 0xFFFFFFFF, "without the enable bit"


def test_identity_of_the_bridge(config: PciConfig) -> None:
    select(config, 0)
    assert config.read(4, 4) == 0x12378086
    assert config.read(6, 2) == 0x1237
    select(config, 8)
    assert config.read(4, 4) == 0x06000002
    select(config, 0x0C)
    assert config.read(6, 1) == 0, "one function, no bridge to another bus"
    for register in range(0x10, 0x40, 4):
        select(config, register)
        config.write(4, 4, 0xFFFFFFFF)
        assert config.read(4, 4) == 0, "no base addresses"


def test_only_some_bits_can_be_written(bus: PciBus, config: PciConfig) -> None:
    select(config, 0)
    config.write(4, 4, 0)
    assert config.read(4, 4) == 0x12378086
    select(config, 4)
    config.write(4, 4, 0xFFFFFFFF)
    assert config.read(4, 4) == 0x02800146
    config.write(4, 2, 0)
    assert config.read(4, 2) == 0x0006
    select(config, 0x58)
    config.write(5, 1, 0xFF)
    assert config.read(4, 2) == 0x3000
    bus.reset()
    assert config.read(4, 2) == 0


def test_pam_registers_move_pieces_of_memory() -> None:
    seen: list[list[PamPiece]] = []
    bridge = HostBridge(seen.append)
    bridge.config_write(0x50, 4, 0x12345678)
    assert not seen, "other registers move nothing"
    bridge.config_write(0x59, 1, 0x30)
    assert (0xF0000, 0x10000, True, True) in seen[0]
    assert sum(size for _, size, _, _ in seen[0]) == 0x40000
    bridge.config_write(0x5A, 1, 0x21)
    moved = {piece[0]: piece[2:] for piece in seen[1]}
    assert (moved[0xC0000], moved[0xC4000]) == ((True, False), (False, True))
    bridge.reset()
    assert not any(read or write for _, _, read, write in seen[-1])


def test_places(bus: PciBus) -> None:
    with pytest.raises(OverlapError, match="HostBridge"):
        bus.add(HostBridge(), 0)
    with pytest.raises(ConfigError):
        bus.add(HostBridge(), 32)
    assert bus.add(HostBridge()) == 1 << 3, "the first free one"
    bus.add(HostBridge(), 31, number=7)
    config = PciConfig(bus)
    config.write(0, 4, 0x8000FF00)
    assert config.read(4, 2) == 0x8086
    for _ in range(29):
        bus.add(HostBridge())
    with pytest.raises(ConfigError, match="full"):
        bus.add(HostBridge())


def test_several_functions_show_in_the_first(bus: PciBus) -> None:
    assert bus.read(0, 0x0C, 4) >> 16 & 0x80 == 0
    bus.add(HostBridge(), 0, number=3)
    assert bus.read(0, 0x0C, 4) >> 16 & 0x80
    assert bus.read(0, 0x0E, 1) == 0x80
    assert bus.read(3, 0x0E, 1) == 0


def test_configuration_in_memory(bus: PciBus) -> None:
    ecam = Ecam(bus)
    assert ecam.read(0, 4) == 0x12378086
    assert ecam.read(0x100, 4) == 0xFFFFFFFF, "no extended space"
    assert ecam.read(2, 4) == 0xFFFFFFFF, "across a double word"
    assert ecam.read(1 << 20, 4) == 0xFFFFFFFF, "bus 1"
    ecam.write(0x59, 1, 0x30)
    assert bus.read(0, 0x59, 1) == 0x30


def test_state_is_all_or_nothing(bus: PciBus) -> None:
    bus.write(0, 0x59, 1, 0x10)
    state = bus.state()
    other = PciBus(AddressMap(PortBus(), MmioBus()))
    with pytest.raises(StateError, match="other functions"):
        other.restore(state)
    other.add(HostBridge(), 0)
    other.add(HostBridge(), 1)
    both = {**state, "functions": {**state["functions"], "01.0": {}}}
    with pytest.raises(StateError):
        other.restore(both)
    assert other.read(0, 0x59, 1) == 0
    other.restore(
        {
            **both,
            "functions": {"00.0": state["functions"]["00.0"]}
            | {"01.0": state["functions"]["00.0"]},
        }
    )
    assert other.read(0, 0x59, 1) == 0x10


def test_a_restored_bridge_keeps_its_identity() -> None:
    bridge = HostBridge()
    bridge.restore({**bridge.state(), "space": b"\xff" * 256})
    assert bridge.config_read(0, 4) == 0x12378086
