"""Registers, and the whole state of a processor: in and out, and from one engine to another."""

import itertools
from typing import Any

import pytest

from ringfence import _core
from support.engines import CODE, ENGINES, STACK, Guest, Maker

#: A processor that every engine can be.
CPU = "x86-64-v1,-x2apic,-tsc_deadline"
PAIRS = list(itertools.product(ENGINES, ENGINES))
LEAVE = "b05a e6f4"


@pytest.mark.parametrize("mode", [16, 32, 64])
def test_general_registers_come_back(guest: Guest, mode: int) -> None:
    guest.load(LEAVE, mode=mode)
    mask = (1 << mode) - 1
    values = {
        name: (0x0123456789ABCDEF * (index + 1)) & mask
        for index, name in enumerate(guest.vcpu.registers())
        if name not in ("rip", "rflags")
    }
    values |= {"rip": CODE, "rflags": 0x8D7}
    guest.vcpu.set_registers(values)
    assert guest.vcpu.registers() == values
    assert guest.until_out() == 0x5A
    assert guest.vcpu.registers()["rsi"] == values["rsi"]


def test_unnamed_registers_stay(guest: Guest) -> None:
    guest.load(LEAVE)
    before = guest.vcpu.registers()
    guest.vcpu.set_registers({"rbx": 77})
    assert guest.vcpu.registers() == {**before, "rbx": 77}


@pytest.mark.parametrize("mode", [16, 32, 64])
def test_system_registers_come_back(guest: Guest, mode: int) -> None:
    guest.load(LEAVE, mode=mode)
    values = guest.vcpu.system_registers()
    guest.vcpu.set_system_registers(values)
    assert guest.vcpu.system_registers() == values
    assert values["cs"]["base"] == 0
    assert values["cr0"] & 1 == (mode != 16)


def test_extended_state_reaches_the_guest(guest: Guest) -> None:
    # movd eax, xmm3; out F4h, eax; mov eax, 12345678h; movd xmm3, eax; out
    guest.load("660f7ed8 e7f4 b878563412 660f6ed8 e7f4", mode=64)
    image = bytearray(guest.vcpu.xsave())
    image[160 + 48 : 160 + 52] = bytes.fromhex("ddccbbaa")
    image[512] |= 3
    guest.vcpu.set_xsave(bytes(image))
    assert guest.until_out() == 0xAABBCCDD
    assert guest.until_out() == 0x12345678
    assert guest.vcpu.xsave()[160 + 48 : 160 + 52].hex() == "78563412"


@pytest.mark.parametrize("image", [b"", bytes(575), bytes(5000), b"\xff" * 4096])
def test_images_that_are_none_are_refused(guest: Guest, image: bytes) -> None:
    with pytest.raises(_core.CoreError, match="XSAVE image"):
        guest.vcpu.set_xsave(image)


def test_there_is_no_state_in_the_middle_of_an_instruction(guest: Guest) -> None:
    guest.load("e410" + LEAVE)
    assert guest.run() == _core.PortIn(0x10, 1)
    with pytest.raises(_core.CoreError, match="waits for a device") as error:
        guest.vcpu.state()
    assert error.value.code == "bad_state"
    assert guest.run(1) == _core.PortOut(0xF4, 1, 0x5A)


def test_state_after_an_exit_that_needs_no_answer(guest: Guest) -> None:
    guest.load("e7f4" + LEAVE)
    guest.run()
    state = guest.vcpu.state()
    assert state["registers"]["rip"] == CODE + 2
    guest.vcpu.set_state(state)
    assert guest.until_out() == 0x5A


def test_a_state_that_lacks_something_is_refused(guest: Guest) -> None:
    state = guest.vcpu.state()
    for name in state:
        with pytest.raises(_core.CoreError, match=f'the state has no "{name}"'):
            guest.vcpu.set_state({key: value for key, value in state.items() if key != name})


def moved(make: Maker, pair: tuple[str, str]) -> tuple[Guest, Guest]:
    """A guest on one engine, and one of the same memory on another, not yet run."""
    first, second = (make(name, cpu=CPU) for name in pair)
    return first, second


def move(first: Guest, second: Guest) -> dict[str, Any]:
    """Has the second go on where the first stopped."""
    second.machine.write(0, first.machine.read(0, 0x10000))
    state = first.vcpu.state()
    second.vcpu.set_state(state)
    return state


@pytest.mark.parametrize("pair", PAIRS, ids="-to-".join)
@pytest.mark.parametrize("mode", [16, 32, 64])
def test_another_engine_goes_on(make: Maker, pair: tuple[str, str], mode: int) -> None:
    first, second = moved(make, pair)
    # mov al, 17; l: add ah, al; dec al; out F4h, al; jnz l; mov al, ah; out F5h, al
    first.load("b011 00c4 fec8 e6f4 75f8 88e0 e6f5", mode=mode)
    for left in range(16, 8, -1):
        assert first.until_out() == left
    move(first, second)
    for left in range(8, -1, -1):
        assert second.until_out() == left
    assert second.until_out(0xF5) == sum(range(18))


@pytest.mark.parametrize("pair", PAIRS, ids="-to-".join)
def test_all_register_sets_move(make: Maker, pair: tuple[str, str]) -> None:
    first, second = moved(make, pair)
    # mov ecx, LSTAR; mov eax, 1234h; xor edx, edx; wrmsr; fldpi; movd xmm7, eax; push 51h
    first.load(
        "b9820000c0 b834120000 31d2 0f30 d9eb 660f6ef8 6a51 e7f4"
        # rdmsr; out F4h, eax; movd eax, xmm7; out F4h, eax; pop rax; out F4h, eax
        # fldpi; fcomip st0, st1; setz al; out F4h, al
        "b9820000c0 0f32 e7f4 660f7ef8 e7f4 58 e7f4 d9eb dff1 0f94c0 e6f4",
        mode=64,
    )
    first.until_out()
    first.vcpu.set_system_registers({"cr2": 0xFFFF8000_00001000})
    state = move(first, second)
    assert second.vcpu.system_registers()["cr2"] == 0xFFFF8000_00001000
    assert state["registers"]["rsp"] == STACK - 8
    assert second.until_out() == 0x1234
    assert second.until_out() == 0x1234
    assert second.until_out() == 0x51
    assert second.until_out() == 1


@pytest.mark.parametrize("pair", PAIRS, ids="-to-".join)
def test_a_state_comes_back_unchanged(make: Maker, pair: tuple[str, str]) -> None:
    first, second = moved(make, pair)
    first.load("e7f4", mode=64)
    first.until_out()
    state = move(first, second)
    back = second.vcpu.state()
    shared = set(state["msrs"]) & set(back["msrs"])
    assert {0xC0000081, 0xC0000082, 0x277, 0x174} <= shared
    for one in (state, back):
        one["msrs"] = {index: one["msrs"][index] for index in shared}
        # The legacy region without what FXSAVE leaves alone, and no more. MXCSR_MASK, bytes 28 to
        # 31, is a property of the processor that wrote it.
        one["xsave"] = one["xsave"][:28], one["xsave"][32:416]
        # Bit 0, which says that the descriptor was used, is set by some when it is loaded.
        for name in ("ldtr", "tr"):
            one["system_registers"].pop(name)
    assert back == state


@pytest.mark.parametrize("pair", PAIRS, ids="-to-".join)
def test_a_halted_processor_stays_halted(make: Maker, pair: tuple[str, str]) -> None:
    first, second = moved(make, pair)
    first.load("f4" + LEAVE)
    waiting = first.in_thread()
    while "halted" not in activity(first, waiting):
        waiting = first.in_thread()
    state = move(first, second)
    assert state["activity"] == "halted"
    assert state["registers"]["rip"] == CODE + 1
    assert second.vcpu.state()["activity"] == "halted"


def activity(guest: Guest, running: Any) -> str:
    running.stop()
    assert running.leaving == _core.Interrupted()
    return str(guest.vcpu.state()["activity"])


def test_single_steps(guest: Guest) -> None:
    # mov al, 1; add al, 2; out F4h, al; mov al, 9
    guest.load("b001 0402 e6f4 b009", mode=32)
    guest.vcpu.set_debugging(single_step=True)
    assert guest.run() == _core.Debug(CODE + 2)
    assert guest.run() == _core.Debug(CODE + 4)
    assert guest.vcpu.registers()["rax"] & 0xFF == 3
    assert guest.run() == _core.PortOut(0xF4, 1, 3)
    guest.vcpu.set_debugging()
    guest.machine.write(CODE + 8, bytes.fromhex(LEAVE.replace(" ", "")))
    assert guest.until_out() == 0x5A


def test_breakpoints(guest: Guest) -> None:
    # mov al, 3; l: inc ah; dec al; jnz l; then leave
    guest.load("b003 fec4 fec8 75fa" + LEAVE, mode=32)
    guest.vcpu.set_debugging(breakpoints=[CODE + 4])
    for count in range(1, 4):
        assert guest.run() == _core.Debug(CODE + 4)
        assert guest.vcpu.registers()["rax"] >> 8 == count
    assert guest.until_out() == 0x5A
    with pytest.raises(_core.CoreError, match="four breakpoints"):
        guest.vcpu.set_debugging(breakpoints=[1, 2, 3, 4, 5])


def test_code_around_the_last_instruction(guest: Guest) -> None:
    guest.load("ebfe", mode=32)
    guest.vcpu.interrupt()
    guest.run()
    assert "00001000  ebfe" in guest.vcpu.recent_code()[-1]
