"""Virtqueues in the memory of a machine; rings are walked by the compiled extension."""

from typing import Any

from ringfence import _core
from ringfence.bus import VirtQueue

__all__ = ["MachineQueues"]


class MachineQueues:
    """A :class:`ringfence.bus.VirtQueues`.

    Args:
        machine: The engine's machine.
    """

    error: type[Exception] = _core.CoreError

    def __init__(self, machine: Any) -> None:
        self._machine: Any = machine

    def make(
        self,
        size: int,
        descriptors: int,
        driver: int,
        device: int,
        *,
        packed: bool = False,
        event_index: bool = False,
        indirect: bool = False,
    ) -> VirtQueue:
        """A ring of ``size`` entries whose areas are at these guest physical addresses.

        Raises:
            CoreError: they can't be one.
        """
        return _core.VirtQueue(
            self._machine,
            size,
            descriptors,
            driver,
            device,
            packed=packed,
            event_index=event_index,
            indirect=indirect,
        )

    def discard(self, address: int, size: int) -> int:
        """Gives pages of guest memory back to the host."""
        machine = self._machine
        return 0 if machine is None else int(machine.discard(address, size))

    def close(self) -> None:
        """Lets go of the machine."""
        self._machine = None
