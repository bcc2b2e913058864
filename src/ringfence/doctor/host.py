"""The files, programs and rights of a host, as an examination reads them."""

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

__all__ = ["Host"]


class Host:
    """This host, or one whose files are below another root.

    Args:
        root: Where its ``/`` is.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def path(self, path: str) -> Path:
        """Where a file of the host is."""
        return self._root / path.lstrip("/")

    def text(self, path: str) -> str:
        """The contents of a file; empty if it can't be read."""
        try:
            return self.path(path).read_text("utf-8", errors="replace")
        except OSError:
            return ""

    def field(self, path: str, name: str) -> str:
        """The first value of a file's lines of ``name: value``; empty if there is none."""
        for line in self.text(path).splitlines():
            key, colon, value = line.partition(":")
            if colon and key.strip() == name:
                return value.strip()
        return ""

    def number(self, path: str) -> int | None:
        """The number that is all of a file."""
        text = self.text(path).strip()
        return int(text) if text.isascii() and text.isdigit() else None

    def first(self, paths: Iterable[str]) -> str | None:
        """The first of the files that there is."""
        return next((path for path in paths if self.path(path).exists()), None)

    def program(self, name: str) -> bool:
        """Whether a program is there to be started."""
        return shutil.which(name) is not None

    def processors(self) -> int:
        """How many processors this process may use."""
        return len(os.sched_getaffinity(0))

    def may_use(self, path: str) -> str:
        """Why a device can't be opened for reading and writing; empty if it can."""
        try:
            descriptor = os.open(self.path(path), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return "it does not exist"
        except PermissionError:
            return "no permission"
        except OSError as error:
            return error.strerror or str(error)
        with suppress(OSError):
            os.close(descriptor)
        return ""
