"""The run loops: one thread per virtual processor.

A thread is inside the engine nearly always, with the interpreter released. What leaves the engine
is answered by the board under the machine's lock; everything else (pause, stop, reset) comes as
an interruption, at which the thread looks at what is wanted of it.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from threading import Condition, RLock, Thread, current_thread
from typing import TYPE_CHECKING

from ringfence.engines import EngineVcpu, ExitKinds

if TYPE_CHECKING:
    from ringfence.boards import Micro, Pc

__all__ = ["Processors"]

# What KVM answers to a hypercall that it does not know (-KVM_ENOSYS).
_NO_SUCH_CALL = (1 << 64) - 1000


class _Wanted(Enum):
    """What the threads are to do at the next interruption."""

    RUN = 0
    PAUSE = 1
    LEAVE = 2


class Processors:
    """All virtual processors of one machine, from its start to its end or reset.

    Args:
        vcpus: The engine's processors.
        exits: The classes of their exits.
        board: What answers the exits.
        lock: The machine's lock.
        shutdown: Called under the lock, with the index of a processor that shut down.
        failed: Called under the lock when the engine or a device raises, with the index of the
            processor.
        left: Called by the last thread when all have left.
        interrupted: Called under the lock at each interruption, which in a deterministic machine
            is how time comes.
    """

    def __init__(
        self,
        vcpus: Sequence[EngineVcpu],
        exits: ExitKinds,
        board: "Pc | Micro",
        lock: RLock,
        *,
        shutdown: Callable[[int], None],
        failed: Callable[[BaseException, int], None],
        left: Callable[[], None],
        interrupted: Callable[[], None] | None = None,
    ) -> None:
        self._vcpus = vcpus
        self._exits = exits
        self._board = board
        self._lock = lock
        self._changed = Condition(lock)
        self._shutdown = shutdown
        self._failed = failed
        self._left = left
        self._interrupted = interrupted
        self._wanted = _Wanted.RUN
        self._parked = 0
        self._inside = 0
        self.threads = [
            Thread(target=self._thread, args=(index,), name=f"ringfence-vcpu{index}", daemon=True)
            for index in range(len(vcpus))
        ]

    def start(self) -> None:
        """Starts all threads."""
        self._inside = len(self.threads)
        for thread in self.threads:
            thread.start()

    def pause(self) -> None:
        """Stops all processors between two instructions, and waits until they are."""
        with self._lock:
            if self._wanted is not _Wanted.RUN:
                return
            self._wanted = _Wanted.PAUSE
            self._interrupt()
            if current_thread() not in self.threads:
                self._changed.wait_for(lambda: self._parked >= self._inside)

    def resume(self) -> None:
        """Lets all processors go on."""
        with self._lock:
            if self._wanted is _Wanted.PAUSE:
                self._wanted = _Wanted.RUN
                self._changed.notify_all()

    def leave(self) -> None:
        """Makes all threads leave; does not wait for it."""
        with self._lock:
            if self._wanted is not _Wanted.LEAVE:
                self._wanted = _Wanted.LEAVE
                self._interrupt()
                self._changed.notify_all()

    def _interrupt(self) -> None:
        for vcpu in self._vcpus:
            vcpu.interrupt()

    def _thread(self, index: int) -> None:
        """Body of a thread."""
        try:
            self._run(index)
        except Exception as error:  # noqa: BLE001 - a defect ends the machine, not the process
            with self._lock:
                self._failed(error, index)
        with self._lock:
            self._inside -= 1
            last = self._inside == 0
            self._changed.notify_all()
        if last:
            # Whoever still holds this object must not hold the engine's memory.
            self._vcpus = ()
            self._left()

    def _run(self, index: int) -> None:
        """Runs a processor until it is to leave."""
        vcpu, exits, lock = self._vcpus[index], self._exits, self._lock
        run, acquire, release = vcpu.run, lock.acquire, lock.release
        ports, mmio = self._board.ports, self._board.mmio
        port_read, port_write = ports.read, ports.write
        reader_of, writer_of = ports.readers.get, ports.writers.get
        port_in, port_out = exits.port_in, exits.port_out
        completion: int | bytes = 0
        while True:
            leaving = run(completion)
            kind = type(leaving)
            if kind is port_out:
                writer = writer_of(leaving.port) if leaving.size == 1 else None
                # Half the time of a `with`, at a million accesses a second.
                acquire()
                try:
                    if writer is not None:
                        writer(leaving.value & 0xFF)
                    else:
                        port_write(leaving.port, leaving.size, leaving.value)
                finally:
                    release()
            elif kind is port_in:
                reader = reader_of(leaving.port) if leaving.size == 1 else None
                acquire()
                try:
                    if reader is not None:
                        completion = reader()
                    else:
                        completion = port_read(leaving.port, leaving.size)
                finally:
                    release()
            elif kind is exits.mmio_read:
                with lock:
                    completion = mmio.read(leaving.address, leaving.size)
            elif kind is exits.mmio_write:
                with lock:
                    mmio.write(leaving.address, leaving.size, leaving.value)
            elif kind is exits.port_in_string:
                with lock:
                    completion = ports.read_string(leaving.port, leaving.size, leaving.count)
            elif kind is exits.port_out_string:
                with lock:
                    ports.write_string(leaving.port, leaving.size, leaving.data)
            elif kind is exits.interrupted:
                if not self._go_on():
                    return
            elif kind is exits.shutdown:
                with lock:
                    self._shutdown(index)
                return
            elif kind is exits.hypercall:
                vcpu.set_registers({"rax": _NO_SUCH_CALL})
            elif kind is exits.halt:
                raise RuntimeError(
                    "the engine has no interrupt hardware to wake a halted processor"
                )

    def _go_on(self) -> bool:
        """After an interruption: waits while paused; false if the thread is to leave."""
        with self._lock:
            if self._interrupted is not None and self._wanted is _Wanted.RUN:
                self._interrupted()
            if self._wanted is _Wanted.PAUSE:
                self._parked += 1
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._wanted is not _Wanted.PAUSE)
                self._parked -= 1
            return self._wanted is _Wanted.RUN
