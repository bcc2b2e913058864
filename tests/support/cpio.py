"""Reads cpio archives the way the kernel does (init/initramfs.c), for checking ours."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One file of an archive."""

    path: str
    mode: int
    content: bytes
    device: tuple[int, int]
    inode: int


def read(data: bytes) -> list[Entry]:
    """The entries of one or more archives; raises AssertionError for what the kernel refuses."""
    entries: list[Entry] = []
    at = 0
    while at < len(data):
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        inode, mode, _, _, _, _, size, _, _, major, minor, name_size, check = fields
        assert check == 0
        name = data[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        at = (at + 110 + name_size + 3) & ~3
        content = data[at : at + size]
        assert len(content) == size
        at = (at + size + 3) & ~3
        path = name[:-1].decode()
        if path != "TRAILER!!!":
            entries.append(Entry(path, mode, content, (major, minor), inode))
    return entries
