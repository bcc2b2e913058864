"""A 9P2000.L server over a folder (Linux, include/net/9p/9p.h; diod, protocol.md).

One request in, one reply out. Files belong to whoever runs the server; numbers of owners are shown
as they are. Left out: authentication, extended attributes, device nodes.
"""

import errno
import os
import stat
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

from ringfence.folders.tree import Node, Tree, check_name, is_folder
from ringfence.folders.wire import Reader, qid, string

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FolderServer"]

_LARGEST = 1 << 19
_LEAST = 4096
#: Room of a reply around the data of a read.
_OVERHEAD = 24
_MOST_FIDS = 4096
_RLERROR = 7
_NO_FID = 0xFFFFFFFF
_GETATTR_BASIC = 0x7FF
# Bits of Tsetattr.
_SET_MODE, _SET_UID, _SET_GID, _SET_SIZE, _SET_ATIME, _SET_MTIME, _SET_CTIME = (
    1 << bit for bit in range(7)
)
_SET_ATIME_NOW, _SET_MTIME_NOW = 1 << 7, 1 << 8
_REMOVE_FOLDER = 0x200
#: Open flags that are passed on: access, append, truncate, exclusive, synchronous.
_FLAGS = os.O_ACCMODE | os.O_APPEND | os.O_TRUNC | os.O_EXCL | os.O_DSYNC | os.O_SYNC


class _Fid:
    """What the guest calls by a number."""

    __slots__ = ("entries", "node", "opened")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.opened = -1
        self.entries: list[tuple[bytes, int, str]] | None = None

    def close(self) -> None:
        self.node.close()
        if self.opened >= 0:
            os.close(self.opened)
            self.opened = -1


class FolderServer:
    """Answers requests for one guest.

    Args:
        tree: What it may reach.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._fids: dict[int, _Fid] = {}
        self._size = _LARGEST
        self._calls: dict[int, Callable[[Reader], bytes]] = {
            8: self._statfs,
            12: self._lopen,
            14: self._lcreate,
            16: self._symlink,
            20: self._rename,
            22: self._readlink,
            24: self._getattr,
            26: self._setattr,
            40: self._readdir,
            50: self._fsync,
            52: lambda _: b"\0",  # locks are the guest's own
            54: self._getlock,
            70: self._link,
            72: self._mkdir,
            74: self._renameat,
            76: self._unlinkat,
            100: self._version,
            104: self._attach,
            108: lambda _: b"",  # every request has been answered by now
            110: self._walk,
            116: self._read,
            118: self._write,
            120: self._clunk,
            122: self._remove,
        }

    def reset(self) -> None:
        """Forgets all that the guest had open."""
        for fid in self._fids.values():
            fid.close()
        self._fids.clear()

    def close(self) -> None:
        """Gives all descriptors back."""
        self.reset()
        self._tree.close()

    def answer(self, request: bytes) -> bytes:
        """The reply to a request; a damaged one gets an error."""
        if len(request) < 7:
            return _reply(_RLERROR, 0xFFFF, struct.pack("<I", errno.EINVAL))
        kind, tag = struct.unpack_from("<BH", request, 4)
        call = self._calls.get(kind)
        try:
            if call is None:
                raise OSError(errno.EOPNOTSUPP, "")
            return _reply(kind + 1, tag, call(Reader(request[7:])))
        except OSError as error:
            code = error.errno or errno.EIO
        except (struct.error, ValueError, OverflowError):
            code = errno.EINVAL
        return _reply(_RLERROR, tag, struct.pack("<I", code))

    # Sessions and names.

    def _version(self, message: Reader) -> bytes:
        size, version = message.number("I"), message.string()
        self.reset()
        self._size = max(min(size, _LARGEST), _LEAST)
        known = version == "9P2000.L" and size >= _LEAST
        return struct.pack("<I", self._size) + string("9P2000.L" if known else "unknown")

    def _attach(self, message: Reader) -> bytes:
        (number,) = message.take("I")
        node = self._tree.root()
        self._add(number, node)
        return qid(node.status())

    def _walk(self, message: Reader) -> bytes:
        number, new, count = message.take("IIH")
        fid = self._fid(number)
        names = [message.string() for _ in range(count)]
        node = Node(os.dup(fid.node.fd), fid.node.path)
        qids: list[bytes] = []
        try:
            for name in names:
                try:
                    following = self._tree.walk(node, name)
                except OSError:
                    if not qids:
                        raise
                    # As far as it went; the new number does not exist then.
                    node.close()
                    return struct.pack("<H", len(qids)) + b"".join(qids)
                node.close()
                node = following
                qids.append(qid(node.status()))
            if new == number:
                fid.close()
                del self._fids[number]
            self._add(new, node)
        except BaseException:
            node.close()
            raise
        return struct.pack("<H", len(qids)) + b"".join(qids)

    def _clunk(self, message: Reader) -> bytes:
        (number,) = message.take("I")
        self._fid(number).close()
        del self._fids[number]
        return b""

    def _fid(self, number: int) -> _Fid:
        fid = self._fids.get(number)
        if fid is None:
            raise OSError(errno.EBADF, "")
        return fid

    def _add(self, number: int, node: Node) -> None:
        if number == _NO_FID or number in self._fids or len(self._fids) >= _MOST_FIDS:
            node.close()
            raise OSError(errno.EBADF if number in self._fids else errno.EMFILE, "")
        self._fids[number] = _Fid(node)

    # Files.

    def _lopen(self, message: Reader) -> bytes:
        number, flags = message.take("II")
        fid = self._fid(number)
        status = fid.node.status()
        if fid.opened >= 0:
            raise OSError(errno.EBUSY, "")
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._tree.check_writable()
        if is_folder(status):
            fid.opened = fid.node.reopen(os.O_RDONLY | os.O_DIRECTORY)
        elif stat.S_ISREG(status.st_mode):
            fid.opened = fid.node.reopen(flags & _FLAGS & ~os.O_EXCL)
        else:
            # A pipe or a device of the host is not the guest's.
            raise OSError(errno.EACCES, "")
        return qid(status) + bytes(4)

    def _lcreate(self, message: Reader) -> bytes:
        number = message.number("I")
        name = message.string()
        flags, mode, _ = message.take("III")
        fid = self._fid(number)
        node, opened = self._tree.create(fid.node, name, flags & _FLAGS, mode)
        status = node.status()
        if not stat.S_ISREG(status.st_mode):
            node.close()
            os.close(opened)
            raise OSError(errno.EACCES, "")
        fid.close()
        fid.node, fid.opened = node, opened
        return qid(status) + bytes(4)

    def _read(self, message: Reader) -> bytes:
        number, offset, count = message.take("IQI")
        fid = self._fid(number)
        if fid.opened < 0:
            raise OSError(errno.EBADF, "")
        data = os.pread(fid.opened, min(count, self._size - _OVERHEAD), offset)
        return struct.pack("<I", len(data)) + data

    def _write(self, message: Reader) -> bytes:
        number, offset, count = message.take("IQI")
        fid = self._fid(number)
        self._tree.check_writable()
        if fid.opened < 0:
            raise OSError(errno.EBADF, "")
        return struct.pack("<I", os.pwrite(fid.opened, message.bytes(count), offset))

    def _fsync(self, message: Reader) -> bytes:
        fid = self._fid(message.number("I"))
        if fid.opened >= 0:
            os.fsync(fid.opened)
        return b""

    def _readdir(self, message: Reader) -> bytes:
        number, offset, count = message.take("IQI")
        fid = self._fid(number)
        if fid.opened < 0:
            raise OSError(errno.EBADF, "")
        if fid.entries is None or offset == 0:
            fid.entries = _entries(fid)
        room = min(count, self._size - _OVERHEAD)
        out = bytearray()
        for index, (identity, kind, name) in enumerate(fid.entries[offset:], offset + 1):
            entry = identity + struct.pack("<QB", index, kind) + string(name)
            if len(out) + len(entry) > room:
                break
            out += entry
        return struct.pack("<I", len(out)) + bytes(out)

    def _getlock(self, message: Reader) -> bytes:
        self._fid(message.number("I"))
        _, start, length, process = message.take("BQQI")
        return struct.pack("<BQQI", 2, start, length, process) + string(message.string())

    # Attributes.

    def _getattr(self, message: Reader) -> bytes:
        number, _ = message.take("IQ")
        status = self._fid(number).node.status()
        times = []
        for value in (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns, 0):
            times += [value // 10**9, value % 10**9]
        return (
            struct.pack("<Q", _GETATTR_BASIC)
            + qid(status)
            + struct.pack("<III", status.st_mode, status.st_uid, status.st_gid)
            + struct.pack("<QQQ", status.st_nlink, status.st_rdev, status.st_size)
            + struct.pack("<QQ", status.st_blksize, status.st_blocks)
            + struct.pack("<8Q", *times)
            + bytes(16)
        )

    def _setattr(self, message: Reader) -> bytes:
        number, valid, mode, uid, gid, size = message.take("IIIIIQ")
        atime, atime_ns, mtime, mtime_ns = message.take("QQQQ")
        fid = self._fid(number)
        self._tree.check_writable()
        path = f"/proc/self/fd/{fid.node.fd}"
        if stat.S_ISLNK(fid.node.status().st_mode):
            raise OSError(errno.EOPNOTSUPP, "")
        if valid & _SET_MODE:
            os.chmod(path, mode & 0o7777)
        if valid & (_SET_UID | _SET_GID):
            os.chown(path, uid if valid & _SET_UID else -1, gid if valid & _SET_GID else -1)
        if valid & _SET_SIZE:
            os.truncate(path, size)
        if valid & (_SET_ATIME | _SET_MTIME):
            before = fid.node.status()
            wanted = [before.st_atime_ns, before.st_mtime_ns]
            if valid & _SET_ATIME and valid & _SET_ATIME_NOW:
                wanted[0] = atime * 10**9 + atime_ns
            if valid & _SET_MTIME and valid & _SET_MTIME_NOW:
                wanted[1] = mtime * 10**9 + mtime_ns
            given = valid & (_SET_ATIME_NOW | _SET_MTIME_NOW)
            os.utime(path, ns=(wanted[0], wanted[1])) if given else os.utime(path)
        return b""

    def _statfs(self, message: Reader) -> bytes:
        found = os.statvfs(self._fid(message.number("I")).node.fd)
        v9fs = 0x01021997
        return struct.pack(
            "<IIQQQQQQI",
            *(v9fs, found.f_bsize, found.f_blocks, found.f_bfree, found.f_bavail),
            *(found.f_files, found.f_ffree, 0, found.f_namemax),
        )

    # Folders.

    def _mkdir(self, message: Reader) -> bytes:
        folder = self._fid(message.number("I")).node
        name = message.string()
        mode, _ = message.take("II")
        self._change(name)
        os.mkdir(name, mode & 0o7777, dir_fd=folder.fd)
        return self._qid_of(folder, name)

    def _symlink(self, message: Reader) -> bytes:
        folder = self._fid(message.number("I")).node
        name, target = message.string(), message.string()
        self._change(name)
        os.symlink(target, name, dir_fd=folder.fd)
        return self._qid_of(folder, name)

    def _readlink(self, message: Reader) -> bytes:
        node = self._fid(message.number("I")).node
        return string(os.readlink("", dir_fd=node.fd))

    def _link(self, message: Reader) -> bytes:
        folder_number, number = message.take("II")
        name = message.string()
        self._change(name)
        source = self._fid(number).node
        if not source.path:
            raise OSError(errno.EPERM, "")
        folder, parent = self._fid(folder_number).node, self._parent(source)
        try:
            os.link(
                source.path[-1],
                name,
                src_dir_fd=parent.fd,
                dst_dir_fd=folder.fd,
                follow_symlinks=False,
            )
        finally:
            parent.close()
        return b""

    def _rename(self, message: Reader) -> bytes:
        number, folder_number = message.take("II")
        name = message.string()
        self._change(name)
        fid, folder = self._fid(number), self._fid(folder_number).node
        if not fid.node.path:
            raise OSError(errno.EPERM, "")
        parent = self._parent(fid.node)
        try:
            os.rename(fid.node.path[-1], name, src_dir_fd=parent.fd, dst_dir_fd=folder.fd)
        finally:
            parent.close()
        fid.node.path = (*folder.path, name)
        return b""

    def _renameat(self, message: Reader) -> bytes:
        source = self._fid(message.number("I")).node
        old = message.string()
        target = self._fid(message.number("I")).node
        new = message.string()
        self._change(old)
        self._change(new)
        os.rename(old, new, src_dir_fd=source.fd, dst_dir_fd=target.fd)
        return b""

    def _unlinkat(self, message: Reader) -> bytes:
        folder = self._fid(message.number("I")).node
        name = message.string()
        (flags,) = message.take("I")
        self._change(name)
        if flags & _REMOVE_FOLDER:
            os.rmdir(name, dir_fd=folder.fd)
        else:
            os.unlink(name, dir_fd=folder.fd)
        return b""

    def _remove(self, message: Reader) -> bytes:
        (number,) = message.take("I")
        fid = self._fid(number)
        try:
            self._tree.check_writable()
            if not fid.node.path:
                raise OSError(errno.EPERM, "")
            parent = self._parent(fid.node)
            try:
                remove = os.rmdir if is_folder(fid.node.status()) else os.unlink
                remove(fid.node.path[-1], dir_fd=parent.fd)
            finally:
                parent.close()
        finally:
            # The number is given back in any case.
            fid.close()
            del self._fids[number]
        return b""

    def _change(self, name: str) -> None:
        self._tree.check_writable()
        check_name(name)

    def _parent(self, node: Node) -> Node:
        return self._tree.walk(node, "..")

    def _qid_of(self, folder: Node, name: str) -> bytes:
        node = self._tree.walk(folder, name)
        try:
            return qid(node.status())
        finally:
            node.close()


def _entries(fid: _Fid) -> list[tuple[bytes, int, str]]:
    """What is in a folder, with ``.`` and ``..``, which a guest resolves by itself."""
    own = qid(fid.node.status())
    found = [(own, 4, "."), (own, 4, "..")]
    for name in sorted(os.listdir(fid.opened)):
        with suppress(OSError):
            status = os.stat(name, dir_fd=fid.opened, follow_symlinks=False)
            found.append((qid(status), stat.S_IFMT(status.st_mode) >> 12, name))
    return found


def _reply(kind: int, tag: int, body: bytes) -> bytes:
    return struct.pack("<IBH", 7 + len(body), kind, tag) + body
