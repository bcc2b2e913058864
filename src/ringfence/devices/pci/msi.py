"""Message-signalled interrupts (PCI local bus specification 3.0, section 6.8)."""

from typing import TYPE_CHECKING, ClassVar

from ringfence.errors import StateError

if TYPE_CHECKING:
    from ringfence.devices.pci.function import PciDevice

__all__ = ["Msi", "MsiX"]

_MSI, _MSIX = 0x05, 0x11
_ENTRY = 16
_MASKED = 1
_MSIX_ENABLE, _MSIX_MASK_ALL = 0x8000, 0x4000


class Msi:
    """The MSI capability: 64-bit address, a mask bit for each vector.

    Args:
        function: Whose it is.
        vectors: How many it asks for: a power of two up to 32.
    """

    def __init__(self, function: "PciDevice", vectors: int) -> None:
        if vectors not in (1, 2, 4, 8, 16, 32):
            raise ValueError(f"MSI has no {vectors} vectors")
        self._function = function
        asked = vectors.bit_length() - 1
        control = asked << 1 | 1 << 7 | 1 << 8
        masks = (0x71).to_bytes(2, "little") + b"\xfc\xff\xff\xff" + b"\xff" * 4
        masks += b"\xff\xff\0\0" + ((1 << vectors) - 1).to_bytes(4, "little")
        self._at = function.add_capability(
            _MSI, control.to_bytes(2, "little") + bytes(20), writable=masks
        )
        self._asked = asked

    @property
    def enabled(self) -> bool:
        """Whether the guest uses it."""
        return bool(self._function.register(self._at + 2, 1) & 1)

    def send(self, vector: int) -> None:
        """Sends a message; kept pending while masked."""
        register = self._function.register
        # What is not granted falls together with what is.
        granted = min(register(self._at + 2, 1) >> 4 & 7, self._asked)
        vector &= (1 << granted) - 1
        if register(self._at + 16, 4) >> vector & 1:
            pending = register(self._at + 20, 4) | 1 << vector
            self._function.set_register(self._at + 20, pending, 4)
            return
        data = register(self._at + 12, 2) & ~((1 << granted) - 1) | vector
        self._function.send_message(register(self._at + 4, 8), data)

    def settle(self) -> None:
        """Sends what was pending and is not masked any more."""
        register = self._function.register
        pending = register(self._at + 20, 4)
        ready = pending & ~register(self._at + 16, 4)
        if ready and self.enabled:
            self._function.set_register(self._at + 20, pending & ~ready, 4)
            for vector in range(32):
                if ready >> vector & 1:
                    self.send(vector)


class MsiX:
    """The MSI-X capability with its table and pending bits, which fill a memory window.

    Args:
        function: Whose it is.
        vectors: How many, 1 to 2048.
        bar: The base register of the window.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 8})

    def __init__(self, function: "PciDevice", vectors: int, bar: int) -> None:
        if not 1 <= vectors <= 2048:
            raise ValueError(f"MSI-X has no {vectors} vectors")
        self._function = function
        self.vectors = vectors
        # Table first; pending bits in the second half, in whole quad words.
        self._half = max(2048, 1 << (vectors * _ENTRY - 1).bit_length())
        self.length = 2 * self._half
        body = (vectors - 1).to_bytes(2, "little") + bar.to_bytes(4, "little")
        body += (self._half | bar).to_bytes(4, "little")
        self._at = function.add_capability(_MSIX, body, writable=b"\x00\xc0")
        self.reset()
        function.add_bar(
            bar, self, size=self.length, name=f"{type(function).__name__.lower()} msi-x"
        )

    def reset(self) -> None:
        """All vectors masked, none pending."""
        self._table = bytearray((bytes(12) + b"\x01\0\0\0") * self.vectors)
        self._pending = 0

    def read(self, offset: int, size: int) -> int:
        """The table, or the pending bits."""
        if offset < self._half:
            return int.from_bytes(self._table[offset : offset + size], "little")
        return self._pending >> 8 * (offset - self._half) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """An entry of the table; a mask that falls sends what was pending."""
        if offset + size > len(self._table):
            return
        self._table[offset : offset + size] = value.to_bytes(size, "little")
        self._deliver(offset // _ENTRY)

    @property
    def enabled(self) -> bool:
        """Whether the guest uses it."""
        return bool(self._function.register(self._at + 2, 2) & _MSIX_ENABLE)

    def send(self, vector: int) -> None:
        """Sends a message; kept pending while masked. A vector that there is not is dropped."""
        if 0 <= vector < self.vectors:
            self._pending |= 1 << vector
            self._deliver(vector)

    def settle(self) -> None:
        """Sends what was pending and is not masked any more."""
        if self._pending and self.enabled:
            for vector in range(self.vectors):
                self._deliver(vector)

    def save(self) -> bytes:
        """Table and pending bits."""
        return bytes(self._table) + self._pending.to_bytes(self.vectors + 7 >> 3, "little")

    def load(self, data: bytes) -> None:
        """Takes table and pending bits."""
        table = self.vectors * _ENTRY
        self._table = bytearray(data[:table])
        self._pending = int.from_bytes(data[table:], "little") & (1 << self.vectors) - 1

    @staticmethod
    def check(name: str, msix: "MsiX | None", data: object) -> None:
        """Refuses a saved table that is not one of ``msix``.

        Raises:
            StateError: it is not.
        """
        length = 0 if msix is None else msix.vectors * _ENTRY + (msix.vectors + 7 >> 3)
        if type(data) is not bytes or len(data) != length:
            raise StateError(f"{name}: field 'msix' is not {length} bytes long")

    def _deliver(self, vector: int) -> None:
        """Sends a pending message unless it is masked."""
        if not self._pending >> vector & 1:
            return
        control = self._function.register(self._at + 2, 2)
        entry = self._table[vector * _ENTRY : (vector + 1) * _ENTRY]
        if control & _MSIX_ENABLE and not control & _MSIX_MASK_ALL and not entry[12] & _MASKED:
            self._pending &= ~(1 << vector)
            address = int.from_bytes(entry[:8], "little") & ~3
            self._function.send_message(address, int.from_bytes(entry[8:12], "little"))
