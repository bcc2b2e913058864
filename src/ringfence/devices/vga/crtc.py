"""The CRT controller: when lines and frames begin, and from where they are read.

Source: IBM PS/2 hardware technical reference, "Video subsystem", CRT controller registers.
"""

from typing import NamedTuple

__all__ = ["Crtc", "Geometry"]

REGISTERS = 25

HORIZONTAL_TOTAL, HORIZONTAL_END = 0x00, 0x01
VERTICAL_TOTAL, OVERFLOW, PRESET_ROW, MAXIMUM_SCAN = 0x06, 0x07, 0x08, 0x09
CURSOR_START, CURSOR_END, START_HIGH, START_LOW = 0x0A, 0x0B, 0x0C, 0x0D
CURSOR_HIGH, CURSOR_LOW = 0x0E, 0x0F
RETRACE_START, RETRACE_END, VERTICAL_END, OFFSET = 0x10, 0x11, 0x12, 0x13
UNDERLINE, MODE, LINE_COMPARE = 0x14, 0x17, 0x18

_PROTECT = 0x80
_LINE_COMPARE_8 = 0x10


class Geometry(NamedTuple):
    """What the registers mean together, in characters and scan lines."""

    #: Characters of a line, and those with the blanked ones.
    columns: int
    total_columns: int
    #: Scan lines of the picture, and of a frame.
    lines: int
    total_lines: int
    retrace: tuple[int, int]
    #: Scan lines per count of the row scan counter, and counts per row.
    double: int
    row: int
    #: First address, and how much further the next row begins.
    start: int
    pitch: int
    preset: int
    #: First scan line that shows memory from address 0 on.
    split: int
    #: Address counter's shift to the left, and the lowest bit that fills in.
    shift: tuple[int, int]
    #: Row scan bits that replace address bits 13 and 14.
    row_bits: tuple[bool, bool]


class Crtc:
    """Index and registers."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """All registers zero."""
        self.index = 0
        self.registers = bytearray(REGISTERS)

    def read(self) -> int:
        """The register that the index selects."""
        return self.registers[self.index] if self.index < REGISTERS else 0xFF

    def write(self, value: int) -> bool:
        """Sets the register that the index selects; tells whether something has changed."""
        index, registers = self.index, self.registers
        if index >= REGISTERS:
            return False
        if index <= OVERFLOW and registers[RETRACE_END] & _PROTECT:
            if index != OVERFLOW:
                return False
            value = registers[OVERFLOW] & ~_LINE_COMPARE_8 | value & _LINE_COMPARE_8
        changed = registers[index] != value
        registers[index] = value
        return changed

    @property
    def cursor(self) -> tuple[int, int, int]:
        """Address counter of the cursor, first and last row scan; hidden: last before first."""
        registers = self.registers
        at = registers[CURSOR_HIGH] << 8 | registers[CURSOR_LOW]
        first, last = registers[CURSOR_START] & 0x1F, registers[CURSOR_END] & 0x1F
        return (at, 1, 0) if registers[CURSOR_START] & 0x20 else (at, first, last)

    @property
    def underline(self) -> int:
        """Row scan of underlines."""
        return self.registers[UNDERLINE] & 0x1F

    def geometry(self) -> Geometry:
        """All registers together."""
        registers = self.registers
        overflow, scan = registers[OVERFLOW], registers[MAXIMUM_SCAN]
        mode, underline = registers[MODE], registers[UNDERLINE]
        retrace = registers[RETRACE_START] | (overflow & 0x04) << 6 | (overflow & 0x80) << 2
        if underline & 0x40:
            shift = (2, 12)
        elif mode & 0x40:
            shift = (0, 0)
        else:
            shift = (1, 15 if mode & 0x20 else 13)
        compare = registers[LINE_COMPARE] | (overflow & 0x10) << 4 | (scan & 0x40) << 3
        start = registers[START_HIGH] << 8 | registers[START_LOW]
        return Geometry(
            columns=registers[HORIZONTAL_END] + 1,
            total_columns=registers[HORIZONTAL_TOTAL] + 5,
            lines=1 + (registers[VERTICAL_END] | (overflow & 0x02) << 7 | (overflow & 0x40) << 3),
            total_lines=2
            + (registers[VERTICAL_TOTAL] | (overflow & 0x01) << 8 | (overflow & 0x20) << 4),
            # The end holds the low four bits of the line that the retrace stops at.
            retrace=(retrace, retrace + ((registers[RETRACE_END] - retrace) & 0x0F or 16)),
            double=2 if scan & 0x80 else 1,
            row=(scan & 0x1F) + 1,
            start=start + (registers[PRESET_ROW] >> 5 & 3),
            pitch=2 * registers[OFFSET],
            preset=registers[PRESET_ROW] & 0x1F,
            split=compare + 1,
            shift=shift,
            row_bits=(not mode & 0x01, not mode & 0x02),
        )
