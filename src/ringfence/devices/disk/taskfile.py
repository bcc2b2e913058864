"""The registers by which a host and an ATA drive talk, and what a drive asks of its controller.

Sources: AT attachment with packet interface - 6 (INCITS 361-2002), 7.1 to 7.15 (registers) and
5.2 (command protocols). A drive is sans-I/O: given a command it answers with an :data:`Action`,
which an IDE channel or an AHCI port carries out in its own way.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = [
    "ABRT",
    "AMNF",
    "BSY",
    "CORRECTABLE",
    "DF",
    "DRDY",
    "DRQ",
    "DSC",
    "ERR",
    "ICRC",
    "IDNF",
    "LBA",
    "SECTOR",
    "UNC",
    "WP",
    "Action",
    "Collect",
    "Data",
    "Done",
    "Drive",
    "Flush",
    "Media",
    "Packet",
    "TaskFile",
]

SECTOR = 512
# Status register (7.15).
ERR, CORRECTABLE, DRQ, DSC, DF, DRDY, BSY = 0x01, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80
# Error register (7.11).
AMNF, ABRT, IDNF, UNC, WP, ICRC = 0x01, 0x04, 0x10, 0x40, 0x40, 0x80
# Device register (7.10).
LBA = 0x40


@dataclass(slots=True)
class TaskFile:
    """Command block registers. Those that are written twice hold 16 bits, newest byte below."""

    features: int = 0
    count: int = 1
    low: int = 1
    mid: int = 0
    high: int = 0
    device: int = 0
    error: int = 1
    status: int = DRDY | DSC

    def lba28(self) -> int:
        """The address of a 28-bit command, if it is one in LBA form."""
        return (
            (self.device & 0x0F) << 24
            | (self.high & 0xFF) << 16
            | (self.mid & 0xFF) << 8
            | self.low & 0xFF
        )

    def lba48(self) -> int:
        """The address of a 48-bit command."""
        low = (self.high & 0xFF) << 16 | (self.mid & 0xFF) << 8 | self.low & 0xFF
        return (self.high >> 8) << 40 | (self.mid >> 8) << 32 | (self.low >> 8) << 24 | low

    def set_lba28(self, lba: int) -> None:
        """Shows an address in the registers of a 28-bit command."""
        self.low, self.mid, self.high = lba & 0xFF, lba >> 8 & 0xFF, lba >> 16 & 0xFF
        self.device = self.device & 0xF0 | lba >> 24 & 0x0F

    def set_lba48(self, lba: int) -> None:
        """Shows an address in the registers of a 48-bit command."""
        self.low = lba & 0xFF | (lba >> 24 & 0xFF) << 8
        self.mid = lba >> 8 & 0xFF | (lba >> 32 & 0xFF) << 8
        self.high = lba >> 16 & 0xFF | (lba >> 40 & 0xFF) << 8


@dataclass(slots=True)
class Done:
    """The command has ended: the registers say how."""


@dataclass(slots=True)
class Media:
    """Bytes move between medium and host; then ``end`` hears of an error, or of none."""

    write: bool
    #: Bytes from the start of the medium.
    offset: int
    length: int
    #: By DMA rather than in blocks through the data register.
    dma: bool
    #: Bytes a block.
    block: int
    end: Callable[[OSError | None], None]
    #: To be written to the host's disk before the command ends.
    through: bool = False


@dataclass(slots=True)
class Data:
    """Bytes that the drive has ready go to the host."""

    data: bytes
    dma: bool = False
    block: int = SECTOR
    end: Callable[[OSError | None], None] = field(default=lambda _: None)


@dataclass(slots=True)
class Collect:
    """``length`` bytes come from the host; ``then`` gets them and says how to go on."""

    length: int
    then: "Callable[[bytes], Action]"
    dma: bool = False
    block: int = SECTOR


@dataclass(slots=True)
class Packet:
    """A command packet comes from the host (5.2.5); ``then`` gets it."""

    length: int
    then: "Callable[[bytes], Action]"


@dataclass(slots=True)
class Flush:
    """The host's disk is to have all that was written, and loses ``discards``; then ``end``."""

    end: Callable[[OSError | None], None]
    #: Ranges to give up first, as ``(offset, length)``.
    discards: list[tuple[int, int]] = field(default_factory=list)
    flush: bool = True


Action = Done | Media | Data | Collect | Packet | Flush


class Drive(ABC):
    """What a controller knows of a drive."""

    #: Whether it takes packets, and so reports itself by another signature.
    packet = False

    def __init__(self) -> None:
        self.registers = TaskFile()

    @abstractmethod
    def sign(self) -> None:
        """Shows the signature in the registers (9.12)."""

    @abstractmethod
    def reset(self, *, hard: bool) -> None:
        """After power-on or a hard reset, or after a software reset."""

    @abstractmethod
    def start(self, command: int) -> Action:
        """Begins a command with the registers as they are."""

    def abort(self, error: int = ABRT) -> Done:
        """Ends a command with an error."""
        self.registers.error = error
        self.registers.status = DRDY | DSC | ERR
        return Done()

    def succeed(self) -> Done:
        """Ends a command without an error."""
        self.registers.error = 0
        self.registers.status = DRDY | DSC
        return Done()
