"""The map of guest memory, changed while processors run."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ringfence import _core

PAGE = 0x1000
DATA = 0x8000


def boot(vcpu: _core.Vcpu, code_at: int) -> None:
    """Flat 32-bit protected mode, interrupts off."""
    flat = {"base": 0, "limit": 0xFFFFFFFF, "selector": 8}
    data = flat | {"attributes": 0xC093}
    segments = dict.fromkeys(("ds", "es", "ss", "fs", "gs"), data)
    vcpu.set_system_registers({"cr0": 0x11, "cs": flat | {"attributes": 0xC09B}, **segments})
    vcpu.set_registers({"rip": code_at, "rsp": 0x7000, "rflags": 2})


@pytest.fixture
def machine() -> _core.Machine:
    machine = _core.Machine()
    machine.map_memory(0, 8 * PAGE)
    return machine


@contextmanager
def running(vcpu: _core.Vcpu) -> Iterator[list[object]]:
    """The processor runs in a thread of its own; its last exit is put into the list."""
    exits: list[object] = []

    def body() -> None:
        while not exits or isinstance(exits[-1], _core.MmioRead):
            exits.append(vcpu.run(0x77))

    thread = threading.Thread(target=body)
    thread.start()
    try:
        yield exits
    finally:
        vcpu.interrupt()
        thread.join(10)
        assert not thread.is_alive()


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def dword(view: memoryview, offset: int = 0) -> int:
    return int.from_bytes(view[offset : offset + 4], "little")


def test_objects_are_buffers_and_may_be_mapped_twice(machine: _core.Machine) -> None:
    memory = _core.Memory(2 * PAGE)
    machine.map(0x100000, memory)
    machine.map(0x200000, memory, offset=PAGE, size=PAGE, readonly=True)
    machine.write(0x101004, b"here")
    assert machine.read(0x200004, 4) == b"here"
    view = memory.view()
    view[PAGE : PAGE + 3] = b"abc"
    assert machine.read(0x101000, 3) == b"abc"
    assert (len(memory), memory.size, bytes(memory.view()[:1])) == (2 * PAGE, 2 * PAGE, b"\0")
    machine.unmap(0x100000, 2 * PAGE)
    assert bytes(view[PAGE : PAGE + 3]) == b"abc"
    assert machine.dma_read(0x100000, 2) == b"\xff\xff"


def test_parts_of_mappings_are_taken_away_and_replaced(machine: _core.Machine) -> None:
    machine.write(2 * PAGE, b"x" * 3 * PAGE)
    machine.unmap(3 * PAGE, PAGE)
    assert machine.dma_read(3 * PAGE - 1, PAGE + 2) == b"x" + b"\xff" * PAGE + b"x"
    rom = _core.Memory(PAGE)
    rom.view()[:] = b"r" * PAGE
    machine.map(2 * PAGE, rom, readonly=True, replace=True)
    machine.dma_write(2 * PAGE, b"?")
    assert machine.read(2 * PAGE, 2) == b"rr"


def test_mistakes_have_codes(machine: _core.Machine) -> None:
    memory = _core.Memory(PAGE)
    for code, call in [
        ("unaligned", lambda: _core.Memory(100)),
        ("out_of_memory", lambda: _core.Memory(1 << 60)),
        ("overlap", lambda: machine.map(PAGE, memory)),
        ("bad_argument", lambda: machine.map(0x100000, memory, offset=PAGE, size=PAGE)),
        ("unaligned", lambda: machine.map(0x100000, memory, offset=1, size=PAGE - 1)),
        ("unmapped", lambda: machine.unmap(0x100000, PAGE)),
        ("not_logged", lambda: machine.dirty_pages(0, PAGE)),
        ("bad_argument", lambda: memory.written(PAGE, 1)),
        ("unaligned", lambda: memory.dirty_pages(1, 1)),
    ]:
        with pytest.raises(_core.CoreError) as error:
            call()
        assert error.value.code == code


def test_a_running_processor_follows_the_map(machine: _core.Machine) -> None:
    # inc dword [DATA]; jmp back
    machine.write(PAGE, bytes.fromhex("ff0500800000ebf8"))
    first, second = _core.Memory(PAGE), _core.Memory(PAGE)
    machine.map(DATA, first)
    boot(machine.vcpu(0), PAGE)
    with running(machine.vcpu(0)) as exits:
        wait_for(lambda: dword(first.view()))
        machine.map(DATA, second, replace=True)
        stopped = dword(first.view())
        wait_for(lambda: dword(second.view()))
        assert dword(first.view()) == stopped
        machine.unmap(DATA, PAGE)
        wait_for(lambda: len(exits) > 1)
    assert exits[0] == _core.MmioRead(DATA, 4)
    assert exits[1] == _core.MmioWrite(DATA, 4, 0x78)


def test_code_that_is_replaced_is_not_run_again(machine: _core.Machine) -> None:
    # mov dword [DATA], n; jmp back
    pages = [_core.Memory(PAGE) for _ in range(2)]
    for n, page in enumerate(pages, 1):
        page.view()[:12] = bytes.fromhex(f"c705008000000{n}000000ebf4")
    data = _core.Memory(PAGE)
    machine.map(DATA, data)
    machine.map(0x10000, pages[0])
    boot(machine.vcpu(0), 0x10000)
    with running(machine.vcpu(0)):
        for n in [1, 2, 1, 2]:
            machine.map(0x10000, pages[n - 1], readonly=True, replace=True)
            wait_for(lambda n=n: dword(data.view()) == n)
            data.view()[:4] = b"\0" * 4
            wait_for(lambda n=n: dword(data.view()) == n)


def test_code_seen_at_another_address_is_dropped_when_it_is_written(
    machine: _core.Machine,
) -> None:
    code = _core.Memory(PAGE)
    machine.map(0x10000, code)
    machine.map(0x20000, code)
    # call 10020h; mov byte [20021h], 2; call 10020h; mov [DATA], al
    machine.write(0x10000, bytes.fromhex("e81b000000c6052100020002e80f000000a200800000"))
    # mov al, 1; ret
    machine.write(0x10020, bytes.fromhex("b001c3"))
    boot(machine.vcpu(0), 0x10000)
    assert machine.vcpu(0).run() == _core.MmioWrite(DATA, 1, 2)


@pytest.mark.parametrize("alias", [False, True])
def test_what_is_written_through_a_view_is_told(machine: _core.Machine, alias: bool) -> None:
    code = _core.Memory(PAGE)
    machine.map(0x10000, code)
    if alias:
        machine.map(0x20000, code)
    # mov al, 1; mov [DATA], al; jmp back
    machine.write(0x10000, bytes.fromhex("b001a200800000ebf7"))
    vcpu = machine.vcpu(0)
    boot(vcpu, 0x10000)
    assert vcpu.run() == _core.MmioWrite(DATA, 1, 1)
    assert vcpu.run() == _core.MmioWrite(DATA, 1, 1)
    code.view()[1] = 5
    code.written(1, 1)
    assert vcpu.run() == _core.MmioWrite(DATA, 1, 5)


def test_the_log_finds_pages_written_by_anyone(machine: _core.Machine) -> None:
    video = _core.Memory(16 * PAGE)
    machine.map(0x100000, video, log_dirty=True)
    machine.map(0x200000, video, offset=8 * PAGE, size=PAGE, log_dirty=True)
    # mov eax, [103000h]; mov [101000h], eax; mov [200000h], eax; mov [DATA], eax; jmp back
    machine.write(PAGE, bytes.fromhex("a100301000a300101000a300002000a300800000ebea"))
    vcpu = machine.vcpu(0)
    boot(vcpu, PAGE)
    vcpu.run()
    assert machine.dirty_pages(0x100000, 16 * PAGE) == bytes([1 << 1, 1 << 0])
    assert machine.dirty_pages(0x100000, 16 * PAGE) == bytes(2)
    vcpu.run()
    machine.dma_write(0x10F000, b"!")
    video.written(14 * PAGE + 5, 1)
    assert machine.dirty_pages(0x101000, 8 * PAGE) == bytes([1 | 1 << 7])
    assert video.dirty_pages() == bytes([0, 3 << 6])
    assert video.dirty_pages() == bytes(2)


def test_no_store_of_a_running_processor_escapes_the_log(machine: _core.Machine) -> None:
    # inc dword [100000h]; jmp back
    machine.write(PAGE, bytes.fromhex("ff0500001000ebf8"))
    video = _core.Memory(PAGE)
    machine.map(0x100000, video, log_dirty=True)
    boot(machine.vcpu(0), PAGE)
    with running(machine.vcpu(0)):
        wait_for(lambda: dword(video.view()))
        for _ in range(40):
            machine.dirty_pages(0x100000, PAGE)
            seen = dword(video.view())
            wait_for(lambda seen=seen: dword(video.view()) != seen)
            assert machine.dirty_pages(0x100000, PAGE) == b"\1"


def test_stores_to_rom_leave_and_loads_do_not(machine: _core.Machine) -> None:
    rom = _core.Memory(PAGE)
    rom.view()[:4] = b"\x11\x22\x33\x44"
    machine.map(0x100000, rom, readonly=True)
    # mov eax, [100000h]; mov [100004h], eax
    machine.write(PAGE, bytes.fromhex("a100001000a304001000"))
    boot(machine.vcpu(0), PAGE)
    assert machine.vcpu(0).run() == _core.MmioWrite(0x100004, 4, 0x44332211)


def test_code_in_a_device_is_fetched_by_exits(machine: _core.Machine) -> None:
    # At 100FFEh, memory ends behind the first two bytes of mov [DATA], eax.
    memory = _core.Memory(PAGE)
    memory.view()[-2:] = b"\x89\x05"
    machine.map(0x100000, memory, readonly=True)
    vcpu = machine.vcpu(0)
    boot(vcpu, 0x100FFE)
    vcpu.set_registers({"rax": 0xABCD})
    assert vcpu.run() == _core.MmioRead(0x101000, 8)
    assert vcpu.run(DATA) == _core.MmioRead(0x101008, 8)
    assert vcpu.run(0) == _core.MmioWrite(DATA, 4, 0xABCD)
    assert vcpu.registers()["rip"] == 0x100FFE
    assert vcpu.recent_code()


@pytest.mark.parametrize("enabled", [True, False])
def test_a20_wraps_physical_addresses(machine: _core.Machine, enabled: bool) -> None:
    machine.map_memory(0x100000, PAGE)
    machine.write(0x10, b"low!")
    machine.write(0x100010, b"high")
    # mov eax, [100010h]; mov [DATA], eax; jmp back
    machine.write(PAGE, bytes.fromhex("a110001000a300800000ebf4"))
    vcpu = machine.vcpu(0)
    boot(vcpu, PAGE)
    expected = {True: b"high", False: b"low!"}
    for state in (not enabled, enabled):
        machine.a20(state)
        value = int.from_bytes(expected[state], "little")
        assert vcpu.run() == _core.MmioWrite(DATA, 4, value)


def test_a_map_may_change_while_a_processor_waits(machine: _core.Machine) -> None:
    machine.write(PAGE, b"\xf4\xeb\xfd")
    boot(machine.vcpu(0), PAGE)
    with running(machine.vcpu(0)):
        for _ in range(50):
            machine.map_memory(0x100000, PAGE)
            machine.unmap(0x100000, PAGE)
