"""The user's terminal as screen and keyboard of a machine: ``--screen text``."""

import os
import selectors
from threading import Event, Thread
from time import sleep
from typing import TYPE_CHECKING

from ringfence.cli.escape import HELP, Action, EscapeKey
from ringfence.cli.signals import Deferred
from ringfence.cli.terminal import Terminal
from ringfence.display.ansi import TerminalKeys, TerminalPicture
from ringfence.display.layouts import layout
from ringfence.errors import EngineError

if TYPE_CHECKING:
    from ringfence import VM

_CHUNK = 4096
#: Seconds between two looks at the screen; a picture is more to write.
_INTERVAL, _PICTURE_INTERVAL = 1 / 30, 0.2
_NOTICE = 2.0
_ENTER, _LEAVE = b"\x1b[?1049h", b"\x1b[?1049l"


def attach_screen(vm: "VM", terminal: Terminal, signals: Deferred) -> bool:
    """Shows the screen in ``terminal``, which must be raw, until the machine ends.

    Returns:
        False if the user asked to leave, and the machine was stopped for it.
    """
    view = _View(vm, terminal)
    view.start()
    try:
        return _serve(vm, terminal, signals, view)
    finally:
        vm.stop()
        view.stop()


class _View(Thread):
    """Brings the terminal up to date; ``done_fd`` becomes readable when the machine has ended."""

    def __init__(self, vm: "VM", terminal: Terminal) -> None:
        super().__init__(name="terminal screen", daemon=True)
        self._vm = vm
        self._terminal = terminal
        self._picture = TerminalPicture()
        self._resized = Event()
        self._notice = ""
        self._stopping = Event()
        self.done_fd, self._write_end = os.pipe()

    def resized(self) -> None:
        """The terminal has another size."""
        self._resized.set()

    def notice(self, text: str) -> None:
        """Shows a text of ours for a while."""
        self._notice = text
        self._resized.set()

    def run(self) -> None:
        """Until the machine ends."""
        try:
            self._terminal.write(_ENTER)
            self._show()
            self._terminal.write(_LEAVE)
        except OSError:
            # The terminal hung up.
            return
        finally:
            os.close(self._write_end)

    def stop(self) -> None:
        """Gives the terminal back."""
        self._stopping.set()
        self.join()
        os.close(self.done_fd)

    def _show(self) -> None:
        self._resized.set()
        seen: object = None
        while not self._stopping.is_set() and self._vm.exit is None:
            if self._resized.is_set():
                self._resized.clear()
                self._picture.resize(*(self._terminal.size() or (24, 80)))
                seen = None
                if self._notice:
                    shown, self._notice = self._notice.replace("\n", "\r\n"), ""
                    self._terminal.write(f"\x1b[0m\x1b[2J\x1b[H{shown}\r\n".encode())
                    self._stopping.wait(_NOTICE)
            screen = self._vm.screen
            stamp = screen.stamp()
            interval = _INTERVAL
            if stamp != seen:
                seen = stamp
                page = screen.page() if stamp is not None else None
                if page is not None:
                    self._terminal.write(self._picture.page(page).encode())
                elif (plan := screen.plan()) is not None:
                    canvas = screen.new_canvas()
                    canvas.draw(*plan)
                    self._terminal.write(self._picture.picture(canvas).encode())
                    interval = _PICTURE_INTERVAL
            self._stopping.wait(interval)


def _serve(vm: "VM", terminal: Terminal, signals: Deferred, view: _View) -> bool:
    """Passes keys on until the machine ends (True) or the user leaves (False)."""
    escape, keys = EscapeKey(), TerminalKeys(layout(vm.keyboard.layout))
    paused = False
    with selectors.PollSelector() as selector:
        for fd in (view.done_fd, terminal.input_fd, signals.fd):
            selector.register(fd, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if signals.check():
                view.resized()
            if view.done_fd in ready:
                return True
            if terminal.input_fd not in ready:
                continue
            try:
                data = os.read(terminal.input_fd, _CHUNK)
            except OSError:
                data = b""
            if not data:
                return False
            for part in escape.feed(data):
                if part is Action.QUIT:
                    return False
                if part is Action.HELP:
                    view.notice(HELP)
                elif part is Action.PAUSE:
                    paused = not paused
                    (vm.pause if paused else vm.resume)()
                    view.notice("[paused; Ctrl-A p to go on]" if paused else "[goes on]")
                elif not paused:
                    _press(vm, keys, part)


def _press(vm: "VM", keys: TerminalKeys, data: bytes) -> None:
    for chord in keys.feed(data):
        try:
            vm.keyboard.stroke(chord)
        except EngineError:
            # The machine restarts, or ends.
            sleep(_INTERVAL)
