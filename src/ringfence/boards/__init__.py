"""What sits where: one board so far."""

from ringfence.boards.pc import HostEnds, Pc
from ringfence.boards.pc_drives import MediumEnd

__all__ = ["HostEnds", "MediumEnd", "Pc"]
