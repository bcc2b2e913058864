"""UNIX sockets as the host's side of a guest's."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import NetworkError
from ringfence.net import UnixSocketHost


def test_guest_to_host(tmp_path: Path) -> None:
    host = UnixSocketHost(tmp_path / "v", threading.RLock())
    woken = threading.Semaphore(0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "v_80"))
        listener.listen()
        assert host.connect(81, woken.release) is None
        stream = host.connect(80, woken.release)
        assert stream is not None
        far, _ = listener.accept()
        assert stream.send(b"hello") == 5
        assert far.recv(10) == b"hello"
        assert stream.receive(10) == b""
        far.send(b"world")
        assert woken.acquire(timeout=10)
        assert stream.receive(10) == b"world"
        assert stream.receive(10) == b""
        # What does not fit waits for room, also when there is no input meanwhile.
        total = 0
        while sent := stream.send(bytes(1 << 16)):
            total += sent
            assert total < 1 << 24
        assert stream.receive(10) == b""
        while total > 0:
            total -= len(far.recv(1 << 20))
        assert woken.acquire(timeout=10)
        assert stream.send(b"more") == 4
        assert stream.receive(10) == b""
        far.close()
        while stream.receive(10) is not None:
            assert woken.acquire(timeout=10)
        stream.close()
    with pytest.raises(NetworkError, match="vsock"):
        UnixSocketHost(tmp_path / "v", threading.RLock())
    host.close()
    assert not (tmp_path / "v").exists()


def test_host_to_guest(tmp_path: Path) -> None:
    host = UnixSocketHost(tmp_path / "v", threading.RLock())
    wanted: list[tuple[int, Any]] = []
    came = threading.Semaphore(0)

    def accept(port: int, opener: Any) -> None:
        wanted.append((port, opener))
        came.release()

    host.on_connect(accept)
    with socket.socket(socket.AF_UNIX) as program:
        program.connect(str(tmp_path / "v"))
        program.send(b"CONNECT 22\nfirst")
        assert came.acquire(timeout=10)
        ((port, opener),) = wanted
        assert port == 22
        stream = opener.opened(came.release)
        assert program.recv(100) == b"OK 22\n"
        assert stream.receive(100) == b"first"
        stream.close()
    for greeting in (b"HELLO\n", b"CONNECT x\n", b"x" * 40):
        with socket.socket(socket.AF_UNIX) as program:
            program.connect(str(tmp_path / "v"))
            program.settimeout(10)
            program.send(greeting)
            with suppress(ConnectionResetError):
                assert program.recv(1) == b""
    host.close()
