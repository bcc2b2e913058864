"""The facade and the guest agent, against a guest that speaks the agent's protocol."""

import base64
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence import (
    VM,
    CommandFailed,
    ConfigError,
    EngineError,
    GuestOutOfMemory,
    GuestPanic,
    GuestStopped,
    GuestTimeout,
    ImageError,
    ImageNotFound,
    KernelError,
    MachineState,
)
from ringfence.testing import pvh_kernel
from support import fake_engine as fake
from support.guests import SPIN

CONTROL, OUT, ERR = 0x2F8, 0x3E8, 0x2E8
#: Gets a script; gives what goes to standard output, to standard error, and the status.
Shell = Callable[[str], tuple[bytes, bytes, int]]


def agent(shell: Shell) -> fake.Program:
    """A guest whose init serves the protocol."""

    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        yield from fake.say("RINGFENCE-AGENT 1 READY\n", CONTROL)
        parts: dict[str, str] = {}
        while True:
            words = (yield from fake.hear_line(CONTROL)).decode().split()
            if words[0] == "PART":
                assert len(words[2]) <= 512
                parts[words[1]] = parts.get(words[1], "") + words[2]
                yield from fake.say(f"OK {words[1]}\n", CONTROL)
            elif words[0] == "RUN":
                nonce = words[1]
                out, err, status = shell(base64.b64decode(parts.pop(nonce)).decode())
                if status < 0:
                    yield from fake.power_off()
                yield from fake.say(f"EXIT {nonce} {status}\n", CONTROL)
                yield from fake.say(out + b"\0" + nonce.encode() + b"\0", OUT)
                yield from fake.say(err + b"\0" + nonce.encode() + b"\0", ERR)
            elif words[0] == "SIZE":
                yield from fake.say(f"{words[2]}x{words[3]}\n")
            elif words[0] == "HALT":
                yield from fake.power_off()

    return guest


def echo(script: str) -> tuple[bytes, bytes, int]:
    return script.encode(), b"", 0


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    path = tmp_path / "kernel"
    path.write_bytes(pvh_kernel(SPIN))
    return path


@pytest.fixture
def boot(kernel: Path) -> Iterator[Callable[..., VM]]:
    machines: list[VM] = []

    def start(program: fake.Program, **options: object) -> VM:
        vm = VM(kernel=kernel, memory="64M", **options)  # type: ignore[arg-type]
        machines.append(vm)
        return vm.start(engine=fake.FakeEngine(program))

    yield start
    for vm in machines:
        vm.stop()


def test_run(boot: Callable[..., VM]) -> None:
    vm = boot(agent(lambda script: (b"out " + script.encode(), b"err\xff", 3)))
    done = vm.run("uname -a")
    assert (done.stdout, done.stderr, done.exit_status) == ("out uname -a", "err\ufffd", 3)
    assert (done.stdout_bytes, done.stderr_bytes) == (b"out uname -a", b"err\xff")
    with pytest.raises(CommandFailed, match="status 3: err") as caught:
        done.check()
    assert caught.value.status == 3
    with pytest.raises(CommandFailed):
        vm.run("again", check=True)


def test_words_are_quoted_for_the_shell(boot: Callable[..., VM]) -> None:
    vm = boot(agent(echo))
    assert vm.run(["printf", "a b", "$HOME", "'", ""]).stdout == (
        "exec printf 'a b' '$HOME' ''\"'\"'' ''\n"
    )


@pytest.mark.parametrize("size", [0, 1, 383, 384, 385, 10_000])
def test_scripts_of_any_length(boot: Callable[..., VM], size: int) -> None:
    script = "é" * (size // 2) + "x" * (size % 2)
    assert boot(agent(echo)).run(script).stdout == (script or "\n")


@pytest.mark.parametrize(
    "output",
    [b"", b"\0", b"\0\0\0", b"\0abc", b"\r\n\x03\x04\xff" * 1000, bytes(range(256)) * 40],
    ids=["empty", "zero", "zeros", "like-a-mark", "control", "all"],
)
def test_output_is_exact(boot: Callable[..., VM], output: bytes) -> None:
    vm = boot(agent(lambda script: (output, output[::-1], 0)))
    for _ in range(2):
        done = vm.run("x")
        assert done.stdout_bytes == output
        assert done.stderr_bytes == output[::-1]


def test_streaming(boot: Callable[..., VM]) -> None:
    vm = boot(agent(lambda script: (b"o" * 20_000, b"e" * 50, 0)))
    out, err = bytearray(), bytearray()
    done = vm.run("x", stdout=out.extend, stderr=err.extend)
    assert (out, err) == (b"o" * 20_000, b"e" * 50)
    assert (done.stdout, done.stderr) == ("", "")


def test_process_is_read_bit_by_bit(boot: Callable[..., VM]) -> None:
    vm = boot(agent(lambda script: (b"o" * 5000, b"", 0)))
    process = vm.start_process("x")
    seen = bytearray()
    while not process.complete or process.output.data:
        seen += process.read(5)[0]
    assert seen == b"o" * 5000
    assert process.wait(5).exit_status == 0


def test_a_failing_sink_does_not_break_the_machine(boot: Callable[..., VM]) -> None:
    vm = boot(agent(echo))

    def sink(data: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        vm.run("x", stdout=sink)
    assert vm.run("y").stdout == "y"


def test_timeout_then_another_command(boot: Callable[..., VM]) -> None:
    gate = threading.Event()

    def shell(script: str) -> tuple[bytes, bytes, int]:
        if script == "slow":
            gate.wait(10)
        return script.encode(), b"", 0

    vm = boot(agent(shell))
    with pytest.raises(GuestTimeout, match=r"'slow' did not end within 0\.1 s"):
        vm.run("slow", timeout="100ms")
    with pytest.raises(GuestTimeout, match="'slow' still runs"):
        vm.run("quick", timeout=0.1)
    gate.set()
    assert vm.run("quick").stdout == "quick"


def test_guest_without_an_agent(boot: Callable[..., VM]) -> None:
    vm = boot(lambda machine, index: fake.say("no agent here"))
    with pytest.raises(GuestTimeout, match=r"not get ready(?s:.*)no agent here") as caught:
        vm.run("x", timeout=0.1)
    assert caught.value.console == "no agent here"


def test_power_off_before_the_end(boot: Callable[..., VM]) -> None:
    vm = boot(agent(lambda script: (b"", b"", -1)))
    with pytest.raises(GuestStopped, match="powered off before 'x' had finished"):
        vm.run("x")
    with pytest.raises(GuestStopped):
        vm.run("y")


def test_panic_before_the_end(boot: Callable[..., VM]) -> None:
    panic = "Kernel panic - not syncing: sysrq\n---[ end Kernel panic - not syncing ]---\n"
    vm = boot(lambda machine, index: fake.say(panic))
    with pytest.raises(GuestPanic, match="sysrq"):
        vm.run("x")
    with pytest.raises(GuestPanic, match="sysrq"):
        vm.wait()


def test_killed_for_want_of_memory(boot: Callable[..., VM]) -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        served = agent(lambda script: (b"", b"", 137))(machine, index)
        value = 0
        while True:
            exit_ = served.send(value) if value else next(served)
            if exit_.port == OUT and isinstance(exit_, fake.PortOut) and exit_.value == 0:
                yield from fake.say("[1] Out of memory: Killed process 7 (tail)\n")
            value = yield exit_

    vm = boot(guest)
    with pytest.raises(GuestOutOfMemory, match="killed 'tail'"):
        vm.run("tail")


def test_status_137_alone_is_no_lack_of_memory(boot: Callable[..., VM]) -> None:
    vm = boot(agent(lambda script: (b"", b"", 137)))
    assert vm.run("x").exit_status == 137


def test_stop_from_another_thread(boot: Callable[..., VM]) -> None:
    vm = boot(lambda machine, index: fake.say(""))
    threading.Timer(0.1, vm.stop).start()
    with pytest.raises(GuestStopped, match="stopped"):
        vm.run("x")
    assert vm.wait().reason == "stopped"


def test_shutdown_by_the_agent(boot: Callable[..., VM]) -> None:
    vm = boot(agent(echo))
    vm.run("x")
    assert vm.shutdown(5).reason == "power-off"


def test_shutdown_by_the_power_button(boot: Callable[..., VM]) -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        while not (yield fake.PortIn(0x601)):
            pass
        yield from fake.power_off()

    assert boot(guest).shutdown(5).reason == "power-off"


def test_size_waits_for_the_agent(boot: Callable[..., VM]) -> None:
    vm = boot(agent(echo))
    vm.resize(24, 80)
    assert vm.console.expect("80\n", 5).endswith("24x80\n")
    vm.resize(44, 132)
    assert vm.console.expect("132\n", 5).endswith("44x132\n")


def test_wait_limit(boot: Callable[..., VM]) -> None:
    vm = boot(agent(echo))
    with pytest.raises(GuestTimeout, match=r"within 0\.05 s"):
        vm.wait(0.05)
    assert vm.exit is None


def test_with_statement_and_repr(kernel: Path) -> None:
    vm = VM(kernel=kernel, memory="1536M", cpus=2)
    assert repr(vm) == "<VM kernel: created, 1536M, 2 processors, engine auto>"
    vm.start(engine=fake.FakeEngine(agent(echo)))
    with vm:
        assert vm.state is MachineState.RUNNING
        vm.pause()
        assert "paused" in repr(vm)
        vm.resume()
        with pytest.raises(EngineError, match="started before"):
            vm.start()
    assert repr(vm) == "<VM kernel: ended, 1536M, 2 processors, engine fake>"


def test_use_before_start(kernel: Path) -> None:
    vm = VM(kernel=kernel)
    for use in (lambda: vm.console, vm.pause, vm.wait, lambda: vm.run("x")):
        with pytest.raises(EngineError, match="not started"):
            use()
    vm.stop()


def test_wrong_descriptions(kernel: Path) -> None:
    for options in ({"memory": "much"}, {"cpus": 0}, {"timeout": "soon"}, {"engine": "warp"}):
        with pytest.raises(ConfigError):
            VM(kernel=kernel, **options)  # type: ignore[arg-type]


def test_files_that_cannot_be_booted(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"\x7fELF")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    engine = fake.FakeEngine(agent(echo))
    for path, error in [
        (tmp_path / "absent", ImageNotFound),
        (junk / "below", ImageNotFound),
        (tmp_path, KernelError),
        (fifo, KernelError),
        (Path("/dev/zero"), KernelError),
        (junk, KernelError),
    ]:
        started = time.monotonic()
        with pytest.raises(error):
            VM(kernel=path).start(engine=engine)
        assert time.monotonic() - started < 1
    good = tmp_path / "good"
    good.write_bytes(pvh_kernel(SPIN))
    with pytest.raises(ImageError, match="initial RAM disk"):
        VM(kernel=good, initrd=tmp_path / "absent").start(engine=engine)


def test_a_reset_boots_what_the_start_did(kernel: Path) -> None:
    boots = 0

    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        nonlocal boots
        boots += 1
        yield fake.PortOut(0xCF9, 6) if boots == 1 else fake.PortOut(0xF4, 1)

    vm = VM(kernel=kernel)
    engine = fake.FakeEngine(guest)
    vm.start(engine=engine)
    kernel.unlink()
    assert vm.wait(10).status == 1
    assert [machine.written[0x100000] for machine in engine.machines] == [SPIN, SPIN]


def test_a_reset_loses_the_command_but_not_the_next(boot: Callable[..., VM]) -> None:
    def guest(machine: fake.FakeMachine, index: int) -> fake.Guest:
        served = agent(echo)(machine, index)
        value, started = 0, False
        while True:
            exit_ = served.send(value) if started else next(served)
            started = True
            if isinstance(exit_, fake.PortOut) and exit_.port == OUT and exit_.value == ord("R"):
                exit_ = fake.PortOut(0xCF9, 6)
            value = yield exit_

    vm = boot(guest)
    for _ in range(2):
        with pytest.raises(GuestStopped, match="reset itself before 'some Reset' had finished"):
            vm.run("some Reset", timeout=10)
        assert vm.run("quiet", timeout=10).stdout == "quiet"
    assert vm.machine.boots == 3
