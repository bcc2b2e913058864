"""From registers to a plan by which the compiled half draws, and to the characters of a page."""

from typing import TYPE_CHECKING, Any

from ringfence.bus.screen import TextPage
from ringfence.devices.vga import dispi
from ringfence.devices.vga.crtc import Geometry
from ringfence.devices.vga.palette import (
    MODE,
    MODE_BLINK,
    MODE_LINE_GRAPHICS,
    MODE_SPLIT_STILL,
    PANNING,
)

if TYPE_CHECKING:
    from ringfence.devices.vga.vga import Vga

__all__ = ["plan", "shows_text", "text_page"]

#: Offsets of the compiled registers in their dump.
_SEQUENCER, _GRAPHICS = 1, 7
_RESET, _CLOCKING, _FONTS, _MEMORY_MODE = 0, 1, 3, 4
_SHIFT_MODE, _MISCELLANEOUS = 5, 6
_SCREEN_OFF, _EIGHT_DOTS, _CHAIN_4 = 0x20, 0x01, 0x08
_GRAPHICS_MODE, _SHIFT_PAIRS, _SHIFT_BYTES = 0x01, 0x20, 0x40
#: Largest value of the split: no line is so far down.
_NO_SPLIT = 0xFFFFFFFF
_PLANE = 0xFFFF
#: The picture of a display that shows nothing.
_BLANK_SIZE = (640, 400)


def plan(vga: "Vga", cursor_shown: bool, lit: bool) -> dict[str, Any]:
    """How the picture is to be drawn."""
    registers = vga.video.registers
    sequencer, graphics = registers[_SEQUENCER:], registers[_GRAPHICS:]
    if not vga.attributes.shows or sequencer[_CLOCKING] & _SCREEN_OFF:
        return _blank(vga)
    if vga.dispi.enabled:
        return _linear(vga)
    if sequencer[_RESET] & 3 != 3:
        return _blank(vga)
    geometry = vga.crtc.geometry()
    if graphics[_MISCELLANEOUS] & _GRAPHICS_MODE:
        return _graphics(vga, geometry, sequencer, graphics)
    return _text(vga, geometry, sequencer, cursor_shown, lit)


def shows_text(vga: "Vga") -> bool:
    """Whether a text mode is shown."""
    registers = vga.video.registers
    sequencer, graphics = registers[_SEQUENCER:], registers[_GRAPHICS:]
    return not (
        vga.dispi.enabled
        or not vga.attributes.shows
        or sequencer[_CLOCKING] & _SCREEN_OFF
        or sequencer[_RESET] & 3 != 3
        or graphics[_MISCELLANEOUS] & _GRAPHICS_MODE
    )


def text_page(vga: "Vga") -> TextPage | None:
    """The characters, if a text mode is shown."""
    if not shows_text(vga):
        return None
    geometry = vga.crtc.geometry()
    memory = vga.video.peek(0, 4 * (_PLANE + 1))
    cursor, first, last = vga.crtc.cursor
    codes, attributes, found = bytearray(), bytearray(), None
    # At least one dot of a row is shown.
    for row in range(-(-geometry.lines // (geometry.row * geometry.double))):
        scan = row * geometry.row * geometry.double
        if scan >= geometry.split:
            start = (scan - geometry.split) // (geometry.row * geometry.double) * geometry.pitch
        else:
            start = geometry.start + row * geometry.pitch
        for column in range(geometry.columns):
            at = 4 * _index(start + column, geometry.shift)
            codes.append(memory[at])
            attributes.append(memory[at + 1])
        if first <= last and 0 <= (cursor - start) & _PLANE < geometry.columns and found is None:
            found = (row, (cursor - start) & _PLANE)
    return TextPage(
        codes=bytes(codes),
        attributes=bytes(attributes),
        columns=geometry.columns,
        cursor=found,
        palette=tuple(_palette_16(vga)),
        blink=bool(vga.attributes.registers[MODE] & MODE_BLINK),
    )


def _index(counter: int, shift: tuple[int, int]) -> int:
    """Index of a plane for a value of the address counter."""
    count, low = shift
    return (counter << count | counter >> low & ((1 << count) - 1)) & _PLANE


def _palette_16(vga: "Vga") -> list[int]:
    return [vga.dac.color(index) for index in vga.attributes.colors()]


def _palette_256(vga: "Vga") -> list[int]:
    return [vga.dac.color(index) for index in range(256)]


def _plan(kind: str, width: int, height: int, **more: Any) -> dict[str, Any]:
    """A plan with the plainest values for all that is not named."""
    values: dict[str, Any] = {
        "kind": kind,
        "width": width,
        "height": height,
        "start": 0,
        "pitch": 0,
        "split": _NO_SPLIT,
        "split_pans": False,
        "repeat": 1,
        "double": 1,
        "row": 1,
        "preset": 0,
        "panning": 0,
        "shift": (0, 0),
        "row_bits": (False, False),
        "mask": _PLANE,
        "palette": [],
        "text": None,
    }
    return values | more


def _blank(vga: "Vga") -> dict[str, Any]:
    if vga.dispi.enabled:
        registers = vga.dispi.registers
        return _plan("blank", registers[dispi.X_RESOLUTION], registers[dispi.Y_RESOLUTION])
    return _plan("blank", *_BLANK_SIZE)


def _linear(vga: "Vga") -> dict[str, Any]:
    registers, depth = vga.dispi.registers, vga.dispi.registers[dispi.DEPTH]
    palette: list[int] = []
    if depth == 8:
        palette = _palette_256(vga)
    elif depth == 4:
        palette = _palette_16(vga)
    return _plan(
        "planar" if depth == 4 else f"linear{depth}",
        registers[dispi.X_RESOLUTION],
        registers[dispi.Y_RESOLUTION],
        start=vga.dispi.start,
        pitch=vga.dispi.pitch,
        mask=vga.video.size // 4 - 1,
        palette=palette,
    )


def _common(vga: "Vga", geometry: Geometry) -> dict[str, Any]:
    """What text and graphics have in common."""
    return {
        "start": geometry.start,
        "pitch": geometry.pitch,
        "split": geometry.split,
        "split_pans": not vga.attributes.registers[MODE] & MODE_SPLIT_STILL,
        "double": geometry.double,
        "row": geometry.row,
        "preset": geometry.preset,
        "shift": geometry.shift,
    }


def _graphics(vga: "Vga", geometry: Geometry, sequencer: bytes, graphics: bytes) -> dict[str, Any]:
    more = _common(vga, geometry)
    # Lines that are shown several times alike are one line of the picture.
    repeat = geometry.double * (1 if any(geometry.row_bits) else geometry.row)
    panning = vga.attributes.registers[PANNING] & 7
    if sequencer[_MEMORY_MODE] & _CHAIN_4 and geometry.shift[0] == 2:
        more["shift"] = (0, 0)
    kind, across, palette = "planar", 8, []
    if graphics[_SHIFT_MODE] & _SHIFT_BYTES:
        kind, across, palette, panning = "bytes", 4, _palette_256(vga), panning >> 1
    else:
        palette = _palette_16(vga)
        if graphics[_SHIFT_MODE] & _SHIFT_PAIRS:
            kind = "pairs"
    return _plan(
        kind,
        geometry.columns * across,
        -(-geometry.lines // repeat),
        **more,
        repeat=repeat,
        panning=panning,
        row_bits=geometry.row_bits,
        palette=palette,
    )


def _text(
    vga: "Vga", geometry: Geometry, sequencer: bytes, cursor_shown: bool, lit: bool
) -> dict[str, Any]:
    dots = 8 if sequencer[_CLOCKING] & _EIGHT_DOTS else 9
    panning = vga.attributes.registers[PANNING]
    # With nine dots 8 means none, and 0 to 7 one more.
    panning = panning & 7 if dots == 8 else (0 if panning & 8 else panning + 1)
    mode = vga.attributes.registers[MODE]
    at, first, last = vga.crtc.cursor
    select = sequencer[_FONTS]
    return _plan(
        "text",
        geometry.columns * dots,
        -(-geometry.lines // geometry.double),
        **_common(vga, geometry),
        repeat=geometry.double,
        panning=panning,
        palette=_palette_16(vga),
        text={
            "dots": dots,
            "fonts": (
                _font(select & 3 | select >> 2 & 4),
                _font(select >> 2 & 3 | select >> 3 & 4),
            ),
            "line_graphics": bool(mode & MODE_LINE_GRAPHICS),
            "blink": bool(mode & MODE_BLINK),
            "lit": lit,
            "cursor": (at, first, last) if cursor_shown else (at, 1, 0),
            "underline": vga.crtc.underline,
        },
    )


def _font(number: int) -> int:
    """Offset in plane 2 of a font: 0 to 3 begin at even, 4 to 7 at odd multiples of 8 KiB."""
    return (number & 3) << 14 | (number >> 2) << 13
