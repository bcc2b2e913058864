"""A PC as an unmodified operating system expects it: Intel 440FX with PIIX south bridge.

The interrupt hardware (PICs, PIT with port 61h, local and I/O APICs) is the engine's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from ringfence.boards import pc_layout as layout
from ringfence.boards.chipset import Chipset, I440Fx
from ringfence.boards.chipset_q35 import ICH9, Q35, SATA_FUNCTION
from ringfence.boards.firmware import (
    DEFAULT_ORDER,
    BootEntry,
    FirmwareImage,
    boot_flags,
    describe,
    order,
)
from ringfence.boards.pc_drives import AHCI_SLOT, MediumEnd, PcDrives
from ringfence.boards.plug import plug, plug_disks
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
    VirtQueues,
)
from ringfence.config import DeviceConfig
from ringfence.devices.chipset.acpi_pm import AcpiPm, SmiCommand
from ringfence.devices.chipset.fw_cfg import FwCfg
from ringfence.devices.chipset.reset import ResetControl, SystemControl
from ringfence.devices.debug.exit import DebugConsole, DebugExit
from ringfence.devices.debug.post import PostCodes
from ringfence.devices.input.i8042 import I8042
from ringfence.devices.parallel.spp import ParallelPort
from ringfence.devices.pci.assign import assign
from ringfence.devices.pci.function import PciDevice
from ringfence.devices.pci.mechanism import PciConfig
from ringfence.devices.pci.pci_bus import PciBus
from ringfence.devices.serial.uart16550 import Uart16550
from ringfence.devices.timer.rtc import Rtc
from ringfence.errors import ConfigError, StateError
from ringfence.firmware import acpi, direct, reset, smbios
from ringfence.firmware.acpi import SerialLine
from ringfence.firmware.boot import BootPlan
from ringfence.firmware.e820 import RAM
from ringfence.firmware.framebuffer import Framebuffer, wanted_mode
from ringfence.firmware.linux import is_bzimage
from ringfence.units import GIB

if TYPE_CHECKING:
    from ringfence.devices.vga.stdvga import StdVga
    from ringfence.devices.virtio.device import VirtioDevice

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
    #: Takes what firmware says of itself (port 402h).
    firmware_log: CharPort | None = None
    #: Address line A20.
    a20: Callable[[bool], None] | None = None
    #: Makes virtqueues in guest memory; without it, no virtio device can be plugged in.
    queues: VirtQueues | None = None
    #: Makes the engine answer reads of the power management timer at a port itself.
    pm_timer: Callable[[int | None], None] | None = None
    #: Takes what the guest prints; without it there is no parallel port.
    printer: CharPort | None = None
    #: The engine has high precision event timers.
    hpet: bool = False


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
        firmware: What the processors start with; without it :meth:`boot` takes a kernel.
        boot_order: Kinds of media to boot from: keys of ``BOOT_CHOICES``.
        boot_menu: Firmware offers a menu of what to boot.
        q35: The chipset is a Q35 with ICH9, disks hang on SATA.

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
        firmware: FirmwareImage | None = None,
        boot_order: Sequence[str] = (),
        boot_menu: bool = False,
        q35: bool = False,
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
        self._pm_timer = ends.pm_timer
        self.boot_entries: list[BootEntry] = []
        self.rom = None
        if firmware is not None:
            from ringfence.boards.rom import Rom

            self.rom = Rom(ends.memory_map, self.mmio, firmware)
        self.chipset: Chipset = (Q35 if q35 else I440Fx)(
            self.pci_bus,
            isa,
            self.pm,
            self.rom.set_pam if self.rom is not None else None,
            (0, 0) if firmware is None else layout.FW_CFG_SUBSYSTEM,
            self._move_pm_timer,
        )
        # An operating system that is booted directly has better clocks, and sets up fewer.
        self._hpet = ends.hpet and firmware is not None
        self._a20 = ends.a20
        self._a20_closed: set[str] = set()
        self.i8042 = None
        if keyboard:
            self.i8042 = I8042(
                isa(layout.KEYBOARD_IRQ),
                ends.reset,
                self._gate("i8042"),
                clock=ends.clock,
                aux_irq=isa(layout.MOUSE_IRQ) if display else None,
            )
        self.display: StdVga | None = None
        low = self.chipset.low_limit
        below, above = min(memory, low), max(memory - low, 0)
        boot_order = boot_order or DEFAULT_ORDER
        self.drives = PcDrives(
            ends.media,
            isa,
            ends.memory,
            ends.clock,
            sata=f"{ICH9:x},{SATA_FUNCTION}" if q35 else None,
        )
        cmos = boot_flags(boot_order) | self.drives.cmos()
        placed = [
            _Placed(f"com{index}", uart, place.port)
            for index, (uart, place) in enumerate(zip(self.uarts, layout.SERIAL, strict=False), 1)
        ]
        placed += [
            _Placed("rtc", Rtc(isa(layout.RTC_IRQ), ends.clock, (below, above), cmos), layout.RTC),
            _Placed("smi-command", SmiCommand(self.pm.set_acpi), layout.SMI_COMMAND),
            _Placed("post", self.post, layout.POST),
            _Placed(
                "system-control",
                SystemControl(ends.reset, self._gate("port92")),
                layout.SYSTEM_CONTROL,
            ),
            _Placed("reset-control", ResetControl(ends.reset), layout.RESET),
            # The address register is one double word; CF9h within it is the reset register.
            _Placed("pci-config", PciConfig(self.pci_bus), layout.PCI, ((0, 1), (4, 4))),
            _Placed("debug-exit", DebugExit(ends.debug_exit), layout.DEBUG_EXIT),
            _Placed("debug-console", self.debug, layout.DEBUG_CONSOLE),
        ]
        if ends.printer is not None:
            printer = ParallelPort(ends.printer, isa(layout.PARALLEL_IRQ), ends.clock)
            placed.append(_Placed("parallel", printer, layout.PARALLEL))
        if firmware is not None:
            self.fw_cfg = FwCfg(ends.memory)
            placed.append(_Placed("fw-cfg", self.fw_cfg, layout.FW_CFG))
            if ends.firmware_log is not None:
                self.firmware_log = DebugConsole(
                    ends.firmware_log, ends.clock, layout.FIRMWARE_LOG_DELAY
                )
                placed.append(_Placed("firmware-log", self.firmware_log, layout.FIRMWARE_LOG))
        if self.i8042 is not None:
            placed.append(_Placed("i8042", self.i8042, layout.I8042, ((0, 1), (4, 1))))
        self.boot_entries += [
            BootEntry(kind, f"{self.chipset.root_path}/{path}")
            for kind, path in self.drives.boot_paths
        ]
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
        if display:
            # Imported late: most of Ringfence is testable without the extension.
            from ringfence.devices.vga import stdvga

            self.display = stdvga.StdVga(ends.clock, rom=vga_bios, memory_map=ends.memory_map)
            self.pci_bus.add(self.display, layout.DISPLAY, name="stdvga")
            ends.attach_video(self.display.vga.video)
        if self.drives.ide is not None:
            self.pci_bus.add(
                self.drives.ide, layout.SOUTH_BRIDGE, number=layout.IDE_FUNCTION, name="piix3-ide"
            )
        if self.drives.ahci is not None:
            slot, number = (ICH9, SATA_FUNCTION) if q35 else (AHCI_SLOT, 0)
            self.pci_bus.add(self.drives.ahci, slot, number=number, name="ahci")
        plug_disks(self.pci_bus, ends)
        for device in devices:
            plug(self.pci_bus, ends, device)
        if firmware is None:
            self._configure()
        else:
            self._describe(boot_order, boot_menu)

    def reset(self) -> None:
        """Resets all devices."""
        for device in self.devices.values():
            device.reset()
        self.pci_bus.reset()
        if self.rom is None:
            self._configure()

    def find(self, kind: "type[VirtioDevice]") -> "VirtioDevice | None":
        """The first virtio device of a kind."""
        from ringfence.devices.virtio.pci import VirtioPci

        for _, function in self.pci_bus.functions():
            if isinstance(function, VirtioPci) and isinstance(function.device, kind):
                return function.device
        return None

    def flush(self) -> None:
        """Hands all output that devices hold back to its host ends."""
        for uart in self.uarts:
            uart.flush()
        for entry in self.devices.values():
            if isinstance(entry, DebugConsole | ParallelPort):
                entry.flush()

    def close(self) -> None:
        """Lets go of the engine, so that its memory is free before this board is."""
        self.drives.close()
        for line in self._lines.values():
            line.disconnect()
        self._a20 = self._pm_timer = None
        self.pci_bus.close()
        if self.rom is not None:
            self.rom.close()
            self.fw_cfg.close()

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
        low = min(self.memory, self.chipset.low_limit)
        ranges = [
            (0, layout.VIDEO, 0),
            (layout.ONE_MEGABYTE, low - layout.ONE_MEGABYTE, layout.ONE_MEGABYTE),
        ]
        if self.rom is None:
            size = layout.ONE_MEGABYTE - layout.BIOS
            ranges.insert(1, (layout.BIOS, size, layout.BIOS))
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
            framebuffer=self._framebuffer(command_line) if is_bzimage(kernel) else None,
        )
        plan.writes.append((layout.BIOS, acpi.build(self._acpi_hardware(), layout.BIOS)))
        return plan

    def _framebuffer(self, command_line: str) -> Framebuffer | None:
        """Sets the mode that a directly booted kernel begins with."""
        if self.display is None:
            return None
        mode = wanted_mode(command_line)
        address, pitch = self.display.set_mode(mode.width, mode.height, mode.depth)
        return Framebuffer(mode, address, pitch)

    def power_on(self) -> BootPlan:
        """The state of the first processor with firmware, which finds its way from there."""
        return reset.plan()

    def _gate(self, name: str) -> Callable[[bool], None]:
        """One of the two gates of A20, which is open while either is."""

        def moved(is_open: bool) -> None:
            if is_open:
                self._a20_closed.discard(name)
            else:
                self._a20_closed.add(name)
            if self._a20 is not None:
                gates = 2 if self.i8042 is not None else 1
                self._a20(len(self._a20_closed) < gates)

        return moved

    def _move_pm_timer(self, port: int | None) -> None:
        if self._pm_timer is not None:
            self._pm_timer(port)

    def _acpi_hardware(self) -> acpi.AcpiHardware:
        return layout.acpi_hardware(
            self.cpus,
            serial=len(self.uarts),
            keyboard=self.i8042 is not None,
            mouse=self.i8042 is not None and self.i8042.mouse is not None,
            vga=self.display is not None,
            pci=self.chipset.pci_root(self.memory),
            pm=self.chipset.pm_base(),
        )._replace(
            hpet=layout.HPET if self._hpet else None,
            parallel=SerialLine(layout.PARALLEL, layout.PARALLEL_IRQ)
            if "parallel" in self.devices
            else None,
        )

    def _describe(self, boot_order: Sequence[str], boot_menu: bool) -> None:
        """Tells firmware what it can't find by itself."""
        ranges = layout.memory_map(self.memory, self.chipset.low_limit)
        usable = [entry for entry in ranges if entry.kind == RAM and entry.start]
        pieces = [entry._replace(start=0, size=entry.end) for entry in usable[:1]] + usable[1:]
        describe(
            self.fw_cfg,
            cpus=self.cpus,
            memory=self.memory,
            ranges=pieces,
            hardware=self._acpi_hardware,
            machine=smbios.SmbiosMachine(
                self.cpus, self.memory, [(entry.start, entry.end) for entry in pieces]
            ),
            bootorder=lambda: order(self.boot_entries, boot_order),
            menu=boot_menu,
            serial_console=layout.SERIAL[0].port if self.uarts and self.display is None else None,
        )

    def _configure(self) -> None:
        """What firmware does to the PCI bus and the DMA controllers before it boots."""
        self.drives.cascade()
        self.chipset.configure()
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
            interrupt=self.chipset.interrupt,
        )
