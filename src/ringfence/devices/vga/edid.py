"""What the monitor tells of itself: a block of extended display identification data.

Source: VESA E-EDID standard, release A, revision 2 (EDID 1.4), section 3.
"""

__all__ = ["edid"]

#: Three letters, five bits each: RFV.
_MANUFACTURER = (ord("R") - 64) << 10 | (ord("F") - 64) << 5 | (ord("V") - 64)
#: sRGB's primaries and white point (section 3.7).
_CHROMATICITY = bytes.fromhex("ee91a3544c99260f5054")
#: 720x400 at 70 Hz, 640x480, 800x600 and 1024x768 at 60 Hz.
_ESTABLISHED = bytes([0xA1, 0x08, 0x00])
_STANDARD = ((1920, 1080), (1680, 1050), (1600, 900), (1440, 900), (1280, 1024), (1280, 720))
_ASPECTS = {(16, 10): 0, (4, 3): 1, (5, 4): 2, (16, 9): 3}
_REFRESH = 60
#: Dots of an inch, for the size in millimetres.
_DENSITY = 96


def edid(width: int = 1024, height: int = 768) -> bytes:
    """A block whose preferred mode has this size (up to 4095 each)."""
    across, down = (round(pixels * 25.4 / _DENSITY) for pixels in (width, height))
    block = b"\x00\xff\xff\xff\xff\xff\xff\x00"
    block += _MANUFACTURER.to_bytes(2, "big") + (1).to_bytes(2, "little") + bytes(4)
    # Week 0 of 2026; EDID 1.4; a digital input of 8 bits; size in centimetres; gamma 2.2.
    block += bytes([0, 2026 - 1990, 1, 4, 0xA0])
    block += bytes([min(across // 10, 255), min(down // 10, 255), 120])
    # RGB 4:4:4, sRGB, and the first timing is the preferred one.
    block += bytes([0x06]) + _CHROMATICITY + _ESTABLISHED
    standard = b"".join(_standard(*size) for size in _STANDARD)
    block += standard.ljust(16, b"\x01")
    block += _detailed(width, height, across, down)
    block += _descriptor(0xFD, bytes([50, 125, 30, 160, 255, 1]) + b"\x0a" + b" " * 6)
    block += _descriptor(0xFC, b"Ringfence\n".ljust(13))
    block += _descriptor(0x10, bytes(13))
    block += bytes(1)
    return block + bytes([-sum(block) & 0xFF])


def _standard(width: int, height: int) -> bytes:
    """A standard timing (section 3.9)."""
    for (across, down), code in _ASPECTS.items():
        if width * down == height * across:
            return bytes([width // 8 - 31, code << 6 | _REFRESH - 60])
    return b"\x01\x01"


def _detailed(width: int, height: int, across: int, down: int) -> bytes:
    """A detailed timing (section 3.10.2) with reduced blanking."""
    blank_x, blank_y = 160, 40
    clock = (width + blank_x) * (height + blank_y) * _REFRESH // 10_000
    front_x, sync_x, front_y, sync_y = 48, 32, 3, 6
    return bytes(
        [
            *clock.to_bytes(2, "little"),
            width & 0xFF,
            blank_x & 0xFF,
            width >> 8 << 4 | blank_x >> 8,
            height & 0xFF,
            blank_y & 0xFF,
            height >> 8 << 4 | blank_y >> 8,
            front_x,
            sync_x,
            front_y << 4 | sync_y,
            0,
            across & 0xFF,
            down & 0xFF,
            across >> 8 << 4 | down >> 8,
            0,
            0,
            0x1E,
        ]
    )


def _descriptor(tag: int, data: bytes) -> bytes:
    """A display descriptor (section 3.10.3)."""
    return bytes([0, 0, 0, tag, 0]) + data
