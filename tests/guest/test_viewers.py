"""People before the screen: a VNC viewer from a package, a window, a terminal, films, snapshots."""

import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from PIL import Image

from ringfence import VM
from ringfence.display.vnc import VncConfig
from support.desktops import Desktop, desktop
from support.terminals import PtyProcess
from support.vnc_client import Viewer

pytestmark = pytest.mark.guest

PROGRAMS = Path(__file__).resolve().parents[1] / "guests" / "screen"
GOLDEN = PROGRAMS.parents[1] / "golden" / "screen"


def wait(condition: Callable[[], Any], seconds: float = 30.0) -> bool:
    deadline = monotonic() + seconds
    while not condition():
        if monotonic() > deadline:
            return False
        sleep(0.05)
    return True


def assembled(name: str, folder: Path) -> Path:
    if shutil.which("nasm") is None:
        pytest.skip("needs nasm")
    disk = folder / f"{name}.img"
    subprocess.run(["nasm", "-f", "bin", "-o", disk, PROGRAMS / f"{name}.asm"], check=True)
    with disk.open("r+b") as file:
        file.truncate(1 << 20)
    return disk


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return assembled("keys", tmp_path)


@pytest.fixture
def planar(tmp_path: Path) -> Path:
    return assembled("planar", tmp_path)


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Desktop]:
    with desktop(tmp_path) as found:
        yield found


def shows(desk: Desktop, picture: Image.Image) -> bool:
    """Whether the picture is somewhere in the middle of the desktop, pointer or not."""
    seen = desk.image()
    left, top = (seen.width - picture.width) // 2, (seen.height - picture.height) // 2
    points = [(x, y) for x in range(3, picture.width, 37) for y in range(3, picture.height, 23)]
    same = sum(seen.getpixel((left + x, top + y)) == picture.getpixel((x, y)) for x, y in points)
    return same > 0.98 * len(points)


@pytest.mark.parametrize("tight", [False, True], ids=["raw", "zrle"])
def test_viewer_sees_and_types(keys: Path, screen: Desktop, tight: bool) -> None:
    if shutil.which("xtightvncviewer") is None:
        pytest.skip("needs xtightvncviewer")
    with VM(disks=[str(keys)], memory="64M", timeout=120) as vm:
        vm.screen.wait_text(">")
        server = vm.serve_vnc(VncConfig(port=0))
        command = ["xtightvncviewer", "-nojpeg", f"127.0.0.1::{server.address[1]}"]
        if tight:
            command[1:1] = ["-encodings", "zrle copyrect"]
        with subprocess.Popen(command, env=screen.environment, stderr=subprocess.PIPE) as viewer:
            try:
                assert wait(lambda: server.viewers == 1)
                assert wait(lambda: shows(screen, vm.screen.image()))
                screen.tell("mousemove", "512", "384", "click", "1")
                screen.tell("key", "a")
                vm.screen.wait_text("1E61")
                screen.tell("key", "F3")
                vm.screen.wait_text("1E61 3D00")
                assert wait(lambda: shows(screen, vm.screen.image()))
            finally:
                viewer.terminate()
        assert wait(lambda: server.viewers == 0)


def resident() -> int:
    """Bytes of memory that this process uses."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_viewers_come_and_go_while_the_guest_goes_on(keys: Path) -> None:
    """Twenty of them, every other one hostile: random bytes, or requests without ever reading."""
    rng = random.Random(11)
    with VM(disks=[str(keys)], memory="64M", timeout=120) as vm:
        vm.screen.wait_text(">")
        server = vm.serve_vnc(VncConfig(port=0))
        with Viewer(server.address) as viewer:
            viewer.update(incremental=False)
        before, lazy = resident(), []
        for attempt in range(20):
            if attempt % 4 == 1:
                with socket.create_connection(server.address, timeout=10) as client:
                    client.sendall(b"RFB 003.008\n\1\1" + rng.randbytes(5000))
            elif attempt % 4 == 3:
                slow = Viewer(server.address, (0,))
                for _ in range(200):
                    slow.send(struct.pack(">BBHHHH", 3, 0, 0, 0, 65535, 65535))
                lazy.append(slow)
            else:
                with Viewer(server.address) as viewer:
                    viewer.update(incremental=False)
                    viewer.stroke("x")
                    assert viewer.update()
        vm.keyboard.type("z")
        vm.screen.wait_text("2C7A")
        assert resident() - before < 64 << 20
        for slow in lazy:
            slow.socket.close()
        assert wait(lambda: server.viewers == 0)


def test_window_shows_and_types(keys: Path, screen: Desktop) -> None:
    pytest.importorskip("tkinter")
    command = [
        *(sys.executable, "-m", "ringfence", "run", "--disk", f"{keys},ephemeral"),
        *("--memory", "64M", "--screen", "window", "--name", f"window-{os.getpid()}"),
    ]
    ask = [sys.executable, "-m", "ringfence", "screenshot", f"window-{os.getpid()}"]

    def text() -> str:
        done = subprocess.run([*ask, "--text"], capture_output=True, text=True, check=False)
        return done.stdout

    with subprocess.Popen(command, env=screen.environment) as window:
        try:
            assert wait(lambda: ">" in text())
            found = screen.tell("search", "--sync", "--name", "window-").split()[0]
            screen.tell("windowfocus", found, "mousemove", "--window", found, "100", "100")
            screen.tell("key", "b")
            assert wait(lambda: "3062" in text())
            taken = keys.parent / "taken.png"
            subprocess.run([*ask, taken], check=True)
            with Image.open(taken) as picture:
                assert picture.size == (720, 400)
                white = screen.image().crop((0, 0, 720, 400)).getextrema()
                assert white[0][1] == picture.convert("RGB").getextrema()[0][1]
        finally:
            window.terminate()


def test_terminal_shows_and_types(keys: Path) -> None:
    command = [sys.executable, "-m", "ringfence", "run", "--disk", f"{keys},ephemeral"]
    command += ["--memory", "64M", "--screen", "text"]
    with PtyProcess(command, rows=30, columns=100) as process:
        # Grey on black, in the very colours of the palette.
        process.expect(rb"\x1b\[0;38;2;170;170;170;48;2;0;0;0m[^\x1b]*>", 30)
        process.send(b"x\x1bOP")
        process.expect(rb"2D78.*3B00", 30)
        process.resize(20, 60)
        process.expect(rb"\x1b\[2J[^\x07]*2D78 3B00", 30)
        process.send(b"\x01h")
        process.expect(rb"Ctrl-A x ", 30)
        process.send(b"\x01x")
        assert process.wait() == 0
        assert process.attributes() == process.before


def test_terminal_shows_pictures(planar: Path) -> None:
    command = [sys.executable, "-m", "ringfence", "run", "--disk", f"{planar},ephemeral"]
    command += ["--memory", "64M", "--screen", "text"]
    with PtyProcess(command, rows=30, columns=100) as process:
        process.expect("\x1b\\[0;38;2;255;85;255;48;2;255;85;255m▀▀".encode(), 30)
        process.send(b"\x01x")
        assert process.wait() == 0


def test_recordings(planar: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.gif"
    # The menu's prompt stays for a while: a second picture for the film.
    with VM(disks=[f"{planar},ephemeral"], memory="64M", timeout=60, boot_menu=True) as vm:
        recorder = vm.record_screen(film)
        vm.screen.wait_image(GOLDEN / "planar.png")
        sleep(0.5)
        recorder.close()
    with Image.open(film) as picture:
        assert getattr(picture, "n_frames", 1) >= 2
        picture.seek(getattr(picture, "n_frames", 1) - 1)
        last = picture.convert("RGB")
    with Image.open(GOLDEN / "planar.png") as golden:
        wanted = golden.convert("RGB").resize(last.size)
    points = [(x, y) for x in range(40, last.width, 80) for y in (20, 30)]
    for point in points:
        seen, colour = last.getpixel(point), wanted.getpixel(point)
        assert isinstance(seen, tuple)
        assert isinstance(colour, tuple)
        assert all(abs(a - b) < 40 for a, b in zip(seen, colour, strict=True)), point


def test_films_are_made_by_ffmpeg(
    planar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in that keeps what it is given."""
    fake = tmp_path / "bin" / "ffmpeg"
    fake.parent.mkdir()
    fake.write_text(
        "#!/bin/sh\n"
        '[ "$1" = -version ] && exit 0\n'
        'for last; do :; done\necho "$@" > "$last.command"\ncat > "$last"\n'
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    film = tmp_path / "film.mp4"
    with VM(disks=[f"{planar},ephemeral"], memory="64M", timeout=60) as vm:
        recorder = vm.record_screen(film)
        vm.screen.wait_image(GOLDEN / "planar.png")
        sleep(0.5)
        recorder.close()
    command = Path(f"{film}.command").read_text()
    match = re.search(r"-s (\d+)x(\d+)", command)
    assert match
    frame = 3 * int(match[1]) * int(match[2])
    assert film.stat().st_size % frame == 0
    assert film.stat().st_size // frame >= 10, "25 pictures a second, changes or not"
