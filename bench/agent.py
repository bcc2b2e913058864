"""Speaks with the guest's first process over three byte streams; see images/guest/init.sh."""

import base64
import secrets
import selectors
import socket
import time
from dataclasses import dataclass

PART_SIZE = 512
READY = b"RINGFENCE-AGENT 1 READY"


class AgentError(Exception):
    """The guest did not answer, or not as agreed."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a script left: its exit status and its output."""

    status: int
    stdout: bytes
    stderr: bytes


class Agent:
    """The host's end of control, output and error lines."""

    def __init__(self, control: socket.socket, out: socket.socket, err: socket.socket) -> None:
        self._control = control
        self._streams = {control: b"", out: b"", err: b""}
        self._out, self._err = out, err
        self._selector = selectors.DefaultSelector()
        for stream in self._streams:
            self._selector.register(stream, selectors.EVENT_READ)

    def wait_ready(self, timeout: float) -> None:
        """Returns when the guest is up."""
        deadline = time.monotonic() + timeout
        while self._line(deadline) != READY:
            pass

    def run(self, script: str, timeout: float = 60) -> Result:
        """Runs a shell script in the guest."""
        deadline = time.monotonic() + timeout
        nonce = secrets.token_hex(8)
        data = base64.b64encode(script.encode()).decode()
        for at in range(0, max(len(data), 1), PART_SIZE):
            self.request(f"PART {nonce} {data[at : at + PART_SIZE]}", f"OK {nonce}", deadline)
        self.send(f"RUN {nonce}")
        end = f"\0{nonce}\0".encode()
        stdout, stderr = (self._until(stream, end, deadline) for stream in (self._out, self._err))
        answer = f"EXIT {nonce} ".encode()
        while not (line := self._line(deadline)).startswith(answer):
            pass  # a script that was not waited for has ended
        return Result(int(line.removeprefix(answer)), stdout, stderr)

    def request(self, line: str, answer: str, deadline: float) -> None:
        """Sends one line and takes one answer."""
        self.send(line)
        if (got := self._line(deadline)) != answer.encode():
            raise AgentError(f"expected {answer!r}, got {got!r}")

    def halt(self) -> None:
        """Asks the guest to power off."""
        self.send("HALT")

    def send(self, line: str) -> None:
        """Sends one line."""
        self._control.sendall(f"{line}\n".encode())

    def close(self) -> None:
        """Closes the streams."""
        self._selector.close()
        for stream in self._streams:
            stream.close()

    def _line(self, deadline: float) -> bytes:
        return self._until(self._control, b"\n", deadline)

    def _until(self, stream: socket.socket, end: bytes, deadline: float) -> bytes:
        while end not in self._streams[stream]:
            left = deadline - time.monotonic()
            ready = self._selector.select(left) if left > 0 else []
            if not ready:
                raise AgentError(f"no answer from the guest in time; so far {self._streams!r}")
            for key, _ in ready:
                source = key.fileobj
                assert isinstance(source, socket.socket)
                if not (data := source.recv(65536)):
                    raise AgentError("the guest ended")
                self._streams[source] += data
        found, _, self._streams[stream] = self._streams[stream].partition(end)
        return found
