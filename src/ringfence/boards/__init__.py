"""What sits where: ``pc`` for any system, ``micro`` for those that know virtio."""

from typing import TYPE_CHECKING, Any

from ringfence.boards.firmware import FirmwareImage
from ringfence.boards.pc import HostEnds, Pc
from ringfence.boards.pc_drives import MediumEnd

if TYPE_CHECKING:
    from ringfence.boards.micro import Micro

__all__ = ["FirmwareImage", "HostEnds", "MediumEnd", "Micro", "Pc"]


def __getattr__(name: str) -> Any:
    # Few machines need it, and a machine should start at once.
    if name == "Micro":
        from ringfence.boards.micro import Micro

        return Micro
    raise AttributeError(name)
