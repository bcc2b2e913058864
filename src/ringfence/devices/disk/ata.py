"""An ATA disk: its command set over a block queue.

Sources: AT attachment with packet interface - 6 (INCITS 361-2002), chapter 8, for the commands;
ATA/ATAPI command set 2 (INCITS 482-2012) for DATA SET MANAGEMENT and queued commands; ATA-1 for
the CHS commands that DOS and old BIOSes use. Left out: security, host-protected areas (SET MAX is
refused), overlapped commands, streaming, and media-card commands, none of which IDENTIFY offers.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from ringfence.bus import BlockQueue
from ringfence.devices.disk import smart
from ringfence.devices.disk.identify import identify_disk
from ringfence.devices.disk.taskfile import (
    ABRT,
    DF,
    DRDY,
    DSC,
    ERR,
    IDNF,
    LBA,
    SECTOR,
    UNC,
    Action,
    Collect,
    Data,
    Done,
    Drive,
    Flush,
    Media,
)

__all__ = ["AtaDisk", "chs_geometry"]

_MOST_MULTIPLE = 16
#: Transfer modes of SET FEATURES 03h: Ultra DMA 5.
_DEFAULT_MODE = 8 << 3 | 5
_MODES = frozenset({0, 1, 8, 9, 10, 11, 12, *range(0x20, 0x23), *range(0x40, 0x46)})


def chs_geometry(size: int) -> tuple[int, int, int]:
    """Default cylinders, heads and sectors of a disk of ``size`` bytes (ATA-6, 6.2.1)."""
    return max(1, min(size // SECTOR // (16 * 63), 16383)), 16, 63


def _command(method: Callable[..., Action], **options: bool) -> Callable[["AtaDisk"], Action]:
    """A handler with its options."""
    return lambda disk: method(disk, **options)


class AtaDisk(Drive):
    """A disk.

    Args:
        queue: Its medium.
        model: Model number that it reports, up to 40 characters.
        serial: Serial number, up to 20 characters.
        queue_depth: Commands that the host may queue (AHCI); 0 for parallel ATA.
    """

    #: Numbers of the state, with their bounds.
    FIELDS: ClassVar[dict[str, int]] = {
        "multiple": _MOST_MULTIPLE,
        "mode": 0xFF,
        "write_cache": 1,
        "look_ahead": 1,
        "smart_on": 1,
        "heads": 16,
        "sectors": 255,
        "asleep": 1,
        "standby": 1,
    }

    def __init__(
        self,
        queue: BlockQueue,
        *,
        model: str = "Ringfence HARDDISK",
        serial: str = "RF00001",
        queue_depth: int = 0,
    ) -> None:
        super().__init__()
        self.queue = queue
        self.model = model
        self.serial = serial
        self.queue_depth = queue_depth
        self.total = queue.size // SECTOR
        self.geometry = chs_geometry(queue.size)
        self.buffer = bytes(SECTOR)
        self.reset(hard=True)

    def reset(self, *, hard: bool) -> None:
        """Settings go back to their defaults; the software reset does so too (no 66h, 9.12)."""
        self.multiple = 0
        self.heads, self.sectors = self.geometry[1:]
        self.asleep = self.standby = 0
        if hard:
            self.write_cache = self.look_ahead = self.smart_on = 1
            self.registers.features = 0
            self.mode = _DEFAULT_MODE
        self.registers.device = 0
        self.sign()

    def sign(self) -> None:
        """The signature of a disk; the diagnostics have passed."""
        tf = self.registers
        tf.count, tf.low, tf.mid, tf.high = 1, 1, 0, 0
        tf.error, tf.status = 1, DRDY | DSC

    def start(self, command: int) -> Action:
        """Begins a command."""
        handler = self._COMMANDS.get(command)
        if handler is None or (self.asleep and command != 0x08):
            return self.abort()
        self.registers.error = 0
        return handler(self)

    def identify(self) -> bytes:
        """IDENTIFY DEVICE data."""
        cylinders = self.geometry[0]
        if self.heads and self.sectors:
            cylinders = min(self.total // (self.heads * self.sectors), 65535)
        return identify_disk(
            sectors=self.total,
            geometry=self.geometry,
            current=(cylinders, self.heads, self.sectors),
            multiple=self.multiple,
            most_multiple=_MOST_MULTIPLE,
            mode=self.mode,
            write_cache=bool(self.write_cache),
            look_ahead=bool(self.look_ahead),
            smart=bool(self.smart_on),
            model=self.model,
            serial=self.serial,
            queue_depth=self.queue_depth,
        )

    def queued(self, lba: int, count: int, *, write: bool, end: Callable[[Any], None]) -> Action:
        """A queued command (READ and WRITE FPDMA QUEUED); the registers take no part in it."""
        count = count or 65536
        if lba + count > self.total:
            return self._error(IDNF)
        through = bool(write and self.registers.device & 0x80)
        return Media(
            write, lba * SECTOR, count * SECTOR, dma=True, block=SECTOR, end=end, through=through
        )

    # Addresses.

    def _address(self) -> int | None:
        """The sector that a 28-bit command names, by LBA or CHS; ``None`` if there is none."""
        tf = self.registers
        if tf.device & LBA:
            return tf.lba28()
        cylinder = (tf.high & 0xFF) << 8 | tf.mid & 0xFF
        head, sector = tf.device & 0x0F, tf.low & 0xFF
        if not 1 <= sector <= self.sectors or head >= self.heads:
            return None
        return (cylinder * self.heads + head) * self.sectors + sector - 1

    def _show(self, lba: int, *, wide: bool) -> None:
        """Puts an address into the registers."""
        tf = self.registers
        if wide:
            tf.set_lba48(lba)
        elif tf.device & LBA:
            tf.set_lba28(lba)
        else:
            track, sector = divmod(lba, self.sectors)
            cylinder, head = divmod(track, self.heads)
            tf.low, tf.mid, tf.high = sector + 1, cylinder & 0xFF, cylinder >> 8 & 0xFF
            tf.device = tf.device & 0xF0 | head & 0x0F

    def _range(self, *, wide: bool) -> tuple[int, int] | None:
        """First sector and count of the command, or ``None`` if they don't exist."""
        tf = self.registers
        first = tf.lba48() if wide else self._address()
        count = (tf.count or 65536) if wide else (tf.count & 0xFF or 256)
        if wide and not tf.device & LBA:
            return None
        if first is None or first + count > self.total:
            return None
        return first, count

    def _error(self, error: int) -> Done:
        return self.abort(error)

    # Commands.

    def _move(
        self, *, write: bool, wide: bool, dma: bool, several: bool = False, through: bool = False
    ) -> Action:
        """READ and WRITE in all their forms."""
        if several and not self.multiple:
            return self.abort()
        if write and self.queue.readonly:
            return self.abort()
        found = self._range(wide=wide)
        if found is None:
            return self._error(IDNF)
        first, count = found

        def end(error: OSError | None) -> None:
            if error is None:
                self._show(first + count - 1, wide=wide)
                self.registers.count = 0
                self.succeed()
            else:
                self._show(first, wide=wide)
                self.registers.error = ABRT if write else UNC
                self.registers.status = DRDY | DSC | ERR | (DF if write else 0)

        block = (self.multiple if several else 1) * SECTOR
        through = through or (write and not self.write_cache)
        return Media(write, first * SECTOR, count * SECTOR, dma, block, end, through)

    def _verify(self, *, wide: bool) -> Action:
        found = self._range(wide=wide)
        if found is None:
            return self._error(IDNF)
        self._show(sum(found) - 1, wide=wide)
        return self.succeed()

    def _nothing(self) -> Action:
        return self.succeed()

    def _seek(self) -> Action:
        lba = self._address()
        return self._error(IDNF) if lba is None or lba >= self.total else self.succeed()

    def _flush(self) -> Action:
        return Flush(self._flushed)

    def _flushed(self, error: OSError | None) -> None:
        if error is None:
            self.succeed()
        else:
            self.registers.error = ABRT
            self.registers.status = DRDY | DSC | ERR | DF

    def _diagnose(self) -> Action:
        self.sign()
        self.registers.device = 0
        return Done()

    def _parameters(self) -> Action:
        tf = self.registers
        heads, sectors = (tf.device & 0x0F) + 1, tf.count & 0xFF
        if not sectors:
            return self.abort()
        self.heads, self.sectors = heads, sectors
        return self.succeed()

    def _identify(self) -> Action:
        self.succeed()
        return Data(self.identify())

    def _not_packet(self) -> Action:
        return self.abort()

    def _set_multiple(self) -> Action:
        count = self.registers.count & 0xFF
        if count > _MOST_MULTIPLE or count & (count - 1):
            return self.abort()
        self.multiple = count
        return self.succeed()

    def _set_features(self) -> Action:
        tf = self.registers
        feature, value = tf.features & 0xFF, tf.count & 0xFF
        if feature == 0x03:
            if value not in _MODES:
                return self.abort()
            self.mode = value
        elif feature in (0x02, 0x82):
            self.write_cache = int(feature == 0x02)
            if feature == 0x82:
                return self._flush()
        elif feature in (0xAA, 0x55):
            self.look_ahead = int(feature == 0xAA)
        elif feature not in (0x05, 0x85, 0x66, 0xCC, 0x10, 0x90, 0x42, 0xC2):
            return self.abort()
        return self.succeed()

    def _native_max(self, *, wide: bool) -> Action:
        if not self.registers.device & LBA:
            return self.abort()
        last = self.total - 1
        self._show(last if wide else min(last, 0x0FFFFFFE), wide=wide)
        return self.succeed()

    def _power_mode(self) -> Action:
        self.succeed()
        self.registers.count = 0x00 if self.standby else 0xFF
        return Done()

    def _standby(self) -> Action:
        self.standby = 1
        return self._flush()

    def _idle(self) -> Action:
        self.standby = 0
        return self.succeed()

    def _sleep(self) -> Action:
        self.standby = self.asleep = 1
        return self._flush()

    def _read_buffer(self) -> Action:
        self.succeed()
        return Data(self.buffer)

    def _write_buffer(self) -> Action:
        def then(data: bytes) -> Action:
            self.buffer = data
            return self.succeed()

        return Collect(SECTOR, then)

    def _smart(self) -> Action:
        return smart.start(self)

    def _read_log(self, *, dma: bool) -> Action:
        tf = self.registers
        count = tf.count or 65536
        data = smart.log(tf.low & 0xFF, (tf.mid & 0xFF) | (tf.mid >> 8) << 8, count)
        if data is None:
            return self.abort()
        self.succeed()
        return Data(data, dma=dma)

    def _data_set(self) -> Action:
        """DATA SET MANAGEMENT: TRIM."""
        tf = self.registers
        blocks = tf.count
        if tf.features & 0xFF != 1 or not 1 <= blocks <= 8 or self.queue.readonly:
            return self.abort()

        def then(data: bytes) -> Action:
            ranges: list[tuple[int, int]] = []
            for at in range(0, len(data), 8):
                entry = int.from_bytes(data[at : at + 8], "little")
                first, count = entry & (1 << 48) - 1, entry >> 48
                if count and first + count > self.total:
                    return self._error(IDNF)
                if count:
                    ranges.append((first * SECTOR, count * SECTOR))
            return Flush(self._flushed, discards=ranges, flush=False)

        return Collect(blocks * SECTOR, then, dma=True)

    _COMMANDS: ClassVar[dict[int, Callable[["AtaDisk"], Action]]] = {
        0x06: _data_set,
        0x24: _command(_move, write=False, wide=True, dma=False),
        0x25: _command(_move, write=False, wide=True, dma=True),
        0x27: _command(_native_max, wide=True),
        0x29: _command(_move, write=False, wide=True, dma=False, several=True),
        0x2F: _command(_read_log, dma=False),
        0x34: _command(_move, write=True, wide=True, dma=False),
        0x35: _command(_move, write=True, wide=True, dma=True),
        0x39: _command(_move, write=True, wide=True, dma=False, several=True),
        0x3D: _command(_move, write=True, wide=True, dma=True, through=True),
        0x42: _command(_verify, wide=True),
        0x47: _command(_read_log, dma=True),
        0x90: _diagnose,
        0x91: _parameters,
        0xA1: _not_packet,
        0xB0: _smart,
        0xC4: _command(_move, write=False, wide=False, dma=False, several=True),
        0xC5: _command(_move, write=True, wide=False, dma=False, several=True),
        0xC6: _set_multiple,
        0xCE: _command(_move, write=True, wide=True, dma=False, several=True, through=True),
        0xE4: _read_buffer,
        0xE7: _flush,
        0xE8: _write_buffer,
        0xEA: _flush,
        0xEC: _identify,
        0xEF: _set_features,
        0xF8: _command(_native_max, wide=False),
        **dict.fromkeys((0x20, 0x21), _command(_move, write=False, wide=False, dma=False)),
        **dict.fromkeys((0x30, 0x31, 0x3C), _command(_move, write=True, wide=False, dma=False)),
        **dict.fromkeys((0xC8, 0xC9), _command(_move, write=False, wide=False, dma=True)),
        **dict.fromkeys((0xCA, 0xCB), _command(_move, write=True, wide=False, dma=True)),
        **dict.fromkeys((0x40, 0x41), _command(_verify, wide=False)),
        **dict.fromkeys(range(0x10, 0x20), _nothing),
        **dict.fromkeys(range(0x70, 0x80), _seek),
        **dict.fromkeys((0xE5, 0x98), _power_mode),
        **dict.fromkeys((0xE0, 0x94, 0xE2, 0x96), _standby),
        **dict.fromkeys((0xE1, 0x95, 0xE3, 0x97), _idle),
        **dict.fromkeys((0xE6, 0x99), _sleep),
    }
