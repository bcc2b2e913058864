"""Machines whose time is the number of executed instructions."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence import VM, EngineError
from ringfence.machine import MachineState
from ringfence.testing import pvh_kernel
from ringfence.testing.lockstep import lockstep
from support import guests

#: Where Debian has booted, which takes some 470 million, and the shell has answered.
FAR = 560_000_000


def boot(memory: str = "128M", **options: object) -> VM:
    return VM("debian", deterministic=True, memory=memory, **options).prepare()  # type: ignore[arg-type]


Maker = Callable[..., VM]


@pytest.fixture
def small(tmp_path: Path) -> Maker:
    """Makes a deterministic machine that owns a few bytes of code."""

    def make(code: bytes, **options: object) -> VM:
        kernel = tmp_path / "kernel"
        kernel.write_bytes(pvh_kernel(code))
        return VM(kernel=kernel, deterministic=True, memory="64M", **options).prepare()  # type: ignore[arg-type]

    return make


def final(vm: VM, instructions: int) -> tuple[bool, int, str, int]:
    reached = vm.run_to(instructions)
    time = vm.machine.nanoseconds
    result = reached, vm.instructions, vm.memory_hash(), time
    vm.stop()
    assert vm.memory_hash() == result[2], "the hash stays when the machine ends"
    return result


def test_two_boots_are_the_same(debian: str) -> None:
    def run() -> tuple[bool, int, str, int]:
        vm = boot(shell=True)
        vm.type_at(470_000_000, "echo $((6 * 7))\n")
        vm.run_to(FAR)
        assert "42" in vm.console.tail(200), "what is typed at an instruction is a part of the run"
        return final(vm, FAR + 1)

    first = run()
    assert first == run()
    assert first[:2] == (True, FAR + 1)


def test_stops_change_nothing_and_the_seed_does(debian: str) -> None:
    at = 105_000_000
    vm = boot()
    for instructions in (1, 1000, 99_999_999, 103_000_001, at - 1):
        assert vm.run_to(instructions)
        assert vm.instructions == instructions
    stopped = final(vm, at)
    assert stopped == final(boot(), at)
    assert stopped != final(boot(seed=1), at)


def test_translated_code_does_what_the_interpreter_does(debian: str) -> None:
    difference = lockstep(boot, until=3_000_000, memory_step=3_000_000)
    assert difference is None, str(difference)
    # From unpacking into the kernel's first initializations.
    difference = lockstep(boot, start=100_000_000, until=104_000_000, memory_step=4_000_000)
    assert difference is None, str(difference)
    # The first programs: system calls, page faults, access to user pages.
    difference = lockstep(boot, start=440_000_000, until=443_000_000, memory_step=3_000_000)
    assert difference is None, str(difference)


@pytest.mark.soak
def test_ten_boots_are_the_same(debian: str) -> None:
    assert len({final(boot(), 600_000_000) for _ in range(10)}) == 1


@pytest.mark.soak
def test_a_whole_boot_in_lockstep(debian: str) -> None:
    difference = lockstep(boot, until=500_000_000, memory_step=50_000_000)
    assert difference is None, str(difference)


def test_a_halted_machine_without_timers_waits(small: Maker) -> None:
    vm = small(bytes.fromhex("f4 ebfd"))
    assert vm.run_to(1)
    vm.resume()
    assert vm.machine.join(0.2) is None
    vm.pause()
    assert vm.instructions == 1
    vm.stop()


def test_counts_are_exact_in_loops_and_repeated_instructions(small: Maker) -> None:
    # mov ecx, 1000; 1: dec ecx; jnz 1b; mov ecx, 64; mov edi, 200000h; rep stosb; jmp $
    code = bytes.fromhex("b9e8030000 49 75fd b940000000 bf00002000 f3aa ebfe")
    vm = small(code)
    assert vm.run_to(2001)
    assert vm.machine.processor is not None
    assert vm.machine.processor.registers()["rcx"] == 0
    assert vm.machine.processor.registers()["rip"] == 0x100008
    assert vm.run_to(2004)
    registers = vm.machine.processor.registers()
    assert (registers["rcx"], registers["rip"]) == (0, 0x100014)
    vm.stop()


def test_the_tsc_counts_instructions(small: Maker) -> None:
    # rdtsc; mov ebx, eax; nop; nop; rdtsc; sub eax, ebx; jmp $
    vm = small(bytes.fromhex("0f31 89c3 90 90 0f31 29d8 ebfe"))
    vm.run_to(100)
    assert vm.machine.processor is not None
    assert vm.machine.processor.registers()["rax"] == 4
    vm.stop()


def test_random_numbers_come_from_the_seed(small: Maker) -> None:
    def numbers(seed: int) -> tuple[int, int]:
        # rdrand eax; rdrand ebx; jmp $
        vm = small(bytes.fromhex("0fc7f0 0fc7f3 ebfe"), seed=seed)
        vm.run_to(10)
        assert vm.machine.processor is not None
        registers = vm.machine.processor.registers()
        vm.stop()
        return registers["rax"], registers["rbx"]

    assert numbers(1) == numbers(1)
    assert numbers(1) != numbers(2)
    first, second = numbers(1)
    assert first != second


def test_a_machine_that_ends_keeps_its_count(small: Maker) -> None:
    def run() -> tuple[int, str]:
        vm = small(guests.LEAVE)
        assert not vm.run_to(1000)
        assert vm.state is MachineState.ENDED
        return vm.instructions, vm.memory_hash()

    assert run() == run()
    assert run()[0] >= 2


def test_other_machines_count_nothing(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(pvh_kernel(guests.SPIN))
    with VM(kernel=kernel) as vm, pytest.raises(EngineError, match="deterministic"):
        vm.run_to(10)
