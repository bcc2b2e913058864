"""Network device (VIRTIO 1.2, section 5.1).

The driver may leave checksums and TCP segmentation to the device, which then does both: what goes
out is whole Ethernet frames. Incoming frames lie in one buffer, or in several where those are
mergeable. Left out: receive steering beyond the number of queue pairs, RSS, guest-side
segmentation (large incoming packets), UDP fragmentation, speed and standby.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from ringfence.bus import Chain, PacketPort
from ringfence.devices.net.options import NET_OPTIONS, card_options
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.virtio.device import VirtioDevice
from ringfence.errors import ConfigError, StateError

__all__ = ["Net"]

F_CSUM, F_GUEST_CSUM, F_MTU, F_MAC, F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN, F_MRG_RXBUF, F_STATUS = (
    1 << bit for bit in (0, 1, 3, 5, 11, 12, 13, 15, 16)
)
F_CTRL_VQ, F_CTRL_RX, F_CTRL_VLAN, F_CTRL_RX_EXTRA, F_GUEST_ANNOUNCE, F_MQ, F_CTRL_MAC_ADDR = (
    1 << bit for bit in (17, 18, 19, 20, 21, 22, 23)
)
_OFFERED = F_CSUM | F_GUEST_CSUM | F_MAC | F_HOST_TSO4 | F_HOST_TSO6 | F_HOST_ECN | F_MRG_RXBUF
_OFFERED |= F_STATUS | F_CTRL_VQ | F_CTRL_RX | F_CTRL_VLAN | F_CTRL_RX_EXTRA | F_CTRL_MAC_ADDR
_HEADER = 12
_NEEDS_CSUM = 1
_GSO_NONE, _GSO_TCPV4, _GSO_TCPV6, _GSO_ECN = 0, 1, 4, 0x80
#: The largest packet that a driver may hand over: 64 KiB of IP, Ethernet header and two tags.
_LARGEST = 65535 + 14 + 8
_LINK_UP = 1
_MTU = 1500
_QUEUE_SIZE, _CONTROL_SIZE = 256, 64
_ACK_OK, _ACK_ERROR = 0, 1
# Control commands (5.1.6.5): class, command.
_RX, _MAC, _VLAN, _MQ = 0, 1, 2, 4
_RX_FLAGS = (
    *("_promiscuous", "_all_multicast", "_all_unicast"),
    *("_no_multicast", "_no_unicast", "_no_broadcast"),
)
_TABLE_SET, _ADDRESS_SET = 0, 1
_TABLE = 64
_BATCH = 256


class Net(VirtioDevice):
    """A network card.

    Args:
        port: Where its cable leads.
        mac: Its address.
        queues: Pairs of queues.
        packed: Whether packed rings are offered.
    """

    DEVICE_ID: ClassVar[int] = 1
    CLASS_CODE: ClassVar[int] = 0x020000
    CONFIG_SIZE: ClassVar[int] = 12
    OPTIONS: ClassVar[Mapping[str, Callable[[str], Any]]] = {**NET_OPTIONS, "queues": int}

    def __init__(
        self, port: PacketPort, mac: bytes, *, queues: int = 1, packed: bool = False
    ) -> None:
        if not 1 <= queues <= 16:
            raise ConfigError(f"a card has 1 to 16 pairs of queues, not {queues}")
        features = _OFFERED | (F_MQ if queues > 1 else 0)
        sizes = [_QUEUE_SIZE] * 2 * queues + [_CONTROL_SIZE]
        super().__init__(features, sizes, packed=packed)
        self._port = port
        self._first_mac = mac
        self._pairs = queues
        self._table: set[bytes] = set()
        self._vlans: set[int] = set()
        self._forget()
        port.on_receive(self.frames_waiting)

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:
        """A card from its options."""
        port, mac = card_options(context, options)
        return cls(port, mac, **options)

    def config(self) -> bytes:
        """Address, link status, pairs, MTU (5.1.4)."""
        return (
            self._mac
            + _LINK_UP.to_bytes(2, "little")
            + self._pairs.to_bytes(2, "little")
            + _MTU.to_bytes(2, "little")
        )

    def dependencies(self) -> bool:
        """Bits that need others (5.1.3.1)."""
        has = self.has
        control = F_CTRL_RX | F_CTRL_VLAN | F_MQ | F_CTRL_MAC_ADDR
        if has(control) and not has(F_CTRL_VQ):
            return False
        if has(F_CTRL_RX_EXTRA) and not has(F_CTRL_RX):
            return False
        if has(F_HOST_TSO4 | F_HOST_TSO6) and not has(F_CSUM):
            return False
        return not (has(F_HOST_ECN) and not has(F_HOST_TSO4 | F_HOST_TSO6))

    def started(self) -> None:
        """Frames may have come meanwhile."""
        self.frames_waiting()

    def stopped(self) -> None:
        """Filters as after power-on."""
        self._forget()

    def available(self, index: int) -> None:
        """Buffers to send, to fill, or commands."""
        if index == self._control_index():
            self.drain(index, self._control)
        elif index & 1:
            if index < 2 * self._active:
                self.drain(index, self._transmit)
        else:
            self.frames_waiting()

    def own_state(self) -> dict[str, Any]:
        """Address and filters."""
        return {
            "mac": self._mac,
            "active": self._active,
            "table": sorted(self._table),
            "vlans": sorted(self._vlans),
            "rx": {name.lstrip("_"): bool(getattr(self, name)) for name in _RX_FLAGS},
        }

    def restore_own(self, state: dict[str, Any]) -> None:
        """Takes them."""
        mac, active, rx = state.get("mac"), state.get("active"), state.get("rx")
        table, vlans = state.get("table"), state.get("vlans")
        if (
            not (isinstance(mac, bytes) and len(mac) == 6)
            or not (type(active) is int and 1 <= active <= self._pairs)
            or not (isinstance(table, list) and all(_is_address(entry) for entry in table))
            or not (isinstance(vlans, list) and all(type(entry) is int for entry in vlans))
            or not isinstance(rx, dict)
        ):
            raise StateError("Net: the address or the filters are not valid")
        self._mac, self._active = mac, active
        self._table, self._vlans = set(table), set(vlans)
        for name in _RX_FLAGS:
            setattr(self, name, bool(rx.get(name.lstrip("_"), False)))

    # The wire.

    def frames_waiting(self) -> None:
        """Takes frames from the port while there are buffers for them."""
        if not self.running:
            # As on a real wire: nobody keeps what comes meanwhile.
            while self._port.receive() is not None:
                pass
            return
        used: set[int] = set()
        for _ in range(_BATCH):
            queue = 2 * (self._turn % self._active)
            if not self._has_buffer(queue):
                break
            frame = self._port.receive()
            if frame is None:
                break
            if len(frame) >= 14 and self._accepts(frame):
                self._turn += 1
                self._deliver(queue, frame)
                used.add(queue)
        else:
            self.clock.call_at(self.clock.now(), self.frames_waiting)
        for queue in used:
            self.signal(queue)

    def _has_buffer(self, index: int) -> bool:
        ring = self.queues[index].ring
        if ring is None:
            return False
        try:
            return ring.available() or ring.enable_notification()
        except self.rings.error:
            self.fail()
            return False

    def _deliver(self, index: int, frame: bytes) -> None:
        """Puts a frame into one buffer, or into several where they are mergeable (5.1.6.4)."""
        merge = self.has(F_MRG_RXBUF)
        chains: list[tuple[Chain, int]] = []
        data = bytes(_HEADER) + frame
        at = 0
        while at < len(data):
            chain = self.take(index)
            if chain is None:
                break
            if chain.writable < _HEADER or (not merge and chain.writable < len(data)):
                # Too short for the frame: the buffer comes back empty and the frame is lost.
                self.give(index, chain, 0, signal=False)
                return
            count = chain.write(0, data[at : at + chain.writable])
            chains.append((chain, count))
            at += count
            if not count:
                break
        if at < len(data):
            # Not enough buffers: they go back empty.
            for chain, _ in chains:
                self.give(index, chain, 0, signal=False)
            return
        if chains:
            chains[0][0].write(10, len(chains).to_bytes(2, "little"))
        for chain, count in chains:
            self.give(index, chain, count, signal=False)

    def _transmit(self, chain: Chain) -> int | None:
        """Sends what a buffer holds."""
        if not _HEADER + 14 <= chain.readable <= _HEADER + _LARGEST:
            return 0
        head = chain.read(0, _HEADER)
        flags, kind = head[0], head[1] & ~_GSO_ECN
        options: dict[str, Any] = {}
        if flags & _NEEDS_CSUM and self.has(F_CSUM):
            start = int.from_bytes(head[6:8], "little")
            options["checksum"] = (start, int.from_bytes(head[8:10], "little"))
        if kind != _GSO_NONE:
            versions = {_GSO_TCPV4: (4, F_HOST_TSO4), _GSO_TCPV6: (6, F_HOST_TSO6)}
            version, feature = versions.get(kind, (0, 0))
            size = int.from_bytes(head[4:6], "little")
            if not self.has(feature) or not size:
                return 0
            options["segment"], options["version"] = size, version
        try:
            frames = chain.frames(_HEADER, **options)
        except self.rings.error:
            return 0  # a packet that can't be made is dropped
        for frame in frames:
            self._port.send(frame)
        return 0

    # Filters and the control queue.

    def _forget(self) -> None:
        self._mac = self._first_mac
        self._active = 1
        self._turn = 0
        self._table.clear()
        self._vlans.clear()
        self._promiscuous = self._all_multicast = self._all_unicast = False
        self._no_multicast = self._no_unicast = self._no_broadcast = False

    def _control_index(self) -> int:
        # Without multiqueue the control queue follows the first pair (5.1.2).
        return 2 * self._pairs if self.has(F_MQ) else 2

    def _accepts(self, frame: bytes) -> bool:
        if self.has(F_CTRL_VLAN) and frame[12:14] == b"\x81\x00" and len(frame) >= 18:
            vlan = int.from_bytes(frame[14:16], "big") & 0xFFF
            if vlan and vlan not in self._vlans and not self._promiscuous:
                return False
        if self._promiscuous:
            return True
        address = frame[:6]
        if address == b"\xff" * 6:
            return not self._no_broadcast
        if address[0] & 1:
            if self._no_multicast:
                return False
            # A driver without filters gets all of them.
            return self._all_multicast or not self.has(F_CTRL_RX) or address in self._table
        if self._no_unicast:
            return False
        return self._all_unicast or address == self._mac or address in self._table

    def _control(self, chain: Chain) -> int | None:
        head = chain.read(0, 2)
        size = chain.readable - 2
        good = (
            len(head) == 2 and size <= 4096 and self._command(head[0], head[1], chain.read(2, size))
        )
        return chain.write(0, bytes((_ACK_OK if good else _ACK_ERROR,)))

    def _command(self, kind: int, command: int, data: bytes) -> bool:
        if kind == _RX and command < len(_RX_FLAGS) and len(data) == 1:
            setattr(self, _RX_FLAGS[command], bool(data[0]))
        elif kind == _MAC and command == _ADDRESS_SET and len(data) == 6:
            self._mac = data
        elif kind == _MAC and command == _TABLE_SET:
            return self._set_table(data)
        elif kind == _VLAN and command < 2 and len(data) == 2:
            vlan = int.from_bytes(data, "little")
            if vlan > 0xFFF:
                return False
            (self._vlans.add if command == 0 else self._vlans.discard)(vlan)
        elif kind == _MQ and command == 0 and len(data) == 2 and self.has(F_MQ):
            pairs = int.from_bytes(data, "little")
            if not 1 <= pairs <= self._pairs:
                return False
            self._active = pairs
        else:
            return False
        return True

    def _set_table(self, data: bytes) -> bool:
        """Two lists, unicast and multicast: a count and so many addresses each."""
        lists: list[list[bytes]] = []
        at = 0
        for _ in range(2):
            count = int.from_bytes(data[at : at + 4], "little")
            end = at + 4 + 6 * count
            if at + 4 > len(data) or end > len(data):
                return False
            lists.append([data[start : start + 6] for start in range(at + 4, end, 6)])
            at = end
        unicast, multicast = lists
        # More than the table holds: the filter opens instead of losing frames.
        self._overflow(unicast, multicast)
        return True

    def _overflow(self, unicast: list[bytes], multicast: list[bytes]) -> None:
        if len(unicast) > _TABLE:
            self._all_unicast = True
        if len(multicast) > _TABLE:
            self._all_multicast = True
        self._table = {*unicast[:_TABLE], *multicast[:_TABLE]}


def _is_address(entry: object) -> bool:
    return isinstance(entry, bytes) and len(entry) == 6
