"""The guest's first process, for real, in QEMU: on another monitor, so that ours is not tested."""

import shutil
import time
from collections.abc import Iterator

import pytest
from bench.agent import AgentError
from bench.platforms import QEMU, Qemu

from ringfence import images
from ringfence.errors import ImageError

pytestmark = [
    pytest.mark.guest,
    pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"needs {QEMU}"),
]


@pytest.fixture(scope="module")
def image() -> images.Image:
    """From the user's own store: this runs before the fixture that gives each test another."""
    try:
        return images.ensure("debian")
    except ImageError as error:
        pytest.skip(f"no image: {error}")


@pytest.fixture(scope="module")
def guest(image: images.Image) -> Iterator[Qemu]:
    assert image.initrd is not None
    with Qemu(image, image.initrd, memory="256M") as qemu:
        yield qemu


def run(guest: Qemu, script: str) -> tuple[int, bytes, bytes]:
    result = guest.agent.run(script, 30)
    return result.status, result.stdout, result.stderr


def test_output_error_and_status_are_apart(guest: Qemu) -> None:
    assert run(guest, "echo out; echo err >&2; exit 3") == (3, b"out\n", b"err\n")


def test_status_of_a_signal(guest: Qemu) -> None:
    assert run(guest, "kill -TERM $$")[0] == 128 + 15


def test_output_is_no_terminal_and_input_empty(guest: Qemu) -> None:
    assert run(guest, "[ -t 1 ] || [ -t 2 ] || cat") == (0, b"", b"")
    assert run(guest, "cd /; ls -d bin dev")[1] == b"bin\ndev\n"


def test_every_byte_arrives(guest: Qemu) -> None:
    script = 'i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %o $i)"; i=$((i+1)); done'
    assert run(guest, script)[1] == bytes(range(256))


def test_large_output(guest: Qemu) -> None:
    assert run(guest, "seq 20000")[1] == b"".join(b"%d\n" % n for n in range(1, 20001))


def test_long_script(guest: Qemu) -> None:
    lines = "\n".join(f"echo {n} 'Grüße'" for n in range(200))
    assert run(guest, lines)[1] == "".join(f"{n} Grüße\n" for n in range(200)).encode()


def test_empty_script_and_syntax_error(guest: Qemu) -> None:
    assert run(guest, "") == (0, b"", b"")
    assert run(guest, "if")[0] == 2


def test_scripts_have_a_session_and_a_home_of_their_own(guest: Qemu) -> None:
    script = (
        "read -r pid _ _ _ pgrp session _ </proc/$$/stat; "
        "echo $((pid == pgrp && pid == session)); pwd; echo $HOME"
    )
    assert run(guest, script) == (0, b"1\n/root\n/root\n", b"")


def test_system_is_set_up(guest: Qemu) -> None:
    script = (
        "hostname; stat -f -c %T /proc /sys /dev; ping -c 1 -W 5 127.0.0.1 >/dev/null && "
        "echo up; ls /dev/pts/ptmx; touch /tmp/x && echo tmp"
    )
    lines = run(guest, script)[1].decode().split()
    assert lines[0] == "ringfence"
    assert lines[-3:] == ["up", "/dev/pts/ptmx", "tmp"]
    assert "proc" in lines
    assert "sysfs" in lines


def test_commands_inherit_no_lines_of_the_agent(guest: Qemu) -> None:
    _, out, _ = run(guest, "ls /proc/$$/fd")
    assert {int(fd) for fd in out.split()} - {0, 1, 2, 10, 11} == set()


def test_window_size(guest: Qemu) -> None:
    agent = guest.agent
    agent.request("SIZE ab12 33 99", "OK ab12", time.monotonic() + 10)
    assert run(guest, "stty size </dev/ttyS0")[1] == b"33 99\n"


def test_background_process_does_not_hold_the_script_up(guest: Qemu) -> None:
    start = time.monotonic()
    assert run(guest, "sleep 60 & echo started")[1] == b"started\n"
    assert time.monotonic() - start < 20


def test_script_that_kills_everything_is_answered_for(guest: Qemu) -> None:
    assert run(guest, "echo before; kill -9 -1; sleep 30")[0] == 137
    for word in ("one", "two"):
        assert run(guest, f"echo {word}") == (0, f"{word}\n".encode(), b"")
    # The relays come back by themselves, as soon as the guest gets to it.
    both = "until [ $(ps | grep -c '[ ]cat$') = 2 ]; do sleep 0.1; done"
    assert run(guest, both)[0] == 0


def test_no_litter_and_no_zombies(guest: Qemu) -> None:
    for _ in range(20):
        run(guest, "true & true")
    script = "ls /run/ringfence | grep -v std | wc -l; ps -o stat | grep -c Z"
    files, zombies = run(guest, script)[1].split()
    assert int(files) <= 4  # of this script, and of one that is being cleared away
    assert int(zombies) <= 2


def test_other_requests_are_served_while_a_script_runs(guest: Qemu) -> None:
    agent = guest.agent
    done = time.monotonic() + 20
    agent.request("PART 77 c2xlZXAgMTAK", "OK 77", done)  # sleep 10
    agent.send("RUN 77")
    agent.request("SIZE 78 25 80", "OK 78", done)
    assert run(guest, "killall sleep")[0] == 0


@pytest.mark.parametrize("command", ["poweroff", "poweroff -f", "kill -USR2 1"])
def test_power_off(image: images.Image, command: str) -> None:
    assert image.initrd is not None
    with Qemu(image, image.initrd, memory="256M") as qemu:
        with pytest.raises(AgentError, match="ended"):
            qemu.agent.run(f"{command}; sleep 60", 30)
        assert qemu.wait(10) == 0
