"""Realtek RTL8029AS: an NE2000 on the PCI bus.

Source: RTL8029AS data sheet (1997): a DP8390 with its data port in an I/O window of 32 ports, and
the chip's own page 3 with the state of its EEPROM and configuration. Left out: the EEPROM's pins.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from ringfence.bus import PacketPort, State
from ringfence.devices.net.ne2000 import PORTS, Ne2000
from ringfence.devices.net.options import NET_OPTIONS, card_options
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.pci.function import PciDevice, PciIdentity
from ringfence.errors import StateError

__all__ = ["Rtl8029"]

#: What reads at 0Ah and 0Bh of page 0.
_IDENTITY = b"\x50\x43"


class _Pin:
    """The interrupt pin as a wire."""

    def __init__(self, function: "Rtl8029") -> None:
        self._function = function

    def set(self, level: bool) -> None:
        self._function.set_irq(level)


class Rtl8029(PciDevice):
    """The card.

    Args:
        port: Where its cable leads.
        mac: Its address.
    """

    OPTIONS: ClassVar[Mapping[str, Callable[[str], Any]]] = NET_OPTIONS

    def __init__(self, port: PacketPort, mac: bytes) -> None:
        super().__init__(PciIdentity(0x10EC, 0x8029, 0x020000, 0, 0x10EC, 0x8029), pin=1)
        self.card = Ne2000(port, _Pin(self), mac, identity=_IDENTITY)
        self.add_bar(0, self.card, size=PORTS, kind="io", name="rtl8029")
        port.on_receive(self.card.frames_waiting)

    def reset(self) -> None:
        """Bus reset."""
        super().reset()
        self.card.reset()

    def state(self) -> State:
        """The function and the chip."""
        state = super().state()
        state["chip"] = self.card.state()
        return state

    def restore(self, state: State) -> None:
        """Takes the function and the chip."""
        chip = state.get("chip")
        if not isinstance(chip, dict):
            raise StateError("Rtl8029: field 'chip' is missing")
        before = self.card.state()
        self.card.restore(chip)
        try:
            super().restore({key: value for key, value in state.items() if key != "chip"})
        except StateError:
            self.card.restore(before)
            raise

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:
        """A card from its options."""
        return cls(*card_options(context, options))
