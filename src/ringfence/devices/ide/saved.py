"""Saved state of an IDE channel.

A transfer under way is saved as the command that began it and how far it has come; restoring it
begins the command again and goes on from there.
"""

from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any

from ringfence.bus import BlockQueue as Queue
from ringfence.bus import State
from ringfence.devices.disk.taskfile import Collect, Data, Drive, Media, Packet, TaskFile
from ringfence.errors import StateError

if TYPE_CHECKING:
    from ringfence.devices.ide.channel import IdeChannel

__all__ = ["Queue", "drive_state", "registers_of", "restore", "restore_drive", "save"]

_VERSION = 1
_WIDE = 0xFFFF
#: Bounds of the registers, in the order of the task file.
_REGISTERS = (_WIDE, _WIDE, _WIDE, _WIDE, _WIDE, 0xFF, 0xFF, 0xFF)
_MOST = 1 << 26
_NUMBERS = {
    "selected": 1,
    "control": 0xFF,
    "intrq": 1,
    "opcode": 0xFF,
    "phase": 2,
    "at": _MOST,
    "block_end": _MOST,
    "moved": 1 << 32,
    "flow": 2,
}


def registers_of(drive: Drive) -> list[int]:
    """The task file as numbers."""
    return list(astuple(drive.registers))


def _names(drive: Drive) -> dict[str, int]:
    found: dict[str, int] = getattr(drive, "FIELDS", {})
    return found


def drive_state(drive: Drive | None) -> list[int]:
    """Registers and settings of a drive as numbers; empty for none."""
    if drive is None:
        return []
    return registers_of(drive) + [int(getattr(drive, name)) for name in _names(drive)]


def check_drive(drive: Drive | None, values: object, what: str) -> list[int]:
    """The numbers of a drive, if they are that."""
    bounds = [] if drive is None else [*_REGISTERS, *_names(drive).values()]
    if not isinstance(values, list) or len(values) != len(bounds):
        raise StateError(f"{what}: not the state of this drive")
    for value, bound in zip(values, bounds, strict=True):
        if type(value) is not int or not 0 <= value <= bound:
            raise StateError(f"{what}: a number is not between 0 and {bound:#x}")
    return values


def restore_drive(drive: Drive | None, values: list[int]) -> None:
    """Sets what :func:`check_drive` let pass."""
    if drive is None:
        return
    for field, value in zip(fields(TaskFile), values, strict=False):
        setattr(drive.registers, field.name, value)
    for name, value in zip(_names(drive), values[len(_REGISTERS) :], strict=True):
        setattr(drive, name, value)


def save(channel: "IdeChannel") -> State:
    """The state of a channel."""
    phase = 0
    if channel.action is not None:
        phase = 2 if channel.packet else 1
    return {
        "device": "IdeChannel",
        "version": _VERSION,
        "selected": channel.selected,
        "control": channel.control,
        "intrq": int(channel.intrq),
        "opcode": channel.opcode,
        "phase": phase,
        "at": channel.at,
        "block_end": channel.block_end,
        "moved": channel.moved,
        "flow": 1 if channel.reading else 2 if channel.writing else 0,
        "origin": list(channel.origin),
        "packet": list(channel.packet),
        "buffer": list(channel.buffer),
        "drive0": drive_state(channel.drives[0]),
        "drive1": drive_state(channel.drives[1]),
    }


def restore(channel: "IdeChannel", state: State) -> None:
    """Takes a state: all of it, or none.

    Raises:
        StateError: it does not fit.
    """
    if state.get("device") != "IdeChannel" or state.get("version") != _VERSION:
        raise StateError("the state is not of this version of an IDE channel")
    numbers = {name: _number(state, name, bound) for name, bound in _NUMBERS.items()}
    lists = {name: _bytes(state, name) for name in ("packet", "buffer")}
    origin = state.get("origin")
    if not isinstance(origin, list) or len(origin) not in (0, len(_REGISTERS)):
        raise StateError("IdeChannel: 'origin' is no set of registers")
    for value, bound in zip(origin, _REGISTERS, strict=False):
        if type(value) is not int or not 0 <= value <= bound:
            raise StateError("IdeChannel: 'origin' is no set of registers")
    drives = [
        check_drive(drive, state.get(f"drive{index}"), f"drive {index}")
        for index, drive in enumerate(channel.drives)
    ]
    before = save(channel)
    try:
        _apply(channel, numbers, lists, origin, drives)
    except StateError:
        old = {name: before[name] for name in _NUMBERS}
        _apply(
            channel,
            old,
            {name: bytes(before[name]) for name in lists},
            before["origin"],
            [before["drive0"], before["drive1"]],
        )
        raise


def _number(state: State, name: str, bound: int) -> int:
    value = state.get(name)
    if type(value) is not int or not 0 <= value <= bound:
        raise StateError(f"IdeChannel: {name!r} is not between 0 and {bound:#x}")
    return value


def _bytes(state: State, name: str) -> bytes:
    value = state.get(name)
    if not isinstance(value, list) or not all(type(e) is int and 0 <= e < 256 for e in value):
        raise StateError(f"IdeChannel: {name!r} is no list of bytes")
    if len(value) > _MOST:
        raise StateError(f"IdeChannel: {name!r} is too long")
    return bytes(value)


def _apply(
    channel: "IdeChannel",
    numbers: dict[str, Any],
    lists: dict[str, bytes],
    origin: list[int],
    drives: list[list[int]],
) -> None:
    channel.clear()
    channel.selected = numbers["selected"]
    channel.control = numbers["control"]
    channel.intrq = bool(numbers["intrq"])
    if numbers["phase"]:
        _resume(channel, numbers, lists, origin)
    for drive, values in zip(channel.drives, drives, strict=True):
        restore_drive(drive, values)


def _resume(
    channel: "IdeChannel", numbers: dict[str, Any], lists: dict[str, bytes], origin: list[int]
) -> None:
    """Begins the command again, as far as finding out what it wants."""
    drive = channel.drives[channel.selected]
    if drive is None or not origin:
        raise StateError("IdeChannel: there is no drive that could go on")
    restore_drive(drive, origin + drive_state(drive)[len(_REGISTERS) :])
    action = drive.start(numbers["opcode"])
    if numbers["phase"] == 2:
        if not isinstance(action, Packet) or len(lists["packet"]) != action.length:
            raise StateError("IdeChannel: the command takes no packet")
        action = action.then(lists["packet"])
    at, end, flow, size = numbers["at"], numbers["block_end"], numbers["flow"], len(lists["buffer"])
    length = getattr(action, "length", size)
    fits = isinstance(action, Media | Data | Collect | Packet) and (
        at < end <= size if flow else at == end == size == 0 and getattr(action, "dma", False)
    )
    reads = isinstance(action, Data) or (isinstance(action, Media) and not action.write)
    if not fits or (flow and (flow == 1) is not reads) or numbers["moved"] + size > length:
        raise StateError("IdeChannel: the transfer is not the command's")
    channel.action = action
    channel.opcode = numbers["opcode"]
    channel.origin = list(origin)
    channel.packet = lists["packet"]
    channel.buffer = bytearray(lists["buffer"])
    channel.at, channel.block_end, channel.moved = at, end, numbers["moved"]
    channel.reading, channel.writing = flow == 1, flow == 2
