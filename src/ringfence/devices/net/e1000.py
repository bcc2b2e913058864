"""Intel 82540EM gigabit Ethernet controller ("e1000"): the chip behind its register window.

Source: Intel, PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual
(317453-005). Frames take no time on the wire. Left out: wake-up and management (their registers are
kept), flow control frames, interrupt delays and throttling (kept; every cause interrupts at once,
one interrupt for all frames that came together), the flash memory, which this card has none of.
"""

from collections.abc import Callable
from typing import Protocol

from ringfence.bus import Clock, PacketPort, State, restore_fields, save_fields
from ringfence.devices.net import e1000_receive as receive
from ringfence.devices.net import e1000_registers as r
from ringfence.devices.net.e1000_transmit import Context, Transmitter
from ringfence.devices.net.frames import BROADCAST, MINIMUM, frame_check_sequence, ones_sum
from ringfence.devices.net.microwire import WORDS, MicrowireEeprom
from ringfence.devices.net.phy import Phy
from ringfence.errors import StateError

__all__ = ["E1000Chip", "eeprom_words"]

_DESCRIPTOR = 16
#: Descriptors that one event handles at most; the rest follows at the next tick of the clock.
_BATCH = 4096
_EEPROM_SUM = 0xBABA
_PHY_ADDRESS = 1
_VERSION = 1
_FIELDS = {
    "_kept": 0xFFFFFFFF,
    "_mta": 0xFFFFFFFF,
    "_ra": 0xFFFFFFFF,
    "_vfta": 0xFFFFFFFF,
    "_counters": 0xFFFFFFFF,
    "_packet": 0xFF,
    "_context": 0xFF,
    "_ctrl": 0xFFFFFFFF,
    "_eecd": 0xFFFFFFFF,
    "_eerd": 0xFFFFFFFF,
    "_mdic": 0xFFFFFFFF,
    "_icr": r.ICR_ALL,
    "_ims": r.ICR_ALL,
    "_options": 0xFF,
    "_segment": 1,
    "_tag": 0x10000,
}
_LARGEST_SAVED = 1 << 19


class _Dma(Protocol):
    """What the chip reads and writes guest memory by."""

    def read(self, address: int, size: int) -> bytes:
        """Guest memory."""

    def write(self, address: int, data: bytes) -> None:
        """Writes guest memory."""


def eeprom_words(mac: bytes) -> list[int]:
    """The contents of the EEPROM of a card with address ``mac`` (5.6)."""
    words = [0] * WORDS
    words[0:3] = [mac[at] | mac[at + 1] << 8 for at in (0, 2, 4)]
    words[0x03] = 0x0000
    words[0x08:0x0A] = [0x3000, 0x1000]  # the board's part number
    words[0x0A] = 0x4408  # initialization control 1: identifiers are loaded, full duplex
    words[0x0B:0x0F] = [0x001E, 0x8086, 0x100E, 0x8086]
    words[0x0F] = 0x3040
    words[0x10] = 0x0008
    words[0x21] = 0x7863
    words[0x3F] = (_EEPROM_SUM - sum(words)) & 0xFFFF
    return words


class E1000Chip:
    """Registers, rings, EEPROM and transceiver.

    Args:
        port: Where the cable leads.
        mac: Its address.
        dma: Guest memory.
        interrupt: Told the level of the interrupt when it may have changed.
        clock: The machine's clock.
    """

    def __init__(
        self,
        port: PacketPort,
        mac: bytes,
        dma: _Dma,
        interrupt: Callable[[bool], None],
        clock: Clock,
    ) -> None:
        self._port = port
        self._dma = dma
        self._interrupt = interrupt
        self._clock = clock
        self.eeprom = MicrowireEeprom(eeprom_words(mac))
        self.phy = Phy()
        self._transmitter = Transmitter(
            lambda address, size: self._dma.read(address, size),
            lambda address, data: self._dma.write(address, data),
            self._send,
        )
        self._pending = False
        self._icr = self._ims = 0
        self._counters: list[int] = []
        # What a saved state has of registers and of the frame in progress.
        self._kept: list[int] = []
        self._packet: list[int] = []
        self._context = [0] * _DESCRIPTOR
        self._options, self._segment, self._tag = 0, False, 0
        self.reset()

    def reset(self) -> None:
        """Power-on or bus reset: everything but the EEPROM's contents."""
        self.phy.reset()
        self._reset_mac()

    def read(self, offset: int) -> int:
        """Reads the register at ``offset``, a multiple of four."""
        offset = r.ALIASES.get(offset, offset)
        if offset in self._values:
            return self._values[offset]
        if offset == r.ICR:
            value, self._icr = self._icr, 0
            self._update()
            return value
        if r.STATISTICS <= offset < r.STATISTICS_END:
            index = (offset - r.STATISTICS) // 4
            value, self._counters[index] = self._counters[index], 0
            return value
        special = {
            r.CTRL: self._ctrl,
            r.STATUS: r.STATUS_VALUE,
            r.EECD: self._eecd | r.EECD_PRES | (r.EECD_DO if self.eeprom.output else 0),
            r.EERD: self._eerd,
            r.MDIC: self._mdic,
            r.IMS: self._ims,
        }
        if offset in special:
            return special[offset]
        table = self._table(offset)
        return table[0][table[1]] if table else 0

    def write(self, offset: int, value: int) -> None:
        """Writes the register at ``offset``."""
        offset = r.ALIASES.get(offset, offset)
        if offset in self._values:
            self._values[offset] = value & r.KEPT[offset]
            action = self._actions.get(offset)
            if action is not None:
                action()
            return
        handler = self._handlers.get(offset)
        if handler is not None:
            handler(value)
            return
        table = self._table(offset)
        if table:
            table[0][table[1]] = value

    def state(self) -> State:
        """Registers, tables, EEPROM and transceiver, and what there is of a frame."""
        transmitter = self._transmitter
        self._kept = [self._values[offset] for offset in r.KEPT]
        self._packet = list(transmitter.frame)
        self._context = list(transmitter.context.raw)
        self._options, self._segment = transmitter.options, transmitter.segment
        self._tag = transmitter.tag + 1
        state = save_fields(self, _VERSION, _FIELDS)
        state["eeprom"] = self.eeprom.state()
        state["phy"] = self.phy.state()
        return state

    def restore(self, state: State) -> None:
        """Takes all of it."""
        before = self.state()
        try:
            eeprom, phy = state.get("eeprom"), state.get("phy")
            if not isinstance(eeprom, dict) or not isinstance(phy, dict):
                raise StateError("E1000Chip: the EEPROM or the transceiver is missing")
            self.eeprom.restore(eeprom)
            self.phy.restore(phy)
            restore_fields(self, state, _VERSION, _FIELDS)
            lengths = [(self._kept, len(r.KEPT)), (self._mta, r.MTA_WORDS), (self._ra, r.RA_WORDS)]
            lengths += [(self._vfta, r.VFTA_WORDS), (self._counters, len(before["counters"]))]
            lengths += [(self._context, _DESCRIPTOR)]
            if any(len(held) != wanted for held, wanted in lengths):
                raise StateError("E1000Chip: a table has another length")
            if len(self._packet) > _LARGEST_SAVED:
                raise StateError("E1000Chip: the frame in progress is too long")
        except StateError:
            if state is not before:
                self.eeprom.restore(before["eeprom"])
                self.phy.restore(before["phy"])
                restore_fields(self, before, _VERSION, _FIELDS)
            raise
        for offset, value in zip(r.KEPT, self._kept, strict=True):
            self._values[offset] = value & r.KEPT[offset]
        transmitter = self._transmitter
        transmitter.frame[:] = bytes(self._packet)
        transmitter.context = Context(bytes(self._context))
        transmitter.options, transmitter.segment = self._options, bool(self._segment)
        transmitter.tag = self._tag - 1
        self._update()
        self._kick()

    # The wire.

    def frames_waiting(self) -> None:
        """Takes frames from the port while there are descriptors for them."""
        values = self._values
        cause = 0
        for _ in range(_BATCH):
            if not values[r.RCTL] & r.RCTL_EN:
                # As on a real wire: nobody keeps what comes meanwhile.
                if self._port.receive() is None:
                    break
                continue
            if values[r.RCTL] & r.RCTL_LBM == r.RCTL_LBM_MAC:
                break
            if not self._free_descriptors():
                break
            frame = self._port.receive()
            if frame is None:
                break
            cause |= self._receive(frame)
        else:
            self._later()
        if cause:
            self._raise(cause)

    def _receive(self, frame: bytes) -> int:
        """Puts a frame into the guest's buffers; gives the causes to interrupt for."""
        values = self._values
        rctl = values[r.RCTL]
        if len(frame) < 14:
            return 0
        wanted, inexact = receive.accepts(
            frame, rctl, self._ra, self._mta, self._vfta, values[r.VET] & 0xFFFF
        )
        if not wanted:
            return 0
        self._count_frame(frame, received=True)
        frame = frame.ljust(MINIMUM, b"\0")
        rxcsum = values[r.RXCSUM]
        status, errors = receive.checksum_status(frame, rxcsum)
        tag = -1
        if self._ctrl & r.CTRL_VME:
            frame, tag = receive.take_tag(frame, values[r.VET] & 0xFFFF)
        total = ones_sum(frame[rxcsum & 0xFF :])
        if not rctl & r.RCTL_SECRC:
            frame += frame_check_sequence(frame)
        size = receive.buffer_size(rctl)
        needed = -(-len(frame) // size)
        if needed > self._free_descriptors():
            self._count(r.MPC)
            return r.ICR_RXO
        status |= receive.PIF if inexact else 0
        if tag >= 0:
            status |= receive.VP
        for at in range(0, len(frame), size):
            part = frame[at : at + size]
            last = at + size >= len(frame)
            self._fill_descriptor(part, total, status, errors, max(tag, 0), last=last)
        cause = r.ICR_RXT0
        count = values[r.RDLEN] // _DESCRIPTOR
        if self._free_descriptors() <= count >> (rctl >> 8 & 3) + 1:
            cause |= r.ICR_RXDMT0
        return cause

    def _fill_descriptor(
        self, part: bytes, total: int, status: int, errors: int, tag: int, *, last: bool
    ) -> None:
        values = self._values
        base = values[r.RDBAH] << 32 | values[r.RDBAL]
        head = values[r.RDH]
        address = base + head * _DESCRIPTOR
        buffer = int.from_bytes(self._dma.read(address, 8), "little")
        if buffer:
            self._dma.write(buffer, part)
        status = (status | receive.EOP if last else status & ~receive.VP) | receive.DD
        fields = len(part).to_bytes(2, "little") + total.to_bytes(2, "big")
        fields += bytes((status, errors if last else 0)) + tag.to_bytes(2, "little")
        self._dma.write(address + 8, fields)
        head += 1
        values[r.RDH] = 0 if head >= values[r.RDLEN] // _DESCRIPTOR else head

    def _free_descriptors(self) -> int:
        values = self._values
        count = values[r.RDLEN] // _DESCRIPTOR
        if not count or values[r.RDH] >= count:
            return 0
        return (values[r.RDT] - values[r.RDH]) % count

    def _send(self, frame: bytes) -> None:
        self._count_frame(frame, received=False)
        if self._values[r.RCTL] & r.RCTL_LBM == r.RCTL_LBM_MAC:
            if self._values[r.RCTL] & r.RCTL_EN and self._free_descriptors():
                self._raise(self._receive(frame))
        elif self._ctrl & r.CTRL_SLU:
            self._port.send(frame)

    def _transmit(self) -> None:
        """Works through the ring from head to tail."""
        values = self._values
        count = values[r.TDLEN] // _DESCRIPTOR
        if not values[r.TCTL] & r.TCTL_EN or not count:
            return
        base = values[r.TDBAH] << 32 | values[r.TDBAL]
        vlan, ethertype = bool(self._ctrl & r.CTRL_VME), values[r.VET] & 0xFFFF
        head, tail = values[r.TDH], values[r.TDT]
        if head >= count or tail >= count:
            return
        cause = 0
        for _ in range(min(_BATCH, count)):
            if head == tail:
                break
            if self._transmitter.descriptor(
                base + head * _DESCRIPTOR, ethertype=ethertype, vlan=vlan
            ):
                cause |= r.ICR_TXDW
            head = 0 if head + 1 == count else head + 1
        values[r.TDH] = head
        if head == tail:
            cause |= r.ICR_TXQE
        else:
            self._later()
        self._raise(cause)

    def _later(self) -> None:
        if not self._pending:
            self._pending = True
            self._clock.call_at(self._clock.now(), self._kick)

    def _kick(self) -> None:
        """Goes on with both rings."""
        self._pending = False
        self._transmit()
        self.frames_waiting()

    # Registers.

    def _reset_mac(self) -> None:
        """CTRL.RST (13.4.1)."""
        self._values = {offset: r.RESET.get(offset, 0) for offset in r.KEPT}
        self._ctrl = r.RESET[r.CTRL]
        self._eecd = self._eerd = self._mdic = 0
        self._icr = self._ims = 0
        self._mta = [0] * r.MTA_WORDS
        self._vfta = [0] * r.VFTA_WORDS
        self._counters = [0] * ((r.STATISTICS_END - r.STATISTICS) // 4)
        self._load_address()
        self._transmitter.reset()
        self._actions: dict[int, Callable[[], None]] = {
            r.RCTL: self.frames_waiting,
            r.RDT: self.frames_waiting,
            r.TCTL: self._transmit,
            r.TDT: self._transmit,
            r.CTRL_EXT: self._extended_control,
        }
        self._handlers: dict[int, Callable[[int], None]] = {
            r.CTRL: self._write_ctrl,
            r.EECD: self._write_eecd,
            r.EERD: self._write_eerd,
            r.MDIC: self._write_mdic,
            r.ICR: self._write_icr,
            r.ICS: self._raise,
            r.IMS: self._write_ims,
            r.IMC: self._write_imc,
        }
        self._update()

    def _load_address(self) -> None:
        """The first receive address comes from the EEPROM."""
        words = self.eeprom.words
        self._ra = [0] * r.RA_WORDS
        self._ra[0] = words[0] | words[1] << 16
        self._ra[1] = words[2] | r.RAH_AV

    def _table(self, offset: int) -> tuple[list[int], int] | None:
        for base, table in ((r.MTA, self._mta), (r.RA, self._ra), (r.VFTA, self._vfta)):
            if base <= offset < base + 4 * len(table):
                return table, (offset - base) // 4
        return None

    def _write_ctrl(self, value: int) -> None:
        if value & r.CTRL_RST:
            self._reset_mac()
            return
        if value & r.CTRL_PHY_RST:
            self.phy.reset()
        was, self._ctrl = self._ctrl, value & ~(r.CTRL_RST | r.CTRL_PHY_RST)
        if self._ctrl & r.CTRL_SLU and not was & r.CTRL_SLU:
            self._raise(r.ICR_LSC)

    def _extended_control(self) -> None:
        if self._values[r.CTRL_EXT] & r.CTRL_EXT_EE_RST:
            self._values[r.CTRL_EXT] &= ~r.CTRL_EXT_EE_RST
            self._load_address()

    def _write_eecd(self, value: int) -> None:
        kept = r.EECD_SK | r.EECD_CS | r.EECD_DI | r.EECD_REQ
        self._eecd = value & kept
        if value & r.EECD_REQ:
            self._eecd |= r.EECD_GNT
        self.eeprom.set(
            select=bool(value & r.EECD_CS),
            clock=bool(value & r.EECD_SK),
            data=bool(value & r.EECD_DI),
        )

    def _write_eerd(self, value: int) -> None:
        self._eerd = value & 0xFF00
        if value & r.EERD_START:
            word = self.eeprom.words[value >> 8 & WORDS - 1]
            self._eerd |= word << 16 | r.EERD_DONE

    def _write_mdic(self, value: int) -> None:
        self._mdic = value & 0x6FFFFFFF | r.MDIC_READY
        register = value >> 16 & 0x1F
        if value >> 21 & 0x1F != _PHY_ADDRESS:
            self._mdic |= r.MDIC_ERROR
        elif value & r.MDIC_READ:
            self._mdic = self._mdic & ~0xFFFF | self.phy.read(register)
        elif value & r.MDIC_WRITE:
            self.phy.write(register, value & 0xFFFF)
        if value & 1 << 29:
            self._raise(r.ICR_MDAC)

    def _write_icr(self, value: int) -> None:
        self._icr &= ~value
        self._update()

    def _write_ims(self, value: int) -> None:
        self._ims |= value & r.ICR_ALL
        self._update()

    def _write_imc(self, value: int) -> None:
        self._ims &= ~value
        self._update()

    def _raise(self, cause: int) -> None:
        self._icr |= cause & r.ICR_ALL
        self._update()

    def _update(self) -> None:
        self._interrupt(bool(self._icr & self._ims))

    # Statistics (13.7): they stick at their largest value.

    def _count(self, offset: int, amount: int = 1) -> None:
        index = (offset - r.STATISTICS) // 4
        self._counters[index] = min(self._counters[index] + amount, 0xFFFFFFFF)

    def _count_octets(self, low: int, length: int) -> None:
        index = (low - r.STATISTICS) // 4
        total = self._counters[index] | self._counters[index + 1] << 32
        total = min(total + length, (1 << 64) - 1)
        self._counters[index], self._counters[index + 1] = total & 0xFFFFFFFF, total >> 32

    def _count_frame(self, frame: bytes, *, received: bool) -> None:
        length = max(len(frame), MINIMUM) + 4
        for counter in (r.TPR, r.GPRC) if received else (r.TPT, r.GPTC):
            self._count(counter)
        for low in (r.TORL, r.GORCL) if received else (r.TOTL, r.GOTCL):
            self._count_octets(low, length)
        if frame[:6] == BROADCAST:
            self._count(r.BPRC if received else r.BPTC)
        elif frame[0] & 1:
            self._count(r.MPRC if received else r.MPTC)
