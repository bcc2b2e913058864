"""Base address registers (PCI local bus specification 3.0, section 6.2.5)."""

from collections.abc import Callable
from typing import ClassVar, Literal

from ringfence.bus import Window

__all__ = ["Bar", "BarKind", "RomImage"]

BarKind = Literal["io", "memory32", "memory64"]

_IO, _MEMORY = 1, 2
_TYPE_64, _PREFETCHABLE, _SPACE_IO, _ROM_ENABLE = 0b100, 0b1000, 1, 1
_LAST_32 = (1 << 32) - 1
#: Address lines of the host (SDM vol. 3A, 4.1.4).
_LAST_64 = (1 << 52) - 1


class Bar:
    """One base register, expansion ROM register, or range that a function places itself.

    Args:
        offset: Of its register in configuration space.
        kind: What it decodes; ``own`` asks ``own``.
        window: What is there.
        prefetchable: Whether reads have no side effects.
        own: Where the window is to be, instead of what a register says.
    """

    def __init__(
        self,
        offset: int,
        kind: BarKind | Literal["rom", "own"],
        window: Window,
        *,
        prefetchable: bool = False,
        own: Callable[[], int | None] | None = None,
    ) -> None:
        size = window.length
        least, most = {"io": (4, 256), "own": (1, 1 << 32), "rom": (2048, 1 << 24)}.get(
            kind, (16, 1 << 40)
        )
        if not least <= size <= most or (kind != "own" and size & size - 1):
            raise ValueError(f"{window.name}: a base register for {size} bytes can't be")
        self.offset = offset
        self.kind = kind
        self.window = window
        self.prefetchable = prefetchable
        self._own = own

    def registers(self) -> list[tuple[int, int, int]]:
        """Offset, value after reset and writable bits of each double word."""
        size = self.window.length
        mask = ~(size - 1)
        if self.kind == "io":
            return [(self.offset, _SPACE_IO, mask & 0xFFFFFFFC)]
        if self.kind == "rom":
            return [(self.offset, 0, mask & 0xFFFFF800 | _ROM_ENABLE)]
        kind = _PREFETCHABLE if self.prefetchable else 0
        if self.kind == "memory32":
            return [(self.offset, kind, mask & 0xFFFFFFF0)]
        return [
            (self.offset, kind | _TYPE_64, mask & 0xFFFFFFF0),
            (self.offset + 4, 0, mask >> 32 & 0xFFFFFFFF),
        ]

    def address(self, space: bytearray, command: int) -> int | None:
        """Where the window is wanted by a configuration space and its command register.

        Address 0, what was never set, decodes nothing; nor does a range that leaves its space,
        as that of a register does which is being sized.
        """
        if self.kind == "own":
            assert self._own is not None
            return self._own()
        at, size = self.offset, self.window.length
        value = int.from_bytes(space[at : at + 4], "little")
        if self.kind == "io":
            base, last, enabled = value & ~3, 0xFFFF, command & _IO
        else:
            enabled, last = command & _MEMORY, _LAST_32
            base = value & ~0xF
            if self.kind == "rom":
                base = value & ~0x7FF
                enabled &= (value & _ROM_ENABLE) << 1
            elif self.kind == "memory64":
                base |= int.from_bytes(space[at + 4 : at + 8], "little") << 32
                last = _LAST_64
        # The very end of the space is never decoded: all ones is how a register is sized.
        if not enabled or base == 0 or base + size > last:
            return None
        return base


class RomImage:
    """The contents of an expansion ROM, filled up with all ones."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 8})

    def __init__(self, image: bytes) -> None:
        self.size = max(2048, 1 << (len(image) - 1).bit_length())
        self.image = image.ljust(self.size, b"\xff")

    def read(self, offset: int, size: int) -> int:
        """Bytes of the image."""
        return int.from_bytes(self.image[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Ignored."""
