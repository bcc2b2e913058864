import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from unittest import mock

import click
import pytest

from ringfence import errors
from ringfence.cli import app

COMMANDS = [
    ("run",),
    ("image",),
    ("image", "ls"),
    ("image", "pull"),
    ("image", "rm"),
    ("doctor",),
    ("completion",),
]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.invoke(["--version"]) == 0
    assert capsys.readouterr().out == f"ringfence {version('ringfence')}\n"


@pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
def test_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.invoke([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(" ".join(("Usage: ringfence", *command)))
    assert "..." not in out.replace("COMMAND...", "").replace("[ARGS]...", "").replace(
        "NAME...", ""
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_option_has_a_help(command: tuple[str, ...]) -> None:
    found: click.Command | None = app.cli
    for name in command:
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), name)
    assert found
    assert found.help
    for parameter in found.params:
        assert isinstance(parameter, click.Argument) or parameter.help  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "arguments", [["--nonsense"], ["fly"], ["run", "a", "b"], ["run", "--"], ["image", "rm"]]
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app.invoke(arguments) == 2
    assert "Usage: ringfence" in capsys.readouterr().err


def invoke(action: Callable[[], object]) -> int:
    with mock.patch.object(app, "_run", side_effect=lambda _: action()):
        return app.invoke([])


def failing(error: BaseException) -> Callable[[], object]:
    return mock.Mock(side_effect=error)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.GuestPanic("Kernel panic"), 120),
        (errors.GuestShutdown("triple fault"), 121),
        (errors.GuestOutOfMemory("out of memory"), 122),
        (errors.GuestStopped("gone"), 123),
        (errors.GuestTimeout("late"), 124),
        (errors.ImageNotFound("no image"), 66),
        (errors.ConfigError("bad"), 2),
        (errors.EngineError("defect"), 70),
    ],
)
def test_errors_are_one_line_and_a_status(
    error: errors.RingfenceError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(failing(error)) == status
    assert capsys.readouterr().err == f"error: {error}\n"


def test_guests_last_words_are_shown_without_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console = "".join(f"line {n}\n" for n in range(100)) + "\x1b]0;owned\x07end"
    assert invoke(failing(errors.GuestPanic("panic \x1b[2J", console=console))) == 120
    err = capsys.readouterr().err
    assert "line 99" in err
    assert "line 10\n" not in err
    assert "\x1b]" not in err
    assert "\x1b[2J" not in err


def test_triple_fault_shows_the_processor(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.GuestShutdown("triple fault", registers={"rip": 0x1234}, disassembly=["int3"])
    invoke(failing(error))
    err = capsys.readouterr().err
    assert "rip=0000000000001234" in err
    assert "int3" in err


def test_interrupt() -> None:
    assert invoke(failing(KeyboardInterrupt())) == 130


def test_broken_pipe_is_quiet_in_a_pipeline() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ringfence.cli", "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout
    process.stdout.close()
    assert process.stderr
    assert process.stderr.read() == b""
    assert process.wait(20) == 128 + signal.SIGPIPE
    process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_unwind_and_give_their_status(number: signal.Signals) -> None:
    cleaned = []

    def action() -> None:
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            cleaned.append(True)

    before = signal.getsignal(number)
    assert invoke(action) == 128 + number
    assert cleaned == [True]
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.invoke(["completion", shell]) == 0
    assert "_RINGFENCE_COMPLETE" in capsys.readouterr().out


def test_completion_of_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ringfence.cli"],
        env={
            **os.environ,
            "_RINGFENCE_COMPLETE": "bash_complete",
            "COMP_WORDS": "ringfence image p",
            "COMP_CWORD": "2",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "plain,pull\n"


def test_start_up_imports_little() -> None:
    script = "import sys, ringfence.cli.app; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.split())
    assert not modules & {"asyncio", "importlib.metadata", "rich", "typing_extensions"}
    assert {name for name in modules if name.startswith("ringfence.")} <= {
        "ringfence.cli",
        "ringfence.cli.app",
        "ringfence.cli.lazy",
        "ringfence.cli.signals",
        "ringfence.errors",
    }
