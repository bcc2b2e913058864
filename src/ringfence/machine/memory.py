"""Guest memory: what is mapped where, and how devices reach it."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ringfence.engines import Engine, EngineMachine, EngineMemory
from ringfence.errors import ConfigError
from ringfence.units import MIB

__all__ = ["GuestMemory", "Ram"]


class Ram(NamedTuple):
    """A piece of the machine's memory."""

    address: int
    size: int
    #: Where it begins in the memory object.
    offset: int


class GuestMemory:
    """Memory of one boot: a :class:`~ringfence.bus.Dma` and a :class:`~ringfence.bus.MemoryMap`.

    Args:
        engine: The engine.
        machine: Its machine.
        size: Bytes of memory.
    """

    def __init__(self, engine: Engine, machine: EngineMachine, size: int) -> None:
        self._engine = engine
        self._machine: EngineMachine | None = machine
        self._ram: EngineMemory | None = engine.create_memory(size)
        self._pieces: list[tuple[int, int, int, memoryview]] = []

    def add_ram(self, pieces: Iterable[Ram]) -> None:
        """Shows the guest the pieces of memory that are always there."""
        assert self._machine is not None
        assert self._ram is not None
        view = self._ram.view()
        for address, length, offset in pieces:
            self._machine.map(address, self._ram, offset=offset, size=length)
            self._pieces.append((address, address + length, offset, view))

    def contents(self) -> Iterator[tuple[int, memoryview]]:
        """The memory that is always there, by address, in pieces of at most 1 MiB."""
        for start, end, offset, view in self._pieces:
            for address in range(start, end, MIB):
                at = offset + address - start
                yield address, view[at : at + min(MIB, end - address)]

    # As a bus master reaches it.

    def read(self, address: int, size: int) -> bytes:
        """Copies out; all ones where no memory is."""
        machine = self._machine
        if machine is None or not 0 <= address < 1 << 64:
            return b"\xff" * size
        return machine.dma_read(address, size)

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Copies in; dropped where no memory is."""
        if self._machine is not None and 0 <= address < 1 << 64:
            self._machine.dma_write(address, data)

    def view(self, address: int, size: int) -> memoryview | None:
        """The bytes themselves, if they lie in one piece of the machine's memory."""
        for start, end, offset, view in self._pieces:
            if start <= address and address + size <= end:
                at = address - start + offset
                return view[at : at + size]
        return None

    def written(self, address: int, size: int) -> None:
        """Bytes were changed through a view."""
        for start, end, offset, _ in self._pieces:
            if start <= address and address + size <= end and self._ram is not None:
                self._ram.written(address - start + offset, size)

    # As the board arranges it.

    @property
    def ram(self) -> EngineMemory:
        """The machine's memory."""
        assert self._ram is not None
        return self._ram

    def create(self, size: int) -> EngineMemory:
        """Memory to map."""
        return self._engine.create_memory(size)

    def map(
        self,
        address: int,
        memory: EngineMemory,
        *,
        offset: int = 0,
        size: int | None = None,
        readonly: bool = False,
        log_dirty: bool = False,
        replace: bool = False,
    ) -> None:
        """Shows memory to the guest.

        Raises:
            ConfigError: the engine refuses: other memory is there.
        """
        if self._machine is None:
            return
        try:
            self._machine.map(
                address,
                memory,
                offset=offset,
                size=size,
                readonly=readonly,
                log_dirty=log_dirty,
                replace=replace,
            )
        except (self._engine.error, OverflowError) as error:
            raise ConfigError(f"memory can't be mapped at {address:#x}: {error}") from error

    def unmap(self, address: int, size: int) -> None:
        """Hides memory from the guest."""
        if self._machine is not None:
            self._machine.unmap(address, size)

    def close(self) -> None:
        """Lets go of the machine: as if it had no memory from then on."""
        self._machine = self._ram = None
        self._pieces.clear()
