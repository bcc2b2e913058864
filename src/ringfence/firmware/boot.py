"""What every direct boot leaves behind: bytes in memory and the state of the first processor.

The low addresses follow the habit of boot loaders: everything lies in the first 640 KiB, which
no kernel is loaded to.
"""

from array import array
from dataclasses import dataclass, field
from struct import pack
from typing import Any

from ringfence.errors import KernelError

__all__ = [
    "COMMAND_LINE",
    "COMMAND_LINE_ROOM",
    "GDT",
    "PAGE_TABLES",
    "STACK",
    "START_INFO",
    "ZERO_PAGE",
    "BootPlan",
    "command_line_bytes",
    "identity_page_tables",
    "long_mode",
    "protected_mode",
]

GDT = 0x1000
START_INFO = 0x6000
ZERO_PAGE = 0x7000
#: Top of a small stack, should the kernel use one before it sets its own.
STACK = 0x9000
PAGE_TABLES = 0x9000
COMMAND_LINE = 0x20000
#: Room for the command line with its terminating zero.
COMMAND_LINE_ROOM = 0x10000

#: Selectors of the Linux boot protocol: __BOOT_CS and __BOOT_DS.
_CODE, _DATA, _TASK = 0x10, 0x18, 0x20
_DESCRIPTOR_CODE32 = 0x00CF_9B00_0000_FFFF
_DESCRIPTOR_CODE64 = 0x00AF_9B00_0000_FFFF
_DESCRIPTOR_DATA = 0x00CF_9300_0000_FFFF
_DESCRIPTOR_TASK = 0x0000_8B00_0000_0067
_ATTRIBUTES_CODE32, _ATTRIBUTES_CODE64 = 0xC09B, 0xA09B
_ATTRIBUTES_DATA, _ATTRIBUTES_TASK, _UNUSABLE = 0xC093, 0x8B, 0x10000

_CR0_PE, _CR0_ET, _CR0_NE, _CR0_PG = 1 << 0, 1 << 4, 1 << 5, 1 << 31
_CR4_PAE = 1 << 5
_EFER_LME, _EFER_LMA = 1 << 8, 1 << 10
_PAGE_PRESENT, _PAGE_WRITABLE, _PAGE_LARGE = 1 << 0, 1 << 1, 1 << 7


@dataclass(frozen=True, slots=True)
class BootPlan:
    """Everything a machine needs to start a kernel."""

    #: What kind of kernel it is, for messages.
    kind: str
    #: Bytes to copy to guest physical addresses.
    writes: list[tuple[int, bytes | memoryview]]
    #: General registers by name; those not named are 0.
    registers: dict[str, int]
    #: System registers by name, in the engine's form.
    system_registers: dict[str, Any] = field(default_factory=dict)


def command_line_bytes(text: str, limit: int) -> bytes:
    """The command line with its terminating zero.

    Raises:
        KernelError: it is longer than ``limit`` bytes without the zero, or holds a zero.
    """
    encoded = text.encode(errors="surrogateescape")
    limit = min(limit, COMMAND_LINE_ROOM - 1)
    if len(encoded) > limit:
        raise KernelError(
            f"the kernel command line is {len(encoded)} bytes long; this kernel takes {limit}"
        )
    if 0 in encoded:
        raise KernelError("the kernel command line holds a zero byte")
    return encoded + b"\0"


def identity_page_tables() -> list[tuple[int, bytes]]:
    """Page tables that map the first 4 GiB to themselves in 2 MiB pages (SDM vol. 3A, 4.5)."""
    flags = _PAGE_PRESENT | _PAGE_WRITABLE
    pml4, pdpt, directory = PAGE_TABLES, PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000
    directories = array("Q", range(flags | _PAGE_LARGE, 4 << 30, 2 << 20))
    return [
        (pml4, pack("<Q", pdpt | flags)),
        (pdpt, pack("<4Q", *(directory + 0x1000 * index | flags for index in range(4)))),
        (directory, directories.tobytes()),
    ]


def long_mode() -> tuple[list[tuple[int, bytes | memoryview]], dict[str, Any]]:
    """Memory and system registers for 64-bit mode with identity-mapped paging."""
    writes: list[tuple[int, bytes | memoryview]] = [*identity_page_tables()]
    writes.append((GDT, _gdt(_DESCRIPTOR_CODE64)))
    registers = _flat(_ATTRIBUTES_CODE64) | {
        "cr0": _CR0_PE | _CR0_ET | _CR0_NE | _CR0_PG,
        "cr3": PAGE_TABLES,
        "cr4": _CR4_PAE,
        "efer": _EFER_LME | _EFER_LMA,
    }
    return writes, registers


def protected_mode() -> tuple[list[tuple[int, bytes | memoryview]], dict[str, Any]]:
    """Memory and system registers for 32-bit protected mode with flat segments, paging off."""
    registers = _flat(_ATTRIBUTES_CODE32) | {
        "cr0": _CR0_PE | _CR0_ET,
        "cr3": 0,
        "cr4": 0,
        "efer": 0,
    }
    return [(GDT, _gdt(_DESCRIPTOR_CODE32))], registers


def _gdt(code: int) -> bytes:
    """Descriptors for the selectors above; the task descriptor spans two entries in long mode."""
    return pack("<6Q", 0, 0, code, _DESCRIPTOR_DATA, _DESCRIPTOR_TASK, 0)


def _flat(code: int) -> dict[str, Any]:
    """Segment and table registers for flat segments."""
    data = _segment(_DATA, _ATTRIBUTES_DATA)
    return {
        "cs": _segment(_CODE, code),
        **dict.fromkeys(("ds", "es", "fs", "gs", "ss"), data),
        "tr": _segment(_TASK, _ATTRIBUTES_TASK, limit=0x67),
        "ldtr": _segment(0, _UNUSABLE, limit=0),
        "gdtr": {"base": GDT, "limit": 6 * 8 - 1},
        "idtr": {"base": 0, "limit": 0},
    }


def _segment(selector: int, attributes: int, limit: int = 0xFFFFFFFF) -> dict[str, int]:
    return {"base": 0, "limit": limit, "attributes": attributes, "selector": selector}
