"""Where work runs: the host itself, and guests on each engine."""

import subprocess
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Protocol, Self

from ringfence.errors import EngineError, ImageCorrupt

if TYPE_CHECKING:
    from ringfence import VM

__all__ = ["Guest", "Native", "Platform"]

#: A case may take this long, in seconds: it runs a fraction of one where the host does it.
_LIMIT = 300.0
_APPLETS = ("awk", "cat", "dd", "env", "gzip", "sed", "seq", "sh", "sha256sum", "sort", "true")
_HEADER = 110


class Platform(Protocol):
    """Something that runs scripts; a context manager."""

    name: str

    def __enter__(self) -> Self:
        """Starts it."""

    def __exit__(self, *_: object) -> None:
        """Ends it."""

    def seconds(self, script: str) -> float:
        """How long a script takes, in seconds of the host's clock."""


class Native:
    """The host itself, with the busybox of an image.

    Args:
        initrd: The image's initial RAM disk.
    """

    name = "native"

    def __init__(self, initrd: Path) -> None:
        self._initrd = initrd
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="ringfence-bench-")
        folder = Path(self._folder.name)
        program = folder / "busybox"
        program.write_bytes(extract(self._initrd.read_bytes(), "bin/busybox"))
        program.chmod(0o755)
        for applet in _APPLETS:
            (folder / applet).symlink_to("busybox")
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def seconds(self, script: str) -> float:
        """How long a script takes."""
        assert self._folder is not None
        folder = self._folder.name
        start = perf_counter()
        done = subprocess.run(
            [f"{folder}/sh", "-c", script],
            env={"PATH": folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_LIMIT,
        )
        took = perf_counter() - start
        if done.returncode:
            raise EngineError(f"the host: {done.stderr.decode(errors='replace').strip()}")
        return took


class Guest:
    """A machine on one engine; it stays up for the whole run.

    Args:
        image: Name of the image.
        engine: ``bt`` or ``kvm``.
        memory: Its memory.
    """

    def __init__(self, image: str, engine: str, memory: str) -> None:
        self.name = engine
        self._image = image
        self._memory = memory
        self._vm: VM | None = None

    def __enter__(self) -> Self:
        from ringfence.machine import VM

        self._vm = VM(self._image, engine=self.name, memory=self._memory)
        self._vm.start()
        self._vm.run("true", timeout=_LIMIT).check()
        return self

    def __exit__(self, *_: object) -> None:
        if self._vm is not None:
            self._vm.stop()

    def seconds(self, script: str) -> float:
        """How long a script takes, its way into the guest included."""
        assert self._vm is not None
        start = perf_counter()
        self._vm.run(script, timeout=_LIMIT).check()
        return perf_counter() - start


def extract(archive: bytes, path: str) -> bytes:
    """A file of an uncompressed ``newc`` archive.

    Raises:
        ImageCorrupt: the archive is none, or has no such file.
    """
    at = 0
    while archive[at : at + 6] == b"070701":
        fields = archive[at + 6 : at + _HEADER]
        try:
            size, name_size = int(fields[48:56], 16), int(fields[88:96], 16)
        except ValueError:
            break
        name = archive[at + _HEADER : at + _HEADER + name_size - 1]
        data = (at + _HEADER + name_size + 3) & ~3
        if name == path.encode():
            return archive[data : data + size]
        at = (data + size + 3) & ~3
    raise ImageCorrupt(f"the initial RAM disk has no {path} that could run on the host")
