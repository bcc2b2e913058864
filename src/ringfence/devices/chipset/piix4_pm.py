"""Power management function of an Intel 82371AB (PIIX4): where its registers sit, and its SMBus.

Source: Intel 82371AB (PIIX4) data sheet (290562-001), section 7. The power management registers
themselves are :class:`~ringfence.devices.chipset.acpi_pm.AcpiPm`'s. Left out: device monitors,
and what the SMBus host controller would find: no slave is on the bus, so every transfer fails.
"""

from collections.abc import Callable
from typing import ClassVar

from ringfence.bus import State, Window, restore_fields, save_fields
from ringfence.devices.chipset.acpi_pm import AcpiPm
from ringfence.devices.pci.function import PciDevice, PciIdentity

__all__ = ["PM_BASE", "PM_ENABLE", "Piix4Pm", "SmBus"]

PM_BASE, PM_ENABLE = 0x40, 0x80
_SMBUS_BASE, _SMBUS_CONFIG = 0x90, 0xD2
_DEVICE_B, _APMC_ENABLE = 0x58, 1 << 25
_STATUS, _CONTROL = 0, 2
_HOST_BUSY, _DEVICE_ERROR = 0x01, 0x04
_START = 0x40


class SmBus:
    """Host controller of a bus with nothing on it (section 7.3)."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})
    LENGTH: ClassVar[int] = 16

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """All registers 0."""
        self._registers = bytearray(self.LENGTH)

    def read(self, offset: int, size: int) -> int:
        """Reads registers."""
        return int.from_bytes(self._registers[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes registers; a transfer ends at once, for nobody acknowledges its address."""
        for at, byte in enumerate(value.to_bytes(size, "little"), offset):
            if at == _STATUS:
                self._registers[at] &= ~byte
            elif at == _CONTROL:
                self._registers[at] = byte & ~_START
                if byte & _START:
                    self._registers[_STATUS] |= _DEVICE_ERROR
            elif at < self.LENGTH:
                self._registers[at] = byte

    def state(self) -> State:
        """All registers."""
        return save_fields(self, 1, ("_registers",))

    def restore(self, state: State) -> None:
        """Takes all registers."""
        restore_fields(self, state, 1, {"_registers": self.LENGTH})


class Piix4Pm(PciDevice):
    """The function.

    Args:
        pm: The power management registers, which it places.
        moved: Told where they are.
    """

    def __init__(self, pm: AcpiPm, moved: Callable[[int | None], None] | None = None) -> None:
        super().__init__(PciIdentity(0x8086, 0x7113, 0x068000, revision=3), pin=1)
        self.smbus = SmBus()
        self._moved = moved
        self.set_default(0x06, 0x0280, 2)
        self.set_default(PM_BASE, 1, 4)
        self.set_mask(PM_BASE, 0xFFC0, 4)
        self.set_mask(0x50, 0xFFFFFFFF, 4)
        self.set_mask(0x54, 0xFFFFFFFF, 4)
        # Firmware takes APMC_EN, when it is set, for SMM that is set up: there is none to set up.
        self.set_default(_DEVICE_B, _APMC_ENABLE, 4)
        self.set_mask(_DEVICE_B, 0xFFFFFFFF, 4)
        self.set_mask(0x5C, 0xFFFFFFFF, 4)
        self.set_mask(0x60, 0xFFFFFFFF, 4)
        self.set_mask(PM_ENABLE, 0x01, 1)
        self.set_default(_SMBUS_BASE, 1, 4)
        self.set_mask(_SMBUS_BASE, 0xFFF0, 4)
        self.set_mask(_SMBUS_CONFIG, 0x0F, 1)
        self.add_window(Window("acpi-pm", "io", pm.LENGTH, pm), self._pm_base)
        self.add_window(Window("smbus", "io", SmBus.LENGTH, self.smbus), self._smbus_base)

    def reset(self) -> None:
        """Nothing is placed."""
        self.smbus.reset()
        super().reset()

    def state(self) -> State:
        """The function and its SMBus host controller."""
        return super().state() | {"smbus": self.smbus.state()}

    def restore(self, state: State) -> None:
        """Takes both."""
        before = self.smbus.state()
        self.smbus.restore(state.get("smbus") or {})
        try:
            super().restore(state)
        except Exception:
            self.smbus.restore(before)
            raise

    def _pm_base(self) -> int | None:
        base = self.register(PM_BASE, 2) & 0xFFC0
        place = base if base and self.register(PM_ENABLE, 1) & 1 else None
        if self._moved is not None:
            self._moved(place)
        return place

    def _smbus_base(self) -> int | None:
        base = self.register(_SMBUS_BASE, 2) & 0xFFF0
        return base if base and self.register(_SMBUS_CONFIG, 1) & 1 else None
