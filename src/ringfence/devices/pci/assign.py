"""What a BIOS does to the PCI bus before it boots: addresses for all windows, decoding switched on.

For machines without firmware. Ranges are laid out largest first, so that none needs padding
(PCI local bus specification 3.0, section 6.2.5.1: bases are aligned to the size).
"""

from collections.abc import Callable, Iterable

from ringfence.devices.pci.bars import Bar
from ringfence.devices.pci.function import (
    COMMAND,
    COMMAND_IO,
    COMMAND_MEMORY,
    INTERRUPT_LINE,
    PciDevice,
)
from ringfence.errors import ConfigError

__all__ = ["assign"]


def assign(
    functions: Iterable[tuple[int, PciDevice]],
    *,
    io: range,
    memory: range,
    high: range,
    interrupt: Callable[[int, int], int],
) -> None:
    """Gives every window of ``functions`` an address and switches decoding on.

    Args:
        functions: Functions with their places (device * 8 + function).
        io: Ports to use.
        memory: Addresses below 4 GiB to use.
        high: Addresses above 4 GiB, for 64-bit windows that don't fit below.
        interrupt: Interrupt line of a device number and pin, for register 3Ch.

    Raises:
        ConfigError: there is not enough room.
    """
    found = list(functions)
    wanted = [(bar, entry) for _, entry in found for bar in entry.bars if bar.kind != "own"]
    wanted.sort(key=lambda pair: -pair[0].window.length)
    free = {"io": io.start, "memory": memory.start, "high": high.start}
    ends = {"io": io.stop, "memory": memory.stop, "high": high.stop}

    def take(space: str, bar: Bar) -> int | None:
        size = bar.window.length
        base = -(-free[space] // size) * size
        if base + size > ends[space]:
            return None
        free[space] = base + size
        return base

    for bar, entry in wanted:
        base = take("io" if bar.kind == "io" else "memory", bar)
        if base is None and bar.kind == "memory64":
            base = take("high", bar)
        if base is None:
            raise ConfigError(f"{bar.window.name}: no room for {bar.window.length:#x} bytes")
        entry.config_write(bar.offset, 4, base & 0xFFFFFFFF)
        if bar.kind == "memory64":
            entry.config_write(bar.offset + 4, 4, base >> 32)
    for place, entry in found:
        command = entry.register(COMMAND, 2)
        kinds = {bar.kind for bar in entry.bars}
        command |= COMMAND_IO if "io" in kinds else 0
        command |= COMMAND_MEMORY if kinds & {"memory32", "memory64", "rom"} else 0
        entry.config_write(COMMAND, 2, command)
        if entry.pin:
            entry.config_write(INTERRUPT_LINE, 1, interrupt(place >> 3, entry.pin))
