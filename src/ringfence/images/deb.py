"""Reads Debian packages: single files of them, into memory, without unpacking the rest.

Format: deb(5) (Debian 2.0 packages: an ``ar`` archive of ``debian-binary``, ``control.tar`` and
``data.tar``, each perhaps compressed). Nothing is ever written under a name from the package, so
no path in it can point anywhere. Left out: unpacking to disk, conffiles, maintainer scripts.
"""

import gzip
import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

from ringfence.errors import ImageCorrupt, ImageError, ImageNotFound

AR_MAGIC = b"!<arch>\n"
AR_HEADER_SIZE = 60
AR_HEADER_END = b"`\n"
# Larger than any kernel; a file beyond it is a mistake or a trap.
MAXIMUM_FILE = 512 << 20


class DebPackage:
    """One ``.deb`` file. The methods raise :class:`ImageCorrupt` where it is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def control(self) -> dict[str, str]:
        """The fields of the package's control file."""
        text = next(self._each("control.tar", lambda name: name == "control"), None)
        if text is None:
            raise ImageCorrupt(f"{self.path}: no control file in the package")
        return dict(parse_stanza(text[1].decode(errors="replace")))

    def file(self, wanted: Callable[[str], bool]) -> tuple[str, bytes] | None:
        """Path and content of the first regular file whose path (no leading ``/``) is wanted."""
        return next(self._each("data.tar", wanted), None)

    def files(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        """Path and content of every regular file whose path is wanted, in the package's order."""
        return self._each("data.tar", wanted)

    def _each(self, member: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
        try:
            with self._member(member) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
                for entry in tar:
                    name = entry.name.removeprefix("./").lstrip("/")
                    if not entry.isreg() or not wanted(name):
                        continue
                    if entry.size > MAXIMUM_FILE:
                        raise ImageCorrupt(f"{self.path}: {name} is absurdly large")
                    content = tar.extractfile(entry)
                    assert content is not None
                    data = content.read()
                    if len(data) != entry.size:
                        raise ImageCorrupt(f"{self.path}: {name} is cut short")
                    yield name, data
        except FileNotFoundError:
            raise ImageNotFound(f"{self.path}: no such file") from None
        except ImageError:
            raise
        except (tarfile.TarError, EOFError, ValueError, OSError) as error:
            raise ImageCorrupt(f"{self.path}: the package is damaged: {error}") from error
        except Exception as error:
            # lzma and zstandard have errors of their own, which exist only where they do.
            if type(error).__name__ in {"LZMAError", "ZstdError", "error"}:
                raise ImageCorrupt(f"{self.path}: the package is damaged: {error}") from error
            raise

    @contextmanager
    def _member(self, stem: str) -> Iterator[IO[bytes]]:
        """The decompressed member of the ``ar`` archive whose name is ``stem`` and a suffix."""
        with self.path.open("rb") as file:
            if file.read(len(AR_MAGIC)) != AR_MAGIC:
                raise ImageCorrupt(f"{self.path}: not a Debian package")
            while header := file.read(AR_HEADER_SIZE):
                if len(header) < AR_HEADER_SIZE or header[58:] != AR_HEADER_END:
                    raise ImageCorrupt(f"{self.path}: the package is damaged: bad ar header")
                name = header[:16].decode("ascii", "replace").rstrip(" /")
                size = _decimal(header[48:58], self.path)
                if name == stem or name.startswith(f"{stem}."):
                    inner = cast("BinaryIO", _Window(file, size))
                    with _decompressed(inner, name.removeprefix(stem), self.path) as stream:
                        yield stream
                    return
                file.seek(size + size % 2, io.SEEK_CUR)
        raise ImageCorrupt(f"{self.path}: the package has no {stem}")


class _Window(io.RawIOBase):
    """The next ``size`` bytes of a file, as a file."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(wanted)
        self._left -= len(data)
        return data


def parse_stanza(text: str) -> Iterator[tuple[str, str]]:
    """Fields of one stanza in the form of deb822(5); continuation lines stay in the value."""
    name, value = "", ""
    for line in text.splitlines():
        if line[:1] in " \t" and name:
            value += "\n" + line
            continue
        if name:
            yield name, value
        name, _, value = line.partition(":")
        value = value.strip()
    if name:
        yield name, value


@contextmanager
def _decompressed(stream: BinaryIO, suffix: str, path: Path) -> Iterator[IO[bytes]]:
    match suffix:
        case "":
            yield stream
        case ".gz":
            with gzip.open(stream) as plain:
                yield cast("IO[bytes]", plain)
        case ".xz" | ".lzma":
            # Slow to import, and absent from a Python built without it.
            import lzma

            with lzma.open(stream) as plain:
                yield cast("IO[bytes]", plain)
        case ".zst":
            with _zstd(stream, path) as plain:
                yield plain
        case _:
            raise ImageCorrupt(f"{path}: compressed in a way ({suffix}) that no package is")


@contextmanager
def _zstd(stream: BinaryIO, path: Path) -> Iterator[IO[bytes]]:
    try:
        import zstandard
    except ImportError:
        yield io.BytesIO(_zstd_command(stream.read(), path))
        return
    with zstandard.ZstdDecompressor().stream_reader(stream) as plain:
        yield cast("IO[bytes]", plain)


def _zstd_command(data: bytes, path: Path) -> bytes:
    try:
        done = subprocess.run(["zstd", "-dcq"], input=data, capture_output=True, check=False)
    except FileNotFoundError:
        raise ImageError(
            f"{path} is compressed with zstd: install the Python package zstandard or the "
            "command zstd"
        ) from None
    if done.returncode:
        raise ImageCorrupt(f"{path}: the package is damaged: zstd refuses it")
    return done.stdout


def _decimal(field: bytes, path: Path) -> int:
    text = field.strip()
    if not text.isdigit():
        raise ImageCorrupt(f"{path}: the package is damaged: bad size in its ar header")
    return int(text)
