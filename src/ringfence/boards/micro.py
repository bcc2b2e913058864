"""A machine for guests that know they are virtualized: virtio, serial lines, nothing older.

No PCI bus, no firmware, no keyboard, clock or timer chip of a PC: the kernel is entered directly
(PVH where it has that entry), finds virtio devices by ACPI, and takes its time from the processor.
The interrupt hardware is the engine's.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ringfence.boards import pc_layout as layout
from ringfence.boards.pc import HostEnds
from ringfence.bus import Device, Line, MmioBus, PortBus, SharedLine, State
from ringfence.config import DeviceConfig
from ringfence.devices.catalog import load_function
from ringfence.devices.chipset.reset import RESET_VALUE, ResetControl
from ringfence.devices.chipset.sleep import SLP_TYP_S5, SleepControl
from ringfence.devices.debug.exit import DebugConsole, DebugExit
from ringfence.devices.serial.uart16550 import Uart16550
from ringfence.devices.virtio.block import Block
from ringfence.devices.virtio.device import VirtioDevice
from ringfence.devices.virtio.mmio import VirtioMmio
from ringfence.devices.virtio.pci import VirtioPci
from ringfence.errors import ConfigError, StateError
from ringfence.firmware import direct
from ringfence.firmware.acpi import SerialLine
from ringfence.firmware.acpi.reduced import ReducedHardware, VirtioPlace, build_reduced
from ringfence.firmware.boot import BootPlan

__all__ = ["Micro"]

#: Where virtio devices sit, a page each, and the interrupts that they get, in order.
VIRTIO, VIRTIO_SIZE = 0xD0000000, 0x1000
VIRTIO_GSIS = (5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
SLEEP = 0x600


class _NoDrives:
    """There is no drive whose medium could change."""

    def insert(self, name: str, queue: object) -> None:  # noqa: ARG002
        """Refuses.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"the board micro has no drive {name} whose medium can change")

    def press_eject(self, name: str) -> bool:  # noqa: ARG002
        """There is no button."""
        return False


class _NoButtons:
    """There is no power button."""

    def press_power_button(self) -> None:
        """Nothing hears of it."""


class _Placed(NamedTuple):
    device: VirtioMmio
    place: VirtioPlace


class Micro:
    """Devices and buses of one machine.

    Args:
        ends: What the board is joined to.
        memory: Bytes of guest memory.
        cpus: Virtual processors.
        devices: More devices: virtio ones.

    Raises:
        ConfigError: a device can't be on this board.
    """

    def __init__(
        self, ends: HostEnds, *, memory: int, cpus: int = 1, devices: Sequence[DeviceConfig] = ()
    ) -> None:
        self.memory = memory
        self.cpus = cpus
        self.ports = PortBus()
        self.mmio = MmioBus()
        self.drives = _NoDrives()
        self.pm = _NoButtons()
        self.display = None
        self.i8042 = None
        self._lines: dict[int, SharedLine] = {}
        self._ends = ends
        self.uarts = [
            Uart16550(port, self._line(place.irq), ends.clock, flush_byte=place.flush_byte)
            for place, port in zip(layout.SERIAL, ends.serial, strict=False)
        ]
        self.debug = DebugConsole(ends.debug, ends.clock)
        self.devices: dict[str, Device] = {}
        for index, (uart, place) in enumerate(zip(self.uarts, layout.SERIAL, strict=False), 1):
            self._port(f"com{index}", place.port, uart)
        self._port("sleep", SLEEP, SleepControl(ends.power_off))
        self._port("reset-control", layout.RESET, ResetControl(ends.reset))
        self._port("debug-exit", layout.DEBUG_EXIT, DebugExit(ends.debug_exit))
        self._port("debug-console", layout.DEBUG_CONSOLE, self.debug)
        self.virtio: list[_Placed] = []
        for medium in ends.media:
            if medium.kind != "disk" or medium.queue is None:
                raise ConfigError(f"{medium.name}: the board micro has disks only")
            self._plug(medium.name, Block(medium.queue, serial=medium.name))
        for config in devices:
            self._plug(config.model, _build(config, ends))

    def reset(self) -> None:
        """Resets all devices."""
        for device in self.devices.values():
            device.reset()

    def find(self, kind: type[VirtioDevice]) -> VirtioDevice | None:
        """The first virtio device of a kind."""
        found = (entry.device.device for entry in self.virtio)
        return next((device for device in found if isinstance(device, kind)), None)

    def flush(self) -> None:
        """Hands all output that devices hold back to its host ends."""
        for uart in self.uarts:
            uart.flush()
        self.debug.flush()

    def close(self) -> None:
        """Lets go of the engine, so that its memory is free before this board is."""
        for line in self._lines.values():
            line.disconnect()

    def state(self) -> State:
        """The state of all devices, by name."""
        return {name: device.state() for name, device in self.devices.items()}

    def restore(self, state: State) -> None:
        """Takes the state of all devices.

        Raises:
            StateError: a device is missing or one too many, or its state does not fit.
        """
        if set(state) != set(self.devices):
            differing = ", ".join(sorted(set(state) ^ set(self.devices)))
            raise StateError(f"the state is of a board with other devices: {differing}")
        for name, device in self.devices.items():
            device.restore(state[name])

    def memory_ranges(self) -> list[tuple[int, int, int]]:
        """The memory to map: address, size, and where it lies in the machine's memory."""
        low = min(self.memory, layout.LOW_LIMIT)
        ranges = [(0, low, 0)]
        if self.memory > low:
            ranges.append((4 << 30, self.memory - low, low))
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
        hardware = ReducedHardware(
            cpus=self.cpus,
            local_apic=layout.LOCAL_APIC,
            io_apic=layout.IO_APIC,
            sleep_control=SLEEP,
            sleep_status=SLEEP + 1,
            slp_typ_s5=SLP_TYP_S5,
            reset_port=layout.RESET,
            reset_value=RESET_VALUE,
            serial=tuple(
                SerialLine(place.port, place.irq) for place in layout.SERIAL[: len(self.uarts)]
            ),
            virtio=tuple(entry.place for entry in self.virtio),
        )
        plan.writes.append((layout.BIOS, build_reduced(hardware, layout.BIOS)))
        return plan

    def power_on(self) -> BootPlan:
        """Refuses: there is no firmware.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("the board micro boots kernels only: give an image or a kernel")

    def _line(self, gsi: int) -> Line:
        if gsi not in self._lines:
            self._lines[gsi] = SharedLine(lambda level: self._ends.irq_line(gsi, level))
        return self._lines[gsi].driver()

    def _port(self, name: str, base: int, device: Device) -> None:
        self.devices[name] = device
        self.ports.add(base, device, name=name)

    def _plug(self, name: str, device: VirtioDevice) -> None:
        index = len(self.virtio)
        if index >= len(VIRTIO_GSIS):
            raise ConfigError(f"{name}: the board micro has {len(VIRTIO_GSIS)} devices at most")
        if self._ends.queues is None:
            raise ConfigError("a virtio device needs virtqueues, which this machine has none of")
        place = VirtioPlace(VIRTIO + index * VIRTIO_SIZE, VIRTIO_SIZE, VIRTIO_GSIS[index])
        transport = VirtioMmio(device, self._line(place.gsi), self._ends.queues, self._ends.clock)
        full = f"virtio{index}"
        self.devices[full] = transport
        self.mmio.add(place.address, transport, name=f"{full} {name}")
        self.virtio.append(_Placed(transport, place))


def _build(config: DeviceConfig, ends: HostEnds) -> VirtioDevice:
    """The device that a user describes, without the PCI function around it."""
    function = load_function(config.model)
    if not issubclass(function, VirtioPci):
        raise ConfigError(f"{config.model} is not virtio's: the board micro has no PCI bus")
    known = function.OPTIONS
    options: dict[str, Any] = {}
    for name, text in config.options.items():
        if name not in known:
            raise ConfigError(
                f"{config.model} has no option {name!r}; there are {', '.join(sorted(known))}"
            )
        try:
            options[name.replace("-", "_")] = known[name](text)
        except (ValueError, LookupError) as error:
            raise ConfigError(f"{config.model}: {name}={text}: {error}") from error
    return function.MODEL.build(ends, **options)
