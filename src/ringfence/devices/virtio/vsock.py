"""Socket device (VIRTIO 1.2, section 5.10): streams between guest and host without a network.

Connections go both ways. What a stream is connected to on the host is the host end's to say. Credit
is kept as the specification has it: neither side sends more than the other has room for. Left out:
SEQPACKET sockets, and the transport event, which is for migration.
"""

from collections import deque
from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from ringfence.bus import Chain
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.virtio.device import VirtioDevice
from ringfence.errors import ConfigError

__all__ = ["SocketHost", "Stream", "Vsock"]

HOST_CID, FIRST_CID = 2, 3
_RX, _TX = 0, 1
_HEADER = Struct("<QQIIIHHIII")
OP_REQUEST, OP_RESPONSE, OP_RST, OP_SHUTDOWN, OP_RW, OP_CREDIT_UPDATE, OP_CREDIT_REQUEST = range(
    1, 8
)
_STREAM = 1
_SHUTDOWN_RECEIVE, _SHUTDOWN_SEND = 1, 2
#: Room for what a guest sends, per stream, until the host end has taken it.
_ROOM = 256 << 10
_PIECE = 64 << 10
_MOST_STREAMS = 1024


class Stream(Protocol):
    """The host's side of one connection. No method blocks."""

    def send(self, data: bytes) -> int:
        """Takes what came from the guest; how much of it was taken."""

    def receive(self, limit: int) -> bytes | None:
        """Up to ``limit`` bytes for the guest; empty: nothing now; ``None``: it has ended."""

    def shutdown(self) -> None:
        """The guest sends no more."""

    def close(self) -> None:
        """The connection is over."""


class SocketHost(Protocol):
    """The host end of the device."""

    def connect(self, port: int, wake: Callable[[], None]) -> Stream | None:
        """A stream to the host's ``port``, or ``None`` when nobody listens there.

        ``wake`` is to be called, under the machine's lock, when the stream has something new.
        """

    def on_connect(self, accept: Callable[[int, "Opener"], None]) -> None:
        """Sets what is called, under the machine's lock, when the host wants a guest's port."""


class Opener(Protocol):
    """What a host gets for a connection to a guest's port."""

    def opened(self, wake: Callable[[], None]) -> Stream:
        """The guest has accepted: the stream to it."""

    def refused(self) -> None:
        """Nobody listens there."""


class _Key(NamedTuple):
    local: int
    peer: int


class _Connection:
    """One stream and its credit."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream
        self.opener: Opener | None = None
        self.pending = bytearray()
        self.forwarded = 0
        self.told = 0
        self.sent = 0
        self.peer_room = 0
        self.peer_forwarded = 0
        self.ended = False

    def credit(self) -> int:
        """Bytes that the guest has room for."""
        return max(self.peer_room - (self.sent - self.peer_forwarded & 0xFFFFFFFF), 0)


class Vsock(VirtioDevice):
    """The device.

    Args:
        host: The host end.
        cid: The guest's context identifier.
        packed: Whether packed rings are offered.
    """

    DEVICE_ID: ClassVar[int] = 19
    CLASS_CODE: ClassVar[int] = 0x028000
    CONFIG_SIZE: ClassVar[int] = 8
    OPTIONS: ClassVar[Mapping[str, Callable[[str], Any]]] = {"cid": int, "path": str}

    def __init__(self, host: SocketHost, cid: int = FIRST_CID, *, packed: bool = False) -> None:
        super().__init__(0, [128, 128, 16], packed=packed)
        if not FIRST_CID <= cid < 0xFFFFFFFF:
            raise ConfigError(f"vsock: a guest's cid is {FIRST_CID} or more, not {cid}")
        self._host = host
        self._cid = cid
        self._connections: dict[_Key, _Connection] = {}
        #: Packets that wait for buffers of the receive queue.
        self._queue: deque[tuple[_Key, int, int]] = deque()
        self._next_port = 1 << 30
        host.on_connect(self._wanted)

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:
        """``path``: where the host's sockets are; ``cid``: the guest's number."""
        path = options.pop("path", "")
        if not path:
            raise ConfigError("virtio-vsock: path=FOLDER is missing")
        return cls(context.end("vsock", path), **options)

    def config(self) -> bytes:
        """The guest's context identifier."""
        return self._cid.to_bytes(8, "little")

    def stopped(self) -> None:
        """All connections are gone."""
        for connection in self._connections.values():
            _close(connection)
        self._connections.clear()
        self._queue.clear()

    def available(self, index: int) -> None:
        """Packets from the guest, or room for packets to it."""
        if index == _TX:
            self.drain(_TX, self._packet)
        if index in (_RX, _TX):
            self._fill()

    def _packet(self, chain: Chain) -> int | None:
        head = chain.read(0, _HEADER.size)
        if len(head) < _HEADER.size:
            return 0
        source, target, from_port, to_port, length, kind, operation, flags, room, count = (
            _HEADER.unpack(head)
        )
        if source != self._cid or target != HOST_CID:
            return 0
        key = _Key(to_port, from_port)
        connection = self._connections.get(key)
        if kind != _STREAM:
            self._answer(key, OP_RST)
            return 0
        if connection is None:
            if operation == OP_REQUEST:
                self._requested(key, room, count)
            elif operation != OP_RST:
                self._answer(key, OP_RST)
            return 0
        connection.peer_room, connection.peer_forwarded = room, count
        if operation == OP_RW:
            self._received(key, connection, chain, length)
        else:
            self._controlled(key, connection, operation, flags)
        return 0

    def _requested(self, key: _Key, room: int, count: int) -> None:
        stream = None
        if len(self._connections) < _MOST_STREAMS:
            stream = self._host.connect(key.local, lambda: self._wake(key))
        if stream is None:
            self._answer(key, OP_RST)
            return
        connection = self._connections[key] = _Connection(stream)
        connection.peer_room, connection.peer_forwarded = room, count
        self._answer(key, OP_RESPONSE)

    def _received(self, key: _Key, connection: _Connection, chain: Chain, length: int) -> None:
        length = min(length, chain.readable - _HEADER.size)
        if length > _ROOM - len(connection.pending) or connection.stream is None:
            # More than it was given room for (5.10.6.3): such a peer is cut off.
            self._drop(key, tell=True)
            return
        connection.pending += chain.read(_HEADER.size, length)
        self._push(key, connection)

    def _push(self, key: _Key, connection: _Connection) -> None:
        """Hands on what the guest has sent; tells it of new room when much was taken."""
        if connection.stream is None:
            return
        while connection.pending:
            taken = connection.stream.send(bytes(connection.pending[:_PIECE]))
            if not taken:
                break
            del connection.pending[:taken]
            connection.forwarded = connection.forwarded + taken & 0xFFFFFFFF
        if (connection.forwarded - connection.told & 0xFFFFFFFF) >= _ROOM // 2:
            self._answer(key, OP_CREDIT_UPDATE)

    def _controlled(self, key: _Key, connection: _Connection, operation: int, flags: int) -> None:
        if operation == OP_RESPONSE and connection.opener is not None:
            opener, connection.opener = connection.opener, None
            connection.stream = opener.opened(lambda: self._wake(key))
        elif operation == OP_RST:
            self._drop(key, tell=False)
        elif operation == OP_SHUTDOWN:
            both = _SHUTDOWN_RECEIVE | _SHUTDOWN_SEND
            if flags & both == both:
                self._drop(key, tell=True)
            elif flags & _SHUTDOWN_SEND and connection.stream is not None:
                connection.stream.shutdown()
        elif operation == OP_CREDIT_REQUEST:
            self._answer(key, OP_CREDIT_UPDATE)
        elif operation != OP_CREDIT_UPDATE:
            self._drop(key, tell=True)

    def _wanted(self, port: int, opener: Opener) -> None:
        """The host wants a connection to a guest's port."""
        if not self.running or len(self._connections) >= _MOST_STREAMS:
            opener.refused()
            return
        self._next_port = self._next_port + 1 & 0x7FFFFFFF | 1 << 30
        key = _Key(self._next_port, port)
        connection = self._connections[key] = _Connection(None)
        connection.opener = opener
        self._answer(key, OP_REQUEST)
        self._fill()

    def _wake(self, key: _Key) -> None:
        """A stream has something new, or room again."""
        connection = self._connections.get(key)
        if connection is not None:
            self._push(key, connection)
            self._fill()

    def _drop(self, key: _Key, *, tell: bool) -> None:
        connection = self._connections.pop(key, None)
        if connection is not None:
            _close(connection)
        if tell:
            self._answer(key, OP_RST)

    def _answer(self, key: _Key, operation: int, flags: int = 0) -> None:
        # A guest that takes nothing gets no more than this many answers.
        if len(self._queue) < 2 * _MOST_STREAMS:
            self._queue.append((key, operation, flags))

    def _fill(self) -> None:
        """Puts answers and data into the buffers of the guest."""
        used = False
        while self._queue:
            chain = self.take(_RX)
            if chain is None:
                break
            key, operation, flags = self._queue.popleft()
            self._send(chain, key, operation, flags, b"")
            used = True
        else:
            for key, connection in list(self._connections.items()):
                used |= self._stream(key, connection)
        if used:
            self.signal(_RX)

    def _stream(self, key: _Key, connection: _Connection) -> bool:
        """Sends a stream's data, as far as credit and buffers go."""
        used = False
        stream = connection.stream
        while stream is not None and not connection.ended and (credit := connection.credit()):
            ring = self.queues[_RX].ring
            if ring is None or not (ring.available() or ring.enable_notification()):
                break
            data = stream.receive(min(credit, 4096 - _HEADER.size))
            if data == b"":
                break
            chain = self.take(_RX)
            if chain is None:
                break
            used = True
            if data is None:
                connection.ended = True
                self._send(chain, key, OP_SHUTDOWN, _SHUTDOWN_RECEIVE | _SHUTDOWN_SEND, b"")
                break
            self._send(chain, key, OP_RW, 0, data)
        return used

    def _send(self, chain: Chain, key: _Key, operation: int, flags: int, data: bytes) -> None:
        connection = self._connections.get(key)
        forwarded = 0
        if connection is not None:
            forwarded = connection.told = connection.forwarded
            connection.sent = connection.sent + len(data) & 0xFFFFFFFF
        head = _HEADER.pack(
            *(HOST_CID, self._cid, key.local, key.peer, len(data)),
            *(_STREAM, operation, flags, _ROOM, forwarded),
        )
        self.give(_RX, chain, chain.write(0, head + data), signal=False)


def _close(connection: _Connection) -> None:
    if connection.opener is not None:
        connection.opener.refused()
    if connection.stream is not None:
        connection.stream.close()
