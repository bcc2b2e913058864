"""The script by which firmware places the tables, carried out as firmware does."""

from struct import unpack_from

import pytest

from ringfence.boards import pc_layout as layout
from ringfence.firmware.acpi import AcpiHardware, PciRoot, build, loader

ROOT = PciRoot(
    router=1,
    routes=(0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6A, 0x6B),
    wiring=tuple(((n % 4), (n + 1) % 4, 6, 7) for n in range(32)),
    interrupts=(5, 10, 11),
    memory=((0xA0000, 0xBFFFF), (0xC0000000, 0xFEBFFFFF), (1 << 36, (1 << 37) - 1)),
    io=((0, 0xCF7), (0xD00, 0xFFFF)),
    ecam=0xB0000000,
)


def hardware() -> AcpiHardware:
    found = layout.acpi_hardware(2, serial=4, keyboard=True, pci=ROOT)
    return found._replace(hpet=0xFED00000)


def text(data: bytes) -> str:
    return data.rstrip(b"\0").decode()


def run(tables_at: int) -> tuple[bytes, bytes]:
    """Allocates, patches and sums; gives tables and RSDP."""
    files = loader(hardware())
    sources = {"etc/acpi/tables": files.tables, "etc/acpi/rsdp": files.rsdp}
    memory: dict[str, bytearray] = {}
    places = {"etc/acpi/tables": tables_at, "etc/acpi/rsdp": 0xF0000}
    for at in range(0, len(files.commands), 128):
        (kind,) = unpack_from("<I", files.commands, at)
        if kind == 1:
            name, align, zone = unpack_from("<56sIB", files.commands, at + 4)
            assert places[text(name)] % align == 0
            assert zone in (1, 2)
            memory[text(name)] = bytearray(sources[text(name)])
        elif kind == 2:
            into, of, offset, size = unpack_from("<56s56sIB", files.commands, at + 4)
            block = memory[text(into)]
            value = int.from_bytes(block[offset : offset + size], "little") + places[text(of)]
            block[offset : offset + size] = value.to_bytes(size, "little")
        elif kind == 3:
            name, sum_at, start, length = unpack_from("<56sIII", files.commands, at + 4)
            block = memory[text(name)]
            block[sum_at] = -sum(block[start : start + length]) & 0xFF
        else:
            assert kind == 0, "the rest is empty"
    return bytes(memory["etc/acpi/tables"]), bytes(memory["etc/acpi/rsdp"])


@pytest.mark.parametrize("at", [0x7FE0000, 0x0FFFF000])
def test_it_gives_what_direct_boot_gives(at: int) -> None:
    tables, rsdp = run(at)
    direct = build(hardware(), at - 64)
    assert tables.rstrip(b"\0") == direct[64:].rstrip(b"\0")
    assert rsdp == direct[:36]


def test_lengths_do_not_depend_on_addresses() -> None:
    moved = loader(hardware()._replace(pm1_event=0xB000, pm1_control=0xB004))
    here = loader(hardware())
    assert [len(file) for file in moved] == [len(file) for file in here]
