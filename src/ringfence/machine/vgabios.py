"""Where the system's packages put the VGA BIOS."""

from pathlib import Path

__all__ = ["vga_bios"]

_NAME = "vgabios-stdvga.bin"
_FOLDERS = (
    "/usr/share/seabios",
    "/usr/share/qemu",
    "/usr/share/vgabios",
    "/usr/share/qemu/firmware",
    "/usr/share/edk2/seabios",
)
_LARGEST = 1 << 17


def vga_bios() -> bytes:
    """The VGA BIOS of SeaBIOS; empty where it is not installed."""
    for folder in _FOLDERS:
        path = Path(folder) / _NAME
        try:
            return path.read_bytes()[:_LARGEST]
        except OSError:
            continue
    return b""
