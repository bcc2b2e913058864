"""Ringfence: virtual machines from Python.

>>> import ringfence
>>> with ringfence.VM("debian", memory="512M") as vm:  # doctest: +SKIP
...     print(vm.run("uname -a").stdout)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ringfence.errors import (
    CommandFailed,
    ConfigError,
    EmulationError,
    EngineError,
    GuestError,
    GuestOutOfMemory,
    GuestPanic,
    GuestShutdown,
    GuestStopped,
    GuestTimeout,
    ImageCorrupt,
    ImageDenied,
    ImageError,
    ImageInUse,
    ImageNotFound,
    InitrdError,
    KernelError,
    NetworkError,
    OverlapError,
    RingfenceError,
    StateError,
)

if TYPE_CHECKING:
    from ringfence.chars import Console
    from ringfence.config import DiskConfig, MachineConfig
    from ringfence.machine import (
        VM,
        Completed,
        ExitReason,
        Machine,
        MachineExit,
        MachineState,
        Process,
    )

__all__ = [
    "VM",
    "CommandFailed",
    "Completed",
    "ConfigError",
    "Console",
    "DiskConfig",
    "EmulationError",
    "EngineError",
    "ExitReason",
    "GuestError",
    "GuestOutOfMemory",
    "GuestPanic",
    "GuestShutdown",
    "GuestStopped",
    "GuestTimeout",
    "ImageCorrupt",
    "ImageDenied",
    "ImageError",
    "ImageInUse",
    "ImageNotFound",
    "InitrdError",
    "KernelError",
    "Machine",
    "MachineConfig",
    "MachineExit",
    "MachineState",
    "NetworkError",
    "OverlapError",
    "Process",
    "RingfenceError",
    "StateError",
]

# Loaded when first asked for: a command like ``ringfence image ls`` needs no machine.
_PLACES = {
    "VM": "machine",
    "Completed": "machine",
    "Console": "chars",
    "DiskConfig": "config",
    "ExitReason": "machine",
    "Machine": "machine",
    "MachineConfig": "config",
    "MachineExit": "machine",
    "MachineState": "machine",
    "Process": "machine",
}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'ringfence' has no attribute {name!r}")
    value = getattr(import_module(f"ringfence.{place}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
