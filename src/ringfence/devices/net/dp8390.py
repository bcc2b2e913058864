"""DP8390 network interface controller, the core of NE2000 cards.

Source: National Semiconductor DP8390D/NS32490D data sheet (1995): registers (10.0), packet
reception and its ring (7.0), transmission (8.0), remote DMA (9.0), loop-back diagnostics (12.0).

Frames take no time on the wire. Left out: collisions and the counters of reception errors, which a
perfect wire never moves; the FIFO, which reads as zero; the "send packet" remote DMA command, whose
protocol no card wired.
"""

from collections.abc import Callable
from typing import ClassVar

from ringfence.bus import PacketPort, State, restore_fields, save_fields
from ringfence.devices.net.frames import BROADCAST, MINIMUM, crc_hash, frame_check_sequence

__all__ = ["Dp8390"]

CR = 0x00
CR_STP, CR_STA, CR_TXP, CR_RD_READ, CR_RD_WRITE, CR_RD_SEND, CR_RD_ABORT = (
    *(0x01, 0x02, 0x04),
    *(0x08, 0x10, 0x18, 0x20),
)
_CR_RD, _CR_PAGE = 0x38, 6

# Page 0, when read and when written.
P0R_CLDA0, P0R_CLDA1, P0_BNRY, P0R_TSR, P0R_NCR, P0R_FIFO, P0_ISR = range(1, 8)
P0R_CRDA0, P0R_CRDA1, P0R_ID0, P0R_ID1, P0R_RSR = range(8, 13)
P0W_PSTART, P0W_PSTOP = 1, 2
P0W_TPSR, P0W_TBCR0, P0W_TBCR1 = 4, 5, 6
P0W_RSAR0, P0W_RSAR1, P0W_RBCR0, P0W_RBCR1, P0W_RCR, P0W_TCR, P0W_DCR, P0W_IMR = range(8, 16)
# Page 1.
P1_PAR0, P1_CURR, P1_MAR0 = 1, 7, 8

ISR_PRX, ISR_PTX, ISR_RXE, ISR_TXE, ISR_OVW, ISR_CNT, ISR_RDC, ISR_RST = (
    1 << bit for bit in range(8)
)
RSR_PRX, RSR_PHY = 0x01, 0x20
RCR_SEP, RCR_AR, RCR_AB, RCR_AM, RCR_PRO, RCR_MON = (1 << bit for bit in range(6))
TCR_LOOPBACK = 0x06
TSR_PTX = 0x01
DCR_WTS, DCR_LS = 0x01, 0x08

_PAGE_SIZE = 256
_HEADER = 4
_VERSION = 1


class Dp8390:
    """Registers and rings in front of the card's own memory.

    Args:
        port: Where the cable leads.
        mac: What the address PROM holds.
        interrupt: Told the level of the interrupt pin when it changes.
        identity: What reads at 0Ah and 0Bh of page 0 (``Pp`` on an RTL8029).
    """

    #: First byte of the card's memory, and what is behind its last.
    MEMORY: ClassVar[int] = 0x4000
    MEMORY_END: ClassVar[int] = 0xC000
    #: First free multiples of a double word behind the registers.
    REGISTERS: ClassVar[int] = 16

    FIELDS: ClassVar[dict[str, int]] = {
        "_memory": MEMORY_END - MEMORY,
        **dict.fromkeys(("_command", "_isr", "_imr", "_rcr", "_tcr", "_dcr", "_rsr", "_tsr"), 0xFF),
        **dict.fromkeys(("_pstart", "_pstop", "_bnry", "_curr", "_tpsr"), 0xFF),
        **dict.fromkeys(("_tbcr", "_rsar", "_rbcr", "_crda", "_clda"), 0xFFFF),
        "_par": 6,
        "_mar": 8,
    }

    def __init__(
        self,
        port: PacketPort,
        mac: bytes,
        interrupt: Callable[[bool], None],
        identity: bytes = b"\0\0",
    ) -> None:
        self._port = port
        self._interrupt = interrupt
        self._identity = identity
        self._level = False
        self._memory = bytearray(self.MEMORY_END - self.MEMORY)
        # The PROM is eight bits wide: each byte shows twice to 16-bit cards; 57h says they are.
        prom = mac + bytes(8) + b"\x57\x57"
        self._prom = bytes(byte for byte in prom for _ in range(2))
        self._par = bytearray(6)
        self._mar = bytearray(8)
        self._pstart = self._pstop = self._bnry = self._curr = self._tpsr = 0
        self._tbcr = self._rsar = self._rbcr = self._crda = self._clda = 0
        self._rcr = self._tcr = self._dcr = self._rsr = self._tsr = self._imr = 0
        self._command = self._isr = 0
        self.reset()

    def reset(self) -> None:
        """RESET pin (table in 10.3): stopped, masked, ISR.RST set; the rest is undefined."""
        self._command = CR_STP | CR_RD_ABORT
        self._isr = ISR_RST
        self._imr = 0
        self._dcr &= ~DCR_LS & 0xFF
        self._tcr &= ~TCR_LOOPBACK & 0xFF
        self._rsr = self._tsr = 0
        self._update()

    def power_on(self) -> None:
        """All registers and the memory as they are taken to come up: zero."""
        self._memory[:] = bytes(len(self._memory))
        self._par[:], self._mar[:] = bytes(6), bytes(8)
        self._pstart = self._pstop = self._bnry = self._curr = self._tpsr = 0
        self._tbcr = self._rsar = self._rbcr = self._crda = self._clda = 0
        self._rcr = self._tcr = self._dcr = 0
        self.reset()

    def read(self, register: int) -> int:
        """Reads one of the 16 registers, of the page that CR selects."""
        if register == CR:
            return self._command
        page = self._command >> _CR_PAGE
        if page == 1:
            if register < P1_CURR:
                return self._par[register - P1_PAR0]
            return self._curr if register == P1_CURR else self._mar[register - P1_MAR0]
        if page == 2:
            return self._read_page2(register)
        return self._read_page0(register) if page == 0 else 0

    def write(self, register: int, value: int) -> None:
        """Writes one of the 16 registers."""
        if register == CR:
            self._write_command(value)
            return
        page = self._command >> _CR_PAGE
        if page == 0:
            self._write_page0(register, value)
        elif page == 1:
            if register < P1_CURR:
                self._par[register - P1_PAR0] = value
            elif register == P1_CURR:
                self._curr = value
            else:
                self._mar[register - P1_MAR0] = value

    def state(self) -> State:
        """Registers and the card's memory."""
        return save_fields(self, _VERSION, self.FIELDS)

    def restore(self, state: State) -> None:
        """Takes registers and the card's memory."""
        restore_fields(self, state, _VERSION, self.FIELDS)
        self._update()

    # Remote DMA: the host's window into the card's memory.

    def data_read(self, size: int) -> int:
        """Reads the data port; in word mode a byte access moves a whole word (DCR.WTS, 10.3)."""
        moved = max(size, 2) if self._dcr & DCR_WTS else size
        return int.from_bytes(self.data_read_bytes(moved)[:size], "little")

    def data_write(self, size: int, value: int) -> None:
        """Writes the data port; in word mode a byte access moves a whole word."""
        moved = max(size, 2) if self._dcr & DCR_WTS else size
        self.data_write_bytes(value.to_bytes(moved, "little"))

    def data_read_bytes(self, size: int) -> bytes:
        """Takes up to ``size`` bytes from where remote DMA stands; FFh when it does not run."""
        if self._command & _CR_RD != CR_RD_READ or not self._rbcr:
            return b"\xff" * size
        out = bytearray(size)
        count = min(size, self._rbcr)
        for index in range(count):
            at = self._crda
            if self.MEMORY <= at < self.MEMORY_END:
                out[index] = self._memory[at - self.MEMORY]
            elif at < len(self._prom):
                out[index] = self._prom[at]
            else:
                out[index] = 0xFF
            self._advance()
        self._count_remote(count)
        return bytes(out)

    def data_write_bytes(self, data: bytes) -> None:
        """Puts ``data`` to where remote DMA stands; what is beyond its count is lost."""
        if self._command & _CR_RD != CR_RD_WRITE or not self._rbcr:
            return
        count = min(len(data), self._rbcr)
        for byte in data[:count]:
            at = self._crda
            if self.MEMORY <= at < self.MEMORY_END:
                self._memory[at - self.MEMORY] = byte
            self._advance()
        self._count_remote(count)

    def _advance(self) -> None:
        self._crda = (self._crda + 1) & 0xFFFF
        # The ring wraps for reads too: 9.1.
        if self._crda == self._pstop << 8:
            self._crda = self._pstart << 8

    def _count_remote(self, count: int) -> None:
        self._rbcr -= count
        if not self._rbcr:
            self._raise(ISR_RDC)

    # The wire.

    def frames_waiting(self) -> None:
        """Takes frames from the port while there is room."""
        while True:
            if not self._listening():
                # As on a real wire: nobody keeps what came while the chip was stopped.
                if self._port.receive() is None:
                    return
                continue
            if not self._has_room():
                return
            frame = self._port.receive()
            if frame is None:
                return
            self._receive(frame)

    def _listening(self) -> bool:
        return self._command & (CR_STP | CR_STA) == CR_STA and not self._tcr & TCR_LOOPBACK

    def _ring(self) -> tuple[int, int]:
        """First page of the ring and its length in pages; a length of 0: there is none."""
        first, last = self._pstart, self._pstop
        low, high = self.MEMORY >> 8, self.MEMORY_END >> 8
        if low <= first < last <= high and first <= self._curr < last:
            return first, last - first
        return first, 0

    def _free_pages(self) -> int:
        _, pages = self._ring()
        if not pages:
            return 0
        free = (self._bnry - self._curr) % pages
        return free or pages

    def _has_room(self) -> bool:
        """Whether the largest frame fits; a ring that is not set up takes all and loses it."""
        _, pages = self._ring()
        return not pages or self._free_pages() > 1518 // _PAGE_SIZE + 1

    def _accepts(self, frame: bytes) -> bool:
        address = frame[:6]
        if self._rcr & RCR_PRO and not address[0] & 1:
            return True
        if address == BROADCAST:
            return bool(self._rcr & RCR_AB)
        if address[0] & 1:
            index = crc_hash(address) >> 26
            return bool(self._rcr & RCR_AM and self._mar[index >> 3] >> (index & 7) & 1)
        return address == self._par

    def _receive(self, frame: bytes) -> None:
        """Puts a frame into the ring (7.0)."""
        if len(frame) < 14 or not self._accepts(frame):
            return
        group = RSR_PHY if frame[0] & 1 else 0
        if self._rcr & RCR_MON:
            self._rsr = group
            return
        first, pages = self._ring()
        frame = frame.ljust(MINIMUM, b"\0")
        stored = frame + frame_check_sequence(frame)
        needed = (len(stored) + _HEADER + _PAGE_SIZE - 1) // _PAGE_SIZE
        if needed >= self._free_pages():
            self._raise(ISR_OVW)
            return
        at = self._curr
        following = first + (at - first + needed) % pages
        self._rsr = RSR_PRX | group
        header = bytes((self._rsr, following)) + len(stored).to_bytes(2, "little")
        data = header + stored
        base, end = at * _PAGE_SIZE - self.MEMORY, (first + pages) * _PAGE_SIZE - self.MEMORY
        head = data[: end - base]
        self._memory[base : base + len(head)] = head
        rest = data[len(head) :]
        start = first * _PAGE_SIZE - self.MEMORY
        self._memory[start : start + len(rest)] = rest
        self._curr = following
        self._clda = following << 8
        self._raise(ISR_PRX)

    def _transmit(self) -> None:
        """Sends what the transmit registers point to."""
        start = (self._tpsr << 8) - self.MEMORY
        end = start + self._tbcr
        if 0 <= start < end <= len(self._memory):
            frame = bytes(self._memory[start:end])
            # Loop-back modes end in the chip, which checks the CRC and stores nothing (12.0).
            if not self._tcr & TCR_LOOPBACK and len(frame) >= 14:
                self._port.send(frame)
        self._tsr = TSR_PTX
        self._command &= ~CR_TXP & 0xFF
        self._raise(ISR_PTX)

    # Registers.

    def _write_command(self, value: int) -> None:
        was = self._command
        self._command = value & ~CR_TXP & 0xFF
        if value & CR_STP:
            self._isr |= ISR_RST
        elif value & CR_STA:
            self._isr &= ~ISR_RST & 0xFF
        if value & CR_RD_ABORT:
            pass
        elif value & _CR_RD:
            # Starting with no bytes to move is over at once.
            if was & _CR_RD != value & _CR_RD or self._rbcr == 0:
                self._crda = self._rsar
            if not self._rbcr:
                self._isr |= ISR_RDC
        self._update()
        if value & CR_TXP and not value & CR_STP and value & CR_STA:
            self._transmit()
        if was & CR_STP and self._listening():
            self.frames_waiting()

    def _read_page0(self, register: int) -> int:
        if register in (P0R_CRDA0, P0R_CRDA1):
            return self._crda >> 8 * (register - P0R_CRDA0) & 0xFF
        if register in (P0R_CLDA0, P0R_CLDA1):
            return self._clda >> 8 * (register - P0R_CLDA0) & 0xFF
        if register in (P0R_ID0, P0R_ID1):
            return self._identity[register - P0R_ID0]
        values = {
            P0_BNRY: self._bnry,
            P0R_TSR: self._tsr,
            P0_ISR: self._isr,
            P0R_RSR: self._rsr,
        }
        return values.get(register, 0)

    def _write_page0(self, register: int, value: int) -> None:
        if register == P0W_PSTART:
            self._pstart = value
            self._clda = value << 8
        elif register == P0W_PSTOP:
            self._pstop = value
        elif register == P0_BNRY:
            self._bnry = value
            self.frames_waiting()
        elif register == P0W_TPSR:
            self._tpsr = value
        elif register in (P0W_TBCR0, P0W_TBCR1):
            self._tbcr = _with_byte(self._tbcr, register - P0W_TBCR0, value)
        elif register == P0_ISR:
            # Ones clear; RST follows the state of the chip (10.3).
            self._isr &= ~(value & ~ISR_RST) & 0xFF
            self._update()
        elif register in (P0W_RSAR0, P0W_RSAR1):
            self._rsar = _with_byte(self._rsar, register - P0W_RSAR0, value)
            self._crda = self._rsar
        elif register in (P0W_RBCR0, P0W_RBCR1):
            self._rbcr = _with_byte(self._rbcr, register - P0W_RBCR0, value)
        elif register == P0W_RCR:
            self._rcr = value & 0x3F
        elif register == P0W_TCR:
            self._tcr = value & 0x1F
        elif register == P0W_DCR:
            self._dcr = value & 0x7F
        elif register == P0W_IMR:
            self._imr = value & 0x7F
            self._update()

    def _read_page2(self, register: int) -> int:
        values = {
            1: self._pstart,
            2: self._pstop,
            4: self._tpsr,
            # Registers of page 2 that are not driven read as ones in their unused bits.
            12: self._rcr | 0xC0,
            13: self._tcr | 0xE0,
            14: self._dcr | 0x80,
            15: self._imr | 0x80,
        }
        return values.get(register, 0)

    def _raise(self, cause: int) -> None:
        self._isr |= cause
        self._update()

    def _update(self) -> None:
        level = bool(self._isr & self._imr & 0x7F)
        if level is not self._level:
            self._level = level
            self._interrupt(level)


def _with_byte(word: int, index: int, value: int) -> int:
    """``word`` with its byte ``index`` replaced."""
    return word & ~(0xFF << 8 * index) & 0xFFFF | value << 8 * index
