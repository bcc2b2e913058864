"""What sits where: one board so far."""

from ringfence.boards.firmware import FirmwareImage
from ringfence.boards.pc import HostEnds, Pc
from ringfence.boards.pc_drives import MediumEnd

__all__ = ["FirmwareImage", "HostEnds", "MediumEnd", "Pc"]
