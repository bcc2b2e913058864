"""Memory balloon (VIRTIO 1.2, section 5.5): gives memory of the guest back to the host.

The driver puts pages into the balloon when it is asked to grow, and their memory is the host's
until they are taken out again, when they are read as zeros. Free pages that the guest does not need
are reported without being asked for. Left out: free page hinting, which is for migration.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from ringfence.bus import Chain
from ringfence.devices.virtio.device import VirtioDevice
from ringfence.errors import StateError

__all__ = ["Balloon"]

F_MUST_TELL_HOST, F_STATS_VQ, F_DEFLATE_ON_OOM, F_PAGE_POISON, F_PAGE_REPORTING = 1, 2, 4, 16, 32
_INFLATE, _DEFLATE, _STATS = 0, 1, 2
_PAGE = 4096
_QUEUE_SIZE = 128
#: Page numbers of one buffer that are looked at.
_MOST_PAGES = 1 << 16
#: Names of the statistics by their tags (5.5.6.3).
STATISTICS = (
    *("swap_in", "swap_out", "major_faults", "minor_faults", "free_memory", "total_memory"),
    *("available_memory", "disk_caches", "hugetlb_allocations", "hugetlb_failures"),
)


class Balloon(VirtioDevice):
    """The device.

    Args:
        deflate_on_oom: Whether the driver may take pages out when the guest runs out of memory.
        packed: Whether packed rings are offered.
    """

    DEVICE_ID: ClassVar[int] = 5
    CLASS_CODE: ClassVar[int] = 0x00FF00
    CONFIG_SIZE: ClassVar[int] = 16
    OPTIONS: ClassVar[Mapping[str, Callable[[str], Any]]] = {
        "deflate-on-oom": lambda text: text == "on"
    }

    def __init__(self, *, deflate_on_oom: bool = True, packed: bool = False) -> None:
        features = F_MUST_TELL_HOST | F_STATS_VQ | F_PAGE_REPORTING
        features |= F_DEFLATE_ON_OOM if deflate_on_oom else 0
        # Without page hinting the reporting queue is the fourth.
        super().__init__(features, [_QUEUE_SIZE] * 4, packed=packed)
        self._target = 0
        self.actual = 0
        self.returned = 0
        self.statistics: dict[str, int] = {}
        self._held: Chain | None = None
        self._listener: Callable[[dict[str, int]], None] | None = None

    def config(self) -> bytes:
        """Pages wanted, pages in the balloon (5.5.4)."""
        return self._target.to_bytes(4, "little") + self.actual.to_bytes(4, "little") + bytes(8)

    def write_config(self, offset: int, size: int, value: int) -> None:
        """The driver tells how many pages are in the balloon."""
        if offset == 4 and size == 4:
            self.actual = value

    def set_target(self, size: int) -> None:
        """Asks the driver for a balloon of ``size`` bytes."""
        self._target = min(size // _PAGE, 0xFFFFFFFF)
        self.changed()

    def request_statistics(self, listener: Callable[[dict[str, int]], None]) -> bool:
        """Asks the driver for statistics; false when it has given no buffer for them."""
        held, self._held = self._held, None
        if held is None:
            return False
        self._listener = listener
        self.give(_STATS, held)
        return True

    def stopped(self) -> None:
        """The balloon is empty again for whoever drives it next."""
        self.actual = 0
        self._held = None
        self.statistics = {}

    def available(self, index: int) -> None:
        """Pages put in, taken out or reported; statistics."""
        if index == _STATS and self.has(F_STATS_VQ):
            self.drain(index, self._statistics)
        elif index in (_INFLATE, _DEFLATE):
            self.drain(index, lambda chain: self._pages(index, chain))
        elif index == self._reporting():
            self.drain(index, self._report)

    def own_state(self) -> dict[str, Any]:
        """Target and size."""
        return {"target": self._target, "actual": self.actual}

    def restore_own(self, state: dict[str, Any]) -> None:
        """Takes them."""
        target, actual = state.get("target"), state.get("actual")
        for value in (target, actual):
            if type(value) is not int or not 0 <= value <= 0xFFFFFFFF:
                raise StateError("Balloon: target or size is not a number of pages")
        assert isinstance(target, int)
        assert isinstance(actual, int)
        self._target, self.actual = target, actual
        self._held = None

    def _reporting(self) -> int:
        """The queue of reported pages follows those that were negotiated."""
        if not self.has(F_PAGE_REPORTING):
            return -1
        return 3 if self.has(F_STATS_VQ) else 2

    def _pages(self, index: int, chain: Chain) -> int:
        """Page numbers of 32 bits each; runs of them go back to the host at once."""
        size = min(chain.readable // 4, _MOST_PAGES) * 4
        data = chain.read(0, size)
        if index == _INFLATE:
            pages = sorted(
                {int.from_bytes(data[at : at + 4], "little") for at in range(0, size, 4)}
            )
            start = end = -1
            for page in pages:
                if page == end:
                    end += 1
                    continue
                if end > start:
                    self._discard(start * _PAGE, (end - start) * _PAGE)
                start, end = page, page + 1
            if end > start:
                self._discard(start * _PAGE, (end - start) * _PAGE)
        return 0

    def _report(self, chain: Chain) -> int:
        """Free pages, as the writable parts of a buffer (5.5.6.7)."""
        for address, length in chain.segments():
            self._discard(address, length)
        return 0

    def _statistics(self, chain: Chain) -> int | None:
        """Keeps the buffer until statistics are asked for again."""
        data = chain.read(0, min(chain.readable, 10 * 64))
        for at in range(0, len(data) - 9, 10):
            tag = int.from_bytes(data[at : at + 2], "little")
            if tag < len(STATISTICS):
                value = int.from_bytes(data[at + 2 : at + 10], "little")
                self.statistics[STATISTICS[tag]] = value
        self._held = chain
        listener, self._listener = self._listener, None
        if listener is not None:
            listener(dict(self.statistics))
        return None

    def _discard(self, address: int, size: int) -> None:
        self.returned += self.rings.discard(address, size)
