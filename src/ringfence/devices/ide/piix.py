"""The IDE function of an Intel 82371SB (PIIX3): two channels and their bus masters.

Sources: Intel 82371FB/82371SB (PIIX/PIIX3) data sheet (290550-002), sections 2.3 and 2.7; SFF-8038i
(Programming interface for bus master IDE controller, revision 1.0). The channels themselves sit at
their legacy ports and interrupts. Left out: what the timing registers do, which are kept and read
back.
"""

from typing import ClassVar

from ringfence.bus import State
from ringfence.devices.disk.scatter import Scatter
from ringfence.devices.ide.channel import IdeChannel
from ringfence.devices.pci.function import PciDevice, PciIdentity
from ringfence.errors import StateError

__all__ = ["PiixIde"]

# Registers of a channel's bus master, 8 bytes each.
_COMMAND, _STATUS, _POINTER = 0, 2, 4
_START, _TO_MEMORY = 0x01, 0x08
_ACTIVE, _ERROR, _INTERRUPT, _CAPABLE = 0x01, 0x02, 0x04, 0x60
# A physical region descriptor: address, length (0: 64 KiB), last one.
_DESCRIPTOR, _LAST = 8, 0x80000000
#: The table does not cross a 64 KiB boundary, so it has no more descriptors.
_MOST_DESCRIPTORS = 8192
#: Primary and secondary timing: the legacy ports are decoded.
_TIMING, _DECODE = 0x40, 0x8000


class _Master:
    """The bus master of one channel."""

    def __init__(self, function: "PiixIde", channel: IdeChannel) -> None:
        self._function = function
        self._channel = channel
        channel.master = self
        self.reset()

    def reset(self) -> None:
        self.command = 0
        self.status = 0
        self.pointer = 0

    @property
    def started(self) -> bool:
        """Whether the guest lets it run."""
        return bool(self.command & _START)

    def scatter(self, length: int) -> tuple[Scatter, bool]:
        """Memory for ``length`` bytes, and whether descriptors are left then."""
        memory = self._function.dma
        scatter = Scatter(memory, length)
        at = self.pointer
        for _ in range(_MOST_DESCRIPTORS):
            entry = int.from_bytes(memory.read(at, _DESCRIPTOR), "little")
            address, control = entry & 0xFFFFFFFE, entry >> 32
            size = control & 0xFFFE or 0x10000
            last = bool(control & _LAST)
            partly = scatter.length + size > length
            if not scatter.add(address, size):
                return scatter, partly or not last
            if last:
                break
            at = at & 0xFFFF0000 | at + _DESCRIPTOR & 0xFFFF
        return scatter, False

    def ended(self, *, more: bool) -> None:
        """The transfer is over."""
        if not more:
            self.status &= ~_ACTIVE

    def interrupt(self) -> None:
        """The drive has raised its interrupt."""
        self.status |= _INTERRUPT

    def read(self, offset: int) -> int:
        if offset == _COMMAND:
            return self.command
        if offset == _STATUS:
            return self.status
        return self.pointer >> 8 * (offset - _POINTER) & 0xFF if offset >= _POINTER else 0

    def write(self, offset: int, value: int) -> None:
        if offset == _COMMAND:
            before, self.command = self.command, value & (_START | _TO_MEMORY)
            if value & _START and not before & _START:
                self.status |= _ACTIVE
                self._channel.start_dma()
            elif before & _START and not value & _START:
                self._channel.stop_dma()
                self.status &= ~_ACTIVE
        elif offset == _STATUS:
            kept = self.status & ~(value & (_ERROR | _INTERRUPT))
            self.status = kept & ~_CAPABLE | value & _CAPABLE
        elif offset >= _POINTER:
            shift = 8 * (offset - _POINTER)
            self.pointer = (self.pointer & ~(0xFF << shift) | value << shift) & 0xFFFFFFFC


class _Registers:
    """What is behind the base register: both bus masters."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})
    LENGTH: ClassVar[int] = 16

    def __init__(self, masters: tuple[_Master, _Master]) -> None:
        self._masters = masters

    def reset(self) -> None:
        """The function resets them."""

    def read(self, offset: int, size: int) -> int:
        """Reads registers byte by byte."""
        return sum(
            self._masters[at >> 3].read(at & 7) << 8 * index
            for index, at in enumerate(range(offset, min(offset + size, 16)))
        )

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes registers byte by byte."""
        for index, at in enumerate(range(offset, min(offset + size, 16))):
            self._masters[at >> 3].write(at & 7, value >> 8 * index & 0xFF)

    def state(self) -> State:
        """The function's."""
        return {}

    def restore(self, state: State) -> None:
        """The function's."""


class PiixIde(PciDevice):
    """The function.

    Args:
        channels: Primary and secondary channel.
    """

    def __init__(self, channels: tuple[IdeChannel, IdeChannel]) -> None:
        super().__init__(PciIdentity(0x8086, 0x7010, 0x010180))
        self.channels = channels
        self._masters = (_Master(self, channels[0]), _Master(self, channels[1]))
        self.add_bar(4, _Registers(self._masters), size=16, kind="io", name="ide bus master")
        self.set_default(0x06, 0x0280, 2)
        for offset in (_TIMING, _TIMING + 2):
            self.set_default(offset, _DECODE, 2)
            self.set_mask(offset, 0xFFFF, 2)

    def reset(self) -> None:
        """The bus masters stop."""
        for channel in self.channels:
            channel.cancel()
        for master in self._masters:
            master.reset()
        super().reset()

    def state(self) -> State:
        """Configuration space and bus masters."""
        for channel in self.channels:
            channel.settle()
        values = [[m.command, m.status, m.pointer] for m in self._masters]
        return {**super().state(), "masters": [value for entry in values for value in entry]}

    def restore(self, state: State) -> None:
        """Takes them."""
        values = state.get("masters")
        bounds = (0x09, 0x67, 0xFFFFFFFF) * 2
        if not isinstance(values, list) or len(values) != len(bounds):
            raise StateError("PiixIde: 'masters' is no state of two bus masters")
        for value, bound in zip(values, bounds, strict=True):
            if type(value) is not int or not 0 <= value <= bound:
                raise StateError(f"PiixIde: a number of 'masters' is not between 0 and {bound:#x}")
        super().restore({key: value for key, value in state.items() if key != "masters"})
        for master, at in zip(self._masters, (0, 3), strict=True):
            master.command, master.status = values[at], values[at + 1]
            master.pointer = values[at + 2] & 0xFFFFFFFC
