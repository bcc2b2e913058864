"""Files beneath one folder, reached by descriptors that can't leave it.

Every step is an ``openat2`` with RESOLVE_BENEATH and without symbolic links (Linux 5.6;
openat2(2)): a link, ``..`` or a folder that is moved meanwhile can't lead out.
"""

import ctypes
import errno
import os
import stat
from typing import ClassVar

from ringfence.errors import ConfigError

__all__ = ["Node", "Tree"]

_OPENAT2 = 437
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 1, 2, 4, 8
_RESOLVE = _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH
_PATH_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class _OpenHow(ctypes.Structure):
    """``struct open_how``."""

    _fields_: ClassVar = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


_libc = ctypes.CDLL(None, use_errno=True)


def _openat2(folder: int, path: str, flags: int, mode: int = 0) -> int:
    how = _OpenHow(flags, mode, _RESOLVE)
    name = os.fsencode(path)
    found = int(_libc.syscall(_OPENAT2, folder, name, ctypes.byref(how), ctypes.sizeof(how)))
    if found < 0:
        code = ctypes.get_errno()
        # A link on the way, or a way out, is to the guest a file that is not there.
        raise OSError(errno.EACCES if code == errno.EXDEV else code, os.strerror(code))
    return found


class Node:
    """A file or folder of the tree, kept by a descriptor; :meth:`close` gives it back."""

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: tuple[str, ...]) -> None:
        self.fd = fd
        self.path = path

    def status(self) -> os.stat_result:
        """Its ``stat``, a link's own."""
        return os.stat(self.fd)

    def reopen(self, flags: int) -> int:
        """A descriptor to read or write the file by."""
        # The link of /proc leads to the very file that the descriptor holds.
        return os.open(f"/proc/self/fd/{self.fd}", flags | os.O_CLOEXEC)

    def close(self) -> None:
        """Gives the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Tree:
    """A folder and all beneath it.

    Args:
        root: The folder.
        readonly: Whether changes are refused.

    Raises:
        ConfigError: it is no folder.
    """

    def __init__(self, root: str, *, readonly: bool = False) -> None:
        self.readonly = readonly
        try:
            self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"share: {root}: {error.strerror}") from error

    def close(self) -> None:
        """Gives the folder back."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def root(self) -> Node:
        """The folder itself."""
        return Node(os.dup(self._root), ())

    def walk(self, node: Node, name: str) -> Node:
        """What is at ``name`` in a folder; ``..`` of the root is the root."""
        if name == "..":
            path = node.path[:-1]
            return Node(self._open(path), path) if path else self.root()
        check_name(name)
        return Node(_openat2(node.fd, name, _PATH_FLAGS), (*node.path, name))

    def create(self, node: Node, name: str, flags: int, mode: int) -> tuple[Node, int]:
        """Makes a file; its node and an open descriptor."""
        self.check_writable()
        check_name(name)
        opened = _openat2(
            node.fd, name, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode & 0o7777
        )
        try:
            return self.walk(node, name), opened
        except BaseException:
            os.close(opened)
            raise

    def check_writable(self) -> None:
        """Refuses a change of what is shared for reading only.

        Raises:
            OSError: EROFS.
        """
        if self.readonly:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def _open(self, path: tuple[str, ...]) -> int:
        return _openat2(self._root, "/".join(path), _PATH_FLAGS)


def check_name(name: str) -> None:
    """Refuses what is not the name of one entry.

    Raises:
        OSError: EINVAL.
    """
    if not name or "/" in name or "\0" in name or name in (".", ".."):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def is_folder(status: os.stat_result) -> bool:
    """Whether a status is a folder's."""
    return stat.S_ISDIR(status.st_mode)
