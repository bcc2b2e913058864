"""Disk formats by the magic at the start of a file.

A format that can be opened has a module here, and its opener in the table; one that can't is known
by name, so that its header is never taken for a boot sector.
"""

from typing import NamedTuple

__all__ = ["FORMATS", "Format", "recognize"]


class Format(NamedTuple):
    """A format other than raw."""

    name: str
    magic: bytes
    #: Where the magic is, in bytes from the start.
    offset: int = 0


FORMATS = (
    Format("qcow2", b"QFI\xfb"),
    Format("qed", b"QED\0"),
    Format("vmdk", b"KDMV"),
    Format("vmdk", b"# Disk DescriptorFile"),
    Format("vdi", b"\x7f\x10\xda\xbe", 0x40),
    Format("vpc", b"conectix"),
    Format("vhdx", b"vhdxfile"),
    Format("dmg", b"koly"),
    Format("gzip", b"\x1f\x8b\x08"),
    Format("xz", b"\xfd7zXZ\0"),
    Format("zstd", b"\x28\xb5\x2f\xfd"),
    Format("zip", b"PK\x03\x04"),
)

#: Formats that are compressed files of raw images.
PACKED = frozenset({"gzip", "xz", "zstd", "zip"})


def recognize(head: bytes) -> str:
    """The name of the format of a file that begins with ``head``; ``raw`` for all others."""
    for entry in FORMATS:
        if head[entry.offset : entry.offset + len(entry.magic)] == entry.magic:
            return entry.name
    return "raw"
