"""What sits where: ``pc`` for any system, ``micro`` for those that know virtio."""

from ringfence.boards.firmware import FirmwareImage
from ringfence.boards.micro import Micro
from ringfence.boards.pc import HostEnds, Pc
from ringfence.boards.pc_drives import MediumEnd

__all__ = ["FirmwareImage", "HostEnds", "MediumEnd", "Micro", "Pc"]
