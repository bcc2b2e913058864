"""The framebuffer that a directly booted Linux is told of, as a BIOS or UEFI would leave it.

Source: Linux, include/uapi/linux/screen_info.h and Documentation/fb/vesafb.rst (``vga=``); mode
numbers of the VESA BIOS extensions 3.0, and those of 32 bits per pixel of Bochs' VGA BIOS.
"""

import re
from struct import pack_into
from typing import NamedTuple

__all__ = ["Framebuffer", "VideoMode", "put_screen_info", "wanted_mode"]


class VideoMode(NamedTuple):
    """A mode."""

    width: int
    height: int
    depth: int
    #: The user named it by ``vga=``: it is a BIOS's then, and UEFI's otherwise.
    named: bool = True


class Framebuffer(NamedTuple):
    """A mode that is set, and where its pixels are."""

    mode: VideoMode
    address: int
    pitch: int


_DEFAULT = VideoMode(1024, 768, 32, named=False)
_SIZES = {
    0x100: (640, 400, 8),
    0x101: (640, 480, 8),
    0x103: (800, 600, 8),
    0x105: (1024, 768, 8),
    0x107: (1280, 1024, 8),
    0x110: (640, 480, 15),
    0x111: (640, 480, 16),
    0x112: (640, 480, 24),
    0x113: (800, 600, 15),
    0x114: (800, 600, 16),
    0x115: (800, 600, 24),
    0x116: (1024, 768, 15),
    0x117: (1024, 768, 16),
    0x118: (1024, 768, 24),
    0x119: (1280, 1024, 15),
    0x11A: (1280, 1024, 16),
    0x11B: (1280, 1024, 24),
    0x11C: (1600, 1200, 8),
    0x11D: (1600, 1200, 15),
    0x11E: (1600, 1200, 16),
    0x11F: (1600, 1200, 24),
    0x140: (320, 200, 32),
    0x141: (640, 400, 32),
    0x142: (640, 480, 32),
    0x143: (800, 600, 32),
    0x144: (1024, 768, 32),
    0x145: (1280, 1024, 32),
    0x147: (1600, 1200, 32),
}
#: Linux counts the modes of the VBE from here on.
_VESA = 0x200
_VGA = re.compile(r"(?:^|\s)vga=(0x[0-9a-fA-F]{1,4}|\d{1,5})(?=\s|$)")

_TYPE_VESA, _TYPE_EFI = 0x23, 0x70
_VESA_UNIT = 1 << 16
#: Bits and positions of red, green, blue and the rest.
_CHANNELS = {
    8: (0, 0, 0, 0, 0, 0, 0, 0),
    15: (5, 10, 5, 5, 5, 0, 1, 15),
    16: (5, 11, 6, 5, 5, 0, 0, 0),
    24: (8, 16, 8, 8, 8, 0, 0, 0),
    32: (8, 16, 8, 8, 8, 0, 8, 24),
}


def wanted_mode(command_line: str) -> VideoMode:
    """The mode that ``vga=`` names (the last one counts); 1024 x 768 in true colour without it."""
    numbers = [int(text, 0) - _VESA for text in _VGA.findall(command_line)]
    size = _SIZES.get(numbers[-1]) if numbers else None
    return _DEFAULT if size is None else VideoMode(*size)


def put_screen_info(page: bytearray, framebuffer: Framebuffer) -> None:
    """Describes a framebuffer at the beginning of a zero page (``struct screen_info``)."""
    mode = framebuffer.mode
    size = framebuffer.pitch * mode.height
    page[0x0F] = _TYPE_VESA if mode.named else _TYPE_EFI
    units = -(-size // _VESA_UNIT) if mode.named else size
    pack_into("<HHHII", page, 0x12, mode.width, mode.height, mode.depth, framebuffer.address, units)
    pack_into("<H8B", page, 0x24, framebuffer.pitch, *_CHANNELS[mode.depth])
    pack_into("<H", page, 0x32, 1)
