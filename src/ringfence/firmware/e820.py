"""The map of physical memory that firmware hands to an operating system.

Source: ACPI specification 6.5, chapter 15 (system address map interfaces), table 15.2.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ringfence.errors import KernelError

__all__ = ["ACPI", "NVS", "RAM", "RESERVED", "MemoryRange", "free_below", "holds"]

#: Types of ranges: usable memory, never usable, usable after the tables were read, keep in sleep.
RAM, RESERVED, ACPI, NVS = 1, 2, 3, 4


class MemoryRange(NamedTuple):
    """A range of guest physical memory."""

    start: int
    size: int
    kind: int = RAM

    @property
    def end(self) -> int:
        """First address behind the range."""
        return self.start + self.size


def holds(ranges: Iterable[MemoryRange], start: int, size: int) -> bool:
    """Whether one usable range holds all of ``size`` bytes at ``start``."""
    return any(
        entry.kind == RAM and entry.start <= start and start + size <= entry.end for entry in ranges
    )


def free_below(
    ranges: Iterable[MemoryRange],
    size: int,
    *,
    limit: int,
    taken: Sequence[tuple[int, int]] = (),
    align: int = 4096,
) -> int:
    """The highest aligned address below ``limit`` with ``size`` usable bytes.

    ``taken`` are ``(start, end)`` that must stay free.

    Raises:
        KernelError: there is no such place.
    """
    best = -1
    for entry in ranges:
        if entry.kind != RAM:
            continue
        end = min(entry.end, limit)
        # Below each obstacle there may be room, as well as below the end.
        for top in (end, *(start for start, _ in taken if entry.start <= start < end)):
            at = (top - size) // align * align
            clear = all(at + size <= start or stop <= at for start, stop in taken)
            if at >= entry.start and at + size <= end and clear:
                best = max(best, at)
    if best < 0:
        raise KernelError(f"no room for {size:#x} bytes below {limit:#x}: give more memory")
    return best
