"""What a user writes to say where a card's cable leads, and the port it becomes.

::

    none                            the cable is not plugged in
    loopback                        every frame comes back
    tap:INTERFACE                   a TAP interface of the host
    unix:PATH,peer=PATH             datagrams over UNIX sockets
    udp:HOST:PORT,peer=HOST:PORT    datagrams over UDP
    fd:NUMBER                       an inherited datagram socket or TAP device
"""

from dataclasses import dataclass
from pathlib import Path

from ringfence.bus import PacketPort
from ringfence.errors import ConfigError
from ringfence.net.queued import FrameQueue, Loopback
from ringfence.net.sockets import from_descriptor, udp_port, unix_port
from ringfence.net.tap import TapPort

__all__ = ["NetSpec"]

_KINDS = ("none", "loopback", "tap", "unix", "udp", "fd")


@dataclass(frozen=True, slots=True)
class NetSpec:
    """A host end as its user describes it.

    Attributes:
        kind: ``none``, ``loopback``, ``tap``, ``unix``, ``udp`` or ``fd``.
        where: The interface, path, address or descriptor.
        peer: The far end's path or address.
    """

    kind: str
    where: str = ""
    peer: str = ""

    @classmethod
    def parse(cls, text: str) -> "NetSpec":
        """The host end that ``text`` describes.

        Raises:
            ConfigError: it describes none.
        """
        head, *options = text.split(",")
        kind, _, where = head.partition(":")
        if kind not in _KINDS:
            raise ConfigError(f"net: {kind!r} is none of {', '.join(_KINDS)}")
        peer = ""
        for option in options:
            name, _, value = option.partition("=")
            if name != "peer" or peer or not value or kind not in ("unix", "udp"):
                raise ConfigError(f"net: {option!r} is no option of {kind}")
            peer = value
        if bool(where) is (kind in ("none", "loopback")):
            raise ConfigError(f"net: {text!r} is not like {_EXAMPLES[kind]}")
        if kind in ("unix", "udp") and not peer:
            raise ConfigError(f"net: {text!r} lacks its peer; write {_EXAMPLES[kind]}")
        if kind == "udp":
            _address(where)
            _address(peer)
        if kind == "fd" and not (where.isascii() and where.isdigit() and len(where) < 8):
            raise ConfigError(f"net: {where!r} is not the number of a descriptor")
        return cls(kind, where, peer)

    def __str__(self) -> str:
        text = f"{self.kind}:{self.where}" if self.where else self.kind
        return f"{text},peer={self.peer}" if self.peer else text

    def open(self) -> PacketPort:
        """Makes the port.

        Raises:
            NetworkError: the host refuses.
        """
        if self.kind == "tap":
            return TapPort(self.where)
        if self.kind == "unix":
            return unix_port(Path(self.where), Path(self.peer))
        if self.kind == "udp":
            return udp_port(_address(self.where), _address(self.peer))
        if self.kind == "fd":
            return from_descriptor(int(self.where))
        if self.kind == "loopback":
            return Loopback()
        unplugged = FrameQueue()
        unplugged.peer = FrameQueue(limit=0)
        return unplugged


_EXAMPLES = {
    "none": "none",
    "loopback": "loopback",
    "tap": "tap:tap0",
    "unix": "unix:/run/a,peer=/run/b",
    "udp": "udp:127.0.0.1:4000,peer=127.0.0.1:4001",
    "fd": "fd:5",
}


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 1 << 16):
        raise ConfigError(f"net: {text!r} is not like 127.0.0.1:4000")
    return host.strip("[]"), int(port)
