"""What a deterministic machine has beside others: a count of instructions to stop and type at.

Time there is the number of executed instructions, so the state at a given number is the same in
every run of the same machine, as long as nothing comes from outside at a time of its own.
"""

import hashlib
from collections.abc import Callable, Iterable
from heapq import heappop, heappush

from ringfence.engines import EngineMachine
from ringfence.machine.clock import CountedClock

__all__ = ["Counting", "Stops", "memory_hash"]

_ZERO = memoryview(bytes(1 << 20))


class Stops:
    """Numbers of instructions at which something is to happen, over all boots of a machine."""

    def __init__(self) -> None:
        #: Where the machine pauses.
        self.pause_at: int | None = None
        #: Instructions executed and hash of the memory when the machine ended.
        self.last: tuple[int, str] | None = None
        self._inputs: list[tuple[int, int, Callable[[], None]]] = []

    def add_input(self, instructions: int, send: Callable[[], None]) -> None:
        """Calls ``send`` at that number."""
        heappush(self._inputs, (instructions, len(self._inputs), send))

    def next(self) -> int | None:
        """The number at which the processor must leave the engine next."""
        numbers = [entry[0] for entry in self._inputs[:1]]
        if self.pause_at is not None:
            numbers.append(self.pause_at)
        return min(numbers, default=None)

    def take_inputs(self, instructions: int) -> Iterable[Callable[[], None]]:
        """The calls whose number has come."""
        while self._inputs and self._inputs[0][0] <= instructions:
            yield heappop(self._inputs)[2]


class Counting:
    """One boot of a deterministic machine.

    Args:
        engine: The engine's machine.
        clock: Its clock.
        stops: Where to stop.
        pause: Pauses the machine; called in the processor's thread, under the machine's lock.
    """

    def __init__(
        self,
        engine: EngineMachine,
        clock: CountedClock,
        stops: Stops,
        pause: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._stops = stops
        self._pause = pause
        self.update()

    def update(self) -> None:
        """Tells the engine where to stop next."""
        self._engine.stop_at(self._stops.next())

    def interrupted(self) -> None:
        """The processor has left the engine between two instructions."""
        self._clock.serve()
        instructions = self._engine.instructions
        for send in self._stops.take_inputs(instructions):
            send()
        stops = self._stops
        if stops.pause_at is not None and instructions >= stops.pause_at:
            stops.pause_at = None
            self._pause()
        self.update()


def memory_hash(memory: Iterable[tuple[int, memoryview]]) -> str:
    """SHA-256 over address and content of all pieces that are not zero, in hex."""
    digest = hashlib.sha256()
    for address, data in memory:
        if data != _ZERO[: len(data)]:
            digest.update(address.to_bytes(8, "little"))
            digest.update(data)
    return digest.hexdigest()
