"""A desktop that nobody sees: an X server without a screen, and what is on it."""

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image


class Desktop(NamedTuple):
    """A display and the file in which its pixels are."""

    display: str
    framebuffer: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DISPLAY": self.display}

    def image(self) -> Image.Image:
        """What it shows, from the server's framebuffer (XWD version 7)."""
        data = self.framebuffer.read_bytes()
        header = struct.unpack(">25I", data[:100])
        size, width, height, pitch, colors = (header[at] for at in (0, 4, 5, 12, 19))
        pixels = data[size + 12 * colors :]
        return Image.frombuffer("RGB", (width, height), pixels, "raw", "BGRX", pitch, 1)

    def tell(self, *arguments: str) -> str:
        """Uses its keyboard and mouse, by xdotool."""
        done = subprocess.run(
            ["xdotool", *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout


@contextmanager
def desktop(folder: Path) -> Iterator[Desktop]:
    """An X server for as long as the block runs."""
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [
            *("Xvfb", "-displayfd", str(write_end), "-screen", "0", "1024x768x24"),
            *("-fbdir", str(folder), "-nolisten", "tcp"),
        ],
        pass_fds=[write_end],
        stderr=subprocess.DEVNULL,
    ) as server:
        os.close(write_end)
        try:
            with os.fdopen(read_end) as file:
                number = file.readline().strip()
            assert number, "Xvfb did not start"
            yield Desktop(f":{number}", folder / "Xvfb_screen0")
        finally:
            server.terminate()
