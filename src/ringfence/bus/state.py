"""Saving and restoring the state of devices by name."""

from collections.abc import Iterable, Mapping
from typing import Any

from ringfence.errors import StateError

__all__ = ["State", "restore_fields", "save_fields"]

#: A saved state: ``device``, ``version`` and one entry per field.
State = dict[str, Any]


def save_fields(device: object, version: int, fields: Iterable[str]) -> State:
    """The named attributes of ``device``, with its class name and ``version``.

    Byte arrays are copied as bytes and lists as lists, so the result does not change later.
    """
    state: State = {"device": type(device).__name__, "version": version}
    for field in fields:
        value = getattr(device, field)
        if isinstance(value, bytearray):
            value = bytes(value)
        elif isinstance(value, list):
            value = list(value)
        state[field.lstrip("_")] = value
    return state


def restore_fields(
    device: object, state: Mapping[str, Any], version: int, fields: Iterable[str]
) -> None:
    """Sets the named attributes of ``device`` from ``state``: all of them, or none.

    Raises:
        StateError: the state is another device's, of another version, or a field is missing or
            of another type or length.
    """
    name = type(device).__name__
    if state.get("device") != name:
        raise StateError(f"the state is of {state.get('device')!r}, not of {name!r}")
    if state.get("version") != version:
        raise StateError(f"{name}: version {state.get('version')!r} is not {version}")
    values: dict[str, Any] = {}
    for field in fields:
        key = field.lstrip("_")
        current = getattr(device, field)
        if key not in state:
            raise StateError(f"{name}: field {key!r} is missing")
        value = state[key]
        wanted: type = bytes if isinstance(current, bytearray) else type(current)
        if type(value) is not wanted:
            raise StateError(f"{name}: field {key!r} is not of type {wanted.__name__}")
        if isinstance(value, int) and value < 0:
            raise StateError(f"{name}: field {key!r} is negative")
        if isinstance(value, list):
            if not all(type(entry) is int and entry >= 0 for entry in value):
                raise StateError(f"{name}: field {key!r} holds something other than numbers")
            value = list(value)
        values[field] = bytearray(value) if wanted is bytes else value
    for field, value in values.items():
        setattr(device, field, value)
