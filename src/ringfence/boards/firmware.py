"""What firmware is told by fw_cfg: memory, processors, tables, what to boot."""

from collections.abc import Callable, Sequence
from struct import pack
from typing import TYPE_CHECKING, NamedTuple

from ringfence.devices.chipset import fw_cfg
from ringfence.devices.chipset.fw_cfg import FwCfg
from ringfence.firmware import acpi, smbios
from ringfence.firmware.acpi.loader import RSDP_FILE, TABLES_FILE
from ringfence.firmware.e820 import MemoryRange

if TYPE_CHECKING:
    from ringfence.devices.flash.cfi import FlashStore

__all__ = [
    "BOOT_CHOICES",
    "DEFAULT_ORDER",
    "BootEntry",
    "FirmwareImage",
    "boot_flags",
    "describe",
    "order",
]

#: Kinds of media that ``--boot`` can name, with the digits by which CMOS memory names them.
BOOT_CHOICES = {"floppy": 1, "disk": 2, "cdrom": 3, "net": 4}
#: What is booted from unless something else is asked for.
DEFAULT_ORDER = ("disk", "cdrom", "floppy", "net")
#: States of the ACPI that firmware offers: S3 and S4 are not there, S5 has type 5.
_SYSTEM_STATES = bytes([128, 0, 0, 1, 2, 128 | 5])
_MENU_WAIT = 3000


class FirmwareImage(NamedTuple):
    """Firmware to boot from."""

    #: Ends at 4 GiB.
    code: bytes
    #: The flash below it, where UEFI keeps its variables.
    variables: "FlashStore | None" = None


class BootEntry(NamedTuple):
    """Something to boot from."""

    #: One of :data:`BOOT_CHOICES`.
    kind: str
    #: Its path as Open Firmware names it.
    path: str


def boot_flags(wanted: Sequence[str]) -> dict[int, int]:
    """The boot order in CMOS memory: bytes by their index (as Bochs has them)."""
    digits = [BOOT_CHOICES[kind] for kind in wanted if kind in BOOT_CHOICES][:3]
    digits += [0] * (3 - len(digits))
    # Bit 0 of byte 38h switches the test of a floppy's signature off.
    return {0x3D: digits[0] | digits[1] << 4, 0x38: digits[2] << 4}


def order(entries: Sequence[BootEntry], wanted: Sequence[str]) -> bytes:
    """The file ``bootorder``: paths, a line each, those of the kinds that are wanted."""
    lines = [entry.path for kind in wanted for entry in entries if entry.kind == kind]
    return "".join(f"{line}\n" for line in lines).encode() + b"\0" if lines else b""


def describe(
    device: FwCfg,
    *,
    cpus: int,
    memory: int,
    ranges: Sequence[MemoryRange],
    hardware: Callable[[], acpi.AcpiHardware],
    machine: smbios.SmbiosMachine,
    bootorder: Callable[[], bytes],
    menu: bool,
    serial_console: int | None,
) -> None:
    """Fills the device.

    Args:
        device: What to fill.
        cpus: Processors.
        memory: Bytes of memory.
        ranges: The memory map.
        hardware: Asked for what the ACPI tables tell when firmware reads them, for by then it has
            moved some of it.
        machine: What the SMBIOS tables tell.
        bootorder: The file of that name, which is empty when there is nothing to say.
        menu: Whether to offer a menu of what to boot.
        serial_console: Port of a serial line that is to show the screen.
    """
    number = fw_cfg
    device.add(number.RAM_SIZE, pack("<Q", memory))
    device.add(number.NO_GRAPHIC, pack("<H", serial_console is not None))
    device.add(number.CPUS, pack("<H", cpus))
    device.add(number.MAX_CPUS, pack("<H", cpus))
    device.add(number.UUID, machine.uuid)
    device.add(number.NUMA, bytes(8 + 8 * cpus))
    device.add(number.BOOT_MENU, pack("<H", menu))
    device.add(number.X86_IRQ0_OVERRIDE, pack("<I", 1))
    e820 = b"".join(pack("<QQI", entry.start, entry.size, entry.kind) for entry in ranges)
    device.add_file("etc/e820", e820)
    device.add_file("etc/system-states", _SYSTEM_STATES)
    device.add_file("bootorder", bootorder)
    if menu:
        device.add_file("etc/boot-menu-wait", pack("<H", _MENU_WAIT))
    if serial_console is not None:
        device.add_file("etc/sercon-port", pack("<H", serial_console))
    structures = smbios.tables(machine)
    device.add_file("etc/smbios/smbios-tables", structures)
    device.add_file("etc/smbios/smbios-anchor", smbios.anchor(structures))

    def part(index: int) -> Callable[[], bytes]:
        return lambda: acpi.loader(hardware())[index]

    for index, name in enumerate((TABLES_FILE, RSDP_FILE, "etc/table-loader")):
        device.add_file(name, part(index))
