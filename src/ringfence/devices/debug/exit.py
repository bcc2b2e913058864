"""Debug ports: a byte that ends the machine, and a console without a driver.

The exit port has the convention of test kernels: whatever is written ends the machine and is its
status. The console is the one of Bochs at port E9h: what is written is printed, and a read gives
E9h, by which a guest finds out that it is there.
"""

from collections.abc import Callable
from typing import ClassVar

from ringfence.bus import CharPort, Clock, State, restore_fields, save_fields

__all__ = ["DebugConsole", "DebugExit"]

_VERSION = 1
_FLUSH_DELAY = 1_000_000


class DebugExit:
    """Ends the machine when written to, with the value as status."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})
    LENGTH: ClassVar[int] = 4

    def __init__(self, leave: Callable[[int], None]) -> None:
        self._leave = leave

    def reset(self) -> None:
        """Nothing to reset."""

    def read(self, offset: int, size: int) -> int:
        """Zero, by which a guest can tell the port from an empty one."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Ends the machine when ``offset`` is 0."""
        if offset == 0:
            self._leave(value)

    def state(self) -> State:
        """Nothing but name and version."""
        return save_fields(self, _VERSION, ())

    def restore(self, state: State) -> None:
        """Checks name and version."""
        restore_fields(self, state, _VERSION, {})


class DebugConsole:
    """Port E9h: prints what is written.

    Args:
        port: Host end.
        clock: The machine's clock.
        delay: For how long output is gathered at most, in nanoseconds.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 1
    SIGNATURE: ClassVar[int] = 0xE9

    def __init__(self, port: CharPort, clock: Clock, delay: int = _FLUSH_DELAY) -> None:
        self._delay = delay
        self._port = port
        self._clock = clock
        self._written = bytearray()

    def reset(self) -> None:
        """Hands on what was written."""
        self.flush()

    def read(self, offset: int, size: int) -> int:
        """The signature."""
        return self.SIGNATURE

    def write(self, offset: int, size: int, value: int) -> None:
        """Prints a byte, together with those that follow within a millisecond."""
        if not self._written:
            self._clock.call_at(self._clock.now() + self._delay, self.flush)
        self._written.append(value & 0xFF)
        if len(self._written) >= 4096:
            self.flush()

    def state(self) -> State:
        """Nothing but name and version; what was written is flushed first."""
        self.flush()
        return save_fields(self, _VERSION, ())

    def restore(self, state: State) -> None:
        """Checks name and version."""
        restore_fields(self, state, _VERSION, {})

    def flush(self) -> None:
        """Hands what was written to the host end."""
        if self._written:
            data = bytes(self._written)
            self._written.clear()
            self._port.write(data)
