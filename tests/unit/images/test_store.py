import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence import images
from ringfence.errors import ImageCorrupt, ImageError, ImageNotFound
from ringfence.images import initramfs, recipes, store
from support import cpio, debs

SRC = Path(__file__).parents[3] / "src"


@pytest.fixture
def mirror(tmp_path: Path) -> str:
    return debs.mirror(tmp_path / "mirror", debs.debian())


def test_pulled_image_has_what_a_machine_needs(mirror: str) -> None:
    steps: list[images.Progress] = []
    image = images.pull("debian", steps.append, mirror=mirror)
    assert image == images.resolve("debian") == images.find("debian")
    assert image.kernel.read_bytes() == debs.kernel()
    assert image.initrd is not None
    paths = {entry.path: entry for entry in cpio.read(image.initrd.read_bytes())}
    assert paths["bin/busybox"].content == debs.busybox()
    assert paths["bin/stty"].content == b"busybox"
    assert paths["init"].content.startswith(b"#!/bin/sh\n")
    assert "console=ttyS0" in image.append
    assert image.version == "6.1.10-1"
    assert image.packages == (
        "linux-image-6.1.0-1-test 6.1.10-1",
        "busybox-static 1:1.35.0-4",
    )
    assert image.size == sum(file.stat().st_size for file in image.directory.iterdir())
    assert [step.item for step in steps if step.total][-1] == "busybox-static 1:1.35.0-4"


def test_unsigned_kernel_will_do(tmp_path: Path) -> None:
    url = debs.mirror(tmp_path / "mirror", debs.debian(signed=False))
    image = images.pull("debian", mirror=url)
    assert image.packages[0] == "linux-image-6.1.0-1-test-unsigned 6.1.10-1"


def test_ensure_pulls_once(mirror: str, tmp_path: Path) -> None:
    first = images.ensure("debian", mirror=mirror)
    (tmp_path / "mirror").rename(tmp_path / "gone")
    assert images.ensure("debian", mirror=mirror) == first


def test_mirror_from_the_environment(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGFENCE_MIRROR", mirror)
    assert images.ensure("debian").version == "6.1.10-1"


def test_newer_ringfence_renews_an_image_without_fetching(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = images.pull("debian", mirror=mirror)
    (tmp_path / "mirror").rename(tmp_path / "gone")
    script = initramfs.init_script() + b"# newer\n"
    monkeypatch.setattr(initramfs, "init_script", lambda: script)
    initramfs.revision.cache_clear()
    try:
        new = images.ensure("debian")
    finally:
        initramfs.revision.cache_clear()
    assert new.recipe != old.recipe
    assert (new.version, new.packages) == (old.version, old.packages)
    assert new.initrd is not None
    init = [e for e in cpio.read(new.initrd.read_bytes()) if e.path == "init"]
    assert init[0].content == script


def test_pull_again_replaces_in_one_step(mirror: str) -> None:
    pulled = [images.pull("debian", mirror=mirror) for _ in range(4)]
    assert images.resolve("debian") == pulled[-1]
    # Whoever resolved the image just before the last pull can still open its files.
    assert pulled[-2].kernel.exists()
    assert not pulled[-3].directory.exists()
    folders = [path.name for path in images.data_folder().iterdir() if path.is_dir()]
    assert len(folders) == 3  # the link, what it names, what it named before


def test_failed_pull_leaves_the_image_alone(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = images.pull("debian", mirror=mirror)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "initrd.img")

    monkeypatch.setattr("ringfence.images.ingredients.write", full)
    with pytest.raises(ImageError, match=r"can't write the image: No space left.*initrd"):
        images.pull("debian", mirror=mirror)
    assert images.resolve("debian") == image
    assert len(list(images.data_folder().glob(".debian.*"))) == 1


def test_files_of_the_user_need_no_source(tmp_path: Path, without_apt: None) -> None:
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(debs.kernel("6.12.1-mine"))
    busybox = tmp_path / "busybox.deb"
    busybox.write_bytes(debs.debian()[-2].content)
    image = images.pull("debian", deb=[kernel, busybox])
    assert image.version == "6.12.1-mine"
    program = tmp_path / "busybox"
    program.write_bytes(debs.busybox())
    package = tmp_path / "linux.deb"
    package.write_bytes(debs.debian()[2].content)
    assert images.pull("debian", deb=[program, package]).version == "6.1.10-1"


def test_files_of_the_user_are_completed(tmp_path: Path, mirror: str) -> None:
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(debs.kernel("6.12.1-mine"))
    image = images.pull("debian", deb=[kernel], mirror=mirror)
    assert image.packages == ("bzImage", "busybox-static 1:1.35.0-4")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "no Debian package, no Linux kernel and no busybox"),
        (b"\x7fELF" + bytes(100), "busybox lacks"),
        (debs.busybox(["ls", "sh"]), "busybox lacks base64"),
        (debs.deb("vim", "1", {"./usr/bin/vim": b"x"}), "neither a kernel nor busybox"),
        (debs.deb("l", "1", {"./boot/vmlinuz-6": b"x" * 999}), "no Linux kernel for x86"),
    ],
)
def test_unfit_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ImageCorrupt, match=message):
        images.pull("debian", deb=[path])
    with pytest.raises(ImageNotFound, match=r"can't read .*none"):
        images.pull("debian", deb=[tmp_path / "none"])


def test_without_any_source_the_text_says_what_helps(without_apt: None) -> None:
    with pytest.raises(ImageError, match=r"no apt.*--mirror URL.*--deb FILE"):
        images.ensure("debian")


def test_mirror_without_the_packages(tmp_path: Path) -> None:
    for count, name in ((1, "linux-image-6.1.0-1-test"), (3, "busybox-static")):
        url = debs.mirror(tmp_path / str(count), debs.debian()[:count])
        with pytest.raises(ImageNotFound, match=f"{name} is not offered here"):
            images.pull("debian", mirror=url)


def test_names(mirror: str) -> None:
    assert set(images.names()) == set(images.available()) == set(recipes.RECIPES)
    assert images.list_images() == []
    image = images.pull("debian", mirror=mirror)
    assert images.list_images() == [image]
    with pytest.raises(ImageNotFound, match="ringfence image pull debian-generic"):
        images.resolve("debian-generic")
    for name in ("beos", "../debian", ".lock", ""):
        with pytest.raises(ImageNotFound, match="there are debian, debian-generic"):
            images.resolve(name)
        with pytest.raises(ImageNotFound, match="no recipe makes"):
            images.pull(name)
        with pytest.raises(ImageNotFound, match="in the store"):
            images.remove(name)


def test_remove(mirror: str) -> None:
    image = images.pull("debian", mirror=mirror)
    images.remove("debian")
    assert not image.directory.exists()
    assert images.find("debian") is None
    with pytest.raises(ImageNotFound):
        images.remove("debian")


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "image.json").write_text("{"),
        lambda folder: (folder / "image.json").write_text("[]"),
        lambda folder: (folder / "image.json").write_text('{"format": 99}'),
        lambda folder: (folder / "image.json").write_text('{"format": 1}'),
        lambda folder: (folder / "vmlinuz").unlink(),
    ],
)
def test_damaged_image_can_be_pulled_or_removed(mirror: str, damage: object) -> None:
    image = images.pull("debian", mirror=mirror)
    assert callable(damage)
    damage(image.directory)
    with pytest.raises(ImageCorrupt, match="ringfence image pull debian"):
        images.resolve("debian")
    assert images.list_images() == []
    images.pull("debian", mirror=mirror)
    assert images.resolve("debian").version == "6.1.10-1"
    images.remove("debian")


def test_ten_at_once_pull_once(mirror: str, tmp_path: Path) -> None:
    script = (
        "import sys; from ringfence import images; steps = []\n"
        "print(images.ensure('debian', steps.append, mirror=sys.argv[1]).directory)\n"
        "print(any(step.item == 'initial RAM disk' for step in steps))"
    )
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, mirror], stdout=subprocess.PIPE, env=environment
        )
        for _ in range(10)
    ]
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert len({folder for folder, _ in answers}) == 1
    assert [built for _, built in answers].count(b"True") == 1


def test_store_that_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(ImageError, match="can't write to the image store"):
        images.ensure("debian")


def test_relative_folders_in_the_environment_are_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert images.data_folder() == tmp_path / ".local/share/ringfence/images"


def test_manifest_names_no_place_of_this_host(mirror: str, tmp_path: Path) -> None:
    image = images.pull("debian", mirror=mirror)
    text = (image.directory / store.MANIFEST).read_text()
    assert str(tmp_path) not in text
    assert json.loads(text)["kernel"] == "vmlinuz"
