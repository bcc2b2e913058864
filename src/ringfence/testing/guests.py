"""Whole systems as data, and what runs them: boot this, wait for that text, press these keys.

>>> guest = Guest(
...     name="grub",
...     machine=lambda folder: {"cdroms": ["grub.iso"]},
...     steps=(Shows("GNU GRUB"), Presses("c"), Shows("grub>")),
... )
>>> run_guest(guest, Path("/tmp"))  # doctest: +SKIP
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Literal

from ringfence.errors import GuestError, GuestTimeout
from ringfence.machine import VM

__all__ = ["Guest", "Presses", "Shows", "Types", "run_guest"]

Where = Literal["screen", "serial", "debug", "firmware"]
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Shows:
    """Waits for a text, or a match of a pattern.

    Attributes:
        text: What.
        on: Where: the ``screen``'s text, the ``serial`` line COM1, the ``debug`` port E9h, or the
            ``firmware``'s log.
        never: What must not be there by then, at the same place.
    """

    text: str | re.Pattern[str]
    on: Where = "screen"
    never: str | None = None


@dataclass(frozen=True, slots=True)
class Types:
    """Types a text: at the keyboard, or on the ``serial`` line."""

    text: str
    on: Literal["keyboard", "serial"] = "keyboard"


@dataclass(frozen=True, slots=True)
class Presses:
    """Presses keys by their names, such as ``enter`` or ``ctrl-alt-del``."""

    keys: tuple[str, ...]

    def __init__(self, *keys: str) -> None:
        object.__setattr__(self, "keys", keys)


@dataclass(frozen=True, kw_only=True)
class Guest:
    """A system.

    Attributes:
        name: For messages.
        machine: Makes its media in the folder that it gets; the arguments of
            :class:`~ringfence.VM`.
        steps: What is seen and done, in order.
        limit: Seconds for all of it.
        exit_status: What it writes to the debug-exit port in the end, where it does.
    """

    name: str
    machine: Callable[[Path], Mapping[str, Any]]
    steps: Sequence[Shows | Types | Presses]
    limit: float = 60.0
    exit_status: int | None = None
    tags: frozenset[str] = field(default_factory=frozenset)

    def __str__(self) -> str:
        return self.name


def run_guest(guest: Guest, folder: Path, **options: Any) -> float:
    """Runs a system through its steps.

    Args:
        guest: Which one.
        folder: For its media.
        options: More arguments of :class:`~ringfence.VM`, such as ``engine``.

    Returns:
        The seconds from power-on to the last step's end.

    Raises:
        GuestTimeout: a text did not come in time; the message holds all that was to be seen.
        GuestError: what must not be seen was, or it ended otherwise than it should.
        RingfenceError: the machine can't be made.
    """
    arguments = {"memory": "256M", **guest.machine(folder), **options}
    start = monotonic()
    with VM(**arguments) as vm:
        for step in guest.steps:
            if isinstance(step, Shows):
                _wait(vm, guest, step, start + guest.limit)
            elif isinstance(step, Presses):
                vm.keyboard.press(*step.keys)
            elif step.on == "keyboard":
                vm.keyboard.type(step.text)
            else:
                vm.console.send(step.text)
        if guest.exit_status is not None:
            how = vm.machine.join(max(start + guest.limit - monotonic(), 0.1))
            if how is None or how.status != guest.exit_status:
                raise GuestError(
                    f"{guest.name}: ended by {how}, not {guest.exit_status}{_dump(vm)}"
                )
    return monotonic() - start


def _text(vm: VM, where: Where) -> str:
    """All that is to be seen at a place."""
    if where == "screen":
        return vm.screen.text()
    machine = vm.machine
    streams = {
        "serial": machine.console,
        "debug": machine.debug,
        "firmware": machine.firmware_log,
    }
    return str(streams[where].tail())


def _wait(vm: VM, guest: Guest, step: Shows, deadline: float) -> None:
    while True:
        # Looked at before the text: what a guest says at its end counts.
        ended = vm.exit is not None
        seen = _text(vm, step.on)
        found = step.text in seen if isinstance(step.text, str) else step.text.search(seen)
        if step.never is not None and step.never in seen:
            raise GuestError(f"{guest.name}: {step.never!r} is on the {step.on}{_dump(vm)}")
        if found:
            return
        wanted = step.text if isinstance(step.text, str) else step.text.pattern
        if ended:
            raise GuestError(f"{guest.name}: it ended before {wanted!r} came{_dump(vm)}")
        if monotonic() > deadline:
            raise GuestTimeout(
                f"{guest.name}: {wanted!r} is not on the {step.on} after {guest.limit:g} s"
                f"{_dump(vm)}"
            )
        sleep(_POLL)


def _dump(vm: VM) -> str:
    """Everything that is to be seen, for a message."""
    parts = [f"\nmachine: {vm.exit or vm.state}"]
    places: tuple[Where, ...] = ("screen", "serial", "debug", "firmware")
    for where in places:
        try:
            text = _text(vm, where)
        except Exception as error:  # noqa: BLE001 - no screen, say
            text = str(error)
        lines = [line.rstrip() for line in text.splitlines()]
        shown = "\n".join(line for line in lines[-60:] if line)
        if shown:
            parts.append(f"--- {where}\n{shown}")
    return "\n".join(parts)
