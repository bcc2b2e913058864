"""ACPI tables: checksums, pointers, and what the reference disassembler says of them."""

import shutil
import subprocess
from pathlib import Path
from struct import unpack_from

import pytest

from ringfence.boards import pc_layout as layout
from ringfence.firmware.acpi import AcpiHardware, PciRoot, SerialLine, aml, build

BASE = 0xE0000
ROOT = PciRoot(
    router=1,
    routes=(0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6A, 0x6B),
    wiring=tuple(((n % 4), (n + 1) % 4, 6, 7) for n in range(32)),
    interrupts=(5, 10, 11),
    memory=((0xA0000, 0xBFFFF), (0xC0000000, 0xFEBFFFFF), (1 << 36, (1 << 37) - 1)),
    io=((0, 0xCF7), (0xD00, 0xFFFF)),
    ecam=0xB0000000,
)


def hardware(cpus: int = 2, serial: int = 4, keyboard: bool = True) -> AcpiHardware:
    return layout.acpi_hardware(cpus, serial=serial, keyboard=keyboard)


def block(cpus: int = 2, serial: int = 4, keyboard: bool = True) -> bytes:
    return build(hardware(cpus, serial, keyboard), BASE)


def tables(data: bytes) -> dict[bytes, bytes]:
    """Follows the pointers from the RSDP as an operating system does."""
    (xsdt_at,) = unpack_from("<Q", data, 24)

    def table(address: int) -> bytes:
        offset = address - BASE
        return data[offset : offset + unpack_from("<I", data, offset + 4)[0]]

    xsdt = table(xsdt_at)
    found = {b"XSDT": xsdt}
    for at in range(36, len(xsdt), 8):
        entry = table(unpack_from("<Q", xsdt, at)[0])
        found[entry[:4]] = entry
    facs, dsdt = unpack_from("<II", found[b"FACP"], 36)
    found[b"DSDT"] = table(dsdt)
    found[b"FACS"] = table(facs)
    assert facs % 64 == 0
    assert unpack_from("<Q", found[b"FACP"], 140)[0] == dsdt
    found[b"RSDT"] = table(unpack_from("<I", data, 16)[0])
    return found


def test_checksums_and_pointers() -> None:
    data = block()
    assert data[:8] == b"RSD PTR "
    assert sum(data[:20]) & 0xFF == 0
    assert sum(data[:36]) & 0xFF == 0
    found = tables(data)
    assert set(found) == {b"XSDT", b"RSDT", b"FACP", b"FACS", b"APIC", b"DSDT"}
    for signature, table in found.items():
        assert table[:4] == signature
        if signature != b"FACS":
            assert sum(table) & 0xFF == 0, signature


def test_it_fits_below_one_megabyte() -> None:
    assert len(block(cpus=64)) < 0x20000


def test_processors_and_overrides() -> None:
    madt = tables(block(cpus=3))[b"APIC"]
    assert unpack_from("<II", madt, 36) == (0xFEE00000, 1)
    entries, at = [], 44
    while at < len(madt):
        entries.append(madt[at : at + madt[at + 1]])
        at += madt[at + 1]
    assert [entry[2:4] for entry in entries if entry[0] == 0] == [b"\0\0", b"\1\1", b"\2\2"]
    overrides = [unpack_from("<BBIH", entry, 2) for entry in entries if entry[0] == 2]
    assert overrides == [(0, 0, 2, 0), (0, 9, 9, 0xD)]
    (io_apic,) = [entry for entry in entries if entry[0] == 1]
    assert unpack_from("<II", io_apic, 4) == (0xFEC00000, 0)


def test_fixed_hardware() -> None:
    fadt = tables(block())[b"FACP"]
    assert len(fadt) == 276
    assert unpack_from("<H", fadt, 46)[0] == 9
    assert unpack_from("<I", fadt, 48)[0] == 0xB2
    assert [unpack_from("<I", fadt, at)[0] for at in (56, 64, 76, 80)] == [
        0x600,
        0x604,
        0x608,
        0x620,
    ]
    assert fadt[116:128] == b"\x01\x08\x00\x01\xf9\x0c\0\0\0\0\0\0"
    assert fadt[128] == 6
    assert fadt[109] & 2
    assert not tables(block(keyboard=False))[b"FACP"][109] & 2


@pytest.mark.skipif(not shutil.which("iasl"), reason="needs iasl")
@pytest.mark.parametrize("cpus", [1, 64])
@pytest.mark.parametrize("pci", [None, ROOT])
def test_the_reference_compiler_reads_them(tmp_path: Path, cpus: int, pci: PciRoot | None) -> None:
    described = hardware(cpus)._replace(
        pci=pci,
        hpet=0xFED00000 if pci else None,
        parallel=SerialLine(0x378, 7) if pci else None,
    )
    for signature, table in tables(build(described, BASE)).items():
        name = signature.decode()
        (tmp_path / f"{name}.dat").write_bytes(table)
        done = subprocess.run(
            ["iasl", "-d", f"{name}.dat"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        source = (tmp_path / f"{name}.dsl").read_text()
        for complaint in ("Invalid", "Error", "Warning", "should be"):
            assert complaint not in source + output, source + output
    source = (tmp_path / "DSDT.dsl").read_text()
    for text in (r"Name (\_S5", "PNP0501", "PNP0B00", "PNP0303", "ACPI0007", "0x03F8"):
        assert text in source
    assert source.count("ACPI0007") == cpus
    if pci is not None:
        for text in ("PNP0A08", "PNP0C0F", "PCI_Config", "_SRS", "0xFEBFFFFF"):
            assert text in source
    again = subprocess.run(
        ["iasl", "-p", "again", "DSDT.dsl"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "0 Errors, 0 Warnings" in again.stdout + again.stderr


@pytest.mark.parametrize("length", [0, 1, 61, 62, 63, 64, 4091, 4092, 4093, 70000])
def test_package_lengths_count_themselves(length: int) -> None:
    term = aml.scope("\\_SB", bytes(length))
    lead = term[1]
    extra = lead >> 6
    size = lead & 0x3F if extra == 0 else lead & 15
    for index in range(extra):
        size |= term[2 + index] << 4 + 8 * index
    assert size == len(term) - 1


def test_integers_are_as_short_as_can_be() -> None:
    lengths = [len(aml.integer(value)) for value in (0, 1, 2, 255, 256, 65535, 65536, 1 << 32)]
    assert lengths == [1, 1, 2, 2, 3, 3, 5, 9]
    with pytest.raises(ValueError, match="64 bits"):
        aml.integer(1 << 64)
    assert aml.eisa_id("PNP0501") == bytes.fromhex("0c41d00501")
