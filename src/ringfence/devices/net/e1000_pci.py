"""The 82540EM on the PCI bus.

Source: 8254x software developer's manual (317453-005), chapter 4 and section 13.2 (the I/O window).
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from ringfence.bus import Clock, PacketPort, Region, State
from ringfence.devices.net.e1000 import E1000Chip
from ringfence.devices.net.options import NET_OPTIONS, card_options
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.pci.function import PciDevice, PciIdentity
from ringfence.errors import StateError

__all__ = ["E1000"]

_REGISTERS, _PORTS = 0x20000, 0x40
_POWER_MANAGEMENT = 0x01
IOADDR, IODATA = 0, 4


class _Registers:
    """The memory window: double words only (13.2)."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})

    def __init__(self, chip: E1000Chip) -> None:
        self._chip = chip

    def read(self, offset: int, size: int) -> int:
        return self._chip.read(offset & ~3) >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        if size == 4:
            self._chip.write(offset, value)


class _Ports:
    """The I/O window: an address and a data register."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})

    def __init__(self, card: "E1000") -> None:
        self._card = card

    def read(self, offset: int, size: int) -> int:
        if offset == IOADDR and size == 4:
            return self._card.ioaddr
        if offset == IODATA and size == 4 and self._card.ioaddr < _REGISTERS:
            return self._card.chip.read(self._card.ioaddr & ~3)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == IOADDR and size == 4:
            self._card.ioaddr = value
        elif offset == IODATA and size == 4 and self._card.ioaddr < _REGISTERS:
            self._card.chip.write(self._card.ioaddr & ~3, value)


class E1000(PciDevice):
    """The card.

    Args:
        port: Where its cable leads.
        mac: Its address.
        clock: The machine's clock.
    """

    OPTIONS: ClassVar[Mapping[str, Callable[[str], Any]]] = NET_OPTIONS
    FIELDS: ClassVar[Mapping[str, int]] = {"ioaddr": 0xFFFFFFFF}

    def __init__(self, port: PacketPort, mac: bytes, clock: Clock) -> None:
        super().__init__(PciIdentity(0x8086, 0x100E, 0x020000, 2, 0x8086, 0x001E), pin=1)
        self.ioaddr = 0
        self._asserted = False
        self.chip = E1000Chip(port, mac, self.dma, self._interrupt, clock)
        registers: Region = _Registers(self.chip)
        self.add_bar(0, registers, size=_REGISTERS, name="e1000 registers")
        self.add_bar(2, _Ports(self), size=_PORTS, kind="io", name="e1000 ports")
        # Version 2; the power state is kept, and D0 is what it stays.
        self.add_capability(_POWER_MANAGEMENT, b"\x02\x00\x00\x00\x00\x00", writable=b"\0\0\0\x01")
        self.add_msi()
        port.on_receive(self.chip.frames_waiting)

    def reset(self) -> None:
        """Bus reset."""
        self.ioaddr = 0
        super().reset()
        self.chip.reset()

    def state(self) -> State:
        """The function and the chip."""
        state = super().state()
        state["chip"] = self.chip.state()
        return state

    def restore(self, state: State) -> None:
        """Takes the function and the chip."""
        chip = state.get("chip")
        if not isinstance(chip, dict):
            raise StateError("E1000: field 'chip' is missing")
        before = self.chip.state()
        self.chip.restore(chip)
        try:
            super().restore({key: value for key, value in state.items() if key != "chip"})
        except StateError:
            self.chip.restore(before)
            raise

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:
        """A card from its options."""
        port, mac = card_options(context, options)
        return cls(port, mac, context.clock)

    def config_written(self, offset: int, size: int) -> None:
        """Bus mastering may have begun."""
        if self.bus_master:
            self.chip.frames_waiting()

    def _interrupt(self, level: bool) -> None:
        rises, self._asserted = level and not self._asserted, level
        self.set_irq(level)
        if rises:
            self.notify()
