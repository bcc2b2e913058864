"""PCI configuration space against the local bus specification and the 440FX data sheet."""

import pytest

from ringfence.devices.pci.host_bridge import HostBridge
from ringfence.devices.pci.mechanism import PciConfig
from ringfence.errors import ConfigError, OverlapError, StateError


@pytest.fixture
def bus() -> PciConfig:
    bus = PciConfig()
    bus.add(0, HostBridge())
    return bus


def select(bus: PciConfig, register: int, *, device: int = 0, on: int = 0) -> None:
    bus.write(0, 4, 0x80000000 | on << 16 | device << 11 | register)


def test_address_register(bus: PciConfig) -> None:
    bus.write(0, 4, 0xFFFFFFFF)
    assert bus.read(0, 4) == 0x80FFFFFC, "reserved bits"
    bus.write(0, 1, 0)
    bus.write(2, 2, 0)
    assert bus.read(0, 4) == 0x80FFFFFC, "bytes and words are not the mechanism's"
    assert (bus.read(0, 1), bus.read(1, 2)) == (0xFF, 0xFFFF)


def test_functions_that_are_not_there(bus: PciConfig) -> None:
    for place in ({"device": 1}, {"on": 1}, {"device": 31}):
        select(bus, 0, **place)
        bus.write(4, 4, 0x12345678)
        assert [bus.read(4, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    bus.write(0, 4, 0)
    assert bus.read(4, 4) == 0xFFFFFFFF, "without the enable bit"


def test_identity_of_the_bridge(bus: PciConfig) -> None:
    select(bus, 0)
    assert bus.read(4, 4) == 0x12378086
    assert bus.read(6, 2) == 0x1237
    select(bus, 8)
    assert bus.read(4, 4) == 0x06000002
    select(bus, 0x0C)
    assert bus.read(6, 1) == 0, "one function, no bridge to another bus"
    for register in range(0x10, 0x40, 4):
        select(bus, register)
        bus.write(4, 4, 0xFFFFFFFF)
        assert bus.read(4, 4) == 0, "no base addresses"


def test_only_some_bits_can_be_written(bus: PciConfig) -> None:
    select(bus, 0)
    bus.write(4, 4, 0)
    assert bus.read(4, 4) == 0x12378086
    select(bus, 4)
    bus.write(4, 4, 0xFFFFFFFF)
    assert bus.read(4, 4) == 0x02800146
    bus.write(4, 2, 0)
    assert bus.read(4, 2) == 0x0006
    select(bus, 0x58)
    bus.write(5, 1, 0xFF)
    assert bus.read(4, 2) == 0x3000
    bus.reset()
    select(bus, 0x58)
    assert bus.read(4, 2) == 0


def test_places(bus: PciConfig) -> None:
    with pytest.raises(OverlapError):
        bus.add(0, HostBridge())
    with pytest.raises(ConfigError):
        bus.add(32, HostBridge())
    bus.add(31, HostBridge(), number=7)
    bus.write(0, 4, 0x8000FF00)
    assert bus.read(4, 2) == 0x8086


def test_state_is_all_or_nothing(bus: PciConfig) -> None:
    select(bus, 0x58)
    bus.write(5, 1, 0x10)
    state = bus.state()
    other = PciConfig()
    with pytest.raises(StateError, match="other functions"):
        other.restore(state)
    other.add(0, HostBridge())
    broken = {**state, "_address": 0, "address": -1}
    with pytest.raises(StateError):
        other.restore(broken)
    assert other.read(4, 4) == 0xFFFFFFFF
    select(other, 0x58)
    assert other.read(5, 1) == 0
    other.restore(state)
    assert other.read(5, 1) == 0x10


def test_a_restored_bridge_keeps_its_identity(bus: PciConfig) -> None:
    bridge = HostBridge()
    bridge.restore({**bridge.state(), "space": b"\xff" * 256})
    assert bridge.config_read(0, 4) == 0x12378086
