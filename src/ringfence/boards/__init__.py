"""What sits where: one board so far."""

from ringfence.boards.pc import HostEnds, Pc

__all__ = ["HostEnds", "Pc"]
