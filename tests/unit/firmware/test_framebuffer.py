"""What a directly booted Linux is told of its framebuffer."""

from struct import unpack_from

import pytest

from ringfence.firmware.framebuffer import Framebuffer, VideoMode, put_screen_info, wanted_mode


@pytest.mark.parametrize(
    ("command_line", "mode"),
    [
        ("console=tty0", VideoMode(1024, 768, 32, named=False)),
        ("vga=0x317 quiet", VideoMode(1024, 768, 16)),
        ("quiet vga=788", VideoMode(800, 600, 16)),
        ("vga=0x301 vga=0x344", VideoMode(1024, 768, 32)),
        ("vga=ask", VideoMode(1024, 768, 32, named=False)),
        ("novga=0x301", VideoMode(1024, 768, 32, named=False)),
        ("vga=0xffff", VideoMode(1024, 768, 32, named=False)),
    ],
)
def test_vga(command_line: str, mode: VideoMode) -> None:
    assert wanted_mode(command_line) == mode


@pytest.mark.parametrize(("named", "kind"), [(True, 0x23), (False, 0x70)])
def test_screen_info(named: bool, kind: int) -> None:
    page = bytearray(4096)
    mode = VideoMode(800, 600, 16, named)
    pitch = 1600 if named else 2560
    put_screen_info(page, Framebuffer(mode, 0xE0000000, pitch))
    assert page[0x0F] == kind
    assert unpack_from("<HHH", page, 0x12) == (800, 600, 16)
    expected = -(-pitch * 600 // 65536) if named else pitch * 600
    assert unpack_from("<II", page, 0x18) == (0xE0000000, expected)
    assert unpack_from("<H", page, 0x24) == (pitch,)
    assert bytes(page[0x26:0x2C]) == bytes([5, 11, 6, 5, 5, 0])
