"""An AHCI controller as Intel's I/O controller hub 9 has it, with six ports.

Sources: Serial ATA AHCI 1.3, chapter 3 (registers); Intel I/O controller hub 9 data sheet
(316972-004), chapter 15 (identity). Left out: enclosure management, command completion
coalescing, and the index/data pair of ports, none of which the capabilities offer.
"""

from collections.abc import Sequence
from typing import ClassVar

from ringfence.bus import State
from ringfence.devices.ahci import port as regs
from ringfence.devices.ahci.port import AhciPort
from ringfence.devices.disk.taskfile import Drive
from ringfence.devices.ide import saved
from ringfence.devices.pci.function import PciDevice, PciIdentity
from ringfence.errors import StateError

__all__ = ["PORTS", "AhciController"]

PORTS = 6
_SLOTS = 32
_CAP, _GHC, _IS, _PI, _VS = 0x00, 0x04, 0x08, 0x0C, 0x10
_PORTS_AT, _PORT_SIZE = 0x100, 0x80
# Global host control.
_RESET, _INTERRUPTS, _AHCI = 1 << 0, 1 << 1, 1 << 31
#: 64-bit addresses, NCQ, command list override, second generation, AHCI only, 32 slots.
_CAPABILITIES = 1 << 31 | 1 << 30 | 1 << 24 | 2 << 20 | 1 << 18 | (_SLOTS - 1) << 8 | PORTS - 1
_VERSION = 0x00010300


class _Registers:
    """What is behind the base register."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({4})
    LENGTH: ClassVar[int] = 0x1000

    def __init__(self, controller: "AhciController") -> None:
        self._controller = controller

    def reset(self) -> None:
        """The function resets them."""

    def read(self, offset: int, size: int) -> int:
        """Reads a register."""
        return self._controller.read(offset)

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a register."""
        self._controller.write(offset, value)

    def state(self) -> State:
        """The function's."""
        return {}

    def restore(self, state: State) -> None:
        """The function's."""


class AhciController(PciDevice):
    """The controller.

    Args:
        drives: What hangs on its ports, in order; ``None`` leaves a port empty.
    """

    def __init__(self, drives: Sequence[Drive | None]) -> None:
        super().__init__(PciIdentity(0x8086, 0x2922, 0x010601, revision=2), pin=1)
        self.add_bar(5, _Registers(self), size=0x1000, name="ahci")
        self.add_msi()
        self._control = _AHCI
        self._level = False
        self.processing = False
        padded = [*drives, *[None] * (PORTS - len(drives))]
        self.ports = [AhciPort(self, number, drive) for number, drive in enumerate(padded)]

    def reset(self) -> None:
        """Ports and registers as after power-on."""
        self._reset_ports()
        for port in self.ports:
            port.registers[0:4] = [0] * 4
        super().reset()

    def read(self, offset: int) -> int:
        """Reads a register of the controller or of a port."""
        if offset >= _PORTS_AT:
            number, at = divmod(offset - _PORTS_AT, _PORT_SIZE)
            return self.ports[number].read(at >> 2) if number < PORTS else 0
        if offset == _CAP:
            return _CAPABILITIES
        if offset == _GHC:
            return self._control
        if offset == _IS:
            return self._status()
        if offset == _PI:
            return (1 << PORTS) - 1
        return _VERSION if offset == _VS else 0

    def write(self, offset: int, value: int) -> None:
        """Writes a register of the controller or of a port."""
        if offset >= _PORTS_AT:
            number, at = divmod(offset - _PORTS_AT, _PORT_SIZE)
            if number < PORTS:
                self.processing = True
                try:
                    self.ports[number].write(at >> 2, value)
                finally:
                    self.processing = False
        elif offset == _GHC:
            if value & _RESET:
                self._reset_ports()
            else:
                self._control = _AHCI | value & _INTERRUPTS
                self.update()
        elif offset == _IS:
            # A port whose cause goes on sets its bit again at once.
            self.update(acknowledged=True)

    def update(self, *, acknowledged: bool = False) -> None:
        """Drives the interrupt: by message when a cause rises, and by the pin."""
        level = bool(self._control & _INTERRUPTS and self._status())
        if level and (not self._level or acknowledged):
            self.notify()
        self._level = level
        self.set_irq(level)

    def settle(self) -> None:
        """Waits for what the host does for the drives."""
        for port in self.ports:
            port.settle()

    def cancel(self) -> None:
        """Ends all commands."""
        for port in self.ports:
            port.cancel()

    def state(self) -> State:
        """Configuration space, controller, ports and drives."""
        self.settle()
        state = super().state()
        state["control"] = self._control
        for number, port in enumerate(self.ports):
            state[f"port{number}"] = list(port.registers)
            state[f"drive{number}"] = saved.drive_state(port.drive)
        return state

    def restore(self, state: State) -> None:
        """Takes them."""
        control = state.get("control")
        if type(control) is not int or control & ~(_AHCI | _INTERRUPTS) or control < 0:
            raise StateError("AhciController: 'control' is not valid")
        ports: list[list[int]] = []
        for number, port in enumerate(self.ports):
            values = state.get(f"port{number}")
            if (
                not isinstance(values, list)
                or len(values) != 32
                or not all(type(v) is int and 0 <= v < 1 << 32 for v in values)
            ):
                raise StateError(f"AhciController: 'port{number}' is not the state of a port")
            ports.append(values)
            saved.check_drive(port.drive, state.get(f"drive{number}"), f"drive {number}")
        own = {"control", *(f"{kind}{n}" for kind in ("port", "drive") for n in range(PORTS))}
        self.cancel()
        super().restore({key: value for key, value in state.items() if key not in own})
        self._control = control
        for number, port in enumerate(self.ports):
            port.registers[:] = ports[number]
            saved.restore_drive(port.drive, state[f"drive{number}"])
        self._level = bool(self._control & _INTERRUPTS and self._status())

    def _status(self) -> int:
        """Ports with an enabled cause."""
        return sum(
            1 << port.number
            for port in self.ports
            if port.registers[regs.IS] & port.registers[regs.IE]
        )

    def _reset_ports(self) -> None:
        self._control = _AHCI
        for port in self.ports:
            port.reset()
        self.update()
