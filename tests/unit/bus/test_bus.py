"""Ports, memory-mapped ranges, wires and saved fields."""

from typing import ClassVar

import pytest

from ringfence.bus import (
    Line,
    MmioBus,
    PortBus,
    SharedLine,
    State,
    restore_fields,
    save_fields,
    unconnected,
)
from ringfence.errors import ConfigError, OverlapError, StateError


class Register:
    """A device of plain bytes that remembers its accesses."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 4

    def __init__(self, fill: int = 0) -> None:
        self.bytes = bytearray([fill] * self.LENGTH)
        self.log: list[tuple[str, int, int]] = []

    def reset(self) -> None:
        pass

    def read(self, offset: int, size: int) -> int:
        self.log.append(("read", offset, size))
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.log.append(("write", offset, size))
        self.bytes[offset : offset + size] = value.to_bytes(size, "little")

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass


class Wide(Register):
    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})


class OnlyDouble(Register):
    WIDTHS: ClassVar[frozenset[int]] = frozenset({4})
    LENGTH: ClassVar[int] = 16


def test_empty_ports_read_all_ones() -> None:
    bus = PortBus()
    assert [bus.read(0x80, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]
    bus.write(0x80, 4, 0)


def test_wide_accesses_are_split_for_narrow_devices() -> None:
    bus, device = PortBus(), Register()
    bus.add(0x10, device, name="narrow")
    bus.write(0x10, 4, 0x44332211)
    assert bus.read(0x10, 4) == 0x44332211
    assert [size for _, _, size in device.log] == [1] * 8


def test_wide_accesses_stay_whole_for_wide_devices() -> None:
    bus, device = PortBus(), Wide()
    bus.add(0x10, device, name="wide")
    bus.write(0x10, 4, 0x1_4433_2211)
    assert bus.read(0x11, 2) == 0x3322
    assert device.log == [("write", 0, 4), ("read", 1, 2)]


def test_accesses_over_a_boundary_are_split() -> None:
    bus = PortBus()
    bus.add(0x10, Wide(0x11), name="a")
    bus.add(0x14, Wide(0x22), name="b")
    assert bus.read(0x12, 4) == 0x22221111
    assert bus.read(0x16, 4) == 0xFFFF2222
    assert bus.read(0xFFFF, 4) == 0xFFFFFFFF, "the port space wraps"


def test_a_double_word_register_can_share_ports_with_another_device() -> None:
    """As CF8h and CF9h of a PC."""
    bus, address, reset = PortBus(), Wide(0), Register(0x77)
    bus.add(0xCF8, address, name="address", length=1)
    bus.add(0xCF9, reset, name="reset", length=1)
    bus.write(0xCF8, 4, 0x80000000)
    assert bus.read(0xCF8, 4) == 0x80000000
    assert bus.read(0xCF9, 1) == 0x77
    assert bus.owner(0xCF9) == "reset"


def test_parts_of_a_device() -> None:
    bus, device = PortBus(), Register()
    bus.add(0x60, device, name="part", offset=0, length=1)
    bus.add(0x64, device, name="part", offset=3, length=1)
    bus.write(0x64, 1, 9)
    assert device.bytes[3] == 9
    assert bus.ranges() == [(0x60, 0x60, "part"), (0x64, 0x64, "part")]


def test_port_overlaps_are_refused() -> None:
    bus = PortBus()
    bus.add(0x10, Register(), name="first")
    with pytest.raises(OverlapError, match="second and first both claim port 0x13"):
        bus.add(0x13, Register(), name="second")
    with pytest.raises(ConfigError, match="do not exist"):
        bus.add(0xFFFE, Register(), name="third")
    assert bus.ranges() == [(0x10, 0x13, "first")]
    assert bus.owner(0x14) is None


def test_mmio_dispatch() -> None:
    bus = MmioBus()
    devices = {base: Wide(base >> 8 & 0xFF) for base in (0x3000, 0x1000, 0x2000)}
    for base, device in devices.items():
        bus.add(base, device, name=f"at {base:#x}")
    for base in devices:
        assert bus.read(base, 4) == (base >> 8) * 0x01010101
        assert bus.owner(base + 3) == f"at {base:#x}"
        assert bus.read(base + 4, 4) == 0xFFFFFFFF
        assert bus.read(base - 1, 1) == 0xFF
    bus.write(0x2001, 2, 0xABCD)
    assert devices[0x2000].bytes == bytes([0x20, 0xCD, 0xAB, 0x20])
    assert [start for start, _, _ in bus.ranges()] == [0x1000, 0x2000, 0x3000]


def test_mmio_widths() -> None:
    bus, device = MmioBus(), OnlyDouble()
    bus.add(0x1000, device, name="double")
    bus.write(0x1000, 8, 0x8877665544332211)
    assert bus.read(0x1000, 8) == 0x8877665544332211
    assert {size for _, _, size in device.log} == {4}
    device.log.clear()
    assert bus.read(0x1000, 1) == 0xFF
    bus.write(0x1000, 2, 0)
    assert device.log == [], "narrower accesses than it takes find nobody"


def test_mmio_over_boundaries() -> None:
    bus = MmioBus()
    bus.add(0x1004, Wide(0x11), name="a")
    assert bus.read(0x1002, 4) == 0x1111FFFF
    assert bus.read(0x1006, 4) == 0xFFFF1111
    assert bus.read(0x1000, 2) == 0xFFFF
    bus.write(0x1002, 4, 0)
    assert bus.read(0x1004, 4) == 0x11110000


def test_mmio_overlaps_are_refused() -> None:
    bus = MmioBus()
    bus.add(0x1000, Register(), name="first")
    for base in (0xFFD, 0x1000, 0x1003):
        with pytest.raises(OverlapError, match=r"second at .* overlaps first"):
            bus.add(base, Register(), name="second")
    bus.add(0xFFC, Register(), name="below")
    bus.add(0x1004, Register(), name="above")
    with pytest.raises(ConfigError):
        bus.add(1 << 52, Register(), name="beyond")


def test_lines_tell_changes_only() -> None:
    heard: list[bool] = []
    line = Line(heard.append)
    for level in (False, True, True, False, False):
        line.set(level)
    assert heard == [True, False]
    line.disconnect()
    line.set(True)
    assert heard == [True, False]
    unconnected().set(True)


def test_shared_line_is_the_union() -> None:
    heard: list[bool] = []
    shared = SharedLine(heard.append)
    first, second = shared.driver(), shared.driver()
    first.set(True)
    second.set(True)
    first.set(False)
    assert heard == [True]
    assert shared.level
    second.set(False)
    assert heard == [True, False]
    shared.disconnect()
    second.set(True)
    assert heard == [True, False]


class Saved:
    def __init__(self) -> None:
        self._number, self._flag, self._bytes, self._list = 1, False, bytearray(2), [1]


FIELDS = {"_number": 9, "_flag": 1, "_bytes": 2, "_list": 5}


def test_fields_are_restored_all_or_none() -> None:
    saved = Saved()
    state = save_fields(saved, 2, FIELDS)
    assert state == {
        "device": "Saved",
        "version": 2,
        "number": 1,
        "flag": False,
        "bytes": b"\0\0",
        "list": [1],
    }
    with pytest.raises(StateError, match="'list'"):
        restore_fields(saved, {**state, "number": 5, "list": [6]}, 2, FIELDS)
    assert saved._number == 1
    restore_fields(saved, {**state, "number": 9, "bytes": b"ab"}, 2, FIELDS)
    assert (saved._number, saved._bytes) == (9, bytearray(b"ab"))
    with pytest.raises(StateError):
        restore_fields(saved, {**state, "flag": 1}, 2, FIELDS)


def test_strings_go_to_devices_that_take_them_whole() -> None:
    class Strings:
        WIDTHS = frozenset({2})
        LENGTH = 2

        def __init__(self) -> None:
            self.seen: list[object] = []

        def read(self, offset: int, size: int) -> int:
            return 0x4142

        def write(self, offset: int, size: int, value: int) -> None:
            self.seen.append(value)

    class Whole(Strings):
        def read_string(self, offset: int, size: int, count: int) -> bytes:
            return b"xy" * count

        def write_string(self, offset: int, size: int, data: bytes) -> None:
            self.seen.append(data)

    bus = PortBus()
    single, whole = Strings(), Whole()
    bus.add(0x100, single, name="single")  # type: ignore[arg-type]
    bus.add(0x200, whole, name="whole")  # type: ignore[arg-type]
    assert bus.read_string(0x100, 2, 2) == b"BABA"
    assert bus.read_string(0x200, 2, 2) == b"xyxy"
    assert bus.read_string(0x300, 4, 2) == b"\xff" * 8
    bus.write_string(0x100, 2, b"abcd")
    bus.write_string(0x200, 2, b"abcd")
    assert (single.seen, whole.seen) == ([0x6261, 0x6463], [b"abcd"])
