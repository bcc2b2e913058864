"""Whatever a package, an index or a store holds: an answer or an ImageError, nothing else."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.errors import ImageError
from ringfence.images.cpio import CpioWriter
from ringfence.images.deb import DebPackage, parse_stanza
from ringfence.images.ingredients import from_files, kernel_version
from ringfence.images.initramfs import applets
from ringfence.images.sources.packages import compare_versions, parse_package
from support import cpio, debs

FILES = {"./boot/vmlinuz-6": debs.kernel(), "./bin/busybox": debs.busybox()}
DEBS = [debs.deb("linux", "6.1-1", FILES, suffix=suffix) for suffix in ("", ".gz", ".xz")]
STANZA = debs.debian()[0].stanza
VERSIONS = st.from_regex(r"([0-9]:)?[0-9][0-9a-z.+~]{0,6}(-[0-9a-z.+~]{1,4})?", fullmatch=True)
NAMES = st.text("abc-._é", min_size=1, max_size=12).filter(lambda name: name not in {".", ".."})


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(DEBS)))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@contextmanager
def file(data: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.deb"
        path.write_bytes(data)
        yield path


@settings(deadline=None)
@given(damaged() | st.binary(max_size=300))
def test_damaged_packages(data: bytes) -> None:
    with file(data) as path:
        with suppress(ImageError):
            DebPackage(path).control()
        with suppress(ImageError):
            from_files([path])


@given(st.binary(max_size=2000), st.binary(max_size=300))
def test_damaged_programs_and_kernels(data: bytes, tail: bytes) -> None:
    with suppress(ImageError):
        applets(b"\x7fELF" + data + b"\0[\0[[\0" + tail)
    assert isinstance(kernel_version(debs.kernel()[:0x20E] + data), str)


@given(st.text(max_size=200), st.text(max_size=40))
def test_damaged_index_entries(text: str, line: str) -> None:
    assert all(isinstance(value, str) for _, value in parse_stanza(text))
    with suppress(ImageError):
        parse_package(STANZA + line, "test")


@given(VERSIONS, VERSIONS, VERSIONS)
def test_versions_are_in_one_order(a: str, b: str, c: str) -> None:
    assert compare_versions(a, a) == 0
    assert (compare_versions(a, b) > 0) == (compare_versions(b, a) < 0)
    if compare_versions(a, b) <= 0 and compare_versions(b, c) <= 0:
        assert compare_versions(a, c) <= 0


@given(st.dictionaries(NAMES, st.binary(max_size=50), max_size=8))
def test_archives_read_back(files: dict[str, bytes]) -> None:
    writer = CpioWriter()
    for name, content in files.items():
        writer.file(name, content)
    archive = writer.finish()
    assert len(archive) % 4 == 0
    assert {entry.path: entry.content for entry in cpio.read(archive)} == files
