"""Puts the devices that a user asks for on a board: ``--device NAME[,option=value...]``."""

import re
from collections.abc import Sequence
from typing import Any, Protocol

from ringfence.boards.pc_drives import MediumEnd
from ringfence.bus import Clock, VirtQueues
from ringfence.config import DeviceConfig
from ringfence.devices.catalog import load_function
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.pci.pci_bus import PciBus
from ringfence.errors import ConfigError

__all__ = ["plug", "plug_disks"]

_ADDRESS = re.compile(r"([0-9a-f]{1,2})(?:\.([0-7]))?", re.IGNORECASE)


class DiskEnds(Protocol):
    """What disks need of the machine."""

    @property
    def media(self) -> Sequence[MediumEnd]:
        """The media."""

    @property
    def queues(self) -> VirtQueues | None:
        """What makes virtqueues."""

    @property
    def clock(self) -> Clock:
        """The machine's clock."""


def plug(bus: PciBus, context: DeviceContext, config: DeviceConfig) -> int:
    """Makes a device and plugs it into a bus; returns its place (device * 8 + function).

    Raises:
        ConfigError: there is no such model, an option or its value is not valid, or there is no
            room.
    """
    model = load_function(config.model)
    device, number = None, 0
    options: dict[str, Any] = {}
    for name, text in config.options.items():
        if name == "addr":
            device, number = _place(config.model, text)
            continue
        read = model.OPTIONS.get(name)
        if read is None:
            known = ", ".join(sorted({"addr", *model.OPTIONS}))
            raise ConfigError(f"{config.model} has no option {name!r}; there are {known}")
        try:
            options[name.replace("-", "_")] = read(text)
        except (ValueError, LookupError) as error:
            raise ConfigError(f"{config.model}: {name}={text}: {error}") from error
    try:
        function = model.build(context, **options)
    except TypeError as error:
        raise ConfigError(f"{config.model} can't be made from these options: {error}") from error
    return bus.add(function, device, number=number, name=config.model)


def plug_disks(bus: PciBus, ends: "DiskEnds") -> None:
    """Plugs in the disks that are to be virtio's.

    Raises:
        ConfigError: there is no room.
    """
    for medium in ends.media:
        if medium.interface == "virtio" and medium.queue is not None:
            if ends.queues is None:
                raise ConfigError("a virtio disk needs virtqueues, which this machine has none of")
            from ringfence.devices.virtio.block import Block
            from ringfence.devices.virtio.models import BlockPci

            disk = Block(medium.queue, serial=medium.name)
            bus.add(BlockPci(disk, ends.queues, ends.clock), name=medium.name)


def _place(model: str, text: str) -> tuple[int, int]:
    match = _ADDRESS.fullmatch(text)
    if match is None or int(match[1], 16) > 31:
        raise ConfigError(f"{model}: addr={text} is not SLOT[.FUNCTION], 0 to 1f and 0 to 7")
    return int(match[1], 16), int(match[2] or 0)
