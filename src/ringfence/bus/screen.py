"""What a display shows, for whoever looks: pictures are drawn when they are asked for."""

from typing import Any, NamedTuple, Protocol

__all__ = ["Canvas", "Part", "PixelFormat", "Surface", "TextPage"]

#: Part of a picture: left, top, width, height.
Part = tuple[int, int, int, int]
#: Bytes of a pixel (1, 2, 4), highest first or not, largest values and shifts of red, green, blue.
PixelFormat = tuple[int, bool, tuple[int, int, int], tuple[int, int, int]]


class TextPage(NamedTuple):
    """The characters of a text mode.

    Attributes:
        codes: Character codes, row by row.
        attributes: Attributes in the same order: foreground in bits 0 to 3, background in 4 to 7.
        columns: Characters of a row.
        cursor: Row and column of the cursor; ``None`` when it is hidden or elsewhere.
        palette: Colours of the 16 attributes, as ``00RRGGBBh``.
        blink: Bit 7 of an attribute blinks instead of brightening the background.
    """

    codes: bytes
    attributes: bytes
    columns: int
    cursor: tuple[int, int] | None
    palette: tuple[int, ...]
    blink: bool

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.codes) // self.columns if self.columns else 0


class Canvas(Protocol):
    """A picture that was drawn last. Thread-safe."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    def draw(self, source: Any, plan: Any) -> list[Part]:
        """Draws what ``source`` shows by ``plan``; gives what has changed."""

    def draw_scrolled(
        self, source: Any, plan: Any
    ) -> tuple[tuple[int, int, int] | None, list[Part]]:
        """The same, with a move of lines that comes first: from, to, how many."""

    def rgb(self, part: Part) -> bytes:
        """Pixels of a part, cut to the picture: red, green, blue, a byte each."""

    def packed(self, part: Part, wire: PixelFormat) -> bytes:
        """Pixels of a part in another format."""

    def zrle(self, part: Part, wire: PixelFormat) -> bytes:
        """A part as the tiles of ZRLE (RFC 6143, section 7.7.6), before they are compressed."""


class Surface(Protocol):
    """A device that shows something. All methods are called under the machine's lock."""

    def stamp(self) -> object:
        """A value that stays equal while the picture can't have changed."""

    def plan(self, *, steady: bool = False) -> tuple[Any, Any]:
        """What :meth:`Canvas.draw` takes to draw the picture as it is now.

        Args:
            steady: Shows what blinks, so that two pictures of one state are equal.
        """

    def text(self) -> TextPage | None:
        """The characters, if a text mode is shown."""
