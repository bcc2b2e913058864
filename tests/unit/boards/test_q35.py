"""The board with the Q35 chipset."""

import pytest

from ringfence.boards import MediumEnd
from ringfence.boards.chipset_q35 import ICH9
from ringfence.bus import BlockQueue
from ringfence.devices.chipset.ich9 import pirq_of
from ringfence.errors import ConfigError
from support.boards import Bench
from support.disks import MemoryDisk

ECAM = 0xB0000000


def disk(interface: str = "auto") -> MediumEnd:
    return MediumEnd("disk0", "disk", BlockQueue(MemoryDisk(1 << 20)), interface)  # type: ignore[arg-type]


def test_configuration_space_is_in_memory() -> None:
    board = Bench(q35=True).board
    assert board.mmio.read(ECAM, 4) == 0x29C08086
    assert board.mmio.read(ECAM | ICH9 << 15, 4) == 0x29188086
    assert board.mmio.read(ECAM | ICH9 << 15 | 2 << 12, 4) == 0x29228086
    assert board.mmio.read(ECAM | ICH9 << 15 | 3 << 12, 4) == 0x29308086
    assert board.mmio.read(ECAM | 5 << 15, 4) == 0xFFFFFFFF
    board.ports.write(0xCF8, 4, 0x80000000 | 0x60)
    board.ports.write(0xCFC, 4, 0xC0000001)
    assert board.mmio.read(ECAM, 4) == 0xFFFFFFFF
    assert board.mmio.read(0xC0000000, 4) == 0x29C08086
    board.ports.write(0xCFC, 4, 0xC0000000 | 0b101)
    assert (0xC0000000, 0xC0000000 + (64 << 20) - 1, "ecam") in board.mmio.ranges()
    board.ports.write(0xCFC, 4, 0xC0000000)
    assert board.mmio.read(0xC0000000, 4) == 0xFFFFFFFF


def test_interrupt_router() -> None:
    assert [pirq_of(2, pin) for pin in (1, 2, 3, 4)] == [6, 7, 4, 5]
    assert [pirq_of(31, pin) for pin in (1, 2, 3, 4)] == [0, 1, 2, 3]
    bench = Bench(q35=True)
    board = bench.board
    board.pci_bus.intx(2, 1, True)
    assert bench.lines == [(11, True)]
    board.ports.write(0xCF8, 4, 0x80000000 | ICH9 << 11 | 0x68)
    board.ports.write(0xCFE, 1, 5)
    assert bench.lines[1:] in ([(11, False), (5, True)], [(5, True), (11, False)])
    board.pci_bus.intx(2, 1, False)
    assert bench.lines[-1] == (5, False)


def test_power_management_follows_its_base() -> None:
    board = Bench(q35=True).board
    assert board.ports.owner(0x608) == "acpi-pm"
    board.ports.write(0xCF8, 4, 0x80000000 | ICH9 << 11 | 0x40)
    board.ports.write(0xCFC, 4, 0xB001)
    assert (board.ports.owner(0x608), board.ports.owner(0xB008)) == (None, "acpi-pm")


def test_disks_hang_on_sata() -> None:
    board = Bench(q35=True, media=[disk()]).board
    assert board.ports.owner(0x1F0) is None
    assert [path for _, path in board.drives.boot_paths] == ["pci8086,2922@1f,2/drive@0/disk@0"]
    with pytest.raises(ConfigError, match="no IDE"):
        Bench(q35=True, media=[disk("ide")])


def test_memory_leaves_room_for_the_configuration_space() -> None:
    ranges = Bench(8 << 30, q35=True).board.memory_ranges()
    assert max(start + size for start, size, _ in ranges if start < 1 << 32) == 2 << 30
    assert sum(size for start, size, _ in ranges if start >= 1 << 20) == (8 << 30) - (1 << 20)


def test_state() -> None:
    first, second = Bench(q35=True), Bench(q35=True)
    first.board.ports.write(0xCF8, 4, 0x80000060)
    first.board.ports.write(0xCFC, 4, 0xD0000001)
    second.board.restore(first.board.state())
    assert second.board.mmio.read(0xD0000000, 4) == 0x29C08086
