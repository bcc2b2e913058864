"""A layer over a disk that takes its writes and is forgotten with the machine."""

import os
from collections.abc import Iterator, Sequence
from threading import Lock
from typing import Self

from ringfence.bus import Buffer
from ringfence.storage.raw import RawImage

__all__ = ["Overlay"]

_CLUSTER = 64 << 10


class Overlay:
    """Writes go to memory, reads of what was not written to the disk below, which stays as it is.

    Memory is taken as it is written to, 64 KiB at a time, and at most what the disk has.
    """

    def __init__(self, base: "RawImage | Overlay") -> None:
        self._base = base
        descriptor = os.memfd_create("ringfence-overlay", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, base.size)
        self._top = RawImage(descriptor, base.size, readonly=False)
        # A byte for each cluster, zero pages until touched: whether it was written.
        self._written = bytearray(-(-base.size // _CLUSTER))
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Bytes."""
        return self._base.size

    @property
    def readonly(self) -> bool:
        """Never: writes end in memory."""
        return False

    def read(self, offset: int, length: int) -> bytes:
        """Reads ``length`` bytes."""
        if not 0 <= offset <= offset + length <= self.size:
            return self._base.read(offset, length)  # which refuses it
        data = bytearray(length)
        self.read_into(offset, [data])
        return bytes(data)

    def read_into(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fills ``buffers``, in order."""
        self._read(offset, buffers, wait=True)

    def try_read_into(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        """Fills ``buffers`` if that needs no waiting."""
        return self._read(offset, buffers, wait=False)

    def write(self, offset: int, data: bytes | Buffer) -> None:
        """Writes all of ``data``."""
        self.write_from(offset, [data])

    def write_from(self, offset: int, buffers: Sequence[bytes | Buffer]) -> None:
        """Writes all ``buffers``, in order."""
        length = sum(map(len, buffers))
        if length == 0:
            return
        with self._lock:
            end = offset + length
            if 0 <= offset < end <= self.size:
                # Clusters that are written in part need the rest from below.
                for cluster in {offset // _CLUSTER, (end - 1) // _CLUSTER}:
                    start = cluster * _CLUSTER
                    stop = min(start + _CLUSTER, self.size)
                    if not self._written[cluster] and (offset > start or end < stop):
                        self._top.write(start, self._base.read(start, stop - start))
            self._top.write_from(offset, buffers)
            first, last = offset // _CLUSTER, (end - 1) // _CLUSTER
            self._written[first : last + 1] = b"\1" * (last + 1 - first)

    def flush(self) -> None:
        """Nothing outlives the machine."""

    def discard(self, offset: int, length: int) -> None:
        """Frees memory; the bytes read as zeros."""
        with self._lock:
            self._top.discard(offset, length)
            # Only whole clusters: parts of others keep what is below.
            first, end = -(-offset // _CLUSTER), (offset + length) // _CLUSTER
            if end > first:
                self._written[first:end] = b"\1" * (end - first)

    def close(self) -> None:
        """Forgets what was written, and lets go of the disk below."""
        self._top.close()
        self._base.close()

    def _read(self, offset: int, buffers: Sequence[Buffer], *, wait: bool) -> bool:
        at = offset
        if not 0 <= offset <= offset + sum(map(len, buffers)) <= self.size:
            return self._base.try_read_into(offset, buffers)  # which refuses it
        for buffer in buffers:
            view = memoryview(buffer)
            for layer, length in self._runs(at, len(view)):
                part, view = view[:length], view[length:]
                if wait:
                    layer.read_into(at, [part])
                elif not layer.try_read_into(at, [part]):
                    return False
                at += length
        return True

    def _runs(self, offset: int, length: int) -> "Iterator[tuple[RawImage | Overlay, int]]":
        """The layers that hold a range, each with how many bytes of it, in order."""
        end = offset + length
        while offset < end:
            cluster = offset // _CLUSTER
            state = self._written[cluster]
            stop = self._written.find(1 - state, cluster, (end - 1) // _CLUSTER + 1)
            until = end if stop < 0 else stop * _CLUSTER
            yield (self._top if state else self._base), until - offset
            offset = until
