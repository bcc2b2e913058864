"""A package as an index names it, and what a source of packages can do."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cmp_to_key
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from ringfence.errors import ImageCorrupt
from ringfence.images.deb import parse_stanza
from ringfence.images.model import ProgressCallback

# Debian Policy 5.6.1 and 5.6.12; both end up in file names.
NAME = re.compile(r"[a-z0-9][a-z0-9+.-]{1,100}")
VERSION = re.compile(r"[A-Za-z0-9.+~:-]{1,200}")
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class Package:
    """One stanza of a package index: ``size`` in bytes, ``sha256`` in hexadecimal."""

    name: str
    version: str
    filename: str
    size: int
    sha256: str
    depends: str = ""

    @property
    def label(self) -> str:
        """How progress and messages name it."""
        return f"{self.name} {self.version}"

    @property
    def cache_name(self) -> str:
        """Its file name in the cache, which two different files never share."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.sha256[:12]}.deb"


class Source(Protocol):
    """Something that has Debian packages."""

    def find(self, name: str, progress: ProgressCallback) -> Package | None:
        """The package's newest version, or None."""

    def fetch(self, package: Package, progress: ProgressCallback) -> Path:
        """The ``.deb``, of the size and hash that the index names."""


def parse_package(stanza: str, where: str) -> Package:
    """The package that a stanza of ``Packages`` describes; ``where`` is for the error text."""
    fields = dict(parse_stanza(stanza))
    name, version = fields.get("Package", ""), fields.get("Version", "")
    size, sha256 = fields.get("Size", ""), fields.get("SHA256", "")
    if not (
        NAME.fullmatch(name)
        and VERSION.fullmatch(version)
        and SHA256.fullmatch(sha256)
        and re.fullmatch("[0-9]{1,15}", size)
    ):
        raise ImageCorrupt(f"{where}: the entry of {name or 'a package'} is not valid")
    return Package(
        name=name,
        version=version,
        filename=fields.get("Filename", ""),
        size=int(size),
        sha256=sha256.lower(),
        depends=fields.get("Depends", ""),
    )


def newest(packages: Iterable[Package]) -> Package | None:
    """The one with the highest version."""
    order = cmp_to_key(compare_versions)
    return max(packages, key=lambda package: order(package.version), default=None)


def compare_versions(left: str, right: str) -> int:
    """Negative, zero or positive, in the order of deb-version(7)."""
    for mine, other in zip(_parts(left), _parts(right), strict=True):
        if difference := _compare_part(mine, other):
            return difference
    return 0


def _parts(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-")
    return (epoch, upstream, revision) if upstream else (epoch, rest, "")


def _compare_part(left: str, right: str) -> int:
    # Alternately non-digits and digits; the first piece is always non-digits.
    pairs = zip_longest(
        re.findall(r"(\D*)(\d*)", left), re.findall(r"(\D*)(\d*)", right), fillvalue=("", "")
    )
    for (text, number), (other_text, other_number) in pairs:
        if text != other_text:
            ours = [*map(_weight, text), 0]
            theirs = [*map(_weight, other_text), 0]
            if ours != theirs:
                return 1 if ours > theirs else -1
        if difference := int(number or 0) - int(other_number or 0):
            return difference
    return 0


def _weight(character: str) -> int:
    # "~" sorts before the end of the part, letters before everything else.
    if character == "~":
        return -1
    return ord(character) if character.isalpha() else ord(character) + 256
