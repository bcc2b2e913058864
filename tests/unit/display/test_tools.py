"""What is done by programs that may not be installed, and recordings that can't be made."""

import os
from pathlib import Path

import pytest
from PIL import Image

from ringfence.display.hub import ScreenHub
from ringfence.display.ocr import recognize
from ringfence.display.record import Recorder
from ringfence.errors import ConfigError, ImageError
from support.screens import Painting


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs, before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_ocr(programs: Path) -> None:
    image = Image.new("RGB", (4, 4))
    script(programs / "tesseract", 'cat > "$0.png"; echo "$@"')
    assert recognize(image, "deu") == "stdin stdout -l deu --psm 6\n"
    with Image.open(programs / "tesseract.png") as given:
        assert given.size == (12, 12)
    script(programs / "tesseract", "echo no such language >&2; exit 1")
    with pytest.raises(ConfigError, match="no such language"):
        recognize(image)


def test_ocr_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="tesseract-ocr"):
        recognize(Image.new("RGB", (4, 4)))


def test_recordings_that_can_not_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = ScreenHub(Painting())
    with pytest.raises(ConfigError, match=r"recordings end in .gif, .mkv"):
        Recorder(hub, tmp_path / "film.txt")
    with pytest.raises(ImageError, match="can't be written"):
        Recorder(hub, tmp_path / "missing" / "film.gif")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="ffmpeg, which is not installed"):
        Recorder(hub, tmp_path / "film.mp4")
    assert hub.viewers == 0


def test_encoder_that_fails(programs: Path, tmp_path: Path) -> None:
    script(programs / "ffmpeg", '[ "$1" = -version ] && exit 0\necho no room >&2; exit 1')
    painting = Painting()
    painting.paint(0, 0, 9, 9, 0xFFFFFF)
    recorder = Recorder(ScreenHub(painting), tmp_path / "film.mp4")
    while recorder._sink is None and recorder.error is None:
        painting.paint(0, 0, 9, 9, 0xFFFFFF)
    with pytest.raises(ImageError, match="no room"):
        recorder.close()


def test_nothing_was_shown(tmp_path: Path) -> None:
    film = tmp_path / "film.gif"
    Recorder(ScreenHub(Painting()), film).close()
    assert film.read_bytes() == b""
