"""``run`` with a machine that is played, and ``image`` with a store in a folder."""

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import pytest

import ringfence
from ringfence import images
from ringfence.chars import Stream
from ringfence.cli import app
from ringfence.errors import GuestPanic, ImageNotFound
from ringfence.machine import Completed


class PlayedVM:
    """Stands for ``ringfence.VM``: notes what it is asked."""

    made: ClassVar[list[tuple[tuple[Any, ...], dict[str, Any]]]] = []
    commands: ClassVar[list[object]] = []
    result: ClassVar[Completed | Exception] = Completed("", 0, b"", b"")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.made.append((arguments, options))
        self.console = Stream()

    def __enter__(self) -> Self:
        self.console.write(b"[    0.000000] Linux version\r\n")
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def run(self, command: object, *, stdout: Any, stderr: Any) -> Completed:
        self.commands.append(command)
        stdout(b"out\n")
        stderr(b"err\n")
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def stop(self) -> None:
        self.console.close()


@pytest.fixture
def vm(monkeypatch: pytest.MonkeyPatch) -> type[PlayedVM]:
    monkeypatch.setattr(ringfence, "VM", PlayedVM, raising=False)
    monkeypatch.setattr(images, "ensure", lambda name, progress=None: None)
    monkeypatch.setattr(PlayedVM, "made", [])
    monkeypatch.setattr(PlayedVM, "commands", [])
    monkeypatch.setattr(PlayedVM, "result", Completed("", 0, b"", b""))
    return PlayedVM


def test_command(vm: type[PlayedVM], capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    vm.result = Completed("", 42, b"", b"")
    assert app.invoke(["run", "debian", "--", "sh", "-c", "a b"]) == 42
    assert vm.commands == [["sh", "-c", "a b"]]
    assert capfdbinary.readouterr() == (b"out\n", b"err\n")


def test_options_reach_the_machine(vm: type[PlayedVM]) -> None:
    arguments = "run -m 1G --cpus 2 --engine bt --timeout 5m --append quiet --kernel k --initrd i"
    assert app.invoke([*arguments.split(), "--", "true"]) == 0
    ((image,), options) = vm.made[0]
    assert image is None
    assert options["memory"] == "1G"
    assert options["cpus"] == 2
    assert options["engine"] == "bt"
    assert options["timeout"] == "5m"
    assert options["append"] == "quiet"
    assert (options["kernel"], options["initrd"]) == (Path("k"), Path("i"))
    assert options["shell"] is False


def test_options_after_the_dashes_are_the_commands(vm: type[PlayedVM]) -> None:
    assert app.invoke(["run", "--", "ls", "-v", "--help", "--"]) == 0
    assert vm.commands == [["ls", "-v", "--help", "--"]]
    assert vm.made[0][0] == ("debian",)


def test_verbose_shows_the_console(
    vm: type[PlayedVM], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert app.invoke(["run", "-v", "--", "true"]) == 0
    out, err = capfdbinary.readouterr()
    assert out == b"out\n"
    assert b"Linux version" in err
    assert vm.made[0][1]["append"] == "loglevel=7"


@pytest.mark.parametrize("verbose", [[], ["-v"]])
def test_panic_shows_the_console_once(
    vm: type[PlayedVM], verbose: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    vm.result = GuestPanic("panicked", console="Linux version\nBUG")
    assert app.invoke(["run", *verbose, "--", "true"]) == 120
    err = capfd.readouterr().err
    assert err.count("Linux version") == 1
    assert err.endswith("error: panicked\n")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    folder = tmp_path / "ringfence" / "images" / "tiny"
    folder.mkdir(parents=True)
    (folder / "kernel").write_bytes(b"k" * 2048)
    manifest = {
        "format": 1,
        "kernel": "kernel",
        "initrd": None,
        "append": "",
        "description": "a small one",
        "version": "1.0",
        "recipe": "",
        "packages": [],
    }
    (folder / "image.json").write_text(json.dumps(manifest))
    return folder


def test_image_ls(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.invoke(["image", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "SIZE", "DESCRIPTION"]
    assert any(line.split()[:2] == ["tiny", "1.0"] for line in lines)
    assert any(line.startswith("debian ") and "(not fetched)" in line for line in lines)


def test_image_ls_json(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.invoke(["image", "ls", "--json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)
    assert (image["name"], image["version"]) == ("tiny", "1.0")
    assert image["kernel"] == str(store / "kernel")
    assert image["size"] > 2048


def test_image_rm(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.invoke(["image", "rm", "tiny", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ["tiny"]
    assert not store.exists()
    assert app.invoke(["image", "rm", "tiny"]) == ImageNotFound.exit_status


def test_image_pull(
    monkeypatch: pytest.MonkeyPatch, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def pull(name: str, progress: object, **options: Any) -> images.Image:
        asked.update(options, name=name)
        return images.resolve("tiny")

    monkeypatch.setattr(images, "pull", pull)
    deb = store / "kernel"
    arguments = ["--mirror", "http://mirror", "--suite", "sid", "--deb", str(deb)]
    assert app.invoke(["image", "pull", "debian", *arguments, "--json"]) == 0
    assert asked == {"name": "debian", "mirror": "http://mirror", "suite": "sid", "deb": (deb,)}
    assert json.loads(capsys.readouterr().out)["name"] == "tiny"


def test_images_that_do_not_exist(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.invoke(["image", "pull", "nonsense"]) == 66
    assert app.invoke(["run", "nonsense"]) == 66
    assert "nonsense" in capsys.readouterr().err
