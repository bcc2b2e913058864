"""Firmware in the address space: its ROM at the top of 4 GiB and below 1 MiB, its flash."""

from ringfence.boards.firmware import FirmwareImage
from ringfence.boards.shadow import Shadow
from ringfence.bus import MemoryMap, MmioBus
from ringfence.devices.flash.cfi import CfiFlash
from ringfence.devices.pci.host_bridge import PamPiece
from ringfence.errors import ConfigError
from ringfence.units import GIB, KIB, MIB

__all__ = ["Rom"]

_PAGE = 4 * KIB
#: How much of the end of the firmware shows below 1 MiB.
_LOW = 128 * KIB
_MOST = 16 * MIB


class Rom:
    """Maps firmware.

    Args:
        memory: Where to map it.
        mmio: Bus for what a mapping refuses.
        image: The firmware.

    Raises:
        ConfigError: it has a size that can't be.
    """

    def __init__(self, memory: MemoryMap | None, mmio: MmioBus, image: FirmwareImage) -> None:
        code = image.code
        if not code or len(code) % _PAGE or len(code) > _MOST:
            raise ConfigError(
                f"firmware: {len(code)} bytes are not whole pages of 4 KiB, 16 MiB at most"
            )
        if memory is None:
            raise ConfigError("firmware: this machine has no memory that can be mapped")
        self._memory: MemoryMap | None = memory
        self._start = 4 * GIB - len(code)
        rom = memory.create(len(code))
        rom.view()[:] = code
        memory.map(self._start, rom, readonly=True)
        self.shadow = Shadow(memory, memory.ram, code[-_LOW:], mmio)
        self.flash: CfiFlash | None = None
        if image.variables is not None:
            contents = image.variables.load()
            if not contents or len(contents) % _PAGE or len(contents) > _MOST:
                raise ConfigError(
                    f"uefi_vars: {len(contents)} bytes are not whole pages of 4 KiB, 16 MiB at most"
                )
            self._base, self._size = self._start - len(contents), len(contents)
            self._array = memory.create(self._size)
            self._array.view()[:] = contents
            memory.map(self._base, self._array, readonly=True)
            self.flash = CfiFlash(self._array, self._size, image.variables, self._show)
            mmio.add(self._base, self.flash, name="flash", length=self._size)

    def set_pam(self, pieces: list[PamPiece]) -> None:
        """Moves the pieces of memory below 1 MiB."""
        self.shadow.set(pieces)

    def close(self) -> None:
        """Lets go of the machine."""
        self._memory = None
        self.shadow.close()

    def _show(self, array: bool) -> None:
        """Lets the guest read the flash's array itself, or not."""
        if self._memory is None:
            return
        if array:
            self._memory.map(self._base, self._array, readonly=True)
        else:
            self._memory.unmap(self._base, self._size)
