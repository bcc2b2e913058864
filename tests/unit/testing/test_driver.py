"""The console driver against a console that a few lines of Python play."""

import threading

import pytest

from ringfence.chars import Stream
from ringfence.errors import GuestTimeout
from ringfence.testing import ConsoleDriver


@pytest.fixture
def console() -> Stream:
    """Echoes lines, answers them, and prompts."""
    stream = Stream()
    typed = bytearray()

    def answer() -> None:
        typed.extend(stream.read(1000))
        while b"\r" in typed:
            line = bytes(typed[: typed.index(b"\r")])
            del typed[: len(line) + 1]
            stream.write(line + b"\r\n" + line.upper() + b"\r\nsecond\r\n# ")
        if typed == b"\x03":
            stream.write(b"^C\r\n# ")

    stream.on_input(lambda: threading.Timer(0.01, answer).start())
    stream.write(b"welcome\r\n# ")
    return stream


def test_dialogue(console: Stream) -> None:
    user = ConsoleDriver(console, timeout=5)
    assert user.expect_prompt() == "welcome\r\n# "
    assert user.command("echo hi") == "ECHO HI\nsecond"
    user.key("c")
    assert user.expect_any("never", "^C") == (1, "^C")
    assert user.transcript.startswith("welcome")


def test_timeout_shows_what_came(console: Stream) -> None:
    user = ConsoleDriver(console, timeout=0.05)
    with pytest.raises(GuestTimeout, match="welcome"):
        user.expect("login:")
    with pytest.raises(GuestTimeout, match="expected silence"):
        user.expect_nothing(0.05)
    user.expect_nothing(0.05)
