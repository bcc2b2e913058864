"""Raw images: the bytes of a disk in a file or a block device, as they are."""

import ctypes
import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from ringfence.bus import Buffer

__all__ = ["RawImage"]

# What Linux takes in one preadv(2) or pwritev(2).
_MOST_BUFFERS = 1024
_RWF_NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)
# fallocate(2): free the blocks and keep the size.
_PUNCH_HOLE = 0x02 | 0x01


class RawImage:
    """An open file or block device.

    Args:
        descriptor: Open for reading, and for writing unless ``readonly``; closed with the image.
        size: Bytes that the disk has; what the file lacks of it reads as zeros.
        readonly: Refuse writes.
    """

    def __init__(self, descriptor: int, size: int, *, readonly: bool) -> None:
        self._descriptor = descriptor
        self._size = size
        self._readonly = readonly
        self._nowait = bool(_RWF_NOWAIT)
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        self._holes = self._is_file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    @property
    def readonly(self) -> bool:
        """Whether writes are refused."""
        return self._readonly

    def read(self, offset: int, length: int) -> bytes:
        """Reads ``length`` bytes."""
        self._check(offset, length)
        data = bytearray(length)
        self.read_into(offset, [data])
        return bytes(data)

    def read_into(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fills ``buffers``, in order."""
        self._check(offset, sum(map(len, buffers)))
        views = [memoryview(buffer) for buffer in buffers]
        while views:
            part = views[:_MOST_BUFFERS]
            count = os.preadv(self._descriptor, part, offset)
            if count == 0:
                # Behind the end of the file, which may have shrunk: zeros.
                for view in views:
                    view[:] = bytes(len(view))
                return
            offset += count
            views = _advance(views, count)

    def try_read_into(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        """Fills ``buffers`` if the host has the bytes in its cache."""
        length = sum(map(len, buffers))
        self._check(offset, length)
        if not self._nowait or len(buffers) > _MOST_BUFFERS:
            return False
        try:
            return os.preadv(self._descriptor, buffers, offset, _RWF_NOWAIT) == length
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            self._nowait = False
            return False

    def write(self, offset: int, data: bytes | Buffer) -> None:
        """Writes all of ``data``."""
        self.write_from(offset, [data])

    def write_from(self, offset: int, buffers: Sequence[bytes | Buffer]) -> None:
        """Writes all ``buffers``, in order."""
        self._check(offset, sum(map(len, buffers)))
        if self._readonly:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        views = [memoryview(buffer) for buffer in buffers]
        while views:
            count = os.pwritev(self._descriptor, views[:_MOST_BUFFERS], offset)
            offset += count
            views = _advance(views, count)

    def flush(self) -> None:
        """Brings all written data to the disk of the host."""
        if not self._readonly:
            os.fdatasync(self._descriptor)

    def discard(self, offset: int, length: int) -> None:
        """Makes a hole where the host's file system has holes; else does nothing."""
        self._check(offset, length)
        if self._readonly:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if length and self._holes:
            try:
                _punch(self._descriptor, offset, length)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    raise
                self._holes = False

    def close(self) -> None:
        """Lets go of the file and its locks."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = -1

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._size:
            raise OSError(errno.EINVAL, "beyond the end of the disk")


def _advance(views: list[memoryview], count: int) -> list[memoryview]:
    """What is left of ``views`` behind the first ``count`` bytes."""
    for index, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[index + 1 :]]
        count -= len(view)
    return []


def _punch(descriptor: int, offset: int, length: int) -> None:
    """fallocate(2), which Python has in its POSIX form only."""
    libc = ctypes.CDLL(None, use_errno=True)
    call = libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if call(descriptor, _PUNCH_HOLE, offset, length):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
