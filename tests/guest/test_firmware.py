"""Machines that start as a PC does: at the reset vector, in firmware of the host's packages."""

import re

import pytest

from ringfence import VM
from ringfence.machine.firmware import find_firmware

pytestmark = pytest.mark.guest


def test_seabios_reaches_its_boot_attempt() -> None:
    with VM(firmware="bios", memory="128M", cpus=2, display="none", timeout=60) as vm:
        log = vm.firmware_log
        said = log.expect("No bootable device")
        assert re.search(r"SeaBIOS \(version", said)
        for line in (
            "Running on QEMU (i440fx)",
            "QEMU fw_cfg DMA interface supported",
            "Found 2 cpu(s)",
            "Copying SMBIOS",
            "ACPI: parse DSDT",
            "Using pmtimer",
            "PS2 keyboard initialized",
        ):
            assert line in said
        assert "SeaBIOS" in vm.console.tail(), "without a display, the screen is on the serial line"


def test_there_is_firmware_to_find() -> None:
    bios, uefi = find_firmware("bios", None)(), find_firmware("uefi", None)()
    assert bios.code[-2] == 0xFC, "where a BIOS says that this is an AT"
    assert bios.variables is None
    assert uefi.variables is not None
    assert uefi.variables.load()[40:44] == b"_FVH"
