"""The display interface of Bochs and QEMU ("VBE dispi"): modes with a linear framebuffer.

Source: the VBE display software interface of Bochs, versions B0C0h to B0C5h. A 16-bit index
register and a 16-bit data register. Values that the video memory can't hold are cut when a mode
is enabled, as a program that reads them back expects.
"""

__all__ = ["LARGEST", "REGISTERS", "Dispi"]

INDEX, DATA = 0, 1
ID, X_RESOLUTION, Y_RESOLUTION, DEPTH, ENABLE, BANK = 0, 1, 2, 3, 4, 5
VIRTUAL_WIDTH, VIRTUAL_HEIGHT, X_OFFSET, Y_OFFSET, MEMORY = 6, 7, 8, 9, 10
REGISTERS = 11

ENABLED, CAPABILITIES, DAC_8_BITS, LINEAR, KEEP_MEMORY = 0x01, 0x02, 0x20, 0x40, 0x80

_OLDEST, _NEWEST = 0xB0C0, 0xB0C5
#: Largest width and height.
LARGEST = 4096
_DEPTHS = (4, 8, 15, 16, 24, 32)
_BANK_SIZE = 0x10000


class Dispi:
    """Index and registers.

    Args:
        memory: Bytes of video memory.
    """

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.reset()

    def reset(self) -> None:
        """No mode enabled."""
        self.index = 0
        self.registers = [0] * REGISTERS
        self.registers[ID] = _NEWEST
        self.registers[DEPTH] = 8

    @property
    def enabled(self) -> bool:
        """Whether a mode of this interface is shown."""
        return bool(self.registers[ENABLE] & ENABLED)

    @property
    def pitch(self) -> int:
        """Bytes from one line to the next (of one plane with 4 bits per pixel)."""
        return self._line(self.registers[VIRTUAL_WIDTH])

    @property
    def start(self) -> int:
        """First byte of the picture (of one plane with 4 bits per pixel)."""
        registers = self.registers
        return self.pitch * registers[Y_OFFSET] + self._line(registers[X_OFFSET])

    @property
    def bank(self) -> int:
        """Offset in memory of the window at A0000h (of each plane with 4 bits per pixel)."""
        return self.registers[BANK] * _BANK_SIZE

    def read(self) -> int:
        """The register that the index selects."""
        if self.registers[ENABLE] & CAPABILITIES:
            most = {X_RESOLUTION: LARGEST, Y_RESOLUTION: LARGEST, DEPTH: 32}
            if self.index in most:
                return most[self.index]
        if self.index == MEMORY:
            return self.memory // _BANK_SIZE
        return self.registers[self.index] if self.index < REGISTERS else 0

    def write(self, value: int) -> bool:
        """Sets the register that the index selects; tells whether a mode was switched on."""
        index, registers = self.index, self.registers
        if index == ID:
            if _OLDEST <= value <= _NEWEST:
                registers[ID] = value
        elif index in (X_RESOLUTION, Y_RESOLUTION, DEPTH):
            if not self.enabled:
                registers[index] = value
        elif index == BANK:
            registers[BANK] = value % (self._bytes() // _BANK_SIZE)
        elif index == ENABLE:
            before = self.enabled
            registers[ENABLE] = value & 0xFF
            if value & ENABLED and not before:
                self._switch_on()
                return True
        elif index in (VIRTUAL_WIDTH, X_OFFSET, Y_OFFSET):
            registers[index] = value
            self._fit()
        return False

    def take(self, registers: list[int]) -> None:
        """Takes saved registers, cut to what is possible."""
        self.registers = list(registers)
        self.registers[ID] = min(max(registers[ID], _OLDEST), _NEWEST)
        self.registers[ENABLE] &= 0xFF
        if self.enabled:
            self._switch_on()
            for index in (BANK, VIRTUAL_WIDTH, X_OFFSET, Y_OFFSET):
                self.registers[index] = registers[index]
            self.registers[BANK] %= self._bytes() // _BANK_SIZE
            self._fit()

    def _switch_on(self) -> None:
        registers = self.registers
        if registers[DEPTH] not in _DEPTHS:
            registers[DEPTH] = 8
        registers[X_RESOLUTION] = min(max(registers[X_RESOLUTION] & ~7, 8), LARGEST)
        registers[VIRTUAL_WIDTH] = registers[X_RESOLUTION]
        registers[X_OFFSET] = registers[Y_OFFSET] = registers[BANK] = 0
        most = self._bytes() // self.pitch
        registers[Y_RESOLUTION] = min(max(registers[Y_RESOLUTION], 1), LARGEST, most)
        self._fit()

    def _fit(self) -> None:
        """Cuts the virtual screen and the offsets to the memory."""
        if not self.enabled:
            return
        registers = self.registers
        width = min(max(registers[VIRTUAL_WIDTH], registers[X_RESOLUTION]), 2 * LARGEST) & ~7
        if self._line(width) * registers[Y_RESOLUTION] > self._bytes():
            width = registers[X_RESOLUTION]
        registers[VIRTUAL_WIDTH] = width
        height = min(self._bytes() // self._line(width), 0xFFFF)
        registers[VIRTUAL_HEIGHT] = height
        registers[X_OFFSET] = min(registers[X_OFFSET], width - registers[X_RESOLUTION])
        registers[Y_OFFSET] = min(registers[Y_OFFSET], height - registers[Y_RESOLUTION])

    def _line(self, pixels: int) -> int:
        depth = self.registers[DEPTH]
        return pixels // 8 if depth == 4 else pixels * ((depth + 7) // 8)

    def _bytes(self) -> int:
        return self.memory // 4 if self.registers[DEPTH] == 4 else self.memory
