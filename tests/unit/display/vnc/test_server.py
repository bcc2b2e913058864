"""The VNC server against a viewer of ours, and against clients that mean no good."""

import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import pytest

from ringfence.bus.keys import KEYS
from ringfence.display.hub import ScreenHub
from ringfence.display.source import Desk
from ringfence.display.vnc import VncConfig, VncServer
from ringfence.errors import ConfigError
from support import vnc_client
from support.screens import Moves, Painting, Strokes
from support.vnc_client import COPY_RECT, DESKTOP_SIZE, RAW, ZRLE, Viewer


class Bench:
    def __init__(self, **options: Any) -> None:
        self.painting = Painting()
        self.keys, self.mouse = Strokes(), Moves()
        self.hub = ScreenHub(self.painting, rate=100)
        self.server = VncServer(
            VncConfig(port=0, **options), Desk(self.painting, self.keys, self.mouse), self.hub
        )
        self.server.start()
        self.address = self.server.address

    def close(self) -> None:
        self.server.close()
        self.server.join(10)

    def viewer(self, *encodings: int, **options: Any) -> Viewer:
        return Viewer(self.address, encodings or (ZRLE, COPY_RECT, RAW, DESKTOP_SIZE), **options)

    def shows(self, viewer: Viewer) -> bool:
        return bytes(viewer.pixels) == bytes(self.painting.data)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def wait(condition: Any, seconds: float = 10.0) -> bool:
    deadline = monotonic() + seconds
    while not condition():
        if monotonic() > deadline:
            return False
        sleep(0.005)
    return True


def noise(painting: Painting, seed: int) -> bytes:
    """Areas of every kind that ZRLE tells apart: plain, few colours, runs, and noise."""
    rng = random.Random(seed)
    data = bytearray()
    for y in range(painting.height):
        for x in range(painting.width):
            kind = (x // 64 + y // 64) % 5
            color = {
                0: 0x102030,
                1: (x ^ y) & 1,
                2: rng.randrange(12),
                3: x * y // 700 * 0x10305,
                4: rng.getrandbits(24),
            }[kind]
            data += (color & 0xFFFFFF).to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize("encoding", [RAW, ZRLE])
def test_picture(bench: Bench, encoding: int) -> None:
    bench.painting.fill(noise(bench.painting, 1))
    with bench.viewer(encoding) as viewer:
        assert (viewer.width, viewer.height) == (320, 200)
        assert set(viewer.update(incremental=False)) == {encoding}
        assert bench.shows(viewer)
        bench.painting.paint(10, 20, 30, 5, 0xABCDEF)
        viewer.update()
        assert bench.shows(viewer)


def test_nothing_is_drawn_for_nobody(bench: Bench) -> None:
    with bench.viewer() as viewer:
        viewer.update(incremental=False)
    assert wait(lambda: bench.hub.viewers == 0)
    before = bench.painting.plans
    for _ in range(10):
        bench.painting.paint(0, 0, 5, 5, random.getrandbits(24))
        sleep(0.01)
    assert bench.painting.plans == before


def test_a_scroll_is_a_copy(bench: Bench) -> None:
    rows = [random.Random(line).randbytes(4 * 320) for line in range(216)]
    rows = [bytes(0 if at % 4 == 3 else byte for at, byte in enumerate(row)) for row in rows]
    bench.painting.fill(b"".join(rows[:200]))
    with bench.viewer() as viewer:
        viewer.update(incremental=False)
        bench.painting.fill(b"".join(rows[16:]))
        kinds = viewer.update()
        while not bench.shows(viewer):
            kinds += viewer.update()
        assert COPY_RECT in kinds


def test_changes_add_up_correctly(bench: Bench) -> None:
    """Scrolls and changes while a viewer is slow: in the end it shows the picture."""
    rng = random.Random(5)
    done = False

    def paint() -> None:
        while not done:
            with bench.painting.lock:
                data = bench.painting.data
                line = 4 * 320 * rng.choice([8, 16])
                data[:-line] = data[line:]
                data[-line:] = bytes(b & 0x3F for b in rng.randbytes(line // 4)) * 4
                data[3::4] = bytes(len(data) // 4)
                bench.painting.changes = object()
            sleep(rng.random() / 100)

    thread = Thread(target=paint)
    thread.start()
    try:
        with bench.viewer() as viewer:
            viewer.update(incremental=False)
            for _ in range(60):
                viewer.update()
                sleep(rng.random() / 50)
            done = True
            thread.join()
            # One more change, so that there is an update to wait for.
            bench.painting.paint(0, 0, 1, 1, 0x123456)
            deadline = monotonic() + 10
            while not bench.shows(viewer) and monotonic() < deadline:
                viewer.update(incremental=False)
            before = bytes(viewer.pixels)
            assert before == bytes(bench.painting.data)
            assert COPY_RECT in viewer.seen
    finally:
        done = True
        thread.join()


def test_resize(bench: Bench) -> None:
    with bench.viewer() as viewer:
        viewer.update(incremental=False)
        bench.painting.resize(640, 480)
        bench.painting.paint(600, 400, 10, 10, 0x445566)
        while not bench.shows(viewer):
            viewer.update()
        assert (viewer.width, viewer.height) == (640, 480)


def test_a_viewer_that_can_not_resize(bench: Bench) -> None:
    with bench.viewer(RAW) as viewer:
        viewer.update(incremental=False)
        for size in (640, 480), (160, 100):
            bench.painting.resize(*size)
            bench.painting.paint(0, 0, 8, 8, 0x445566 + size[0])
            deadline = monotonic() + 10
            while viewer.pixel(0, 0) != 0x445566 + size[0] and monotonic() < deadline:
                viewer.update(incremental=False)
            assert viewer.pixel(0, 0) == 0x445566 + size[0]


@pytest.mark.parametrize("bits", [8, 16])
def test_pixel_formats(bench: Bench, bits: int) -> None:
    bench.painting.fill(bytes.fromhex("ff00ff00") * (320 * 200))
    largest, shift = ((7, 7, 3), (0, 3, 6)) if bits == 8 else ((31, 63, 31), (11, 5, 0))
    with bench.viewer(RAW) as viewer:
        viewer.send(
            struct.pack(">Bxxx", 0)
            + struct.pack(">BBBBHHHBBB3x", bits, bits, 1, 1, *largest, *shift)
        )
        viewer.request(incremental=False)
        assert viewer.read(4) == b"\0\0\0\1"
        viewer.read(12)
        pixel = viewer.read(320 * 200 * bits // 8)[: bits // 8]
        assert pixel == (b"\xc7" if bits == 8 else b"\xf8\x1f")


def test_viewers_without_true_colors(bench: Bench) -> None:
    with bench.viewer(RAW) as viewer:
        viewer.send(struct.pack(">Bxxx", 0) + struct.pack(">BBBBHHHBBB3x", 8, 8, *[0] * 8))
        header = viewer.read(6)
        assert header == struct.pack(">BxHH", 1, 0, 256)
        colors = viewer.read(6 * 256)
        assert colors[-6:] == b"\xff" * 6


def test_keys(bench: Bench) -> None:
    with bench.viewer(RAW, vnc_client.EXTENDED_KEYS) as viewer:
        assert vnc_client.EXTENDED_KEYS in viewer.update(incremental=False)
        viewer.stroke("a\n")
        viewer.key(0xFF0D)
        # The number counts, whatever is printed on the key.
        viewer.send(struct.pack(">BBHII", 255, 0, 1, ord("q"), KEYS["a"]))
        viewer.send(struct.pack(">BBHII", 255, 0, 1, 0xFF55, 0xC9))
        assert wait(lambda: len(bench.keys.sent) >= 7)
    a, enter = KEYS["a"], KEYS["enter"]
    assert bench.keys.sent[:7] == [
        (a, True),
        (a, False),
        (enter, True),
        (enter, False),
        (enter, True),
        (a, True),
        (KEYS["pageup"], True),
    ]
    assert wait(lambda: len(bench.keys.sent) == 10), "what is held is released at the end"
    assert {number for number, down in bench.keys.sent[7:] if not down} == {
        a,
        enter,
        KEYS["pageup"],
    }


def test_mouse(bench: Bench) -> None:
    with bench.viewer(RAW) as viewer:
        for mask, x, y in [(0, 10, 10), (1, 15, 8), (4, 15, 8), (16, 15, 8), (0, 15, 8)]:
            viewer.send(struct.pack(">BBHH", 5, mask, x, y))
        assert wait(lambda: len(bench.mouse.sent) >= 5)
    assert bench.mouse.sent == [
        (0, 0, 0, 0),
        (5, -2, 0, 1),
        (0, 0, 0, 2),
        (0, 0, 1, 0),
        (0, 0, 0, 0),
    ]


def test_relative_mouse(bench: Bench) -> None:
    with bench.viewer(RAW, vnc_client.POINTER_MOTION, vnc_client.CURSOR) as viewer:
        kinds = viewer.update(incremental=False)
        assert {vnc_client.POINTER_MOTION, vnc_client.CURSOR} <= set(kinds)
        viewer.send(struct.pack(">BBHH", 5, 0, 0x7FFF + 3, 0x7FFF - 4))
        assert wait(lambda: bench.mouse.sent == [(3, -4, 0, 0)])


def test_lights(bench: Bench) -> None:
    with bench.viewer(RAW, vnc_client.LEDS) as viewer:
        viewer.update(incremental=False)
        assert viewer.leds == 0
        bench.keys.leds = frozenset({"capslock"})
        assert viewer.update() == [vnc_client.LEDS]
        assert viewer.leds == 4


@pytest.mark.parametrize("version", [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"])
def test_old_versions(bench: Bench, version: bytes) -> None:
    with bench.viewer(RAW, version=version) as viewer:
        viewer.update(incremental=False)
        assert bench.shows(viewer)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_password(tls: bool) -> None:
    bench = Bench(password="secret", tls=tls)
    try:
        with pytest.raises(PermissionError, match="the password is wrong"):
            bench.viewer(RAW, password="guess", tls=tls)
        with bench.viewer(ZRLE, password="secret", tls=tls) as viewer:
            bench.painting.paint(3, 3, 3, 3, 0x777777)
            viewer.update(incremental=False)
            assert bench.shows(viewer)
    finally:
        bench.close()


def test_view_only() -> None:
    bench = Bench(view_only=True)
    try:
        with bench.viewer(RAW) as viewer:
            viewer.stroke("a")
            viewer.send(struct.pack(">BBHH", 5, 1, 15, 8))
            viewer.update(incremental=False)
        assert wait(lambda: bench.server.viewers == 0)
        assert not bench.keys.sent
        assert not bench.mouse.sent
    finally:
        bench.close()


def test_hostile_bytes(bench: Bench) -> None:
    """Random bytes after the handshake, and instead of it: the connection ends, nothing else."""
    rng = random.Random(3)
    for attempt in range(30):
        with socket.create_connection(bench.address, timeout=10) as client:
            if attempt % 2:
                client.sendall(b"RFB 003.008\n\1\1")
            try:
                for _ in range(20):
                    client.sendall(rng.randbytes(rng.randrange(1, 2000)))
            except OSError:
                continue
    with bench.viewer() as viewer:
        viewer.update(incremental=False)
        assert bench.shows(viewer)
    assert wait(lambda: bench.server.viewers == 0)


@pytest.mark.parametrize(
    "message",
    [
        struct.pack(">BxxxI", 6, 0xFFFFFFFF),
        struct.pack(">BxHHBB", 251, 9, 9, 255, 0),
        struct.pack(">BxxxBBBBHHHBBB3x", 0, 33, 24, 0, 1, 255, 255, 255, 0, 0, 0),
        struct.pack(">BxxxBBBBHHHBBB3x", 0, 32, 24, 0, 1, 65535, 255, 255, 30, 0, 0),
        b"\x63",
        b"\xff\x01",
    ],
    ids=["text", "screens", "bits", "shift", "unknown", "audio"],
)
def test_absurd_messages_end_the_connection(bench: Bench, message: bytes) -> None:
    with bench.viewer(RAW) as viewer:
        viewer.send(message)
        with pytest.raises((EOFError, OSError)):
            viewer.read(1 << 20)


def test_huge_rectangles_are_cut(bench: Bench) -> None:
    with bench.viewer(RAW) as viewer:
        for _ in range(1000):
            viewer.send(struct.pack(">BBHHHH", 3, 0, 0, 0, 65535, 65535))
            viewer.send(struct.pack(">BBHHHH", 3, 0, 60000, 60000, 65535, 65535))
        viewer.take()
        assert bench.shows(viewer)


def test_slow_reader_holds_up_itself_alone(bench: Bench) -> None:
    rng = random.Random(9)
    with bench.viewer(RAW) as slow, bench.viewer() as viewer:
        for _ in range(300):
            slow.request(incremental=False)
        for _ in range(30):
            bench.painting.fill(rng.randbytes(4 * 320 * 200))
            viewer.update(incremental=False)
        transport = 1 << 20
        assert bench.painting.width * bench.painting.height * 4 * 30 > transport
        assert bench.server.viewers == 2


def test_connects_and_leaves(bench: Bench) -> None:
    done = False

    def paint() -> None:
        while not done:
            bench.painting.paint(random.randrange(300), random.randrange(190), 9, 9, 0xFF)
            sleep(0.002)

    thread = Thread(target=paint)
    thread.start()
    try:
        for _ in range(20):
            with bench.viewer() as viewer:
                viewer.update(incremental=False)
                viewer.update()
    finally:
        done = True
        thread.join()
    assert wait(lambda: bench.server.viewers == 0 and bench.hub.viewers == 0)


def test_too_many_viewers(bench: Bench) -> None:
    clients = [socket.create_connection(bench.address, timeout=10) for _ in range(40)]
    assert wait(lambda: bench.server.viewers == 32)
    for client in clients:
        client.close()
    assert wait(lambda: bench.server.viewers == 0)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":1", "127.0.0.1", 5901),
        ("7", "127.0.0.1", 5907),
        ("localhost:0", "localhost", 5900),
        ("[::1]:2", "::1", 5902),
    ],
)
def test_places(text: str, host: str, port: int) -> None:
    config = VncConfig.parse(text)
    assert (config.host, config.port) == (host, port)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("everywhere", r"'everywhere' is not \[HOST:\]DISPLAY"),
        (":99999", "is not"),
        (":1,colour=red", "no option 'colour'"),
        ("0.0.0.0:1", "set a password"),
        (":1,cert=x.pem", "a certificate needs its key"),
        (":1,password-file=/nowhere/at/all", "can't be read"),
    ],
)
def test_places_that_are_none(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        VncConfig.parse(text)


def test_password_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret\n")
    assert VncConfig.parse(f"0.0.0.0:1,password-file={path}").password == "secret"


def test_a_port_that_is_taken(bench: Bench) -> None:
    server = VncServer(
        VncConfig(port=bench.address[1]), Desk(bench.painting, bench.keys, bench.mouse), bench.hub
    )
    with pytest.raises(ConfigError, match="can't be served"):
        server.start()
