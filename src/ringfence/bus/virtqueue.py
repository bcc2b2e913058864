"""Virtqueues as a device sees them (VIRTIO 1.2, sections 2.6 to 2.8)."""

from typing import Any, Protocol

from ringfence.bus.block import Buffer

__all__ = ["Chain", "VirtQueue", "VirtQueues"]


class Chain(Protocol):
    """A buffer: what the device reads, then what it writes; offsets count from either's start."""

    @property
    def readable(self) -> int:
        """Bytes that the device may read."""

    @property
    def writable(self) -> int:
        """Bytes that the device may write."""

    def segments(self) -> list[tuple[int, int]]:
        """Guest physical address and length of each piece of the writable part."""

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Copies out of the readable part; less than ``size`` where it ends."""

    def write(self, offset: int, data: bytes | Buffer) -> int:
        """Copies into the writable part; gives how many bytes fitted."""

    def fill(self, offset: int, size: int, byte: int = 0) -> int:
        """Fills bytes of the writable part; gives how many there were."""

    def readable_views(self, offset: int, size: int) -> list[memoryview]:
        """The readable part itself, in pieces."""

    def writable_views(self, offset: int, size: int) -> list[memoryview]:
        """The writable part itself, in pieces; tell :meth:`written` what was written to them."""

    def written(self, offset: int, size: int) -> None:
        """Tells processors what was written through a view."""

    def frames(
        self,
        skip: int,
        *,
        checksum: tuple[int, int] | None = None,
        segment: int = 0,
        version: int = 4,
    ) -> list[bytes]:
        """The Ethernet frames of the packet behind ``skip`` bytes of header.

        ``checksum``: where the one to complete starts, and how far behind that it is put;
        ``segment``: cut it into TCP segments of as many bytes, over IP ``version``.

        Raises:
            VirtQueues.error: the packet does not fit what is asked for.
        """


class VirtQueue(Protocol):
    """A ring; its methods raise :attr:`VirtQueues.error` when the driver broke the rules."""

    def pop(self) -> Chain | None:
        """The next buffer that the driver made available."""

    def available(self) -> bool:
        """Whether there is one."""

    def push(self, chain: Any, written: int = 0) -> None:
        """Gives one of its buffers back, of whose writable part ``written`` bytes were written."""

    def needs_interrupt(self) -> bool:
        """Whether the driver wants one for what was pushed since the last call."""

    def enable_notification(self) -> bool:
        """Asks to be notified of buffers; true when one came meanwhile."""

    def disable_notification(self) -> None:
        """Asks not to be notified."""

    def position(self) -> tuple[int, int, int]:
        """How far the device has got: available, used, not yet signalled."""

    def set_position(self, available: int, used: int, unsignalled: int) -> None:
        """Goes on where another queue has got to."""


class VirtQueues(Protocol):
    """Makes rings in a machine's memory."""

    @property
    def error(self) -> type[Exception]:
        """What rings raise."""

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
            error: they can't be one.
        """

    def discard(self, address: int, size: int) -> int:
        """Gives pages of guest memory back to the host; they read as zeros then."""
