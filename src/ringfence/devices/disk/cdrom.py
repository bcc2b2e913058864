"""An ATAPI CD-ROM or DVD-ROM drive: packets, medium, sense data.

Sources: ATA/ATAPI-6 (packet commands, 8.23), SCSI primary commands 3 (INQUIRY, sense data), SCSI
multimedia commands 4 (everything else). Left out: audio play, which is refused, and writing.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from ringfence.bus import BlockQueue
from ringfence.devices.disk import mmc
from ringfence.devices.disk.identify import identify_cdrom
from ringfence.devices.disk.taskfile import (
    ABRT,
    DRDY,
    DSC,
    ERR,
    Action,
    Collect,
    Data,
    Done,
    Drive,
    Flush,
    Media,
    Packet,
)

__all__ = ["CD_SECTOR", "Cdrom", "Sense"]

CD_SECTOR = 2048
RAW_SECTOR = 2352
_PACKET = 12
# Interrupt reason in the count register (8.23.4).
_CD, _IO = 0x01, 0x02
_DEFAULT_MODE = 8 << 3 | 5
_MOST_RAW = 128


class Sense(NamedTuple):
    """Sense key, additional sense code and its qualifier (SPC-3, 4.5)."""

    key: int
    code: int
    qualifier: int = 0


NO_SENSE = Sense(0, 0)
NO_MEDIUM = Sense(2, 0x3A)
TRAY_OPEN = Sense(2, 0x3A, 2)
READ_ERROR = Sense(3, 0x11)
BAD_COMMAND = Sense(5, 0x20)
BAD_ADDRESS = Sense(5, 0x21)
BAD_FIELD = Sense(5, 0x24)
LOCKED = Sense(5, 0x53, 2)
NEW_MEDIUM = Sense(6, 0x28)
WAS_RESET = Sense(6, 0x29)


_NEED_DISC = frozenset(
    {0x00, 0x25, 0x28, 0xA8, 0x2B, 0xBE, 0xB9, 0x42, 0x43, 0x44, 0x51, 0x52, 0xAD}
)


class Cdrom(Drive):
    """A drive.

    Args:
        queue: The disc in it, or ``None``.
        model: Model number that it reports.
        serial: Serial number.
        sata: Whether it hangs on a serial link.
    """

    packet = True
    #: Numbers of the state, with their bounds.
    FIELDS: ClassVar[dict[str, int]] = {
        "mode": 0xFF,
        "locked": 1,
        "tray": 1,
        "event": 3,
        "attention": 2,
        "sense_key": 15,
        "sense_code": 0xFF,
        "sense_qualifier": 0xFF,
        "asleep": 1,
    }

    def __init__(
        self,
        queue: BlockQueue | None,
        *,
        model: str = "Ringfence CD-ROM",
        serial: str = "RF00002",
        sata: bool = False,
    ) -> None:
        super().__init__()
        self.queue = queue
        self.model = model
        self.serial = serial
        self.sata = sata
        #: Called when the guest ejects the disc.
        self.ejected: Callable[[], None] | None = None
        self.reset(hard=True)

    def reset(self, *, hard: bool) -> None:
        """After a reset; a hard one is told of by a unit attention."""
        self.asleep = 0
        self.sense_key = self.sense_code = self.sense_qualifier = 0
        if hard:
            self.mode = _DEFAULT_MODE
            self.registers.features = 0
            self.locked = self.tray = 0
            self.event = 0
            self.attention = 2
        self.registers.device = 0
        self.sign()

    def sign(self) -> None:
        """The signature of a packet device (9.12); such a one does not say that it is ready."""
        tf = self.registers
        tf.count, tf.low, tf.mid, tf.high = 1, 1, 0x14, 0xEB
        tf.error, tf.status = 1, 0

    @property
    def blocks(self) -> int:
        """Blocks of the disc, 0 without one."""
        return self.queue.size // CD_SECTOR if self.queue is not None and not self.tray else 0

    # For the user.

    def insert(self, queue: BlockQueue | None) -> None:
        """Puts a disc in, or takes it out; the guest hears of it."""
        self.queue = queue
        self.tray = 0
        self.event = 2 if queue is not None else 3
        self.attention = 1

    def press_eject(self) -> bool:
        """The button on the drive; false when the guest has locked it, and is asked instead."""
        if self.locked:
            self.event = 1
            return False
        return True

    # Commands.

    def start(self, command: int) -> Action:
        """Begins an ATA command; all but a few come as packets."""
        tf = self.registers
        if self.asleep and command != 0x08:
            return self.abort()
        if command == 0xA0:
            tf.count, tf.error = _CD, 0
            return Packet(_PACKET, self._execute)
        if command == 0xA1:
            self.succeed()
            return Data(
                identify_cdrom(mode=self.mode, model=self.model, serial=self.serial, sata=self.sata)
            )
        if command in (0xEC, *range(0x20, 0x22)):
            # A host that looks for disks finds out so that this is none.
            self.sign()
            tf.error, tf.status = ABRT, DRDY | ERR
            return Done()
        if command in (0x08, 0x90):
            self.reset(hard=False)
            tf.error = 1
            return Done()
        if command in (0xE1, 0x95, 0xE3, 0x97, 0xE0, 0x94, 0xE2, 0x96, 0xE7, 0xEA):
            return self.succeed()
        if command in (0xE5, 0x98):
            self.succeed()
            tf.count = 0xFF
            return Done()
        if command in (0xE6, 0x99):
            self.asleep = 1
            return self.succeed()
        if command == 0xEF and tf.features & 0xFF == 0x03:
            self.mode = tf.count & 0xFF
            return self.succeed()
        if command == 0xEF and tf.features & 0xFF in (0x66, 0xCC, 0x10, 0x90):
            return self.succeed()
        return self.abort()

    def _execute(self, packet: bytes) -> Action:
        """Carries out a packet."""
        code = packet[0]
        if code == 0x03:
            return self._request_sense(packet)
        if code not in (0x12, 0x4A, 0x46):
            # INQUIRY and these go on while something else waits to be told.
            if self.attention:
                sense = WAS_RESET if self.attention == 2 else NEW_MEDIUM
                self.attention = 0
                return self._check(sense)
            if code in _NEED_DISC and not self.blocks:
                return self._check(TRAY_OPEN if self.tray else NO_MEDIUM)
        handler = self._PACKETS.get(code)
        if handler is None:
            return self._check(BAD_COMMAND)
        return handler(self, packet)

    def _check(self, sense: Sense) -> Done:
        """CHECK CONDITION."""
        self.sense_key, self.sense_code, self.sense_qualifier = sense
        tf = self.registers
        tf.count = tf.count & ~7 | _IO | _CD
        tf.error = sense.key << 4 | ABRT
        tf.status = DRDY | DSC | ERR
        return Done()

    def _good(self) -> Done:
        """GOOD status."""
        self.sense_key = self.sense_code = self.sense_qualifier = 0
        tf = self.registers
        tf.count = tf.count & ~7 | _IO | _CD
        tf.error = 0
        tf.status = DRDY | DSC
        return Done()

    def _ended(self, error: OSError | None) -> None:
        if error is None:
            self._good()
        else:
            self._check(READ_ERROR)

    def _limit(self) -> tuple[bool, int]:
        """Whether data goes by DMA, and else the most bytes of a block."""
        tf = self.registers
        limit = (tf.mid & 0xFF) | (tf.high & 0xFF) << 8
        return bool(tf.features & 1), (limit & ~1) or 0xFFFE

    def _give(self, data: bytes, allocation: int) -> Action:
        """As much of ``data`` as the host has room for."""
        data = data[:allocation]
        if not data:
            return self._good()
        dma, limit = self._limit()
        return Data(data, dma=dma, block=limit, end=self._ended)

    def _read(self, first: int, count: int) -> Action:
        """User data of blocks."""
        if count == 0:
            return self._good()
        if first + count > self.blocks:
            return self._check(BAD_ADDRESS)
        dma, limit = self._limit()
        return Media(
            False, first * CD_SECTOR, count * CD_SECTOR, dma=dma, block=limit, end=self._ended
        )

    def _ready(self, packet: bytes) -> Action:
        return self._good()

    def _request_sense(self, packet: bytes) -> Action:
        if self.attention and not self.sense_key:
            sense = WAS_RESET if self.attention == 2 else NEW_MEDIUM
            self.attention = 0
        else:
            sense = Sense(self.sense_key, self.sense_code, self.sense_qualifier)
        self.sense_key = self.sense_code = self.sense_qualifier = 0
        return self._give(mmc.sense(*sense), packet[4])

    def _inquiry(self, packet: bytes) -> Action:
        data = mmc.inquiry(self.model, self.serial, vital=packet[1] & 1, page=packet[2])
        if data is None:
            return self._check(BAD_FIELD)
        return self._give(data, int.from_bytes(packet[3:5]))

    def _start_stop(self, packet: bytes) -> Action:
        start, load = packet[4] & 1, packet[4] & 2
        if load and not start:
            if self.locked:
                return self._check(LOCKED)
            if not self.tray and self.queue is not None:
                self.queue.cancel()
                self.event = 3
            self.tray = 1
            if self.ejected is not None:
                self.ejected()
        elif load:
            if self.tray and self.queue is not None:
                self.event, self.attention = 2, 1
            self.tray = 0
        return self._good()

    def _prevent(self, packet: bytes) -> Action:
        self.locked = packet[4] & 1
        return self._good()

    def _capacity(self, packet: bytes) -> Action:
        return self._give((self.blocks - 1).to_bytes(4) + CD_SECTOR.to_bytes(4), 8)

    def _read_10(self, packet: bytes) -> Action:
        return self._read(int.from_bytes(packet[2:6]), int.from_bytes(packet[7:9]))

    def _read_12(self, packet: bytes) -> Action:
        return self._read(int.from_bytes(packet[2:6]), int.from_bytes(packet[6:10]))

    def _seek(self, packet: bytes) -> Action:
        if int.from_bytes(packet[2:6]) >= self.blocks:
            return self._check(BAD_ADDRESS)
        return self._good()

    def _read_cd(self, packet: bytes) -> Action:
        first, count = int.from_bytes(packet[2:6]), int.from_bytes(packet[6:9])
        return self._read_parts(packet, first, count)

    def _read_cd_msf(self, packet: bytes) -> Action:
        first, end = mmc.block_of(packet[3:6]), mmc.block_of(packet[6:9])
        if first < 0 or end < first:
            return self._check(BAD_FIELD)
        return self._read_parts(packet, first, end - first)

    def _read_parts(self, packet: bytes, first: int, count: int) -> Action:
        """READ CD: user data, or all of each sector."""
        parts, kind = packet[9] & 0xF8, packet[1] >> 2 & 7
        if kind not in (0, 2, 4) or packet[9] & 6 or packet[10] & 7:
            return self._check(BAD_FIELD)
        if count == 0 or parts == 0:
            return self._good()
        if parts == 0x10:
            return self._read(first, count)
        if parts != 0xF8 or count > _MOST_RAW:
            return self._check(BAD_FIELD)
        if first + count > self.blocks:
            return self._check(BAD_ADDRESS)
        assert self.queue is not None
        try:
            data = self.queue.backend.read(first * CD_SECTOR, count * CD_SECTOR)
        except OSError:
            return self._check(READ_ERROR)
        raw = b"".join(
            mmc.raw_sector(first + index, data[index * CD_SECTOR : (index + 1) * CD_SECTOR])
            for index in range(count)
        )
        return self._give(raw, len(raw))

    def _toc(self, packet: bytes) -> Action:
        form = packet[2] & 15 or packet[9] >> 6
        data = mmc.toc(self.blocks, form, msf=bool(packet[1] & 2), start=packet[6])
        if data is None:
            return self._check(BAD_FIELD)
        return self._give(data, int.from_bytes(packet[7:9]))

    def _mode_sense(self, packet: bytes) -> Action:
        long = packet[0] == 0x5A
        data = mmc.mode_sense(
            packet[2] & 0x3F, long=long, locked=bool(self.locked), disc=self._disc()
        )
        if data is None or packet[2] >> 6 == 3:
            return self._check(BAD_FIELD if data is None else Sense(5, 0x39))
        return self._give(data, int.from_bytes(packet[7:9]) if long else packet[4])

    def _mode_select(self, packet: bytes) -> Action:
        length = int.from_bytes(packet[7:9]) if packet[0] == 0x55 else packet[4]
        if not length:
            return self._good()
        dma, limit = self._limit()
        return Collect(length, lambda _: self._good(), dma=dma, block=limit)

    def _disc(self) -> int:
        """Kind of disc: 0 for none, 1 for a CD, 2 for a DVD."""
        return mmc.kind(self.blocks)

    def _configuration(self, packet: bytes) -> Action:
        data = mmc.configuration(self._disc(), packet[1] & 3, int.from_bytes(packet[2:4]))
        return self._give(data, int.from_bytes(packet[7:9]))

    def _event_status(self, packet: bytes) -> Action:
        if not packet[1] & 1:
            return self._check(BAD_FIELD)
        data = mmc.event(packet[4], self.event, tray=bool(self.tray), disc=bool(self.blocks))
        if packet[4] & 0x10:
            self.event = 0
        return self._give(data, int.from_bytes(packet[7:9]))

    def _subchannel(self, packet: bytes) -> Action:
        data = bytes([0, 0x15, 0, 0]) if not packet[2] & 0x40 else mmc.subchannel(packet[3])
        return self._give(data, int.from_bytes(packet[7:9]))

    def _disc_information(self, packet: bytes) -> Action:
        if packet[1] & 7:
            return self._check(BAD_FIELD)
        return self._give(mmc.disc_information(), int.from_bytes(packet[7:9]))

    def _track_information(self, packet: bytes) -> Action:
        return self._give(mmc.track_information(self.blocks), int.from_bytes(packet[7:9]))

    def _dvd_structure(self, packet: bytes) -> Action:
        data = mmc.dvd_structure(self.blocks, packet[7]) if self._disc() == 2 else None
        if data is None or packet[1] & 15:
            return self._check(BAD_FIELD)
        return self._give(data, int.from_bytes(packet[8:10]))

    def _mechanism(self, packet: bytes) -> Action:
        data = bytes([0, 0x10 if self.tray else 0, 0, 0, 0, 1, 0, 0])
        return self._give(data, int.from_bytes(packet[8:10]))

    def _performance(self, packet: bytes) -> Action:
        return self._give(bytes([0, 0, 0, 4, 0, 0, 0, 0]), 8)

    def _flush(self, packet: bytes) -> Action:
        return Flush(self._ended, flush=False)

    _PACKETS: ClassVar[dict[int, Callable[["Cdrom", bytes], Action]]] = {
        0x00: _ready,
        0x12: _inquiry,
        0x15: _mode_select,
        0x1A: _mode_sense,
        0x1B: _start_stop,
        0x1E: _prevent,
        0x25: _capacity,
        0x28: _read_10,
        0x2B: _seek,
        0x35: _flush,
        0x42: _subchannel,
        0x43: _toc,
        0x46: _configuration,
        0x4A: _event_status,
        0x4B: _ready,
        0x4E: _ready,
        0x51: _disc_information,
        0x52: _track_information,
        0x55: _mode_select,
        0x5A: _mode_sense,
        0xA8: _read_12,
        0xAC: _performance,
        0xAD: _dvd_structure,
        0xB9: _read_cd_msf,
        0xBB: _ready,
        0xBD: _mechanism,
        0xBE: _read_cd,
    }
