"""The UART against the PC16550D data sheet."""

import pytest

from ringfence.devices.serial import uart16550 as uart
from ringfence.devices.serial.uart16550 import FLUSH_DELAY, Uart16550
from support.fake_devices import HandClock, Port, Wire

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7
RTS, OUT2 = 0x02, 0x08
RTS_OUT2 = 0x0A


class Bench:
    """A UART with everything around it."""

    def __init__(self, **options: int) -> None:
        self.port, self.wire, self.clock = Port(), Wire(), HandClock()
        self.uart = Uart16550(self.port, self.wire, self.clock, **options)

    def get(self, register: int) -> int:
        return self.uart.read(register, 1)

    def put(self, register: int, value: int) -> None:
        self.uart.write(register, 1, value)

    def type(self, data: bytes) -> None:
        self.port.waiting += data
        self.uart.input_ready()

    def cause(self) -> int:
        return self.get(IIR) & 0x0F


@pytest.fixture
def bench() -> Bench:
    """As a driver leaves it that has opened the line."""
    bench = Bench()
    bench.put(MCR, RTS)
    return bench


@pytest.fixture
def fresh() -> Bench:
    """As it comes out of reset."""
    return Bench()


def test_reset_values(fresh: Bench) -> None:
    """Table I: IIR 01h, LSR 60h, the rest 0; MSR shows the input lines."""
    assert [fresh.get(register) for register in range(8)] == [0, 0, 1, 0, 0, 0x60, 0xB0, 0]
    assert not fresh.wire.level


def test_bits_that_stay_zero(bench: Bench) -> None:
    for register, kept in [(IER, 0x0F), (LCR, 0xFF), (MCR, 0x1F), (SCR, 0xFF)]:
        bench.put(LCR, 0)
        bench.put(register, 0xFF)
        assert bench.get(register) == kept
        bench.put(LCR, 0)


def test_divisor_latch_shares_offsets(bench: Bench) -> None:
    assert bench.uart.baud == 9600
    bench.put(LCR, 0x83)
    bench.put(DLL, 1)
    bench.put(DLM, 0)
    assert (bench.get(DLL), bench.get(DLM)) == (1, 0)
    assert bench.uart.baud == 115200
    bench.put(LCR, 0x03)
    assert bench.get(IER) == 0
    bench.put(THR, 0x41)
    bench.uart.flush()
    assert bench.port.written == b"A"


def test_divisor_zero_counts_as_65536(bench: Bench) -> None:
    bench.put(LCR, 0x80)
    bench.put(DLL, 0)
    bench.put(DLM, 0)
    assert bench.uart.baud == 1


def test_output_goes_out_in_batches(bench: Bench) -> None:
    for byte in b"hello":
        bench.put(THR, byte)
    assert bench.port.written == b""
    bench.clock.advance(FLUSH_DELAY)
    assert (bench.port.written, bench.port.writes) == (b"hello", 1)
    for _ in range(10_000):
        bench.put(THR, 0)
    assert bench.port.writes > 1, "a full batch does not wait"


def test_flush_byte() -> None:
    bench = Bench(flush_byte=0x0A)
    for byte in b"a\nb":
        bench.put(THR, byte)
    assert bench.port.written == b"a\n"


def test_receive_without_fifo(bench: Bench) -> None:
    bench.type(b"xyz")
    assert bench.get(LSR) == 0x61
    assert bytes(bench.get(RBR) for _ in range(3)) == b"xyz"
    assert bench.get(LSR) == 0x60
    assert bench.get(RBR) == 0


@pytest.mark.parametrize(("bits", "level"), [(0, 1), (1, 4), (2, 8), (3, 14)])
def test_trigger_levels(bench: Bench, bits: int, level: int) -> None:
    """Section 8.5: the interrupt comes at the level and goes below it; below, the time-out."""
    bench.put(FCR, bits << 6 | 1)
    bench.put(IER, 1)
    bench.type(bytes(level))
    assert bench.get(IIR) == 0xC4
    bench.get(RBR)
    assert bench.get(IIR) == (0xC1 if level == 1 else 0xCC)
    for _ in range(level - 1):
        bench.get(RBR)
    assert bench.get(IIR) == 0xC1


def test_fifo_holds_sixteen_and_the_rest_waits(bench: Bench) -> None:
    bench.put(FCR, 1)
    bench.type(bytes(range(100)))
    assert len(bench.port.waiting) == 84
    assert bytes(bench.get(RBR) for _ in range(100)) == bytes(range(100))
    assert not bench.get(LSR) & 2


def test_fifo_control_clears(bench: Bench) -> None:
    bench.put(FCR, 1)
    bench.type(b"abc")
    bench.put(FCR, 3)
    assert bench.get(LSR) == 0x60
    bench.type(b"abc")
    bench.put(FCR, 0)
    assert bench.get(LSR) == 0x60, "turning FIFOs off clears them"
    assert bench.get(IIR) & 0xC0 == 0


def test_transmitter_interrupt(bench: Bench) -> None:
    """Section 8.6: raised by enabling it while empty, cleared by reading IIR or writing THR."""
    bench.put(MCR, OUT2)
    bench.put(IER, 2)
    assert bench.wire.level
    assert bench.cause() == 2
    assert not bench.wire.level
    assert bench.cause() == 1
    bench.put(THR, 0x41)
    assert bench.wire.level, "empty again"
    assert bench.cause() == 2
    bench.put(IER, 0)
    bench.put(IER, 2)
    assert bench.cause() == 2, "enabling raises it anew"


def test_priorities(bench: Bench) -> None:
    """Table IV: line status, received data, transmitter, modem."""
    bench.put(FCR, 1)
    bench.put(IER, 0x0F)
    bench.uart.set_modem(0)
    bench.put(THR, 0)
    bench.uart.receive_break()
    assert bench.cause() == 6
    assert bench.get(LSR) & 0x10
    assert bench.cause() == 4
    bench.get(RBR)
    assert bench.cause() == 2
    assert bench.cause() == 0
    assert bench.get(MSR) == 0x0B
    assert bench.cause() == 1


def test_out2_gates_the_line(bench: Bench) -> None:
    bench.put(IER, 1)
    bench.type(b"x")
    assert not bench.wire.level
    bench.put(MCR, RTS_OUT2)
    assert bench.wire.level
    bench.put(MCR, 0x02)
    assert not bench.wire.level


def test_loopback_wires_outputs_to_inputs(bench: Bench) -> None:
    """Section 8.7."""
    for output, inputs in [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)]:
        bench.put(MCR, 0x10 | output)
        assert bench.get(MSR) & 0xF0 == inputs
    bench.put(MCR, 0)
    assert bench.get(MSR) & 0xF0 == 0xB0


def test_loopback_probe_of_linux(bench: Bench) -> None:
    """autoconfig(): RTS and OUT2 in loopback read back as CTS and DCD."""
    bench.put(MCR, 0x10 | 0x0A)
    assert bench.get(MSR) & 0xF0 == 0x90


def test_loopback_data(bench: Bench) -> None:
    bench.put(FCR, 1)
    bench.put(MCR, 0x10)
    for byte in range(20):
        bench.put(THR, byte)
    assert bench.get(LSR) & 2, "the seventeenth overran"
    assert not bench.get(LSR) & 2, "reading cleared it"
    assert bytes(bench.get(RBR) for _ in range(16)) == bytes(range(16))
    bench.uart.flush()
    assert bench.port.written == b"", "nothing leaves in loopback"
    bench.type(b"x")
    assert not bench.get(LSR) & 1, "nothing enters either"
    bench.put(MCR, 2)
    assert bench.get(RBR) == ord("x")


def test_overrun_without_fifo_keeps_the_newer(bench: Bench) -> None:
    bench.put(MCR, 0x10)
    bench.put(THR, 1)
    bench.put(THR, 2)
    assert bench.get(LSR) & 2
    assert bench.get(RBR) == 2


def test_ring_counts_at_its_trailing_edge(bench: Bench) -> None:
    bench.put(MCR, 0x14)
    bench.get(MSR)
    bench.put(MCR, 0x10)
    assert bench.get(MSR) & 0x0F == 0x04
    bench.put(MCR, 0x14)
    assert bench.get(MSR) & 0x0F == 0


def test_break_shows_when_it_reaches_the_top(bench: Bench) -> None:
    bench.put(FCR, 1)
    bench.type(b"a")
    bench.uart.receive_break()
    assert bench.get(LSR) & 0x91 == 0x81, "an error is somewhere in the FIFO"
    assert bench.get(RBR) == ord("a")
    assert bench.get(LSR) & 0x10
    assert bench.get(RBR) == 0


def test_input_waits_for_rts(bench: Bench) -> None:
    bench.put(MCR, OUT2)
    bench.type(b"typed early")
    assert not bench.get(LSR) & 1
    bench.put(FCR, 7)
    bench.put(MCR, RTS_OUT2)
    assert bytes(bench.get(RBR) for _ in range(11)) == b"typed early"


def test_input_waits_for_a_driver(fresh: Bench) -> None:
    """What comes before the driver clears the FIFOs is not lost."""
    fresh.type(b"typed at once")
    assert fresh.get(IIR) == 1
    fresh.put(FCR, 7)
    fresh.get(RBR)
    fresh.put(MCR, 1)
    fresh.get(LSR)
    fresh.put(FCR, 7)
    fresh.put(MCR, RTS_OUT2)
    assert bytes(fresh.get(RBR) for _ in range(13)) == b"typed at once"


def test_input_of_a_guest_that_only_polls(fresh: Bench) -> None:
    fresh.type(b"polled")
    seen = bytearray()
    while fresh.get(LSR) & 1:
        seen.append(fresh.get(RBR))
    assert seen == b"polled"


def test_input_of_a_guest_that_keeps_rts_low(bench: Bench) -> None:
    """Firmware polls for keys in a loop; a kernel that prints reads LSR once for each byte."""
    bench.put(MCR, 0)
    bench.type(b"keys")
    for _ in range(100):
        assert not bench.get(LSR) & 1
        bench.put(THR, 0x41)
    seen = bytearray()
    for _ in range(200):
        if bench.get(LSR) & 1:
            seen.append(bench.get(RBR))
    assert seen == b"keys"
    bench.put(THR, 0x41)
    bench.type(b"more")
    assert bench.get(LSR) & 1, "known by now"
    bench.put(MCR, OUT2)
    bench.get(RBR)
    bench.type(b"later")
    assert not bench.get(LSR) & 1


def test_state_and_restore(bench: Bench) -> None:
    bench.put(FCR, 0x81)
    bench.put(IER, 0x05)
    bench.put(MCR, RTS_OUT2)
    bench.type(bytes(range(20)))
    bench.put(THR, 0x41)
    state = bench.uart.state()
    assert bench.port.written == b"A"
    other = Bench()
    other.port.waiting += bench.port.waiting
    other.uart.restore(state)
    assert other.wire.level
    assert other.get(IIR) == bench.get(IIR) == 0xC4
    assert bytes(other.get(RBR) for _ in range(20)) == bytes(range(20))


def test_constants_agree_with_the_data_sheet() -> None:
    assert (uart.IIR_LINE, uart.IIR_RECEIVED, uart.IIR_TIMEOUT) == (6, 4, 12)
