import subprocess
from pathlib import Path

import pytest

from ringfence.errors import ImageCorrupt, ImageError, ImageNotFound
from ringfence.images.deb import DebPackage, parse_stanza
from support import debs

FILES = {"./usr/x": b"no", "./boot/vmlinuz-6": b"kernel" * 1000}


def made(folder: Path, content: bytes) -> DebPackage:
    path = folder / "a.deb"
    path.write_bytes(content)
    return DebPackage(path)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_file_and_control_in_every_compression(tmp_path: Path, suffix: str) -> None:
    package = made(tmp_path, debs.deb("linux", "6-1", FILES, suffix=suffix))
    name = "boot/vmlinuz-6"
    assert package.file(lambda path: path == name) == (name, b"kernel" * 1000)
    assert package.file(lambda path: path == "absent") is None
    assert package.control()["Version"] == "6-1"


def test_zstd(tmp_path: Path) -> None:
    try:
        data = subprocess.run(
            ["zstd", "-c"], input=debs.tar(FILES), capture_output=True, check=True
        ).stdout
    except FileNotFoundError:
        pytest.skip("needs the command zstd")
    package = made(tmp_path, debs.ar({"data.tar.zst": data}))
    assert package.file(lambda path: path.startswith("boot/")) is not None
    broken = made(tmp_path, debs.ar({"data.tar.zst": data[:20] + b"?" * 20 + data[40:]}))
    with pytest.raises(ImageCorrupt):
        broken.file(lambda path: path.startswith("boot/"))


def test_zstd_without_any_means_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(ImageError, match="install the Python package zstandard"):
        made(tmp_path, debs.ar({"data.tar.zst": b""})).file(bool)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a Debian package"),
        (b"!<arch>\nshort", "bad ar header"),
        (debs.ar({"debian-binary": b"2.0\n"}), "has no data.tar"),
        (debs.ar({"data.tar.rar": b""}), "no package is"),
        (debs.ar({"data.tar": b"x" * 2000}), "damaged"),
        (debs.ar({"data.tar": b""}).replace(b"0         `", b"-1        `"), "bad size"),
        (debs.deb("a", "1", FILES)[:-100], "damaged"),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ImageCorrupt, match=message) as caught:
        made(tmp_path, content).file(lambda path: path == "absent")
    assert "a.deb" in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound):
        DebPackage(tmp_path / "none.deb").control()


def test_stanza_keeps_continuation_lines() -> None:
    text = "A: 1\nB: two\n three\n .\nC:\n"
    assert dict(parse_stanza(text)) == {"A": "1", "B": "two\n three\n .", "C": ""}
