"""The compiled extension: conversions, error codes, threads. What guests do is tested elsewhere."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence import _core

PAGE = 0x1000
#: HLT; JMP to it.
IDLE_LOOP = bytes([0xF4, 0xEB, 0xFD])


@pytest.fixture
def machine() -> _core.Machine:
    machine = _core.Machine(vcpus=2)
    machine.map_memory(0, 16 * PAGE)
    return machine


def idle(vcpu: _core.Vcpu, machine: _core.Machine) -> None:
    """Makes the processor wait in real mode, interrupts disabled."""
    machine.write(PAGE, IDLE_LOOP)
    vcpu.set_system_registers({"cs": {"base": 0, "selector": 0}})
    vcpu.set_registers({"rip": PAGE, "rflags": 2})


def is_busy(vcpu: _core.Vcpu) -> bool:
    try:
        vcpu.registers()
    except _core.CoreError as error:
        return error.code == "busy"
    return False


def code_of(refused: Callable[[], object]) -> str:
    with pytest.raises(_core.CoreError) as error:
        refused()
    assert str(error.value)
    return error.value.code


@pytest.mark.parametrize("data", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_memory_is_written_from_any_buffer(machine: _core.Machine, data: bytes) -> None:
    machine.write(PAGE - 1, data)
    machine.fill(PAGE, 1, 0x58)
    assert machine.read(PAGE - 2, 5) == b"\0aXc\0"
    assert machine.read(0, 0) == b""


def test_memory_errors_have_codes(machine: _core.Machine) -> None:
    assert code_of(lambda: machine.map_memory(1, PAGE)) == "unaligned"
    assert code_of(lambda: machine.map_memory(15 * PAGE, 2 * PAGE)) == "overlap"
    assert code_of(lambda: machine.map_memory(1 << 40, 1 << 60)) == "out_of_memory"
    assert code_of(lambda: machine.read(16 * PAGE, 1)) == "unmapped"
    assert code_of(lambda: machine.read(0, 1 << 50)) == "unmapped"
    assert code_of(lambda: machine.write(16 * PAGE - 1, b"ab")) == "unmapped"
    assert code_of(lambda: machine.fill(0, 1 << 50)) == "unmapped"


def test_arguments_are_checked(machine: _core.Machine) -> None:
    assert code_of(lambda: _core.Machine("abacus")) == "unknown_engine"
    assert code_of(lambda: _core.Machine(vcpus=0)) == "bad_argument"
    assert code_of(lambda: _core.Machine(vcpus=65)) == "bad_argument"
    assert code_of(lambda: machine.vcpu(2)) == "bad_argument"
    assert code_of(lambda: machine.irq_line(24, True)) == "bad_argument"
    assert code_of(lambda: machine.vcpu(0).set_registers({"ax": 1})) == "bad_argument"
    assert code_of(lambda: machine.vcpu(0).set_system_registers({"cr1": 1})) == "bad_argument"
    assert code_of(lambda: machine.vcpu(0).set_xsave(b"short")) == "bad_state"
    with pytest.raises(OverflowError):
        machine.read(-1, 1)
    with pytest.raises(OverflowError):
        machine.vcpu(0).set_registers({"rax": 1 << 64})


def test_registers_are_set_by_name(machine: _core.Machine) -> None:
    vcpu = machine.vcpu(1)
    before = vcpu.registers()
    vcpu.set_registers({"r15": (1 << 64) - 1, "rip": 0x1234})
    assert vcpu.registers() == before | {"r15": (1 << 64) - 1, "rip": 0x1234}
    vcpu.set_system_registers({"ds": {"base": 0x500}, "cr2": 0xABC})
    system = vcpu.system_registers()
    assert system["ds"]["base"] == 0x500
    assert system["cr2"] == 0xABC
    assert system["ds"]["limit"] == 0xFFFF
    image = vcpu.xsave()
    vcpu.set_xsave(image)
    assert vcpu.xsave() == image


def test_a_machine_hands_out_its_own_processors(machine: _core.Machine) -> None:
    assert machine.vcpus == 2
    assert machine.vcpu(1) is machine.vcpu(1)
    assert [machine.vcpu(index).index for index in range(2)] == [0, 1]
    assert machine.tsc_hz == _core.host_tsc_hz() > 100_000_000
    assert machine.nanoseconds < machine.nanoseconds


def test_exits_compare_match_and_show_their_fields() -> None:
    exit_ = _core.MmioWrite(0xB8000, 2, 0x741)
    assert exit_ == _core.MmioWrite(address=0xB8000, size=2, value=0x741)
    assert exit_ != _core.MmioWrite(0xB8000, 2, 0x742)
    assert repr(exit_) == "MmioWrite(address=0xb8000, size=2, value=0x741)"
    assert len({_core.Halt(), _core.Halt(), _core.Shutdown()}) == 2
    match exit_:
        case _core.MmioWrite(address, size, value):
            assert (address, size, value) == (0xB8000, 2, 0x741)
        case _:
            pytest.fail("no match")
    with pytest.raises(AttributeError):
        exit_.size = 4  # type: ignore[misc]


def test_an_interrupt_before_run_makes_it_return_at_once(machine: _core.Machine) -> None:
    vcpu = machine.vcpu(0)
    idle(vcpu, machine)
    vcpu.interrupt()
    assert vcpu.run() == _core.Interrupted()


def test_a_running_processor_is_busy_until_it_is_interrupted(machine: _core.Machine) -> None:
    vcpu = machine.vcpu(0)
    idle(vcpu, machine)
    exits: list[_core.Exit] = []
    thread = threading.Thread(target=lambda: exits.append(vcpu.run()))
    thread.start()
    while not is_busy(vcpu):
        time.sleep(0.001)
    assert code_of(vcpu.run) == "busy"
    vcpu.interrupt()
    thread.join(10)
    assert exits == [_core.Interrupted()]
    assert PAGE <= vcpu.registers()["rip"] <= PAGE + len(IDLE_LOOP)


def test_a_machine_leaves_no_thread_behind() -> None:
    def threads() -> int:
        return sum(1 for _ in Path("/proc/self/task").iterdir())

    before = threads()
    machines = [_core.Machine() for _ in range(5)]
    assert threads() > before
    del machines
    # The host may show a thread that has ended for another moment.
    deadline = time.monotonic() + 5
    while threads() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize(("offset", "count"), [(0x2000, 256), (0x2E03, 300), (0x3FFE, 2)])
@pytest.mark.parametrize("down", [False, True])
def test_string_io_moves_all_elements(
    machine: _core.Machine, size: int, offset: int, count: int, down: bool
) -> None:
    """What REP INS reads is in memory, and what REP OUTS writes came from there, in order."""
    prefix = b"\x66" if size == 4 else b""
    code = bytes([0xF3]) + prefix + bytes([0x6C if size == 1 else 0x6D, 0xEB, 0xFE])
    machine.write(PAGE, code)
    machine.write(PAGE + 0x10, code.replace(b"\x6c", b"\x6e").replace(b"\x6d", b"\x6f"))
    sent = bytes(index * 7 & 0xFF for index in range(size * count))
    elements = [sent[at : at + size] for at in range(0, len(sent), size)]
    first = offset + (count - 1) * size if down else offset
    vcpu = machine.vcpu(0)
    registers = {"rdx": 0x1F0, "rcx": count, "rflags": 0x402 if down else 2}
    vcpu.set_system_registers({"cs": {"base": 0, "selector": 0}})

    def run(rip: int) -> tuple[bytes, int]:
        """Answers exits until the end; what was written, and how many exits there were."""
        vcpu.set_registers({**registers, "rip": rip, "rdi": first, "rsi": first})
        written, exits, at = b"", 0, 0
        answer: int | bytes = 0
        while vcpu.registers()["rcx"]:
            exits += 1
            match vcpu.run(answer):
                case _core.PortIn(0x1F0, length):
                    answer = int.from_bytes(sent[at : at + length], "little")
                    at += length
                case _core.PortInString(0x1F0, length, number):
                    answer = sent[at : at + length * number]
                    at += length * number
                case _core.PortOut(0x1F0, length, value):
                    written += value.to_bytes(length, "little")
                case _core.PortOutString(0x1F0, length, data):
                    assert len(data) % length == 0
                    written += data
            if exits > 2 * count:
                raise AssertionError("no end")
            # Completes the last access.
            if len(written) + at >= size * count:
                vcpu.interrupt()
                assert isinstance(vcpu.run(answer), _core.Interrupted)
        return written, exits

    _, exits = run(PAGE)
    expected = b"".join(reversed(elements)) if down else sent
    assert machine.read(offset, len(sent)) == expected
    assert vcpu.registers()["rdi"] == first + (-1 if down else 1) * size * count & 0xFFFF
    written, _ = run(PAGE + 0x10)
    assert written == (b"".join(elements))
    if not down:
        assert exits <= 4
