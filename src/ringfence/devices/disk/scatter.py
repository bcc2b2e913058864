"""Pieces of guest memory that a controller's descriptors name, as buffers for the host."""

from ringfence.bus import Buffer, Dma

__all__ = ["Scatter"]


class Scatter:
    """A list of pieces; those that are no plain memory get a buffer in between.

    Args:
        dma: Guest memory.
        most: Bytes that it takes at most, whatever the descriptors say.
    """

    __slots__ = ("_copies", "_dma", "_pieces", "_room", "buffers", "length")

    def __init__(self, dma: Dma, most: int) -> None:
        self._dma = dma
        self._room = most
        self._pieces: list[tuple[int, int]] = []
        self._copies: list[tuple[int, bytearray]] = []
        self.buffers: list[Buffer] = []
        #: Bytes so far.
        self.length = 0

    def add(self, address: int, size: int) -> bool:
        """Adds a piece, cut to what there is room for; false once all is full."""
        size = min(size, self._room)
        if size > 0:
            view = self._dma.view(address, size)
            if view is None:
                copy = bytearray(size)
                self._copies.append((address, copy))
                self.buffers.append(copy)
            else:
                self._pieces.append((address, size))
                self.buffers.append(view)
            self._room -= size
            self.length += size
        return self._room > 0

    def fetch(self) -> None:
        """Before the host reads the buffers: fills those in between."""
        for address, copy in self._copies:
            copy[:] = self._dma.read(address, len(copy))

    def stored(self) -> None:
        """After the host has filled the buffers: brings everything to the guest."""
        for address, copy in self._copies:
            self._dma.write(address, copy)
        for address, size in self._pieces:
            self._dma.written(address, size)

    def put(self, data: bytes) -> int:
        """Copies bytes that are ready to the guest; returns how many fitted."""
        at = 0
        for buffer in self.buffers:
            part = data[at : at + len(buffer)]
            buffer[: len(part)] = part
            at += len(part)
        self.stored()
        return at

    def get(self) -> bytes:
        """Copies the pieces out of the guest."""
        self.fetch()
        return b"".join(bytes(buffer) for buffer in self.buffers)
