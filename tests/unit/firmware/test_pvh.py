"""Loading ELF kernels by the PVH boot protocol."""

from struct import unpack_from

import pytest

from ringfence.errors import InitrdError, KernelError
from ringfence.firmware import direct, elf
from ringfence.firmware.boot import COMMAND_LINE, START_INFO, BootPlan
from ringfence.firmware.e820 import RAM, MemoryRange
from support import kernels

RANGES = [MemoryRange(0, 0x9FC00, RAM), MemoryRange(0x100000, 0x7F00000, RAM)]


def plan(kernel: bytes, **options: object) -> BootPlan:
    return direct.plan(kernel, ranges=RANGES, **options)  # type: ignore[arg-type]


def written(boot: BootPlan, address: int) -> bytes:
    return bytes(next(data for at, data in boot.writes if at == address))


@pytest.mark.parametrize("bits", [32, 64])
def test_entry_state(bits: int) -> None:
    boot = plan(kernels.pvh(bits=bits), command_line="quiet", rsdp=0xE0000)
    assert boot.registers == {"rip": 0x1000010, "rbx": START_INFO, "rflags": 2}
    system = boot.system_registers
    assert (system["cr0"] & 0x80000001, system["cr4"], system["efer"]) == (1, 0, 0)
    assert system["cs"]["attributes"] == 0xC09B
    assert system["tr"]["limit"] == 0x67
    assert written(boot, 0x1000000) == b"code" * 100
    assert written(boot, 0x1200000) == b"data"
    assert written(boot, COMMAND_LINE) == b"quiet\0"


def test_start_info() -> None:
    boot = plan(kernels.pvh(), rsdp=0xE0000, initrd=b"i" * 5000)
    info = written(boot, START_INFO)
    magic, version, flags, modules, list_at, line, rsdp, map_at, entries, _ = unpack_from(
        "<4I4Q2I", info
    )
    assert (magic, version, flags, modules) == (0x336EC578, 1, 0, 1)
    assert (line, rsdp, entries) == (COMMAND_LINE, 0xE0000, 2)
    at, size, _, _ = unpack_from("<4Q", written(boot, list_at))
    assert (at, size) == (0x8000000 - 0x2000, 5000)
    assert written(boot, at) == b"i" * 5000
    assert unpack_from("<QQII", written(boot, map_at), 24) == (0x100000, 0x7F00000, 1, 0)


def test_kernels_without_the_entry() -> None:
    segment = [(0x1000000, b"x", 0x1000)]
    with pytest.raises(KernelError, match="CONFIG_PVH"):
        plan(kernels.elf(segment))
    for descriptor in (b"", b"\0\0", (0x5000000).to_bytes(8, "little")):
        with pytest.raises(KernelError, match="PVH"):
            plan(kernels.elf(segment, kernels.note(b"Xen\0", 18, descriptor)))


def test_kernels_outside_of_memory() -> None:
    notes = kernels.note(b"Xen\0", 18, (0x9000000).to_bytes(8, "little"))
    with pytest.raises(KernelError, match="more memory"):
        plan(kernels.elf([(0x9000000, b"x", 0x1000)], notes))
    notes = kernels.note(b"Xen\0", 18, (0x7000).to_bytes(8, "little"))
    with pytest.raises(KernelError, match="0x7000"):
        plan(kernels.elf([(0x7000, b"x", 0x1000)], notes))


def test_initrd_errors() -> None:
    with pytest.raises(InitrdError):
        plan(kernels.pvh(), initrd=b"")
    with pytest.raises(InitrdError):
        plan(kernels.pvh(), initrd=bytes(0x7F00000))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (4, 3, "not for x86"),
        (5, 2, "not for x86"),
        (18, 40, "not for x86"),
        (16, 1, "not an executable"),
        (56, 0, "damaged"),
        (54, 1, "damaged"),
        (39, 0xFF, "truncated"),
        (64 + 8 + 7, 0xFF, "truncated"),
        (64 + 40, 1, "size"),
    ],
)
def test_damaged_headers(offset: int, value: int, message: str) -> None:
    image = bytearray(kernels.pvh())
    image[offset] = value
    if offset == 64 + 40:
        image[offset + 1] = 0
    with pytest.raises(KernelError, match=message):
        plan(bytes(image))


def test_every_truncation_is_refused_or_loses_notes_only() -> None:
    image = kernels.pvh()
    for length in range(len(image)):
        with pytest.raises(KernelError):
            plan(image[:length])


def test_notes_that_run_over_are_dropped() -> None:
    good = kernels.note(b"A\0", 1, b"12345")
    broken = kernels.note(b"B\0", 2, b"x")[:-1] + b""
    parsed = elf.parse(kernels.elf([(0x100000, b"x", 1)], good + broken[:13]))
    assert parsed.notes == [(b"A\0", 1, b"12345")]


def test_neither_bzimage_nor_elf() -> None:
    with pytest.raises(KernelError, match="neither"):
        plan(b"MZ" + bytes(4096))
