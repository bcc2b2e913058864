"""The PCI bus in the DSDT: root bridge, interrupt links, routes.

Source: ACPI specification 6.5, section 6.2.13 (_PRT), 6.2.12 (_PRS), 6.1.5 (_HID); the links are
PNP0C0F devices, behind which an operating system programs the router's registers.
"""

from ringfence.firmware.acpi.aml import (
    address_space,
    device,
    dword_field,
    eisa_id,
    field,
    integer,
    interrupts,
    io,
    logical_and,
    memory32,
    method,
    name,
    package,
    path,
    pci_config,
    resources,
    returned,
    stored,
    when,
)
from ringfence.firmware.acpi.hardware import PciRoot

__all__ = ["devices"]

_LINKS = "ABCDEFGH"
_GROUP = 4
_ADDRESS, _DATA, _MECHANISM = 0xCF8, 0xCFC, 8
#: Bit 7 of a route register switches the route off.
_OFF = 0x80
#: Where the number lies in an extended interrupt descriptor.
_NUMBER = 5
#: One thread at a time: the method names objects.
_SERIALIZED = 8
_ARGUMENT0 = b"\x68"


def devices(root: PciRoot) -> list[bytes]:
    """Root bridge and links, for the scope ``_SB``."""
    crs = [address_space("bus", 0, 255, bits=16), io(_ADDRESS, _MECHANISM)]
    crs += [address_space("io", first, last, bits=16) for first, last in root.io]
    crs += [
        address_space("memory", first, last, bits=32 if last < 1 << 32 else 64)
        for first, last in root.memory
    ]
    express = root.ecam is not None
    identity = [name("_HID", eisa_id("PNP0A08" if express else "PNP0A03"))]
    if express:
        identity.append(name("_CID", eisa_id("PNP0A03")))
    routes = [
        package(
            [
                integer(number << 16 | 0xFFFF),
                integer(pin),
                path(f"\\_SB.LNK{_LINKS[line]}"),
                integer(0),
            ]
        )
        for number, lines in enumerate(root.wiring)
        for pin, line in enumerate(lines)
    ]
    registers: list[bytes] = []
    for first in range(0, len(root.routes), _GROUP):
        region = f"PIR{_LINKS[first]}"
        units = [f"PRQ{link}" for link in _LINKS[first : first + _GROUP]]
        registers += [pci_config(region, root.routes[first], _GROUP), field(region, *units)]
    bridge = device(
        "ISA",
        name("_ADR", integer(root.router << 16)),
        *registers,
    )
    found = [
        device(
            "PCI0",
            *identity,
            name("_UID", integer(0)),
            name("_CRS", resources(*crs)),
            name("_PRT", package(routes)),
            bridge,
        )
    ]
    if root.ecam is not None:
        # Reserved here, as the PCI firmware specification asks (section 4.1.2).
        found.append(
            device(
                "ECAM",
                name("_HID", eisa_id("PNP0C02")),
                name("_UID", integer(1)),
                name("_CRS", resources(memory32(root.ecam, 256 << 20))),
            )
        )
    found += [_link(index, root) for index in range(len(root.routes))]
    return found


def _link(index: int, root: PciRoot) -> bytes:
    """An interrupt link: what can be chosen, what is chosen, a choice, none."""
    register = path(f"\\_SB.PCI0.ISA.PRQ{_LINKS[index]}")
    return device(
        f"LNK{_LINKS[index]}",
        name("_HID", eisa_id("PNP0C0F")),
        name("_UID", integer(index + 16)),
        name("_PRS", resources(interrupts(*root.interrupts))),
        method(
            "_STA",
            0,
            when(logical_and(register, integer(_OFF)), returned(integer(0x09))),
            returned(integer(0x0B)),
        ),
        method("_DIS", 0, stored(integer(_OFF), register)),
        name("BUF", resources(interrupts(0))),
        method(
            "_CRS",
            _SERIALIZED,
            dword_field(path("BUF"), _NUMBER, "NUM"),
            stored(logical_and(register, integer(0x0F)), path("NUM")),
            returned(path("BUF")),
        ),
        method(
            "_SRS",
            _SERIALIZED | 1,
            dword_field(_ARGUMENT0, _NUMBER, "NUM"),
            stored(path("NUM"), register),
        ),
    )
