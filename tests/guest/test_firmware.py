"""Machines that start as a PC does: at the reset vector, in firmware of the host's packages."""

import re
from pathlib import Path

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
            "Found 1 lpt ports",
        ):
            assert line in said
        assert "SeaBIOS" in vm.console.tail(), "without a display, the screen is on the serial line"


def test_there_is_firmware_to_find() -> None:
    bios, uefi = find_firmware("bios", None)(), find_firmware("uefi", None)()
    assert bios.code[-2] == 0xFC, "where a BIOS says that this is an AT"
    assert bios.variables is None
    assert uefi.variables is not None
    assert uefi.variables.load()[40:44] == b"_FVH"


def shell(vm: VM) -> None:
    """Waits for the prompt, without the pause before it: so keys arrive, too."""
    vm.console.expect("any other key", timeout=60)
    vm.console.send("\x1b")
    vm.console.expect("Shell>", timeout=30)


def test_ovmf_reaches_its_shell() -> None:
    with VM(firmware="uefi", memory="256M", display="none", timeout=120) as vm:
        shell(vm)


def test_variables_of_uefi_stay(tmp_path: Path) -> None:
    variables = tmp_path / "vars.fd"
    written = "Boot0001".encode("utf-16-le")
    for _ in range(2):
        with VM(
            firmware="uefi",
            board="q35",
            uefi_vars=variables,
            memory="256M",
            display="none",
            timeout=120,
        ) as vm:
            vm.console.expect("any other key", timeout=60)
        # Written at the first boot, found at the second.
        assert variables.read_bytes().count(written) == 1


def test_seabios_on_the_board_with_pci_express() -> None:
    with VM(firmware="bios", board="q35", memory="128M", display="none", timeout=60) as vm:
        said = vm.firmware_log.expect("No bootable device")
        for line in ("Running on QEMU (q35)", "using q35 mmconfig", "AHCI", "Using pmtimer"):
            assert line in said
