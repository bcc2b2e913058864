"""The options that all network cards have: where the cable leads, and the address."""

from collections.abc import Callable, Mapping
from typing import Any

from ringfence.bus import PacketPort, generated_mac, parse_mac
from ringfence.devices.pci.context import DeviceContext

__all__ = ["NET_OPTIONS", "card_options"]

#: ``net``: name of a host end, or what makes one (``tap:tap0``); ``mac``: the address.
NET_OPTIONS: Mapping[str, Callable[[str], Any]] = {"net": str, "mac": parse_mac}


def card_options(context: DeviceContext, options: dict[str, Any]) -> tuple[PacketPort, bytes]:
    """Host end and address of a card, taken out of its options.

    Without an address, one follows from the name of the host end.
    """
    name = options.pop("net", "none")
    port: PacketPort = context.end("net", name)
    return port, options.pop("mac", None) or generated_mac(name)
