"""Messages of the remote framebuffer protocol, as bytes.

Sources: RFC 6143, sections 7.3 to 7.8; QEMU's extensions as the community's protocol document
(rfbproto) has them.
"""

import struct
from typing import Literal, NamedTuple

from ringfence.bus.screen import Part, PixelFormat

__all__ = ["DEFAULT_FORMAT", "Encoding", "WireFormat", "color_map", "cursor", "rectangle"]


class Encoding:
    """Numbers of encodings and pseudo-encodings."""

    RAW, COPY_RECT, ZRLE = 0, 1, 16
    DESKTOP_SIZE, CURSOR, POINTER_MOTION = -223, -239, -257
    EXTENDED_KEYS, LEDS, EXTENDED_DESKTOP_SIZE = -258, -261, -308


class WireFormat(NamedTuple):
    """A pixel format as it is sent (section 7.4)."""

    bits: int
    depth: int
    big_endian: bool
    true_color: bool
    largest: tuple[int, int, int]
    shift: tuple[int, int, int]

    @classmethod
    def unpack(cls, data: bytes) -> "WireFormat | None":
        """The format in 16 bytes; ``None`` if there can't be such."""
        bits, depth, big_endian, true_color, *rest = struct.unpack(">BBBBHHHBBB3x", data)
        if bits not in (8, 16, 32):
            return None
        red, green, blue, *shifts = rest
        largest, shift = (red, green, blue), (shifts[0], shifts[1], shifts[2])
        if true_color and any(
            most & (most + 1) or most.bit_length() + by > bits
            for most, by in zip(largest, shift, strict=True)
        ):
            return None
        return cls(bits, depth, bool(big_endian), bool(true_color), largest, shift)

    def pack(self) -> bytes:
        """16 bytes."""
        return struct.pack(
            ">BBBBHHHBBB3x",
            self.bits,
            self.depth,
            self.big_endian,
            self.true_color,
            *self.largest,
            *self.shift,
        )

    @property
    def pixels(self) -> PixelFormat:
        """What a canvas takes."""
        if not self.true_color:
            # Numbers of a colour map that has them all in order.
            return self.bits // 8, self.big_endian, (7, 7, 3), (0, 3, 6)
        return self.bits // 8, self.big_endian, self.largest, self.shift


DEFAULT_FORMAT = WireFormat(32, 24, False, True, (255, 255, 255), (16, 8, 0))


def rectangle(part: Part, encoding: int) -> bytes:
    """Header of a rectangle."""
    return struct.pack(">HHHHi", *part, encoding)


def color_map() -> bytes:
    """SetColourMapEntries for viewers without true colours: three bits red, green, two blue."""
    entries = b"".join(
        struct.pack(
            ">HHH",
            (index & 7) * 0xFFFF // 7,
            (index >> 3 & 7) * 0xFFFF // 7,
            (index >> 6) * 0xFFFF // 3,
        )
        for index in range(256)
    )
    return struct.pack(">BxHH", 1, 0, 256) + entries


#: A dot, for viewers that draw the pointer: white within black.
_DOT = ("#####", "#ooo#", "#ooo#", "#ooo#", "#####")


def cursor(wire: WireFormat, *, shown: bool) -> bytes:
    """The pointer's picture: a dot, or nothing where the guest draws the only one."""
    if not shown:
        return rectangle((0, 0, 0, 0), Encoding.CURSOR)
    size, big_endian, largest, shift = wire.pixels
    white = sum(most << by for most, by in zip(largest, shift, strict=True))
    order: Literal["big", "little"] = "big" if big_endian else "little"
    pixels = b"".join(
        (white if dot == "o" else 0).to_bytes(size, order) for row in _DOT for dot in row
    )
    mask = b"\xf8" * len(_DOT)
    return rectangle((2, 2, len(_DOT[0]), len(_DOT)), Encoding.CURSOR) + pixels + mask
