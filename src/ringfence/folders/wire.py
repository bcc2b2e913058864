"""Numbers and strings of 9P messages: little-endian, strings behind 16-bit lengths.

Source: Linux, include/net/9p/9p.h (9P2000.L).
"""

import os
import struct

__all__ = ["Reader", "qid", "string"]


class Reader:
    """Takes a message apart; what is too short raises :class:`struct.error`."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, layout: str) -> tuple[int, ...]:
        """Numbers by a :mod:`struct` layout."""
        values = struct.unpack_from("<" + layout, self._data, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def number(self, layout: str) -> int:
        """One number."""
        return self.take(layout)[0]

    def string(self) -> str:
        """A name, as the host's file system has it."""
        return os.fsdecode(self.bytes(self.number("H")))

    def bytes(self, count: int) -> bytes:
        """As many bytes."""
        data = self._data[self._at : self._at + count]
        if len(data) != count:
            raise struct.error("the message is too short")
        self._at += count
        return data


def string(text: str) -> bytes:
    """A name behind its length."""
    data = os.fsencode(text)[:0xFFFF]
    return struct.pack("<H", len(data)) + data


def qid(status: os.stat_result) -> bytes:
    """What a file is known by: kind, version, number (13 bytes)."""
    kind = {0o040000: 0x80, 0o120000: 0x02}.get(status.st_mode & 0o170000, 0)
    version = (status.st_mtime_ns ^ status.st_size << 8) & 0xFFFFFFFF
    return struct.pack("<BIQ", kind, version, status.st_ino)
