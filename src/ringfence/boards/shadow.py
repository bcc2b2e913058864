"""The memory between C0000h and FFFFFh: firmware's ROM, the RAM behind it, and which is seen.

Source: Intel 440FX PCIset data sheet (290549-001), section 3.2.18 (PAM registers). Where reads go
to PCI, the end of the firmware's ROM answers from E0000h on, and nobody below. Where only writes
go to RAM, a BIOS copies itself by writing each byte where it has read it.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from ringfence.bus import MemoryMap, MmioBus
from ringfence.devices.pci.host_bridge import PamPiece

__all__ = ["SHADOW", "SHADOW_END", "Shadow"]

SHADOW, SHADOW_END = 0xC0000, 0x100000
#: Where the ROM shows below 1 MiB.
_ROM = 0xE0000


class Shadow:
    """Maps the pieces as the host bridge says.

    Args:
        memory: Where to map them.
        ram: The machine's memory, whose first megabyte holds the RAM behind the ROM.
        rom: The end of the firmware as it shows from E0000h on: 128 KiB or less.
        mmio: Bus that gets the accesses no mapping answers.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 8})

    def __init__(self, memory: MemoryMap, ram: Any, rom: bytes, mmio: MmioBus) -> None:
        self._memory: MemoryMap | None = memory
        self._ram = ram
        self._rom = memory.create(SHADOW_END - _ROM)
        self._rom.view()[:] = rom.rjust(SHADOW_END - _ROM, b"\xff")
        self._now: dict[int, PamPiece] = {}
        mmio.add(SHADOW, self, name="shadow", length=SHADOW_END - SHADOW)
        memory.map(_ROM, self._rom, readonly=True)

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """Where nothing is mapped nobody answers."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes that a read-only mapping has refused: to the RAM behind, or dropped."""
        for at, byte in enumerate(value.to_bytes(size, "little"), SHADOW + offset):
            if self._writable(at):
                self._ram.view()[at] = byte
                self._ram.written(at, 1)

    def set(self, pieces: Iterable[PamPiece]) -> None:
        """Maps anew those pieces that have changed."""
        for piece in pieces:
            address, size, reads, writes = piece
            before = self._now.get(address, (address, size, False, False))
            self._now[address] = piece
            if before == piece or self._memory is None:
                continue
            if reads:
                self._memory.map(
                    address,
                    self._ram,
                    offset=address,
                    size=size,
                    readonly=not writes,
                    replace=True,
                )
            elif before[2] and address < _ROM:
                self._memory.unmap(address, size)
            elif before[2]:
                self._memory.map(
                    address,
                    self._rom,
                    offset=address - _ROM,
                    size=size,
                    readonly=True,
                    replace=True,
                )

    def close(self) -> None:
        """Lets go of the machine."""
        self._memory = None

    def _writable(self, address: int) -> bool:
        return any(
            start <= address < start + size and writes
            for start, size, _, writes in self._now.values()
        )
