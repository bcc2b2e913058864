"""The images that Ringfence can make. How they are made is in ``ingredients``."""

import zlib
from dataclasses import dataclass

from ringfence.images import initramfs

# Messages of errors reach the console (loglevel=4), the rest stays in the guest's log. The kernel's
# self-tests of its ciphers would take a fifth of a boot (cryptomgr.notests).
# Bounce buffers for DMA, 64 MiB cleared at boot, have no device that needs them. The kernel's test
# of its timer wants four ticks in 40 ms, and panics on a host too busy to give them
# (no_timer_check).
APPEND = (
    "console=ttyS0 panic=-1 mitigations=off random.trust_cpu=on tsc=reliable loglevel=4 "
    "cryptomgr.notests swiotlb=noforce no_timer_check"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A Debian kernel with our initial RAM disk.

    Attributes:
        name: of the image.
        description: one line for lists.
        kernel_package: the package that depends on the newest kernel's.
        append: the kernel command line.
    """

    name: str
    description: str
    kernel_package: str
    append: str = APPEND

    @property
    def revision(self) -> str:
        """Changes when the recipe would make something else of the same packages."""
        text = f"{self.append} {self.description} {initramfs.revision()}"
        return f"{zlib.crc32(text.encode()):08x}"


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("debian", "Debian's cloud kernel with busybox", "linux-image-cloud-amd64"),
        Recipe("debian-generic", "Debian's generic kernel with busybox", "linux-image-amd64"),
    )
}
