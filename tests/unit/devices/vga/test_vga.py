"""The VGA by its ports and its memory, in the modes that programs use."""

import pytest

from ringfence.accel.video import Picture
from ringfence.devices.vga.vga import BASE, Vga
from support import vga_modes
from support.fake_devices import HandClock

A000, B800 = 0xA0000, 0xB8000


class Bench:
    def __init__(self, memory: int = 1 << 18) -> None:
        self.clock = HandClock()
        self.vga = Vga(self.clock, memory)

    def out(self, port: int, value: int) -> None:
        self.vga.write(port - BASE, 1, value)

    def read(self, port: int) -> int:
        return self.vga.read(port - BASE, 1)

    def index(self, port: int, index: int, value: int) -> None:
        self.out(port, index)
        self.out(port + 1, value)

    def mode(self, mode: vga_modes.Mode) -> None:
        vga_modes.program(mode, self.out, self.read)
        palette = {index: (index & 63, index >> 2 & 63, 63 - (index & 63)) for index in range(256)}
        vga_modes.palette(palette, self.out)

    def poke(self, address: int, *values: int) -> None:
        for offset, value in enumerate(values):
            self.vga.video.write(address + offset, 1, value)

    def peek(self, address: int) -> int:
        return self.vga.video.read(address, 1)

    def picture(self, *, steady: bool = True) -> Picture:
        picture = Picture()
        picture.draw(*self.vga.plan(steady=steady))
        return picture

    def pixel(self, x: int, y: int, *, steady: bool = True) -> int:
        return int.from_bytes(self.picture(steady=steady).rgb((x, y, 1, 1)), "big")

    def color(self, index: int) -> int:
        """What the palette of :meth:`mode` shows for a register of the converter."""
        channels = (index & 63, index >> 2 & 63, 63 - (index & 63))
        red, green, blue = (value << 2 | value >> 4 for value in channels)
        return red << 16 | green << 8 | blue


@pytest.fixture
def bench() -> Bench:
    return Bench()


def font(bench: Bench, code: int, rows: bytes) -> None:
    """Loads a character the way a BIOS does: plane 2 alone, in sequence."""
    for port, index, value in (
        (0x3C4, 2, 4),
        (0x3C4, 4, 6),
        (0x3CE, 4, 2),
        (0x3CE, 5, 0),
        (0x3CE, 6, 4),
    ):
        bench.index(port, index, value)
    bench.poke(A000 + code * 32, *rows)
    for port, index, value in (
        (0x3C4, 2, 3),
        (0x3C4, 4, 2),
        (0x3CE, 4, 0),
        (0x3CE, 5, 0x10),
        (0x3CE, 6, 0x0E),
    ):
        bench.index(port, index, value)


def test_after_power_on_nothing_is_shown(bench: Bench) -> None:
    assert bench.vga.text() is None
    assert bench.picture().size == (640, 400)
    assert bench.pixel(0, 0) == 0


def test_text(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    bench.poke(B800, *b"H\x07i\x1e")
    bench.poke(B800 + 2 * (24 * 80 + 79), ord("!"), 0x4F)
    page = bench.vga.text()
    assert page is not None
    assert (page.rows, page.columns) == (25, 80)
    assert page.codes[:2] == b"Hi"
    assert page.attributes[:2] == b"\x07\x1e"
    assert page.codes[-1:] == b"!"
    assert page.cursor == (0, 0)
    assert bench.peek(B800 + 1) == 0x07
    assert bench.picture().size == (720, 400)


def test_text_dots(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    bench.index(0x3D4, 0x0A, 0x20)
    font(bench, 0xC4, bytes([0x01] * 16))
    font(bench, 0x41, bytes([0x80, *[0] * 15]))
    bench.poke(B800, 0x41, 0x1E, 0xC4, 0x02)
    background, foreground = bench.color(0x01), bench.color(0x3E)
    assert bench.pixel(0, 0) == foreground
    assert bench.pixel(1, 0) == background
    assert bench.pixel(0, 1) == background
    assert bench.pixel(8, 0) == background, "the ninth dot is empty"
    assert bench.pixel(9 + 7, 5) == bench.color(0x02)
    assert bench.pixel(9 + 8, 5) == bench.color(0x02), "but for line characters"


def test_cursor_and_blinking(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    bench.index(0x3D4, 0x0F, 3)
    bench.poke(B800 + 6, 0x20, 0x07)
    lit, dark = bench.color(0x07), bench.color(0)
    assert bench.pixel(3 * 9, 13) == lit
    assert bench.pixel(3 * 9, 12) == dark
    seen = set()
    for _ in range(40):
        seen.add(bench.pixel(3 * 9, 13, steady=False))
        bench.clock.advance(15_000_000)
    assert seen == {lit, dark}
    bench.index(0x3D4, 0x0A, 0x2D)
    assert bench.pixel(3 * 9, 13) == dark
    page = bench.vga.text()
    assert page
    assert page.cursor is None


def test_start_address_and_line_compare(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    for row in range(60):
        bench.poke(B800 + 160 * row, 0x30 + row)
    bench.index(0x3D4, 0x0D, 80 * 2)
    # Line compare has ten bits; 319 needs the ninth.
    bench.index(0x3D4, 0x18, 319 & 0xFF)
    bench.index(0x3D4, 0x07, 0x1F)
    bench.index(0x3D4, 0x09, 0x0F)
    page = bench.vga.text()
    assert page
    assert page.codes[0] == 0x30 + 2
    assert page.codes[19 * 80] == 0x30 + 21
    assert page.codes[20 * 80] == 0x30, "the split begins at address 0"


def test_bytes_mode(bench: Bench) -> None:
    bench.mode(vga_modes.BYTES_320X200)
    assert bench.picture().size == (320, 200)
    bench.poke(A000 + 320 * 7 + 5, 0x9C)
    assert bench.pixel(5, 7) == bench.color(0x9C)
    assert bench.peek(A000 + 320 * 7 + 5) == 0x9C
    assert bench.vga.video.direct() == (A000, 0x10000, 0)
    # The linear order is that of the framebuffer.
    assert bench.vga.video.peek(320 * 7 + 5, 1) == b"\x9c"
    bench.index(0x3C4, 2, 1)
    assert bench.vga.video.direct() is None, "one plane alone is not plain memory"


def test_panning_in_bytes_mode(bench: Bench) -> None:
    bench.mode(vga_modes.BYTES_320X200)
    bench.poke(A000, *range(16))
    bench.read(0x3DA)
    bench.out(0x3C0, 0x33)
    bench.out(0x3C0, 4)
    assert bench.pixel(0, 0) == bench.color(2)
    bench.index(0x3D4, 0x0D, 1)
    assert bench.pixel(0, 0) == bench.color(6)


def test_mode_x(bench: Bench) -> None:
    bench.mode(vga_modes.MODE_X)
    assert bench.picture().size == (320, 240)
    for plane in range(4):
        bench.index(0x3C4, 2, 1 << plane)
        bench.poke(A000 + 80, 0x40 + plane)
    assert [bench.pixel(x, 1) for x in range(4)] == [bench.color(0x40 + x) for x in range(4)]
    # Latches copy four pixels at once.
    bench.index(0x3C4, 2, 0x0F)
    bench.index(0x3CE, 5, 0x41)
    bench.peek(A000 + 80)
    bench.poke(A000 + 81, 0)
    assert bench.pixel(7, 1) == bench.color(0x43)


def test_planar_write_modes(bench: Bench) -> None:
    bench.mode(vga_modes.PLANAR_640X480)
    assert bench.picture().size == (640, 480)
    # Write mode 0 with set/reset and a bit mask: one pixel of colour 0Dh.
    bench.index(0x3CE, 0, 0x0D)
    bench.index(0x3CE, 1, 0x0F)
    bench.index(0x3CE, 8, 0x10)
    bench.peek(A000 + 80)
    bench.poke(A000 + 80, 0)
    assert bench.pixel(3, 1) == bench.color(0x3D)
    assert bench.pixel(2, 1) == bench.color(0)
    # Write mode 2: the data is the colour.
    bench.index(0x3CE, 1, 0)
    bench.index(0x3CE, 5, 2)
    bench.index(0x3CE, 8, 0x81)
    bench.peek(A000)
    bench.poke(A000, 0x06)
    assert [bench.pixel(x, 0) for x in (0, 1, 7)] == [
        bench.color(0x14),
        bench.color(0),
        bench.color(0x14),
    ]
    # Write mode 3: the data is the mask, set/reset the colour.
    bench.index(0x3CE, 5, 3)
    bench.index(0x3CE, 8, 0xFF)
    bench.index(0x3CE, 0, 0x02)
    bench.peek(A000 + 1)
    bench.poke(A000 + 1, 0x0F)
    assert [bench.pixel(x, 0) for x in (11, 12)] == [bench.color(0), bench.color(2)]
    # Functions: exclusive or twice is nothing.
    bench.index(0x3CE, 5, 0)
    bench.index(0x3CE, 3, 0x18)
    for _ in range(2):
        bench.peek(A000 + 1)
        bench.poke(A000 + 1, 0xFF)
    assert bench.pixel(12, 0) == bench.color(2)
    bench.index(0x3CE, 3, 0x04)
    bench.index(0x3C4, 2, 0x01)
    bench.peek(A000 + 2)
    bench.poke(A000 + 2, 0x0F)
    assert [bench.pixel(16 + x, 0) for x in (0, 3, 4)] == [
        bench.color(1),
        bench.color(1),
        bench.color(0),
    ], "rotated by four"


def test_planar_reads(bench: Bench) -> None:
    bench.mode(vga_modes.PLANAR_640X480)
    for plane, value in enumerate((0x0F, 0x33, 0x55, 0xFF)):
        bench.index(0x3C4, 2, 1 << plane)
        bench.poke(A000, value)
    for plane, value in enumerate((0x0F, 0x33, 0x55, 0xFF)):
        bench.index(0x3CE, 4, plane)
        assert bench.peek(A000) == value
    bench.index(0x3CE, 5, 8)
    bench.index(0x3CE, 2, 0x0D)
    bench.index(0x3CE, 7, 0x0F)
    # Colour 0Dh: planes 0, 2, 3 set and 1 clear.
    assert bench.peek(A000) == 0x0F & ~0x33 & 0x55
    bench.index(0x3CE, 7, 0x00)
    assert bench.peek(A000) == 0xFF, "no plane matters"


def test_cga_mode(bench: Bench) -> None:
    bench.mode(vga_modes.CGA_320X200X4)
    assert bench.picture().size == (320, 200)
    bench.poke(B800, 0x1B)
    bench.poke(B800 + 0x2000, 0xE4)
    colors = [bench.color(value) for value in (0x00, 0x13, 0x15, 0x17)]
    assert [bench.pixel(x, 0) for x in range(4)] == colors
    assert [bench.pixel(x, 1) for x in range(4)] == colors[::-1]


def test_windows(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    assert bench.peek(A000) == 0xFF, "text is at B8000h alone"
    bench.out(0x3C2, 0x65)
    assert bench.peek(B800) == 0xFF, "the processor may not reach the memory"


def test_crtc_protection(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    bench.index(0x3D4, 0x11, 0x8E)
    bench.index(0x3D4, 0x01, 0x20)
    bench.out(0x3D4, 0x01)
    assert bench.read(0x3D5) == 0x4F
    bench.index(0x3D4, 0x07, 0x00)
    assert bench.read(0x3D5) == 0x0F, "bit 4 of the overflow register is not protected"


def test_where_the_crtc_is(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    assert bench.read(0x3B4) == 0xFF
    bench.out(0x3C2, 0x66)
    assert bench.read(0x3D4) == 0xFF
    assert bench.read(0x3BA) != 0xFF


def test_palette_is_read_back(bench: Bench) -> None:
    vga_modes.palette({5: (1, 2, 3), 6: (4, 5, 6)}, bench.out)
    bench.out(0x3C7, 5)
    assert bench.read(0x3C7) == 3
    assert [bench.read(0x3C9) for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def test_attributes_take_turns(bench: Bench) -> None:
    bench.mode(vga_modes.TEXT_80X25)
    bench.read(0x3DA)
    bench.out(0x3C0, 0x13)
    bench.out(0x3C0, 0x05)
    assert bench.read(0x3C0) == 0x13
    assert bench.read(0x3C1) == 0x05
    assert bench.vga.text() is None, "the palette is the processor's now"
    bench.out(0x3C0, 0x20)
    assert bench.vga.text() is not None


def test_retrace_comes_and_goes(bench: Bench) -> None:
    """A program that waits for the retrace to begin, and to end."""
    bench.mode(vga_modes.BYTES_320X200)
    seen = {bench.read(0x3DA) & 9 for _ in range(200_000)}
    assert seen == {0, 1, 9}


class TestDisplayInterface:
    def set(self, bench: Bench, **values: int) -> None:
        names = ["id", "width", "height", "depth", "enable", "bank", "virtual"]
        names += ["_", "x", "y"]
        for name, value in values.items():
            bench.vga.set_dispi_register(names.index(name), value)

    @pytest.fixture
    def bench(self) -> Bench:
        bench = Bench(16 << 20)
        bench.mode(vga_modes.TEXT_80X25)
        return bench

    def test_true_color(self, bench: Bench) -> None:
        self.set(bench, width=1920, height=1200, depth=32, enable=0x41)
        assert bench.picture().size == (1920, 1200)
        bench.vga.video.poke(4 * (1920 * 1199 + 1919), b"\x11\x22\x33\x00")
        assert bench.pixel(1919, 1199) == 0x332211
        assert bench.vga.text() is None
        self.set(bench, enable=0)
        assert bench.vga.text() is not None

    @pytest.mark.parametrize(
        ("depth", "data", "color"),
        [
            (15, b"\x1f\x7c", 0xFF00FF),
            (16, b"\xe0\x07", 0x00FF00),
            (24, b"\x01\x02\x03", 0x030201),
        ],
    )
    def test_other_depths(self, bench: Bench, depth: int, data: bytes, color: int) -> None:
        self.set(bench, width=640, height=480, depth=depth, enable=0x41)
        bench.vga.video.poke(0, data)
        assert bench.pixel(0, 0) == color

    def test_bytes_and_wide_palette(self, bench: Bench) -> None:
        self.set(bench, width=800, height=600, depth=8, enable=0x61)
        vga_modes.palette({7: (0xFF, 0x80, 0x01)}, bench.out)
        bench.vga.video.poke(3, b"\x07")
        assert bench.pixel(3, 0) == 0xFF8001

    def test_bank(self, bench: Bench) -> None:
        self.set(bench, width=1024, height=768, depth=8, enable=1)
        self.set(bench, bank=3)
        bench.poke(A000 + 0x123, 9)
        assert bench.vga.video.peek(0x30123, 1) == b"\x09"
        assert bench.vga.video.direct() == (A000, 0x10000, 0x30000)

    def test_planar(self, bench: Bench) -> None:
        self.set(bench, width=800, height=600, depth=4, enable=1)
        for index, value in ((2, 0x0F), (4, 0x06)):
            bench.index(0x3C4, index, value)
        for index, value in ((0, 0x0C), (1, 0x0F), (5, 0), (6, 5), (8, 0xFF)):
            bench.index(0x3CE, index, value)
        bench.poke(A000 + 100, 0)
        assert bench.pixel(7, 1) == bench.color(0x3C)

    def test_scrolling(self, bench: Bench) -> None:
        self.set(bench, width=640, height=480, depth=32, enable=0x41, virtual=1024, y=10, x=8)
        bench.vga.video.poke(4 * (10 * 1024 + 8), b"\x56\x34\x12\x00")
        assert bench.pixel(0, 0) == 0x123456

    def test_memory_is_cleared_unless_it_is_kept(self, bench: Bench) -> None:
        bench.vga.video.poke(1 << 20, b"x")
        self.set(bench, width=640, height=480, depth=32, enable=0xC1)
        assert bench.vga.video.peek(1 << 20, 1) == b"x"
        self.set(bench, enable=0)
        self.set(bench, enable=0x41)
        assert bench.vga.video.peek(1 << 20, 1) == b"\x00"

    def test_absurd_modes_are_cut(self, bench: Bench) -> None:
        self.set(bench, width=0xFFFF, height=0xFFFF, depth=99, enable=1, virtual=0xFFFF)
        self.set(bench, x=0xFFFF, y=0xFFFF)
        width, height = bench.picture().size
        assert 0 < width <= 4096
        assert 0 < height <= 4096
        self.set(bench, enable=0, width=0, height=0)
        self.set(bench, enable=1)
        assert bench.picture().size == (8, 1)

    def test_capabilities(self, bench: Bench) -> None:
        self.set(bench, enable=2)
        assert bench.vga.dispi_register(3) == 32
        self.set(bench, enable=0)
        assert bench.vga.dispi_register(10) == 256
        assert bench.vga.dispi_register(0) == 0xB0C5


def test_drawing_tells_what_has_changed(bench: Bench) -> None:
    bench.mode(vga_modes.BYTES_320X200)
    picture = Picture()
    assert picture.draw(*bench.vga.plan(steady=True)) == [(0, 0, 320, 200)]
    assert picture.draw(*bench.vga.plan(steady=True)) == []
    before = bench.vga.stamp()
    assert bench.vga.stamp() == before
    bench.poke(A000 + 320 * 50 + 10, 1, 2, 3)
    bench.poke(A000 + 320 * 150 + 300, 1)
    assert bench.vga.stamp() != before
    assert picture.draw(*bench.vga.plan(steady=True)) == [(10, 50, 3, 1), (300, 150, 1, 1)]


def test_pixels_in_the_formats_of_viewers(bench: Bench) -> None:
    bench.mode(vga_modes.BYTES_320X200)
    vga_modes.palette({1: (63, 0, 32)}, bench.out)
    bench.poke(A000, 1)
    picture = bench.picture()
    part = (0, 0, 1, 1)
    assert picture.rgb(part) == b"\xff\x00\x82"
    assert picture.packed(part, (4, False, (255, 255, 255), (16, 8, 0))) == b"\x82\x00\xff\x00"
    assert picture.packed(part, (4, True, (255, 255, 255), (16, 8, 0))) == b"\x00\xff\x00\x82"
    assert picture.packed(part, (2, False, (31, 63, 31), (11, 5, 0))) == b"\x10\xf8"
    assert picture.packed(part, (1, False, (7, 7, 3), (0, 3, 6))) == b"\x87"
    assert picture.rgb((319, 199, 100, 100)) == b"\x00\x00\xff", "cut to the picture"
