"""Screen, keyboard and control socket of a machine, without a guest."""

import asyncio
import re
from pathlib import Path
from threading import RLock, Timer
from typing import Any

import pytest
from PIL import Image

from ringfence.accel.video import Picture
from ringfence.bus.keys import KEYS
from ringfence.bus.screen import Surface, TextPage
from ringfence.devices.input.i8042 import I8042
from ringfence.display.images import difference, open_image, save_image
from ringfence.errors import ConfigError, EngineError, GuestStopped, GuestTimeout, ImageError
from ringfence.machine.control import ControlSocket, ask, socket_path
from ringfence.machine.input import Keyboard, Mouse
from ringfence.machine.screen import Screen
from support.fake_devices import Wire
from support.screens import Painting


class Display:
    """A surface with a text, or a painting."""

    def __init__(self) -> None:
        self.painting = Painting(16, 8)
        self.codes: bytes | None = None
        self.changes = 0

    def write(self, text: str) -> None:
        self.codes = text.encode("cp437").ljust(40)
        self.changes += 1

    def stamp(self) -> object:
        return self.changes, self.painting.changes

    def plan(self, *, steady: bool = False) -> tuple[Any, Any]:
        return self.painting.plan()

    def text(self) -> TextPage | None:
        if self.codes is None:
            return None
        return TextPage(self.codes, bytes(40), 20, None, (0,) * 16, True)


class Bench:
    def __init__(self) -> None:
        self.display: Display | None = Display()
        self.ended = False
        lock = RLock()

        def surface() -> Surface | None:
            return self.display

        self.screen = Screen(
            lock, surface, Picture, ended=lambda: self.ended, console=lambda: "last words"
        )
        self.i8042: I8042 | None = I8042(Wire(), lambda: None, aux_irq=Wire())
        self.keyboard = Keyboard(lock, lambda: self.i8042)
        self.mouse = Mouse(lock, lambda: self.i8042)

    def taken(self) -> list[int]:
        taken = []
        assert self.i8042
        while self.i8042.read(4, 1) & 1:
            taken.append(self.i8042.read(0, 1))
        return taken


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_text(bench: Bench) -> None:
    assert bench.screen.text() == ""
    assert bench.display
    bench.display.write("Hello, world ─┐".ljust(20) + "second")
    assert bench.screen.text() == "Hello, world ─┐\nsecond"


def test_waiting_for_a_text(bench: Bench) -> None:
    assert bench.display
    Timer(0.1, bench.display.write, ["ready 42"]).start()
    assert bench.screen.wait_text(re.compile(r"ready \d+"), 10) == "ready 42"
    assert asyncio.run(bench.screen.wait_text_async("42", 10)) == "ready 42"


def test_waiting_in_vain(bench: Bench, tmp_path: Path) -> None:
    assert bench.display
    bench.display.write("something else")
    bench.screen.dump_to = tmp_path
    with pytest.raises(GuestTimeout) as caught:
        bench.screen.wait_text("login:", 0.1)
    said = str(caught.value)
    for text in ("'login:' did not come within 0.1 s", "something else", "last words"):
        assert text in said
    assert (tmp_path / "screen.png").exists()
    bench.ended = True
    with pytest.raises(GuestStopped, match="ended before it showed 'login:'"):
        bench.screen.wait_text("login:", 10)


def test_pictures(bench: Bench, tmp_path: Path) -> None:
    assert bench.display
    bench.display.painting.paint(0, 0, 16, 8, 0x102030)
    image = bench.screen.image()
    assert image.size == (16, 8)
    assert image.getpixel((0, 0)) == (0x10, 0x20, 0x30)
    path = tmp_path / "picture.png"
    bench.screen.save(path)
    assert bench.screen.wait_image(path, 10).size == (16, 8)
    near = Image.new("RGB", (16, 8), (0x12, 0x20, 0x30))
    with pytest.raises(GuestTimeout, match=r"the nearest differed by 0\.0026"):
        bench.screen.wait_image(near, 0.1)
    bench.screen.wait_image(near, 10, tolerance=0.01)
    part = Image.new("RGB", (2, 2), (0x10, 0x20, 0x30))
    bench.screen.wait_image(part, 10, region=(3, 3, 2, 2))
    asyncio.run(bench.screen.wait_image_async(part, 10, region=(3, 3, 2, 2)))
    assert difference(near, part) == 1.0


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    text = tmp_path / "text.png"
    text.write_text("no picture")
    for path in (text, tmp_path / "missing.png"):
        with pytest.raises(ImageError, match="can't be read"):
            open_image(path)
    image = Image.new("RGB", (1, 1))
    with pytest.raises(ConfigError, match="no picture format"):
        save_image(image, tmp_path / "picture.flux")
    with pytest.raises(ImageError, match="can't be written"):
        save_image(image, tmp_path / "missing" / "picture.png")


def test_no_display(bench: Bench) -> None:
    bench.display = None
    for call in (bench.screen.text, bench.screen.image):
        with pytest.raises(EngineError, match="no display"):
            call()
    assert bench.screen.plan() is None


def test_typing(bench: Bench) -> None:
    taken: list[int] = []

    def serve() -> None:
        taken.extend(bench.taken())
        if not done:
            Timer(0.005, serve).start()

    done = False
    serve()
    bench.keyboard.type("aB\n", interval=0.01)
    bench.keyboard.press("ctrl-alt-del", "kp-5", interval=0.01)
    done = True
    taken += bench.taken()
    assert taken[:8] == [0x1E, 0x9E, 0x2A, 0x30, 0xB0, 0xAA, 0x1C, 0x9C]
    assert taken[8:16] == [0x1D, 0x38, 0xE0, 0x53, 0xE0, 0xD3, 0xB8, 0x9D]
    assert taken[16:] == [0x4C, 0xCC]


def test_holding(bench: Bench) -> None:
    bench.keyboard.down("shift")
    assert bench.taken() == [0x2A]
    bench.keyboard.send(KEYS["a"], True)
    bench.taken()
    bench.keyboard.release_all()
    assert sorted(bench.taken()) == [0x9E, 0xAA]


@pytest.mark.parametrize("chord", ["", "hyper-x", "ctrl--", "kp-"])
def test_keys_that_there_are_not(bench: Bench, chord: str) -> None:
    with pytest.raises(ConfigError, match="there is no key"):
        bench.keyboard.press(chord)


def test_mouse(bench: Bench) -> None:
    assert bench.i8042
    bench.i8042.write(4, 1, 0xD4)
    bench.i8042.write(0, 1, 0xF4)
    bench.taken()
    bench.mouse.move(5, 6)
    assert bench.taken() == [0x28, 5, 0xFA]
    bench.mouse.down("right")
    assert bench.taken() == [0x0A, 0, 0]
    bench.mouse.up("right")
    with pytest.raises(ConfigError, match="no mouse button 'third'"):
        bench.mouse.click("third")
    bench.i8042 = None
    with pytest.raises(EngineError, match="no mouse"):
        bench.mouse.move(1, 1)
    with pytest.raises(EngineError, match="no keyboard"):
        bench.keyboard.press("a")


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_control_socket(bench: Bench, runtime: Path) -> None:
    assert bench.display
    bench.display.write("shown")
    control = ControlSocket("web", bench.screen)
    try:
        assert ask("web", "text") == b"shown"
        assert ask("web", "screenshot").startswith(b"\x89PNG")
        with pytest.raises(EngineError, match="no operation 'explode'"):
            ask("web", "explode")
        with pytest.raises(ConfigError, match="a machine named 'web' runs already"):
            ControlSocket("web", bench.screen)
        bench.display = None
        with pytest.raises(EngineError, match="no display"):
            ask("web", "text")
    finally:
        control.close()
    with pytest.raises(ConfigError, match="no machine named 'web' runs"):
        ask("web", "text")


def test_a_socket_left_behind_is_no_machine(bench: Bench, runtime: Path) -> None:
    socket_path("web").touch()
    ControlSocket("web", bench.screen).close()


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 49])
def test_names(runtime: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is not a name"):
        socket_path(name)


def test_a_folder_of_others_is_not_used(runtime: Path) -> None:
    (runtime / "ringfence").mkdir(mode=0o777)
    (runtime / "ringfence").chmod(0o777)
    with pytest.raises(ConfigError, match="not ours alone"):
        socket_path("web")
