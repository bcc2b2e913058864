"""Dispatch of memory-mapped accesses by binary search over sorted, disjoint ranges."""

from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple, cast

from ringfence.bus.contracts import Device, Region
from ringfence.errors import ConfigError, OverlapError

__all__ = ["ADDRESSES", "MmioBus", "length_of"]

#: Size of the physical address space (SDM vol. 3A, 4.1.4: at most 52 bits).
ADDRESSES = 1 << 52


class _Range(NamedTuple):
    """A claimed range."""

    start: int
    end: int
    read: Callable[[int, int], int]
    write: Callable[[int, int, int], None]
    widths: frozenset[int]
    name: str


def length_of(device: Region) -> int:
    """How much a whole device spans."""
    return cast("Device", device).LENGTH


class MmioBus:
    """All memory-mapped devices of a machine."""

    __slots__ = ("_ranges", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ranges: list[_Range] = []

    def add(self, base: int, device: Region, *, name: str, length: int | None = None) -> None:
        """Puts ``length`` bytes of ``device`` at guest physical address ``base``.

        Without a length it is the device's ``LENGTH``.

        Raises:
            ConfigError: the range leaves the address space.
            OverlapError: another device claims part of it.
        """
        end = base + (length_of(device) if length is None else length)
        if not 0 <= base < end <= ADDRESSES:
            raise ConfigError(f"{name}: addresses {base:#x} to {end - 1:#x} do not exist")
        index = bisect_right(self._starts, base)
        for neighbour in self._ranges[max(index - 1, 0) : index + 1]:
            if base < neighbour.end and neighbour.start < end:
                raise OverlapError(
                    f"{name} at {base:#x} to {end - 1:#x} overlaps {neighbour.name} at "
                    f"{neighbour.start:#x} to {neighbour.end - 1:#x}"
                )
        self._starts.insert(index, base)
        self._ranges.insert(
            index, _Range(base, end, device.read, device.write, device.WIDTHS, name)
        )

    def remove(self, base: int) -> None:
        """Takes away the device whose range begins at ``base``; none there is no error."""
        index = bisect_right(self._starts, base) - 1
        if index >= 0 and self._starts[index] == base:
            del self._starts[index], self._ranges[index]

    def read(self, address: int, size: int) -> int:
        """The answer to a load; all ones where nothing is."""
        found = self._find(address)
        if found is not None and size in found.widths and address + size <= found.end:
            return found.read(address - found.start, size) & ((1 << 8 * size) - 1)
        part = self._part(found, address, size)
        if part == 0:
            return (1 << 8 * size) - 1
        value = 0
        for index in range(0, size, part):
            value |= self.read(address + index, part) << 8 * index
        return value

    def write(self, address: int, size: int, value: int) -> None:
        """Takes a store; ignored where nothing is."""
        found = self._find(address)
        if found is not None and size in found.widths and address + size <= found.end:
            found.write(address - found.start, size, value & ((1 << 8 * size) - 1))
            return
        part = self._part(found, address, size)
        for index in range(0, size if part else 0, part or 1):
            self.write(address + index, part, value >> 8 * index)

    def owner(self, address: int) -> str | None:
        """Name of the device that claims ``address``."""
        found = self._find(address)
        return None if found is None else found.name

    def ranges(self) -> list[tuple[int, int, str]]:
        """All claims as ``(first address, last address, name)``, in order."""
        return [(entry.start, entry.end - 1, entry.name) for entry in self._ranges]

    def _find(self, address: int) -> _Range | None:
        """The range that holds ``address``."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        found = self._ranges[index]
        return found if address < found.end else None

    def _part(self, found: _Range | None, address: int, size: int) -> int:
        """Into what size to split an access that no one takes whole; 0: nobody is there."""
        if found is None:
            index = bisect_right(self._starts, address)
            reaches = index < len(self._starts) and self._starts[index] < address + size
            return 1 if reaches and size > 1 else 0
        for width in (4, 2, 1):
            if width < size and width in found.widths and size % width == 0:
                return width
        # Narrower than the device takes, or odd: bytes, which again find nobody.
        return 1 if size > 1 and address + size > found.end else 0
