"""The screen of a machine, as a program reads it."""

import re
from collections.abc import Callable
from pathlib import Path
from threading import RLock
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

from ringfence.bus.screen import Canvas, Part, Surface, TextPage
from ringfence.display.codepage import decode
from ringfence.errors import EngineError, GuestStopped, GuestTimeout

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Screen"]

#: How often to look while waiting, in seconds.
_INTERVAL = 0.03
_TIMEOUT = 30.0
Found = TypeVar("Found")


class Screen:
    """What the machine shows.

    Args:
        lock: The machine's lock.
        surface: Gives the display of the current boot.
        new_canvas: Makes what pictures are drawn on.
        ended: Whether the machine has ended.
        console: Gives the end of the console's output, for messages.
    """

    def __init__(
        self,
        lock: RLock,
        surface: Callable[[], Surface | None],
        new_canvas: Callable[[], Canvas],
        *,
        ended: Callable[[], bool],
        console: Callable[[], str],
    ) -> None:
        self._lock = lock
        self._surface = surface
        self._new_canvas = new_canvas
        self._ended = ended
        self._console = console
        #: Where to write a picture when a wait is in vain: a folder, or ``None``.
        self.dump_to: Path | None = None

    def page(self) -> TextPage | None:
        """Characters, attributes and cursor of a text mode; ``None`` in graphics modes.

        Raises:
            EngineError: the machine has no display.
        """
        with self._lock:
            return self._require().text()

    def text(self) -> str:
        """The characters of a text mode, a line for each row, without spaces at the ends.

        Empty in graphics modes.

        Raises:
            EngineError: the machine has no display.
        """
        page = self.page()
        if page is None:
            return ""
        rows = decode(page.codes)
        width = page.columns
        lines = (rows[at : at + width].rstrip() for at in range(0, len(rows), width))
        return "\n".join(lines).rstrip("\n")

    def image(self) -> "Image":
        """The picture, with everything that blinks shown.

        Raises:
            EngineError: the machine has no display.
            ConfigError: Pillow is not installed.
        """
        from ringfence.display.images import image_of

        canvas = self._new_canvas()
        with self._lock:
            source, plan = self._require().plan(steady=True)
        canvas.draw(source, plan)
        return image_of(canvas)

    def save(self, path: str | Path) -> None:
        """Writes the picture to a file, in the format of its name's ending.

        Raises:
            EngineError: the machine has no display.
            ConfigError: Pillow is not installed, or knows no such format.
            ImageError: the file can't be written.
        """
        from ringfence.display.images import save_image

        save_image(self.image(), Path(path))

    def ocr(self, *, language: str = "eng") -> str:
        """Text of the picture, in graphics modes too, read by the program ``tesseract``.

        Raises:
            EngineError: the machine has no display.
            ConfigError: Pillow or tesseract is not installed.
        """
        from ringfence.display.ocr import recognize

        return recognize(self.image(), language)

    def wait_text(
        self,
        text: str | re.Pattern[str],
        timeout: float | None = _TIMEOUT,
        *,
        ocr: bool = False,
    ) -> str:
        """Waits until the screen shows ``text`` (a pattern: a match of it); returns the screen.

        Args:
            text: What to wait for.
            timeout: For how many seconds; ``None`` waits for ever.
            ocr: Also read graphics modes, by tesseract.

        Raises:
            GuestTimeout: it did not come; the message holds screen and console.
            GuestStopped: the machine ended before it came.
            EngineError: the machine has no display.
        """

        def look() -> str | None:
            seen = self.text()
            if ocr and self.page() is None:
                seen = self.ocr()
            found = text in seen if isinstance(text, str) else text.search(seen)
            return seen if found else None

        wanted = text if isinstance(text, str) else text.pattern
        return self._wait(look, timeout, repr(wanted))

    def wait_image(
        self,
        image: "Image | str | Path",
        timeout: float | None = _TIMEOUT,
        *,
        tolerance: float = 0.0,
        region: Part | None = None,
    ) -> "Image":
        """Waits until the screen shows ``image``; returns the screen.

        Args:
            image: A picture, or a file with one.
            timeout: For how many seconds; ``None`` waits for ever.
            tolerance: How much it may differ: the mean difference of all channels, from 0 (not at
                all) to 1 (black and white).
            region: Left, top, width and height of the part of the screen that is compared;
                ``image`` is of that size.

        Raises:
            GuestTimeout: it did not come; the message holds how near it was, and the console.
            GuestStopped: the machine ended before it came.
            EngineError: the machine has no display.
            ConfigError: Pillow is not installed.
            ImageError: the file can't be read.
        """
        from ringfence.display.images import difference, open_image

        wanted = open_image(image)
        nearest = 1.0

        def look() -> "Image | None":
            nonlocal nearest
            seen = part = self.image()
            if region is not None:
                left, top, width, height = region
                part = seen.crop((left, top, left + width, top + height))
            apart = difference(part, wanted)
            nearest = min(nearest, apart)
            return seen if apart <= tolerance else None

        return self._wait(
            look, timeout, "the picture", lambda: f"; the nearest differed by {nearest:.3g}"
        )

    async def wait_text_async(
        self,
        text: str | re.Pattern[str],
        timeout: float | None = _TIMEOUT,
        *,
        ocr: bool = False,
    ) -> str:
        """As :meth:`wait_text`, for coroutines."""
        from asyncio import to_thread

        return await to_thread(self.wait_text, text, timeout, ocr=ocr)

    async def wait_image_async(
        self,
        image: "Image | str | Path",
        timeout: float | None = _TIMEOUT,
        *,
        tolerance: float = 0.0,
        region: Part | None = None,
    ) -> "Image":
        """As :meth:`wait_image`, for coroutines."""
        from asyncio import to_thread

        return await to_thread(self.wait_image, image, timeout, tolerance=tolerance, region=region)

    # For viewers (``ringfence.display``).

    def new_canvas(self) -> Canvas:
        """What pictures are drawn on."""
        return self._new_canvas()

    def stamp(self) -> object:
        """A value that stays equal while the picture can't have changed."""
        with self._lock:
            surface = self._surface()
            return None if surface is None else (id(surface), surface.stamp())

    def plan(self) -> tuple[Any, Any] | None:
        """What a canvas takes to draw the picture; ``None`` without a display.

        It is drawn without holding the machine up.
        """
        with self._lock:
            surface = self._surface()
            return None if surface is None else surface.plan()

    def describe(self) -> str:
        """The screen as a text, for messages."""
        with self._lock:
            surface = self._surface()
            if surface is None:
                return "(no display)"
        if self.page() is not None:
            return self.text()
        plan = self.plan()
        if plan is None:
            return "(no display)"
        canvas = self._new_canvas()
        canvas.draw(*plan)
        width, height = canvas.size
        return f"(a picture of {width} x {height})"

    def _require(self) -> Surface:
        surface = self._surface()
        if surface is None:
            raise EngineError("the machine has no display, or does not run")
        return surface

    def _wait(
        self,
        look: Callable[[], Found | None],
        timeout: float | None,
        wanted: str,
        remark: Callable[[], str] = str,
    ) -> Found:
        deadline = None if timeout is None else monotonic() + timeout
        seen_at: object = self
        while True:
            ended = self._ended()
            stamp = self.stamp()
            if stamp != seen_at and stamp is not None:
                seen_at = stamp
                found = look()
                if found is not None:
                    return found
            late = deadline is not None and monotonic() > deadline
            if not ended and not late:
                sleep(_INTERVAL)
                continue
            console = self._console()
            shown = "" if ended else f"; the screen:\n{self.describe()}{self._dump()}"
            end = f"{shown}\nlast output of the console:\n{console}"
            if ended:
                raise GuestStopped(
                    f"screen: the machine ended before it showed {wanted}{remark()}{end}",
                    console=console,
                )
            raise GuestTimeout(
                f"screen: {wanted} did not come within {timeout:g} s{remark()}{end}",
                console=console,
            )

    def _dump(self) -> str:
        """Writes the picture where the user wants such; tells where that is."""
        if self.dump_to is None:
            return ""
        path = self.dump_to / "screen.png"
        self.save(path)
        return f"\n(written to {path})"
