"""Locks of image files between processes, in the scheme of QEMU's ``file-posix`` driver.

Open-file-description locks (fcntl(2)) on single bytes far from any data: byte 100 + n says that
permission n is used, byte 200 + n that its holder does not share it. All are read locks; whether
another has one is asked for with a write lock that is never taken. So a disk that QEMU has open
is in use for us too, and the other way round.
"""

import errno
import fcntl
import struct

__all__ = ["InUse", "lock"]

_USED, _UNSHARED = 100, 200
# Permissions, by their bit numbers in QEMU (block-common.h).
_READ, _WRITE, _RESIZE = 0, 1, 3
_ALL = range(5)
# fcntl.h of Linux; Python has no names for them yet.
_OFD_GETLK, _OFD_SETLK = 36, 37
_FLOCK = "hhqqi4x"
# What file systems without locks answer.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class InUse(Exception):  # noqa: N818 - reads as what happened
    """Another holder has a lock that excludes ours."""


def lock(descriptor: int, *, write: bool) -> None:
    """Takes the locks of a reader or a writer; they end when the descriptor is closed.

    A reader shares the file with readers, a writer with nobody.

    Raises:
        InUse: another one, in this process or elsewhere, uses it in a way that excludes ours.
    """
    used = (_READ, _WRITE, _RESIZE) if write else (_READ,)
    shared = () if write else (_READ,)
    try:
        # First take, then look: of two that come at once, at least one sees the other.
        for permission in used:
            _take(descriptor, _USED + permission)
        for permission in _ALL:
            if permission not in shared:
                _take(descriptor, _UNSHARED + permission)
        for permission in used:
            _check(descriptor, _UNSHARED + permission)
        for permission in _ALL:
            if permission not in shared:
                _check(descriptor, _USED + permission)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise InUse from error
        if error.errno not in _NO_LOCKS:
            raise


def _take(descriptor: int, byte: int) -> None:
    """Takes the read lock of a byte."""
    fcntl.fcntl(descriptor, _OFD_SETLK, struct.pack(_FLOCK, fcntl.F_RDLCK, 0, byte, 1, 0))


def _check(descriptor: int, byte: int) -> None:
    """Makes sure that nobody else has locked a byte."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, 0, byte, 1, 0)
    kind = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, _OFD_GETLK, asked))[0]
    if kind != fcntl.F_UNLCK:
        raise InUse
