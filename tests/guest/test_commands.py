"""``ringfence run IMAGE -- COMMAND`` on real guests: output, exit status, failures."""

import signal
import time
from pathlib import Path

import pytest

from support.monitor import ringfence, start

EAT_MEMORY = 'BEGIN { s = "x"; while (1) s = s s }'


def test_output_is_the_commands_alone(debian: str) -> None:
    done = ringfence("run", debian, "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 0)


@pytest.mark.parametrize(("script", "status"), [("false", 1), ("exit 42", 42), ("kill -9 $$", 137)])
def test_exit_status_is_the_commands(debian: str, script: str, status: int) -> None:
    done = ringfence("run", debian, "--", "sh", "-c", script)
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"", status)


def test_default_image_and_arguments_stay_whole(debian: str) -> None:
    done = ringfence("run", "--", "printf", "<%s>", "a b", "$HOME", "'", "")
    assert done.stdout == b"<a b><$HOME><'><>"


def test_verbose_shows_the_kernel(debian: str) -> None:
    done = ringfence("run", debian, "-v", "--", "true")
    assert done.returncode == 0
    assert b"Linux version 6." in done.stderr
    assert done.stdout == b""


def test_output_of_some_megabytes_is_whole(debian: str) -> None:
    done = ringfence("run", debian, "--", "sh", "-c", "seq 300000")
    assert done.stdout == b"".join(b"%d\n" % n for n in range(1, 300001))


def test_binary_output_is_unchanged(debian: str) -> None:
    script = r"printf '\000\001\n\r\003\004\177\377\n\000'"
    done = ringfence("run", debian, "--", "sh", "-c", script)
    assert done.stdout == b"\0\1\n\r\3\4\x7f\xff\n\0"


def test_panic(debian: str) -> None:
    done = ringfence("run", debian, "--", "sh", "-c", "echo c > /proc/sysrq-trigger")
    assert done.returncode == 120
    assert b"panic" in done.stderr.lower()


def test_out_of_memory(debian: str) -> None:
    done = ringfence("run", debian, "-m", "128M", "--", "awk", EAT_MEMORY)
    assert done.returncode == 122, done.stderr
    assert b"memory" in done.stderr.lower()


def test_timeout_of_a_command(debian: str) -> None:
    done = ringfence("run", debian, "--timeout", "6", "--", "sleep", "100")
    assert done.returncode == 124
    assert b"6 s" in done.stderr


def test_timeout_of_a_guest_that_spins(spin: Path) -> None:
    before = time.monotonic()
    done = ringfence("run", "--kernel", str(spin), "--timeout", "1")
    assert done.returncode == 124
    assert time.monotonic() - before < 5


def test_triple_fault(triple_fault: Path) -> None:
    done = ringfence("run", "--kernel", str(triple_fault))
    assert done.returncode == 121
    assert b"triple fault" in done.stderr
    assert b"rip=0000000000100" in done.stderr
    assert b"int3" in done.stderr


def test_power_off_before_the_command_ends(debian: str) -> None:
    done = ringfence("run", debian, "--", "sh", "-c", "poweroff -f; sleep 100")
    assert done.returncode == 123


def test_ctrl_c_stops_a_command(debian: str) -> None:
    with start(["run", debian, "--", "sh", "-c", "echo here; sleep 1000"]) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == b""


def test_broken_pipe_is_quiet(debian: str) -> None:
    with start(["run", debian, "--", "sh", "-c", "while :; do echo y; done"]) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(20) == 128 + signal.SIGPIPE
        assert process.stderr.read() == b""


def test_ten_at_once(debian: str) -> None:
    running = [
        start(["run", debian, "--memory", "128M", "--", "sh", "-c", f"echo guest {n}; exit {n}"])
        for n in range(10)
    ]
    for n, process in enumerate(running):
        out, err = process.communicate(timeout=150)
        assert (out, err, process.returncode) == (b"guest %d\n" % n, b"", n)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["run", "--kernel", "/nowhere"], 66),
        (["run", "no-such-image", "--", "true"], 66),
        (["run", "--memory", "much", "--", "true"], 2),
        (["run", "--memory", "1M", "--", "true"], 2),
        (["run", "--cpus", "0"], 2),
        (["run", "--nonsense"], 2),
    ],
)
def test_what_cannot_be_run(debian: str, arguments: list[str], status: int) -> None:
    done = ringfence(*arguments)
    assert done.returncode == status, done.stderr
    assert b"rror" in done.stderr
    assert b"Traceback" not in done.stderr
