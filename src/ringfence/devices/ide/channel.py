"""An IDE channel: the registers of two drives, their data port and their interrupt.

Source: AT attachment with packet interface - 6 (INCITS 361-2002), chapters 7 (registers) and 9
(protocols). Offsets 0 to 7 are the command block (1F0h to 1F7h on the first channel), offset 8 is
the device control and alternate status register (3F6h). Left out: the drive address register 3F7h,
which the floppy controller has, and drives that queue.
"""

from collections.abc import Callable
from typing import ClassVar, Protocol

from ringfence.bus import IrqLine, State
from ringfence.devices.disk.scatter import Scatter
from ringfence.devices.disk.taskfile import (
    BSY,
    DRDY,
    DRQ,
    DSC,
    Action,
    Collect,
    Data,
    Done,
    Drive,
    Flush,
    Media,
    Packet,
    TaskFile,
)
from ringfence.devices.ide import saved

__all__ = ["BusMaster", "IdeChannel"]

DATA, FEATURES, COUNT, LOW, MID, HIGH, DEVICE, COMMAND, CONTROL = range(9)
_NIEN, _SRST, _HOB = 0x02, 0x04, 0x80
_SLAVE = 0x10
_IO = 0x02
_DEVICE_RESET, _DIAGNOSTIC, _PACKET = 0x08, 0x90, 0xA0
#: Most bytes that are read ahead of, or gathered from, the data port.
CHUNK = 128 << 10


class BusMaster(Protocol):
    """The other half of DMA: the controller's bus master for a channel."""

    @property
    def started(self) -> bool:
        """Whether the guest lets it run."""

    def scatter(self, length: int) -> tuple[Scatter, bool]:
        """Memory for ``length`` bytes, as the descriptors have it, and whether they end there."""

    def ended(self, *, more: bool) -> None:
        """The transfer is over; ``more``: there are descriptors left."""

    def interrupt(self) -> None:
        """The drive has raised its interrupt."""


class IdeChannel:
    """Two drives on one cable.

    Args:
        drives: Device 0 and device 1.
        irq: Their interrupt.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})
    LENGTH: ClassVar[int] = 9

    def __init__(self, drives: tuple[Drive | None, Drive | None], irq: IrqLine) -> None:
        self.drives = drives
        self.master: BusMaster | None = None
        self._irq = irq
        self._none = TaskFile(0, 0, 0, 0, 0, 0, 0, 0)
        self.origin: list[int] = []
        self.clear()
        self.reset()

    def reset(self) -> None:
        """Power-on, or the reset line."""
        self.cancel()
        self.selected = 0
        self.control = 0
        self.intrq = False
        for drive in self.drives:
            if drive is not None:
                drive.reset(hard=True)
        self._drive_irq()

    def read(self, offset: int, size: int) -> int:
        """Reads a register; the data register in any width."""
        if offset == DATA:
            return int.from_bytes(self.read_string(DATA, size, 1), "little")
        if size > 1:
            return sum(self.read(min(offset + i, CONTROL), 1) << 8 * i for i in range(size))
        drive = self.drives[self.selected]
        if drive is None:
            return 0
        tf = drive.registers
        if offset == COMMAND:
            self.intrq = False
            self._irq.set(False)
            return tf.status
        if offset == CONTROL:
            return tf.status
        shift = 8 if self.control & _HOB else 0
        if offset == COUNT:
            return tf.count >> shift & 0xFF
        if offset == LOW:
            return tf.low >> shift & 0xFF
        if offset == MID:
            return tf.mid >> shift & 0xFF
        if offset == HIGH:
            return tf.high >> shift & 0xFF
        return tf.device | 0xA0 if offset == DEVICE else tf.error

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a register; the data register in any width."""
        if offset == DATA:
            self.write_string(DATA, size, value.to_bytes(size, "little"))
        elif size > 1:
            for index in range(size):
                self.write(min(offset + index, CONTROL), 1, value >> 8 * index & 0xFF)
        elif offset == CONTROL:
            self._write_control(value)
        elif offset == COMMAND:
            self._command(value)
        else:
            self._write_block(offset, value)

    def read_string(self, offset: int, size: int, count: int) -> bytes:
        """Data port: the bytes of blocks as long as the drive has them, then zeros."""
        if offset != DATA:
            return bytes(self.read(offset, 1) for _ in range(size * count))
        wanted = size * count
        parts: list[bytes] = []
        while wanted and self.reading:
            part = self.buffer[self.at : min(self.at + wanted, self.block_end)]
            self.at += len(part)
            wanted -= len(part)
            parts.append(bytes(part))
            if self.at >= self.block_end:
                self._block_read()
        if wanted:
            parts.append(bytes(wanted))
        return b"".join(parts)

    def write_string(self, offset: int, size: int, data: bytes) -> None:
        """Data port: bytes for as long as the drive asks for them."""
        if offset != DATA:
            for byte in data:
                self.write(offset, 1, byte)
            return
        at = 0
        while at < len(data) and self.writing:
            part = data[at : at + self.block_end - self.at]
            self.buffer[self.at : self.at + len(part)] = part
            self.at += len(part)
            at += len(part)
            if self.at >= self.block_end:
                self._block_written()

    def state(self) -> State:
        """Registers, drives and the transfer under way."""
        self.settle()
        return saved.save(self)

    def restore(self, state: State) -> None:
        """Takes them."""
        self.settle()
        saved.restore(self, state)
        self._drive_irq()

    # For the controller and the board.

    def settle(self) -> None:
        """Waits for what the host does for the drives."""
        for drive in self.drives:
            queue = getattr(drive, "queue", None)
            if queue is not None:
                queue.settle()

    def cancel(self) -> None:
        """Ends whatever is under way."""
        for drive in self.drives:
            queue = getattr(drive, "queue", None)
            if queue is not None:
                queue.cancel()
        self.clear()

    def start_dma(self) -> None:
        """The bus master was started."""
        action = self.action
        if action is not None and getattr(action, "dma", False) and not self._busy():
            self._run_dma(action)

    def stop_dma(self) -> None:
        """The bus master was stopped: a transfer under way ends where it is."""
        if self.action is not None and getattr(self.action, "dma", False) and self._busy():
            self.settle()

    # Registers.

    def _drive(self) -> Drive | None:
        return self.drives[self.selected]

    def _registers(self) -> TaskFile:
        drive = self._drive()
        return self._none if drive is None else drive.registers

    def _busy(self) -> bool:
        return bool(self._registers().status & BSY)

    def _write_control(self, value: int) -> None:
        before, self.control = self.control, value & (_HOB | _SRST | _NIEN)
        if value & _SRST and not before & _SRST:
            self.cancel()
            self.intrq = False
            for drive in self.drives:
                if drive is not None:
                    drive.registers.status = BSY
        elif before & _SRST and not value & _SRST:
            self.selected = 0
            for drive in self.drives:
                if drive is not None:
                    drive.reset(hard=False)
        self._drive_irq()

    def _write_block(self, offset: int, value: int) -> None:
        """A register that both drives take."""
        if self.control & _SRST:
            return
        self.control &= ~_HOB
        for drive in self.drives:
            if drive is None or drive.registers.status & (BSY | DRQ):
                continue
            tf = drive.registers
            if offset == FEATURES:
                tf.features = (tf.features << 8 | value) & 0xFFFF
            elif offset == COUNT:
                tf.count = (tf.count << 8 | value) & 0xFFFF
            elif offset == LOW:
                tf.low = (tf.low << 8 | value) & 0xFFFF
            elif offset == MID:
                tf.mid = (tf.mid << 8 | value) & 0xFFFF
            elif offset == HIGH:
                tf.high = (tf.high << 8 | value) & 0xFFFF
            else:
                tf.device = value
        if offset == DEVICE and not self._registers().status & (BSY | DRQ):
            self.selected = int(bool(value & _SLAVE))

    def _command(self, command: int) -> None:
        if self.control & _SRST:
            return
        drive = self._drive()
        if command == _DIAGNOSTIC:
            # Both carry it out, and device 0 answers for both (8.11).
            self.cancel()
            for each in self.drives:
                if each is not None:
                    each.start(command)
            self.selected = 0
            self._raise()
            return
        if drive is None:
            return
        if command == _DEVICE_RESET and drive.packet:
            self.cancel()
        elif drive.registers.status & (BSY | DRQ):
            return
        self.control &= ~_HOB
        self.intrq = False
        self._drive_irq()
        self.origin = saved.registers_of(drive)
        self.opcode = command
        self._perform(drive.start(command))

    def _raise(self) -> None:
        """Asserts the interrupt."""
        self.intrq = True
        if not self.control & _NIEN:
            if self.master is not None:
                self.master.interrupt()
            self._irq.set(True)

    def _drive_irq(self) -> None:
        self._irq.set(self.intrq and not self.control & _NIEN)

    # Transfers.

    def clear(self) -> None:
        """No transfer is under way."""
        self.action: Action | None = None
        self.buffer = bytearray()
        self.at = self.block_end = self.moved = 0
        self.reading = self.writing = False
        self.opcode = 0
        self.origin = []
        self.packet = b""

    def _finish(self) -> None:
        """The command has ended; its registers say how."""
        self.clear()
        self._raise()

    def _perform(self, action: Action) -> None:
        """Carries out what a drive asks for."""
        self.action = action
        self.moved = 0
        tf = self._registers()
        if isinstance(action, Done):
            self._finish()
        elif isinstance(action, Flush):
            tf.status = BSY
            self._flush(action, 0)
        elif isinstance(action, Packet):
            self._expect(action.length, action.length, silent=True)
            tf.status = DRDY | DRQ
        elif action.dma:
            self.buffer = bytearray()
            self.at = self.block_end = 0
            tf.status = DRDY | DSC | DRQ
            if self.master is not None and self.master.started:
                self._run_dma(action)
        elif isinstance(action, Data):
            self.buffer = bytearray(action.data)
            self.at = 0
            self._offer(action.block)
        elif isinstance(action, Collect):
            self._expect(action.length, action.block, silent=not self._is_packet())
        elif action.write:
            self._expect(min(action.length, CHUNK), action.block, silent=True)
        else:
            self._load(action)

    def _is_packet(self) -> bool:
        """Whether the command under way is PACKET."""
        return self.opcode == _PACKET

    def _offer(self, block: int) -> None:
        """The next block for the host is ready."""
        tf = self._registers()
        self.block_end = min(self.at + block, len(self.buffer))
        if self._is_packet():
            length = self.block_end - self.at
            tf.mid, tf.high, tf.count = length & 0xFF, length >> 8, _IO
        tf.status = DRDY | DSC | DRQ
        self.reading = True
        self._raise()

    def _expect(self, length: int, block: int, *, silent: bool) -> None:
        """Bytes are wanted from the host, in blocks."""
        self.buffer = bytearray(length)
        self.at = 0
        self.block_end = min(block, length)
        self._ask(silent=silent)

    def _ask(self, *, silent: bool) -> None:
        tf = self._registers()
        if self._is_packet() and isinstance(self.action, Collect):
            length = self.block_end - self.at
            tf.mid, tf.high, tf.count = length & 0xFF, length >> 8, 0
        tf.status = DRDY | DSC | DRQ
        self.writing = True
        if not silent:
            self._raise()

    def _load(self, action: Media) -> None:
        """Reads what comes next from the medium."""
        room = max(CHUNK // action.block, 1) * action.block
        self.buffer = bytearray(min(action.length - self.moved, room))
        self.at = 0
        self._registers().status = BSY

        def done(error: OSError | None) -> None:
            if error is None:
                self._offer(action.block)
            else:
                action.end(error)
                self._finish()

        self._queue().read(action.offset + self.moved, [self.buffer], done)

    def _block_read(self) -> None:
        """The host has read a block."""
        self.reading = False
        action = self.action
        assert isinstance(action, Media | Data)
        if self.at < len(self.buffer):
            self._offer(action.block)
            return
        if isinstance(action, Media):
            self.moved += len(self.buffer)
            if self.moved < action.length:
                self._load(action)
                return
        action.end(None)
        if self._is_packet():
            self._finish()
        else:
            # Reading the last block ends a PIO data-in command without another interrupt.
            self._registers().status = DRDY | DSC
            self.clear()

    def _block_written(self) -> None:
        """The host has written a block."""
        self.writing = False
        action = self.action
        if self.at < len(self.buffer):
            block = action.block if isinstance(action, Media | Collect) else len(self.buffer)
            self.block_end = min(self.at + block, len(self.buffer))
            self._ask(silent=False)
        elif isinstance(action, Media):
            self._store(action)
        elif isinstance(action, Packet):
            self.packet = bytes(self.buffer)
            self._perform(action.then(self.packet))
        elif isinstance(action, Collect):
            self._registers().status = BSY
            self._perform(action.then(bytes(self.buffer)))

    def _store(self, action: Media) -> None:
        """Writes what was gathered to the medium."""
        self._registers().status = BSY

        def done(error: OSError | None) -> None:
            if error is None:
                self.moved += len(self.buffer)
                if self.moved < action.length:
                    left = min(action.length - self.moved, CHUNK)
                    self._expect(left, action.block, silent=False)
                    return
                if action.through:
                    self._queue().flush(lambda late: self._end(action.end, late))
                    return
            self._end(action.end, error)

        self._queue().write(action.offset + self.moved, [self.buffer], done)

    def _end(self, end: Callable[[OSError | None], None], error: OSError | None) -> None:
        end(error)
        self._finish()

    def _flush(self, action: Flush, index: int) -> None:
        """Discards one range after the other, then flushes."""
        drive = self._drive()
        queue = getattr(drive, "queue", None)
        if queue is None or (index == len(action.discards) and not action.flush):
            self._end(action.end, None)
        elif index < len(action.discards):
            offset, length = action.discards[index]

            def done(error: OSError | None) -> None:
                if error is not None:
                    self._end(action.end, error)
                else:
                    self._flush(action, index + 1)

            queue.discard(offset, length, done)
        else:
            queue.flush(lambda error: self._end(action.end, error))

    def _queue(self) -> "saved.Queue":
        queue: saved.Queue = self._drive().queue  # type: ignore[union-attr]
        return queue

    def _run_dma(self, action: Media | Data | Collect | Done | Packet | Flush) -> None:
        """Moves the data of a command to or from guest memory."""
        assert self.master is not None
        master = self.master
        if isinstance(action, Data):
            scatter, more = master.scatter(len(action.data))
            if scatter.put(action.data) < len(action.data):
                master.ended(more=False)
                return
            action.end(None)
            self._finish()
            master.ended(more=more)
        elif isinstance(action, Collect):
            scatter, more = master.scatter(action.length)
            if scatter.length < action.length:
                master.ended(more=False)
                return
            master.ended(more=more)
            self._perform(action.then(scatter.get()))
        elif isinstance(action, Media):
            self._move(action, master)

    def _move(self, action: Media, master: BusMaster) -> None:
        scatter, more = master.scatter(action.length)
        self._registers().status = BSY

        def done(error: OSError | None) -> None:
            if not action.write:
                scatter.stored()
            if error is None and scatter.length < action.length:
                # Too few descriptors: the drive waits for more of them.
                self._registers().status = DRDY | DSC | DRQ
                master.ended(more=False)
                return
            if error is None and action.write and action.through:
                self._queue().flush(over)
                return
            over(error)

        def over(error: OSError | None) -> None:
            action.end(error)
            self._finish()
            master.ended(more=more)

        if action.write:
            scatter.fetch()
            self._queue().write(action.offset, scatter.buffers, done)
        else:
            self._queue().read(action.offset, scatter.buffers, done)
