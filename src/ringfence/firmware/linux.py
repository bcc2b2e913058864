"""Linux/x86 boot protocol: loading a bzImage and entering it past its real-mode part.

Source: Documentation/arch/x86/boot.rst and zero-page.rst of the Linux kernel, protocols 2.06 to
2.15. The 64-bit entry is used where the kernel has one, the 32-bit entry otherwise. Left out:
zImages and protocols before 2.06 (Linux before 2.6.22), the 16-bit entry, EFI stubs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import pack, pack_into, unpack_from

from ringfence.errors import InitrdError, KernelError
from ringfence.firmware.boot import (
    COMMAND_LINE,
    STACK,
    ZERO_PAGE,
    BootPlan,
    command_line_bytes,
    long_mode,
    protected_mode,
)
from ringfence.firmware.e820 import MemoryRange, free_below, holds
from ringfence.firmware.framebuffer import Framebuffer, put_screen_info

__all__ = ["LinuxKernel", "is_bzimage", "parse", "plan"]

# Offsets in the first sector, and equally in the zero page.
_SETUP_SECTS, _SYSSIZE, _BOOT_FLAG, _JUMP, _MAGIC, _VERSION = (
    0x1F1,
    0x1F4,
    0x1FE,
    0x200,
    0x202,
    0x206,
)
_LOADFLAGS, _INITRD_MAX, _ALIGNMENT, _RELOCATABLE, _XLOADFLAGS = 0x211, 0x22C, 0x230, 0x234, 0x236
_CMDLINE_SIZE, _PAYLOAD, _PREF_ADDRESS, _INIT_SIZE = 0x238, 0x248, 0x258, 0x260
_HEADER_START, _HEADER_LIMIT = 0x1F1, 0x290

# Offsets in the zero page alone.
_RSDP, _E820_ENTRIES, _E820_TABLE, _E820_MAX = 0x070, 0x1E8, 0x2D0, 128

_LOADED_HIGH, _KEEP_SEGMENTS = 0x01, 0x40
_XLF_KERNEL_64 = 0x01
_OLDEST = 0x0206
_ONE_MEGABYTE = 0x100000
_ENTRY_64 = 0x200
_UNKNOWN_LOADER = 0xFF
_NORMAL_VIDEO = 0xFFFF
_LARGEST_HEADER = 64 * 512


@dataclass(frozen=True, slots=True)
class LinuxKernel:
    """A bzImage and what its setup header says."""

    image: memoryview
    #: Protocol version, major in bits 8 to 15.
    version: int
    #: Bytes of the real-mode part, which the protected-mode part follows.
    setup_size: int
    #: Bytes of the protected-mode part.
    size: int
    relocatable: bool
    #: Alignment of the load address.
    alignment: int
    #: Where the kernel wants to be loaded.
    preferred: int
    #: Memory it needs from its load address on until it has found its own.
    init_size: int
    #: Highest address of an initial RAM disk's last byte.
    initrd_max: int
    #: Longest command line, without the terminating zero.
    command_line_size: int
    #: It has the 64-bit entry.
    entry_64: bool


def is_bzimage(image: bytes | memoryview) -> bool:
    """Whether ``image`` has the mark of the boot protocol."""
    return bytes(image[_MAGIC : _MAGIC + 4]) == b"HdrS"


def parse(image: bytes | memoryview) -> LinuxKernel:
    """Reads and checks the setup header.

    Raises:
        KernelError: it is not a bzImage, is truncated, or contradicts itself.
    """
    view = memoryview(image).cast("B")
    if len(view) < _HEADER_LIMIT:
        raise KernelError(f"the kernel is truncated: it has only {len(view)} bytes")
    if not is_bzimage(view):
        raise KernelError("not a Linux kernel: the mark HdrS is missing at 0x202")
    if unpack_from("<H", view, _BOOT_FLAG)[0] != 0xAA55:
        raise KernelError("the kernel is damaged: the boot flag AA55 is missing at 0x1fe")
    (version,) = unpack_from("<H", view, _VERSION)
    if version < _OLDEST:
        raise KernelError(
            f"the kernel is too old: boot protocol {version >> 8}.{version & 255:02d}, "
            "2.06 is needed"
        )
    if not view[_LOADFLAGS] & _LOADED_HIGH:
        raise KernelError("the kernel is a zImage; only bzImages can be loaded")
    setup_size = (1 + (view[_SETUP_SECTS] or 4)) * 512
    (paragraphs,) = unpack_from("<I", view, _SYSSIZE)
    size = paragraphs * 16
    # The last paragraph may be padding that the file does without.
    if size == 0 or setup_size + size - 15 > len(view):
        raise KernelError(
            f"the kernel is truncated: its header promises {setup_size + size} bytes, "
            f"the file has {len(view)}"
        )
    size = min(size, len(view) - setup_size)
    (alignment,) = unpack_from("<I", view, _ALIGNMENT)
    relocatable = view[_RELOCATABLE] != 0
    if relocatable and (alignment & (alignment - 1) or not 4096 <= alignment <= 1 << 30):
        raise KernelError(f"the kernel is damaged: its alignment is {alignment:#x}")
    preferred, init_size, flags = _ONE_MEGABYTE, 0, 0
    if version >= 0x020A:
        preferred, init_size = unpack_from("<QI", view, _PREF_ADDRESS)
    if version >= 0x020C:
        (flags,) = unpack_from("<H", view, _XLOADFLAGS)
    if version >= 0x0208:
        offset, length = unpack_from("<II", view, _PAYLOAD)
        if offset + length > size:
            raise KernelError("the kernel is damaged: its payload lies outside of it")
    initrd_max, command_line = unpack_from("<I", view, _INITRD_MAX)[0], 0
    (command_line,) = unpack_from("<I", view, _CMDLINE_SIZE)
    return LinuxKernel(
        image=view,
        version=version,
        setup_size=setup_size,
        size=size,
        relocatable=relocatable,
        alignment=alignment or 1,
        preferred=preferred,
        # Before protocol 2.10 nobody says; compressed kernels grow about threefold.
        init_size=max(init_size, size) if init_size else 4 * size,
        initrd_max=initrd_max or 0x37FFFFFF,
        command_line_size=command_line or 255,
        entry_64=bool(flags & _XLF_KERNEL_64),
    )


def plan(
    kernel: LinuxKernel,
    *,
    ranges: Sequence[MemoryRange],
    command_line: str = "",
    initrd: bytes | memoryview | None = None,
    rsdp: int = 0,
    framebuffer: Framebuffer | None = None,
) -> BootPlan:
    """Places a kernel and what belongs to it, and says how to enter it.

    Args:
        kernel: A parsed bzImage.
        ranges: The memory map, which the kernel is told too.
        command_line: The kernel's parameters.
        initrd: The initial RAM disk.
        rsdp: Address of the ACPI root pointer, or 0.
        framebuffer: What the display shows, for the kernel's console.

    Raises:
        KernelError: the kernel or its command line does not fit.
        InitrdError: the initial RAM disk does not fit.
    """
    load = _load_address(kernel, ranges)
    parameters = command_line_bytes(command_line, kernel.command_line_size)
    zero_page = _zero_page(kernel, ranges, load, rsdp)
    if framebuffer is not None:
        put_screen_info(zero_page, framebuffer)
    writes: list[tuple[int, bytes | memoryview]] = [
        (load, kernel.image[kernel.setup_size : kernel.setup_size + kernel.size]),
        (COMMAND_LINE, parameters),
    ]
    if initrd is not None:
        at = place_initrd(
            ranges, len(initrd), kernel.initrd_max + 1, [(load, load + kernel.init_size)]
        )
        pack_into("<II", zero_page, 0x218, at, len(initrd))
        writes.append((at, initrd))
    writes.append((ZERO_PAGE, bytes(zero_page)))
    mode, system_registers = long_mode() if kernel.entry_64 else protected_mode()
    return BootPlan(
        kind="bzImage, 64-bit entry" if kernel.entry_64 else "bzImage, 32-bit entry",
        writes=writes + mode,
        registers={
            "rip": load + _ENTRY_64 if kernel.entry_64 else load,
            "rsi": ZERO_PAGE,
            "rsp": STACK,
            "rflags": 2,
        },
        system_registers=system_registers,
    )


def place_initrd(
    ranges: Sequence[MemoryRange], size: int, limit: int, taken: Sequence[tuple[int, int]]
) -> int:
    """The address of an initial RAM disk: as high as it may be, away from the kernel.

    Raises:
        InitrdError: it is empty, or there is no room.
    """
    if size == 0:
        raise InitrdError("the initial RAM disk is empty")
    high = [entry for entry in ranges if entry.start >= _ONE_MEGABYTE]
    try:
        return free_below(high, size, limit=min(limit, 1 << 32), taken=taken)
    except KernelError:
        raise InitrdError(
            f"the initial RAM disk of {size >> 20} MiB does not fit beside the kernel: "
            "give the machine more memory"
        ) from None


def _load_address(kernel: LinuxKernel, ranges: Sequence[MemoryRange]) -> int:
    """Where the kernel goes: where it prefers.

    A relocatable kernel may be loaded lower, but moves itself up to its preferred address before
    it unpacks, so nothing is won by that.
    """
    at = kernel.preferred
    if kernel.relocatable:
        at = -(-at // kernel.alignment) * kernel.alignment
    end = at + kernel.init_size
    if at < _ONE_MEGABYTE or end > 1 << 32:
        raise KernelError(f"the kernel is damaged: it wants to be loaded at {at:#x}")
    if not holds(ranges, at, kernel.init_size):
        raise KernelError(
            f"the kernel needs at least {-(-end // _ONE_MEGABYTE)} MiB of memory to start: "
            "give the machine more memory"
        )
    return at


def _zero_page(
    kernel: LinuxKernel, ranges: Sequence[MemoryRange], load: int, rsdp: int
) -> bytearray:
    """``struct boot_params`` with the kernel's own header and what a boot loader adds to it."""
    page = bytearray(4096)
    # The header ends where its jump instruction leads.
    end = min(_MAGIC + kernel.image[_JUMP + 1], _HEADER_LIMIT)
    page[_HEADER_START:end] = kernel.image[_HEADER_START:end]
    pack_into("<H", page, 0x1FA, _NORMAL_VIDEO)
    page[0x210] = _UNKNOWN_LOADER
    page[_LOADFLAGS] = kernel.image[_LOADFLAGS] & ~_KEEP_SEGMENTS & 0xFF
    pack_into("<I", page, 0x214, load)
    pack_into("<II", page, 0x218, 0, 0)
    pack_into("<I", page, 0x228, COMMAND_LINE)
    pack_into("<Q", page, 0x250, 0)  # setup_data: none
    pack_into("<Q", page, _RSDP, rsdp)
    entries = ranges[:_E820_MAX]
    page[_E820_ENTRIES] = len(entries)
    table = b"".join(pack("<QQI", entry.start, entry.size, entry.kind) for entry in entries)
    page[_E820_TABLE : _E820_TABLE + len(table)] = table
    return page
