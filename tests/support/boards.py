"""A board on a bench: its wires end in lists, its memory is a few objects."""

from typing import Any

from ringfence.boards import HostEnds, Pc
from ringfence.bus import NO_MEMORY
from support.fake_devices import HandClock, Port
from support.fake_engine import FakeMemory

_ENDS = {
    "a20",
    "memory_map",
    "signal_msi",
    "end",
    "firmware_log",
    "attach_video",
    "media",
    "pm_timer",
    "printer",
    "hpet",
}
_PAGE = 4096


class Mapped:
    """Memory as a guest would see it: objects at addresses, page by page."""

    def __init__(self, size: int) -> None:
        self.ram = FakeMemory(size)
        self.pages: dict[int, tuple[FakeMemory, int, bool]] = {}

    def create(self, size: int) -> FakeMemory:
        return FakeMemory(size)

    def map(
        self,
        address: int,
        memory: FakeMemory,
        *,
        offset: int = 0,
        size: int | None = None,
        readonly: bool = False,
        log_dirty: bool = False,
        replace: bool = False,
    ) -> None:
        size = memory.size - offset if size is None else size
        assert address % _PAGE == offset % _PAGE == size % _PAGE == 0
        assert offset + size <= memory.size
        for at in range(0, size, _PAGE):
            assert replace or address + at not in self.pages, "overlap"
            self.pages[address + at] = (memory, offset + at, readonly)

    def unmap(self, address: int, size: int) -> None:
        for at in range(0, size, _PAGE):
            del self.pages[address + at]

    def read(self, address: int, size: int) -> bytes | None:
        """What a guest reads within a page; ``None``: it leaves the engine."""
        page = self.pages.get(address // _PAGE * _PAGE)
        if page is None:
            return None
        at = page[1] + address % _PAGE
        return bytes(page[0].view()[at : at + size])

    def writable(self, address: int) -> bool:
        page = self.pages.get(address // _PAGE * _PAGE)
        return page is not None and not page[2]


class Bench:
    """A board and what it does."""

    def __init__(self, memory: int = 128 << 20, **options: Any) -> None:
        self.clock = HandClock()
        self.serial = [Port() for _ in range(options.pop("serial", 4))]
        self.debug = Port()
        self.lines: list[tuple[int, bool]] = []
        self.events: list[Any] = []
        dma = options.pop("dma", NO_MEMORY)
        ends = {name: options.pop(name) for name in _ENDS & set(options)}
        self.board = Pc(
            HostEnds(
                clock=self.clock,
                irq_line=lambda gsi, level: self.lines.append((gsi, level)),
                serial=self.serial,
                debug=self.debug,
                power_off=lambda: self.events.append("power-off"),
                reset=lambda: self.events.append("reset"),
                debug_exit=self.events.append,
                memory=dma,
                **ends,
            ),
            memory=memory,
            **options,
        )
