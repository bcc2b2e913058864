"""The life of a machine, on an engine whose guest is a generator."""

import gc
import threading
import time
import weakref

import pytest

from ringfence.config import MachineConfig
from ringfence.errors import (
    EmulationError,
    EngineError,
    GuestOutOfMemory,
    GuestPanic,
    GuestShutdown,
    GuestTimeout,
    KernelError,
)
from ringfence.machine.exit import ExitReason
from ringfence.machine.machine import BootFiles, Machine, MachineState
from ringfence.testing import pvh_kernel
from support import fake_engine as fake
from support.guests import SPIN

KERNEL = pvh_kernel(SPIN)


def make(program: fake.Program, **options: object) -> tuple[Machine, fake.FakeEngine]:
    engine = fake.FakeEngine(program)
    config = MachineConfig.from_mapping({"kernel": "k", "memory": "64M", **options})
    return Machine(config, BootFiles(lambda: KERNEL), engine=engine), engine


def reason(machine: Machine) -> ExitReason:
    how = machine.join(10)
    assert how is not None, machine
    return how.reason


def test_prints_and_powers_off() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield from fake.say("hello\n")
        yield from fake.power_off()
        yield from fake.say("never said")

    machine, _ = make(guest)
    assert machine.state is MachineState.CREATED
    machine.start()
    how = machine.join(10)
    assert how is not None
    assert how.reason is ExitReason.POWER_OFF
    assert how.error() is None
    assert machine.state is MachineState.ENDED
    assert machine.console.receive() == b"hello\n"
    assert machine.console.receive() == b""
    assert how.console == "hello\n"


def test_memory_and_registers_are_set_up() -> None:
    machine, engine = make(
        lambda machine, index: fake.power_off(), memory="4G", cpus=3, cpu="EPYC,-avx"
    )
    machine.start()
    assert reason(machine) is ExitReason.POWER_OFF
    built = engine.machines[0]
    assert built.mapped == [
        (0, 0xA0000),
        (0xE0000, 0x20000),
        (0x100000, (3 << 30) - 0x100000),
        (4 << 30, 1 << 30),
    ]
    assert built.written[0xE0000].startswith(b"RSD PTR ")
    assert built.cpus[0].values["rip"] == 0x100000
    assert built.cpus[0].system["cr0"] == 0x11
    assert not built.cpus[1].values
    assert engine.cpus == ["EPYC,-avx"]


def test_output_arrives_without_an_end() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield from fake.say("prompt> ")
        while True:
            yield None

    machine, _ = make(guest)
    machine.start()
    assert machine.console.expect("prompt> ", timeout=5) == "prompt> "
    machine.stop()
    assert reason(machine) is ExitReason.STOPPED


def test_input_is_echoed() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        line = yield from fake.hear_line()
        yield from fake.say(line.upper() + b"!")
        yield from fake.power_off()

    machine, _ = make(guest)
    machine.start()
    machine.console.send("x" * 1000 + "\n")
    assert machine.console.expect("!", 10) == "X" * 1000 + "!"
    assert reason(machine) is ExitReason.POWER_OFF


def test_pause_and_resume_of_all_processors() -> None:
    counts = [0, 0, 0]

    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        while True:
            counts[index] += 1
            time.sleep(0)  # a real engine lets go of the interpreter
            yield fake.PortIn(0x3FD)

    machine, _ = make(guest, cpus=3)
    machine.start()
    for _ in range(5):
        machine.pause()
        assert machine.state is MachineState.PAUSED
        before = list(counts)
        time.sleep(0.03)
        assert counts == before
        assert all(entry["runs"] > 0 for entry in machine.statistics())
        machine.resume()
        deadline = time.monotonic() + 10
        while any(now == then for now, then in zip(counts, before, strict=True)):
            assert time.monotonic() < deadline, "a processor does not go on"
            time.sleep(0.001)
    machine.stop()
    assert reason(machine) is ExitReason.STOPPED
    assert len(machine.statistics()) == 3


def test_stop_while_paused() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        while True:
            yield fake.PortIn(0x3FD)

    machine, _ = make(guest, cpus=2)
    machine.start()
    machine.pause()
    machine.stop()
    assert machine.state is MachineState.ENDED


def test_stop_before_start_and_twice() -> None:
    machine, _ = make(lambda machine, index: fake.power_off())
    machine.stop()
    machine.stop()
    assert reason(machine) is ExitReason.STOPPED
    with pytest.raises(EngineError, match="ended"):
        machine.start()


@pytest.mark.parametrize(
    "exits",
    [
        [fake.PortOut(0xCF9, 6)],
        [fake.PortOut(0x64, 0xFE)],
        [fake.PortOut(0x92, 1)],
    ],
    ids=["reset-control", "keyboard-controller", "system-control"],
)
def test_reset_starts_anew(exits: list[fake.PortOut]) -> None:
    boots = 0

    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        nonlocal boots
        boots += 1
        yield from fake.say(f"boot {boots}\n")
        if boots < 3:
            yield from exits
        yield from fake.power_off()

    machine, engine = make(guest)
    machine.start()
    assert reason(machine) is ExitReason.POWER_OFF
    assert machine.boots == 3
    assert len(engine.machines) == 3
    assert machine.console.receive() == b"boot 1\nboot 2\nboot 3\n"


def test_input_goes_to_the_new_boot() -> None:
    boots = 0

    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        nonlocal boots
        boots += 1
        if boots == 1:
            yield fake.PortOut(0xCF9, 6)
        yield from fake.say("ready\n")
        line = yield from fake.hear_line()
        yield from fake.say(line)
        yield from fake.power_off()

    machine, _ = make(guest)
    machine.start()
    machine.console.expect("ready", 5)
    machine.console.send("to you\n")
    machine.console.expect("to you", 5)
    assert reason(machine) is ExitReason.POWER_OFF


def test_reset_stops_when_told_to() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield fake.PortOut(0xCF9, 6)

    machine, _ = make(guest, on_reboot="stop")
    machine.start()
    assert reason(machine) is ExitReason.RESET


def test_reset_with_several_processors_from_outside() -> None:
    machine, engine = make(lambda machine, index: iter(()), cpus=4)  # type: ignore[arg-type]
    machine.start()
    for count in range(2, 6):
        machine.reset()
        deadline = time.monotonic() + 5
        while machine.boots < count and time.monotonic() < deadline:
            time.sleep(0.001)
        assert machine.boots == count
    machine.stop()
    assert len(engine.machines) == 5


def test_triple_fault_tells_state_and_code() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield fake.Shutdown()

    machine, _ = make(guest)
    machine.start()
    assert reason(machine) is ExitReason.SHUTDOWN
    assert machine.exit is not None
    error = machine.exit.error()
    assert isinstance(error, GuestShutdown)
    assert "triple fault at 0x100000" in str(error)
    report = error.report()
    assert "rip=0000000000100000" in report
    assert "cs: base=0 limit=ffffffff attributes=c09b selector=10" in report
    assert "int3" in report


def test_what_the_engine_can_not_do_tells_state_and_code() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        error = fake.FakeError("the engine can't execute xlatb: it has not learnt to")
        error.code = "emulation"
        raise error
        yield

    machine, _ = make(guest)
    machine.start()
    assert reason(machine) is ExitReason.EMULATION
    assert machine.exit is not None
    error = machine.exit.error()
    assert isinstance(error, EmulationError)
    assert "can't execute xlatb" in str(error)
    assert "rip=0000000000100000" in error.report()
    assert "int3" in error.report()


PANIC = "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs\r\n"


def test_panic_ends_the_machine_though_the_kernel_hangs() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield from fake.say(PANIC + "Call Trace:\r\n")
        while True:
            yield None

    machine, _ = make(guest)
    machine.start()
    assert reason(machine) is ExitReason.PANIC
    assert machine.exit is not None
    error = machine.exit.error()
    assert type(error) is GuestPanic
    assert "VFS: Unable to mount root fs" in str(error)
    assert "Call Trace" in error.console


def test_panic_that_reboots_is_a_panic() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield from fake.say(PANIC)
        yield fake.PortOut(0xCF9, 6)

    machine, engine = make(guest)
    machine.start()
    assert reason(machine) is ExitReason.PANIC
    assert len(engine.machines) == 1


def test_panic_for_want_of_memory() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield from fake.say("Kernel panic - not syncing: Out of memory: compulsory\n")
        yield from fake.say("---[ end Kernel panic - not syncing: Out of memory ]---\n")
        while True:
            yield None

    machine, _ = make(guest)
    before = time.monotonic()
    machine.start()
    assert reason(machine) is ExitReason.PANIC
    assert time.monotonic() - before < 0.4, "the end mark ends the wait"
    assert machine.exit is not None
    assert isinstance(machine.exit.error(), GuestOutOfMemory)


def test_debug_exit_has_a_status() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield fake.PortOut(0xF4, 7)

    machine, _ = make(guest)
    machine.start()
    assert reason(machine) is ExitReason.DEBUG_EXIT
    assert machine.exit is not None
    assert machine.exit.status == 7


def test_debug_console() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        assert (yield fake.PortIn(0xE9)) == 0xE9
        yield from fake.say("seen\n", 0xE9)
        yield from fake.power_off()

    machine, _ = make(guest)
    machine.start()
    assert reason(machine) is ExitReason.POWER_OFF
    assert machine.debug.receive() == b"seen\n"


def test_timeout() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        while True:
            yield fake.PortIn(0x3FD)

    machine, _ = make(guest, timeout=0.1)
    machine.start()
    assert reason(machine) is ExitReason.TIMEOUT
    assert machine.exit is not None
    error = machine.exit.error()
    assert isinstance(error, GuestTimeout)
    assert "0.1 s" in str(error)


def test_timeout_holds_over_resets() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield fake.PortOut(0xCF9, 6)

    machine, _ = make(guest, timeout=1)
    machine.start()
    assert reason(machine) is ExitReason.TIMEOUT
    assert machine.boots > 1


def test_engine_failure_is_told_with_its_cause() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield fake.PortIn(0x3FD)
        raise fake.FakeError("broken block")

    machine, _ = make(guest, cpus=2)
    machine.start()
    assert reason(machine) is ExitReason.FAILED
    assert machine.exit is not None
    error = machine.exit.error()
    assert isinstance(error, EngineError)
    assert "broken block" in str(error)
    assert isinstance(error.__cause__, fake.FakeError)


def test_unmapped_memory_and_hypercalls_harm_nobody() -> None:
    seen: list[int] = []

    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        seen.append((yield fake.MmioRead(0xB8000, 4)))
        yield fake.MmioWrite(0xB8000, 4, 1)
        yield fake.Hypercall()
        yield from fake.power_off()

    machine, engine = make(guest)
    machine.start()
    assert reason(machine) is ExitReason.POWER_OFF
    assert seen == [0xFFFFFFFF]
    assert engine.machines[0].cpus[0].values["rax"] == 2**64 - 1000


def test_damaged_kernel_is_refused_at_start() -> None:
    config = MachineConfig.from_mapping({"kernel": "k"})
    machine = Machine(
        config, BootFiles(lambda: b"no kernel"), engine=fake.FakeEngine(lambda *_: iter(()))
    )  # type: ignore[arg-type,return-value]
    with pytest.raises(KernelError):
        machine.start()


def test_power_button_raises_the_sci() -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield fake.PortOut(0xB2, 0xE1)
        yield fake.PortOut(0x602, 0x100, 2)
        yield from fake.say("armed")
        while not (yield fake.PortIn(0x600, 2)) & 0x100:
            pass
        yield from fake.power_off()

    machine, engine = make(guest)
    machine.start()
    machine.console.expect("armed", 5)
    machine.power_button()
    assert reason(machine) is ExitReason.POWER_OFF
    assert (9, True) in engine.machines[0].lines


def test_nothing_stays_behind() -> None:
    before = threading.active_count()
    references = []
    gc.disable()
    try:
        for _ in range(5):
            machine, engine = make(lambda machine, index: fake.power_off())
            machine.start()
            assert reason(machine) is ExitReason.POWER_OFF
            references.append(weakref.ref(engine.machines.pop()))
            del engine
            deadline = time.monotonic() + 5
            while threading.active_count() > before and time.monotonic() < deadline:
                time.sleep(0.01)
        assert threading.active_count() <= before
        # The engine's memory is free though `machine` is still held, and without the collector.
        assert [reference() for reference in references] == [None] * 5
    finally:
        gc.enable()
