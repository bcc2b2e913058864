"""Ranges of ports and addresses that move while the guest runs, as PCI base registers move them.

Two ranges that a guest puts over each other are no error: on a real bus both would answer. Here
what was placed first answers, and the other as soon as there is room.
"""

from dataclasses import dataclass
from typing import Any, Literal

from ringfence.bus.contracts import Region
from ringfence.bus.memory import MemoryMap
from ringfence.bus.mmio import MmioBus
from ringfence.bus.ports import PortBus
from ringfence.errors import ConfigError

__all__ = ["AddressMap", "Space", "Window"]

Space = Literal["io", "memory"]


@dataclass(slots=True, eq=False)
class Window:
    """A range that can be anywhere, or nowhere.

    Attributes:
        address: Where the guest wants it; ``None`` while it decodes nothing.
        placed: Where it is; differs from ``address`` while something else is there.
    """

    name: str
    space: Space
    length: int
    #: What answers accesses; offsets count from the window's start.
    device: Region
    #: Memory that the guest reaches without asking ``device``: an engine's memory object, from
    #: its start on. Writes come to ``device`` if it is read-only.
    memory: Any = None
    #: What a guest reads instead of asking ``device``, where memory can be mapped: a ROM.
    image: bytes = b""
    readonly: bool = False
    log_dirty: bool = False
    address: int | None = None
    placed: int | None = None
    mapped: bool = False


class AddressMap:
    """Places windows on the buses of a machine.

    Args:
        ports: The machine's ports.
        mmio: Its memory-mapped devices.
        memory: Its memory; without one, windows with memory are reached through their device.
    """

    def __init__(self, ports: PortBus, mmio: MmioBus, memory: MemoryMap | None = None) -> None:
        self.ports = ports
        self.mmio = mmio
        self._memory = memory
        self._waiting: list[Window] = []

    def place(self, window: Window, address: int | None) -> None:
        """Puts a window at ``address``, or takes it away."""
        if window.address == address:
            return
        if window.placed is not None:
            self._take(window)
        elif window in self._waiting:
            self._waiting.remove(window)
        window.address = address
        if address is not None:
            self._waiting.append(window)
        for entry in list(self._waiting):
            if self._put(entry):
                self._waiting.remove(entry)

    def close(self) -> None:
        """Lets go of the machine's memory."""
        self._memory = None

    def _put(self, window: Window) -> bool:
        """Places a window where it wants to be, if nothing else is there."""
        address = window.address
        assert address is not None
        try:
            if window.space == "io":
                self.ports.add(address, window.device, name=window.name, length=window.length)
            else:
                self.mmio.add(address, window.device, name=window.name, length=window.length)
        except ConfigError:
            return False
        window.placed = address
        if window.memory is None and window.image and self._memory is not None:
            window.memory = self._memory.create(window.length)
            window.memory.view()[: len(window.image)] = window.image
            window.readonly = True
        if window.memory is not None and self._memory is not None:
            try:
                self._memory.map(
                    address,
                    window.memory,
                    size=window.length,
                    readonly=window.readonly,
                    log_dirty=window.log_dirty,
                )
                window.mapped = True
            except ConfigError:
                # Other memory is there: as on a PC, that of the machine goes first.
                window.mapped = False
        return True

    def _take(self, window: Window) -> None:
        """Takes a window from where it is."""
        placed, window.placed = window.placed, None
        assert placed is not None
        if window.mapped:
            window.mapped = False
            if self._memory is not None:
                self._memory.unmap(placed, window.length)
        if window.space == "io":
            self.ports.remove(placed, window.length)
        else:
            self.mmio.remove(placed)
