"""Firmware on the board: ROM, shadow memory, flash, what it is told."""

import pytest

from ringfence.boards import FirmwareImage
from ringfence.boards.firmware import BootEntry, boot_flags, order
from ringfence.boards.shadow import Shadow
from ringfence.bus import MmioBus
from ringfence.devices.pci.host_bridge import pam_pieces
from ringfence.errors import ConfigError
from support.boards import Bench, Mapped

ROM = bytes(range(256)) * 512


def pam(*nibbles: int) -> bytes:
    """PAM registers with all pieces as the first nibble says, the last as the second."""
    low, high = nibbles
    return bytes([high << 4]) + bytes([low | low << 4]) * 6


@pytest.fixture
def memory() -> Mapped:
    return Mapped(1 << 20)


def shadow(memory: Mapped) -> tuple[Shadow, MmioBus]:
    mmio = MmioBus()
    return Shadow(memory, memory.ram, ROM, mmio), mmio


def test_the_rom_shows_below_a_megabyte(memory: Mapped) -> None:
    shadow(memory)
    assert memory.read(0xE0000, 4) == ROM[:4]
    assert memory.read(0xFFFFF, 1) == ROM[-1:]
    assert memory.read(0xDFFFF, 1) is None
    assert not memory.writable(0xF0000)


@pytest.mark.parametrize(
    ("nibble", "reads_ram", "writes_ram"),
    [(0, False, False), (1, True, False), (2, False, True), (3, True, True)],
)
def test_each_way_of_a_piece(
    memory: Mapped, nibble: int, reads_ram: bool, writes_ram: bool
) -> None:
    device, mmio = shadow(memory)
    memory.ram.view()[0xC0000:0x100000] = b"R" * 0x40000
    device.set(pam_pieces(pam(nibble, nibble)))
    assert memory.read(0xF1234, 1) == (b"R" if reads_ram else ROM[0x11234:0x11235])
    assert memory.read(0xC8000, 1) == (b"R" if reads_ram else None)
    for address in (0xC8000, 0xF1234):
        if memory.writable(address):
            assert (reads_ram, writes_ram) == (True, True)
            continue
        mmio.write(address, 2, 0x4142)
        found = bytes(memory.ram.view()[address : address + 2])
        assert found == (b"BA" if writes_ram else b"RR")
    device.set(pam_pieces(pam(0, 0)))
    assert memory.read(0xF1234, 1) == ROM[0x11234:0x11235]
    assert memory.read(0xC8000, 1) is None


def test_firmware_of_odd_sizes() -> None:
    for code in (b"", b"x" * 1000, b"x" * (17 << 20)):
        with pytest.raises(ConfigError, match="firmware"):
            Bench(firmware=FirmwareImage(code), memory_map=Mapped(1 << 20))


def test_board_with_firmware() -> None:
    memory = Mapped(128 << 20)
    bench = Bench(firmware=FirmwareImage(ROM), memory_map=memory, boot_order=("cdrom", "disk"))
    board = bench.board
    assert memory.read(0xFFFFFFF0, 16) == ROM[-16:]
    assert board.power_on().registers["rip"] == 0xFFF0
    board.ports.write(0x70, 1, 0x3D)
    assert board.ports.read(0x71, 1) == 0x23
    board.ports.write(0xCF8, 4, 0x80000058)
    board.ports.write(0xCFD, 1, 0x30)
    assert memory.writable(0xF0000)
    board.reset()
    assert memory.read(0xF0000, 1) == ROM[0x10000:0x10001]
    assert board.ports.owner(0x600) is None, "placed by firmware"
    with pytest.raises(ConfigError, match="memory"):
        Bench(firmware=FirmwareImage(ROM))


def test_a20_is_open_while_either_gate_is() -> None:
    levels: list[bool] = []
    board = Bench(a20=levels.append).board
    board.ports.write(0x92, 1, 0)
    assert levels[-1] is True
    board.ports.write(0x64, 1, 0xD1)
    board.ports.write(0x60, 1, 0xDD)
    assert levels[-1] is False
    board.ports.write(0x92, 1, 2)
    assert levels[-1] is True


def test_boot_order() -> None:
    entries = [BootEntry("disk", "/a"), BootEntry("cdrom", "/b"), BootEntry("disk", "/c")]
    assert order(entries, ("cdrom", "disk")) == b"/b\n/a\n/c\n\0"
    assert order(entries, ()) == b""
    assert boot_flags(("net", "floppy", "disk")) == {0x3D: 0x14, 0x38: 0x20}
    assert boot_flags(()) == {0x3D: 0, 0x38: 0}
