"""The terminal the user sits at: raw mode, size, and giving it back as it was.

``termios(3)`` and the control sequences of ECMA-48 and xterm. Left out: job control (Ctrl-Z goes to
the guest) and terminals that are not a ``tty``.
"""

import os
import re
import select
import signal
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock
from time import monotonic
from typing import Any

# What a guest's program may have left on: colours, mouse and focus reports, bracketed paste, a
# hidden cursor, no line wrap.
_RESET = (
    b"\x1b[0m\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[?7h"
)
_ENTER_ALTERNATE = b"\x1b[?1049h"
_LEAVE_ALTERNATE = b"\x1b[?1049l"

# Questions that a terminal answers as if the answer was typed, and how long it may take to, in
# seconds. Asked just before the end, the answer would reach the user's shell.
_QUESTIONS = re.compile(rb"\x1b\[(?:\?|>|=)?[0-9;]*[cn]")
_ANSWER = 0.3

# Ignored by the guard, so that a signal to the whole process group leaves it to do its work.
_GUARD_IGNORES = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGTSTP,
    signal.SIGTTOU,
    signal.SIGPIPE,
)


class Terminal:
    """A terminal by its input and output file descriptors.

    Args:
        input_fd: where keys come from; must be a ``tty`` for :meth:`raw`.
        output_fd: where the screen is.
    """

    def __init__(self, input_fd: int, output_fd: int) -> None:
        self.input_fd = input_fd
        self.output_fd = output_fd
        self._alternate = False
        self._column_zero = True
        self._asked = 0.0  # when the guest last asked the terminal something
        self._lock = Lock()  # the guest's output and our notices come from two threads

    def size(self) -> tuple[int, int] | None:
        """Rows and columns, or None where nobody knows."""
        for fd in (self.output_fd, self.input_fd):
            with suppress(OSError):
                columns, rows = os.get_terminal_size(fd)
                if rows and columns:
                    return rows, columns
        return None

    def write(self, data: bytes) -> None:
        """Writes all of ``data`` to the screen and notes what has to be undone at the end."""
        if data:
            with self._lock:
                self._write(data)

    def notice(self, text: str) -> None:
        """Writes a line of our own amid the guest's output; works in raw mode."""
        with self._lock:
            start = b"" if self._column_zero else b"\r\n"
            self._write(start + text.replace("\n", "\r\n").encode() + b"\r\n")

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Passes every key on unseen, Ctrl-C too; at the end the terminal is as it was.

        A guard process gives the terminal back even where this one is killed.
        """
        saved = termios.tcgetattr(self.input_fd)
        guard = _Guard(self.input_fd, saved)
        try:
            tty.setraw(self.input_fd, termios.TCSADRAIN)
            yield
        finally:
            with suppress(OSError):
                self._undo()
                self._await_answer()
            with suppress(termios.error):
                termios.tcsetattr(self.input_fd, termios.TCSAFLUSH, saved)
            guard.dismiss()

    def _await_answer(self) -> None:
        """Waits for an answer to the guest's last question, which restoring the modes discards."""
        while (left := self._asked + _ANSWER - monotonic()) > 0:
            if not select.select([self.input_fd], [], [], left)[0]:
                return
            if _ends_answer(os.read(self.input_fd, 4096)):
                return

    def _write(self, data: bytes) -> None:
        if _QUESTIONS.search(data):
            self._asked = monotonic()
        entered = data.rfind(_ENTER_ALTERNATE)
        left = data.rfind(_LEAVE_ALTERNATE)
        if entered != left:
            self._alternate = entered > left
        self._column_zero = data.endswith((b"\n", b"\r"))
        write_all(self.output_fd, data)

    def _undo(self) -> None:
        if os.isatty(self.output_fd) and os.environ.get("TERM") != "dumb":
            leave = _LEAVE_ALTERNATE if self._alternate else b""
            new_line = b"" if self._column_zero else b"\r\n"
            write_all(self.output_fd, leave + _RESET + new_line)


def _ends_answer(data: bytes) -> bool:
    """Whether keys, or the end of them, were an answer: ``ESC [ ... R``, ``n`` or ``c``."""
    return not data or data.endswith((b"R", b"n", b"c"))


class _Guard:
    """A child process that restores the terminal if its parent dies without doing so.

    Made before any thread is, since it forks.
    """

    def __init__(self, fd: int, saved: list[Any]) -> None:
        read_end, self._write_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._write_end)
                _stand_guard(read_end, fd, saved)
            finally:
                os._exit(0)
        os.close(read_end)

    def dismiss(self) -> None:
        """Sends the guard home; the terminal is in order."""
        with suppress(OSError):
            os.write(self._write_end, b".")
        os.close(self._write_end)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _stand_guard(read_end: int, fd: int, saved: list[Any]) -> None:
    for number in _GUARD_IGNORES:
        signal.signal(number, signal.SIG_IGN)
    if os.read(read_end, 1) == b"":  # the parent died
        termios.tcsetattr(fd, termios.TCSAFLUSH, saved)
        write_all(fd, _RESET + b"\r\n")


def write_all(fd: int, data: bytes) -> None:
    """Writes all of ``data``, in as many pieces as the other side takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
