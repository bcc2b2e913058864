"""Entropy device (VIRTIO 1.2, section 5.4): fills what it is given with random bytes."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

from ringfence.bus import Chain
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.virtio.device import VirtioDevice

__all__ = ["Rng"]

#: Bytes that one buffer gets at most; a driver asks again.
_MOST = 4096


class Rng(VirtioDevice):
    """The device.

    Args:
        source: Gives as many random bytes as it is asked for.
        packed: Whether packed rings are offered.
    """

    DEVICE_ID: ClassVar[int] = 4
    CLASS_CODE: ClassVar[int] = 0x00FF00

    def __init__(self, source: Callable[[int], bytes], *, packed: bool = False) -> None:
        super().__init__(0, [64], packed=packed)
        self._source = source

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:
        """A device whose bytes come from the host end ``entropy``."""
        return cls(context.end("entropy", "host"), **options)

    def handle(self, index: int, chain: Chain) -> int | None:
        """Fills a buffer."""
        size = min(chain.writable, _MOST)
        return chain.write(0, self._source(size)) if size else 0
