"""ACPI fixed hardware: PM1a event and control blocks, PM timer, GPE0 block, SMI command port.

Source: ACPI specification 6.5, section 4.8 (fixed hardware features and register grouping) and
5.2.9 (FADT). Offsets within the block: PM1a event 0, PM1a control 4, PM timer 8, GPE0 20h. The
SMI command port (B2h) is a device of its own, for it lies elsewhere.

Left out: sleep states other than S5, which the tables don't offer; the sleep button.
"""

from collections.abc import Callable
from typing import ClassVar

from ringfence.bus import Clock, IrqLine, State, Timer, restore_fields, save_fields

__all__ = ["ACPI_DISABLE", "ACPI_ENABLE", "PM_TIMER_HZ", "SLP_TYP_S5", "AcpiPm", "SmiCommand"]

#: Frequency of the PM timer, in hertz (section 4.8.2.1).
PM_TIMER_HZ = 3_579_545
#: What the tables give as ``SLP_TYP`` of S5.
SLP_TYP_S5 = 5
#: What the guest writes to the SMI command port for ownership of the hardware, and to give it up.
ACPI_ENABLE, ACPI_DISABLE = 0xE1, 0x1E

PM1_STATUS, PM1_ENABLE, PM1_CONTROL, PM_TIMER, GPE0 = 0x00, 0x02, 0x04, 0x08, 0x20

STATUS_TIMER, STATUS_GLOBAL, STATUS_POWER, STATUS_RTC, STATUS_WAKE = 0x1, 0x20, 0x100, 0x400, 0x8000
_STATUS_BITS = STATUS_TIMER | STATUS_GLOBAL | STATUS_POWER | STATUS_RTC | STATUS_WAKE
_ENABLE_BITS = STATUS_TIMER | STATUS_GLOBAL | STATUS_POWER | STATUS_RTC
CONTROL_SCI, CONTROL_TYPE, CONTROL_SLEEP = 0x1, 0x1C00, 0x2000
_CONTROL_KEPT = CONTROL_SCI | 0x2 | CONTROL_TYPE
_NANOSECONDS = 1_000_000_000
_VERSION = 1
_FIELDS = {
    "_status": _STATUS_BITS,
    "_enable": _ENABLE_BITS,
    "_control": _CONTROL_KEPT,
    "_gpe_status": 0xFFFF,
    "_gpe_enable": 0xFFFF,
    "_half": (1 << 64) - 1,
}


class AcpiPm:
    """Power management registers.

    Args:
        sci: The system control interrupt, level-triggered.
        clock: The machine's clock.
        power_off: Called when the guest enters S5.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})
    LENGTH: ClassVar[int] = 0x24

    def __init__(self, sci: IrqLine, clock: Clock, power_off: Callable[[], None]) -> None:
        self._sci = sci
        self._clock = clock
        self._power_off = power_off
        self._timer: Timer | None = None
        self.reset()

    def reset(self) -> None:
        """Legacy mode, nothing enabled; the timer runs on."""
        self._status = self._enable = self._control = 0
        self._gpe_status = self._gpe_enable = 0
        self._half = self._ticks() >> 31
        self._update()

    def read(self, offset: int, size: int) -> int:
        """Reads any part of a register."""
        if offset == PM_TIMER and size == 4:
            return self._ticks() & 0xFFFFFFFF
        value = 0
        for index in range(size):
            value |= self._read_byte(offset + index) << 8 * index
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes any part of a register."""
        self._catch_up()
        for index in range(size):
            self._write_byte(offset + index, value >> 8 * index & 0xFF)
        # Both bytes of a control register are in before SLP_EN counts.
        if self._control & CONTROL_SLEEP:
            self._control &= ~CONTROL_SLEEP
            if self._control & CONTROL_TYPE == SLP_TYP_S5 << 10:
                self._power_off()
        self._update()

    def state(self) -> State:
        """All registers."""
        self._catch_up()
        return save_fields(self, _VERSION, _FIELDS)

    def restore(self, state: State) -> None:
        """Takes all registers; the timer follows the machine's clock."""
        restore_fields(self, state, _VERSION, _FIELDS)
        self._half = self._ticks() >> 31
        self._update()

    def set_acpi(self, enabled: bool) -> None:
        """Hands the hardware to the operating system, or takes it back (SCI_EN)."""
        self._control = self._control & ~CONTROL_SCI | (CONTROL_SCI if enabled else 0)
        self._update()

    def press_power_button(self) -> None:
        """The power button is pressed and let go."""
        self._status |= STATUS_POWER
        self._update()

    def raise_event(self, gpe: int) -> None:
        """Sets the status of general-purpose event ``gpe`` (0 to 15)."""
        self._gpe_status |= 1 << (gpe & 15)
        self._update()

    def _ticks(self) -> int:
        return self._clock.now() * PM_TIMER_HZ // _NANOSECONDS

    def _catch_up(self) -> None:
        """Sets TMR_STS when bit 31 of the timer has toggled."""
        half = self._ticks() >> 31
        if half != self._half:
            self._half = half
            self._status |= STATUS_TIMER

    def _read_byte(self, offset: int) -> int:
        if offset < PM1_CONTROL:
            self._catch_up()
            return (self._status | self._enable << 16) >> 8 * offset & 0xFF
        if offset < PM1_CONTROL + 2:
            return self._control >> 8 * (offset - PM1_CONTROL) & 0xFF
        if PM_TIMER <= offset < PM_TIMER + 4:
            return self._ticks() >> 8 * (offset - PM_TIMER) & 0xFF
        if GPE0 <= offset < GPE0 + 4:
            return (self._gpe_status | self._gpe_enable << 16) >> 8 * (offset - GPE0) & 0xFF
        return 0xFF if offset >= PM_TIMER + 4 else 0

    def _write_byte(self, offset: int, value: int) -> None:
        if offset < PM1_ENABLE:
            # Status bits are cleared by writing a one.
            self._status &= ~(value << 8 * offset)
        elif offset < PM1_CONTROL:
            self._enable = _merge(self._enable, offset - PM1_ENABLE, value) & _ENABLE_BITS
        elif offset < PM1_CONTROL + 2:
            merged = _merge(self._control, offset - PM1_CONTROL, value)
            # SCI_EN is the firmware's: the guest changes it by the SMI command port.
            kept = merged & (_CONTROL_KEPT | CONTROL_SLEEP) & ~CONTROL_SCI
            self._control = kept | self._control & CONTROL_SCI
        elif GPE0 <= offset < GPE0 + 2:
            self._gpe_status &= ~(value << 8 * (offset - GPE0))
        elif GPE0 + 2 <= offset < GPE0 + 4:
            self._gpe_enable = _merge(self._gpe_enable, offset - GPE0 - 2, value)

    def _update(self) -> None:
        """Drives the SCI, and asks to be called at the timer's next toggle if that counts."""
        pending = self._status & self._enable or self._gpe_status & self._gpe_enable
        self._sci.set(bool(pending) and bool(self._control & CONTROL_SCI))
        wanted = bool(self._enable & STATUS_TIMER) and not self._status & STATUS_TIMER
        if wanted and self._timer is None:
            toggle = ((self._ticks() >> 31) + 1 << 31) * _NANOSECONDS
            self._timer = self._clock.call_at(-(-toggle // PM_TIMER_HZ), self._toggled)
        elif not wanted and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _toggled(self) -> None:
        self._timer = None
        self._catch_up()
        self._update()


class SmiCommand:
    """APM control and status ports (B2h, B3h): here the guest asks for ACPI mode."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 2

    def __init__(self, set_acpi: Callable[[bool], None]) -> None:
        self._set_acpi = set_acpi
        self.reset()

    def reset(self) -> None:
        """Both ports read 0."""
        self._command = self._scratch = 0

    def read(self, offset: int, size: int) -> int:
        """The value written last."""
        return self._scratch if offset else self._command

    def write(self, offset: int, size: int, value: int) -> None:
        """Takes a command, or keeps the status byte."""
        if offset:
            self._scratch = value
            return
        self._command = value
        if value in (ACPI_ENABLE, ACPI_DISABLE):
            self._set_acpi(value == ACPI_ENABLE)

    def state(self) -> State:
        """Both ports."""
        return save_fields(self, _VERSION, {"_command": 0xFF, "_scratch": 0xFF})

    def restore(self, state: State) -> None:
        """Takes both ports."""
        restore_fields(self, state, _VERSION, {"_command": 0xFF, "_scratch": 0xFF})


def _merge(register: int, index: int, value: int) -> int:
    """``register`` with byte ``index`` replaced."""
    return register & ~(0xFF << 8 * index) | value << 8 * index
