"""Which medium of a PC hangs where: IDE, AHCI, floppy drives."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from ringfence.bus import BlockQueue, Device, Line, PortBus
from ringfence.config import Interface
from ringfence.devices.disk.ata import AtaDisk
from ringfence.devices.disk.cdrom import Cdrom
from ringfence.devices.disk.taskfile import Drive
from ringfence.devices.ide.channel import IdeChannel
from ringfence.devices.ide.piix import PiixIde
from ringfence.errors import ConfigError

__all__ = ["IDE_IRQS", "IDE_PORTS", "MediumEnd", "PcDrives"]

#: Command block, control register and interrupt of the two channels.
IDE_PORTS = ((0x1F0, 0x3F6), (0x170, 0x376))
IDE_IRQS = (14, 15)
_IDE_PLACES = 4
#: CD-ROMs go to the secondary channel first, as most PCs had them.
_CDROM_PLACES = (2, 3, 1, 0)


class MediumEnd(NamedTuple):
    """A medium and where it is wanted."""

    #: ``disk0``, ``cdrom0``, ``floppy0`` and so on.
    name: str
    kind: Literal["disk", "cdrom", "floppy"]
    #: What is in it; ``None`` for an empty drive.
    queue: BlockQueue | None
    interface: Interface = "auto"


class PcDrives:
    """Drives and their controllers.

    Args:
        media: What there is.
        isa: Gives an end to drive an ISA interrupt by.

    Attributes:
        channels: The IDE channels.
        ide: Their PCI function.
        drives: Drives by the name of their medium.
        boot_paths: Kind and place of each medium, as Open Firmware names it on the PCI bus.

    Raises:
        ConfigError: there is no room for one.
    """

    def __init__(self, media: Sequence[MediumEnd], isa: Callable[[int], Line]) -> None:
        self.drives: dict[str, Drive] = {}
        self.boot_paths: list[tuple[str, str]] = []
        places: list[Drive | None] = [None] * _IDE_PLACES
        for medium in media:
            if medium.kind == "floppy" or medium.interface not in ("auto", "ide"):
                continue
            order = _CDROM_PLACES if medium.kind == "cdrom" else range(_IDE_PLACES)
            free = next((place for place in order if places[place] is None), None)
            if free is None:
                raise ConfigError(f"{medium.name}: the IDE controller takes {_IDE_PLACES} drives")
            places[free] = self.drives[medium.name] = _drive(medium, len(self.drives))
            path = f"ide@1,1/drive@{free // 2}/disk@{free % 2}"
            self.boot_paths.append((medium.kind, path))
        self.channels = (
            IdeChannel((places[0], places[1]), isa(IDE_IRQS[0])),
            IdeChannel((places[2], places[3]), isa(IDE_IRQS[1])),
        )
        self.ide = PiixIde(self.channels)

    def place(self, ports: PortBus) -> dict[str, Device]:
        """Puts the controllers at their ports; all of them, by name."""
        found: dict[str, Device] = {}
        for index, (channel, (block, control)) in enumerate(
            zip(self.channels, IDE_PORTS, strict=True)
        ):
            name = f"ide{index}"
            found[name] = channel
            ports.add(block, channel, name=name, length=8)
            ports.add(control, channel, name=name, offset=8, length=1)
        return found

    def close(self) -> None:
        """Ends what is under way."""
        for channel in self.channels:
            channel.cancel()

    def insert(self, name: str, queue: BlockQueue | None) -> None:
        """Puts a medium into a drive, or takes it out."""
        drive = self.drives[name]
        assert isinstance(drive, Cdrom)
        if drive.queue is not None:
            drive.queue.cancel()
        drive.insert(queue)

    def press_eject(self, name: str) -> bool:
        """Presses a drive's button; false when the guest keeps the medium for now."""
        drive = self.drives[name]
        return not isinstance(drive, Cdrom) or drive.press_eject()


def _drive(medium: MediumEnd, number: int, *, serial_link: bool = False) -> Drive:
    """The drive for a medium."""
    serial = f"RF{number + 1:05}"
    if medium.kind == "cdrom":
        return Cdrom(medium.queue, serial=serial, sata=serial_link)
    assert medium.queue is not None
    return AtaDisk(medium.queue, serial=serial, queue_depth=32 if serial_link else 0)
