"""A person at the console: types, waits for texts, and tells what it saw when one does not come."""

import re

from ringfence.chars import Console, Stream
from ringfence.errors import GuestTimeout

__all__ = ["ConsoleDriver"]


class ConsoleDriver:
    """Types and reads on a console.

    >>> with VM("debian", shell=True) as vm:  # doctest: +SKIP
    ...     user = ConsoleDriver(vm.console, prompt="# ")
    ...     user.expect_prompt(timeout=60)
    ...     assert user.command("echo $((6 * 7))") == "42"

    Args:
        console: The console's stream.
        prompt: What its shell prints when it waits for a command.
        timeout: How long to wait for a text, in seconds, unless told otherwise.
    """

    def __init__(
        self,
        console: Console | Stream,
        *,
        prompt: str | re.Pattern[str] = "# ",
        timeout: float = 30.0,
    ) -> None:
        self.console = console
        self.prompt = prompt
        self.timeout = timeout
        #: Everything that was matched so far.
        self.transcript = ""

    def type(self, text: str) -> None:
        """Types ``text``."""
        self.console.send(text)

    def line(self, text: str = "") -> None:
        """Types ``text`` and Enter."""
        self.console.send(text + "\r")

    def key(self, name: str) -> None:
        """Presses a control key by its letter: ``key("c")`` is Ctrl-C."""
        self.console.send(bytes([ord(name.upper()) & 0x1F]))

    def expect(self, text: str | re.Pattern[str], timeout: float | None = None) -> str:
        """Waits for ``text`` (a pattern: a match of it); returns the output up to its end.

        Raises:
            GuestTimeout: it did not come; the message holds what was seen instead.
            GuestStopped: the machine ended before it came.
        """
        seen = self.console.expect(text, self.timeout if timeout is None else timeout)
        self.transcript += seen
        return seen

    def expect_any(self, *texts: str, timeout: float | None = None) -> tuple[int, str]:
        """Waits for the first of ``texts``; returns its index and the output up to its end.

        Raises:
            GuestTimeout: none came.
        """
        pattern = re.compile("|".join(re.escape(text) for text in texts))
        seen = self.expect(pattern, timeout)
        return next(index for index, text in enumerate(texts) if seen.endswith(text)), seen

    def expect_prompt(self, timeout: float | None = None) -> str:
        """Waits for the prompt."""
        return self.expect(self.prompt, timeout)

    def command(self, text: str, timeout: float | None = None) -> str:
        """Types a command at the prompt and returns its output, without echo and prompt."""
        self.line(text)
        self.expect(text, timeout)
        output = self.expect_prompt(timeout)
        match = re.search(self.prompt, output) if isinstance(self.prompt, re.Pattern) else None
        end = match.start() if match else len(output) - len(str(self.prompt))
        return output[:end].replace("\r\n", "\n").strip("\r\n")

    def expect_nothing(self, seconds: float) -> None:
        """Makes sure that nothing is printed for ``seconds``.

        Raises:
            GuestTimeout: something was, which the message shows.
        """
        seen = self.console.receive(seconds)
        if seen:
            text = seen.decode(errors="replace")
            raise GuestTimeout(f"{self.console.name}: expected silence, got {text!r}")
