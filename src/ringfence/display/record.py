"""Records the screen to a file: ``.gif`` by Pillow, ``.mp4`` and others by ffmpeg.

Nothing grows with the length of a recording but the file: each change of a GIF is a frame of the
part that has changed, and ffmpeg gets one picture after the other.
"""

import contextlib
import subprocess
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import IO, TYPE_CHECKING, Any, Protocol

from ringfence.bus.screen import Part
from ringfence.display.hub import ScreenHub, Update
from ringfence.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Recorder"]

_RATE = 10
_VIDEO_RATE = 25
_ENDINGS = {".gif", ".mp4", ".mkv", ".webm", ".mov"}
#: Longest time that a frame of a GIF can be shown, in hundredths of a second.
_LONGEST = 0xFFFF
#: More parts than this are one.
_MOST_PARTS = 64
_TRAILER = b"\x3b"
#: Repeats for ever (the Netscape extension of GIF89a).
_LOOP = b"\x21\xff\x0bNETSCAPE2.0\x03\x01\x00\x00\x00"


class _Sink(Protocol):
    """Takes pictures."""

    def add(self, image: "Image", parts: list[Part], at: float) -> None:
        """Takes a picture that is shown from the time ``at`` on."""

    def close(self, at: float) -> None:
        """Ends the file."""


class Recorder:
    """Records from its making to :meth:`close`.

    Args:
        hub: The picture.
        path: The file, whose ending names the format.

    Raises:
        ConfigError: there is no such format, or what encodes it is not installed.
        ImageError: the file can't be written.
    """

    def __init__(self, hub: ScreenHub, path: Path) -> None:
        if path.suffix.lower() not in _ENDINGS:
            endings = ", ".join(sorted(_ENDINGS))
            raise ConfigError(f"{path}: recordings end in {endings}")
        try:
            import PIL.Image  # noqa: F401 - whether it is there
        except ImportError:
            raise ConfigError(
                "recordings need Pillow, which is not installed: pip install 'ringfence[screen]'"
            ) from None
        self._hub = hub
        self._path = path
        try:
            if path.suffix.lower() == ".gif":
                self._file: IO[bytes] | None = path.open("wb")
            else:
                self._file = None
                _require_ffmpeg()
        except OSError as error:
            raise ImageError(f"the recording {path} can't be written: {error}") from error
        self._sink: _Sink | None = None
        self._size = (0, 0)
        self._pending: list[Part] = []
        self._lock = Lock()
        self._stop = Event()
        self._wake = Event()
        self.error: Exception | None = None
        self._leave = hub.subscribe(self._changed)
        self._thread = Thread(target=self._serve, name="ringfence-record", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the file.

        Raises:
            ImageError: it could not be written.
        """
        self._leave()
        self._stop.set()
        self._wake.set()
        self._thread.join()
        if self.error is not None:
            raise ImageError(f"the recording {self._path} failed: {self.error}") from self.error

    def _changed(self, update: Update) -> None:
        with self._lock:
            if update.copy is not None or update.resized:
                # Pictures have no moves.
                self._pending = [(0, 0, 1 << 16, 1 << 16)]
            else:
                self._pending += update.parts
                if len(self._pending) > _MOST_PARTS:
                    self._pending = [(0, 0, 1 << 16, 1 << 16)]
        self._wake.set()

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.wait()
                self._wake.clear()
                self._take()
                self._stop.wait(1 / _RATE)
            self._take()
            if self._sink is not None:
                self._sink.close(monotonic())
            elif self._file is not None:
                self._file.close()
        except Exception as error:  # noqa: BLE001 - told when the recording is closed
            self.error = error

    def _take(self) -> None:
        with self._lock:
            parts, self._pending = self._pending, []
        if not parts:
            return
        with self._hub.lock:
            canvas = self._hub.canvas
            size = canvas.size
            rgb = canvas.rgb((0, 0, *size))
        if self._sink is None:
            # A machine that has just been switched on shows nothing.
            if not any(rgb):
                return
            gif = self._file
            self._sink = _Video(self._path, size) if gif is None else _Gif(gif, size)
            self._size = size
        from PIL import Image

        image = Image.frombytes("RGB", size, rgb)
        if size != self._size:
            image, parts = image.resize(self._size), [(0, 0, *self._size)]
        self._sink.add(image, parts, monotonic())


class _Gif:
    """Frames of what has changed, each written when its time is over."""

    def __init__(self, file: IO[bytes], size: tuple[int, int]) -> None:
        self._file = file
        self._size = size
        self._waiting: tuple[Any, tuple[int, int], float] | None = None
        self._begun = False

    def add(self, image: "Image", parts: list[Part], at: float) -> None:
        """Takes a picture."""
        self._write(at)
        left = min(part[0] for part in parts)
        top = min(part[1] for part in parts)
        right = min(max(part[0] + part[2] for part in parts), self._size[0])
        bottom = min(max(part[1] + part[3] for part in parts), self._size[1])
        if not self._begun:
            left, top, right, bottom = 0, 0, *self._size
        cut = image.crop((left, top, right, bottom))
        colors = cut.quantize(256)
        self._waiting = (colors, (left, top), at)

    def close(self, at: float) -> None:
        """Ends the file."""
        self._write(at)
        self._file.write(_TRAILER)
        self._file.close()

    def _write(self, now: float) -> None:
        if self._waiting is None:
            return
        from PIL import GifImagePlugin

        image, offset, at = self._waiting
        if not self._begun:
            self._begun = True
            width, height = self._size
            self._file.write(
                b"GIF89a" + width.to_bytes(2, "little") + height.to_bytes(2, "little") + bytes(3)
            )
            self._file.write(_LOOP)
        duration = min(max(round((now - at) * 100), 2), _LONGEST) * 10
        options: dict[str, Any] = {"duration": duration, "include_color_table": True}
        for block in GifImagePlugin.getdata(image, offset, **options):
            self._file.write(block)


class _Video:
    """Pictures at a constant rate, for ffmpeg."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        width, height = size
        command = [
            *("ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24"),
            *("-s", f"{width}x{height}", "-r", str(_VIDEO_RATE), "-i", "-"),
            # Encoders want even sizes.
            *("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", str(path)),
        ]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._picture = b""
        self._frames = 0
        self._began = 0.0

    def add(self, image: "Image", parts: list[Part], at: float) -> None:  # noqa: ARG002
        """Takes a picture."""
        self._fill(at)
        self._picture = image.tobytes()

    def close(self, at: float) -> None:
        """Ends the file."""
        self._fill(at)
        _, said = self._process.communicate()
        if self._process.returncode:
            raise OSError(said.decode(errors="replace").strip() or "ffmpeg failed")

    def _fill(self, now: float) -> None:
        """Shows the picture until now."""
        if not self._picture:
            self._began = now
            return
        assert self._process.stdin is not None
        wanted = int((now - self._began) * _VIDEO_RATE) + 1
        # If ffmpeg has ended, it says why at the end.
        with contextlib.suppress(BrokenPipeError):
            while self._frames < wanted:
                self._process.stdin.write(self._picture)
                self._frames += 1


def _require_ffmpeg() -> None:
    """Sees to it that ffmpeg is there before the machine runs.

    Raises:
        ConfigError: it is not.
    """
    try:
        subprocess.run(["ffmpeg", "-version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise ConfigError(
            "films are made by ffmpeg, which is not installed: install it, or record a .gif"
        ) from None
