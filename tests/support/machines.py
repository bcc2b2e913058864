"""A machine with no guest in it: its console is played by a few lines of Python."""

import sys
from threading import Thread

from ringfence.chars.stream import Stream


class FakeMachine:
    """Echoes what is typed, says when it is resized or paused, ends at Ctrl-D or ``poweroff``."""

    def __init__(self) -> None:
        self.deaf = 0  # how many Ctrl-D get lost
        self.console = Stream(limit=None)
        self.console.on_input(self._input)
        self.console.write(b"ready\r\n# ")

    def pause(self) -> None:
        self.console.write(b"<pause>")

    def resume(self) -> None:
        self.console.write(b"<resume>")

    def resize(self, rows: int, columns: int) -> None:
        self.console.write(f"<{rows}x{columns}>".encode())

    def stop(self) -> None:
        if not self.console.closed:
            self.console.write(b"<stop>")
        self.console.close()

    def _input(self) -> None:
        data = self.console.read(1 << 20)
        self.console.write(data)
        self.deaf -= data.count(b"\x04")
        if (b"\x04" in data and self.deaf < 0) or b"poweroff" in data:
            Thread(target=self.console.close).start()


def main() -> int:
    """Attaches a fake machine the way ``ringfence run`` attaches a real one."""
    from ringfence.cli.attach import attach_pipe, attach_terminal
    from ringfence.cli.signals import deferred
    from ringfence.cli.terminal import Terminal

    machine = FakeMachine()
    if sys.argv[1:] == ["fail"]:
        machine.resize = lambda rows, columns: 1 / 0  # type: ignore[method-assign]
    if sys.argv[1:] == ["deaf"]:
        machine.deaf = 2
    terminal = Terminal(0, 1)
    with deferred() as signals:
        if not sys.stdin.isatty():
            attach_pipe(machine, 0, 1, signals)
            return 0
        with terminal.raw():
            attach_terminal(machine, terminal, signals)
    return 0


if __name__ == "__main__":
    from unittest import mock

    from ringfence.cli import app

    with mock.patch.object(app, "_run", side_effect=lambda _: main()):
        sys.exit(app.invoke([]))
