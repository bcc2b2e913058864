"""Guest memory for devices: an engine's memory that answers everywhere."""

from contextlib import suppress
from typing import Any

from ringfence.engines import EngineMachine

__all__ = ["GuestMemory"]

_PAGE = 4096


class GuestMemory:
    """A :class:`~ringfence.bus.Dma` over an engine's memory.

    Args:
        machine: The engine's machine.
        error: What its methods raise.
    """

    def __init__(self, machine: EngineMachine, error: type[Exception]) -> None:
        self._machine: EngineMachine | None = machine
        self._error = error
        self._view = getattr(machine, "view", None)

    def read(self, address: int, size: int) -> bytes:
        """Copies out; all ones where no memory is."""
        if self._machine is None:
            return b"\xff" * size
        try:
            return self._machine.read(address, size)
        except (self._error, OverflowError):
            return b"".join(self._page(at, part) for at, part in _pages(address, size))

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Copies in; dropped where no memory is."""
        if self._machine is None:
            return
        try:
            self._machine.write(address, data)
        except (self._error, OverflowError):
            rest = memoryview(data)
            for at, part in _pages(address, len(rest)):
                with suppress(self._error, OverflowError):
                    self._machine.write(at, rest[:part])
                rest = rest[part:]

    def view(self, address: int, size: int) -> memoryview | None:
        """The bytes themselves, if the engine can show them in one piece."""
        if self._view is None:
            return None
        try:
            found: Any = self._view(address, size)
        except (self._error, OverflowError):
            return None
        return None if found is None else memoryview(found)

    def close(self) -> None:
        """Lets go of the machine: as if it had no memory from then on."""
        self._machine = self._view = None

    def _page(self, address: int, size: int) -> bytes:
        assert self._machine is not None
        try:
            return self._machine.read(address, size)
        except (self._error, OverflowError):
            return b"\xff" * size


def _pages(address: int, size: int) -> list[tuple[int, int]]:
    """A range cut at page boundaries; addresses beyond 64 bits wrap."""
    pieces = []
    while size:
        part = min(size, _PAGE - address % _PAGE)
        pieces.append((address % (1 << 64), part))
        address, size = address + part, size - part
    return pieces
