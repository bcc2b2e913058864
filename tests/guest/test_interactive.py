"""``ringfence run`` with a person at the terminal."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.monitor import RINGFENCE, ringfence
from support.terminals import PtyProcess

BOOT = 90  # seconds
PROMPT = rb"# (\x1b\[\d*[A-Za-z])*$"


@pytest.fixture
def shell(debian: str) -> Iterator[PtyProcess]:
    with PtyProcess([*RINGFENCE, "run", debian], rows=33, columns=99) as process:
        process.expect(PROMPT, BOOT)
        yield process


def test_commands_size_and_power_off(shell: PtyProcess) -> None:
    shell.send(b"echo $((6*7)); stty size\r")
    shell.expect(rb"42\r\n33 99\r\n")
    shell.resize(44, 120)
    time.sleep(0.5)
    shell.send(b"stty size\r")
    shell.expect(rb"44 120\r\n")
    shell.send(b"poweroff\r")
    assert shell.wait(20) == 0
    assert shell.attributes() == shell.before


def test_reboot_starts_anew_with_the_same_size(shell: PtyProcess) -> None:
    shell.send(b"touch /tmp/old; reboot\r")
    shell.expect(rb"on Ringfence", BOOT)
    shell.expect(PROMPT, BOOT)
    shell.send(b"ls /tmp; stty size\r")
    assert b"old" not in shell.expect(rb"(?s)stty size\r\n(.*)33 99\r\n")[1]


def test_control_c_goes_to_the_guest(shell: PtyProcess) -> None:
    shell.send(b"sleep 1000\r")
    time.sleep(0.5)
    shell.send(b"\x03")
    shell.expect(PROMPT)
    shell.send(b"echo status $?\r")
    shell.expect(rb"status 130")


def test_pause_stops_the_guest(shell: PtyProcess) -> None:
    shell.send(b"\x01p")
    shell.expect(rb"paused")
    shell.send(b"echo $((6*7))\r")
    with pytest.raises(AssertionError):
        shell.expect(rb"42", 1)
    shell.send(b"\x01p")
    shell.expect(rb"42\r\n")


def test_quit(shell: PtyProcess) -> None:
    shell.send(b"\x01x")
    assert shell.wait(5) == 0
    assert shell.attributes() == shell.before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals(shell: PtyProcess, number: signal.Signals) -> None:
    shell.process.send_signal(number)
    assert shell.wait(5) == 128 + number
    assert shell.attributes() == shell.before


def test_end_of_input_at_the_shell_powers_off(shell: PtyProcess) -> None:
    shell.send(b"\x04")
    assert shell.wait(20) == 0


def test_script_on_a_pipe(debian: str) -> None:
    done = ringfence("run", debian, data=b"echo $((6*7))\n")
    assert done.returncode == 0, done.stderr
    assert b"42\r\n" in done.stdout


@pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")
def test_under_tmux(debian: str, tmp_path: Path) -> None:
    def tmux(*arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-S", tmp_path / "socket", "-f", "/dev/null", *arguments],
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    def await_line(text: str, limit: float) -> None:
        end = time.monotonic() + limit
        while text not in (lines := tmux("capture-pane", "-p").splitlines()):
            assert time.monotonic() < end, lines
            time.sleep(0.1)

    command = " ".join(RINGFENCE)
    tmux("new-session", "-d", "-x", "100", "-y", "30", "env PS1='$ ' sh")
    try:
        tmux("send-keys", f"stty -g > {tmp_path}/before; clear", "Enter")
        tmux("send-keys", f"{command} run {debian}; echo status $?", "Enter")
        await_line("~ #", BOOT)
        tmux("send-keys", "clear; stty size", "Enter")
        await_line("30 100", 10)
        tmux("send-keys", "poweroff", "Enter")
        await_line("status 0", 20)
        tmux("send-keys", f"stty -g > {tmp_path}/after; clear; echo intact", "Enter")
        await_line("intact", 10)
    finally:
        tmux("kill-server")
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()
