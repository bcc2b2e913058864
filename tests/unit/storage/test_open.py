"""Opening images: what works, and one clear error for each thing that does not."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.errors import ImageCorrupt, ImageDenied, ImageError, ImageInUse, ImageNotFound
from ringfence.storage import open_cdrom, open_disk, open_floppy

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(MIB))
    return path


def test_what_is_written_is_in_the_file(disk: Path) -> None:
    with open_disk(disk) as image:
        assert (image.size, image.readonly) == (MIB, False)
        image.write(1000, b"hello")
        image.write_from(2048, [b"a" * 512, bytearray(b"b" * 512)])
        image.flush()
        assert image.read(1000, 5) == b"hello"
        parts = [bytearray(512), bytearray(512)]
        image.read_into(2048, parts)
        assert parts == [b"a" * 512, b"b" * 512]
    assert disk.read_bytes()[1000:1005] == b"hello"


@pytest.mark.parametrize(("offset", "length"), [(MIB, 1), (MIB - 1, 2), (-1, 1), (0, MIB + 1)])
def test_nothing_beyond_the_end(disk: Path, offset: int, length: int) -> None:
    with open_disk(disk) as image:
        for call in (
            lambda: image.read(offset, length),
            lambda: image.write(offset, bytes(length)),
            lambda: image.try_read_into(offset, [bytearray(length)]),
            lambda: image.discard(offset, length),
        ):
            with pytest.raises(OSError, match="beyond the end"):
                call()
    assert disk.stat().st_size == MIB


def test_readonly_refuses_writes(disk: Path) -> None:
    with open_disk(disk, readonly=True) as image:
        assert image.readonly
        for call in (lambda: image.write(0, b"x"), lambda: image.discard(0, 512)):
            with pytest.raises(OSError, match="Read-only"):
                call()
        image.flush()


def test_ephemeral_writes_are_forgotten(disk: Path) -> None:
    disk.write_bytes(bytes(range(256)) * (MIB // 256))
    before = disk.read_bytes()
    with open_disk(disk, ephemeral=True) as image:
        image.write(65_000, b"x" * 2000)
        assert (
            image.read(64_999, 2002) == before[64_999:65_000] + b"x" * 2000 + before[67_000:67_001]
        )
        image.discard(0, 65536)
        assert image.read(0, 10) == bytes(10)
    assert disk.read_bytes() == before


def test_discarded_bytes_read_as_zeros(disk: Path) -> None:
    with open_disk(disk) as image:
        image.write(0, b"x" * MIB)
        image.discard(65536, 65536)
        assert image.read(65536, 65536) in (bytes(65536), b"x" * 65536)
    assert disk.stat().st_size == MIB


def test_two_writers_exclude_each_other(disk: Path) -> None:
    with open_disk(disk), pytest.raises(ImageInUse, match=r"disk\.img is in use"):
        open_disk(disk)
    with open_disk(disk):
        pass


def test_readers_share_with_readers_only(disk: Path) -> None:
    with (
        open_disk(disk, readonly=True),
        open_disk(disk, ephemeral=True),
        pytest.raises(ImageInUse, match="readonly"),
    ):
        open_disk(disk)
    with open_disk(disk), pytest.raises(ImageInUse, match="being written"):
        open_disk(disk, readonly=True)


def test_another_process_is_kept_out(disk: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from ringfence.storage import open_disk;"
        "open_disk(Path(sys.argv[1]))"
    )
    with open_disk(disk):
        done = subprocess.run(
            [sys.executable, "-c", script, disk], capture_output=True, text=True, check=False
        )
    assert "ImageInUse" in done.stderr


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (bytes(1000), "1000 bytes are not whole sectors of 512"),
        (b"QFI\xfb" + bytes(508), "format qcow2"),
        (b"\x1f\x8b\x08" + bytes(509), "compressed"),
        (bytes(512) + b"EFI PART" + bytes(24) + struct.pack("<Q", 99) + bytes(472), "cut short"),
    ],
)
def test_damaged_disks(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "bad.img"
    path.write_bytes(content)
    with pytest.raises(ImageCorrupt, match=text) as caught:
        open_disk(path)
    assert str(path) in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ImageNotFound, match="does not exist"):
        open_disk(tmp_path / "missing")
    with pytest.raises(ImageError, match="directory"):
        open_disk(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="neither a file"):
        open_disk(tmp_path / "pipe")


def test_permissions(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.chmod(0o444)
    if os.geteuid() == 0:
        # Root may write to anything: the file system says no instead.
        real = os.open

        def refusing(path: object, flags: int, *rest: int) -> int:
            if flags & os.O_RDWR:
                raise PermissionError(13, "Permission denied")
            return real(path, flags, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "open", refusing)
        monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(ImageDenied, match="readonly or ,ephemeral"):
        open_disk(disk)
    for image in (open_disk(disk, readonly=True), open_floppy(disk)):
        assert image.readonly
        image.close()


def iso(blocks: int, present: int) -> bytes:
    data = bytearray(present * 2048)
    data[0x8000:0x8006] = b"\x01CD001"
    data[0x8050:0x8054] = struct.pack("<I", blocks)
    return bytes(data)


def test_cdrom(tmp_path: Path) -> None:
    path = tmp_path / "cd.iso"
    path.write_bytes(iso(20, 20) + b"tail")
    with open_cdrom(path) as image, open_cdrom(path):
        assert (image.size, image.readonly) == (21 * 2048, True)
        assert image.read(20 * 2048, 2048) == b"tail" + bytes(2044)
    path.write_bytes(iso(1000, 20))
    with pytest.raises(ImageCorrupt, match=r"cut short.*fetch it again"):
        open_cdrom(path)
