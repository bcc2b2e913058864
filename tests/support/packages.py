"""Files out of Debian packages, fetched by the host's apt and kept in the cache of images."""

import functools
import re
import zlib
from contextlib import suppress
from pathlib import Path

import pytest

from ringfence import errors, images
from ringfence.images.deb import DebPackage
from ringfence.images.sources import apt


@functools.cache
def _source(architecture: str) -> apt.AptSource:
    cache = images.cache_folder()
    if architecture == "amd64":
        return apt.AptSource(cache)
    return apt.AptSource(cache / architecture, architecture)


@functools.cache
def _package(name: str, architecture: str) -> Path:
    if not apt.available():
        pytest.skip("this host has no apt")
    source = _source(architecture)
    with suppress(errors.ImageError):
        # One list of several that can't be had need not be the one that is wanted.
        source.find(name, lambda progress: None)
    try:
        found = source.find(name, lambda progress: None)
        if found is not None and (depends := re.search(r"linux-image-[\w.+-]+", found.depends)):
            # The same kernel without a signature, which no one here checks.
            for variant in (f"{depends[0]}-unsigned", depends[0]):
                if real := source.find(variant, lambda progress: None):
                    found = real
                    break
        if found is None:
            pytest.skip(f"apt knows no package {name} for {architecture}")
        return source.fetch(found, lambda progress: None)
    except errors.ImageError as error:
        pytest.skip(f"no package {name}: {error}")


@functools.cache
def package_file(name: str, pattern: str, architecture: str = "amd64") -> Path:
    """The first file of a package whose path matches ``pattern``, unpacked."""
    package = _package(name, architecture)
    target = images.cache_folder() / "files" / f"{zlib.crc32(f'{package}{pattern}'.encode()):08x}"
    if not target.exists():
        found = DebPackage(package).file(lambda path: re.fullmatch(pattern, path) is not None)
        if found is None:
            pytest.fail(f"{package}: no file like {pattern}")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".part")
        partial.write_bytes(found[1])
        partial.rename(target)
    return target
