"""Host ends of disks: files and block devices, opened with locks, and what lies over them."""

from ringfence.storage.open import Image, open_cdrom, open_disk, open_floppy
from ringfence.storage.overlay import Overlay
from ringfence.storage.raw import RawImage

__all__ = ["Image", "Overlay", "RawImage", "open_cdrom", "open_disk", "open_floppy"]
