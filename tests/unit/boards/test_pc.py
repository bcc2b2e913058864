"""The board: what sits where, and that all of it fits together."""

from itertools import pairwise

import pytest

from ringfence.boards import pc_layout as layout
from ringfence.errors import StateError
from ringfence.firmware.e820 import RAM
from support.boards import Bench
from support.kernels import bzimage

GIB = 1 << 30


def test_places() -> None:
    ranges = Bench().board.ports.ranges()
    assert ranges == [
        (0x00, 0x0F, "isa-dma"),
        (0x60, 0x60, "i8042"),
        (0x64, 0x64, "i8042"),
        (0x70, 0x71, "rtc"),
        (0x80, 0x80, "post"),
        (0x81, 0x8F, "isa-dma"),
        (0x92, 0x92, "system-control"),
        (0xB2, 0xB3, "smi-command"),
        (0xC0, 0xDF, "isa-dma"),
        (0xE9, 0xE9, "debug-console"),
        (0xF4, 0xF7, "debug-exit"),
        (0x170, 0x177, "ide1"),
        (0x1F0, 0x1F7, "ide0"),
        (0x2E8, 0x2EF, "com4"),
        (0x2F8, 0x2FF, "com2"),
        (0x376, 0x376, "ide1"),
        (0x3E8, 0x3EF, "com3"),
        (0x3F0, 0x3F5, "floppy"),
        (0x3F6, 0x3F6, "ide0"),
        (0x3F7, 0x3F7, "floppy"),
        (0x3F8, 0x3FF, "com1"),
        (0x600, 0x623, "acpi-pm"),
        (0xCF8, 0xCF8, "pci-config"),
        (0xCF9, 0xCF9, "reset-control"),
        (0xCFC, 0xCFF, "pci-config"),
        (0xC000, 0xC00F, "ide bus master"),
    ]


def test_ports_of_the_engine_stay_free() -> None:
    board = Bench().board
    for port in (0x20, 0x21, 0xA0, 0xA1, 0x40, 0x43, 0x61, 0x4D0, 0x4D1):
        assert board.ports.owner(port) is None


def test_serial_lines_share_interrupts() -> None:
    bench = Bench()
    for base in (0x3F8, 0x3E8):
        bench.board.ports.write(base + 4, 1, 0x08)
        bench.board.ports.write(base + 1, 1, 0x02)
    assert bench.lines == [(4, True)]
    bench.board.ports.read(0x3FA, 1)
    assert bench.lines == [(4, True)], "the other still asserts it"
    bench.board.ports.read(0x3EA, 1)
    assert bench.lines == [(4, True), (4, False)]
    bench.board.close()
    bench.board.ports.write(0x3F9, 1, 0)
    bench.board.ports.write(0x3F9, 1, 2)
    assert len(bench.lines) == 2, "a closed board is silent"


def test_events() -> None:
    bench = Bench()
    bench.board.ports.write(0x604, 2, 5 << 10 | 1 << 13)
    bench.board.ports.write(0xCF9, 1, 6)
    bench.board.ports.write(0xF4, 4, 99)
    assert bench.events == ["power-off", "reset", 99]


def test_pci_probe_of_linux_finds_the_bus() -> None:
    """pci_check_type1() and pci_sanity_check()."""
    ports = Bench().board.ports
    ports.write(0xCFB, 1, 1)
    before = ports.read(0xCF8, 4)
    ports.write(0xCF8, 4, 0x80000000)
    assert ports.read(0xCF8, 4) == 0x80000000
    ports.write(0xCF8, 4, before)
    ports.write(0xCF8, 4, 0x80000008)
    assert ports.read(0xCFE, 2) == 0x0600, "a host bridge"
    ports.write(0xCF8, 4, 0x80000800)
    assert ports.read(0xCFC, 4) == 0x70008086
    ports.write(0xCF8, 4, 0x80001000)
    assert ports.read(0xCFC, 4) == 0xFFFFFFFF


def test_without_keyboard_and_with_fewer_serial_lines() -> None:
    board = Bench(keyboard=False, serial=1).board
    assert board.ports.owner(0x60) is None
    assert board.ports.owner(0x2F8) is None
    assert len(board.uarts) == 1


@pytest.mark.parametrize("memory", [64 << 20, 3 * GIB, 3 * GIB + (1 << 20), 8 * GIB])
def test_memory_map(memory: int) -> None:
    mapped = Bench(memory=memory).board.memory_ranges()
    told = layout.memory_map(memory)
    for lower, upper in pairwise(told):
        assert lower.end <= upper.start
    usable = [entry for entry in told if entry.kind == RAM]
    for entry in usable:
        assert any(start <= entry.start and entry.end <= start + size for start, size, _ in mapped)
    assert sum(size for start, size, _ in mapped if start >= 1 << 20) == memory - (1 << 20)
    assert not any(start < 4 * GIB < start + size for start, size, _ in mapped)
    assert not any(start < 0xFEC00000 < start + size for start, size, _ in mapped)
    assert sum(entry.size for entry in usable) >= memory - (1 << 20) + 0x9F000


def test_boot_brings_the_tables() -> None:
    plan = Bench().board.boot(bzimage(), command_line="x")
    written = dict(plan.writes)
    assert bytes(written[layout.BIOS][:8]) == b"RSD PTR "
    spans = sorted((at, at + len(data)) for at, data in plan.writes)
    for (_, end), (start, _) in pairwise(spans):
        assert end <= start, "nothing is written twice"


def test_flush_and_reset() -> None:
    bench = Bench()
    bench.board.ports.write(0x3F8, 1, 0x41)
    bench.board.ports.write(0xE9, 1, 0x42)
    bench.board.flush()
    assert (bench.serial[0].written, bench.debug.written) == (b"A", b"B")
    bench.board.ports.write(0x3FF, 1, 7)
    bench.board.ports.write(0x3FC, 1, 7)
    bench.board.reset()
    assert bench.board.ports.read(0x3FC, 1) == 0


def test_state_of_all_devices() -> None:
    first, second = Bench(), Bench()
    first.board.ports.write(0x3FF, 1, 0x5A)
    first.board.ports.write(0x602, 2, 0x100)
    state = first.board.state()
    second.board.restore(state)
    assert second.board.ports.read(0x3FF, 1) == 0x5A
    assert second.board.ports.read(0x602, 2) == 0x100
    assert second.board.state() == state
    with pytest.raises(StateError, match="i8042"):
        Bench(keyboard=False).board.restore(state)
