"""The user's terminal, or a pipe, on one side; the console of a machine on the other."""

import os
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Protocol, TypeVar

from ringfence.cli.escape import HELP, Action, EscapeKey
from ringfence.cli.signals import Deferred
from ringfence.cli.terminal import Terminal, write_all

Result = TypeVar("Result")

_CHUNK = 64 << 10
# Bytes that may wait for the guest before we stop reading more, and how often we look again.
_BACKLOG = 64 << 10
_RETRY = 0.02  # seconds
# Ctrl-D, and how often it is typed, in seconds: an end of input lasts, but a terminal forgets a
# Ctrl-D that nobody waited for.
_END_OF_INPUT = b"\x04"
_END_INTERVAL = 0.25


class Console(Protocol):
    """What is needed of a console."""

    @property
    def pending_input(self) -> int:
        """Bytes that the guest did not take yet."""

    def send(self, data: bytes) -> None:
        """Types ``data``."""

    def receive(self, timeout: float | None = None) -> bytes:
        """Waits for output; empty at the end."""


class Machine(Protocol):
    """What is needed of a machine."""

    @property
    def console(self) -> Console:
        """Its console."""

    def pause(self) -> None:
        """Stops the processors."""

    def resume(self) -> None:
        """Lets them go on."""

    def resize(self, rows: int, columns: int) -> None:
        """Tells the guest the size of its window."""

    def stop(self) -> None:
        """Ends the machine, which closes its console."""


def attach_terminal(machine: Machine, terminal: Terminal, signals: Deferred) -> bool:
    """Connects ``terminal``, which must be raw, until the machine ends.

    Returns:
        False if the user asked to leave, or hung up, and the machine was stopped for it.
    """
    key = EscapeKey()
    paused = False

    def typed(data: bytes) -> bool:
        nonlocal paused
        if not data:
            return False
        for part in key.feed(data):
            if isinstance(part, bytes):
                machine.console.send(part)
            elif part is Action.QUIT:
                return False
            elif part is Action.HELP:
                terminal.notice(HELP)
            elif paused:
                machine.resume()
                paused = False
                terminal.notice("[goes on]")
            else:
                machine.pause()
                paused = True
                terminal.notice("[paused; Ctrl-A p to go on]")
        return True

    def resized() -> None:
        if size := terminal.size():
            machine.resize(*size)

    with console_output(machine, terminal.write) as pump:
        resized()
        return _serve(machine.console, pump, terminal.input_fd, typed, signals, resized)


def attach_pipe(machine: Machine, input_fd: int, output_fd: int, signals: Deferred) -> None:
    """Types what ``input_fd`` gives at the console, then Ctrl-D; ends when the machine does."""
    last = b"\n"

    def typed(data: bytes) -> bool:
        nonlocal last
        if data:
            last = data[-1:]
            machine.console.send(data)
        else:
            # A shell takes Ctrl-D for the end only at the beginning of a line.
            machine.console.send((b"" if last == b"\n" else b"\n") + _END_OF_INPUT)
            last = b"\n"
        return True

    with console_output(machine, lambda data: write_all(output_fd, data)) as pump:
        _serve(machine.console, pump, input_fd, typed, signals, lambda: None)


@contextmanager
def console_output(machine: Machine, write: Callable[[bytes], None]) -> Iterator["_Pump"]:
    """Writes the console's output for as long as the block runs.

    At its end the machine ends, and all it said has been written.
    """
    pump = _Pump(machine.console, write)
    pump.start()
    try:
        yield pump
    finally:
        machine.stop()
        pump.join()
        os.close(pump.done_fd)
    if pump.error is not None:
        raise pump.error


class _Pump(Thread):
    """Writes a console's output until its end, in a thread.

    ``done_fd`` becomes readable (its end) when that has happened.
    """

    def __init__(self, console: Console, write: Callable[[bytes], None]) -> None:
        super().__init__(name="console output", daemon=True)
        self._console = console
        self._write = write
        self.error: BaseException | None = None
        self.done_fd, self._running_fd = os.pipe()

    def run(self) -> None:
        """Until the console closes, or the other side does."""
        try:
            while data := self._console.receive():
                self._write(data)
        except OSError as error:
            self.error = error
        finally:
            os.close(self._running_fd)


def wait_for_call(
    call: Callable[[], Result], stop: Callable[[], None], signals: Deferred
) -> Result:
    """Makes a call in a thread and waits for its end, or for a signal.

    Args:
        call: what to do; its result or error becomes ours.
        stop: makes the call end early.
        signals: raise here, after the call has ended.
    """
    outcome: list[Result] = []
    failure: list[BaseException] = []
    read_end, write_end = os.pipe()

    def work() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again below
            failure.append(error)
        finally:
            os.close(write_end)

    thread = Thread(target=work, name="command", daemon=True)
    thread.start()
    try:
        with selectors.PollSelector() as selector:
            selector.register(read_end, selectors.EVENT_READ)
            selector.register(signals.fd, selectors.EVENT_READ)
            while read_end not in {key.fd for key, _ in selector.select()}:
                signals.check()
    except BaseException:
        stop()
        raise
    finally:
        thread.join()
        os.close(read_end)
    if failure:
        raise failure[0]
    return outcome[0]


def _serve(
    console: Console,
    pump: _Pump,
    input_fd: int,
    typed: Callable[[bytes], bool],
    signals: Deferred,
    resized: Callable[[], None],
) -> bool:
    """Passes input on until the pump is done (True) or ``typed`` says to leave (False)."""
    # Not epoll(7), which refuses regular files and /dev/null.
    with selectors.PollSelector() as selector:
        selector.register(pump.done_fd, selectors.EVENT_READ)
        selector.register(input_fd, selectors.EVENT_READ)
        selector.register(signals.fd, selectors.EVENT_READ)
        full = ended = False
        while True:
            if not ended and full != (console.pending_input > _BACKLOG):
                full = not full
                if full:
                    selector.unregister(input_fd)
                else:
                    selector.register(input_fd, selectors.EVENT_READ)
            wait = _END_INTERVAL if ended else _RETRY if full else None
            ready = {key.fd for key, _ in selector.select(wait)}
            if signals.check():
                resized()
            if pump.done_fd in ready:
                return True
            if ended and not ready and not console.pending_input:
                typed(b"")
            if input_fd in ready:
                data = _read(input_fd)
                if not data:
                    selector.unregister(input_fd)
                    ended = True
                if not typed(data):
                    return False


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except OSError:  # the terminal hung up
        return b""
