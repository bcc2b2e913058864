"""Whatever the bytes: a plan that stays within the memory, or an error that says why."""

import contextlib

from hypothesis import example, given
from hypothesis import strategies as st

from ringfence.errors import InitrdError, KernelError
from ringfence.firmware import direct, elf, linux
from ringfence.firmware.e820 import RAM, RESERVED, MemoryRange, free_below, holds
from support import kernels

RANGES = [
    MemoryRange(0, 0x9FC00, RAM),
    MemoryRange(0xE0000, 0x20000, RESERVED),
    MemoryRange(0x100000, 0x7F00000, RAM),
]
BZIMAGE = kernels.bzimage(b"\xf4" * 1024)
PVH64, PVH32 = kernels.pvh(bits=64), kernels.pvh(bits=32)


def attempt(image: bytes, initrd: bytes | None = None) -> None:
    """Plans a boot; whatever is planned lies in memory and is no more than what was given."""
    try:
        boot = direct.plan(image, ranges=RANGES, command_line="x", initrd=initrd)
    except (KernelError, InitrdError) as error:
        assert str(error)  # noqa: PT017 - an error is one of two good outcomes
        return
    spans = sorted((at, at + len(data)) for at, data in boot.writes)
    assert all(holds(RANGES, start, end - start) for start, end in spans)
    assert sum(end - start for start, end in spans) <= 3 * len(image) + (1 << 17)
    assert 0x100000 <= boot.registers["rip"] < 1 << 32


@given(st.binary(max_size=2048))
@example(b"\x7fELF")
@example(b"\x7fELF\x02\x01" + bytes(58))
def test_arbitrary_bytes(data: bytes) -> None:
    attempt(data)
    for parse in (linux.parse, elf.parse):
        with contextlib.suppress(KernelError):
            parse(data)


def damaged(image: bytes, length: int, changes: list[tuple[int, int]]) -> bytes:
    result = bytearray(image[: max(length, 1)])
    for at, value in changes:
        result[at % len(result)] = value
    return bytes(result)


changes = st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=8)
lengths = st.one_of(st.just(1 << 20), st.integers(1, 3000))


@given(st.sampled_from([BZIMAGE, PVH64, PVH32]), lengths, changes)
def test_damaged_kernels(image: bytes, length: int, todo: list[tuple[int, int]]) -> None:
    attempt(damaged(image, length, todo), b"initrd")


@given(changes=st.lists(st.tuples(st.integers(0x1F1, 0x268), st.integers(0, 255)), max_size=6))
def test_damaged_setup_headers(changes: list[tuple[int, int]]) -> None:
    attempt(damaged(BZIMAGE, 1 << 20, changes), b"initrd")


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 60)), max_size=4),
    st.integers(1, 80),
    st.integers(0, 300),
    st.lists(st.tuples(st.integers(0, 250), st.integers(1, 50)), max_size=4),
    st.sampled_from([1, 4, 16]),
)
def test_free_below_finds_the_highest_place(
    blocks: list[tuple[int, int]],
    size: int,
    limit: int,
    obstacles: list[tuple[int, int]],
    align: int,
) -> None:
    ranges = [MemoryRange(start, length) for start, length in blocks]
    taken = [(start, start + length) for start, length in obstacles]

    def good(at: int) -> bool:
        inside = any(r.start <= at and at + size <= r.end for r in ranges)
        clear = all(at + size <= start or end <= at for start, end in taken)
        return inside and clear and at + size <= limit

    wanted = max((at for at in range(0, 300, align) if good(at)), default=None)
    try:
        found = free_below(ranges, size, limit=limit, taken=taken, align=align)
    except KernelError:
        assert wanted is None
    else:
        assert found == wanted
