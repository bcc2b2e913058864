"""The commands of the 82077AA (data sheet, chapter 5)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ringfence.devices.floppy.drive import FloppyDrive
from ringfence.devices.floppy.medium import SECTOR

if TYPE_CHECKING:
    from ringfence.devices.floppy.fdc import FloppyController

__all__ = ["parameters", "run"]

# Status register 0: abnormal end, invalid command, seek end, equipment check, not ready.
_ABNORMAL, _INVALID, _SEEK_END, _EQUIPMENT, _NOT_READY = 0x40, 0x80, 0x20, 0x10, 0x08
# Status register 1: end of cylinder, overrun, no data, not writable, missing address mark.
_END, _CRC, _OVERRUN, _NO_DATA, _PROTECTED, _NO_MARK = 0x80, 0x20, 0x10, 0x04, 0x02, 0x01
# Status register 2: wrong cylinder.
_WRONG_CYLINDER = 0x10
# Status register 3: write protected, ready, track 0, two sides.
_WP, _READY, _TRACK0, _TWO_SIDED = 0x40, 0x20, 0x10, 0x08
_MULTITRACK = 0x80
_IMPLIED_SEEK = 0x40
_VERSION = 0x90
_N = 2

_Run = Callable[["FloppyController", int, list[int]], None]


def parameters(command: int) -> int:
    """How many bytes follow a command."""
    return _lookup(command)[0]


def run(fdc: "FloppyController", command: int, values: list[int]) -> None:
    """Carries out a command whose bytes are all there."""
    _lookup(command)[1](fdc, command, values)


def _lookup(command: int) -> tuple[int, _Run]:
    return _EXACT.get(command) or _MASKED.get(command & 0x1F) or (0, _invalid)


def _invalid(fdc: "FloppyController", command: int, values: list[int]) -> None:
    fdc.finish([_INVALID], interrupt=False)


def _specify(fdc: "FloppyController", command: int, values: list[int]) -> None:
    fdc.specify = values[0] << 8 | values[1]
    fdc.finish([], interrupt=False)


def _drive_status(fdc: "FloppyController", command: int, values: list[int]) -> None:
    drive = fdc.drive(values[0])
    status = values[0] & 7 | _READY | _TWO_SIDED
    if drive is not None:
        status |= _TRACK0 if drive.cylinder == 0 else 0
        status |= _WP if drive.queue is None or drive.queue.readonly else 0
    fdc.finish([status], interrupt=False)


def _recalibrate(fdc: "FloppyController", command: int, values: list[int]) -> None:
    number = values[0] & 3
    drive = fdc.drive(number)
    fdc.finish([], interrupt=False)
    if drive is None:
        # Track 0 is never seen.
        fdc.seek_ended(number, _ABNORMAL | _SEEK_END | _EQUIPMENT | number)
        return
    drive.step_to(0)
    fdc.seek_ended(number, _SEEK_END | number)


def _seek(fdc: "FloppyController", command: int, values: list[int]) -> None:
    number = values[0] & 3
    drive = fdc.drive(number)
    fdc.finish([], interrupt=False)
    if drive is not None:
        drive.step_to(values[1])
    fdc.seek_ended(number, _SEEK_END | values[0] & 7)


def _relative_seek(fdc: "FloppyController", command: int, values: list[int]) -> None:
    number = values[0] & 3
    drive = fdc.drive(number)
    fdc.finish([], interrupt=False)
    if drive is not None:
        step = values[1] if command & 0x40 else -values[1]
        drive.step_to(max(drive.cylinder + step, 0))
    fdc.seek_ended(number, _SEEK_END | values[0] & 7)


def _sense(fdc: "FloppyController", command: int, values: list[int]) -> None:
    status, cylinder = fdc.sense()
    fdc.finish([status] if status == _INVALID else [status, cylinder], interrupt=False)


def _version(fdc: "FloppyController", command: int, values: list[int]) -> None:
    fdc.finish([_VERSION], interrupt=False)


def _perpendicular(fdc: "FloppyController", command: int, values: list[int]) -> None:
    fdc.perpendicular = values[0]
    fdc.finish([], interrupt=False)


def _configure(fdc: "FloppyController", command: int, values: list[int]) -> None:
    fdc.configuration, fdc.precompensation = values[1], values[2]
    fdc.finish([], interrupt=False)


def _lock(fdc: "FloppyController", command: int, values: list[int]) -> None:
    fdc.lock = command >> 7
    fdc.finish([fdc.lock << 4], interrupt=False)


def _dump(fdc: "FloppyController", command: int, values: list[int]) -> None:
    cylinders = [0 if drive is None else drive.cylinder for drive in (*fdc.drives, None, None)]
    lock = fdc.lock << 7 | fdc.perpendicular & 0x7F
    rest = [fdc.specify >> 8, fdc.specify & 0xFF, 0, lock, fdc.configuration, fdc.precompensation]
    fdc.finish(cylinders + rest, interrupt=False)


def _read_id(fdc: "FloppyController", command: int, values: list[int]) -> None:
    drive, head = fdc.drive(values[0]), values[0] >> 2 & 1
    if drive is None or not drive.readable(fdc.rate) or head >= _heads(drive):
        fdc.finish([_ABNORMAL | values[0] & 7, _NO_MARK, 0, 0, head, 0, 0])
        return
    cylinder = drive.cylinder
    if drive.format is not None and drive.format.tracks == 40 and cylinder >= 40:
        cylinder //= 2
    fdc.finish([values[0] & 7, 0, 0, cylinder, head, drive.next_sector(), _N])


def _heads(drive: FloppyDrive) -> int:
    return drive.format.heads if drive.format is not None else 0


class _Transfer:
    """READ, WRITE or VERIFY from a sector on to the end of a track, or of a cylinder."""

    def __init__(self, fdc: "FloppyController", command: int, values: list[int]) -> None:
        self.fdc = fdc
        self.select = values[0] & 7
        self.cylinder, self.head, self.sector, self.code, self.last = values[1:6]
        self.multitrack = bool(command & _MULTITRACK)
        self.drive = fdc.drive(values[0])

    def problem(self, *, write: bool) -> tuple[int, int] | None:
        """Status registers 1 and 2 if the first sector can't be had."""
        drive = self.drive
        if drive is None or not drive.readable(self.fdc.rate) or self.code != _N:
            return _NO_MARK, 0
        if self.fdc.configuration & _IMPLIED_SEEK:
            drive.step_to(self.cylinder)
        if not drive.under(self.cylinder):
            return _NO_DATA, _WRONG_CYLINDER
        if self.head != self.select >> 2 & 1:
            return _NO_DATA, 0
        if drive.offset(self.cylinder, self.head, self.sector) is None:
            return _NO_DATA, 0
        if write and (drive.queue is None or drive.queue.readonly):
            return _PROTECTED, 0
        return None

    def room(self) -> int:
        """Bytes from the first sector to the last one that the command names."""
        drive = self.drive
        assert drive is not None
        assert drive.format is not None
        last = min(self.last, drive.format.sectors) if self.last else drive.format.sectors
        count = max(last - self.sector + 1, 1)
        if self.multitrack and self.head == 0 and drive.format.heads == 2:
            count += last
        return count * SECTOR

    def offset(self) -> int:
        """Where the first sector begins."""
        assert self.drive is not None
        found = self.drive.offset(self.cylinder, self.head, self.sector)
        assert found is not None
        return found

    def end(self, st0: int, st1: int, st2: int, moved: int) -> None:
        """The result: where the head has come to after ``moved`` sectors."""
        cylinder, head, sector = self.cylinder, self.head, self.sector
        sectors = self.last or (
            self.drive.format.sectors if self.drive and self.drive.format else 1
        )
        for _ in range(moved):
            sector += 1
            if sector > sectors:
                sector = 1
                if self.multitrack:
                    head ^= 1
                    cylinder += head == 0
                else:
                    cylinder += 1
        select = self.select & 3 | (head & 1) << 2
        self.fdc.finish([st0 | select, st1, st2, cylinder & 0xFF, head, sector, self.code])

    def fail(self, problem: tuple[int, int], moved: int = 0) -> None:
        """An abnormal end."""
        self.end(_ABNORMAL, *problem, moved)


def _read(fdc: "FloppyController", command: int, values: list[int]) -> None:
    if command & 0x1F == 0x02:
        # READ TRACK begins with the first sector.
        values = [*values[:3], 1, *values[4:]]
    transfer = _Transfer(fdc, command, values)
    problem = transfer.problem(write=False)
    if problem is not None:
        transfer.fail(problem)
        return
    room = transfer.room()
    length = room
    if fdc.by_dma:
        if not fdc.dma.ready:
            transfer.fail((_OVERRUN, 0))
            return
        length = min(fdc.dma.left, room)
    data = bytearray(-(-length // SECTOR) * SECTOR)

    def done(error: OSError | None) -> None:
        if error is not None:
            transfer.fail((_CRC, _CRC))
        elif fdc.by_dma:
            ended = fdc.dma.put(bytes(data[:length]))
            _finish(transfer, ended, length)
        else:
            fdc.give(bytes(data), lambda: _finish(transfer, False, len(data)))

    fdc.execute()
    _load(transfer, data, done)


def _finish(transfer: _Transfer, ended: bool, length: int) -> None:
    moved = -(-length // SECTOR)
    if ended:
        transfer.end(0, 0, 0, moved)
    else:
        transfer.fail((_END, 0), moved)


def _load(transfer: _Transfer, data: bytearray, done: Callable[[OSError | None], None]) -> None:
    """Reads sectors; what the image lacks of its disk is zeros."""
    drive, start = transfer.drive, transfer.offset()
    assert drive is not None
    assert drive.queue is not None
    there = max(min(drive.queue.size - start, len(data)), 0)
    if there == 0:
        done(None)
        return
    drive.queue.read(start, [memoryview(data)[:there]], done)


def _store(transfer: _Transfer, data: bytes, done: Callable[[OSError | None], None]) -> None:
    """Writes sectors, as far as the image goes."""
    drive, start = transfer.drive, transfer.offset()
    assert drive is not None
    assert drive.queue is not None
    if start + len(data) > drive.queue.size:
        done(OSError("the image has no such sector"))
        return
    drive.queue.write(start, [data], done)


def _write(fdc: "FloppyController", command: int, values: list[int]) -> None:
    transfer = _Transfer(fdc, command, values)
    problem = transfer.problem(write=True)
    if problem is not None:
        transfer.fail(problem)
        return
    room = transfer.room()

    def store(data: bytes, ended: bool) -> None:
        length = len(data)
        data = data.ljust(-(-length // SECTOR) * SECTOR, b"\0")

        def done(error: OSError | None) -> None:
            if error is not None:
                transfer.fail((_PROTECTED, 0))
            else:
                _finish(transfer, ended, length)

        fdc.execute()
        _store(transfer, data, done)

    if not fdc.by_dma:
        fdc.want(room, lambda: store(fdc.collected, False))
    elif not fdc.dma.ready:
        transfer.fail((_OVERRUN, 0))
    else:
        store(*fdc.dma.get(room))


def _verify(fdc: "FloppyController", command: int, values: list[int]) -> None:
    transfer = _Transfer(fdc, command, values)
    problem = transfer.problem(write=False)
    if problem is not None:
        transfer.fail(problem)
        return
    # With EC set the last byte is a count of sectors.
    count = values[7] if values[0] & 0x80 else transfer.room() // SECTOR
    transfer.end(0, 0, 0, count or 256)


def _format(fdc: "FloppyController", command: int, values: list[int]) -> None:
    select, code, count, _, fill = values
    drive, head = fdc.drive(select), select >> 2 & 1
    cylinder = 0 if drive is None else drive.cylinder
    transfer = _Transfer(fdc, command, [select, cylinder, head, 1, code, count, 0, 0])
    problem = transfer.problem(write=True)
    if problem is not None or not count:
        transfer.fail(problem or (_NO_DATA, 0))
        return

    def store() -> None:
        def done(error: OSError | None) -> None:
            if error is not None:
                transfer.fail((_PROTECTED, 0))
            else:
                transfer.end(0, 0, 0, count)

        fdc.execute()
        _store(transfer, bytes([fill]) * transfer.room(), done)

    # Four bytes name each sector; the layout is the disk's own, whatever they say.
    if not fdc.by_dma:
        fdc.want(4 * count, store)
    elif not fdc.dma.ready:
        transfer.fail((_OVERRUN, 0))
    else:
        fdc.dma.get(4 * count)
        store()


_EXACT: dict[int, tuple[int, _Run]] = {
    0x03: (2, _specify),
    0x04: (1, _drive_status),
    0x07: (1, _recalibrate),
    0x08: (0, _sense),
    0x0E: (0, _dump),
    0x0F: (2, _seek),
    0x10: (0, _version),
    0x12: (1, _perpendicular),
    0x13: (3, _configure),
    0x14: (0, _lock),
    0x94: (0, _lock),
    0x8F: (2, _relative_seek),
    0xCF: (2, _relative_seek),
}
#: Commands whose upper bits are options: multitrack, MFM, skip.
_MASKED: dict[int, tuple[int, _Run]] = {
    0x02: (8, _read),
    0x05: (8, _write),
    0x06: (8, _read),
    0x09: (8, _write),
    0x0A: (1, _read_id),
    0x0C: (8, _read),
    0x0D: (5, _format),
    0x16: (8, _verify),
}
