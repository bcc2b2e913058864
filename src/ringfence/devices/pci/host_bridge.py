"""The host bridge of an Intel 440FX PCIset (82441FX), function 0 of device 0.

Source: Intel 440FX PCIset data sheet (290549-001), section 3.2. An operating system takes a host
bridge for the sign that there is a PCI bus. Left out: what the registers for shadow memory (PAM),
system management memory and DRAM do, which are kept and read back; error status, which never comes.
"""

from ringfence.bus import State, restore_fields, save_fields

__all__ = ["HostBridge"]

_SIZE = 256
_VERSION = 1
_FIELDS = {"_space": _SIZE}

#: Registers with a value after reset: offset and bytes.
_RESET = (
    (0x00, b"\x86\x80\x37\x12"),  # vendor and device
    (0x04, b"\x06\x00\x80\x02"),  # command: memory and bus master, fixed; status
    (0x08, b"\x02\x00\x00\x06"),  # revision and class: host bridge
    (0x72, b"\x02"),  # system management memory control
)
#: Bits that a guest can set: offset, then a mask per byte.
_WRITABLE = (
    (0x04, b"\x40\x01"),
    (0x0D, b"\xf8"),
    (0x50, b"\xff\xff\xff\xff"),
    (0x59, b"\x30\x33\x33\x33\x33\x33\x33"),
    (0x60, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
    (0x70, b"\xff\xff\x7f"),
)


class HostBridge:
    """Configuration space of the bridge."""

    def __init__(self) -> None:
        self._masks = bytearray(_SIZE)
        for offset, mask in _WRITABLE:
            self._masks[offset : offset + len(mask)] = mask
        self.reset()

    def reset(self) -> None:
        """The defaults of the data sheet."""
        self._space = bytearray(_SIZE)
        for offset, value in _RESET:
            self._space[offset : offset + len(value)] = value

    def config_read(self, offset: int, size: int) -> int:
        """Reads a register."""
        return int.from_bytes(self._space[offset : offset + size], "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Writes the bits of a register that can be written."""
        for index in range(size):
            at, byte = offset + index, value >> 8 * index & 0xFF
            mask = self._masks[at]
            self._space[at] = self._space[at] & ~mask | byte & mask

    def state(self) -> State:
        """The configuration space."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes the configuration space; what is fixed stays as it is."""
        restore_fields(self, state, _VERSION, _FIELDS)
        saved = self._space
        self.reset()
        for at, mask in enumerate(self._masks):
            self._space[at] = self._space[at] & ~mask | saved[at] & mask
