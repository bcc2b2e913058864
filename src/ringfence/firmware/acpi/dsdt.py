"""The differentiated system description: the devices that can't be found by probing."""

from ringfence.firmware.acpi import pci_root
from ringfence.firmware.acpi.aml import (
    device,
    eisa_id,
    integer,
    io,
    irq,
    memory32,
    name,
    package,
    resources,
    scope,
    string,
)
from ringfence.firmware.acpi.hardware import AcpiHardware

__all__ = ["definition"]


def definition(hardware: AcpiHardware) -> bytes:
    """The definition block of a PC: processors, serial lines, clock, keyboard, soft-off."""
    devices = [_processor(index) for index in range(hardware.cpus)]
    devices += [
        _device(f"COM{index}", "PNP0501", index, io(line.port, 8), irq(line.irq))
        for index, line in enumerate(hardware.serial, 1)
    ]
    devices.append(_device("RTC", "PNP0B00", 0, io(hardware.rtc_port, 2), irq(hardware.rtc_irq)))
    if hardware.keyboard_irq is not None:
        devices.append(
            _device("KBD", "PNP0303", 0, io(0x60, 1), io(0x64, 1), irq(hardware.keyboard_irq))
        )
    if hardware.mouse_irq is not None:
        devices.append(_device("MOU", "PNP0F13", 0, irq(hardware.mouse_irq)))
    # Ports of the mainboard, so that no driver takes them for free.
    devices.append(
        _device(
            "MBRD",
            "PNP0C02",
            0,
            io(hardware.pm1_event, 4),
            io(hardware.pm1_control, 2),
            io(hardware.pm_timer, 4),
            io(hardware.gpe0, 4),
            io(hardware.smi_command, 2),
        )
    )
    if hardware.parallel is not None:
        line = hardware.parallel
        devices.append(_device("LPT1", "PNP0400", 1, io(line.port, 3), irq(line.irq)))
    if hardware.hpet is not None:
        devices.append(_device("HPET", "PNP0103", 0, memory32(hardware.hpet, 0x400)))
    if hardware.pci is not None:
        devices += pci_root.devices(hardware.pci)
    sleep = integer(hardware.slp_typ_s5)
    return name("\\_S5", package([sleep, sleep, integer(0), integer(0)])) + scope("\\_SB", *devices)


def _processor(index: int) -> bytes:
    """A processor device, tied to its local APIC by ``_UID``."""
    return device(f"C{index:03X}", name("_HID", string("ACPI0007")), name("_UID", integer(index)))


def _device(path: str, hid: str, uid: int, *descriptors: bytes) -> bytes:
    """A device that is always there, with fixed resources."""
    return device(
        path,
        name("_HID", eisa_id(hid)),
        name("_UID", integer(uid)),
        name("_STA", integer(0x0F)),
        name("_CRS", resources(*descriptors)),
    )
