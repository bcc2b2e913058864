import os
import re
import signal
import subprocess
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringfence.cli
from support import machines
from support.terminals import PtyProcess

SCRIPT = machines.__file__
ENV = {
    "PYTHONPATH": os.pathsep.join(
        [
            str(Path(ringfence.cli.__file__).parents[2]),
            str(Path(machines.__file__).parents[1]),
        ]
    )
}


@pytest.fixture
def guest() -> Iterator[PtyProcess]:
    with PtyProcess([sys.executable, SCRIPT], rows=33, columns=99, env=ENV) as process:
        process.expect(b"<33x99>")
        yield process


def test_keys_pass_and_the_end_of_the_machine_is_ours(guest: PtyProcess) -> None:
    guest.send(b"hello \x03\x1a\x1c")
    guest.expect(rb"hello \x03\x1a\x1c")
    guest.send(b"poweroff")
    assert guest.wait() == 0
    assert guest.attributes() == guest.before


def test_window_size_follows(guest: PtyProcess) -> None:
    guest.resize(50, 132)
    guest.expect(b"<50x132>")


def test_escape_key(guest: PtyProcess) -> None:
    guest.send(b"\x01p")
    guest.expect(rb"(?s)<pause>.*\[paused|\[paused.*<pause>")
    guest.send(b"\x01p")
    guest.expect(rb"(?s)<resume>.*\[goes on|\[goes on.*<resume>")
    guest.send(b"\x01h")
    guest.expect(rb"Ctrl-A x ")
    guest.send(b"\x01\x01.")
    guest.expect(rb"\x01\.")
    guest.send(b"\x01x")
    guest.expect(rb"<stop>")
    assert guest.wait() == 0
    assert guest.attributes() == guest.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_stop_the_machine_and_restore_the_terminal(
    guest: PtyProcess, number: signal.Signals
) -> None:
    guest.process.send_signal(number)
    guest.expect(rb"<stop>")
    assert guest.wait() == 128 + number
    assert guest.attributes() == guest.before


def test_terminal_is_restored_after_kill(guest: PtyProcess) -> None:
    guest.process.kill()
    assert guest.wait() == -signal.SIGKILL
    guest.expect(re.escape(b"\x1b[?25h"))  # the guard's last words
    assert guest.attributes() == guest.before


def test_terminal_is_restored_after_an_exception() -> None:
    with PtyProcess([sys.executable, SCRIPT, "fail"], env=ENV) as process:
        process.expect(rb"ZeroDivisionError")
        assert process.wait() == 1
        assert process.attributes() == process.before


def test_alternate_screen_is_left(guest: PtyProcess) -> None:
    guest.send(b"\x1b[?1049h")
    guest.expect(rb"\x1b\[\?1049h")
    guest.send(b"\x01x")
    guest.wait()
    guest.expect(rb"\x1b\[\?1049l")


def test_answer_to_a_late_question_does_not_reach_the_shell(guest: PtyProcess) -> None:
    guest.send(b"\x1b[6n")
    guest.send(b"poweroff")
    guest.expect(rb"\x1b\[6npoweroff")
    time.sleep(0.1)
    guest.send(b"\x1b[24;80R")
    assert guest.wait() == 0
    tty.setraw(guest.slave, termios.TCSANOW)
    os.set_blocking(guest.slave, False)
    with pytest.raises(BlockingIOError):
        os.read(guest.slave, 100)


def run_piped(data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments],
        input=data,
        capture_output=True,
        env={**os.environ, **ENV},
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("data", "typed"),
    [(b"ls\n", b"ls\n\x04"), (b"ls", b"ls\n\x04"), (b"", b"\x04"), (b"\x01x\n", b"\x01x\n\x04")],
)
def test_pipe_is_typed_and_ends_with_ctrl_d(data: bytes, typed: bytes) -> None:
    done = run_piped(data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"ready\r\n# " + typed


def test_end_of_input_lasts() -> None:
    assert run_piped(b"ls\n", "deaf").stdout.count(b"\x04") == 3


def test_a_megabyte_passes_whole() -> None:
    data = os.urandom(1 << 20).replace(b"\x04", b"4").replace(b"poweroff", b"")
    done = run_piped(data + b"\n")
    assert done.stdout == b"ready\r\n# " + data + b"\n\x04"


def test_null_device_is_an_end_of_input() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, **ENV},
        timeout=20,
        check=False,
    )
    assert done.returncode == 0


def test_broken_pipe_is_quiet() -> None:
    process = subprocess.Popen(
        [sys.executable, SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **ENV},
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == b"ready\r\n"
    process.stdout.close()
    process.stdin.write(b"more\n" * 100)
    process.stdin.flush()
    assert process.wait(10) == 128 + signal.SIGPIPE
    assert process.stderr.read() == b""
    process.stdin.close()
    process.stderr.close()
