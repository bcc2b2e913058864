"""Datagram sockets as wires: one frame is one datagram, as QEMU's ``-netdev dgram`` does it."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from ringfence.errors import NetworkError
from ringfence.net.descriptor import DescriptorPort

__all__ = ["from_descriptor", "udp_port", "unix_port"]

_BUFFER = 1 << 20


class SocketPort(DescriptorPort):
    """A connected datagram socket.

    Args:
        end: The socket, which the port takes over.
        name: What messages call it.
        path: A file that the port removes at its end.
    """

    def __init__(self, end: socket.socket, name: str, path: Path | None = None) -> None:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        super().__init__(end.detach(), name)
        self._path = path

    def close(self) -> None:
        """Closes the socket and removes its file."""
        super().close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


class PeerPort(SocketPort):
    """A UNIX datagram socket whose peer may come later."""

    def __init__(self, end: socket.socket, name: str, path: Path, peer: Path) -> None:
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        self._peer = str(peer)
        super().__init__(end, name, path)

    def send(self, frame: bytes) -> None:
        """Sends a frame to whoever has bound the peer's path by now."""
        try:
            self._sender.sendto(frame, self._peer)
        except OSError:
            self.dropped += 1

    def close(self) -> None:
        """Closes both sockets."""
        super().close()
        self._sender.close()


def from_descriptor(descriptor: int) -> DescriptorPort:
    """A port on an inherited datagram or packet socket, or a TAP device.

    Raises:
        NetworkError: it is none.
    """
    name = f"fd:{descriptor}"
    try:
        mine = os.dup(descriptor)
    except OSError as error:
        raise NetworkError(f"net: descriptor {descriptor}: {error.strerror}") from error
    with suppress(OSError):
        end = socket.socket(fileno=os.dup(mine))
        if end.type in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            os.close(mine)
            return SocketPort(end, name)
        end.close()
        os.close(mine)
        raise NetworkError(
            f"net: descriptor {descriptor} is a stream; one that keeps frames apart is needed"
        )
    return DescriptorPort(mine, name)


def unix_port(path: Path, peer: Path) -> DescriptorPort:
    """A UNIX datagram socket bound at ``path`` that talks to the one bound at ``peer``.

    Raises:
        NetworkError: the socket can't be made.
    """
    end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        end.bind(str(path))
    except OSError as error:
        end.close()
        raise NetworkError(f"net: {path}: {error.strerror or error}") from error
    return PeerPort(end, f"unix:{path}", path, peer)


def udp_port(local: tuple[str, int], peer: tuple[str, int]) -> DescriptorPort:
    """A UDP socket at ``local`` that exchanges frames with ``peer``.

    Raises:
        NetworkError: an address does not exist or is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            *local, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE
        )[0]
        end = socket.socket(family, kind, protocol)
    except OSError as error:
        raise NetworkError(f"net: udp {local[0]}:{local[1]}: {error.strerror}") from error
    try:
        end.bind(address)
        end.connect(socket.getaddrinfo(*peer, family=family, type=socket.SOCK_DGRAM)[0][4])
    except OSError as error:
        end.close()
        raise NetworkError(
            f"net: udp {local[0]}:{local[1]} to {peer[0]}:{peer[1]}: {error.strerror}"
        ) from error
    return SocketPort(end, f"udp:{local[0]}:{local[1]}")
