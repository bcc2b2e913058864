"""A VGA with the display interface of Bochs.

Source: IBM PS/2 hardware technical reference, "Video subsystem". Offset 0 is port 3B0h; the
sequencer, the graphics controller, the input status and the memory itself are compiled
(``crates/chips/src/vga``), since programs reach them per byte. Left out: the interrupt of the
vertical retrace, which PCI adapters do not wire; light pen; counting by two and four characters;
interlace; a blinking bit of graphics modes.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from ringfence.accel.video import Video
from ringfence.bus import State, restore_fields, save_fields
from ringfence.bus.contracts import Clock
from ringfence.bus.screen import TextPage
from ringfence.devices.vga import dispi, picture
from ringfence.devices.vga.crtc import Crtc
from ringfence.devices.vga.palette import Attributes, Dac
from ringfence.errors import StateError

__all__ = ["BASE", "Vga", "VgaWindow"]

#: Port of offset 0.
BASE = 0x3B0
_CRTC_MONO, _STATUS_MONO, _CRTC_COLOR, _STATUS_COLOR = 0x04, 0x0A, 0x24, 0x2A
_ATTRIBUTE, _ATTRIBUTE_READ, _MISC_WRITE, _ENABLE = 0x10, 0x11, 0x12, 0x13
_SEQUENCER, _SEQUENCER_DATA, _GRAPHICS, _GRAPHICS_DATA = 0x14, 0x15, 0x1E, 0x1F
_DAC_MASK, _DAC_READ, _DAC_WRITE, _DAC_DATA = 0x16, 0x17, 0x18, 0x19
_FEATURE_READ, _MISC_READ = 0x1A, 0x1C

_MISC_COLOR, _MISC_CLOCK = 0x01, 0x0C
#: Input status 0: the monitor's lines sense a colour monitor.
_SENSE = 0x10
#: Dots a second, by the clock select of the miscellaneous output register.
_CLOCKS = (25_175_000, 28_322_000, 25_175_000, 25_175_000)
_NANOSECONDS = 1_000_000_000
_MODE_FRAME = _NANOSECONDS // 60
_VERSION = 1
_Call = Callable[[], None]


class Vga:
    """Registers, and what they make of the memory.

    Args:
        clock: Time, by which cursor and characters blink.
        memory: Bytes of video memory: a power of two, 256 KiB to 256 MiB.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 0x30

    def __init__(self, clock: Clock, memory: int = 16 << 20) -> None:
        self._clock = clock
        self.video = Video(memory)
        self.crtc = Crtc()
        self.attributes = Attributes()
        self.dac = Dac()
        self.dispi = dispi.Dispi(memory)
        #: Nanoseconds of a frame.
        self.frame_time = _MODE_FRAME
        #: Called when the memory that the window shows, or how, has changed.
        self.on_window: list[_Call] = []
        self._changes = 0
        self.reset()

    def reset(self) -> None:
        """Power-on state; the memory keeps its contents."""
        self.misc = 0
        self.feature = 0
        self.enabled = 1
        self.video.reset()
        self.crtc.reset()
        self.attributes.reset()
        self.dac.reset()
        self.dispi.reset()
        self._registers_changed()

    def read(self, offset: int, size: int) -> int:
        """Reads a register."""
        if offset in (_SEQUENCER, _SEQUENCER_DATA, _GRAPHICS, _GRAPHICS_DATA):
            return self.video.port_read(BASE + offset)
        if offset in (_STATUS_MONO, _STATUS_COLOR):
            return self.video.port_read(BASE + offset)
        if offset == self._crtc():
            return self.crtc.index
        if offset == self._crtc() + 1:
            return self.crtc.read()
        if offset in (_ATTRIBUTE, _ATTRIBUTE_READ):
            return self.attributes.index if offset == _ATTRIBUTE else self.attributes.read()
        if offset == _DAC_DATA:
            return self.dac.read()
        return {
            _MISC_WRITE: _SENSE,
            _ENABLE: self.enabled,
            _DAC_MASK: self.dac.mask,
            _DAC_READ: self.dac.state_bits(),
            _DAC_WRITE: self.dac.write_index,
            _FEATURE_READ: self.feature,
            _MISC_READ: self.misc,
        }.get(offset, 0xFF)

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a register."""
        if offset in (_SEQUENCER, _GRAPHICS):
            self.video.port_write(BASE + offset, value)
        elif offset in (_SEQUENCER_DATA, _GRAPHICS_DATA):
            self.video.port_write(BASE + offset, value)
            self._registers_changed()
        elif offset == self._crtc():
            self.crtc.index = value & 0x1F
        elif offset == self._crtc() + 1:
            if self.crtc.write(value):
                self._registers_changed()
        elif offset == _ATTRIBUTE:
            if self.video.take_flip_flop_reset():
                self.attributes.data_next = False
            if self.attributes.write(value):
                self._changes += 1
        elif offset == _DAC_DATA:
            if self.dac.write(value):
                self._changes += 1
        elif offset == _DAC_WRITE:
            self.dac.set_write_index(value)
        elif offset == _DAC_READ:
            self.dac.set_read_index(value)
        elif offset == _DAC_MASK:
            self.dac.mask = value
            self._changes += 1
        elif offset == _MISC_WRITE:
            self.misc = value & 0xEF
            self._registers_changed()
        elif offset == _ENABLE:
            self.enabled = value & 1
        elif offset in (_STATUS_MONO, _STATUS_COLOR):
            self.feature = value & 3

    def state(self) -> State:
        """Registers and memory."""
        self.video.sync_text()
        return save_fields(_Saved.of(self), _VERSION, _Saved.bounds(self.video.size))

    def restore(self, state: State) -> None:
        """Takes registers and memory."""
        saved = _Saved.of(self)
        restore_fields(saved, state, _VERSION, _Saved.bounds(self.video.size))
        if len(saved.dispi) != dispi.REGISTERS:
            raise StateError(f"Vga: {len(saved.dispi)} registers of the display interface")
        saved.apply(self)
        self._registers_changed()

    # The surface.

    def stamp(self) -> object:
        """Changes when the picture may have."""
        # What is mapped is written to without anybody being told.
        video = self.video
        if any(video.text_memory.dirty_pages()) or any(video.memory.dirty_pages()):
            self._changes += 1
        blink = self._blink() if picture.shows_text(self) else (True, True)
        return self._changes, self.video.writes, blink

    def plan(self, *, steady: bool = False) -> tuple[Any, Any]:
        """How the picture is drawn as it is now."""
        blink = (True, True) if steady else self._blink()
        self.video.sync_text()
        return self.video, picture.plan(self, *blink)

    def text(self) -> TextPage | None:
        """The characters, if a text mode is shown."""
        self.video.sync_text()
        return picture.text_page(self)

    # The display interface.

    def dispi_read(self) -> int:
        """The data register of the display interface."""
        return self.dispi.read()

    def dispi_write(self, value: int) -> None:
        """Writes the data register of the display interface."""
        if self.dispi.write(value) and not value & dispi.KEEP_MEMORY:
            self.video.clear()
            self.video.memory.written()
        self.dac.wide = bool(self.dispi.registers[dispi.ENABLE] & dispi.DAC_8_BITS)
        self._registers_changed()

    def dispi_register(self, index: int) -> int:
        """Register ``index`` of the display interface, whatever is selected."""
        selected, self.dispi.index = self.dispi.index, index
        value = self.dispi.read()
        self.dispi.index = selected
        return value

    def set_dispi_register(self, index: int, value: int) -> None:
        """Writes register ``index`` of the display interface."""
        selected, self.dispi.index = self.dispi.index, index
        self.dispi_write(value)
        self.dispi.index = selected

    def set_linear_mode(self, width: int, height: int, depth: int) -> None:
        """Shows a linear framebuffer, with grey levels for eight bits per pixel."""
        for index, value in (
            (dispi.ENABLE, 0),
            (dispi.X_RESOLUTION, width),
            (dispi.Y_RESOLUTION, height),
            (dispi.DEPTH, depth),
            (dispi.ENABLE, dispi.ENABLED | dispi.LINEAR),
        ):
            self.set_dispi_register(index, value)
        self.dac.values[:] = bytes(level >> 2 for level in range(256) for _ in range(3))
        self.misc |= _MISC_COLOR
        self.attributes.show()
        self._registers_changed()

    # Private.

    def _crtc(self) -> int:
        return _CRTC_COLOR if self.misc & _MISC_COLOR else _CRTC_MONO

    def _blink(self) -> tuple[bool, bool]:
        """Whether the cursor and blinking characters are shown now."""
        frames = self._clock.now() // self.frame_time
        return not frames >> 3 & 1, not frames >> 4 & 1

    def _registers_changed(self) -> None:
        """Tells the compiled half; the window may show something else now."""
        self._changes += 1
        video, registers = self.video, self.dispi.registers
        video.set_misc(self.misc)
        if self.dispi.enabled:
            video.set_bank(self.dispi.bank, linear=registers[dispi.DEPTH] != 4)
            lines = registers[dispi.Y_RESOLUTION]
            self.frame_time = _MODE_FRAME
            total = lines + 40
            video.set_timing(_MODE_FRAME, total, lines, (lines + 10, lines + 16), 800)
        else:
            video.set_bank(None)
            self._set_timing()
        for call in self.on_window:
            call()

    def _set_timing(self) -> None:
        geometry = self.crtc.geometry()
        clocking = self.video.registers[2]
        clock = _CLOCKS[(self.misc & _MISC_CLOCK) >> 2]
        dots = (8 if clocking & 1 else 9) * (2 if clocking & 8 else 1)
        frame = geometry.total_columns * dots * geometry.total_lines * _NANOSECONDS // clock
        self.frame_time = max(frame, 1_000_000)
        self.video.set_timing(
            self.frame_time,
            geometry.total_lines,
            geometry.lines,
            geometry.retrace,
            min(1000 * geometry.columns // geometry.total_columns, 1000),
        )


class VgaWindow:
    """The memory window at A0000h, for engines that leave its accesses to the board.

    Args:
        video: The compiled half of the VGA.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 8})
    LENGTH: ClassVar[int] = 0x20000
    ADDRESS: ClassVar[int] = 0xA0000

    def __init__(self, video: Video) -> None:
        self._video = video

    def reset(self) -> None:
        """The VGA resets itself."""

    def read(self, offset: int, size: int) -> int:
        """A load."""
        return self._video.read(self.ADDRESS + offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """A store."""
        self._video.write(self.ADDRESS + offset, size, value)

    def state(self) -> State:
        """The VGA saves itself."""
        return save_fields(self, _VERSION, ())

    def restore(self, state: State) -> None:
        """The VGA restores itself."""
        restore_fields(self, state, _VERSION, {})


class _Saved:
    """All that a VGA saves, side by side."""

    misc: int
    feature: int
    enabled: int
    core: bytearray
    latches: int
    crtc_index: int
    crtc: bytearray
    attribute_index: int
    attribute_data_next: bool
    attribute: bytearray
    dac: bytearray
    dac_pending: bytearray
    dac_wide: bool
    dac_mask: int
    dac_write_index: int
    dac_read_index: int
    dac_component: int
    dac_reading: bool
    dispi_index: int
    dispi: list[int]
    memory: bytearray

    @classmethod
    def of(cls, vga: Vga) -> "_Saved":
        """What is to be saved of a VGA."""
        saved = cls()
        if vga.video.take_flip_flop_reset():
            vga.attributes.data_next = False
        saved.misc, saved.feature, saved.enabled = vga.misc, vga.feature, vga.enabled
        saved.core = bytearray(vga.video.registers)
        saved.latches = vga.video.latches
        saved.crtc_index, saved.crtc = vga.crtc.index, vga.crtc.registers
        saved.attribute_index = vga.attributes.index
        saved.attribute_data_next = vga.attributes.data_next
        saved.attribute = vga.attributes.registers
        dac = vga.dac
        saved.dac, saved.dac_pending = dac.values, dac.pending
        saved.dac_wide, saved.dac_mask, saved.dac_reading = dac.wide, dac.mask, dac.reading
        saved.dac_write_index, saved.dac_read_index = dac.write_index, dac.read_index
        saved.dac_component = dac.component
        saved.dispi_index, saved.dispi = vga.dispi.index, vga.dispi.registers
        saved.memory = bytearray(vga.video.peek(0, vga.video.size))
        return saved

    @staticmethod
    def bounds(memory: int) -> dict[str, int]:
        """Largest values and lengths of the fields."""
        return {
            "misc": 0xEF,
            "feature": 3,
            "enabled": 1,
            "core": 16,
            "latches": 0xFFFFFFFF,
            "crtc_index": 0x1F,
            "crtc": 25,
            "attribute_index": 0x3F,
            "attribute_data_next": 1,
            "attribute": 21,
            "dac": 768,
            "dac_pending": 3,
            "dac_wide": 1,
            "dac_mask": 0xFF,
            "dac_write_index": 0xFF,
            "dac_read_index": 0xFF,
            "dac_component": 2,
            "dac_reading": 1,
            "dispi_index": 0xFFFF,
            "dispi": 0xFFFF,
            "memory": memory,
        }

    def apply(self, vga: Vga) -> None:
        """Puts it into a VGA."""
        vga.misc, vga.feature, vga.enabled = self.misc, self.feature, self.enabled
        vga.video.set_registers(bytes(self.core))
        vga.video.set_latches(self.latches)
        vga.video.poke(0, self.memory)
        vga.crtc.index, vga.crtc.registers = self.crtc_index, self.crtc
        attributes, dac = vga.attributes, vga.dac
        attributes.index, attributes.registers = self.attribute_index, self.attribute
        attributes.data_next = self.attribute_data_next
        dac.values, dac.pending = self.dac, self.dac_pending
        dac.wide, dac.mask, dac.reading = self.dac_wide, self.dac_mask, self.dac_reading
        dac.write_index, dac.read_index = self.dac_write_index, self.dac_read_index
        dac.component = self.dac_component
        vga.dispi.index = self.dispi_index
        vga.dispi.take(self.dispi)
