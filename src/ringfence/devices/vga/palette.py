"""From pixel values to colours: attribute controller and digital-to-analog converter.

Source: IBM PS/2 hardware technical reference, "Video subsystem", attribute controller and
video digital-to-analog converter.
"""

__all__ = ["Attributes", "Dac"]

MODE, OVERSCAN, PLANE_ENABLE, PANNING, COLOR_SELECT = 0x10, 0x11, 0x12, 0x13, 0x14
MODE_LINE_GRAPHICS, MODE_BLINK, MODE_SPLIT_STILL, MODE_COLORS_256 = 0x04, 0x08, 0x20, 0x40
MODE_SELECT_LOW = 0x80

_REGISTERS = 21
_BITS = (*[0x3F] * 16, 0xEF, 0xFF, 0x3F, 0x0F, 0x0F)
#: Palette address source: the palette belongs to the picture, not to the processor.
_SOURCE = 0x20


class Attributes:
    """The attribute controller: one port for index and data in turn."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """All registers zero; an index comes next."""
        self.index = 0
        self.data_next = False
        self.registers = bytearray(_REGISTERS)

    @property
    def shows(self) -> bool:
        """Whether the palette is the picture's; otherwise that is black."""
        return bool(self.index & _SOURCE)

    def show(self) -> None:
        """Gives the palette to the picture."""
        self.index = _SOURCE

    def read(self) -> int:
        """The register that the index selects."""
        index = self.index & 0x1F
        return self.registers[index] if index < _REGISTERS else 0

    def write(self, value: int) -> bool:
        """Takes an index or data, in turn; tells whether the picture may have changed."""
        self.data_next = not self.data_next
        if self.data_next:
            changed = bool((self.index ^ value) & _SOURCE)
            self.index = value & 0x3F
            return changed
        index = self.index & 0x1F
        if index >= _REGISTERS or (index < 16 and self.shows):
            return False
        changed = self.registers[index] != value & _BITS[index]
        self.registers[index] = value & _BITS[index]
        return changed

    def colors(self) -> list[int]:
        """Which of the converter's 256 registers each of the 16 pixel values selects."""
        registers = self.registers
        select, enabled = registers[COLOR_SELECT], registers[PLANE_ENABLE] & 0x0F
        low = registers[MODE] & MODE_SELECT_LOW
        colors = []
        for value in range(16):
            entry = registers[value & enabled]
            if low:
                colors.append((select & 0x0F) << 4 | entry & 0x0F)
            else:
                colors.append((select & 0x0C) << 4 | entry)
        return colors


class Dac:
    """256 colours of three times six bits, or eight where software asks for them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """All colours black, the mask open."""
        self.mask = 0xFF
        self.values = bytearray(768)
        self.wide = False
        self.write_index = 0
        self.read_index = 0
        self.component = 0
        #: Colour that is being written: it takes effect with its third component.
        self.pending = bytearray(3)
        self.reading = False

    def set_write_index(self, value: int) -> None:
        """The colour that is written next."""
        self.write_index, self.component, self.reading = value, 0, False

    def set_read_index(self, value: int) -> None:
        """The colour that is read next."""
        self.read_index, self.component, self.reading = value, 0, True

    def state_bits(self) -> int:
        """3 while the converter is set to be read, 0 to be written."""
        return 3 if self.reading else 0

    def read(self) -> int:
        """The next component of the colour that is read."""
        value = self.values[self.read_index * 3 + self.component]
        self.component += 1
        if self.component == 3:
            self.component = 0
            self.read_index = (self.read_index + 1) & 0xFF
        return value

    def write(self, value: int) -> bool:
        """Takes the next component; tells whether a colour is complete."""
        self.pending[self.component] = value if self.wide else value & 0x3F
        self.component += 1
        if self.component < 3:
            return False
        at = self.write_index * 3
        self.values[at : at + 3] = self.pending
        self.component = 0
        self.write_index = (self.write_index + 1) & 0xFF
        return True

    def color(self, index: int) -> int:
        """A colour as ``00RRGGBBh``, seen through the mask."""
        at = (index & self.mask) * 3
        red, green, blue = self.values[at : at + 3]
        if self.wide:
            return red << 16 | green << 8 | blue
        return (
            ((red << 2 | red >> 4) & 0xFF) << 16
            | ((green << 2 | green >> 4) & 0xFF) << 8
            | ((blue << 2 | blue >> 4) & 0xFF)
        )
