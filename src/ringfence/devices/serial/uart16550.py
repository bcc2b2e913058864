"""16550A universal asynchronous receiver/transmitter.

Source: National Semiconductor PC16550D data sheet (June 1995), sections 8.1 to 8.11.

Characters take no time on the wire: the transmitter is always empty again at once, and the
character time-out of the receive FIFO is over as soon as no more input waits. Sent bytes are
collected and handed to the host end in batches, :data:`FLUSH_DELAY` after the first at the latest,
for a guest writes them one by one and each costs an exit. Left out: parity and framing errors,
which no host end produces, and DMA mode.

Input waits in the host end while the guest holds RTS low, so what is typed before a driver opens
the line is not lost. A guest that never touched the modem control register gets it when it polls,
and one that keeps RTS low, as UEFI firmware does, when it polls on and on without sending.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

from ringfence.bus import CharPort, Clock, IrqLine, State, restore_fields, save_fields

__all__ = ["FLUSH_DELAY", "Uart16550"]

#: How long a sent byte may wait for others, in nanoseconds.
FLUSH_DELAY = 1_000_000
_FLUSH_SIZE = 4096

# Register offsets (table II of the data sheet).
RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR = 3
MCR = 4
LSR = 5
MSR = 6
SCR = 7

IER_RECEIVED, IER_THRE, IER_LINE, IER_MODEM = 1, 2, 4, 8
IIR_NONE, IIR_MODEM, IIR_THRE, IIR_RECEIVED, IIR_LINE, IIR_TIMEOUT = 1, 0, 2, 4, 6, 12
IIR_FIFOS = 0xC0
FCR_ENABLE, FCR_CLEAR_RECEIVE, FCR_CLEAR_TRANSMIT, FCR_KEPT = 1, 2, 4, 0xC9
LCR_DLAB = 0x80
MCR_DTR, MCR_RTS, MCR_OUT1, MCR_OUT2, MCR_LOOP, MCR_MASK = 1, 2, 4, 8, 16, 31
LSR_DATA, LSR_OVERRUN, LSR_BREAK, LSR_EMPTY, LSR_FIFO_ERROR = 0x01, 0x02, 0x10, 0x60, 0x80
LSR_ERRORS = 0x1E
MSR_DELTAS, MSR_TERI = 0x0F, 0x04
MSR_CTS, MSR_DSR, MSR_RI, MSR_DCD = 0x10, 0x20, 0x40, 0x80

_TRIGGERS = (1, 4, 8, 14)
_FIFO = 16
_VERSION = 1
_FIELDS = {
    "_ier": 0x0F,
    "_fcr": 0xFF,
    "_lcr": 0xFF,
    "_mcr": MCR_MASK,
    "_mcr_written": 1,
    "_scr": 0xFF,
    "_dll": 0xFF,
    "_dlm": 0xFF,
    "_errors": LSR_ERRORS,
    "_msr": 0xFF,
    "_thre": 1,
    "_received": LSR_ERRORS << 8 | 0xFF,
}


#: Reads of LSR with nothing sent between them, after which a guest polls for input: so it does
#: until it changes MCR.
_POLLS = 16


class Uart16550:
    """One UART between an interrupt line and the host end of a serial line.

    Args:
        port: Host end of the line.
        irq: Interrupt wire.
        clock: The machine's clock.
        flush_byte: A byte after which what was sent is handed on at once, or ``None``.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 8

    def __init__(
        self, port: CharPort, irq: IrqLine, clock: Clock, *, flush_byte: int | None = None
    ) -> None:
        self._port = port
        self._irq = irq
        self._clock = clock
        self._flush_byte = -1 if flush_byte is None else flush_byte
        self._transmitted = bytearray()
        self._modem = MSR_CTS | MSR_DSR | MSR_DCD
        self._dll, self._dlm, self._scr = 12, 0, 0
        self.reset()

    def reset(self) -> None:
        """Master reset (section 8.1, table I): the divisor and scratch registers stay."""
        self.flush()
        self._ier = self._fcr = self._lcr = self._mcr = self._errors = 0
        self._mcr_written = False
        self._polls = 0
        self._msr = self._modem
        self._thre = False
        #: Bytes in the receive FIFO, each with its error bits of LSR shifted left by 8.
        self._received: list[int] = []
        self._more = True
        self._plain = True
        self._update()

    def read(self, offset: int, size: int) -> int:
        """Reads a register."""
        if offset == LSR:
            return self._read_lsr()
        if offset == IIR:
            return self._read_iir()
        if offset == RBR:
            return self._dll if self._lcr & LCR_DLAB else self._read_rbr()
        if offset == IER:
            return self._dlm if self._lcr & LCR_DLAB else self._ier
        if offset == MSR:
            return self._read_msr()
        if offset == LCR:
            return self._lcr
        if offset == MCR:
            return self._mcr
        return self._scr

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a register."""
        if offset == THR:
            self._write_thr(value)
        elif offset == IER:
            self._write_ier(value)
        elif offset == FCR:
            self._write_fcr(value)
        elif offset == LCR:
            self._lcr = value
            self._plain = not (value & LCR_DLAB or self._mcr & MCR_LOOP)
        elif offset == MCR:
            self._write_mcr(value)
        elif offset == SCR:
            self._scr = value

    def state(self) -> State:
        """Registers and the receive FIFO; what was sent is flushed first."""
        self.flush()
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes registers and receive FIFO."""
        restore_fields(self, state, _VERSION, _FIELDS)
        del self._received[_FIFO:]
        self._plain = not (self._lcr & LCR_DLAB or self._mcr & MCR_LOOP)
        self._more = True
        self._update()

    def byte_writer(self, offset: int) -> Callable[[int], None]:
        """A short way to the transmitter, for a guest sends each byte by an exit."""
        return self._write_thr if offset == THR else partial(self.write, offset, 1)

    def flush(self) -> None:
        """Hands what was sent to the host end."""
        if self._transmitted:
            data = bytes(self._transmitted)
            self._transmitted.clear()
            self._port.write(data)

    def input_ready(self) -> None:
        """Takes input from the host end, as much as there is room for."""
        self._more = True
        self._fill()
        self._update()

    def receive_break(self) -> None:
        """The other end sends a break: a zero with LSR's break bit."""
        if len(self._received) < _FIFO:
            self._received.append(LSR_BREAK << 8)
            self._top()
            self._update()

    def set_modem(self, lines: int) -> None:
        """Sets the modem inputs: a union of ``MSR_CTS``, ``MSR_DSR``, ``MSR_RI``, ``MSR_DCD``."""
        self._modem = lines & 0xF0
        if not self._mcr & MCR_LOOP:
            self._set_msr(self._modem)
            self._update()

    @property
    def baud(self) -> int:
        """The rate that the divisor latch sets, from 1.8432 MHz, in bits per second."""
        return 115200 // ((self._dlm << 8 | self._dll) or 0x10000)

    def _write_thr(self, value: int) -> None:
        if self._plain:
            transmitted = self._transmitted
            if self._polls < _POLLS:
                self._polls = 0
            if not transmitted:
                self._clock.call_at(self._clock.now() + FLUSH_DELAY, self.flush)
            transmitted.append(value)
            if not self._thre:
                self._thre = True
                self._update()
            if value == self._flush_byte or len(transmitted) >= _FLUSH_SIZE:
                self.flush()
        elif self._lcr & LCR_DLAB:
            self._dll = value
        else:
            self._loop(value)

    def _read_lsr(self) -> int:
        value = LSR_EMPTY
        self._polls += 1
        if not self._mcr_written or self._polls >= _POLLS:
            self._fill(polled=True)
        if self._received:
            value |= LSR_DATA
            if self._fcr & FCR_ENABLE and any(entry > 0xFF for entry in self._received):
                value |= LSR_FIFO_ERROR
        if self._errors:
            value |= self._errors
            self._errors = 0
            self._update()
        return value

    def _read_iir(self) -> int:
        cause = self._cause()
        if cause == IIR_THRE:
            self._thre = False
            self._update()
        return cause | (IIR_FIFOS if self._fcr & FCR_ENABLE else 0)

    def _read_rbr(self) -> int:
        received = self._received
        if not received:
            return 0
        value = received.pop(0) & 0xFF
        if self._more and len(received) < _FIFO // 2:
            self._fill(polled=True)
        self._top()
        self._update()
        return value

    def _read_msr(self) -> int:
        value = self._msr
        if value & MSR_DELTAS:
            self._msr = value & ~MSR_DELTAS
            self._update()
        return value

    def _write_ier(self, value: int) -> None:
        if self._lcr & LCR_DLAB:
            self._dlm = value
            return
        # Enabling the interrupt of an empty transmitter raises it.
        if value & IER_THRE and not self._ier & IER_THRE:
            self._thre = True
        self._ier = value & 0x0F
        self._update()

    def _write_fcr(self, value: int) -> None:
        changed = (value ^ self._fcr) & FCR_ENABLE
        if not value & FCR_ENABLE:
            value = 0
        if changed or value & FCR_CLEAR_RECEIVE:
            self._received.clear()
        if changed or value & FCR_CLEAR_TRANSMIT:
            self._thre = True
        self._fcr = value & FCR_KEPT
        self._fill()
        self._update()

    def _write_mcr(self, value: int) -> None:
        if value & MCR_MASK != self._mcr:
            self._polls = 0
        self._mcr = value & MCR_MASK
        self._mcr_written = True
        self._plain = not (self._lcr & LCR_DLAB or value & MCR_LOOP)
        if value & MCR_LOOP:
            # Section 8.7: the four outputs are wired to the four inputs.
            lines = MSR_DSR if value & MCR_DTR else 0
            lines |= MSR_CTS if value & MCR_RTS else 0
            lines |= MSR_RI if value & MCR_OUT1 else 0
            lines |= MSR_DCD if value & MCR_OUT2 else 0
            self._set_msr(lines)
        else:
            self._set_msr(self._modem)
            self._fill()
        self._update()

    def _set_msr(self, lines: int) -> None:
        """Sets the inputs, with a delta bit for each change; RI counts at its trailing edge."""
        changed = (self._msr ^ lines) & 0xF0
        deltas = changed >> 4 & ~MSR_TERI
        if changed & MSR_RI and not lines & MSR_RI:
            deltas |= MSR_TERI
        self._msr = self._msr & MSR_DELTAS | deltas | lines

    def _loop(self, value: int) -> None:
        """Sends a byte to ourselves."""
        room = _FIFO if self._fcr & FCR_ENABLE else 1
        if len(self._received) < room:
            self._received.append(value)
        else:
            self._errors |= LSR_OVERRUN
            if room == 1:
                # Without FIFOs the new character destroys the old one (section 8.4, bit 1).
                self._received[0] = value
        self._thre = True
        self._update()

    def _fill(self, *, polled: bool = False) -> None:
        """Takes input while there is room for it and the guest is ready."""
        mcr = self._mcr
        if mcr & MCR_LOOP or not (mcr & MCR_RTS or (polled and self._waits())):
            return
        room = (_FIFO if self._fcr & FCR_ENABLE else 1) - len(self._received)
        if room > 0:
            data = self._port.read(room)
            self._received += data
            self._more = len(data) >= room

    def _waits(self) -> bool:
        """Whether a guest that polls with RTS low is after input."""
        return not self._mcr_written or self._polls >= _POLLS

    def _top(self) -> None:
        """Shows the errors of the character at the top of the FIFO in LSR."""
        if self._received and self._received[0] > 0xFF:
            self._errors |= self._received[0] >> 8 & LSR_ERRORS
            self._received[0] &= 0xFF

    def _cause(self) -> int:
        """The interrupt of highest priority (section 8.6, table IV)."""
        ier = self._ier
        if ier & IER_LINE and self._errors:
            return IIR_LINE
        if ier & IER_RECEIVED and self._received:
            if not self._fcr & FCR_ENABLE or len(self._received) >= _TRIGGERS[self._fcr >> 6]:
                return IIR_RECEIVED
            return IIR_TIMEOUT
        if ier & IER_THRE and self._thre:
            return IIR_THRE
        if ier & IER_MODEM and self._msr & MSR_DELTAS:
            return IIR_MODEM
        return IIR_NONE

    def _update(self) -> None:
        """Drives the interrupt line, which a PC gates with OUT2."""
        gate = self._mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2
        self._irq.set(gate and self._cause() != IIR_NONE)
