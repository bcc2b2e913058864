"""Writes initramfs archives in the ``newc`` form of cpio.

Format: Linux ``Documentation/driver-api/early-userspace/buffer-format.rst``. An initramfs may be
several archives one after another, each padded to four bytes: that is how files are added to an
image without rewriting it. Output depends on the entries alone: no times, owners or host inodes.

Left out: reading archives, hard links, the checksummed ``crc`` form.
"""

from stat import S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG

from ringfence.errors import ImageError

MAGIC = b"070701"
TRAILER = "TRAILER!!!"
ALIGNMENT = 4
# What the kernel accepts: N_ALIGN(PATH_MAX) in init/initramfs.c.
MAXIMUM_PATH = 4095
MAXIMUM_SIZE = 0xFFFF_FFFF


class CpioWriter:
    """Collects files in order and gives one archive; parents must be added before children."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._paths: set[str] = set()

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Adds a directory."""
        self._add(path, S_IFDIR | mode, b"")

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Adds a regular file."""
        self._add(path, S_IFREG | mode, content)

    def symlink(self, path: str, target: str) -> None:
        """Adds a symbolic link."""
        self._add(path, S_IFLNK | 0o777, target.encode())

    def character_device(self, path: str, major: int, minor: int, mode: int = 0o600) -> None:
        """Adds a character device node."""
        self._add(path, S_IFCHR | mode, b"", (major, minor))

    def fifo(self, path: str, mode: int = 0o600) -> None:
        """Adds a named pipe."""
        self._add(path, S_IFIFO | mode, b"")

    def finish(self) -> bytes:
        """The archive, closed by its trailer and padded; the writer can go on collecting."""
        return b"".join(self._chunks) + _record(TRAILER, 0, 0, b"", (0, 0))

    def _add(self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)) -> None:
        path = path.strip("/")
        parts = path.split("/")
        if path == TRAILER or "\0" in path or not {"", ".", ".."}.isdisjoint(parts):
            raise ImageError(f"initramfs: {path!r} is not a path inside the archive")
        if len(path.encode()) >= MAXIMUM_PATH:
            raise ImageError(f"initramfs: the path {path[:60]!r}... is too long")
        if len(content) > MAXIMUM_SIZE:
            raise ImageError(f"initramfs: {path} is larger than 4 GiB, the most a file may have")
        if path in self._paths:
            raise ImageError(f"initramfs: {path} is there already")
        self._paths.add(path)
        self._chunks.append(_record(path, len(self._paths), mode, content, device))


def overlay(files: dict[str, bytes], mode: int = 0o755) -> bytes:
    """An archive with ``files`` (path to content) and their directories.

    Append it to an initramfs to add the files to it, or to replace those of the same name.
    """
    writer = CpioWriter()
    made: set[str] = set()
    for path, content in files.items():
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent not in made:
                made.add(parent)
                writer.directory(parent)
        writer.file(path, content, mode)
    return writer.finish()


def _record(path: str, inode: int, mode: int, content: bytes, device: tuple[int, int]) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if mode & 0o170000 == S_IFDIR else 1
    fields = (inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(name), 0)
    header = MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % ALIGNMENT)
