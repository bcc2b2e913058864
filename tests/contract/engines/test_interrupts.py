"""Interrupt hardware: lines, messages, timers, several processors. The same on each engine."""

import os
import time
from collections.abc import Iterator
from struct import pack

import pytest

from ringfence import _core
from support.engines import DATA, ENGINES, Guest, Maker

#: Where interrupt handlers and their descriptors are.
HANDLERS, IDT = 0x9000, 0xA000
LAPIC, IOAPIC = 0xFEE0_0000, 0xFEC0_0000
FIRST = 0x20


def real_handlers(guest: Guest) -> None:
    """Handlers in real mode for IRQ 0 to 15, at vectors 20h to 2Fh.

    Each writes its number to port F5h, sends its EOI and returns.
    """
    for irq in range(16):
        at = HANDLERS + irq * 32
        slave = "e6a0" if irq >= 8 else ""
        # mov al, irq; out F5h, al; mov al, 20h; out A0h, al; out 20h, al; iret
        code = bytes.fromhex(f"b0{irq:02x} e6f5 b020 {slave} e620 cf")
        guest.machine.write(at, code)
        guest.machine.write((FIRST + irq) * 4, pack("<HH", at, 0))


def pics(mask: int) -> str:
    """Code that sets the PICs up, with these interrupts masked."""
    pairs = [(0x20, 0x11), (0x21, FIRST), (0x21, 4), (0x21, 1)]
    pairs += [(0xA0, 0x11), (0xA1, FIRST + 8), (0xA1, 2), (0xA1, 1)]
    pairs += [(0x21, mask & 0xFF), (0xA1, mask >> 8)]
    return "".join(f"b0{value:02x} e6{port:02x}" for port, value in pairs)


#: STI; HLT; JMP to the HLT.
IDLE = "fb f4 ebfd"


@pytest.mark.parametrize("irq", [3, 4, 9, 15])
def test_a_line_wakes_a_halted_processor(guest: Guest, irq: int) -> None:
    real_handlers(guest)
    guest.load(pics(0) + "fa b0fe" + IDLE)
    running = guest.in_thread()
    time.sleep(0.02)
    guest.machine.irq_line(irq, True)
    assert running.join() == _core.PortOut(0xF5, 1, irq)
    guest.machine.irq_line(irq, False)


def test_a_line_reaches_a_processor_that_is_busy(guest: Guest) -> None:
    real_handlers(guest)
    guest.load(pics(0) + "fb ebfe")
    running = guest.in_thread()
    time.sleep(0.02)
    guest.machine.irq_line(5, True)
    assert running.join() == _core.PortOut(0xF5, 1, 5)


def test_a_masked_line_waits(guest: Guest) -> None:
    real_handlers(guest)
    # All masked; then out F4h, al; then IRQ 6 unmasked.
    guest.load(pics(0xFFFF) + "fb e6f4 b0bf e621" + IDLE)
    guest.until_out()
    guest.machine.irq_line(6, True)
    assert guest.run() == _core.PortOut(0xF5, 1, 6)


def test_interrupts_wait_for_sti_and_one_instruction(guest: Guest) -> None:
    real_handlers(guest)
    # cli; out F4h; nop; sti; mov bl, 77h; (interrupt) nop
    guest.load(pics(0) + "fa e6f4 90 b300 fb b377 90 90 ebfe")
    guest.until_out()
    guest.machine.irq_line(7, True)
    assert guest.run() == _core.PortOut(0xF5, 1, 7)
    assert guest.vcpu.registers()["rbx"] & 0xFF == 0x77


def test_lines_go_by_priority(guest: Guest) -> None:
    """Those of the second PIC come where IRQ 2 is."""
    real_handlers(guest)
    guest.load(pics(0) + "fa e6f4" + IDLE)
    guest.until_out()
    for irq in (12, 4, 3):
        guest.machine.irq_line(irq, True)
        guest.machine.irq_line(irq, False)
    assert [guest.until_out(0xF5) for _ in range(3)] == [12, 3, 4]


def test_the_timer_interrupts(guest: Guest) -> None:
    real_handlers(guest)
    # Counter 0 in mode 2, every 1193 clocks: a millisecond.
    guest.load(pics(0xFFFE) + "b034 e643 b0a9 e640 b004 e640" + IDLE)
    start = guest.machine.nanoseconds
    assert [guest.until_out(0xF5) for _ in range(20)] == [0] * 20
    assert guest.machine.nanoseconds - start > 10_000_000


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.eventfd(0, os.EFD_NONBLOCK)
    yield made
    os.close(made)


def test_an_eventfd_raises_a_line(guest: Guest, fd: int) -> None:
    real_handlers(guest)
    number = guest.machine.irq_event(fd, 10)
    guest.load(pics(0) + IDLE)
    for _ in range(3):
        running = guest.in_thread()
        time.sleep(0.01)
        os.eventfd_write(fd, 1)
        assert running.join() == _core.PortOut(0xF5, 1, 10)
    guest.machine.remove_irq_event(number)
    with pytest.raises(_core.CoreError, match="no irq event"):
        guest.machine.remove_irq_event(number)
    os.eventfd_write(fd, 1)
    running = guest.in_thread()
    time.sleep(0.02)
    running.stop()
    assert running.leaving == _core.Interrupted()


def store(address: int, value: int) -> str:
    """mov dword [address], value, in 32-bit code."""
    return (b"\xc7\x05" + pack("<II", address, value)).hex()


def protected_handlers(guest: Guest) -> None:
    """Handlers in protected mode for vectors 30h to 3Fh: out F5h; EOI of the local APIC; iret."""
    for vector in range(0x30, 0x40):
        at = HANDLERS + (vector - 0x30) * 32
        code = f"b0{vector:02x} e6f5" + store(LAPIC + 0xB0, 0) + "cf"
        guest.machine.write(at, bytes.fromhex(code))
        guest.machine.write(IDT + vector * 8, pack("<HHHH", at, 8, 0x8E00, 0))
    guest.vcpu.set_system_registers({"idtr": {"base": IDT, "limit": 0x7FF}})


ENABLE_APIC = store(LAPIC + 0xF0, 0x1FF)


def with_apic(guest: Guest, code: str) -> Guest:
    guest.load(ENABLE_APIC + code, mode=32)
    protected_handlers(guest)
    return guest


def test_a_message_interrupts(guest: Guest) -> None:
    with_apic(guest, "e6f4" + IDLE)
    guest.until_out()
    guest.machine.signal_msi(LAPIC, 0x35)
    assert guest.until_out(0xF5) == 0x35


def test_messages_that_are_none_are_dropped(guest: Guest) -> None:
    with_apic(guest, "e6f4" + IDLE)
    guest.until_out()
    guest.machine.signal_msi(0x1234, 0x35)
    # To a processor that there is not; of a vector that is reserved.
    guest.machine.signal_msi(LAPIC | 5 << 12, 0x35)
    guest.machine.signal_msi(LAPIC, 0x03)
    guest.machine.signal_msi(LAPIC, 0x36)
    assert guest.until_out(0xF5) == 0x36


def test_an_eventfd_sends_a_message(guest: Guest, fd: int) -> None:
    with_apic(guest, IDLE)
    guest.machine.msi_event(fd, LAPIC, 0x37)
    for _ in range(3):
        running = guest.in_thread()
        time.sleep(0.01)
        os.eventfd_write(fd, 1)
        assert running.join() == _core.PortOut(0xF5, 1, 0x37)


def test_a_line_through_the_io_apic(guest: Guest) -> None:
    entry = store(IOAPIC, 0x10 + 2 * 18) + store(IOAPIC + 0x10, 0x8038)
    with_apic(guest, entry + "e6f4" + IDLE)
    guest.until_out()
    for _ in range(2):
        # Level-triggered: again and again while it is high.
        guest.machine.irq_line(18, True)
        assert guest.until_out(0xF5) == 0x38
        assert guest.until_out(0xF5) == 0x38
        guest.machine.irq_line(18, False)


def test_the_timer_of_the_local_apic(guest: Guest) -> None:
    # Periodic, vector 39h, divided by 1.
    timer = store(LAPIC + 0x3E0, 0xB) + store(LAPIC + 0x320, 0x20039) + store(LAPIC + 0x380, 50000)
    with_apic(guest, timer + IDLE)
    assert [guest.until_out(0xF5) for _ in range(5)] == [0x39] * 5


@pytest.mark.parametrize("name", ENGINES)
def test_a_second_processor_starts(make: Maker, name: str) -> None:
    guest = make(name, vcpus=2)
    # The second: mov byte [DATA], 33h; hlt, in real mode at 2000h.
    guest.machine.write(0x2000, bytes.fromhex(f"c606{pack('<H', DATA).hex()}33 f4ebfd"))
    # INIT and SIPI (vector 2) to processor 1; l: cmp byte [DATA], 33h; jne l; out F4h, al
    ipis = store(LAPIC + 0x310, 1 << 24)
    ipis += store(LAPIC + 0x300, 0x4500) + store(LAPIC + 0x300, 0x4602)
    guest.load(ENABLE_APIC + ipis + f"803d{pack('<I', DATA).hex()}33 75f7 b05a e6f4", mode=32)
    second = guest.in_thread(1)
    assert guest.until_out() == 0x5A
    second.stop()
    assert second.leaving == _core.Interrupted()
    assert guest.machine.vcpu(1).state()["activity"] == "halted"


@pytest.mark.parametrize("name", ENGINES)
def test_a_processor_that_was_never_started_waits(make: Maker, name: str) -> None:
    guest = make(name, vcpus=2)
    waiting = guest.in_thread(1)
    time.sleep(0.02)
    assert waiting.leaving is None
    waiting.stop()
    assert waiting.leaving == _core.Interrupted()
    assert guest.machine.vcpu(1).state()["activity"] == "waiting-for-startup"


@pytest.mark.parametrize("name", ENGINES)
def test_an_interrupt_from_one_processor_to_another(make: Maker, name: str) -> None:
    guest = make(name, vcpus=2)
    # The second, in real mode: mov al, 99h; out F5h, al when the NMI comes (vector 2).
    guest.machine.write(0x2000, bytes.fromhex("c606008044 f4 ebfd"))
    guest.machine.write(0x2040, bytes.fromhex("b099 e6f5 cf"))
    guest.machine.write(2 * 4, pack("<HH", 0x2040, 0))
    ipis = store(LAPIC + 0x310, 1 << 24)
    ipis += store(LAPIC + 0x300, 0x4500) + store(LAPIC + 0x300, 0x4602)
    wait = f"803d{pack('<I', DATA).hex()}44 75f7"
    guest.load(ENABLE_APIC + ipis + wait + store(LAPIC + 0x300, 0x4400) + "b05a e6f4", mode=32)
    second = guest.in_thread(1)
    assert guest.until_out() == 0x5A
    assert second.join() == _core.PortOut(0xF5, 1, 0x99)
