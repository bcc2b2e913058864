"""Registers of a VGA in modes that programs use, as the data sheets of the time list them."""

from collections.abc import Callable
from typing import NamedTuple

Out = Callable[[int, int], None]
In = Callable[[int], int]


class Mode(NamedTuple):
    """Miscellaneous output, sequencer, CRT controller, graphics controller, attributes."""

    misc: int
    sequencer: str
    crtc: str
    graphics: str
    attributes: str


_COLORS_16 = "000102030405140738393a3b3c3d3e3f"
_COLORS_256 = "000102030405060708090a0b0c0d0e0f"

TEXT_80X25 = Mode(
    0x67,
    "0300030002",
    "5f4f50825581bf1f004f0d0e000000009c8e8f281f96b9a3ff",
    "0000000000100e00ff",
    _COLORS_16 + "0c000f0800",
)
CGA_320X200X4 = Mode(
    0x63,
    "0309030002",
    "2d2728902b80bf1f00c100000000000 09c8e8f140096b9a2ff".replace(" ", ""),
    "0000000000300f00ff",
    "00131517020406071011121314151617" + "0100030000",
)
PLANAR_640X480 = Mode(
    0xE3,
    "03010f0006",
    "5f4f508254800b3e0040000000000000ea8cdf2800e704e3ff",
    "0000000000000 50fff".replace(" ", ""),
    _COLORS_16 + "01000f0000",
)
BYTES_320X200 = Mode(
    0x63,
    "03010f000e",
    "5f4f50825480bf1f00410000000000009c8e8f284096b9a3ff",
    "000000000040050fff",
    _COLORS_256 + "41000f0000",
)
#: 320 x 240 in four planes, square pixels.
MODE_X = Mode(
    0xE3,
    "03010f0006",
    "5f4f508254800d3e0041000000000000ea8cdf2800e706e3ff",
    "000000000040050fff",
    _COLORS_256 + "41000f0000",
)


def program(mode: Mode, out: Out, read: In) -> None:
    """Sets a mode by the ports, palette untouched."""
    out(0x3C2, mode.misc)
    for index, value in enumerate(bytes.fromhex(mode.sequencer)):
        out(0x3C4, index)
        out(0x3C5, value)
    out(0x3D4, 0x11)
    out(0x3D5, 0x00)
    for index, value in enumerate(bytes.fromhex(mode.crtc)):
        out(0x3D4, index)
        out(0x3D5, value)
    for index, value in enumerate(bytes.fromhex(mode.graphics)):
        out(0x3CE, index)
        out(0x3CF, value)
    read(0x3DA)
    for index, value in enumerate(bytes.fromhex(mode.attributes)):
        out(0x3C0, index)
        out(0x3C0, value)
    out(0x3C0, 0x20)


def palette(colors: dict[int, tuple[int, int, int]], out: Out) -> None:
    """Sets colours, six bits a channel."""
    for index, color in colors.items():
        out(0x3C8, index)
        for value in color:
            out(0x3C9, value)
