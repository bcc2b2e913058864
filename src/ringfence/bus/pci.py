"""The contract between a PCI function and the bus it is plugged into."""

from typing import Protocol

from ringfence.bus.contracts import Stateful
from ringfence.bus.memory import Dma
from ringfence.bus.windows import Window

__all__ = ["PciFunction", "PciSlot"]


class PciSlot(Protocol):
    """What a function has of the bus: a place on it."""

    @property
    def memory(self) -> Dma:
        """Guest memory."""

    def set_intx(self, pin: int, level: bool) -> None:
        """Drives INTA# (1) to INTD# (4); true asserts it."""

    def send_msi(self, address: int, data: int) -> None:
        """Sends a message-signalled interrupt."""

    def place(self, window: Window, address: int | None) -> None:
        """Makes the buses answer for a window at ``address``, or not any more."""


class PciFunction(Stateful, Protocol):
    """A function on a PCI bus, as its configuration space shows it."""

    def attach(self, slot: PciSlot) -> None:
        """Plugs it in; called once, before the machine runs."""

    def reset(self) -> None:
        """The state after the bus's reset."""

    def config_read(self, offset: int, size: int) -> int:
        """Reads ``size`` bytes at ``offset`` (0 to FFFh), within a double word."""

    def config_write(self, offset: int, size: int, value: int) -> None:
        """Writes ``size`` bytes at ``offset`` (0 to FFFh), within a double word."""
