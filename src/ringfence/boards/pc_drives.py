"""Which medium of a PC hangs where: IDE, AHCI, floppy drives."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from ringfence.bus import BlockQueue, Clock, Device, Dma, Line, PortBus
from ringfence.config import Interface
from ringfence.devices.disk.taskfile import Drive
from ringfence.devices.dma.i8237 import IsaDma
from ringfence.devices.floppy.drive import FloppyDrive
from ringfence.devices.floppy.fdc import FloppyController
from ringfence.devices.floppy.medium import format_of
from ringfence.devices.ide.channel import IdeChannel
from ringfence.devices.ide.piix import PiixIde
from ringfence.errors import ConfigError

if TYPE_CHECKING:
    from ringfence.devices.ahci.controller import AhciController

__all__ = ["AHCI_SLOT", "IDE_IRQS", "IDE_PORTS", "MediumEnd", "PcDrives"]

#: Command block, control register and interrupt of the two channels.
IDE_PORTS = ((0x1F0, 0x3F6), (0x170, 0x376))
IDE_IRQS = (14, 15)
_IDE_PLACES = 4
_AHCI_PLACES = 6
#: Device number of the AHCI controller on the PCI bus.
AHCI_SLOT = 3
_FDC, _FDC_IRQ, _FDC_DMA = 0x3F0, 6, 2
#: Ports of the DMA controllers: base, offset in the device, ports. Port 80h is the board's own.
_DMA_PORTS = ((0x00, 0x00, 16), (0x81, 0x31, 15), (0xC0, 0x10, 32))
#: Mode and mask of the second DMA controller, as offsets in the device.
_DMA_MODE, _DMA_MASK = 0x10 + 2 * 0x0B, 0x10 + 2 * 0x0A
#: Floppy drives in CMOS memory: their kinds, and the equipment byte.
_CMOS_FLOPPIES, _CMOS_EQUIPMENT = 0x10, 0x14
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
        memory: Guest memory.
        clock: The machine's clock.
        sata: Place of the AHCI controller on a board that has no IDE.

    Attributes:
        channels: The IDE channels.
        ide: Their PCI function, where there is one.
        ahci: The AHCI controller, if a drive hangs on it.
        dma: The ISA DMA controllers.
        floppy: The floppy controller.
        drives: Drives by the name of their medium.
        boot_paths: Kind and place of each medium, as Open Firmware names it on the PCI bus.

    Raises:
        ConfigError: there is no room for one.
    """

    def __init__(
        self,
        media: Sequence[MediumEnd],
        isa: Callable[[int], Line],
        memory: Dma,
        clock: Clock,
        *,
        sata: str | None = None,
    ) -> None:
        self.drives: dict[str, Drive] = {}
        self.boot_paths: list[tuple[str, str]] = []
        places: list[Drive | None] = [None] * _IDE_PLACES
        serial: list[Drive | None] = []
        for medium in media:
            if medium.kind == "floppy" or medium.interface not in ("auto", "ide", "ahci"):
                continue
            if sata is not None and medium.interface == "ide":
                raise ConfigError(f"{medium.name}: this board has no IDE; leave out if=ide")
            order = _CDROM_PLACES if medium.kind == "cdrom" else range(_IDE_PLACES)
            free = next((place for place in order if places[place] is None), None)
            if (
                sata is not None
                or medium.interface == "ahci"
                or (medium.interface == "auto" and free is None)
            ):
                if len(serial) == _AHCI_PLACES:
                    raise ConfigError(f"{medium.name}: all {_AHCI_PLACES} AHCI ports are taken")
                drive = _drive(medium, len(self.drives), serial_link=True)
                path = f"pci8086,2922@{sata or AHCI_SLOT}/drive@{len(serial)}/disk@0"
                self.boot_paths.append((medium.kind, path))
                self.drives[medium.name] = drive
                serial.append(drive)
                continue
            if free is None:
                raise ConfigError(f"{medium.name}: the IDE controller takes {_IDE_PLACES} drives")
            places[free] = self.drives[medium.name] = _drive(medium, len(self.drives))
            path = f"ide@1,1/drive@{free // 2}/disk@{free % 2}"
            self.boot_paths.append((medium.kind, path))
        self.channels: tuple[IdeChannel, ...] = ()
        self.ide: PiixIde | None = None
        if sata is None:
            channels = (
                IdeChannel((places[0], places[1]), isa(IDE_IRQS[0])),
                IdeChannel((places[2], places[3]), isa(IDE_IRQS[1])),
            )
            self.channels, self.ide = channels, PiixIde(channels)
        self.ahci = _ahci(serial) if serial or sata is not None else None
        self.dma = IsaDma(memory)
        self._floppies: dict[str, int] = {}
        floppies: list[FloppyDrive | None] = [None, None]
        for number, medium in enumerate(entry for entry in media if entry.kind == "floppy"):
            _check_floppy(medium.name, medium.queue)
            floppies[number] = FloppyDrive(medium.queue)
            self._floppies[medium.name] = number
            self.boot_paths.append((medium.kind, f"isa@1/fdc@03f0/floppy@{number}"))
        self.floppy = FloppyController(
            (floppies[0], floppies[1]), isa(_FDC_IRQ), self.dma.channel(_FDC_DMA), clock
        )

    def place(self, ports: PortBus) -> dict[str, Device]:
        """Puts the controllers at their ports; all of them, by name."""
        found: dict[str, Device] = {}
        for index, (channel, (block, control)) in enumerate(
            zip(self.channels, IDE_PORTS, strict=False)
        ):
            name = f"ide{index}"
            found[name] = channel
            ports.add(block, channel, name=name, length=8)
            ports.add(control, channel, name=name, offset=8, length=1)
        found["floppy"], found["isa-dma"] = self.floppy, self.dma
        ports.add(_FDC, self.floppy, name="floppy", length=6)
        ports.add(_FDC + 7, self.floppy, name="floppy", offset=7, length=1)
        for port, offset, length in _DMA_PORTS:
            ports.add(port, self.dma, name="isa-dma", offset=offset, length=length)
        return found

    def cascade(self) -> None:
        """Lets the requests of the first DMA controller through the second, as firmware does."""
        for register, value in ((_DMA_MODE, 0xC0), (_DMA_MASK, 0x00)):
            self.dma.write(register, 1, value)

    def cmos(self) -> dict[int, int]:
        """What CMOS memory says of the floppy drives."""
        kinds = [drive.kind if drive is not None else 0 for drive in self.floppy.drives]
        count = sum(kind > 0 for kind in kinds)
        # Equipment: floppy drives, FPU, mouse.
        equipment = (1 | (count - 1) << 6 if count else 0) | 0x06
        return {_CMOS_FLOPPIES: kinds[0] << 4 | kinds[1], _CMOS_EQUIPMENT: equipment}

    def close(self) -> None:
        """Ends what is under way."""
        for channel in self.channels:
            channel.cancel()
        if self.ahci is not None:
            self.ahci.cancel()
        self.floppy.cancel()

    def insert(self, name: str, queue: BlockQueue | None) -> None:
        """Puts a medium into a drive, or takes it out.

        Raises:
            ConfigError: it does not fit into the drive.
        """
        if name in self._floppies:
            _check_floppy(name, queue)
            self.floppy.insert(self._floppies[name], queue)
            return
        from ringfence.devices.disk.cdrom import Cdrom

        drive = self.drives[name]
        assert isinstance(drive, Cdrom)
        if drive.queue is not None:
            drive.queue.cancel()
        drive.insert(queue)

    def press_eject(self, name: str) -> bool:
        """Presses a drive's button; false when the guest keeps the medium for now."""
        from ringfence.devices.disk.cdrom import Cdrom

        drive = self.drives.get(name)
        return not isinstance(drive, Cdrom) or drive.press_eject()


def _check_floppy(name: str, queue: BlockQueue | None) -> None:
    if queue is not None and format_of(queue.size) is None:
        raise ConfigError(
            f"{name}: {queue.size} bytes are more than a floppy disk has (2949120); "
            "give it as a --disk or --cdrom"
        )


def _ahci(drives: "list[Drive | None]") -> "AhciController":
    # Imported late, as what else few machines have: a machine should start at once.
    from ringfence.devices.ahci.controller import AhciController

    return AhciController(drives)


def _drive(medium: MediumEnd, number: int, *, serial_link: bool = False) -> Drive:
    """The drive for a medium."""
    serial = f"RF{number + 1:05}"
    if medium.kind == "cdrom":
        from ringfence.devices.disk.cdrom import Cdrom

        return Cdrom(medium.queue, serial=serial, sata=serial_link)
    from ringfence.devices.disk.ata import AtaDisk

    assert medium.queue is not None
    return AtaDisk(medium.queue, serial=serial, queue_depth=32 if serial_link else 0)
