"""Direct boot: picks the protocol by the kernel's own mark."""

from collections.abc import Sequence

from ringfence.errors import KernelError
from ringfence.firmware import elf, linux, pvh
from ringfence.firmware.boot import BootPlan
from ringfence.firmware.e820 import MemoryRange
from ringfence.firmware.framebuffer import Framebuffer

__all__ = ["plan"]


def plan(
    kernel: bytes | memoryview,
    *,
    ranges: Sequence[MemoryRange],
    command_line: str = "",
    initrd: bytes | memoryview | None = None,
    rsdp: int = 0,
    framebuffer: Framebuffer | None = None,
) -> BootPlan:
    """How to boot ``kernel``: a bzImage, or an ELF file with a PVH entry.

    Arguments and errors are those of :func:`ringfence.firmware.linux.plan`.
    """
    if elf.is_elf(kernel):
        return pvh.plan(
            elf.parse(kernel), ranges=ranges, command_line=command_line, initrd=initrd, rsdp=rsdp
        )
    if linux.is_bzimage(kernel):
        return linux.plan(
            linux.parse(kernel),
            ranges=ranges,
            command_line=command_line,
            initrd=initrd,
            rsdp=rsdp,
            framebuffer=framebuffer,
        )
    raise KernelError(
        f"not a kernel that can be booted: {len(kernel)} bytes with neither the mark of a bzImage "
        "nor that of an ELF file"
    )
