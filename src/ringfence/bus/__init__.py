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
    PacketPort,
    Region,
    Stateful,
    StringPort,
    Timer,
)
from ringfence.bus.ethernet import format_mac, generated_mac, parse_mac
from ringfence.bus.lines import Line, SharedLine, unconnected
from ringfence.bus.memory import NO_MEMORY, Dma, MemoryMap, NoMemory
from ringfence.bus.mmio import MmioBus
from ringfence.bus.pci import PciFunction, PciSlot
from ringfence.bus.ports import PortBus
from ringfence.bus.state import State, restore_fields, save_fields
from ringfence.bus.virtqueue import Chain, VirtQueue, VirtQueues
from ringfence.bus.windows import AddressMap, Window

__all__ = [
    "NO_MEMORY",
    "AddressMap",
    "BlockBackend",
    "BlockQueue",
    "Buffer",
    "ByteWriter",
    "Chain",
    "CharPort",
    "Clock",
    "Device",
    "Dma",
    "Done",
    "InlineWorkers",
    "IrqLine",
    "Line",
    "MemoryMap",
    "MmioBus",
    "NoMemory",
    "PacketPort",
    "PciFunction",
    "PciSlot",
    "PortBus",
    "Region",
    "SharedLine",
    "State",
    "Stateful",
    "StringPort",
    "Timer",
    "VirtQueue",
    "VirtQueues",
    "Window",
    "Workers",
    "format_mac",
    "generated_mac",
    "parse_mac",
    "restore_fields",
    "save_fields",
    "unconnected",
]
