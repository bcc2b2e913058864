"""Host ends of network cards: frames go through whole, in order, or are dropped."""

import os
import socket
import threading
from pathlib import Path

import pytest

from ringfence.bus import format_mac, generated_mac, parse_mac
from ringfence.errors import ConfigError, NetworkError
from ringfence.net import (
    DescriptorPort,
    Loopback,
    NetSpec,
    TapPort,
    cable,
    from_descriptor,
    udp_port,
    unix_port,
)

FRAME = bytes(range(64))


def receive(port: DescriptorPort, count: int = 1) -> list[bytes]:
    came = threading.Semaphore(0)
    frames: list[bytes] = []
    port.on_receive(came.release)
    while len(frames) < count:
        while (frame := port.receive()) is not None:
            frames.append(frame)
        if len(frames) < count:
            assert came.acquire(timeout=10)
    return frames


def test_cable() -> None:
    left, right = cable(limit=2)
    calls: list[int] = []
    right.on_receive(lambda: calls.append(1))
    for number in range(3):
        left.send(bytes([number]))
    assert calls == [1, 1]
    assert right.dropped == 1
    assert [right.receive(), right.receive(), right.receive()] == [b"\0", b"\1", None]
    right.send(FRAME)
    assert left.receive() == FRAME
    assert right.receive() is None


def test_loopback() -> None:
    port = Loopback()
    port.send(FRAME)
    assert port.receive() == FRAME
    assert port.receive() is None


def test_unplugged() -> None:
    port = NetSpec.parse("none").open()
    port.send(FRAME)
    assert port.receive() is None


def test_datagram_descriptor() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        port = from_descriptor(ours.fileno())
        for number in range(400):
            theirs.send(bytes([number & 0xFF]) * 60) if number < 200 else None
        frames = receive(port, 200)
        assert [frame[0] for frame in frames] == list(range(200))
        port.send(FRAME)
        assert theirs.recv(100) == FRAME
        port.close()
        port.close()
        port.send(FRAME)
        assert port.dropped == 1


def test_streams_are_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(NetworkError, match="stream"):
        from_descriptor(ours.fileno())
    with pytest.raises(NetworkError, match="descriptor 9999"):
        from_descriptor(9999)


def test_unix(tmp_path: Path) -> None:
    first = unix_port(tmp_path / "a", tmp_path / "b")
    first.send(FRAME)
    assert first.dropped == 1, "nobody is there yet"
    second = unix_port(tmp_path / "b", tmp_path / "a")
    first.send(FRAME)
    assert receive(second) == [FRAME]
    with pytest.raises(NetworkError, match="Address already in use"):
        unix_port(tmp_path / "a", tmp_path / "b")
    first.close()
    second.close()
    assert not list(tmp_path.iterdir())


def test_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        here = probe.getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        far.bind(("127.0.0.1", 0))
        port = udp_port(("127.0.0.1", here), ("127.0.0.1", far.getsockname()[1]))
        port.send(FRAME)
        assert far.recv(100) == FRAME
        far.sendto(FRAME, ("127.0.0.1", here))
        assert receive(port) == [FRAME]
        with pytest.raises(NetworkError, match=f"127.0.0.1:{here}"):
            udp_port(("127.0.0.1", here), ("127.0.0.1", 9))
        port.close()


def test_tap() -> None:
    with pytest.raises(NetworkError, match="not the name"):
        TapPort("a/b")
    if not os.access("/dev/net/tun", os.W_OK):
        with pytest.raises(NetworkError, match="/dev/net/tun"):
            TapPort("ringfence-t0")
        return
    try:
        port = TapPort("ringfence-t0")
    except NetworkError as error:
        assert "ip tuntap add ringfence-t0" in str(error)  # noqa: PT017 - depends on the host
    else:
        port.close()


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "loopback",
        "tap:tap0",
        "unix:/run/a,peer=/run/b",
        "udp:127.0.0.1:4000,peer=[::1]:4001",
        "fd:3",
    ],
)
def test_specs(text: str) -> None:
    assert str(NetSpec.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "user",
        "tap",
        "none:x",
        "unix:/a",
        "udp:host,peer=host:1",
        "udp:h:0,peer=h:1",
        "udp:h:1,peer=h:70000",
        "fd:x",
        "tap:a,peer=b",
        "unix:/a,peer=/b,peer=/c",
        "unix:/a,mtu=3",
    ],
)
def test_bad_specs(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^net: "):
        NetSpec.parse(text)


def test_addresses() -> None:
    assert parse_mac("52:54:0:12:34:aB") == bytes.fromhex("5254001234ab")
    assert format_mac(parse_mac("52-54-00-12-34-56")) == "52:54:00:12:34:56"
    assert generated_mac("a") == generated_mac("a") != generated_mac("b")
    assert generated_mac("a")[0] & 3 == 2
    for bad in ("", "52:54:00:12:34", "01:00:00:00:00:00", "00:00:00:00:00:00", "5254.0012.3456"):
        with pytest.raises(ConfigError, match="mac"):
            parse_mac(bad)
