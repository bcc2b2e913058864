"""What the VIRTIO specification demands of every device, and of each kind."""

import random
import struct
from collections.abc import Callable

import pytest

from ringfence.bus import BlockQueue
from ringfence.devices.virtio import mmio
from ringfence.devices.virtio.balloon import Balloon
from ringfence.devices.virtio.block import Block
from ringfence.devices.virtio.console import Console
from ringfence.devices.virtio.device import DRIVER_OK, FEATURES_OK, VirtioDevice
from ringfence.devices.virtio.net import Net
from ringfence.devices.virtio.rng import Rng
from ringfence.devices.virtio.share import Share
from ringfence.devices.virtio.vsock import Vsock
from support.fake_devices import Port, Wires
from support.virtio_driver import DATA, EVENT_IDX, INDIRECT, PACKED, VERSION_1, Driver


class Disk:
    """A disk in memory."""

    def __init__(self, size: int = 1 << 20, *, readonly: bool = False) -> None:
        self.bytes = bytearray(size)
        self.size, self.readonly = size, readonly
        self.flushes = 0
        self.fail = False

    def _check(self) -> None:
        if self.fail:
            raise OSError(5, "Input/output error")

    def read(self, offset: int, length: int) -> bytes:
        self._check()
        return bytes(self.bytes[offset : offset + length])

    def read_into(self, offset: int, buffers: object) -> None:
        self._check()
        for buffer in buffers:  # type: ignore[attr-defined]
            buffer[:] = self.bytes[offset : offset + len(buffer)]
            offset += len(buffer)

    def try_read_into(self, offset: int, buffers: object) -> bool:
        self.read_into(offset, buffers)
        return True

    def write(self, offset: int, data: bytes) -> None:
        self._check()
        self.bytes[offset : offset + len(data)] = data

    def write_from(self, offset: int, buffers: object) -> None:
        for buffer in buffers:  # type: ignore[attr-defined]
            self.write(offset, bytes(buffer))
            offset += len(buffer)

    def flush(self) -> None:
        self._check()
        self.flushes += 1

    def discard(self, offset: int, length: int) -> None:
        self.bytes[offset : offset + length] = bytes(length)


class Pipe:
    """The host's side of a connection."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.coming = bytearray()
        self.room = 1 << 20
        self.ended = self.closed = self.is_shut = False

    def send(self, data: bytes) -> int:
        count = min(len(data), self.room)
        self.got += data[:count]
        self.room -= count
        return count

    def receive(self, limit: int) -> bytes | None:
        data = bytes(self.coming[:limit])
        del self.coming[:limit]
        return data or (None if self.ended else b"")

    def shutdown(self) -> None:
        self.is_shut = True

    def close(self) -> None:
        self.closed = True


class Sockets:
    """The host end of the socket device: port 80 is open."""

    def __init__(self) -> None:
        self.pipe = Pipe()
        self.wake: Callable[[], None] = lambda: None
        self.accept: Callable[..., None] = lambda port, opener: None

    def connect(self, port: int, wake: Callable[[], None]) -> Pipe | None:
        self.wake = wake
        return self.pipe if port == 80 else None

    def on_connect(self, accept: Callable[..., None]) -> None:
        self.accept = accept

    def opened(self, wake: Callable[[], None]) -> Pipe:
        self.wake = wake
        return self.pipe

    def refused(self) -> None:
        self.pipe.closed = True


class Folder:
    """The host end of a shared folder: it says what it heard."""

    def answer(self, request: bytes) -> bytes:
        return b"heard " + request

    def reset(self) -> None:
        pass


MAC = bytes.fromhex("525400123456")
BUILDERS: dict[str, Callable[[bool], VirtioDevice]] = {
    "block": lambda packed: Block(BlockQueue(Disk()), serial="s1", queues=2, packed=packed),
    "net": lambda packed: Net(Wires(coming=[MAC + bytes(60)] * 5), MAC, queues=2, packed=packed),
    "console": lambda packed: Console(
        [Port(waiting=bytearray(b"typed" * 9)), Port()], ["", "x"], packed=packed
    ),
    "rng": lambda packed: Rng(lambda size: b"\x5a" * size, packed=packed),
    "share": lambda packed: Share(Folder(), "tag", packed=packed),
    "vsock": lambda packed: Vsock(Sockets(), packed=packed),
    "balloon": lambda packed: Balloon(packed=packed),
}


@pytest.fixture(params=sorted(BUILDERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[False, True], ids=["split", "packed"])
def packed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def driver(name: str, packed: bool) -> Driver:
    return Driver(BUILDERS[name](packed), packed=packed)


def test_identity(driver: Driver) -> None:
    assert driver.get(mmio.MAGIC).to_bytes(4, "little") == b"virt"
    assert driver.get(mmio.VERSION) == 2
    assert driver.get(mmio.DEVICE_ID) == driver.device.DEVICE_ID


def test_features_are_negotiated(driver: Driver) -> None:
    """2.2: only what is offered; a modern device needs VERSION_1."""
    offered = driver.offered
    assert offered & (VERSION_1 | EVENT_IDX | INDIRECT) == VERSION_1 | EVENT_IDX | INDIRECT
    assert bool(offered & PACKED) is driver.packed
    assert not driver.negotiate(0), "without VERSION_1"
    for bit in range(64):
        if not offered >> bit & 1:
            assert not driver.negotiate(VERSION_1 | 1 << bit), f"bit {bit} was not offered"
    assert driver.negotiate(offered)
    driver.put(mmio.DRIVER_FEATURES_SEL, 0)
    driver.put(mmio.DRIVER_FEATURES, 0)
    assert driver.device.accepted == offered, "too late"


def test_bits_beyond_64_are_refused(driver: Driver) -> None:
    driver.put(mmio.DRIVER_FEATURES_SEL, 2)
    driver.put(mmio.DRIVER_FEATURES, 1)
    driver.put(mmio.STATUS, FEATURES_OK | 3)
    assert not driver.get(mmio.STATUS) & FEATURES_OK
    driver.put(mmio.DEVICE_FEATURES_SEL, 2)
    assert driver.get(mmio.DEVICE_FEATURES) == 0


def test_driver_ok_needs_features_ok(driver: Driver) -> None:
    driver.put(mmio.STATUS, 3)
    driver.put(mmio.STATUS, 3 | DRIVER_OK)
    assert not driver.get(mmio.STATUS) & DRIVER_OK


def test_nothing_is_used_before_driver_ok(driver: Driver) -> None:
    """3.1.1: a device must not consume buffers before DRIVER_OK."""
    driver.start()
    driver.put(mmio.STATUS, 0)
    for index in range(len(driver.device.queues)):
        driver.kick(index)
    assert not driver.wire.level
    assert driver.get(mmio.STATUS) == 0


def test_reset_forgets(driver: Driver) -> None:
    """2.4: after a reset the device is as after power-on."""
    fresh = driver.transport.state()
    driver.start(driver.offered & ~PACKED)
    driver.put(mmio.STATUS, 0)
    assert driver.transport.state() == fresh
    driver.put(mmio.QUEUE_SEL, 0)
    assert driver.get(mmio.QUEUE_READY) == 0


def test_queues_are_kept_while_ready(driver: Driver) -> None:
    driver.start()
    driver.put(mmio.QUEUE_SEL, 0)
    before = driver.device.queues[0].descriptors
    driver.put(mmio.QUEUE_DESC, 0x5000)
    driver.put(mmio.QUEUE_SIZE, 8)
    assert driver.device.queues[0].descriptors == before
    driver.put(mmio.QUEUE_RESET, 1)
    assert driver.get(mmio.QUEUE_READY) == 0
    driver.put(mmio.QUEUE_SEL, 1000)
    assert driver.get(mmio.QUEUE_SIZE_MAX) == 0
    driver.put(mmio.QUEUE_READY, 1)
    driver.kick(1000)


def test_broken_rings_need_a_reset(driver: Driver) -> None:
    """2.1.2: DEVICE_NEEDS_RESET with a configuration interrupt, until the driver resets."""
    driver.start()
    ring = driver.rings[0]
    ring.add([], [16])
    at = ring.base + 16 * 0
    driver.memory.write(at, struct.pack("<Q", 1 << 50))
    driver.device.available(0) if driver.device.DEVICE_ID == 99 else driver.kick(0)
    if not driver.broken:
        # Devices that wait for something to put into the buffer look at it when it comes.
        assert driver.device.take(0) is None
    assert driver.broken
    assert driver.get(mmio.INTERRUPT_STATUS) & 2
    driver.kick(0)
    assert not ring.collect()
    driver.start()
    assert not driver.broken


def test_rings_that_can_not_be(driver: Driver) -> None:
    assert driver.negotiate(VERSION_1)
    driver.put(mmio.QUEUE_SEL, 0)
    driver.put(mmio.QUEUE_DESC, 0x1001)
    driver.put(mmio.QUEUE_READY, 1)
    assert driver.broken


def test_state_goes_on_elsewhere(driver: Driver, name: str) -> None:
    driver.start(EVENT_IDX)
    state = driver.transport.state()
    other = Driver(BUILDERS[name](driver.packed), packed=driver.packed)
    other.memory.write(0, driver.memory.read(0, 1 << 22))
    other.transport.restore(state)
    assert other.transport.state() == state


def test_random_accesses_harm_nobody(driver: Driver) -> None:
    fuzz(driver, seed=1, count=4000)


@pytest.mark.soak
def test_ten_million_random_accesses(driver: Driver) -> None:
    fuzz(driver, seed=2, count=10_000_000)


def fuzz(driver: Driver, seed: int, count: int) -> None:
    """Random registers, rings and configuration; everything outside the guest's memory faults."""
    rng = random.Random(seed)
    registers = [value for key, value in vars(mmio).items() if key.isupper() and type(value) is int]
    common = EVENT_IDX | INDIRECT
    choices = [0, common, driver.offered & ~PACKED]
    driver.start(rng.choice(choices))
    for _ in range(count):
        choice = rng.random()
        if choice < 0.35:
            at = rng.choice([0x10000, 0x12000, 0x13000, DATA]) + rng.randrange(256)
            value = rng.choice([rng.getrandbits(64), rng.randrange(64), DATA, 1 << 22])
            driver.memory.write(at, value.to_bytes(8, "little"))
        elif choice < 0.6:
            driver.kick(rng.randrange(6))
        elif choice < 0.8:
            driver.put(rng.choice(registers), rng.choice([0, 1, 2, 15, rng.getrandbits(32)]))
        elif choice < 0.9:
            driver.transport.write(mmio.CONFIG + rng.randrange(256), rng.choice([1, 2, 4, 8]), 7)
        else:
            driver.transport.read(rng.randrange(0x1000), rng.choice([1, 2, 4, 8]))
        if driver.broken or rng.random() < 0.002:
            driver.start(rng.choice(choices))
        if rng.random() < 0.01:
            driver.clock.advance(1)


# Kinds.


def request(kind: int, sector: int = 0) -> bytes:
    return struct.pack("<IIQ", kind, 0, sector)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def block(disk: Disk, packed: bool) -> Driver:
    device = Block(BlockQueue(disk), serial="serial-1", packed=packed)
    return Driver(device, packed=packed).start((1 << 9) | (1 << 11) | (1 << 13) | (1 << 14))


def test_block_reads_and_writes(block: Driver, disk: Disk) -> None:
    data = bytes(range(256)) * 4
    assert block.send(0, [request(1, 3), data[:100], data[100:]], [1]) == (1, b"\0")
    assert disk.bytes[3 * 512 : 5 * 512] == data
    assert disk.flushes == 0
    written, got = block.send(0, [request(0, 3)], [1000, 24, 1])
    assert (written, got) == (1025, data + b"\0")


def test_block_limits(block: Driver, disk: Disk) -> None:
    assert block.config(0, 8) == disk.size // 512
    for sector, length in [(2048, 512), (2047, 1024), (1 << 60, 512), (0, 511)]:
        assert block.send(0, [request(1, sector), bytes(length)], [1])[1] == b"\1"
        assert block.send(0, [request(0, sector)], [length, 1])[1][-1] == 1
    assert block.send(0, [request(77)], [1])[1] == b"\2"
    disk.fail = True
    assert block.send(0, [request(0)], [512, 1])[1][-1] == 1


def test_block_flush_and_cache_mode(block: Driver, disk: Disk) -> None:
    assert block.send(0, [request(4)], [1])[1] == b"\0"
    assert disk.flushes == 1
    block.transport.write(mmio.CONFIG + 32, 1, 0)
    block.send(0, [request(1), bytes(512)], [1])
    assert disk.flushes == 2, "write-through"
    block.start()
    block.send(0, [request(1), bytes(512)], [1])
    assert disk.flushes == 3, "a driver without FLUSH expects writes to last"


def test_block_identity(block: Driver) -> None:
    assert block.send(0, [request(8)], [20, 1])[1] == b"serial-1".ljust(20, b"\0") + b"\0"


def test_block_discard_and_zeroes(block: Driver, disk: Disk) -> None:
    disk.bytes[:] = b"\xff" * disk.size
    ranges = struct.pack("<QII", 8, 8, 0) + struct.pack("<QII", 32, 1, 0)
    for kind in (11, 13):
        assert block.send(0, [request(kind), ranges], [1])[1] == b"\0"
        assert not any(disk.bytes[8 * 512 : 16 * 512])
        assert not any(disk.bytes[32 * 512 : 33 * 512])
        assert disk.bytes[33 * 512] == disk.bytes[7 * 512] == 0xFF
    assert block.send(0, [request(11), struct.pack("<QII", 0, 1, 1)], [1])[1] == b"\2"
    assert block.send(0, [request(13), struct.pack("<QII", 2047, 2, 0)], [1])[1] == b"\1"
    assert block.send(0, [request(11), b"short"], [1])[1] == b"\1"


def test_block_readonly(packed: bool) -> None:
    driver = Driver(Block(BlockQueue(Disk(readonly=True)), packed=packed), packed=packed)
    assert driver.offered & 1 << 5
    driver.start(1 << 5)
    assert driver.send(0, [request(1), bytes(512)], [1])[1] == b"\1"


def test_block_without_status_breaks(block: Driver) -> None:
    block.rings[0].add([request(1), bytes(512)], [])
    block.kick(0)
    assert block.broken


NET = (1 << 0) | (1 << 5) | (1 << 11) | (1 << 12) | (1 << 16) | (1 << 17) | (1 << 18)
HEADER = bytes(12)


def net(packed: bool, features: int = NET, queues: int = 1) -> tuple[Driver, Wires]:
    wires = Wires()
    driver = Driver(Net(wires, MAC, queues=queues, packed=packed), packed=packed)
    return driver.start(features), wires


def test_net_sends(packed: bool) -> None:
    driver, wires = net(packed)
    frame = bytes(range(60))
    assert driver.send(1, [HEADER, frame], []) == (0, b"")
    assert driver.send(1, [HEADER + frame[:20], frame[20:]], []) == (0, b"")
    assert wires.sent == [frame, frame]
    for bad in (HEADER, b"", HEADER + bytes(70000)):
        driver.send(1, [bad, b"x"], [])
    assert len(wires.sent) == 2


def test_net_receives(packed: bool) -> None:
    driver, wires = net(packed)
    frame = MAC + bytes(range(54))
    driver.rings[0].add([], [12, 1514])
    wires.coming.append(frame)
    driver.kick(0)
    ((_, written, data),) = driver.rings[0].collect()
    assert written == 72
    assert data[:72] == bytes(10) + b"\1\0" + frame
    assert driver.wire.level


def test_net_merges_buffers(packed: bool) -> None:
    driver, wires = net(packed, NET | 1 << 15)
    for _ in range(4):
        driver.rings[0].add([], [100])
    frame = MAC + bytes(244)
    wires.coming.append(frame)
    driver.kick(0)
    used = driver.rings[0].collect()
    assert [written for _, written, _ in used] == [100, 100, 62]
    data = b"".join(data[:written] for _, written, data in used)
    assert data[12:] == frame
    assert data[10:12] == b"\3\0"


def test_net_filters_and_control(packed: bool) -> None:
    driver, wires = net(packed)
    stranger = bytes.fromhex("020000000009") + bytes(54)
    driver.rings[0].add([], [1600])

    def control(kind: int, command: int, data: bytes) -> int:
        return driver.send(2, [bytes((kind, command)), data], [1])[1][0]

    wires.coming.append(stranger)
    driver.kick(0)
    assert not driver.rings[0].collect()
    assert control(0, 0, b"\1") == 0, "promiscuous"
    wires.coming.append(stranger)
    driver.kick(0)
    assert len(driver.rings[0].collect()) == 1
    assert control(0, 0, b"\0") == 0
    assert control(1, 0, struct.pack("<I6sI", 1, stranger[:6], 0)) == 0, "address table"
    driver.rings[0].add([], [1600])
    wires.coming.append(stranger)
    driver.kick(0)
    assert len(driver.rings[0].collect()) == 1
    assert control(1, 0, struct.pack("<I6sI", 9, stranger[:6], 0)) == 1
    assert control(9, 9, b"") == 1
    assert control(4, 0, b"\2\0") == 1, "multiqueue was not negotiated"


def test_net_feature_dependencies(packed: bool) -> None:
    driver, _ = net(packed)
    base = VERSION_1
    assert not driver.negotiate(base | 1 << 11), "TSO without checksums"
    assert not driver.negotiate(base | 1 << 18), "receive filters without a control queue"
    assert driver.negotiate(base | 1 << 0 | 1 << 11)


def test_rng(packed: bool) -> None:
    driver = Driver(BUILDERS["rng"](packed), packed=packed).start()
    assert driver.send(0, [], [10, 20]) == (30, b"\x5a" * 30)


def test_console(packed: bool) -> None:
    port = Port(waiting=bytearray(b"typed"))
    driver = Driver(Console([port], packed=packed), packed=packed).start(1)
    assert driver.send(1, [b"out", b"put"], []) == (0, b"")
    assert port.written == b"output"
    assert driver.send(0, [], [64])[1][:5] == b"typed"


def test_console_ports(packed: bool) -> None:
    ports = [Port(), Port(waiting=bytearray(b"abc"))]
    driver = Driver(Console(ports, ["", "agent"], packed=packed), packed=packed).start(3)
    for _ in range(8):
        driver.rings[2].add([], [64])
    driver.kick(2)
    told = []

    def tell(port: int, event: int, value: int) -> None:
        driver.send(3, [struct.pack("<IHH", port, event, value)], [])
        told.extend(data[:written] for _, written, data in driver.rings[2].collect())

    tell(0xFFFFFFFF, 0, 1)
    assert [struct.unpack("<IHH", message) for message in told] == [(0, 1, 1), (1, 1, 1)]
    told.clear()
    tell(1, 3, 1)
    assert told == [struct.pack("<IHH", 1, 7, 1) + b"agent", struct.pack("<IHH", 1, 6, 1)]
    driver.rings[4].add([], [16])
    driver.kick(4)
    assert not driver.rings[4].collect(), "the port is not open"
    tell(1, 6, 1)
    ((_, written, data),) = driver.rings[4].collect()
    assert data[:written] == b"abc"


def test_balloon_gives_memory_back(packed: bool) -> None:
    balloon = Balloon(packed=packed)
    driver = Driver(balloon, packed=packed).start(2 | 32)
    driver.memory.fill(0x200000, 0x4000, 7)
    driver.send(0, [struct.pack("<3I", 0x200, 0x201, 0x203)], [])
    got = driver.memory.read(0x200000, 0x4000)
    assert not any(got[:0x2000])
    assert got[0x2000:0x3000] == b"\7" * 0x1000
    assert balloon.returned == 0x3000
    balloon.set_target(5 << 20)
    assert driver.config(0, 4) == 1280
    assert driver.get(mmio.INTERRUPT_STATUS) & 2


def test_balloon_statistics(packed: bool) -> None:
    balloon = Balloon(packed=packed)
    driver = Driver(balloon, packed=packed).start(2)
    driver.rings[2].add([struct.pack("<HQHQ", 4, 1000, 5, 2000)], [])
    driver.kick(2)
    assert not driver.rings[2].collect(), "kept until statistics are wanted"
    assert balloon.statistics == {"free_memory": 1000, "total_memory": 2000}
    assert balloon.request_statistics(lambda values: None)
    assert len(driver.rings[2].collect()) == 1
    assert not balloon.request_statistics(lambda values: None)


def test_share(packed: bool) -> None:
    driver = Driver(Share(Folder(), "tag", packed=packed), packed=packed).start(1)
    assert driver.config(0, 2) == 3
    assert driver.config(2, 2) == int.from_bytes(b"ta", "little")
    assert driver.send(0, [b"req", b"uest"], [8, 20]) == (13, b"heard request".ljust(28, b"\0"))


class Peer:
    """The guest's side of the socket device."""

    def __init__(self, packed: bool) -> None:
        self.sockets = Sockets()
        self.driver = Driver(Vsock(self.sockets, packed=packed), packed=packed).start()
        self.refill()

    def refill(self) -> None:
        while len(self.driver.rings[0].buffers) < 8:
            self.driver.rings[0].add([], [4096])
        self.driver.kick(0)

    def tell(self, operation: int, *, port: int = 80, data: bytes = b"", room: int = 1000) -> None:
        head = struct.pack(
            "<QQIIIHHIII", 3, 2, 5000, port, len(data), 1, operation, 3, room, self.heard
        )
        self.driver.send(1, [head + data], [])

    heard = 0

    def hear(self) -> list[tuple[int, bytes]]:
        found = []
        for _, written, raw in self.driver.rings[0].collect():
            operation, length = raw[30], int.from_bytes(raw[24:28], "little")
            assert written == 44 + length
            found.append((operation, raw[44 : 44 + length]))
            self.heard += length
        self.refill()
        return found


def test_vsock_connects(packed: bool) -> None:
    peer = Peer(packed)
    peer.tell(1, port=81)
    assert peer.hear() == [(3, b"")], "nobody listens at 81"
    peer.tell(5, data=b"lost")
    assert peer.hear() == [(3, b"")], "there is no connection yet"
    peer.tell(1)
    assert peer.hear() == [(2, b"")]
    peer.tell(5, data=b"hello")
    assert peer.sockets.pipe.got == b"hello"
    peer.sockets.pipe.coming += b"world"
    peer.sockets.wake()
    assert peer.hear() == [(5, b"world")]
    peer.sockets.pipe.ended = True
    peer.sockets.wake()
    assert peer.hear() == [(4, b"")]
    peer.tell(4)
    assert peer.hear() == [(3, b"")]
    assert peer.sockets.pipe.closed


def test_vsock_keeps_to_the_credit(packed: bool) -> None:
    peer = Peer(packed)
    peer.tell(1, room=10)
    peer.hear()
    peer.sockets.pipe.coming += b"x" * 25
    peer.sockets.wake()
    assert peer.hear() == [(5, b"x" * 10)]
    peer.tell(6, room=10)
    assert peer.hear() == [(5, b"x" * 10)]
    peer.tell(7, room=0)
    assert peer.hear() == [(6, b"")], "asked for its own credit"


def test_vsock_cuts_off_who_sends_too_much(packed: bool) -> None:
    peer = Peer(packed)
    peer.tell(1)
    peer.hear()
    peer.sockets.pipe.room = 0
    for _ in range(4):
        peer.tell(5, data=bytes(64 << 10))
    assert peer.hear() == []
    peer.tell(5, data=b"x")
    assert peer.hear() == [(3, b"")]


def test_vsock_opens_ports_of_the_guest(packed: bool) -> None:
    peer = Peer(packed)
    peer.sockets.accept(22, peer.sockets)
    ((_, _, raw),) = peer.driver.rings[0].collect()
    assert raw[30] == 1
    local = int.from_bytes(raw[16:20], "little")
    assert int.from_bytes(raw[20:24], "little") == 22
    head = struct.pack("<QQIIIHHIII", 3, 2, 22, local, 0, 1, 2, 0, 1000, 0)
    peer.refill()
    peer.driver.send(1, [head], [])
    peer.sockets.pipe.coming += b"in"
    peer.sockets.wake()
    assert peer.hear() == [(5, b"in")]
