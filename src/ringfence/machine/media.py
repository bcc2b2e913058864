"""The disks, CD-ROMs and floppies of a machine: opened with it, and changed while it runs."""

from contextlib import ExitStack
from typing import Literal

from ringfence.boards import MediumEnd
from ringfence.bus import BlockQueue, Workers
from ringfence.config import DiskConfig, MachineConfig
from ringfence.errors import ConfigError
from ringfence.storage import Image, open_cdrom, open_disk, open_floppy

__all__ = ["Media"]

_Kind = Literal["disk", "cdrom", "floppy"]


class Media:
    """The media of one machine, open for its whole life.

    Args:
        config: Which ones.

    Raises:
        ImageError: one can't be used.
    """

    def __init__(self, config: MachineConfig) -> None:
        self._kinds: dict[str, _Kind] = {}
        self._configs: dict[str, DiskConfig] = {}
        self._images: dict[str, Image | None] = {}
        kinds: list[tuple[_Kind, tuple[DiskConfig, ...]]] = [
            ("disk", config.disks),
            ("cdrom", config.cdroms),
            ("floppy", config.floppies),
        ]
        with ExitStack() as stack:
            stack.callback(self.close)
            for kind, entries in kinds:
                for index, entry in enumerate(entries):
                    name = f"{kind}{index}"
                    self._kinds[name] = kind
                    self._configs[name] = entry
                    self._images[name] = _open(kind, entry)
            stack.pop_all()

    def ends(self, workers: Workers) -> list[MediumEnd]:
        """What the board of a boot gets."""
        return [
            MediumEnd(name, kind, self.queue(name, workers), self._configs[name].interface)
            for name, kind in self._kinds.items()
        ]

    def queue(self, name: str, workers: Workers) -> BlockQueue | None:
        """A queue to a medium; ``None`` if the drive is empty."""
        image = self._images[name]
        return None if image is None else BlockQueue(image, workers)

    def removable(self, name: str) -> str:
        """The name of a drive with a removable medium: ``cdrom`` is ``cdrom0``.

        Raises:
            ConfigError: there is no such drive.
        """
        full = name if name[-1:].isdigit() else f"{name}0"
        if self._kinds.get(full, "disk") == "disk":
            there = [known for known, kind in self._kinds.items() if kind != "disk"]
            raise ConfigError(
                f"there is no drive {name!r} with a removable medium; "
                + (f"there are {', '.join(there)}" if there else "there are none")
            )
        return full

    def open(self, name: str, medium: DiskConfig) -> Image | None:
        """Opens what is to go into a drive.

        Raises:
            ImageError: it can't be used.
        """
        return _open(self._kinds[name], medium)

    def change(self, name: str, image: Image | None) -> None:
        """Puts a medium into a drive and closes the one that was there."""
        before, self._images[name] = self._images[name], image
        if before is not None:
            before.close()

    def close(self) -> None:
        """Closes all."""
        for name, image in self._images.items():
            self._images[name] = None
            if image is not None:
                image.close()


def _open(kind: _Kind, config: DiskConfig) -> Image | None:
    if config.file is None:
        return None
    if kind == "cdrom":
        return open_cdrom(config.file)
    opener = open_disk if kind == "disk" else open_floppy
    return opener(config.file, readonly=config.readonly, ephemeral=config.ephemeral)
