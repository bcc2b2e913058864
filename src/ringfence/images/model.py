"""What the rest of Ringfence knows of an image, and how a pull tells how far it is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Image:
    """A guest that is ready to boot.

    Attributes:
        name: the name it is asked for by.
        kernel: a Linux bzImage.
        initrd: its initial RAM disk, or None.
        append: the kernel command line that the image is made for.
        description: one line for lists.
        version: of the kernel's package, or of the kernel itself.
        directory: where the files are; it changes when the image is pulled anew.
        recipe: what the image was made by: changes when Ringfence would now make it differently.
        packages: what it was made from, as ``name version``.
    """

    name: str
    kernel: Path
    initrd: Path | None
    append: str
    description: str
    version: str
    directory: Path
    recipe: str = ""
    packages: tuple[str, ...] = ()

    @property
    def modules(self) -> Path:
        """Kernel modules that devices need, for :func:`ringfence.images.modules.add_modules`."""
        return self.directory / "modules.tar"

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.directory.iterdir() if path.is_file())


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a pull.

    Attributes:
        item: what is being done, such as ``busybox-static 1:1.35.0-4``.
        done: bytes so far.
        total: bytes in all; None where nobody knows, and where it is not about bytes.
    """

    item: str
    done: int = 0
    total: int | None = None


ProgressCallback = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The callback of those who don't want to know."""
