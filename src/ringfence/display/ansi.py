"""Text modes as a terminal shows them, and the keys that it sends.

Sources: ECMA-48 (control sequences), xterm's control sequences (colours of 24 bits, keys).
"""

from collections.abc import Iterator

from ringfence.bus.keys import KEYS
from ringfence.bus.screen import Canvas, TextPage
from ringfence.display.codepage import decode
from ringfence.display.layouts import Chord, Layout

__all__ = ["TerminalKeys", "TerminalPicture"]

_CLEAR, _HOME_CURSOR = "\x1b[0m\x1b[2J", "\x1b[?25h"
#: Two lines of a picture in one of a terminal.
_UPPER_HALF = "▀"


class TerminalPicture:
    """What a terminal shows: gives the sequences that bring it up to date.

    A page that is larger than the terminal is cut: the part with the cursor is shown.
    """

    def __init__(self) -> None:
        self._size = (0, 0)
        self._cells: dict[tuple[int, int], tuple[str, str]] = {}
        self._cursor: tuple[int, int] | None = None

    def resize(self, rows: int, columns: int) -> None:
        """The terminal has this size now, and may show anything."""
        self._size = (rows, columns)
        self._cells.clear()
        self._cursor = (-1, -1)

    def page(self, page: TextPage) -> str:
        """Shows a text mode."""
        rows, columns = self._size
        top = left = 0
        if page.cursor is not None:
            # The last rows before the cursor: there is where things happen.
            top = min(max(page.cursor[0] - rows + 1, 0), max(page.rows - rows, 0))
            left = min(max(page.cursor[1] - columns + 1, 0), max(page.columns - columns, 0))
        text = decode(page.codes)
        cells: dict[tuple[int, int], tuple[str, str]] = {}
        for row in range(min(rows, page.rows - top)):
            base = (top + row) * page.columns + left
            for column in range(min(columns, page.columns - left)):
                attribute = page.attributes[base + column]
                style = _style(page, attribute)
                cells[row, column] = (text[base + column], style)
        cursor = None
        if page.cursor is not None:
            at = (page.cursor[0] - top, page.cursor[1] - left)
            cursor = at if 0 <= at[0] < rows and 0 <= at[1] < columns else None
        return self._show(cells, cursor)

    def picture(self, canvas: Canvas) -> str:
        """Shows a graphics mode, as coarse as the terminal is."""
        rows, columns = self._size
        width, height = canvas.size
        if not (rows and columns and width and height):
            return ""
        # Whole picture in the terminal, cells twice as high as wide.
        scale = max(width / columns, height / (2 * rows))
        across, down = int(width / scale), int(height / scale)
        pixels = canvas.rgb((0, 0, width, height))

        def color(x: int, y: int) -> str:
            at = 3 * (min(int(y * scale), height - 1) * width + min(int(x * scale), width - 1))
            return f"{pixels[at]};{pixels[at + 1]};{pixels[at + 2]}"

        cells = {
            (row, column): (
                _UPPER_HALF,
                f"\x1b[0;38;2;{color(column, 2 * row)};48;2;{color(column, 2 * row + 1)}m",
            )
            for row in range(min(down // 2, rows))
            for column in range(min(across, columns))
        }
        return self._show(cells, None)

    def _show(
        self, cells: dict[tuple[int, int], tuple[str, str]], cursor: tuple[int, int] | None
    ) -> str:
        """Sequences from what is shown to ``cells``."""
        before, self._cells = self._cells, cells
        out: list[str] = []
        if not before or not before.keys() <= cells.keys():
            out.append(_CLEAR)
            before = {}
        at: tuple[int, int] | None = None
        style = ""
        for (row, column), cell in cells.items():
            if before.get((row, column)) == cell:
                continue
            if at != (row, column):
                out.append(f"\x1b[{row + 1};{column + 1}H")
            if style != cell[1]:
                style = cell[1]
                out.append(style)
            out.append(cell[0])
            # Behind the last column a terminal may wait for the next character, or not.
            at = (row, column + 1) if column + 1 < self._size[1] else None
        if cursor != self._cursor or out:
            self._cursor = cursor
            if cursor is None:
                out.append("\x1b[?25l")
            else:
                out.append(f"\x1b[{cursor[0] + 1};{cursor[1] + 1}H{_HOME_CURSOR}")
        return "".join(out)


def _style(page: TextPage, attribute: int) -> str:
    """The sequence for an attribute: the very colours of the palette."""
    background = attribute >> 4
    blink = ""
    if page.blink:
        background &= 7
        blink = ";5" if attribute & 0x80 else ""
    return f"\x1b[0{blink};38;2;{_rgb(page, attribute & 15)};48;2;{_rgb(page, background)}m"


def _rgb(page: TextPage, index: int) -> str:
    color = page.palette[index]
    return f"{color >> 16};{color >> 8 & 0xFF};{color & 0xFF}"


#: Final characters of ``ESC [`` and ``ESC O``.
_FINALS = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "E": "kp-5",
    "F": "end",
    "H": "home",
    "P": "f1",
    "Q": "f2",
    "R": "f3",
    "S": "f4",
}
#: Numbers before ``~``.
_NUMBERS = {
    1: "home",
    2: "insert",
    3: "delete",
    4: "end",
    5: "pageup",
    6: "pagedown",
    7: "home",
    8: "end",
    **{10 + number: f"f{number}" for number in range(1, 6)},
    **{11 + number: f"f{number}" for number in range(6, 11)},
    23: "f11",
    24: "f12",
}
_SHIFT, _ALT, _CTRL = 1, 2, 4


class TerminalKeys:
    """Keys from what a terminal sends.

    Args:
        layout: The layout that the guest has its keyboard for.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._pending = b""

    def feed(self, data: bytes) -> list[Chord]:
        """The chords in ``data``; a sequence that has not ended waits for more."""
        text = self._pending + data
        self._pending = b""
        try:
            decoded = text.decode()
        except UnicodeDecodeError as error:
            # Half a character at the end waits; elsewhere it is none.
            if error.end == len(text) and len(text) - error.start < 4:
                self._pending = text[error.start :]
                decoded = text[: error.start].decode()
            else:
                decoded = text.decode("utf-8", "ignore")
        return list(self._chords(decoded))

    def _chords(self, text: str) -> Iterator[Chord]:
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                length, chord = self._escape(text[at:])
                if chord:
                    yield chord
                at += length
                continue
            yield from self._character(text[at])
            at += 1

    def _escape(self, text: str) -> tuple[int, Chord]:
        """How long the sequence at the beginning is, and what it means."""
        if len(text) == 1:
            return 1, (KEYS["esc"],)
        if text[1] in "[O":
            end = 2
            while end < len(text) and text[end] in "0123456789;":
                end += 1
            if end == len(text):
                # Alt and a bracket, or a sequence that was cut: nobody can tell.
                return end, ()
            numbers = [int(part or "0") for part in text[2:end].split(";")[:4] if len(part) < 6]
            name = _FINALS.get(text[end])
            if text[end] == "~" and numbers:
                name = _NUMBERS.get(numbers[0])
            if text[end] == "Z":
                return end + 1, (KEYS["shift"], KEYS["tab"])
            if name is None:
                return end + 1, ()
            modifiers = numbers[1] - 1 if len(numbers) > 1 else 0
            return end + 1, (*_modifiers(modifiers), KEYS[name])
        for chord in self._character(text[1]):
            return 2, (KEYS["alt"], *chord)
        return 2, ()

    def _character(self, character: str) -> Iterator[Chord]:
        if character in ("\x7f", "\b"):
            yield (KEYS["backspace"],)
        elif character in ("\r", "\n", "\t"):
            yield (KEYS["tab" if character == "\t" else "enter"],)
        elif character < " ":
            letter = chr(ord(character) + 0x40).lower() if character != "\0" else " "
            for chord in self._layout.chords.get(letter, ()):
                yield (KEYS["ctrl"], *chord)
        else:
            yield from self._layout.chords.get(character, ())


def _modifiers(bits: int) -> Chord:
    names = ((_SHIFT, "shift"), (_ALT, "alt"), (_CTRL, "ctrl"))
    return tuple(KEYS[name] for bit, name in names if bits & bit)
