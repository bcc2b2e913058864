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
    device: object, state: Mapping[str, Any], version: int, fields: Mapping[str, int]
) -> None:
    """Sets the named attributes of ``device`` from ``state``: all of them, or none.

    ``fields`` gives for each attribute the largest value of a number or of a number in a list,
    and the exact length of a byte array.

    Raises:
        StateError: the state is another device's, of another version, or a field is missing, of
            another type, or out of its bounds.
    """
    name = type(device).__name__
    if state.get("device") != name:
        raise StateError(f"the state is of {state.get('device')!r}, not of {name!r}")
    if state.get("version") != version:
        raise StateError(f"{name}: version {state.get('version')!r} is not {version}")
    values: dict[str, Any] = {}
    for field, bound in fields.items():
        key = field.lstrip("_")
        current = getattr(device, field)
        if key not in state:
            raise StateError(f"{name}: field {key!r} is missing")
        value = state[key]
        wanted: type = bytes if isinstance(current, bytearray) else type(current)
        if type(value) is not wanted:
            raise StateError(f"{name}: field {key!r} is not of type {wanted.__name__}")
        if isinstance(value, int) and not 0 <= value <= bound:
            raise StateError(f"{name}: field {key!r} is not between 0 and {bound:#x}")
        if isinstance(value, bytes) and len(value) != bound:
            raise StateError(f"{name}: field {key!r} is not {bound} bytes long")
        if isinstance(value, list):
            if not all(type(entry) is int and 0 <= entry <= bound for entry in value):
                raise StateError(f"{name}: {key!r} holds other than numbers up to {bound:#x}")
            value = list(value)
        values[field] = bytearray(value) if wanted is bytes else value
    for field, value in values.items():
        setattr(device, field, value)
