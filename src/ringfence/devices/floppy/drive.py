"""A floppy drive: its head, and the disk in it."""

from ringfence.bus import BlockQueue
from ringfence.devices.floppy.medium import DRIVE_1440K, SECTOR, FloppyFormat, format_of

__all__ = ["FloppyDrive"]


class FloppyDrive:
    """A drive.

    Args:
        queue: The disk in it, or ``None``.

    Attributes:
        kind: The drive as CMOS register 10h names it.
        cylinder: Where its head is.
        changed: The disk was changed since the head last moved.
    """

    def __init__(self, queue: BlockQueue | None) -> None:
        self.queue: BlockQueue | None = None
        self.format: FloppyFormat | None = None
        self.cylinder = 0
        self.changed = True
        self._rotation = 0
        self.insert(queue)
        first = None if queue is None else format_of(queue.size)
        self.kind = DRIVE_1440K if first is None else first.drive

    def reset(self) -> None:
        """Power-on."""
        self.cylinder = 0
        self.changed = True
        self._rotation = 0

    def insert(self, queue: BlockQueue | None) -> None:
        """Changes the disk; one that is too large is none."""
        self.queue = queue
        self.format = None if queue is None else format_of(queue.size)
        self.changed = True

    def numbers(self) -> list[int]:
        """The state."""
        return [self.cylinder, int(self.changed), self._rotation]

    def set_numbers(self, numbers: list[int]) -> None:
        """Takes a state."""
        self.cylinder, changed, self._rotation = numbers
        self.changed = bool(changed)

    def step_to(self, cylinder: int) -> None:
        """Moves the head, by which a change of the disk is taken note of."""
        self.cylinder = min(cylinder, 255)
        if self.queue is not None:
            self.changed = False

    def readable(self, rate: int) -> bool:
        """Whether there is a disk whose marks are found at this data rate."""
        return self.format is not None and rate in self.format.rates

    def next_sector(self) -> int:
        """The sector that passes the head next."""
        sectors = self.format.sectors if self.format is not None else 1
        self._rotation = self._rotation % sectors + 1
        return self._rotation

    def under(self, cylinder: int) -> bool:
        """Whether the head is over a cylinder; 40 tracks are every other step of 80."""
        if self.format is None or cylinder >= self.format.tracks:
            return False
        return self.cylinder in (cylinder, 2 * cylinder if self.format.tracks == 40 else cylinder)

    def offset(self, cylinder: int, head: int, sector: int) -> int | None:
        """Where a sector begins, or ``None`` if the disk has no such sector."""
        form = self.format
        if form is None or head >= form.heads or not 1 <= sector <= form.sectors:
            return None
        return ((cylinder * form.heads + head) * form.sectors + sector - 1) * SECTOR
