"""What leaves an engine, and how it goes on: the same on each."""

import os
from collections.abc import Sequence
from struct import pack
from threading import Timer
from typing import Any

import pytest

from ringfence import _core
from support.engines import DATA, Guest

MODES = (16, 32, 64)
#: MOV AL, 5Ah; OUT F4h, AL.
LEAVE = "b05a e6f4"


@pytest.mark.parametrize("mode", MODES)
def test_code_runs_in_each_mode(guest: Guest, mode: int) -> None:
    # mov cl, 100; l: add bl, 3; dec cl; jnz l; mov al, bl; out F4h, al
    guest.load("b164 80c303 fec9 75f9 88d8 e6f4", mode=mode)
    assert guest.until_out() == 300 % 256


@pytest.mark.parametrize("mode", MODES)
def test_ports_of_each_size(guest: Guest, mode: int) -> None:
    wide, narrow = ("66", "") if mode == 16 else ("", "66")
    # in al, 10h; out 11h, al; in ax, 12h; out 13h, ax; in eax, 14h; out 15h, eax
    guest.load(f"e410 e611 {narrow}e512 {narrow}e713 {wide}e514 {wide}e715", mode=mode)
    leaving = guest.run()
    for size, port, value in ((1, 0x10, 0x81), (2, 0x12, 0x8342), (4, 0x14, 0x87654321)):
        assert leaving == _core.PortIn(port, size)
        assert guest.run(value) == _core.PortOut(port + 1, size, value)
        leaving = guest.run() if size < 4 else None


def test_an_in_changes_no_more_than_its_size(guest: Guest) -> None:
    # mov eax, 11111111h; in al, 10h; out 11h, eax
    guest.load("b811111111 e410 e711", mode=32)
    assert guest.run() == _core.PortIn(0x10, 1)
    assert guest.run(0xFFFF_FFFF_FFFF_FF77) == _core.PortOut(0x11, 4, 0x11111177)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_loads_and_stores_without_memory(guest: Guest, size: int) -> None:
    load = {1: "a0", 2: "66a1", 4: "a1"}[size] + "00004000"
    store = {1: "a2", 2: "66a3", 4: "a3"}[size] + "08004000"
    guest.load(load + store + LEAVE, mode=32)
    value = 0x8899AABB & (1 << size * 8) - 1
    assert guest.run() == _core.MmioRead(0x400000, size)
    assert guest.run(value) == _core.MmioWrite(0x400008, size, value)
    assert guest.until_out() == 0x5A


def test_eight_bytes_without_memory(guest: Guest) -> None:
    # mov rax, [400000h]; mov [400010h], rax
    guest.load("488b042500004000 488904251000 4000" + LEAVE, mode=64)
    assert guest.run() == _core.MmioRead(0x400000, 8)
    assert guest.run(0x8877665544332211) == _core.MmioWrite(0x400010, 8, 0x8877665544332211)
    assert guest.until_out() == 0x5A


def test_a_load_that_is_also_a_store(guest: Guest) -> None:
    # inc dword [400000h]
    guest.load("ff0500004000" + LEAVE, mode=32)
    assert guest.run() == _core.MmioRead(0x400000, 4)
    assert guest.run(41) == _core.MmioWrite(0x400000, 4, 42)
    assert guest.until_out() == 0x5A


def written(guest: Guest) -> tuple[bytes, Any]:
    """What a guest writes to port 20h by strings, and the exit that follows."""
    data = b""
    while True:
        leaving = guest.run()
        if isinstance(leaving, _core.PortOutString) and leaving.port == 0x30:
            data += leaving.data
        elif isinstance(leaving, _core.PortOut) and leaving.port == 0x30:
            data += leaving.value.to_bytes(leaving.size, "little")
        else:
            return data, leaving


@pytest.mark.parametrize(("opcode", "size"), [("6e", 1), ("666f", 2), ("6f", 4)])
def test_strings_to_a_port(guest: Guest, opcode: str, size: int) -> None:
    text = bytes(range(48))
    guest.machine.write(DATA, text)
    # mov esi, DATA; mov ecx, 48 / size; mov edx, 30h; cld; rep outs
    code = "be" + pack("<I", DATA).hex() + f"b9 {48 // size:02x}000000"
    guest.load(f"{code} ba30000000 fc f3{opcode}" + LEAVE, mode=32)
    data, leaving = written(guest)
    assert data == text
    assert leaving == _core.PortOut(0xF4, 1, 0x5A)
    assert guest.vcpu.registers()["rcx"] == 0
    assert guest.vcpu.registers()["rsi"] == DATA + 48


@pytest.mark.parametrize(("opcode", "size"), [("6c", 1), ("666d", 2), ("6d", 4)])
def test_strings_from_a_port(guest: Guest, opcode: str, size: int) -> None:
    text = bytes(range(100, 148))
    code = "bf" + pack("<I", DATA).hex() + f"b9 {48 // size:02x}000000"
    guest.load(f"{code} ba30000000 fc f3{opcode}" + LEAVE, mode=32)
    left, leaving = text, guest.run()
    while leaving != _core.PortOut(0xF4, 1, 0x5A):
        count = leaving.size * getattr(leaving, "count", 1)
        part, left = left[:count], left[count:]
        string = isinstance(leaving, _core.PortInString)
        leaving = guest.run(part if string else int.from_bytes(part, "little"))
    assert not left
    assert guest.machine.read(DATA, 48) == text


def test_a_write_to_read_only_memory_leaves(guest: Guest) -> None:
    guest.machine.map_memory(0x40_0000, 0x1000, readonly=True)
    guest.machine.write(0x40_0000, b"\x17")
    # mov al, [400000h]; mov [400001h], al
    guest.load("a000004000 a201004000" + LEAVE, mode=32)
    assert guest.run() == _core.MmioWrite(0x400001, 1, 0x17)
    assert guest.until_out() == 0x5A
    assert guest.machine.read(0x40_0001, 1) == b"\0"


def test_a_triple_fault_shuts_down(guest: Guest) -> None:
    # ud2, whose handler can't be found, nor that of #DF
    guest.load("0f0b", mode=32)
    guest.vcpu.set_system_registers({"idtr": {"base": 0, "limit": 0}})
    assert guest.run() == _core.Shutdown()


def test_an_interruption_while_the_guest_spins(guest: Guest) -> None:
    guest.load("ebfe", mode=32)
    timer = Timer(0.05, guest.vcpu.interrupt)
    timer.start()
    assert guest.run() == _core.Interrupted()
    timer.join()
    assert guest.vcpu.registers()["rip"] == 0x1000


def test_an_interruption_before_it_runs(guest: Guest) -> None:
    guest.load(LEAVE)
    guest.vcpu.interrupt()
    assert guest.run() == _core.Interrupted()
    assert guest.until_out() == 0x5A


def test_an_interruption_comes_after_what_is_half_done(guest: Guest) -> None:
    guest.load("e410" + LEAVE)
    assert guest.run() == _core.PortIn(0x10, 1)
    guest.vcpu.interrupt()
    assert guest.run(0x42) == _core.Interrupted()
    # Soon: an engine may go on to the end of a few instructions.
    rip, rax = (guest.vcpu.registers()[name] for name in ("rip", "rax"))
    assert (rip, rax & 0xFF) in {(0x1002, 0x42), (0x1004, 0x5A)}
    assert guest.until_out() == 0x5A


def signals(fd: int) -> int:
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


@pytest.fixture
def fds() -> Sequence[int]:
    made = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(2)]
    yield made
    for fd in made:
        os.close(fd)


def test_writes_that_signal_an_eventfd(guest: Guest, fds: Sequence[int]) -> None:
    guest.machine.io_event(fds[0], port=0x50, size=1)
    guest.machine.io_event(fds[1], address=0x40_0000, size=4, value=7)
    # mov al, 1; out 50h, al twice; out 50h, ax; mov dword [400000h], 7; ... 8
    stores = "c7050000400007000000 c7050000400008000000"
    guest.load(f"b001 e650 e650 66e750 {stores}" + LEAVE, mode=32)
    assert guest.run() == _core.PortOut(0x50, 2, 1)
    assert signals(fds[0]) == 2
    assert guest.run() == _core.MmioWrite(0x400000, 4, 8)
    assert signals(fds[1]) == 1
    assert guest.until_out() == 0x5A


def test_a_removed_event_leaves_again(guest: Guest, fds: Sequence[int]) -> None:
    guest.machine.io_event(fds[0], port=0x50, size=1)
    with pytest.raises(_core.CoreError, match="already"):
        guest.machine.io_event(fds[1], port=0x50, size=1, value=3)
    guest.machine.remove_io_event(port=0x50, size=1)
    with pytest.raises(_core.CoreError, match="no eventfd"):
        guest.machine.remove_io_event(port=0x50, size=1)
    guest.load("e650" + LEAVE)
    assert guest.run() == _core.PortOut(0x50, 1, 0)


@pytest.mark.parametrize("size", [0, 3, 8])
def test_events_of_no_size_are_refused(guest: Guest, fds: Sequence[int], size: int) -> None:
    with pytest.raises(_core.CoreError, match="I/O event"):
        guest.machine.io_event(fds[0], port=0x50, size=size)
    with pytest.raises(_core.CoreError, match="descriptor"):
        guest.machine.io_event(-1, port=0x50)
