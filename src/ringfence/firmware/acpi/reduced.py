"""ACPI tables of a machine without legacy hardware (ACPI 6.4, section 4.1: hardware-reduced).

Sleep goes through a control and a status register of one byte, interrupts through the I/O APIC
alone; virtio devices are found by the identifier LNRO0005, with their registers and interrupt.
"""

from struct import pack, pack_into
from typing import NamedTuple

from ringfence.firmware.acpi.aml import (
    device,
    eisa_id,
    integer,
    interrupts,
    io,
    irq,
    memory32,
    name,
    package,
    resources,
    scope,
    string,
)
from ringfence.firmware.acpi.hardware import SerialLine
from ringfence.firmware.acpi.tables import _address, _table, rsdp

__all__ = ["ReducedHardware", "VirtioPlace", "build_reduced"]

_HEADER, _RSDP_ROOM = 36, 64
# FADT flags (table 5.10): WBINVD, C1, no buttons, reset register, hardware-reduced.
_FLAGS = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 10 | 1 << 20
# Boot architecture flags (table 5.11): no VGA, no MSI (there is no PCI bus), no CMOS clock.
_BOOT = 1 << 2 | 1 << 3 | 1 << 5
_APIC_ENABLED = 1


class VirtioPlace(NamedTuple):
    """Where a virtio device sits."""

    address: int
    length: int
    gsi: int


class ReducedHardware(NamedTuple):
    """What the tables tell of the machine."""

    cpus: int
    local_apic: int
    io_apic: int
    sleep_control: int
    sleep_status: int
    slp_typ_s5: int
    reset_port: int
    reset_value: int
    serial: tuple[SerialLine, ...]
    virtio: tuple[VirtioPlace, ...]


def build_reduced(hardware: ReducedHardware, base: int) -> bytes:
    """RSDP and all tables, to be placed at ``base``, where the RSDP then lies."""
    block = bytearray()
    start = base + _RSDP_ROOM

    def place(data: bytes) -> int:
        block.extend(bytes(-len(block) % 64))
        at = start + len(block)
        block.extend(data)
        return at

    dsdt = place(_table(b"DSDT", 2, _definition(hardware)))
    entries = [place(_fadt(hardware, dsdt)), place(_madt(hardware))]
    rsdt = place(_table(b"RSDT", 1, pack("<2I", *entries)))
    xsdt = place(_table(b"XSDT", 1, pack("<2Q", *entries)))
    return rsdp(rsdt, xsdt).ljust(_RSDP_ROOM, b"\0") + bytes(block)


def _fadt(hardware: ReducedHardware, dsdt: int) -> bytes:
    table = bytearray(276)
    pack_into("<I", table, 40, dsdt)
    pack_into("<H", table, 109, _BOOT)
    pack_into("<I", table, 112, _FLAGS)
    table[116:128] = _address(hardware.reset_port, 8)
    table[128] = hardware.reset_value
    table[131] = 5
    pack_into("<Q", table, 140, dsdt)
    table[244:256] = _address(hardware.sleep_control, 8)
    table[256:268] = _address(hardware.sleep_status, 8)
    return _table(b"FACP", 6, bytes(table[_HEADER:]))


def _madt(hardware: ReducedHardware) -> bytes:
    body = bytearray(pack("<II", hardware.local_apic, 0))
    for index in range(hardware.cpus):
        body += pack("<BBBBI", 0, 8, index, index, _APIC_ENABLED)
    body += pack("<BBBBII", 1, 12, 0, 0, hardware.io_apic, 0)
    return _table(b"APIC", 4, bytes(body))


def _definition(hardware: ReducedHardware) -> bytes:
    devices = [
        device(f"C{index:03X}", name("_HID", string("ACPI0007")), name("_UID", integer(index)))
        for index in range(hardware.cpus)
    ]
    devices += [
        device(
            f"COM{index}",
            name("_HID", eisa_id("PNP0501")),
            name("_UID", integer(index)),
            name("_STA", integer(0x0F)),
            name("_CRS", resources(io(line.port, 8), irq(line.irq))),
        )
        for index, line in enumerate(hardware.serial, 1)
    ]
    devices += [
        device(
            f"VR{index:02X}",
            name("_HID", string("LNRO0005")),
            name("_UID", integer(index)),
            name("_CCA", integer(1)),
            name("_CRS", resources(memory32(place.address, place.length), interrupts(place.gsi))),
        )
        for index, place in enumerate(hardware.virtio)
    ]
    sleep = integer(hardware.slp_typ_s5)
    return name("\\_S5", package([sleep, sleep, integer(0), integer(0)])) + scope("\\_SB", *devices)
