"""The map of guest memory under a running processor, and the log of what it writes."""

import time
from struct import pack

import pytest

from ringfence import _core
from support.engines import Guest, Running

PAGE = 0x1000
#: Where objects are shown.
PLACE = 0x40_0000
LEAVE = "b05a e6f4"


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_an_object_at_two_places(guest: Guest) -> None:
    memory = _core.Memory(PAGE)
    guest.machine.map(PLACE, memory)
    guest.machine.map(PLACE + 4 * PAGE, memory)
    # mov dword [400010h], 12345678h; mov eax, [404010h]; out F4h, eax
    guest.load("c7051000400078563412 a110404000 e7f4", mode=32)
    assert guest.until_out() == 0x12345678
    assert memory.view()[0x10] == 0x78


def test_the_map_changes_between_two_runs(guest: Guest) -> None:
    guest.machine.map(PLACE, _core.Memory(PAGE))
    # mov [400000h], al; out F4h, al; mov [400000h], al; out F4h, al
    guest.load("a200004000 e6f4 a200004000 e6f4", mode=32)
    guest.until_out()
    guest.machine.unmap(PLACE, PAGE)
    assert guest.run() == _core.MmioWrite(PLACE, 1, 0)
    guest.until_out()


def test_the_map_changes_while_a_processor_runs(guest: Guest) -> None:
    """A store that never stops finds memory, then none, and then the rest of it untouched."""
    first, second = _core.Memory(PAGE), _core.Memory(PAGE)
    guest.machine.map(PLACE, first)
    # l: inc dword [400000h]; mov eax, [100h]; test eax, eax; jz l; then leave
    guest.load("ff0500004000 a100010000 85c0 74f1" + LEAVE, mode=32)
    running: Running = guest.in_thread()
    wait_for(lambda: first.view()[0] != 0)
    guest.machine.map(PLACE, second, replace=True)
    before = bytes(first.view())
    wait_for(lambda: second.view()[0] != 0)
    assert bytes(first.view()) == before
    # What lies around it may be cut as well, and is never missed.
    for _ in range(20):
        guest.machine.map(0x8000, _core.Memory(PAGE), replace=True)
    guest.machine.write(0x100, pack("<I", 1))
    assert running.join() == _core.PortOut(0xF4, 1, 0x5A)


def test_memory_that_is_taken_away_while_a_processor_runs(guest: Guest) -> None:
    guest.machine.map(PLACE, _core.Memory(PAGE))
    guest.load("a300004000 ebf9", mode=32)
    running = guest.in_thread()
    time.sleep(0.02)
    guest.machine.unmap(PLACE, PAGE)
    assert running.join() == _core.MmioWrite(PLACE, 4, 0)


def test_pages_that_are_written_to_are_logged(guest: Guest) -> None:
    memory = _core.Memory(64 * PAGE)
    guest.machine.map(PLACE, memory, log_dirty=True)
    # mov [402000h], al; mov [40a004h], al; mov al, [405000h]; out F4h, al; mov [403000h], al
    guest.load("a200204000 a204a04000 a000504000 e6f4 a200304000" + LEAVE, mode=32)
    guest.until_out()
    assert bits(guest.machine.dirty_pages(PLACE, 64 * PAGE)) == {2, 10}
    assert bits(guest.machine.dirty_pages(PLACE, 64 * PAGE)) == set()
    guest.machine.write(PLACE + 7 * PAGE, b"x")
    guest.until_out()
    assert bits(memory.dirty_pages()) == {3, 7}


def bits(bitmap: bytes) -> set[int]:
    return {index for index in range(len(bitmap) * 8) if bitmap[index // 8] >> index % 8 & 1}


def test_code_that_changes_itself(guest: Guest) -> None:
    # l: mov al, 1; out F4h, al; inc byte [1001h]; jmp l
    guest.load("b001 e6f4 fe0501100000 ebf4", mode=32)
    for value in range(1, 6):
        assert guest.until_out() == value


def test_code_that_a_device_changes(guest: Guest) -> None:
    guest.load("b001 e6f4 ebfa", mode=32)
    assert guest.until_out() == 1
    guest.machine.write(0x1001, b"\x02")
    assert guest.until_out() == 2


def test_address_line_20(guest: Guest) -> None:
    # mov al, [500h]; out F4h, al; mov al, [100500h]; out F4h, al; jmp
    guest.load("a000050000 e6f4 a000051000 e6f4 ebf0", mode=32)
    guest.machine.write(0x500, b"\x11")
    guest.machine.write(0x10_0500, b"\x22")
    assert [guest.until_out() for _ in range(2)] == [0x11, 0x22]
    guest.machine.a20(False)
    assert [guest.until_out() for _ in range(2)] == [0x11, 0x11]
    guest.machine.a20(True)
    assert [guest.until_out() for _ in range(2)] == [0x11, 0x22]


@pytest.mark.parametrize("mode", [16, 32, 64])
def test_reads_of_rom(guest: Guest, mode: int) -> None:
    guest.machine.map(0x30_0000 if mode != 16 else 0x20_0000, _core.Memory(PAGE), readonly=True)
    rom = _core.Memory(PAGE)
    rom.view()[:2] = b"\x99\x77"
    guest.machine.map(0xA000, rom, readonly=True, replace=True)
    # mov al, [A000h]; out F4h, al
    code = {16: "a000a0", 32: "a000a00000", 64: "8a042500a00000"}[mode]
    guest.load(code + "e6f4", mode=mode)
    assert guest.until_out() == 0x99
