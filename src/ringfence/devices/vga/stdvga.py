"""The VGA as a PCI function, as the "standard VGA" of Bochs and QEMU has it.

Source: QEMU's specification of its standard VGA (docs/specs/standard-vga): vendor 1234h, device
1111h; base register 0 the video memory, 2 registers in memory (the monitor's identification at
0, VGA ports from 3C0h on at 400h, the display interface at 500h, two of QEMU's own at 600h); the
expansion ROM holds the VGA BIOS. The VGA's own ports and memory window are decoded while the
command register lets the function decode at all.
"""

from typing import Any, ClassVar, NamedTuple, Self

from ringfence.bus import MemoryMap, Region, State, Window
from ringfence.bus.contracts import Clock
from ringfence.bus.screen import TextPage
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.pci.function import PciDevice, PciIdentity
from ringfence.devices.vga import dispi
from ringfence.devices.vga.edid import edid
from ringfence.devices.vga.vga import BASE, Vga, VgaWindow
from ringfence.errors import StateError
from ringfence.units import parse_size

__all__ = ["StdVga"]

_COMMAND, _COMMAND_IO, _COMMAND_MEMORY = 0x04, 1, 2
_DISPI_PORT = 0x1CE
#: Ports of a VGA: first and how many. Those between are a parallel port's, or nobody's.
_PORTS = ((0x3B4, 2), (0x3BA, 1), (0x3C0, 16), (0x3D4, 2), (0x3DA, 1))
_EDID, _VGA_PORTS, _DISPI, _EXTENSION = 0x000, 0x400, 0x500, 0x600
_LITTLE_ENDIAN = 0x1E1E1E1E
_MEMORY = 16 << 20
_TEXT_SIZE = 0x8000


class StdVga(PciDevice):
    """The function.

    Args:
        clock: Time, by which cursor and characters blink.
        memory: Bytes of video memory: a power of two, 256 KiB to 256 MiB.
        rom: The VGA BIOS; without one the function has no expansion ROM.
        memory_map: Where the window at A0000h is mapped while it is plain memory.
    """

    OPTIONS: ClassVar[Any] = {"memory": parse_size}

    def __init__(
        self,
        clock: Clock,
        memory: int = _MEMORY,
        rom: bytes = b"",
        memory_map: MemoryMap | None = None,
    ) -> None:
        super().__init__(PciIdentity(0x1234, 0x1111, 0x030000, 2, 0x1AF4, 0x1100))
        self.vga = Vga(clock, memory)
        self._map = memory_map
        #: What is mapped at the window now.
        self._shown: _Shown | None = None
        self.add_bar(
            0,
            _Framebuffer(self.vga),
            size=memory,
            prefetchable=True,
            memory=self.vga.video.memory,
            log_dirty=True,
        )
        self.add_bar(2, _Registers(self.vga), size=0x1000)
        if rom:
            self.add_rom(rom)
        for first, count in _PORTS:
            self._add_ports(f"vga {first:x}", first, count, _Ports(self.vga, first - BASE))
        self._add_ports("vga dispi", _DISPI_PORT, 3, _DispiPorts(self.vga))
        self.add_window(
            Window("vga memory", "memory", VgaWindow.LENGTH, VgaWindow(self.vga.video)),
            lambda: VgaWindow.ADDRESS if self._decodes(_COMMAND_MEMORY) else None,
        )
        self.vga.on_window.append(self._show_window)
        self._show_window()

    def reset(self) -> None:
        """Power-on state; the memory keeps its contents."""
        self.vga.reset()
        super().reset()
        self._decode()

    def state(self) -> State:
        """Configuration space, registers and memory."""
        return super().state() | {"vga": self.vga.state()}

    def restore(self, state: State) -> None:
        """Takes them."""
        vga = state.get("vga")
        if not isinstance(vga, dict):
            raise StateError("StdVga: the state of the VGA is missing")
        before = super().state()
        super().restore({key: value for key, value in state.items() if key != "vga"})
        # What is mapped would be newer than what is restored.
        self._hide_window()
        try:
            self.vga.restore(vga)
        except StateError:
            super().restore(before)
            raise

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:
        """Makes one for the machine's clock."""
        return cls(context.clock, **options)

    def config_written(self, offset: int, size: int) -> None:
        """The command register says what is decoded."""
        if offset < _COMMAND + 2 and offset + size > _COMMAND:
            self._decode()

    def restored(self) -> None:
        """The command register is another."""
        self._decode()

    def set_mode(self, width: int, height: int, depth: int) -> tuple[int, int]:
        """Shows a linear framebuffer, as a BIOS does; gives its address and its pitch in bytes."""
        self.vga.set_linear_mode(width, height, depth)
        return self.bars[0].window.address or 0, self.vga.dispi.pitch

    # The surface.

    def stamp(self) -> object:
        """Changes when the picture may have."""
        return self.vga.stamp()

    def plan(self, *, steady: bool = False) -> tuple[Any, Any]:
        """How the picture is drawn as it is now."""
        return self.vga.plan(steady=steady)

    def text(self) -> TextPage | None:
        """The characters, if a text mode is shown."""
        return self.vga.text()

    def _add_ports(self, name: str, first: int, count: int, device: Region) -> None:
        self.add_window(
            Window(name, "io", count, device),
            lambda: first if self._decodes(_COMMAND_IO) else None,
        )

    def _decodes(self, what: int) -> bool:
        return bool(self.register(_COMMAND, 2) & what)

    def _decode(self) -> None:
        self.vga.video.set_decode(self._decodes(_COMMAND_IO), self._decodes(_COMMAND_MEMORY))
        self._show_window()

    def _show_window(self) -> None:
        """Maps memory where the window is plain memory now, so that no access leaves the guest."""
        if self._map is None:
            return
        video = self.vga.video
        wanted: _Shown | None = None
        if (text := video.direct_text()) is not None:
            wanted = _Shown(text, _TEXT_SIZE, 0, True)
        elif (direct := video.direct()) is not None:
            wanted = _Shown(*direct, False)
        if wanted == self._shown:
            return
        self._hide_window()
        # From here on every change of a register comes to Python: the map may have to follow.
        video.set_watched(wanted is not None)
        self._shown = wanted
        if wanted is None:
            return
        memory = video.memory
        if wanted.text:
            video.enter_text()
            memory = video.text_memory
        self._map.map(
            wanted.address, memory, offset=wanted.offset, size=wanted.size, log_dirty=True
        )

    def _hide_window(self) -> None:
        """Takes away what is mapped."""
        shown, self._shown = self._shown, None
        if shown is not None and self._map is not None:
            self._map.unmap(shown.address, shown.size)
            if shown.text:
                self.vga.video.sync_text(leave=True)


class _Shown(NamedTuple):
    """What is mapped at the window."""

    address: int
    size: int
    offset: int
    #: The text memory, not the video memory.
    text: bool


class _Ports:
    """Some ports of a VGA."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})

    def __init__(self, vga: Vga, offset: int) -> None:
        self._vga = vga
        self._offset = offset

    def read(self, offset: int, size: int) -> int:
        return self._vga.read(self._offset + offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._vga.write(self._offset + offset, size, value)


class _DispiPorts:
    """Index and data of the display interface; the data also at the next even port."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({2})

    def __init__(self, vga: Vga) -> None:
        self._vga = vga

    def read(self, offset: int, size: int) -> int:
        return self._vga.dispi_read() if offset else self._vga.dispi.index

    def write(self, offset: int, size: int, value: int) -> None:
        if offset:
            self._vga.dispi_write(value)
        else:
            self._vga.dispi.index = value


class _Registers:
    """The registers in memory."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})

    def __init__(self, vga: Vga) -> None:
        self._vga = vga
        self._edid = edid()

    def read(self, offset: int, size: int) -> int:
        if offset < _EDID + 0x100:
            block = self._edid[offset : offset + size]
            return int.from_bytes(block, "little")
        if _VGA_PORTS <= offset < _VGA_PORTS + 0x20:
            first = offset - _VGA_PORTS + 0x3C0 - BASE
            return sum(self._vga.read(first + at, 1) << 8 * at for at in range(size))
        if _DISPI <= offset < _DISPI + 2 * dispi.REGISTERS and size == 2:
            return self._vga.dispi_register(offset - _DISPI >> 1)
        if offset == _EXTENSION:
            return 8
        if offset == _EXTENSION + 4:
            return _LITTLE_ENDIAN & (1 << 8 * size) - 1
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if _VGA_PORTS <= offset < _VGA_PORTS + 0x20:
            first = offset - _VGA_PORTS + 0x3C0 - BASE
            for at in range(size):
                self._vga.write(first + at, 1, value >> 8 * at & 0xFF)
        elif _DISPI <= offset < _DISPI + 2 * dispi.REGISTERS and size == 2:
            self._vga.set_dispi_register(offset - _DISPI >> 1, value)


class _Framebuffer:
    """The video memory, for accesses that no engine makes by itself."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 8})

    def __init__(self, vga: Vga) -> None:
        self._video = vga.video

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._video.peek(offset, size), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self._video.poke(offset, value.to_bytes(size, "little"))
        self._video.memory.written(offset, size)
