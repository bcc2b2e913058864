"""What devices and machine agree upon: address dispatch, lines, time, host ends, saved state.

A device knows offsets, never addresses; it takes time from a :class:`Clock`, raises an
:class:`IrqLine`, and does its I/O through a host end that is handed to it.
"""

from ringfence.bus.block import BlockBackend, BlockQueue, Buffer, Done, InlineWorkers, Workers
from ringfence.bus.contracts import (
    ByteWriter,
    CharPort,
    Clock,
    Device,
    IrqLine,
    PciFunction,
    Stateful,
    Timer,
)
from ringfence.bus.lines import Line, SharedLine, unconnected
from ringfence.bus.mmio import MmioBus
from ringfence.bus.ports import PortBus
from ringfence.bus.state import State, restore_fields, save_fields

__all__ = [
    "BlockBackend",
    "BlockQueue",
    "Buffer",
    "ByteWriter",
    "CharPort",
    "Clock",
    "Device",
    "Done",
    "InlineWorkers",
    "IrqLine",
    "Line",
    "MmioBus",
    "PciFunction",
    "PortBus",
    "SharedLine",
    "State",
    "Stateful",
    "Timer",
    "Workers",
    "restore_fields",
    "save_fields",
    "unconnected",
]
