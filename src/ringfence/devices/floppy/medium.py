"""Floppy disks by the size of their image, and the drives that take them."""

from typing import NamedTuple

__all__ = ["FORMATS", "FloppyFormat", "format_of"]

SECTOR = 512
# Data rates as the configuration control register names them: 500, 300, 250 and 1000 kbit/s.
RATE_500, RATE_300, RATE_250, RATE_1000 = range(4)
# Drives as CMOS register 10h names them: 360 KB, 1.2 MB, 720 KB, 1.44 MB, 2.88 MB.
DRIVE_360K, DRIVE_1200K, DRIVE_720K, DRIVE_1440K, DRIVE_2880K = range(1, 6)


class FloppyFormat(NamedTuple):
    """A geometry, the rates that read it and the drive that a PC would have for it."""

    tracks: int
    heads: int
    sectors: int
    rates: frozenset[int]
    drive: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.tracks * self.heads * self.sectors * SECTOR


_DOUBLE = frozenset({RATE_250, RATE_300})
_HIGH = frozenset({RATE_500})

FORMATS = (
    FloppyFormat(40, 1, 8, _DOUBLE, DRIVE_1200K),
    FloppyFormat(40, 1, 9, _DOUBLE, DRIVE_1200K),
    FloppyFormat(40, 2, 8, _DOUBLE, DRIVE_1200K),
    FloppyFormat(40, 2, 9, _DOUBLE, DRIVE_1200K),
    FloppyFormat(80, 2, 9, frozenset({RATE_250}), DRIVE_1440K),
    FloppyFormat(80, 2, 15, _HIGH, DRIVE_1200K),
    FloppyFormat(80, 2, 18, _HIGH, DRIVE_1440K),
    # Formats with more sectors than a standard disk: those of distribution disks.
    FloppyFormat(80, 2, 20, _HIGH, DRIVE_1440K),
    FloppyFormat(80, 2, 21, _HIGH, DRIVE_1440K),
    FloppyFormat(82, 2, 21, _HIGH, DRIVE_1440K),
    FloppyFormat(83, 2, 21, _HIGH, DRIVE_1440K),
    FloppyFormat(80, 2, 36, frozenset({RATE_1000}), DRIVE_2880K),
)

_USUAL = (FORMATS[6], FORMATS[-1])


def format_of(size: int) -> FloppyFormat | None:
    """The format of an image of ``size`` bytes, ``None`` if it is too large for a floppy disk.

    An image of no standard size is the beginning of a usual disk.
    """
    for entry in FORMATS:
        if entry.size == size:
            return entry
    return next((entry for entry in _USUAL if size < entry.size), None)
