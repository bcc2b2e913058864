"""A program on a pseudo-terminal, and a hand at its keyboard."""

import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self


class PtyProcess:
    """Runs ``arguments`` with a new terminal as its controlling one."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        rows: int = 24,
        columns: int = 80,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.master, self.slave = os.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        self._position = 0
        self.process = subprocess.Popen(
            arguments,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, "TERM": "xterm", **(env or {})},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, rows: int, columns: int) -> None:
        """Gives the terminal another size; the kernel sends SIGWINCH."""
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, data: bytes) -> None:
        """Types ``data``."""
        os.write(self.master, data)

    def expect(self, pattern: bytes, timeout: float = 10) -> re.Match[bytes]:
        """Waits for ``pattern`` in what was not yet matched."""
        limit = time.monotonic() + timeout
        while True:
            if match := re.search(pattern, self.seen[self._position :]):
                self._position += match.end()
                return match
            left = limit - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{pattern!r} not in {self.seen[self._position :]!r}")

    def wait(self, timeout: float = 10) -> int:
        """The exit status; reads on meanwhile, so that the program never blocks."""
        limit = time.monotonic() + timeout
        while self.process.poll() is None:
            if time.monotonic() > limit:
                raise AssertionError(f"still runs after {timeout} s: {self.seen[-500:]!r}")
            self._read(0.05)
        while self._read(0):
            pass
        assert self.process.returncode is not None
        return self.process.returncode

    def attributes(self) -> list[Any]:
        """The terminal's modes now."""
        return termios.tcgetattr(self.slave)

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], timeout)
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.seen += data
        return bool(data)
