import pytest

from ringfence.errors import ImageError
from ringfence.images.cpio import CpioWriter, overlay
from support.cpio import read


def test_every_kind_of_entry_reads_back() -> None:
    writer = CpioWriter()
    writer.directory("dev", 0o700)
    writer.character_device("dev/ttyS1", 4, 65)
    writer.fifo("pipe")
    writer.symlink("link", "dev/ttyS1")
    writer.file("/init", b"#!/bin/sh\n", 0o755)
    entries = read(writer.finish())
    assert [(entry.path, oct(entry.mode), entry.content) for entry in entries] == [
        ("dev", "0o40700", b""),
        ("dev/ttyS1", "0o20600", b""),
        ("pipe", "0o10600", b""),
        ("link", "0o120777", b"dev/ttyS1"),
        ("init", "0o100755", b"#!/bin/sh\n"),
    ]
    assert entries[1].device == (4, 65)
    assert len({entry.inode for entry in entries}) == len(entries)


def test_archive_depends_on_its_entries_alone() -> None:
    assert overlay({"a/b": b"x"}) == overlay({"a/b": b"x"})


def test_archives_follow_one_another() -> None:
    first, second = overlay({"one": b"1"}), overlay({"bin/two": b"22"})
    assert len(first) % 4 == 0
    assert [entry.path for entry in read(first + second)] == ["one", "bin", "bin/two"]


@pytest.mark.parametrize("path", ["", "..", "a/../b", "a//b", "./a", "TRAILER!!!", "a\0b"])
def test_paths_that_leave_the_archive_are_refused(path: str) -> None:
    with pytest.raises(ImageError, match="not a path"):
        CpioWriter().file(path, b"")


def test_same_path_twice_and_a_path_too_long_are_refused() -> None:
    writer = CpioWriter()
    writer.directory("a")
    with pytest.raises(ImageError, match="there already"):
        writer.file("a", b"")
    with pytest.raises(ImageError, match="too long"):
        writer.file("b/" * 2047 + "cd", b"")
