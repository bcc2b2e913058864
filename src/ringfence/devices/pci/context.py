"""What a device gets that a user puts on the board."""

from typing import Any, Protocol

from ringfence.bus import Clock, VirtQueues

__all__ = ["DeviceContext"]


class DeviceContext(Protocol):
    """Clock and host ends of the machine that a device is built for."""

    @property
    def clock(self) -> Clock:
        """The machine's clock."""

    @property
    def queues(self) -> VirtQueues | None:
        """What makes virtqueues in guest memory, where there is something."""

    def end(self, kind: str, name: str) -> Any:
        """The host end ``name`` of a kind: ``net`` (PacketPort), ``disk`` (BlockBackend), ...

        Raises:
            ConfigError: there is none of that name.
        """
