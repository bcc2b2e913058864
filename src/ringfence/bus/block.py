"""Block storage as devices see it: a backend, workers to wait in, and a queue that joins both."""

from collections.abc import Callable, Sequence
from typing import Protocol

__all__ = ["BlockBackend", "BlockQueue", "Buffer", "Done", "InlineWorkers", "Workers"]

#: Writable memory; for what is only read, ``bytes`` too.
Buffer = bytearray | memoryview
#: Called under the machine's lock when an operation has ended: without an error, or with it.
Done = Callable[[OSError | None], None]


class BlockBackend(Protocol):
    """The host end of a disk: numbered bytes. Calls may come from several threads at once.

    Offsets and lengths are bytes and need not be multiples of a sector. All calls raise
    :class:`OSError` when the host can't do it: ``EINVAL`` for a range beyond the end, ``EROFS``
    for a write to what is read-only, ``ENOSPC``, ``EIO`` and so on as the host has it.
    """

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def readonly(self) -> bool:
        """Whether writes are refused."""

    def read(self, offset: int, length: int) -> bytes:
        """Reads ``length`` bytes."""

    def read_into(self, offset: int, buffers: Sequence[Buffer]) -> None:
        """Fills ``buffers``, in order."""

    def try_read_into(self, offset: int, buffers: Sequence[Buffer]) -> bool:
        """The same if it can be done without waiting; false if not, and the buffers are void."""

    def write(self, offset: int, data: bytes | Buffer) -> None:
        """Writes all of ``data``."""

    def write_from(self, offset: int, buffers: Sequence[bytes | Buffer]) -> None:
        """Writes all ``buffers``, in order."""

    def flush(self) -> None:
        """Returns when all that was written before would outlive a power failure."""

    def discard(self, offset: int, length: int) -> None:
        """The bytes aren't needed any more and read as zeros hence, where that frees room."""


class Workers(Protocol):
    """Threads that wait for the host, so that a machine need not."""

    def submit(self, work: Callable[[], None], done: Done) -> None:
        """Does ``work`` without the machine's lock, then calls ``done`` under it.

        A machine that has to behave alike in each run does both at once.
        """

    def drain(self) -> None:
        """Waits until all ``work`` is done, and makes the calls; under the machine's lock."""


class InlineWorkers:
    """Does all work at once."""

    def submit(self, work: Callable[[], None], done: Done) -> None:
        """Does ``work`` and calls ``done``."""
        done(_outcome(work))

    def drain(self) -> None:
        """Nothing is ever under way."""


class BlockQueue:
    """A backend for devices: each call ends with ``done``, at once or later.

    Reads that the host has in its cache end at once; others wait in a worker. After
    :meth:`cancel` no ``done`` of an earlier call comes, and no buffer is touched any more.
    """

    __slots__ = ("_epoch", "_pending", "_workers", "backend")

    def __init__(self, backend: BlockBackend, workers: Workers | None = None) -> None:
        self.backend = backend
        self._workers: Workers = workers or InlineWorkers()
        self._epoch = 0
        self._pending = 0

    @property
    def size(self) -> int:
        """Bytes."""
        return self.backend.size

    @property
    def readonly(self) -> bool:
        """Whether writes are refused."""
        return self.backend.readonly

    @property
    def busy(self) -> bool:
        """Whether an operation is under way."""
        return self._pending > 0

    def read(self, offset: int, buffers: Sequence[Buffer], done: Done) -> None:
        """Fills ``buffers``."""
        try:
            if self.backend.try_read_into(offset, buffers):
                done(None)
                return
        except OSError as error:
            done(error)
            return
        self._submit(lambda: self.backend.read_into(offset, buffers), done)

    def write(self, offset: int, buffers: Sequence[bytes | Buffer], done: Done) -> None:
        """Writes ``buffers``, which must not change until the end."""
        self._submit(lambda: self.backend.write_from(offset, buffers), done)

    def flush(self, done: Done) -> None:
        """Makes sure of what was written."""
        self._submit(self.backend.flush, done)

    def discard(self, offset: int, length: int, done: Done) -> None:
        """Gives bytes up."""
        self._submit(lambda: self.backend.discard(offset, length), done)

    def cancel(self) -> None:
        """Waits for what is under way, and forgets it."""
        if self._pending:
            self._epoch += 1
            self._pending = 0
            self._workers.drain()

    def settle(self) -> None:
        """Waits for what is under way, until its ``done`` was called."""
        while self._pending:
            self._workers.drain()

    def _submit(self, work: Callable[[], None], done: Done) -> None:
        epoch = self._epoch
        self._pending += 1

        def finished(error: OSError | None) -> None:
            if epoch == self._epoch:
                self._pending -= 1
                done(error)

        self._workers.submit(work, finished)


def _outcome(work: Callable[[], None]) -> OSError | None:
    """Does ``work``; what it raised."""
    try:
        work()
    except OSError as error:
        return error
    return None
