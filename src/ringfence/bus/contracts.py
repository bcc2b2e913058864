"""The contracts between devices and what is around them, as protocols."""

from collections.abc import Callable
from typing import ClassVar, Protocol, runtime_checkable

from ringfence.bus.state import State

__all__ = [
    "ByteWriter",
    "CharPort",
    "Clock",
    "Device",
    "IrqLine",
    "PacketPort",
    "Region",
    "Stateful",
    "StringPort",
    "Timer",
]


class IrqLine(Protocol):
    """An interrupt wire. A device drives its level; what listens decides on edge or level."""

    def set(self, level: bool) -> None:
        """Drives the wire: true asserts the interrupt."""


class Timer(Protocol):
    """A call that waits for its time."""

    def cancel(self) -> None:
        """Makes sure that the call is not made any more; harmless when it was."""


class Clock(Protocol):
    """Time as the machine sees it."""

    def now(self) -> int:
        """Nanoseconds since the machine was made; never goes back."""

    def wall(self) -> int:
        """Nanoseconds since 1970-01-01 UTC, as a real-time clock's battery would have kept it."""

    def call_at(self, deadline: int, callback: Callable[[], None]) -> Timer:
        """Calls ``callback`` once, when ``now()`` reaches ``deadline``.

        The call is made under the machine's lock, and soon if the deadline has passed.
        """


class CharPort(Protocol):
    """The host end of a serial line. No method blocks."""

    def write(self, data: bytes) -> None:
        """Takes what the guest sent, in order; the port buffers or drops it."""

    def read(self, limit: int) -> bytes:
        """Up to ``limit`` bytes for the guest; empty when nothing waits.

        What is not asked for stays with the port: that is the back-pressure.
        """

    def on_input(self, callback: Callable[[], None]) -> None:
        """Sets what the port calls, from any thread, when input comes while none waited."""


class PacketPort(Protocol):
    """The host end of a network card: a wire that carries Ethernet frames. No method blocks.

    A frame runs from the destination address to the end of the payload, without the frame check
    sequence (IEEE 802.3, 3.1.1).
    """

    def send(self, frame: bytes) -> None:
        """Takes a frame from the guest; one that the far end has no room for is dropped."""

    def receive(self) -> bytes | None:
        """The next frame for the guest, or ``None``.

        What is not asked for stays with the port, up to its limit.
        """

    def on_receive(self, callback: Callable[[], None]) -> None:
        """Sets what the port calls, from any thread, when a frame comes while none waited."""


class Stateful(Protocol):
    """Something whose state can be saved and restored, by name and with a version."""

    def state(self) -> State:
        """The state, in plain values: numbers, truth values, strings, bytes, lists of these."""

    def restore(self, state: State) -> None:
        """Takes a saved state.

        Raises:
            StateError: it is not one of this device.
        """


class Region(Protocol):
    """Something that answers accesses: a device, or a part of one."""

    #: Sizes in bytes of the accesses it takes; the bus splits wider ones and answers others as
    #: if nothing were there.
    WIDTHS: ClassVar[frozenset[int]]

    def read(self, offset: int, size: int) -> int:
        """Answers a read of ``size`` bytes at ``offset`` from the region's base."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Takes a write of ``size`` bytes at ``offset`` from the region's base."""


class Device(Stateful, Protocol):
    """A guest-visible device behind a range of ports or memory addresses."""

    #: Sizes in bytes of the accesses it takes; the bus splits wider ones and answers others as
    #: if nothing were there.
    WIDTHS: ClassVar[frozenset[int]]
    #: How many ports or bytes it spans.
    LENGTH: ClassVar[int]

    def reset(self) -> None:
        """The state after power-on or the reset line."""

    def read(self, offset: int, size: int) -> int:
        """Answers a read of ``size`` bytes at ``offset`` from the device's base."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Takes a write of ``size`` bytes at ``offset`` from the device's base."""


@runtime_checkable
class ByteWriter(Protocol):
    """A device that is written to so often that the way there counts."""

    def byte_writer(self, offset: int) -> Callable[[int], None]:
        """What takes a byte written at ``offset``, as ``write(offset, 1, byte)`` would."""


@runtime_checkable
class StringPort(Protocol):
    """A device with ports that take and give many elements at once, for ``REP INS`` and ``OUTS``.

    Both calls do what as many single accesses would.
    """

    def read_string(self, offset: int, size: int, count: int) -> bytes:
        """``count`` reads of ``size`` bytes at ``offset``."""

    def write_string(self, offset: int, size: int, data: bytes) -> None:
        """Writes of ``size`` bytes at ``offset``, in order."""
