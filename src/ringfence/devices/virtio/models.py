"""The virtio devices as PCI functions: what ``--device`` names."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ringfence.devices.virtio.balloon import Balloon
from ringfence.devices.virtio.block import Block
from ringfence.devices.virtio.console import Console
from ringfence.devices.virtio.device import VirtioDevice
from ringfence.devices.virtio.net import Net
from ringfence.devices.virtio.pci import VirtioPci
from ringfence.devices.virtio.rng import Rng
from ringfence.devices.virtio.share import Share
from ringfence.devices.virtio.vsock import Vsock

Options = Mapping[str, Callable[[str], Any]]

__all__ = ["BalloonPci", "BlockPci", "ConsolePci", "NetPci", "RngPci", "SharePci", "VsockPci"]


class BlockPci(VirtioPci):
    """A disk."""

    MODEL: ClassVar[type[VirtioDevice]] = Block
    OPTIONS: ClassVar[Options] = Block.options()


class NetPci(VirtioPci):
    """A network card."""

    MODEL: ClassVar[type[VirtioDevice]] = Net
    OPTIONS: ClassVar[Options] = Net.options()


class ConsolePci(VirtioPci):
    """A console with ports."""

    MODEL: ClassVar[type[VirtioDevice]] = Console
    OPTIONS: ClassVar[Options] = Console.options()


class RngPci(VirtioPci):
    """Random numbers."""

    MODEL: ClassVar[type[VirtioDevice]] = Rng
    OPTIONS: ClassVar[Options] = Rng.options()


class BalloonPci(VirtioPci):
    """A memory balloon."""

    MODEL: ClassVar[type[VirtioDevice]] = Balloon
    OPTIONS: ClassVar[Options] = Balloon.options()


class SharePci(VirtioPci):
    """A shared folder."""

    MODEL: ClassVar[type[VirtioDevice]] = Share
    OPTIONS: ClassVar[Options] = Share.options()


class VsockPci(VirtioPci):
    """Sockets between guest and host."""

    MODEL: ClassVar[type[VirtioDevice]] = Vsock
    OPTIONS: ClassVar[Options] = Vsock.options()
