"""ACPI tables for firmware that places them itself: two files and a script of commands.

Source: QEMU, hw/acpi/bios-linker-loader.c (the format), which SeaBIOS and OVMF carry out: allocate
a file, add the address of one file to a pointer within another, compute a checksum.
"""

from functools import lru_cache
from struct import pack
from typing import NamedTuple

from ringfence.firmware.acpi.hardware import AcpiHardware
from ringfence.firmware.acpi.tables import layout, rsdp

__all__ = ["RSDP_FILE", "TABLES_FILE", "Loader", "loader"]

TABLES_FILE, RSDP_FILE = "etc/acpi/tables", "etc/acpi/rsdp"
_ALLOCATE, _ADD_POINTER, _ADD_CHECKSUM = 1, 2, 3
_HIGH, _SEGMENT_F = 1, 2
_COMMAND = 128
#: Lengths are rounded up to this, for they must not change when an address in a table does.
_ROUND = 4096


class Loader(NamedTuple):
    """Contents of the three files."""

    tables: bytes
    rsdp: bytes
    commands: bytes


@lru_cache(maxsize=4)
def loader(hardware: AcpiHardware) -> Loader:
    """The files for ``hardware``."""
    found = layout(hardware)
    commands = [
        _command(_ALLOCATE, pack("<56sIB", _name(TABLES_FILE), 64, _HIGH)),
        _command(_ALLOCATE, pack("<56sIB", _name(RSDP_FILE), 16, _SEGMENT_F)),
    ]
    block = bytearray(found.block)
    for offset, size, target in found.pointers:
        block[offset : offset + size] = target.to_bytes(size, "little")
        commands.append(_pointer(TABLES_FILE, offset, size))
    for offset, length in found.tables:
        block[offset + 9] = 0
        commands.append(_checksum(TABLES_FILE, offset + 9, offset, length))
    root = bytearray(rsdp(found.rsdt, found.xsdt))
    commands += [_pointer(RSDP_FILE, 16, 4), _pointer(RSDP_FILE, 24, 8)]
    for at, length in ((8, 20), (32, 36)):
        root[at] = 0
        commands.append(_checksum(RSDP_FILE, at, 0, length))
    tables = bytes(block).ljust(-(-len(block) // _ROUND) * _ROUND, b"\0")
    script = b"".join(commands)
    return Loader(tables, bytes(root), script.ljust(-(-len(script) // _ROUND) * _ROUND, b"\0"))


def _name(file: str) -> bytes:
    return file.encode("ascii")


def _command(kind: int, body: bytes) -> bytes:
    return (kind.to_bytes(4, "little") + body).ljust(_COMMAND, b"\0")


def _pointer(file: str, offset: int, size: int) -> bytes:
    """Adds where the tables were placed to a pointer."""
    return _command(_ADD_POINTER, pack("<56s56sIB", _name(file), _name(TABLES_FILE), offset, size))


def _checksum(file: str, at: int, start: int, length: int) -> bytes:
    return _command(_ADD_CHECKSUM, pack("<56sIII", _name(file), at, start, length))
