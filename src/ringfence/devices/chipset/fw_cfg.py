"""Firmware configuration device (fw_cfg): what firmware asks the machine instead of probing.

Source: QEMU, docs/specs/fw_cfg. Selector at offset 0 (16 bits), data at offset 1, DMA address at
offset 4 (64 bits, big-endian; writing its lower half starts a transfer). SeaBIOS and OVMF learn
from it how many processors there are, where memory is, which tables to install, what to boot.
"""

from collections.abc import Callable
from struct import pack, unpack
from typing import ClassVar

from ringfence.bus import NO_MEMORY, Dma, State, restore_fields, save_fields

__all__ = ["FwCfg"]

SELECTOR, DATA, DMA_ADDRESS = 0, 1, 4
#: Keys of fixed items.
SIGNATURE, IDENTIFIER, UUID, RAM_SIZE, NO_GRAPHIC, CPUS, MACHINE_ID = 0, 1, 2, 3, 4, 5, 6
NUMA, BOOT_MENU, MAX_CPUS, FILE_DIRECTORY, FIRST_FILE = 0x0D, 0x0E, 0x0F, 0x19, 0x20
#: Keys that only PCs have.
X86_ACPI, X86_SMBIOS, X86_IRQ0_OVERRIDE, X86_E820, X86_HPET = range(0x8000, 0x8005)

_TRADITIONAL, _HAS_DMA = 1, 2
_DMA_ERROR, _DMA_READ, _DMA_SKIP, _DMA_SELECT, _DMA_WRITE = 1, 2, 4, 8, 16
_DMA_SIGNATURE = int.from_bytes(b"QEMU CFG", "big")
#: Bits of a key that say how it is meant, not which item it is.
_KEY_FLAGS = 0x4000
_NAME_SIZE = 56
#: How much is read beyond the end of an item before it is an error: no firmware does, and
#: gigabytes of zeros would take their time.
_MOST_ZEROS = 1 << 16
_VERSION = 1
_FIELDS = {"_key": 0xFFFF, "_offset": (1 << 32) - 1, "_dma_address": (1 << 64) - 1}

Contents = bytes | Callable[[], bytes]


class FwCfg:
    """The device.

    Args:
        memory: Guest memory, for transfers by DMA.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 8})
    LENGTH: ClassVar[int] = 12

    def __init__(self, memory: Dma = NO_MEMORY) -> None:
        self._memory = memory
        self._items: dict[int, Contents] = {}
        self._files: dict[str, Contents] = {}
        self.add(SIGNATURE, b"QEMU")
        self.add(IDENTIFIER, (_TRADITIONAL | _HAS_DMA).to_bytes(4, "little"))
        self.add(FILE_DIRECTORY, self._directory)
        self.reset()

    def reset(self) -> None:
        """The signature is selected; contents that are made on demand will be made anew."""
        self._key = self._offset = self._dma_address = 0
        self._made: dict[int, bytes] = {}

    def read(self, offset: int, size: int) -> int:
        """The next byte of the selected item, or the DMA interface's signature."""
        if offset in (SELECTOR, DATA) and size == 1:
            data = self._contents()
            at = self._offset
            self._offset = min(at + 1, 0xFFFFFFFF)
            return data[at] if at < len(data) else 0
        if offset >= DMA_ADDRESS and offset - DMA_ADDRESS + size <= 8:
            shift = 8 * (8 - (offset - DMA_ADDRESS) - size)
            value = _DMA_SIGNATURE >> shift & (1 << 8 * size) - 1
            return int.from_bytes(value.to_bytes(size, "big"), "little")
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Selects an item, or sets the DMA address and starts a transfer."""
        if offset == SELECTOR and size == 2:
            self._select(value)
        elif offset >= DMA_ADDRESS and size >= 4 and offset - DMA_ADDRESS + size <= 8:
            swapped = int.from_bytes(value.to_bytes(size, "little"), "big")
            if size == 8:
                self._dma_address = swapped
            elif offset == DMA_ADDRESS:
                self._dma_address = swapped << 32
                return
            elif offset == DMA_ADDRESS + 4:
                self._dma_address = self._dma_address >> 32 << 32 | swapped
            else:
                return
            self._transfer(self._dma_address)
            self._dma_address = 0

    def state(self) -> State:
        """What is selected, and how far it was read."""
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes it; contents are the board's to give."""
        restore_fields(self, state, _VERSION, _FIELDS)

    def add(self, key: int, contents: Contents) -> None:
        """Gives an item its contents: bytes, or a call that makes them when they are wanted."""
        self._items[key] = contents

    def add_file(self, name: str, contents: Contents) -> None:
        """Adds a file, or changes one. A call must give the same length at each time."""
        if len(name.encode()) >= _NAME_SIZE:
            raise ValueError(f"the file name {name!r} is longer than 55 bytes")
        self._files[name] = contents
        for key, file in enumerate(sorted(self._files), FIRST_FILE):
            self.add(key, self._files[file])

    def files(self) -> list[str]:
        """The names of all files."""
        return sorted(self._files)

    def file(self, name: str) -> bytes:
        """The contents of a file as firmware would read it now."""
        contents = self._files[name]
        return contents if isinstance(contents, bytes) else contents()

    def close(self) -> None:
        """Lets go of the machine's memory."""
        self._memory = NO_MEMORY

    def _directory(self) -> bytes:
        entries = [
            pack(f">IHH{_NAME_SIZE}s", len(self.file(name)), key, 0, name.encode())
            for key, name in enumerate(sorted(self._files), FIRST_FILE)
        ]
        return pack(">I", len(entries)) + b"".join(entries)

    def _select(self, key: int) -> None:
        self._key = key & ~_KEY_FLAGS
        self._offset = 0

    def _contents(self) -> bytes:
        """The selected item; one that there is not is empty."""
        contents = self._items.get(self._key, b"")
        if isinstance(contents, bytes):
            return contents
        made = self._made.get(self._key)
        if made is None:
            made = self._made[self._key] = contents()
        return made

    def _transfer(self, address: int) -> None:
        """Does what a control structure in guest memory asks for."""
        control, length, target = unpack(">IIQ", self._memory.read(address, 16))
        if control & _DMA_SELECT:
            self._select(control >> 16)
        result = 0
        if control & _DMA_READ:
            result = self._copy_out(target, length)
        elif control & _DMA_WRITE:
            # No item takes what is written to it.
            result = _DMA_ERROR
        elif control & _DMA_SKIP:
            self._offset = min(self._offset + length, 0xFFFFFFFF)
        self._memory.write(address, pack(">I", result))

    def _copy_out(self, target: int, length: int) -> int:
        """Copies an item, and zeros behind its end, into guest memory."""
        data = self._contents()
        at = self._offset
        piece = data[at : at + length]
        zeros = length - len(piece)
        if zeros > _MOST_ZEROS:
            return _DMA_ERROR
        self._offset = min(at + length, 0xFFFFFFFF)
        self._memory.write(target, piece + bytes(zeros))
        return 0
