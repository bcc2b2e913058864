r"""Runs commands in the guest through the agent in its init.

The protocol, version 1. Four serial lines: ttyS0 is the console, ttyS1 control, ttyS2 the standard
output and ttyS3 the standard error of commands; the latter three are raw and without echo. Lines
end with a line feed. ``<nonce>`` is a hexadecimal number that names a request.

When it is ready, the agent writes ``RINGFENCE-AGENT 1 READY`` on ttyS1. The host does not send
before. Then the host may send, on ttyS1:

``PART <nonce> <chunk>``
    A piece of a script: up to 512 characters of its base64 form, which the agent appends to those
    it has. It answers ``OK <nonce>``, and the host waits for that: a terminal holds 4 KiB.
``RUN <nonce>``
    Runs the script with ``sh``, standard input from ``/dev/null``. When it has ended, the agent
    writes the mark ``\0<nonce>\0`` (without a line feed) on ttyS2 and on ttyS3, and
    ``EXIT <nonce> <status>`` on ttyS1.
``SIZE <nonce> <rows> <columns>``
    Sets the window size of ttyS0.
``HALT``
    Powers the machine off.

The word ``ringfence.shell=1`` on the kernel's command line makes the agent start a shell on ttyS0;
when that ends, the machine powers off.
"""

import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition
from time import monotonic
from typing import Self

from ringfence.errors import (
    CommandFailed,
    GuestError,
    GuestOutOfMemory,
    GuestStopped,
    GuestTimeout,
    RingfenceError,
)
from ringfence.machine.exit import ExitReason
from ringfence.machine.machine import Machine, MachineState

__all__ = ["Agent", "Completed", "Process"]

_READY = "RINGFENCE-AGENT 1 READY"
_CHUNK = 512
#: How long a guest may take to get ready, in seconds.
BOOT_LIMIT = 300.0
_LONGEST_LINE = 4096
_KILLED = 128 + 9
_SHOWN = 2000

_ENDS = {
    ExitReason.POWER_OFF: "the machine powered off",
    ExitReason.RESET: "the machine reset itself",
    ExitReason.STOPPED: "the machine was stopped",
    ExitReason.DEBUG_EXIT: "the machine left by its debug-exit port",
}

Sink = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended."""

    command: str
    #: 0 to 255; 128 and more if a signal ended it.
    exit_status: int
    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output as text."""
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stderr(self) -> str:
        """Standard error as text."""
        return self.stderr_bytes.decode(errors="replace")

    def check(self) -> Self:
        """Itself.

        Raises:
            CommandFailed: the exit status is not 0.
        """
        if self.exit_status:
            said = self.stderr[-_SHOWN:].strip()
            raise CommandFailed(
                f"{self.command!r} ended with status {self.exit_status}"
                + (f": {said}" if said else ""),
                status=self.exit_status,
                stderr=said,
            )
        return self


class _Output:
    """What a command writes to one line, up to its mark."""

    def __init__(self, mark: bytes) -> None:
        self.data = bytearray()
        self.complete = False
        self._mark = mark
        self._held = b""

    def feed(self, data: bytes) -> None:
        """Takes bytes of the line; holds back what may be the beginning of the mark."""
        if self.complete:
            return
        text = self._held + data
        at = text.find(self._mark)
        if at >= 0:
            self.data += text[:at]
            self.complete = True
            return
        keep = min(len(self._mark) - 1, len(text))
        while keep and not self._mark.startswith(text[len(text) - keep :]):
            keep -= 1
        self.data += text[: len(text) - keep]
        self._held = text[len(text) - keep :]

    def take(self) -> bytes:
        """What has come since the last call."""
        data = bytes(self.data)
        self.data.clear()
        return data


class Process:
    """A command that runs in the guest."""

    def __init__(self, agent: "Agent", command: str, nonce: str) -> None:
        mark = b"\0" + nonce.encode() + b"\0"
        self.command = command
        self.nonce = nonce
        self.output = _Output(mark)
        self.errors = _Output(mark)
        self.status: int | None = None
        #: The machine was reset before it had ended.
        self.lost = False
        self._agent = agent
        self._kills = agent.machine.memory_kills

    def __repr__(self) -> str:
        state = "lost" if self.lost else "running"
        state = f"ended with {self.status}" if self.complete else state
        return f"<Process {self.command!r} {state}>"

    @property
    def complete(self) -> bool:
        """Whether it has ended and all its output is here."""
        return self.status is not None and self.output.complete and self.errors.complete

    def read(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """Standard output and error that came since the last call, waiting for some.

        Both are empty at the end, and when nothing came within ``timeout`` seconds.

        Raises:
            GuestError: the machine ended meanwhile.
        """
        self._agent.wait_for(
            lambda: bool(self.output.data or self.errors.data or self.complete or self.lost),
            timeout,
        )
        chunks = self._agent.take(self)
        if self.lost and not any(chunks):
            raise GuestStopped(
                f"the machine reset itself before {self.command!r} had finished",
                console=self._agent.machine.console.tail(),
            )
        return chunks

    def wait(
        self,
        timeout: float | None = None,
        *,
        stdout: Sink | None = None,
        stderr: Sink | None = None,
    ) -> Completed:
        """Waits for its end.

        Args:
            timeout: Seconds from now on.
            stdout: Gets standard output as it comes, which then is not in the result.
            stderr: The same for standard error.

        Raises:
            GuestTimeout: it did not end in time; it runs on.
            GuestOutOfMemory: the guest's kernel killed it for want of memory.
            GuestError: the machine ended before.
        """
        deadline = None if timeout is None else monotonic() + timeout
        collected = (bytearray(), bytearray())
        while True:
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0 and not self.complete:
                raise GuestTimeout(
                    f"{self.command!r} did not end within {timeout:g} s",
                    console=self._agent.machine.console.tail(),
                )
            done = self.complete
            try:
                chunks = self.read(left)
            except GuestError:
                # What it said until then is worth having.
                self._pass_on(self._agent.take(self), collected, (stdout, stderr))
                raise
            self._pass_on(chunks, collected, (stdout, stderr))
            if done:
                break
        assert self.status is not None
        self._agent.machine.flush()
        if self.status == _KILLED and self._agent.machine.memory_kills > self._kills:
            raise GuestOutOfMemory(
                f"the guest ran out of memory and killed {self.command!r}: give it more",
                console=self._agent.machine.console.tail(),
            )
        return Completed(self.command, self.status, bytes(collected[0]), bytes(collected[1]))

    def _pass_on(
        self,
        chunks: tuple[bytes, bytes],
        collected: tuple[bytearray, bytearray],
        sinks: tuple[Sink | None, Sink | None],
    ) -> None:
        for chunk, kept, sink in zip(chunks, collected, sinks, strict=True):
            if not chunk:
                continue
            if sink is None:
                kept += chunk
            else:
                sink(chunk)


class Agent:
    """The host's side of the protocol."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._condition = Condition()
        self._line = b""
        self._ready = False
        self._acknowledged = ""
        self._size: tuple[int, int] | None = None
        self._process: Process | None = None
        machine.control.listen(self._control)
        machine.stdout.listen(lambda data: self._output(data, standard_error=False))
        machine.stderr.listen(lambda data: self._output(data, standard_error=True))
        machine.at_end(self._wake)
        machine.at_reset(self._reset)

    @property
    def ready(self) -> bool:
        """Whether the guest takes commands."""
        return self._ready

    def start(self, command: str, script: str, timeout: float | None = None) -> Process:
        """Starts ``script``, which messages call ``command``.

        Waits for the guest to be ready, and for the command before it to end.

        Raises:
            GuestTimeout: that took longer than ``timeout`` seconds.
            GuestError: the machine ended before.
        """
        deadline = monotonic() + (BOOT_LIMIT if timeout is None else timeout)

        def wait(done: Callable[[], bool], what: str) -> None:
            if not self.wait_for(done, deadline - monotonic()):
                limit = BOOT_LIMIT if timeout is None else timeout
                tail = self.machine.console.tail()
                raise GuestTimeout(
                    f"{what} within {limit:g} s; last output of its console:\n{tail}", console=tail
                )

        wait(lambda: self._ready, "the guest did not get ready for commands")
        before = self._process
        if before is not None:
            wait(
                lambda: before.complete or before.lost,
                f"{before.command!r} still runs: it did not end",
            )
        nonce = os.urandom(8).hex()
        process = Process(self, command, nonce)
        with self._condition:
            self._process = process
        # A line of the protocol has no empty words, so an empty script is an empty line.
        encoded = b64encode((script or "\n").encode(errors="surrogateescape")).decode("ascii")
        for at in range(0, len(encoded), _CHUNK):
            with self._condition:
                self._acknowledged = ""
            self.machine.control.send(f"PART {nonce} {encoded[at : at + _CHUNK]}\n")
            wait(
                lambda: self._acknowledged == nonce or process.lost,
                "the guest's agent did not answer",
            )
        self.machine.control.send(f"RUN {nonce}\n")
        return process

    def resize(self, rows: int, columns: int) -> None:
        """Tells the guest the window size of its console, as soon as it is ready."""
        with self._condition:
            self._size = (rows, columns)
            ready = self._ready
        if ready:
            self._send_size()

    def halt(self) -> bool:
        """Asks the guest to power off; false if it is not ready to be asked."""
        if not self._ready:
            return False
        self.machine.control.send("HALT\n")
        return True

    def wait_for(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Waits until ``done()``, at most ``timeout`` seconds.

        Raises:
            GuestError: the machine ended before.
        """
        with self._condition:
            self._condition.wait_for(lambda: done() or self._ended(), timeout)
            if done():
                return True
            if not self._ended():
                return False
        raise self.end_error()

    def take(self, process: Process) -> tuple[bytes, bytes]:
        """Output of ``process`` that came since the last call."""
        with self._condition:
            return process.output.take(), process.errors.take()

    def end_error(self) -> RingfenceError:
        """Why nothing more is to be expected of the machine."""
        how = self.machine.exit
        error = how.error() if how is not None else None
        if error is not None:
            return error
        text = _ENDS.get(how.reason, "the machine ended") if how else "the machine ended"
        process = self._process
        before = f" before {process.command!r} had finished" if process else ""
        return GuestStopped(text + before, console=how.console if how else "")

    def _ended(self) -> bool:
        return self.machine.state is MachineState.ENDED

    # Called in the machine's threads, under its lock.

    def _reset(self) -> None:
        """The guest starts anew: what ran in it is gone."""
        with self._condition:
            self._ready = False
            self._line = b""
            if self._process is not None and not self._process.complete:
                self._process.lost = True
            self._process = None
            self._condition.notify_all()

    def _wake(self) -> None:
        with self._condition:
            self._condition.notify_all()

    def _control(self, data: bytes) -> None:
        became_ready = False
        with self._condition:
            *lines, self._line = (self._line + data).split(b"\n")
            # A line that does not end is none of the agent's.
            self._line = self._line[:_LONGEST_LINE]
            for line in lines:
                became_ready |= self._message(line.decode(errors="replace").split())
            self._condition.notify_all()
        if became_ready:
            self._send_size()

    def _message(self, words: Sequence[str]) -> bool:
        """Takes a line; true if it says that the agent is ready."""
        if " ".join(words) == _READY:
            self._ready = True
            return True
        if words[:1] == ["OK"] and len(words) == 2:
            self._acknowledged = words[1]
        elif words[:1] == ["EXIT"] and len(words) == 3 and words[2].isdecimal():
            process = self._process
            if process is not None and words[1] == process.nonce:
                process.status = int(words[2][:6]) & 0xFF
        return False

    def _output(self, data: bytes, *, standard_error: bool) -> None:
        stream = self.machine.stderr if standard_error else self.machine.stdout
        stream.discard()
        with self._condition:
            if self._process is not None:
                output = self._process.errors if standard_error else self._process.output
                output.feed(data)
                self._condition.notify_all()

    def _send_size(self) -> None:
        if self._size is not None:
            rows, columns = self._size
            self.machine.control.send(f"SIZE {os.urandom(4).hex()} {rows} {columns}\n")
