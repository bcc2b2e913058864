"""Guest memory as devices reach it: DMA, and memory of their own that a guest sees directly."""

from typing import Any, Protocol

__all__ = ["NO_MEMORY", "Dma", "MemoryMap", "NoMemory"]


class Dma(Protocol):
    """Access to guest memory from a device.

    An address where no memory is reads as all ones and drops what is written, as a bus does. How
    much is moved at once is the device's to bound: a length from a guest is no length.
    """

    def read(self, address: int, size: int) -> bytes:
        """Copies ``size`` bytes out of guest memory."""

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Copies ``data`` into guest memory."""

    def view(self, address: int, size: int) -> memoryview | None:
        """The bytes themselves, writable; ``None`` when they are not one piece of plain memory.

        For moving much data without a copy in between: ``file.readinto(view)``. Not to be kept,
        and :meth:`written` is to be told what was changed through it.
        """

    def written(self, address: int, size: int) -> None:
        """Bytes of a :meth:`view` were changed: code translated from them is not valid any more."""


class MemoryMap(Protocol):
    """Where a guest sees pieces of memory; may change while the guest runs."""

    @property
    def ram(self) -> Any:
        """The machine's memory as an engine's object."""

    def create(self, size: int) -> Any:
        """Memory of whole pages, zeroed: an engine's object with ``view()`` and ``written()``."""

    def map(
        self,
        address: int,
        memory: Any,
        *,
        offset: int = 0,
        size: int | None = None,
        readonly: bool = False,
        log_dirty: bool = False,
        replace: bool = False,
    ) -> None:
        """Shows ``size`` bytes of ``memory``, from ``offset`` on, at ``address`` (whole pages).

        A write to a read-only range comes to the device buses.

        Raises:
            ConfigError: other memory is there, and is not to be replaced.
        """

    def unmap(self, address: int, size: int) -> None:
        """Takes away what is mapped there, whole mappings or parts of them."""


class NoMemory:
    """A :class:`Dma` to nowhere: what a function sees that is not allowed to master the bus."""

    def read(self, address: int, size: int) -> bytes:  # noqa: ARG002
        """All ones."""
        return b"\xff" * size

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Drops it."""

    def view(self, address: int, size: int) -> memoryview | None:  # noqa: ARG002
        """There is none."""
        return None

    def written(self, address: int, size: int) -> None:
        """Nothing to tell."""


NO_MEMORY = NoMemory()
