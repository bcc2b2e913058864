"""The host's side of a guest's sockets: UNIX sockets in a folder.

As Firecracker has it: a connection of the guest to the host's port N goes to the socket
``PATH_N``, which a program listens at; a program that connects to ``PATH`` and sends ``CONNECT N``
and a line end gets ``OK N`` and is then connected with the guest's port N.
"""

import os
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import RLock, Thread
from typing import Any

from ringfence.errors import NetworkError

__all__ = ["UnixSocketHost"]

_LIMIT = 64 << 10
_GREETING = 32


class _UnixStream:
    """One connection."""

    def __init__(
        self, host: "UnixSocketHost", end: socket.socket, wake: Callable[[], None]
    ) -> None:
        self._host = host
        self._end = end
        self._wake = wake
        self._closed = False
        #: What is waited for beside input: room to send.
        self._full = 0
        end.setblocking(False)
        self._watch()

    def send(self, data: bytes) -> int:
        """Hands on as much as the program's socket takes."""
        try:
            sent = self._end.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return len(data)  # nobody hears it any more; the end is found by reading
        self._full = selectors.EVENT_WRITE if sent < len(data) else 0
        if self._full:
            self._watch()
        return sent

    def receive(self, limit: int) -> bytes | None:
        """What the program has sent."""
        try:
            data = self._end.recv(limit)
        except BlockingIOError:
            self._watch()
            return b""
        except OSError:
            return None
        return data or None

    def shutdown(self) -> None:
        """The guest sends no more."""
        with suppress(OSError):
            self._end.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closes the program's socket."""
        if not self._closed:
            self._closed = True
            self._host.forget(self._end)
            self._end.close()

    def _watch(self) -> None:
        self._host.watch(self._end, selectors.EVENT_READ | self._full, self._ready)

    def _ready(self) -> None:
        # Once: it is asked for again when everything was read.
        self._host.forget(self._end)
        if not self._closed:
            self._wake()


class _Program:
    """A program that wants a guest's port."""

    def __init__(self, host: "UnixSocketHost", end: socket.socket, port: int) -> None:
        self._host, self._end, self._port = host, end, port

    def opened(self, wake: Callable[[], None]) -> _UnixStream:
        """The guest has accepted."""
        with suppress(OSError):
            self._end.sendall(f"OK {self._port}\n".encode())
        return _UnixStream(self._host, self._end, wake)

    def refused(self) -> None:
        """Nobody listens there."""
        self._end.close()


class UnixSocketHost:
    """All sockets of one guest.

    Args:
        path: The socket for connections to the guest; ``path_N`` are those for its own.
        lock: The machine's lock.

    Raises:
        NetworkError: the socket can't be made.
    """

    def __init__(self, path: Path, lock: RLock) -> None:
        self._path = path
        self._lock = lock
        self._accept: Callable[[int, Any], None] = _refuse
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._closed = False
        self._listener = socket.socket(socket.AF_UNIX)
        try:
            self._listener.bind(str(path))
        except OSError as error:
            self._listener.close()
            raise NetworkError(f"vsock: {path}: {error.strerror or error}") from error
        self._listener.listen()
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._incoming)
        self._thread = Thread(target=self._serve, name="ringfence-vsock", daemon=True)
        self._thread.start()

    def connect(self, port: int, wake: Callable[[], None]) -> _UnixStream | None:
        """A stream to whoever listens at ``path_port``."""
        end = socket.socket(socket.AF_UNIX)
        end.setblocking(False)
        try:
            end.connect(f"{self._path}_{port}")
        except OSError:
            end.close()
            return None
        return _UnixStream(self, end, wake)

    def on_connect(self, accept: Callable[[int, Any], None]) -> None:
        """Sets what is told of programs that want a guest's port."""
        self._accept = accept

    def disconnect(self) -> None:
        """The device has gone."""
        self._accept = _refuse

    def close(self) -> None:
        """Closes and removes the socket."""
        # The thread may wait for the lock that is held here, so it clears up by itself.
        self._closed = True
        self._path.unlink(missing_ok=True)
        os.write(self._wake_write, b"x")

    def watch(self, end: socket.socket, events: int, ready: Callable[[], None]) -> None:
        """Calls ``ready`` under the machine's lock when ``end`` is."""
        with suppress(KeyError, ValueError, OSError):
            try:
                self._selector.modify(end, events, ready)
            except KeyError:
                self._selector.register(end, events, ready)
            os.write(self._wake_write, b"x")

    def forget(self, end: socket.socket) -> None:
        """Watches it no more."""
        with suppress(KeyError, ValueError, OSError):
            self._selector.unregister(end)

    def _serve(self) -> None:
        """Body of the thread."""
        while not self._closed:
            for key, _ in self._selector.select():
                if key.data is None:
                    with suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                    continue
                with self._lock:
                    if not self._closed:
                        key.data()
        self._listener.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _incoming(self) -> None:
        with suppress(OSError):
            end, _ = self._listener.accept()
            end.setblocking(False)
            greeting = bytearray()
            self.watch(end, selectors.EVENT_READ, lambda: self._greeted(end, greeting))

    def _greeted(self, end: socket.socket, greeting: bytearray) -> None:
        """Reads ``CONNECT N`` byte by byte, for what follows is the guest's."""
        try:
            while not greeting.endswith(b"\n") and len(greeting) < _GREETING:
                byte = end.recv(1)
                if not byte:
                    raise OSError
                greeting += byte
        except BlockingIOError:
            return
        except OSError:
            self.forget(end)
            end.close()
            return
        self.forget(end)
        words = bytes(greeting).split()
        if len(words) != 2 or words[0] != b"CONNECT" or not words[1].isdigit():
            end.close()
            return
        port = int(words[1])
        self._accept(port, _Program(self, end, port))


def _refuse(port: int, program: Any) -> None:  # noqa: ARG001 - no port is open
    """No guest is there."""
    program.refused()
