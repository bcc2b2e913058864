"""A PC as an unmodified operating system expects it: Intel 440FX with PIIX south bridge.

The interrupt hardware (PICs, PIT with port 61h, local and I/O APICs) is the engine's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ringfence.boards import pc_layout as layout
from ringfence.boards.pc_drives import MediumEnd, PcDrives
from ringfence.boards.plug import plug
from ringfence.bus import (
    NO_MEMORY,
    AddressMap,
    CharPort,
    Clock,
    Device,
    Dma,
    Line,
    MemoryMap,
    MmioBus,
    PortBus,
    SharedLine,
    State,
)
from ringfence.config import DeviceConfig
from ringfence.devices.chipset.acpi_pm import AcpiPm, SmiCommand
from ringfence.devices.chipset.piix3 import PIRQ_ROUTE, Piix3
from ringfence.devices.chipset.piix4_pm import PM_BASE, PM_ENABLE, Piix4Pm
from ringfence.devices.chipset.reset import ResetControl, SystemControl
from ringfence.devices.debug.exit import DebugConsole, DebugExit
from ringfence.devices.debug.post import PostCodes
from ringfence.devices.input.i8042 import I8042
from ringfence.devices.pci.assign import assign
from ringfence.devices.pci.function import PciDevice
from ringfence.devices.pci.host_bridge import HostBridge
from ringfence.devices.pci.mechanism import PciConfig
from ringfence.devices.pci.pci_bus import PciBus
from ringfence.devices.serial.uart16550 import Uart16550
from ringfence.devices.timer.rtc import Rtc
from ringfence.errors import ConfigError, StateError
from ringfence.firmware import acpi, direct
from ringfence.firmware.boot import BootPlan
from ringfence.units import GIB

if TYPE_CHECKING:
    from ringfence.devices.vga.stdvga import StdVga

__all__ = ["HostEnds", "Pc"]


def _no_message(address: int, data: int) -> None:
    """Delivers nothing."""


def _no_video(video: Any) -> None:
    """Leaves the VGA to the buses."""


def _no_end(kind: str, name: str) -> Any:
    raise ConfigError(f"there is no {kind} named {name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEnds:
    """What a board is joined to."""

    clock: Clock
    #: Sets the level of a global system interrupt.
    irq_line: Callable[[int, bool], None]
    #: Host ends of COM1 to COM4, in order; fewer leave the rest out.
    serial: Sequence[CharPort]
    #: Host end of the debug console at port E9h.
    debug: CharPort
    power_off: Callable[[], None]
    reset: Callable[[], None]
    #: Called with the status that the guest writes to the debug-exit port.
    debug_exit: Callable[[int], None]
    #: Guest memory, for functions that master the PCI bus.
    memory: Dma = NO_MEMORY
    #: Where memory can be mapped while the guest runs; without it, windows are reached by exits.
    memory_map: MemoryMap | None = None
    #: Delivers an interrupt message: address and data.
    signal_msi: Callable[[int, int], None] = _no_message
    #: Disks, CD-ROMs and floppies.
    media: Sequence[MediumEnd] = ()
    #: Lets the engine serve the busiest parts of a VGA itself.
    attach_video: Callable[[Any], None] = _no_video
    #: The host end of a kind (``net``, ``disk``) and name, for devices that are plugged in.
    end: Callable[[str, str], Any] = _no_end


class _Placed(NamedTuple):
    """A device at its place."""

    name: str
    device: Device
    base: int
    #: Parts of the device as ``(offset, length)``; empty: all of it.
    parts: tuple[tuple[int, int], ...] = ()


class Pc:
    """Devices and buses of one machine.

    Args:
        ends: What the board is joined to.
        memory: Bytes of guest memory.
        cpus: Virtual processors.
        keyboard: Whether there is a keyboard controller.
        display: Whether there is a VGA, and a mouse with the keyboard.
        vga_bios: What the VGA has in its expansion ROM.
        devices: More devices.

    Raises:
        ConfigError: a device can't be made or plugged in.
    """

    def __init__(
        self,
        ends: HostEnds,
        *,
        memory: int,
        cpus: int = 1,
        keyboard: bool = True,
        display: bool = False,
        vga_bios: bytes = b"",
        devices: Sequence[DeviceConfig] = (),
    ) -> None:
        self.memory = memory
        self.cpus = cpus
        self.ports = PortBus()
        self.mmio = MmioBus()
        self._lines: dict[int, SharedLine] = {}

        def isa(irq: int) -> Line:
            # Several devices may sit on one line. IRQ 0, whose GSI differs, is the engine's own.
            if irq not in self._lines:
                self._lines[irq] = SharedLine(lambda level: ends.irq_line(irq, level))
            return self._lines[irq].driver()

        self.uarts = [
            Uart16550(port, isa(place.irq), ends.clock, flush_byte=place.flush_byte)
            for place, port in zip(layout.SERIAL, ends.serial, strict=False)
        ]
        self.pm = AcpiPm(isa(layout.SCI), ends.clock, ends.power_off)
        self.post = PostCodes()
        self.debug = DebugConsole(ends.debug, ends.clock)
        self.addresses = AddressMap(self.ports, self.mmio, ends.memory_map)
        self.pci_bus = PciBus(self.addresses, ends.memory, ends.signal_msi)
        self.piix3 = Piix3(isa)
        self.piix4_pm = Piix4Pm(self.pm)
        self.pci_bus.intx = self.piix3.set_pin
        self.i8042 = None
        if keyboard:
            self.i8042 = I8042(
                isa(layout.KEYBOARD_IRQ),
                ends.reset,
                clock=ends.clock,
                aux_irq=isa(layout.MOUSE_IRQ) if display else None,
            )
        self.display: StdVga | None = None
        below, above = min(memory, layout.LOW_LIMIT), max(memory - layout.LOW_LIMIT, 0)
        placed = [
            _Placed(f"com{index}", uart, place.port)
            for index, (uart, place) in enumerate(zip(self.uarts, layout.SERIAL, strict=False), 1)
        ]
        placed += [
            _Placed("rtc", Rtc(isa(layout.RTC_IRQ), ends.clock, (below, above)), layout.RTC),
            _Placed("smi-command", SmiCommand(self.pm.set_acpi), layout.SMI_COMMAND),
            _Placed("post", self.post, layout.POST),
            _Placed("system-control", SystemControl(ends.reset), layout.SYSTEM_CONTROL),
            _Placed("reset-control", ResetControl(ends.reset), layout.RESET),
            # The address register is one double word; CF9h within it is the reset register.
            _Placed("pci-config", PciConfig(self.pci_bus), layout.PCI, ((0, 1), (4, 4))),
            _Placed("debug-exit", DebugExit(ends.debug_exit), layout.DEBUG_EXIT),
            _Placed("debug-console", self.debug, layout.DEBUG_CONSOLE),
        ]
        if self.i8042 is not None:
            placed.append(_Placed("i8042", self.i8042, layout.I8042, ((0, 1), (4, 1))))
        self.drives = PcDrives(ends.media, isa)
        self.devices: dict[str, Device] = {"acpi-pm": self.pm}
        for entry in placed:
            self.devices[entry.name] = entry.device
            for offset, length in entry.parts or ((0, entry.device.LENGTH),):
                self.ports.add(
                    entry.base + offset,
                    entry.device,
                    name=entry.name,
                    offset=offset,
                    length=length,
                )
        self.devices |= self.drives.place(self.ports)
        self.pci_bus.add(HostBridge(), layout.HOST_BRIDGE, name="i440fx")
        self.pci_bus.add(self.piix3, layout.SOUTH_BRIDGE, name="piix3")
        self.pci_bus.add(
            self.piix4_pm, layout.SOUTH_BRIDGE, number=layout.PM_FUNCTION, name="piix4-pm"
        )
        if display:
            # Imported late: most of Ringfence is testable without the extension.
            from ringfence.devices.vga import stdvga

            self.display = stdvga.StdVga(ends.clock, rom=vga_bios, memory_map=ends.memory_map)
            self.pci_bus.add(self.display, layout.DISPLAY, name="stdvga")
            ends.attach_video(self.display.vga.video)
        self.pci_bus.add(
            self.drives.ide, layout.SOUTH_BRIDGE, number=layout.IDE_FUNCTION, name="piix3-ide"
        )
        for device in devices:
            plug(self.pci_bus, ends, device)
        self._configure()

    def reset(self) -> None:
        """Resets all devices."""
        for device in self.devices.values():
            device.reset()
        self.pci_bus.reset()
        self._configure()

    def flush(self) -> None:
        """Hands all output that devices hold back to its host ends."""
        for uart in self.uarts:
            uart.flush()
        self.debug.flush()

    def close(self) -> None:
        """Lets go of the engine, so that its memory is free before this board is."""
        self.drives.close()
        for line in self._lines.values():
            line.disconnect()
        self.pci_bus.close()

    def state(self) -> State:
        """The state of all devices, by name."""
        states = {name: device.state() for name, device in self.devices.items()}
        return states | {"pci-bus": self.pci_bus.state()}

    def restore(self, state: State) -> None:
        """Takes the state of all devices.

        Raises:
            StateError: a device is missing or one too many, or its state does not fit.
        """
        here = {*self.devices, "pci-bus"}
        if set(state) != here:
            differing = ", ".join(sorted(set(state) ^ here))
            raise StateError(f"the state is of a board with other devices: {differing}")
        for name, device in self.devices.items():
            device.restore(state[name])
        self.pci_bus.restore(state["pci-bus"])

    def memory_ranges(self) -> list[tuple[int, int, int]]:
        """The memory to map: address, size, and where it lies in the machine's memory."""
        low = min(self.memory, layout.LOW_LIMIT)
        ranges = [
            (0, layout.VIDEO, 0),
            (layout.BIOS, layout.ONE_MEGABYTE - layout.BIOS, layout.BIOS),
            (layout.ONE_MEGABYTE, low - layout.ONE_MEGABYTE, layout.ONE_MEGABYTE),
        ]
        if self.memory > low:
            ranges.append((4 * GIB, self.memory - low, low))
        return ranges

    def boot(
        self,
        kernel: bytes | memoryview,
        *,
        initrd: bytes | memoryview | None = None,
        command_line: str = "",
    ) -> BootPlan:
        """What to put into memory and the first processor to boot ``kernel``.

        Raises:
            KernelError: the kernel can't be loaded.
            InitrdError: the initial RAM disk can't be loaded.
        """
        plan = direct.plan(
            kernel,
            ranges=layout.memory_map(self.memory),
            command_line=command_line,
            initrd=initrd,
            rsdp=layout.BIOS,
        )
        hardware = layout.acpi_hardware(
            self.cpus,
            serial=len(self.uarts),
            keyboard=self.i8042 is not None,
            mouse=self.i8042 is not None and self.i8042.mouse is not None,
            vga=self.display is not None,
            pci=layout.pci_root(self.memory),
        )
        plan.writes.append((layout.BIOS, acpi.build(hardware, layout.BIOS)))
        return plan

    def _configure(self) -> None:
        """What firmware does to the PCI bus before it boots."""
        for line, irq in enumerate(layout.PCI_IRQS):
            self.piix3.config_write(PIRQ_ROUTE + line, 1, irq)
        self.piix4_pm.config_write(PM_BASE, 4, layout.PM)
        self.piix4_pm.config_write(PM_ENABLE, 1, 1)
        functions = (
            (place, entry)
            for place, entry in self.pci_bus.functions()
            if isinstance(entry, PciDevice)
        )
        assign(
            functions,
            io=layout.PCI_IO_FREE,
            memory=layout.PCI_MEMORY,
            high=layout.pci_high(self.memory),
            interrupt=lambda device, pin: layout.PCI_IRQS[(device - 1 + pin - 1) % 4],
        )
