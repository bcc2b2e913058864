"""ACPI hardware, resets and PCI configuration against their specifications."""

import pytest

from ringfence.devices.chipset.acpi_pm import PM_TIMER_HZ, AcpiPm, SmiCommand
from ringfence.devices.chipset.reset import ResetControl, SystemControl
from support.fake_devices import HandClock, Wire

SECOND = 1_000_000_000


class Bench:
    def __init__(self) -> None:
        self.clock, self.sci = HandClock(), Wire()
        self.offs = 0
        self.pm = AcpiPm(self.sci, self.clock, self._off)

    def _off(self) -> None:
        self.offs += 1


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_soft_off(bench: Bench) -> None:
    bench.pm.write(4, 2, 0 << 10 | 1 << 13)
    assert bench.offs == 0, "S0 is no sleep"
    bench.pm.write(4, 2, 5 << 10)
    assert bench.offs == 0, "no SLP_EN"
    bench.pm.write(4, 2, 5 << 10 | 1 << 13)
    assert bench.offs == 1
    assert bench.pm.read(4, 2) == 5 << 10, "SLP_EN reads as zero"


def test_soft_off_by_bytes(bench: Bench) -> None:
    bench.pm.write(5, 1, (5 << 10 | 1 << 13) >> 8)
    assert bench.offs == 1


def test_power_button(bench: Bench) -> None:
    bench.pm.set_acpi(True)
    bench.pm.press_power_button()
    assert not bench.sci.level, "not enabled"
    bench.pm.write(2, 2, 0x100)
    assert bench.sci.level
    assert bench.pm.read(0, 2) == 0x100
    assert bench.pm.read(0, 4) == 0x0100_0100
    bench.pm.write(0, 2, 0x100)
    assert bench.pm.read(0, 2) == 0
    assert not bench.sci.level


def test_no_sci_in_legacy_mode(bench: Bench) -> None:
    bench.pm.write(2, 2, 0x100)
    bench.pm.press_power_button()
    assert not bench.sci.level
    bench.pm.set_acpi(True)
    assert bench.sci.level


def test_guest_cannot_set_sci_en(bench: Bench) -> None:
    bench.pm.write(4, 2, 1)
    assert bench.pm.read(4, 2) == 0
    smi = SmiCommand(bench.pm.set_acpi)
    smi.write(0, 1, 0xE1)
    assert bench.pm.read(4, 2) == 1
    bench.pm.write(4, 2, 0)
    assert bench.pm.read(4, 2) == 1
    smi.write(0, 1, 0x1E)
    assert bench.pm.read(4, 2) == 0
    smi.write(1, 1, 0x77)
    assert (smi.read(0, 1), smi.read(1, 1)) == (0x1E, 0x77)


def test_timer_counts_at_its_rate(bench: Bench) -> None:
    assert bench.pm.read(8, 4) == 0
    bench.clock.advance(SECOND)
    assert bench.pm.read(8, 4) == PM_TIMER_HZ
    bench.pm.write(8, 4, 0)
    assert bench.pm.read(8, 4) == PM_TIMER_HZ, "read-only"
    assert bench.pm.read(8, 1) == PM_TIMER_HZ & 0xFF
    bench.clock.advance(1199 * SECOND + SECOND)
    assert bench.pm.read(8, 4) == 1201 * PM_TIMER_HZ % 2**32


def test_timer_interrupt_at_each_toggle_of_its_top_bit(bench: Bench) -> None:
    bench.pm.set_acpi(True)
    bench.pm.write(2, 2, 1)
    toggle = (2**31 * SECOND + PM_TIMER_HZ - 1) // PM_TIMER_HZ
    bench.clock.advance(toggle - 1)
    assert not bench.sci.level
    bench.clock.advance(1)
    assert bench.sci.level
    assert bench.pm.read(8, 4) == 2**31
    bench.pm.write(0, 2, 1)
    assert not bench.sci.level
    bench.clock.advance(toggle)
    assert bench.sci.level


def test_timer_status_without_interrupt(bench: Bench) -> None:
    bench.clock.advance(700 * SECOND)
    assert bench.pm.read(0, 2) == 1
    assert bench.clock.timers == []


def test_general_purpose_events(bench: Bench) -> None:
    bench.pm.set_acpi(True)
    bench.pm.raise_event(3)
    assert bench.pm.read(0x20, 2) == 8
    bench.pm.write(0x22, 2, 8)
    assert bench.sci.level
    bench.pm.write(0x20, 2, 8)
    assert not bench.sci.level


def test_reset_control() -> None:
    resets: list[int] = []
    device = ResetControl(lambda: resets.append(1))
    device.write(0, 1, 0x02)
    assert (resets, device.read(0, 1)) == ([], 0x02)
    device.write(0, 1, 0x06)
    assert resets == [1]
    device.write(0, 1, 0x06)
    assert resets == [1], "the bit has to rise"
    device.reset()
    device.write(0, 1, 0x0E)
    assert resets == [1, 1]


def test_system_control() -> None:
    resets: list[int] = []
    gates: list[bool] = []
    device = SystemControl(lambda: resets.append(1), gates.append)
    assert device.read(0, 1) == 2
    device.write(0, 1, 0)
    device.write(0, 1, 2)
    assert gates == [False, True]
    device.write(0, 1, 3)
    assert resets == [1]
