"""The tables themselves: RSDP, XSDT, FADT, FACS, MADT, DSDT in one block of memory."""

from struct import pack, pack_into
from typing import NamedTuple

from ringfence.firmware.acpi.dsdt import definition
from ringfence.firmware.acpi.hardware import AcpiHardware

__all__ = ["Layout", "Pointer", "build", "layout", "rsdp"]

_OEM_ID, _OEM_TABLE, _CREATOR = b"RINGFN", b"RINGFNCE", b"RNGF"
_HEADER, _RSDP_ROOM = 36, 64

# FADT flags (table 5.10) and boot architecture flags (table 5.11).
_WBINVD, _PROC_C1, _NO_SLEEP_BUTTON, _NO_FIXED_RTC = 1 << 0, 1 << 2, 1 << 5, 1 << 6
_TIMER_32, _RESET_REGISTER = 1 << 8, 1 << 10
_LEGACY_DEVICES, _HAS_8042, _NO_VGA, _NO_MSI = 1 << 0, 1 << 1, 1 << 2, 1 << 3

_PCAT_COMPAT, _APIC_ENABLED = 1, 1
_ACTIVE_HIGH_LEVEL = 0b1101
_SPACE_IO = 1


class Pointer(NamedTuple):
    """An address within the tables."""

    #: Where it lies, and in how many bytes.
    offset: int
    size: int
    #: What it points to.
    target: int


class Layout(NamedTuple):
    """All tables in one block, whose addresses are still offsets within it.

    Checksums are those of the block at address 0.
    """

    block: bytes
    pointers: list[Pointer]
    #: Start and length of each table that has a checksum, at its byte 9.
    tables: list[tuple[int, int]]
    rsdt: int
    xsdt: int


def layout(hardware: AcpiHardware) -> Layout:
    """Lays the tables out."""
    block = bytearray()
    pointers: list[Pointer] = []
    tables: list[tuple[int, int]] = []

    def place(data: bytes, *links: tuple[int, int]) -> int:
        """Adds a table with pointers as ``(offset in the table, size)``."""
        # The FACS asks for 64; it does the others no harm.
        block.extend(bytes(-len(block) % 64))
        start = len(block)
        block.extend(data)
        for offset, size in links:
            value = int.from_bytes(data[offset : offset + size], "little")
            pointers.append(Pointer(start + offset, size, value))
        if data[:4] != b"FACS":
            tables.append((start, len(data)))
        return start

    facs = place(_facs())
    dsdt = place(_table(b"DSDT", 2, definition(hardware)))
    others = [place(_fadt(hardware, facs, dsdt), (36, 4), (40, 4), (140, 8))]
    others.append(place(_madt(hardware)))
    if hardware.hpet is not None:
        others.append(place(_hpet(hardware.hpet)))
    if hardware.pci is not None and hardware.pci.ecam is not None:
        others.append(place(_mcfg(hardware.pci.ecam)))
    count = len(others)
    rsdt = place(
        _table(b"RSDT", 1, pack(f"<{count}I", *others)),
        *((_HEADER + 4 * index, 4) for index in range(count)),
    )
    xsdt = place(
        _table(b"XSDT", 1, pack(f"<{count}Q", *others)),
        *((_HEADER + 8 * index, 8) for index in range(count)),
    )
    return Layout(bytes(block), pointers, tables, rsdt, xsdt)


def build(hardware: AcpiHardware, base: int) -> bytes:
    """RSDP and all tables, to be placed at ``base`` (64-byte aligned), where the RSDP then lies.

    With ``base`` between E0000h and FFFFFh a guest finds the RSDP by itself (section 5.2.5.1).
    """
    found = layout(hardware)
    start = base + _RSDP_ROOM
    block = bytearray(found.block)
    for offset, size, target in found.pointers:
        block[offset : offset + size] = (start + target).to_bytes(size, "little")
    for offset, length in found.tables:
        block[offset + 9] = 0
        block[offset + 9] = -sum(block[offset : offset + length]) & 0xFF
    root = rsdp(start + found.rsdt, start + found.xsdt)
    return root.ljust(_RSDP_ROOM, b"\0") + bytes(block)


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A table: header with checksum, then ``body`` (section 5.2.6)."""
    table = bytearray(
        pack(
            "<4sIBB6s8sI4sI",
            signature,
            _HEADER + len(body),
            revision,
            0,
            _OEM_ID,
            _OEM_TABLE,
            1,
            _CREATOR,
            1,
        )
        + body
    )
    table[9] = -sum(table) & 0xFF
    return bytes(table)


def rsdp(rsdt: int, xsdt: int) -> bytes:
    """The root system description pointer, revision 2 (section 5.2.5.3)."""
    root = bytearray(pack("<8sB6sBIIQB3x", b"RSD PTR ", 0, _OEM_ID, 2, rsdt, 36, xsdt, 0))
    root[8] = -sum(root[:20]) & 0xFF
    root[32] = -sum(root) & 0xFF
    return bytes(root)


def _facs() -> bytes:
    """The firmware ACPI control structure, version 2: no waking vector (section 5.2.10)."""
    return pack("<4sIIIIIQB31x", b"FACS", 64, 0, 0, 0, 0, 0, 2)


def _address(port: int, bits: int) -> bytes:
    """A generic address structure for an I/O port (section 5.2.3.2)."""
    return pack("<BBBBQ", _SPACE_IO, bits, 0, {8: 1, 16: 2, 32: 3}[bits], port)


def _fadt(hardware: AcpiHardware, facs: int, dsdt: int) -> bytes:
    """The fixed ACPI description table, revision 6 (section 5.2.9)."""
    table = bytearray(276)
    pack_into("<II", table, 36, facs, dsdt)
    pack_into("<H", table, 46, hardware.sci)
    pack_into("<I", table, 48, hardware.smi_command)
    pack_into("<BB", table, 52, hardware.acpi_enable, hardware.acpi_disable)
    pack_into("<I", table, 56, hardware.pm1_event)
    pack_into("<I", table, 64, hardware.pm1_control)
    pack_into("<I", table, 76, hardware.pm_timer)
    pack_into("<I", table, 80, hardware.gpe0)
    pack_into("<BBBBB", table, 88, 4, 2, 0, 4, 4)
    # Latencies above the limits say that there are no C2 and C3.
    pack_into("<HH", table, 96, 101, 1001)
    table[108] = hardware.century
    boot = _LEGACY_DEVICES
    boot |= 0 if hardware.vga else _NO_VGA
    boot |= _NO_MSI if hardware.pci is None else 0
    boot |= _HAS_8042 if hardware.keyboard_irq is not None else 0
    pack_into("<H", table, 109, boot)
    flags = _WBINVD | _PROC_C1 | _NO_SLEEP_BUTTON | _NO_FIXED_RTC | _TIMER_32 | _RESET_REGISTER
    pack_into("<I", table, 112, flags)
    table[116:128] = _address(hardware.reset_port, 8)
    table[128] = hardware.reset_value
    table[131] = 5
    # X_FIRMWARE_CTRL stays 0: one of the two pointers to the FACS is to be used.
    pack_into("<Q", table, 140, dsdt)
    table[148:160] = _address(hardware.pm1_event, 32)
    table[172:184] = _address(hardware.pm1_control, 16)
    table[208:220] = _address(hardware.pm_timer, 32)
    table[220:232] = _address(hardware.gpe0, 32)
    return _table(b"FACP", 6, bytes(table[_HEADER:]))


def _madt(hardware: AcpiHardware) -> bytes:
    """The multiple APIC description table (section 5.2.12)."""
    body = bytearray(pack("<II", hardware.local_apic, _PCAT_COMPAT))
    for index in range(hardware.cpus):
        body += pack("<BBBBI", 0, 8, index, index, _APIC_ENABLED)
    body += pack("<BBBBII", 1, 12, hardware.io_apic_id, 0, hardware.io_apic, 0)
    body += pack("<BBBBIH", 2, 10, 0, 0, hardware.timer_gsi, 0)
    body += pack("<BBBBIH", 2, 10, 0, hardware.sci, hardware.sci, _ACTIVE_HIGH_LEVEL)
    for irq in hardware.pci.interrupts if hardware.pci is not None else ():
        if irq != hardware.sci:
            body += pack("<BBBBIH", 2, 10, 0, irq, irq, _ACTIVE_HIGH_LEVEL)
    # NMI on LINT1 of all processors, as a PC wires it.
    body += pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    return _table(b"APIC", 4, bytes(body))


def _hpet(base: int) -> bytes:
    """The HPET description table (IA-PC HPET specification 1.0a, section 3.2.4)."""
    # Three 64-bit timers of an Intel part, capable of legacy replacement.
    block = 0x8086_A201
    address = pack("<BBBBQ", 0, 64, 0, 0, base)
    return _table(b"HPET", 1, pack("<I", block) + address + pack("<BHB", 0, 0x0080, 0))


def _mcfg(base: int) -> bytes:
    """The table of memory-mapped configuration space (PCI firmware specification 3.0, 4.1.2)."""
    return _table(b"MCFG", 1, bytes(8) + pack("<QHBBI", base, 0, 0, 255, 0))
