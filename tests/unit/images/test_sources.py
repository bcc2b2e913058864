import os
from pathlib import Path

import pytest

from ringfence.errors import ImageCorrupt, ImageError
from ringfence.images.model import Progress, ignore_progress
from ringfence.images.sources.apt import AptSource
from ringfence.images.sources.mirror import MirrorSource
from ringfence.images.sources.packages import compare_versions, parse_package
from support import debs

# An apt-cache and an apt-get of a few lines: they answer from a folder beside them, and the lists
# are empty until apt-get update has run with a state folder of the caller's own.
APT_CACHE = """#!/bin/sh
echo "cache $*" >>{folder}/log
for name; do :; done
case "$*" in *Dir::State=*) ;; *) [ -e {folder}/system ] || exit 100 ;; esac
cat {folder}/index/$name 2>/dev/null || exit 100
"""
APT_GET = """#!/bin/sh
echo "get $*" >>{folder}/log
for last; do :; done
for word; do
    case $word in -oAPT::Status-Fd=*) fd=${{word#*=}} ;; esac
done
[ "$last" = update ] && exit 0
printf 'dlstatus:1:50.0:half\\nnonsense\\ndlstatus:1:x:\\n' >/proc/self/fd/$fd
if [ -e {folder}/fails ]; then
    echo "W: a warning" >&2
    echo "E: Unable to fetch" >&2
    exit 100
fi
cp {folder}/debs/"${{last%%=*}}" ./"${{last%%=*}}".deb
"""


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a false apt that offers what the recipe needs."""
    folder = tmp_path / "apt"
    for name in ("bin", "index", "debs"):
        (folder / name).mkdir(parents=True)
    for name, text in (("apt-cache", APT_CACHE), ("apt-get", APT_GET)):
        script = folder / "bin" / name
        script.write_text(text.format(folder=folder))
        script.chmod(0o755)
    for offered in debs.debian():
        (folder / "index" / offered.name).write_text(f"{offered.stanza}\n")
        (folder / "debs" / offered.name).write_bytes(offered.content)
    (folder / "system").touch()
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    return folder


def test_apt_finds_and_fetches(apt: Path, tmp_path: Path) -> None:
    source = AptSource(tmp_path / "cache")
    package = source.find("busybox-static", ignore_progress)
    assert package is not None
    assert (package.version, package.size > 0) == ("1:1.35.0-4", True)
    steps: list[Progress] = []
    path = source.fetch(package, steps.append)
    assert path.read_bytes() == (apt / "debs" / "busybox-static").read_bytes()
    assert [step.done for step in steps] == [package.size // 2, package.size]
    assert source.fetch(package, ignore_progress) == path
    log = (apt / "log").read_text()
    assert log.count("download") == 1
    assert "update" not in log
    assert source.find("no-such-package", ignore_progress) is None


def test_apt_with_empty_lists_fetches_lists_of_its_own(apt: Path, tmp_path: Path) -> None:
    (apt / "system").unlink()
    source = AptSource(tmp_path / "cache")
    assert source.find("busybox-static", ignore_progress) is not None
    update = next(line for line in (apt / "log").read_text().splitlines() if "update" in line)
    assert f"Dir::State={tmp_path}/cache" in update
    assert f"Dir::Cache={tmp_path}/cache" in update


def test_apt_failure_is_told_in_its_words(apt: Path, tmp_path: Path) -> None:
    source = AptSource(tmp_path / "cache")
    package = source.find("busybox-static", ignore_progress)
    assert package is not None
    (apt / "fails").touch()
    with pytest.raises(ImageError, match=r"apt-get download failed: Unable to fetch$"):
        source.fetch(package, ignore_progress)


def test_apt_download_is_checked(apt: Path, tmp_path: Path) -> None:
    source = AptSource(tmp_path / "cache")
    package = source.find("busybox-static", ignore_progress)
    assert package is not None
    (apt / "debs" / "busybox-static").write_bytes(b"x" * package.size)
    with pytest.raises(ImageCorrupt, match="another busybox-static"):
        source.fetch(package, ignore_progress)
    assert list((tmp_path / "cache" / "packages").iterdir()) == []


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_mirror_finds_the_newest_and_fetches(tmp_path: Path, suffix: str) -> None:
    url = debs.mirror(tmp_path / "mirror", debs.debian(), suffix)
    source = MirrorSource(url + "/", tmp_path / "cache")
    package = source.find("linux-image-cloud-amd64", ignore_progress)
    assert package is not None
    assert package.version == "6.1.10-1"
    path = source.fetch(package, ignore_progress)
    assert path.read_bytes() == (tmp_path / "mirror" / package.filename).read_bytes()
    assert source.find("busybox", ignore_progress) is None


def test_mirror_as_a_plain_path(tmp_path: Path) -> None:
    debs.mirror(tmp_path / "mirror", debs.debian())
    source = MirrorSource(str(tmp_path / "mirror"), tmp_path / "cache")
    assert source.find("busybox-static", ignore_progress) is not None


def test_mirror_index_is_checked(tmp_path: Path) -> None:
    url = debs.mirror(tmp_path / "mirror", debs.debian(), "")
    index = tmp_path / "mirror/dists/bookworm/main/binary-amd64/Packages"
    index.write_bytes(index.read_bytes().replace(b"busybox", b"busybix"))
    with pytest.raises(ImageCorrupt, match="SHA-256"):
        MirrorSource(url, tmp_path / "cache").find("busybox-static", ignore_progress)


def test_mirror_package_is_checked(tmp_path: Path) -> None:
    offered = debs.debian()
    url = debs.mirror(tmp_path / "mirror", offered)
    (tmp_path / "mirror" / offered[-2].filename).write_bytes(b"x" * len(offered[-2].content))
    source = MirrorSource(url, tmp_path / "cache")
    package = source.find("busybox-static", ignore_progress)
    assert package is not None
    with pytest.raises(ImageCorrupt):
        source.fetch(package, ignore_progress)


@pytest.mark.parametrize("filename", ["", "/etc/passwd", "../../x", "pool/../../x"])
def test_mirror_paths_stay_below_it(tmp_path: Path, filename: str) -> None:
    offered = debs.debian()[-2]
    text = offered.stanza.replace(offered.filename, filename)
    package = parse_package(text, "here")
    with pytest.raises(ImageCorrupt, match="no proper file"):
        MirrorSource("file:///", tmp_path).fetch(package, ignore_progress)


def test_mirror_of_another_suite_or_none(tmp_path: Path) -> None:
    url = debs.mirror(tmp_path / "mirror", debs.debian())
    with pytest.raises(ImageError, match="No such file"):
        MirrorSource(url, tmp_path / "cache", "trixie").find("x1", ignore_progress)
    for bad in ("../x", "", "a b"):
        with pytest.raises(ImageError, match="not the name of a Debian suite"):
            MirrorSource(url, tmp_path / "cache", bad)
    with pytest.raises(ImageError, match="is not a mirror"):
        MirrorSource("mirror.example/debian", tmp_path / "cache")


@pytest.mark.parametrize(
    ("before", "after"),
    [("SHA256: ", "SHA256: zz"), ("Size: ", "Size: -"), ("Version: ", "Version: ../"),
     ("Package: ", "Package: ../")],
)  # fmt: skip
def test_index_entries_are_checked(before: str, after: str) -> None:
    with pytest.raises(ImageCorrupt, match="list: the entry of"):
        parse_package(debs.debian()[-2].stanza.replace(before, after, 1), "list")


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("1.9", "1.10"), ("1.0~rc1", "1.0"), ("1.0", "1.0a"), ("1.0a", "1.0+b"), ("2", "1:1"),
        ("1.0-1", "1.0-2"), ("1.0-9", "1.0-10"), ("1.0", "1.0-1"), ("1.0~", "1.0~a"),
        ("6.1.0-9-cloud", "6.1.0-56-cloud"), ("1.35.0-4", "1.35.0-4+deb12u1"),
        ("1.0-1~bpo", "1.0-1"),
    ],
)  # fmt: skip
def test_version_order(lower: str, higher: str) -> None:
    assert compare_versions(lower, higher) < 0 < compare_versions(higher, lower)


@pytest.mark.parametrize(("one", "other"), [("1.0", "1.0"), ("0:1", "1"), ("1.0-0", "1.0")])
def test_equal_versions(one: str, other: str) -> None:
    assert compare_versions(one, other) == 0
