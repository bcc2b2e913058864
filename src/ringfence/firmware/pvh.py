"""PVH direct boot: an ELF kernel entered in 32-bit protected mode.

Source: Xen documentation, docs/misc/pvh.pandoc (entry state), and
xen/include/public/arch-x86/hvm/start_info.h (``struct hvm_start_info`` version 1). Linux has this
entry in its uncompressed ``vmlinux`` when built with CONFIG_PVH.
"""

from collections.abc import Sequence
from struct import pack

from ringfence.errors import KernelError
from ringfence.firmware.boot import (
    COMMAND_LINE,
    COMMAND_LINE_ROOM,
    START_INFO,
    BootPlan,
    command_line_bytes,
    protected_mode,
)
from ringfence.firmware.e820 import MemoryRange, holds
from ringfence.firmware.elf import ElfFile
from ringfence.firmware.linux import place_initrd

__all__ = ["entry_point", "plan"]

_NOTE_NAME, _NOTE_PHYS32_ENTRY = b"Xen\0", 18
_START_MAGIC = 0x336EC578
_VERSION = 1
_MODULES = START_INFO + 0x100
_MEMORY_MAP = START_INFO + 0x200
_MOST_RANGES = 128
_ONE_MEGABYTE = 0x100000


def entry_point(kernel: ElfFile) -> int:
    """Physical address of the PVH entry.

    Raises:
        KernelError: the kernel has none.
    """
    for name, kind, descriptor in kernel.notes:
        if name == _NOTE_NAME and kind == _NOTE_PHYS32_ENTRY and len(descriptor) in (4, 8):
            entry = int.from_bytes(descriptor, "little")
            loaded = any(s.address <= entry < s.address + s.size for s in kernel.segments)
            if not loaded or entry >= 1 << 32:
                raise KernelError(f"the PVH entry {entry:#x} lies outside of the kernel")
            return entry
    raise KernelError(
        "the ELF kernel has no PVH entry (note XEN_ELFNOTE_PHYS32_ENTRY): "
        "take the bzImage, or build it with CONFIG_PVH"
    )


def plan(
    kernel: ElfFile,
    *,
    ranges: Sequence[MemoryRange],
    command_line: str = "",
    initrd: bytes | memoryview | None = None,
    rsdp: int = 0,
) -> BootPlan:
    """Places a kernel and what belongs to it, and says how to enter it.

    Arguments and errors are those of :func:`ringfence.firmware.linux.plan`.
    """
    entry = entry_point(kernel)
    spans: list[tuple[int, int]] = []
    writes: list[tuple[int, bytes | memoryview]] = []
    for segment in kernel.segments:
        if segment.address < _ONE_MEGABYTE or not holds(ranges, segment.address, segment.size):
            raise KernelError(
                f"the kernel needs {segment.size >> 10} KiB of memory at "
                f"{segment.address:#x}, where the machine has none: give it more memory"
            )
        spans.append((segment.address, segment.address + segment.size))
        writes.append((segment.address, segment.data))
    writes.append((COMMAND_LINE, command_line_bytes(command_line, COMMAND_LINE_ROOM - 1)))
    if initrd is not None:
        at = place_initrd(ranges, len(initrd), 1 << 32, spans)
        writes.append((at, initrd))
        writes.append((_MODULES, pack("<4Q", at, len(initrd), 0, 0)))
    entries = ranges[:_MOST_RANGES]
    memory_map = b"".join(pack("<QQII", e.start, e.size, e.kind, 0) for e in entries)
    writes.append((_MEMORY_MAP, memory_map))
    start_info = pack(
        "<4I4Q2I",
        _START_MAGIC,
        _VERSION,
        0,
        0 if initrd is None else 1,
        0 if initrd is None else _MODULES,
        COMMAND_LINE,
        rsdp,
        _MEMORY_MAP,
        len(entries),
        0,
    )
    writes.append((START_INFO, start_info))
    mode, system_registers = protected_mode()
    return BootPlan(
        kind="ELF, PVH entry",
        writes=writes + mode,
        registers={"rip": entry, "rbx": START_INFO, "rflags": 2},
        system_registers=system_registers,
    )
