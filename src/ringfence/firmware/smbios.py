"""SMBIOS tables: what the machine calls itself, its processors and its memory.

Source: DMTF DSP0134, SMBIOS reference specification 3.0, chapters 5 (entry point) and 7.
"""

from collections.abc import Sequence
from struct import pack
from typing import NamedTuple

from ringfence.units import GIB, MIB

__all__ = ["SmbiosMachine", "anchor", "tables"]

_VERSION = (2, 8)
_UNKNOWN, _OTHER = 2, 1
_END = 127
#: Handles: the type in the upper byte, a number in the lower.
_MEMORY_ARRAY = 0x1000
#: Memory beyond this size has a field of its own (section 7.18.5).
_LARGE_MEMORY = 0x7FFF * MIB
_LARGE_ARRAY = 2048 * GIB


class SmbiosMachine(NamedTuple):
    """What is told."""

    cpus: int
    memory: int
    #: Start and end of each piece of memory.
    ranges: Sequence[tuple[int, int]]
    manufacturer: str = "Ringfence"
    product: str = "Standard PC"
    version: str = ""
    serial: str = ""
    uuid: bytes = bytes(16)


def tables(machine: SmbiosMachine) -> bytes:
    """All structures, one after the other."""
    maker, product = machine.manufacturer, machine.product
    version, serial = machine.version, machine.serial
    firmware = pack("<BBHBBQBBBBBB", 1, 2, 0xE800, 3, 0, 8, 0, 0x14, 0, 0, 0xFF, 0xFF)
    system = pack("<BBBB16sBBB", 1, 2, 3, 4, machine.uuid, 6, 0, 0)
    chassis = pack("<BBBBBBBBBIBBBBB", 1, 1, 2, 3, 0, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0)
    parts = [
        _structure(0, 0x0000, firmware, (maker, "1.0", "01/01/2024")),
        _structure(1, 0x0100, system, (maker, product, version, serial)),
        _structure(3, 0x0300, chassis, (maker, version, serial)),
    ]
    parts += [_processor(index, maker) for index in range(machine.cpus)]
    parts += _memory(machine, maker)
    parts.append(_structure(32, 0x2000, bytes(6) + b"\0", ()))
    parts.append(_structure(_END, 0x7F00, b"", ()))
    return b"".join(parts)


def anchor(structures: bytes, address: int = 0) -> bytes:
    """The entry point (section 5.2.1) for ``structures`` that lie at ``address``."""
    count, largest, at = 0, 0, 0
    while at < len(structures):
        end = structures.index(b"\0\0", at + structures[at + 1]) + 2
        count, largest, at = count + 1, max(largest, end - at), end
    inner = bytearray(
        pack("<5sBHIHB", b"_DMI_", 0, len(structures), address, count, _VERSION[0] << 4 | 8)
    )
    inner[5] = -sum(inner) & 0xFF
    outer = bytearray(
        pack("<4sBBBBHB5x", b"_SM_", 0, 0x1F, *_VERSION, min(largest, 0xFFFF), 0) + inner
    )
    outer[4] = -sum(outer) & 0xFF
    return bytes(outer)


def _structure(kind: int, handle: int, body: bytes, strings: Sequence[str]) -> bytes:
    """A structure with its strings; an empty string is left out and its number made 0.

    The numbers in ``body`` count all strings, so empty ones become a space.
    """
    texts = b"".join((text or " ").encode("ascii", "replace") + b"\0" for text in strings)
    return pack("<BBH", kind, 4 + len(body), handle) + body + (texts or b"\0") + b"\0"


def _processor(index: int, maker: str) -> bytes:
    """A socket with one processor (section 7.5)."""
    body = pack(
        "<BBBB8sBBHHHBBHHHBBBBBBHH",
        1,  # socket
        3,  # central processor
        _OTHER,
        2,  # manufacturer
        bytes(8),
        3,  # version
        0,
        0,
        2000,
        2000,
        0x41,  # populated, enabled
        _OTHER,
        0xFFFF,
        0xFFFF,
        0xFFFF,
        0,
        0,
        0,
        1,
        1,
        1,
        0x04,  # 64-bit capable
        _OTHER,
    )
    return _structure(4, 0x0400 + index, body, (f"CPU {index}", maker, "Virtual processor"))


def _memory(machine: SmbiosMachine, maker: str) -> list[bytes]:
    """Array, device and mapped ranges (sections 7.17 to 7.20)."""
    size = machine.memory
    short = size >> 10 if size < _LARGE_ARRAY else 0x80000000
    array = pack("<BBBIHHQ", 1, 3, 6, short, 0xFFFE, 1, size if size >= _LARGE_ARRAY else 0)
    small = size // MIB if size <= _LARGE_MEMORY else 0x7FFF
    device = pack(
        "<HHHHHBBBBBHHBBBBBIHHHH",
        _MEMORY_ARRAY,
        0xFFFE,
        64,
        64,
        small,
        9,  # DIMM
        0,
        1,
        0,
        7,  # RAM
        _UNKNOWN,
        0,
        2,
        0,
        0,
        0,
        0,
        size // MIB if size > _LARGE_MEMORY else 0,
        0,
        0,
        0,
        0,
    )
    parts = [
        _structure(16, _MEMORY_ARRAY, array, ()),
        _structure(17, 0x1100, device, ("DIMM 0", maker)),
    ]
    for index, (start, end) in enumerate(machine.ranges):
        # Both in KiB, the end inclusive.
        body = pack("<IIHBQQ", start >> 10, (end >> 10) - 1, _MEMORY_ARRAY, 1, 0, 0)
        if end >> 10 >= 0xFFFFFFFF:
            body = pack("<IIHBQQ", 0xFFFFFFFF, 0xFFFFFFFF, _MEMORY_ARRAY, 1, start, end - 1)
        parts.append(_structure(19, 0x1300 + index, body, ()))
    return parts
