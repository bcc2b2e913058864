"""Packages from a Debian mirror, over http, https or a local path.

The layout of a Debian archive: ``dists/<suite>/Release`` names the indices with size and SHA-256,
``main/binary-amd64/Packages`` names the packages likewise (deb822(5), the Debian repository
format). What arrives is checked against them; the Release file itself is trusted as the transport
is, so use https where others could change the traffic.
"""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from ringfence.errors import ImageCorrupt, ImageError
from ringfence.images.deb import parse_stanza
from ringfence.images.fetch import SCHEMES, download
from ringfence.images.model import ProgressCallback
from ringfence.images.sources.packages import SHA256, Package, newest, parse_package

DEFAULT_SUITE = "bookworm"
INDEX = "main/binary-amd64/Packages"
SUFFIXES = (".xz", ".gz", "")


class MirrorSource:
    """A Debian archive at ``url``, such as ``https://mirror.example/debian``."""

    def __init__(self, url: str, cache: Path, suite: str = DEFAULT_SUITE) -> None:
        if url.startswith("/"):
            url = Path(url).as_uri()
        if url.partition(":")[0] not in SCHEMES:
            raise ImageError(f"{url!r} is not a mirror: give an http, https or file URL")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9./_-]*", suite) or ".." in suite:
            raise ImageError(f"{suite!r} is not the name of a Debian suite, such as bookworm")
        self._url = url.rstrip("/")
        self._suite = suite
        self._cache = cache
        self._index: Path | None = None
        self._found: dict[str, Package | None] = {}

    def find(self, name: str, progress: ProgressCallback) -> Package | None:
        """The newest version that the suite has, or None."""
        if name not in self._found:
            if self._index is None:
                self._index = self._fetch_index(progress)
            where = f"{self._url} {self._suite}"
            self._found[name] = newest(
                parse_package(stanza, where) for stanza in _stanzas(self._index, name)
            )
        return self._found[name]

    def fetch(self, package: Package, progress: ProgressCallback) -> Path:
        """Downloads a package that :meth:`find` found."""
        path = package.filename
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise ImageCorrupt(f"{self._url}: the index names no proper file for {package.label}")
        return download(
            f"{self._url}/{path}",
            self._cache / "packages" / package.cache_name,
            size=package.size,
            sha256=package.sha256,
            label=package.label,
            progress=progress,
        )

    def _fetch_index(self, progress: ProgressCallback) -> Path:
        base = f"{self._url}/dists/{self._suite}"
        lists = self._cache / "lists"
        release = download(f"{base}/Release", lists / "Release", label="Release", progress=progress)
        indices = _release_files(release.read_text("utf-8", "replace"))
        for suffix in SUFFIXES:
            if entry := indices.get(INDEX + suffix):
                sha256, size = entry
                return download(
                    f"{base}/{INDEX}{suffix}",
                    lists / f"{sha256[:16]}-Packages{suffix}",
                    size=size,
                    sha256=sha256,
                    label=f"package list of {self._suite}",
                    progress=progress,
                )
        raise ImageCorrupt(f"{base}/Release names no {INDEX}")


def _release_files(text: str) -> dict[str, tuple[str, int]]:
    """Path to (SHA-256, size), from a Release file."""
    files: dict[str, tuple[str, int]] = {}
    for line in dict(parse_stanza(text)).get("SHA256", "").splitlines():
        words = line.split()
        if len(words) == 3 and SHA256.fullmatch(words[0]) and words[1].isdecimal():
            files[words[2]] = (words[0].lower(), int(words[1]))
    return files


def _stanzas(index: Path, name: str) -> Iterator[str]:
    """The stanzas of ``Package: name``; the index has some 60,000 others."""
    wanted = f"Package: {name}\n".encode()
    with _open(index) as stream:
        stanza: list[bytes] = []
        taken = False
        for line in stream:
            if line == b"\n":
                if taken:
                    yield b"".join(stanza).decode("utf-8", "replace")
                stanza, taken = [], False
            elif taken or not stanza:
                # "Package" is the first field of its stanza in every Debian index.
                taken = taken or line == wanted
                stanza.append(line)
        if taken:
            yield b"".join(stanza).decode("utf-8", "replace")


def _open(index: Path) -> IO[bytes]:
    if index.suffix == ".xz":
        import lzma

        return cast("IO[bytes]", lzma.open(index))
    if index.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(index))
    return index.open("rb")
