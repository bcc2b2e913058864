"""A port of an AHCI controller: registers, command list, received FIS area, one drive.

Sources: Serial ATA advanced host controller interface (AHCI) 1.3, chapters 3.3 (port registers),
4 (structures in memory), 5 (state machine) and 9 (errors); Serial ATA 2.6, 10.3 (frames). Left
out: power management of the link, cold presence detection, port multipliers.
"""

from typing import TYPE_CHECKING

from ringfence.devices.disk.ata import AtaDisk
from ringfence.devices.disk.scatter import Scatter
from ringfence.devices.disk.taskfile import (
    ABRT,
    BSY,
    DRDY,
    DRQ,
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

if TYPE_CHECKING:
    from ringfence.devices.ahci.controller import AhciController

__all__ = ["AhciPort"]

# Registers, in double words from the port's base (3.3).
CLB, CLBU, FB, FBU, IS, IE, CMD, _, TFD, SIG, SSTS, SCTL, SERR, SACT, CI, SNTF, FBS = range(17)
# Port command and status.
ST, SUD, POD, CLO, FRE, FR, CR = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 14, 1 << 15
_CURRENT_SLOT = 0x1F << 8
_CMD_KEPT = ST | FRE | 1 << 24 | 1 << 25 | 0xF << 28
# Interrupts.
_DHR, _PS, _DS, _SDB, _DP, _PC, _PRC, _OFS, _IF, _HBF, _TFE = (
    1 << 0,
    1 << 1,
    1 << 2,
    1 << 3,
    1 << 5,
    1 << 6,
    1 << 22,
    1 << 24,
    1 << 27,
    1 << 29,
    1 << 30,
)
_IE_MASK = 0xFDC000FF
# Offsets in the received FIS area (4.2.1).
_RX_PIO, _RX_D2H, _RX_SDB = 0x20, 0x40, 0x58
_H2D, _D2H, _PIO_SETUP, _SDB_FIS = 0x27, 0x34, 0x5F, 0xA1
# Command header (4.2.2).
_ATAPI, _WRITE, _CLEAR_BUSY = 1 << 5, 1 << 6, 1 << 10
_HEADER, _TABLE, _PACKET_AT, _PRDT_AT, _PRD = 32, 0x80, 0x40, 0x80, 16
_READ_QUEUED, _WRITE_QUEUED = 0x60, 0x61
_DEVICE_RESET = 0x08
#: What a diagnostic finds: present, second generation, active.
_LINK_UP, _SIGNATURE_NONE = 0x123, 0xFFFFFFFF
_PACKET = 0xA0


class AhciPort:
    """One port.

    Args:
        controller: What it belongs to.
        number: Which one it is.
        drive: What hangs on it.
    """

    def __init__(self, controller: "AhciController", number: int, drive: Drive | None) -> None:
        self._controller = controller
        self.number = number
        self.drive = drive
        #: Registers by index; those that are computed hold what does not change.
        self.registers = [0] * 32
        #: Slots whose command is under way.
        self.running = 0
        self._halted = False
        self.reset()

    def reset(self) -> None:
        """HBA reset: the link comes up, and the drive shows what it is."""
        self.cancel()
        firmware = [self.registers[index] for index in (CLB, CLBU, FB, FBU)]
        self.registers[:] = [0] * 32
        self.registers[CLB : FBU + 1] = firmware
        self.registers[CMD] = SUD | POD
        self.registers[SIG] = _SIGNATURE_NONE
        self.registers[TFD] = 0x7F
        self._halted = False
        self._connect()

    def read(self, index: int) -> int:
        """Reads a register."""
        return self.registers[index]

    def write(self, index: int, value: int) -> None:
        """Writes a register."""
        registers = self.registers
        if index == CLB:
            registers[CLB] = value & 0xFFFFFC00
        elif index == FB:
            registers[FB] = value & 0xFFFFFF00
        elif index in (CLBU, FBU):
            registers[index] = value
        elif index == IS:
            registers[IS] &= ~value
            self._controller.update()
        elif index == IE:
            registers[IE] = value & _IE_MASK
            self._controller.update()
        elif index == CMD:
            self._command(value)
        elif index == SCTL:
            self._control(value)
        elif index == SERR:
            registers[SERR] &= ~value
            if value & 1 << 26:
                registers[IS] &= ~_PC
                self._controller.update()
        elif index == SACT:
            if registers[CMD] & ST:
                registers[SACT] |= value
        elif index == CI and registers[CMD] & ST:
            registers[CI] |= value
            self.process()

    def settle(self) -> None:
        """Waits for what the host does for the drive."""
        queue = getattr(self.drive, "queue", None)
        if queue is not None:
            queue.settle()

    def cancel(self) -> None:
        """Ends all commands."""
        queue = getattr(self.drive, "queue", None)
        if queue is not None:
            queue.cancel()
        self.running = 0

    def process(self) -> None:
        """Starts the commands that wait."""
        registers = self.registers
        for slot in range(32):
            # A command that fails stops all that follow.
            if not registers[CMD] & ST or self._halted or self.drive is None:
                return
            bit = 1 << slot
            if not registers[CI] & bit or self.running & bit:
                continue
            queued = bool(registers[SACT] & bit)
            if self.running and not (queued and self.running & registers[SACT] == self.running):
                # Commands that are not queued have the drive for themselves.
                return
            self.running |= bit
            registers[CMD] = registers[CMD] & ~_CURRENT_SLOT | slot << 8
            self._start(slot)

    # Link and engine.

    def _connect(self) -> None:
        """The drive sends its signature."""
        registers, drive = self.registers, self.drive
        if drive is None:
            registers[SSTS] = 0
            return
        drive.reset(hard=True)
        registers[SSTS] = _LINK_UP
        registers[SERR] |= 1 << 26
        tf = drive.registers
        registers[SIG] = (tf.high & 0xFF) << 24 | (tf.mid & 0xFF) << 16 | tf.low << 8 | tf.count
        registers[TFD] = tf.error << 8 | tf.status

    def _control(self, value: int) -> None:
        """SControl: COMRESET, or the link off."""
        before, self.registers[SCTL] = self.registers[SCTL] & 0xF, value & 0xFFF
        detection = value & 0xF
        if detection == 1 and before != 1:
            self.cancel()
            self.registers[SSTS] = 0 if self.drive is None else 1
            self.registers[TFD] = 0x80
            self.registers[CI] = self.registers[SACT] = 0
            self._halted = False
        elif detection == 4:
            self.cancel()
            self.registers[SSTS] = 4
        elif (before == 1 and detection == 0) or (before == 4 and detection == 0):
            self.registers[TFD] = 0x7F
            self._connect()
            if self.drive is not None:
                self.registers[IS] |= _PC
                self._send_d2h(interrupt=False)
            self._controller.update()

    def _command(self, value: int) -> None:
        registers = self.registers
        before = registers[CMD]
        now = before & ~_CMD_KEPT & ~CLO | value & _CMD_KEPT
        if value & CLO:
            registers[TFD] &= ~(BSY | DRQ)
        now = now | CR if now & ST else now & ~CR
        now = now | FR if now & FRE else now & ~FR
        registers[CMD] = now
        if before & ST and not now & ST:
            self.cancel()
            registers[CI] = registers[SACT] = 0
            registers[CMD] &= ~_CURRENT_SLOT
            self._halted = False
        elif now & FRE and not before & FRE and self.drive is not None:
            # The signature FIS that came while there was no place for it.
            self._send_d2h(interrupt=False)
        if now & ST and not before & ST:
            self.process()

    # Commands.

    def _start(self, slot: int) -> None:
        """Fetches a command and gives it to the drive."""
        assert self.drive is not None
        memory, registers = self._controller.dma, self.registers
        header = memory.read(self._address(CLB) + slot * _HEADER, _HEADER)
        flags = int.from_bytes(header[0:4], "little")
        table = int.from_bytes(header[8:16], "little") & ~0x7F
        fis = memory.read(table, 20)
        tf = self.drive.registers
        if fis[0] != _H2D or (flags & 0x1F) < 2:
            self._fatal(slot)
            return
        if not fis[1] & 0x80:
            self._control_fis(fis[15], slot, flags)
            return
        command = fis[2]
        tf.features = fis[3] | fis[11] << 8
        tf.count = fis[12] | fis[13] << 8
        tf.low = fis[4] | fis[8] << 8
        tf.mid = fis[5] | fis[9] << 8
        tf.high = fis[6] | fis[10] << 8
        tf.device = fis[7]
        if command in (_READ_QUEUED, _WRITE_QUEUED):
            self._start_queued(slot, flags, table, command)
            return
        registers[TFD] = registers[TFD] & 0xFF00 | BSY | DSC
        self._perform(slot, flags, table, self.drive.start(command))

    def _control_fis(self, control: int, slot: int, flags: int) -> None:
        """A FIS with the C bit off writes the control register: software reset."""
        assert self.drive is not None
        if control & 4:
            self.drive.registers.status = BSY
            self.registers[TFD] = BSY
        elif self.drive.registers.status & BSY:
            self.drive.reset(hard=False)
            self.registers[TFD] = self.drive.registers.error << 8 | self.drive.registers.status
            self._send_d2h(interrupt=False)
        self.running &= ~(1 << slot)
        self.registers[CI] &= ~(1 << slot)
        if flags & _CLEAR_BUSY:
            self.registers[TFD] &= ~BSY

    def _start_queued(self, slot: int, flags: int, table: int, command: int) -> None:
        """READ or WRITE FPDMA QUEUED (ATA8-ACS, 7.20): tag, count and address are elsewhere."""
        drive = self.drive
        write = command == _WRITE_QUEUED
        if not isinstance(drive, AtaDisk) or not drive.queue_depth:
            self.drive.abort()  # type: ignore[union-attr]
            self._end(slot)
            return
        if write and drive.queue.readonly:
            drive.abort()
            self._end(slot)
            return
        lba, count = drive.registers.lba48(), drive.registers.features
        # The command is taken, and its slot is free for the host to see it.
        self.registers[CI] &= ~(1 << slot)

        def end(error: OSError | None) -> None:
            if error is None:
                self._queued_done(slot)
            else:
                drive.abort(0x40 if not write else ABRT)
                self._end(slot)

        action = drive.queued(lba, count, write=write, end=end)
        if isinstance(action, Media):
            self._move(slot, flags, table, action, finish=False)
        else:
            self._end(slot)

    def _perform(self, slot: int, flags: int, table: int, action: Action) -> None:
        """Carries out what the drive asks for."""
        if isinstance(action, Done):
            self._end(slot)
        elif isinstance(action, Packet):
            packet = self._controller.dma.read(table + _PACKET_AT, action.length)
            self._perform(slot, flags, table, action.then(packet))
        elif isinstance(action, Flush):
            self._flush(slot, action, 0)
        elif isinstance(action, Data):
            scatter = self._scatter(flags, table, len(action.data))
            moved = scatter.put(action.data)
            self._moved(slot, moved)
            action.end(None)
            self._end(slot, setup=not action.dma)
        elif isinstance(action, Collect):
            scatter = self._scatter(flags, table, action.length)
            self._moved(slot, scatter.length)
            data = scatter.get().ljust(action.length, b"\0")
            self._perform(slot, flags, table, action.then(data))
        else:
            self._move(slot, flags, table, action, finish=True)

    def _move(self, slot: int, flags: int, table: int, action: Media, *, finish: bool) -> None:
        """Bytes between medium and memory."""
        assert self.drive is not None
        queue = self.drive.queue  # type: ignore[attr-defined]
        scatter = self._scatter(flags, table, action.length)

        def done(error: OSError | None) -> None:
            if not action.write:
                scatter.stored()
            if error is None and action.write and action.through:
                queue.flush(over)
            else:
                over(error)

        def over(error: OSError | None) -> None:
            if scatter.length < action.length:
                # The list of memory is too short: what there was room for has been moved.
                self.registers[IS] |= _OFS
            self._moved(slot, scatter.length)
            action.end(error)
            if finish:
                self._end(slot, setup=not action.dma and not self.drive.packet)  # type: ignore[union-attr]

        if action.write:
            scatter.fetch()
            queue.write(action.offset, scatter.buffers, done)
        else:
            queue.read(action.offset, scatter.buffers, done)

    def _flush(self, slot: int, action: Flush, index: int) -> None:
        queue = getattr(self.drive, "queue", None)

        def over(error: OSError | None) -> None:
            action.end(error)
            self._end(slot)

        if queue is None or (index == len(action.discards) and not action.flush):
            over(None)
        elif index == len(action.discards):
            queue.flush(over)
        else:
            offset, length = action.discards[index]

            def done(error: OSError | None) -> None:
                if error is not None:
                    over(error)
                else:
                    self._flush(slot, action, index + 1)

            queue.discard(offset, length, done)

    def _scatter(self, flags: int, table: int, length: int) -> Scatter:
        """The memory that a command's table names, for ``length`` bytes at most."""
        memory = self._controller.dma
        scatter = Scatter(memory, length)
        entries = flags >> 16
        # In pieces, so that a table of 64 Ki entries costs no more than is used of it.
        for first in range(0, entries, 64):
            count = min(64, entries - first)
            raw = memory.read(table + _PRDT_AT + first * _PRD, count * _PRD)
            for at in range(0, len(raw), _PRD):
                address = int.from_bytes(raw[at : at + 8], "little") & ~1
                size = (int.from_bytes(raw[at + 12 : at + 16], "little") & 0x3FFFFF | 1) + 1
                if not scatter.add(address, size):
                    return scatter
        return scatter

    def _moved(self, slot: int, count: int) -> None:
        """Tells the command header how many bytes were moved."""
        at = self._address(CLB) + slot * _HEADER + 4
        self._controller.dma.write(at, count.to_bytes(4, "little"))

    # Ends.

    def _address(self, register: int) -> int:
        return self.registers[register] | self.registers[register + 1] << 32

    def _end(self, slot: int, *, setup: bool = False) -> None:
        """A command that is not queued, or has failed, ends with a register FIS."""
        assert self.drive is not None
        tf, registers, bit = self.drive.registers, self.registers, 1 << slot
        registers[TFD] = tf.error << 8 | tf.status
        if setup and not tf.status & ERR:
            # Data that a disk gives in PIO blocks ends with a PIO setup FIS.
            self._receive(_RX_PIO, self._fis(_PIO_SETUP, 0x60))
            registers[IS] |= _PS
            self._receive(_RX_D2H, self._fis(_D2H, 0))
        else:
            self._send_d2h(interrupt=True)
        if tf.status & ERR:
            # The host has to stop the port and start it again.
            registers[IS] |= _TFE
            self._halted = True
            registers[CI] |= bit if not registers[SACT] & bit else 0
            self.running &= ~bit
            self._controller.update()
            return
        self.running &= ~bit
        registers[CI] &= ~bit
        self._controller.update()
        self._later()

    def _queued_done(self, slot: int) -> None:
        """A queued command ends with a set device bits FIS."""
        registers, bit = self.registers, 1 << slot
        self.running &= ~bit
        registers[SACT] &= ~bit
        registers[TFD] = registers[TFD] & ~0xFF77 | DRDY | DSC
        self._receive(_RX_SDB, bytes([_SDB_FIS, 0x40, DRDY | DSC, 0]) + bit.to_bytes(4, "little"))
        registers[IS] |= _SDB
        self._controller.update()
        self._later()

    def _later(self) -> None:
        """Commands that had to wait can start."""
        if self.registers[CI] & ~self.running and not self._controller.processing:
            self.process()

    def _fatal(self, slot: int) -> None:
        """A command that is none: interface fatal error."""
        self.running &= ~(1 << slot)
        self._halted = True
        self.registers[IS] |= _IF
        self._controller.update()

    def _fis(self, kind: int, flags: int) -> bytes:
        assert self.drive is not None
        tf = self.drive.registers
        return bytes(
            [
                kind,
                flags,
                tf.status,
                tf.error,
                tf.low & 0xFF,
                tf.mid & 0xFF,
                tf.high & 0xFF,
                tf.device,
                tf.low >> 8,
                tf.mid >> 8,
                tf.high >> 8,
                0,
                tf.count & 0xFF,
                tf.count >> 8,
                0,
                tf.status if kind == _PIO_SETUP else 0,
                0,
                0,
                0,
                0,
            ]
        )

    def _send_d2h(self, *, interrupt: bool) -> None:
        self._receive(_RX_D2H, self._fis(_D2H, 0x40 if interrupt else 0))
        if interrupt:
            self.registers[IS] |= _DHR

    def _receive(self, offset: int, fis: bytes) -> None:
        """Puts a FIS where the host wants them."""
        if self.registers[CMD] & FRE:
            self._controller.dma.write(self._address(FB) + offset, fis)
