"""IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data (ATA/ATAPI-6, 8.15 and 8.16; ATA8-ACS, 7.16)."""

from collections.abc import Mapping

__all__ = ["identify_cdrom", "identify_disk"]

#: Modes a drive offers: PIO 3 and 4, multiword DMA 0 to 2, Ultra DMA 0 to 5.
_PIO, _MULTIWORD, _ULTRA = 0x03, 0x07, 0x3F


def text(value: str, length: int) -> bytes:
    """A text in the byte order of its words, padded with spaces (3.3.10)."""
    data = value.encode("ascii", "replace")[:length].ljust(length)
    return b"".join(data[at : at + 2][::-1] for at in range(0, length, 2))


def _fill(words: Mapping[int, int], texts: Mapping[int, bytes]) -> bytes:
    """512 bytes from words by number and texts by number of the first word, with a checksum."""
    data = bytearray(512)
    for number, value in words.items():
        data[2 * number : 2 * number + 2] = value.to_bytes(2, "little")
    for number, part in texts.items():
        data[2 * number : 2 * number + len(part)] = part
    data[510] = 0xA5
    data[511] = -sum(data[:511]) & 0xFF
    return bytes(data)


def _transfer_words(mode: int) -> dict[int, int]:
    """Words 63 and 88: the mode that is selected is bit 8 up."""
    kind, number = mode >> 3, mode & 7
    return {
        63: _MULTIWORD | (0x100 << number if kind == 4 else 0),
        88: _ULTRA | (0x100 << number if kind == 8 else 0),
    }


def identify_disk(
    *,
    sectors: int,
    geometry: tuple[int, int, int],
    current: tuple[int, int, int],
    multiple: int,
    most_multiple: int,
    mode: int,
    write_cache: bool,
    look_ahead: bool,
    smart: bool,
    model: str,
    serial: str,
    queue_depth: int = 0,
    trim: bool = True,
) -> bytes:
    """The data of a disk.

    Args:
        sectors: Sectors of 512 bytes.
        geometry: Default cylinders, heads and sectors per track.
        current: Those that INITIALIZE DEVICE PARAMETERS has set.
        multiple: Sectors per block of READ MULTIPLE, 0 when not set.
        most_multiple: The most that can be set.
        mode: Transfer mode as SET FEATURES names it.
        write_cache: Whether the write cache is on.
        look_ahead: Whether look-ahead is on.
        smart: Whether SMART is on.
        model: Model number, 40 characters.
        serial: Serial number, 20 characters.
        queue_depth: Commands that may be queued (AHCI); 0 has no queue and is parallel ATA.
        trim: Whether DATA SET MANAGEMENT is there.
    """
    small = min(sectors, 0x0FFFFFFF)
    capacity = min(current[0] * current[1] * current[2], small)
    commands = {
        # SMART, power, write cache, look-ahead, NOP, buffers; then 48-bit, flush; then valid.
        82: 0x7069,
        83: 0x7400,
        84: 0x4043,
        85: 0x7008 | smart | write_cache << 5 | look_ahead << 6,
        86: 0x3400,
        87: 0x4043,
    }
    words = {
        0: 0x0040,
        1: geometry[0],
        3: geometry[1],
        6: geometry[2],
        47: 0x8000 | most_multiple,
        48: 0x0001,
        49: 0x0F00,
        50: 0x4000,
        51: 0x0200,
        53: 0x0007,
        54: current[0],
        55: current[1],
        56: current[2],
        57: capacity & 0xFFFF,
        58: capacity >> 16,
        59: 0x0100 | multiple if multiple else 0,
        60: small & 0xFFFF,
        61: small >> 16,
        64: _PIO,
        65: 120,
        66: 120,
        67: 120,
        68: 120,
        80: 0x01F0,
        81: 0x0022,
        **commands,
        **_transfer_words(mode),
        # A cable with 80 conductors, found by device 0, which passed its diagnostics.
        93: 0 if queue_depth else 0x600B,
        100: sectors & 0xFFFF,
        101: sectors >> 16 & 0xFFFF,
        102: sectors >> 32 & 0xFFFF,
        103: sectors >> 48 & 0xFFFF,
        106: 0x4000,
        217: 0x0001,
        222: 0x101F if queue_depth else 0,
    }
    if trim:
        words |= {105: 8, 169: 1}
    if queue_depth:
        # First and second generation signalling, NCQ.
        words |= {75: queue_depth - 1, 76: 0x0106, 77: 0x0004, 78: 0, 79: 0}
    return _fill(words, {10: text(serial, 20), 23: text("1.0", 8), 27: text(model, 40)})


def identify_cdrom(*, mode: int, model: str, serial: str, sata: bool = False) -> bytes:
    """The data of a CD-ROM drive; arguments as for a disk."""
    words = {
        # ATAPI, CD-ROM, removable, DRQ within 50 us, packets of 12 bytes.
        0: 0x85C0,
        49: 0x0B00,
        50: 0x4000,
        53: 0x0006,
        64: _PIO,
        65: 120,
        66: 120,
        67: 120,
        68: 120,
        71: 30,
        72: 30,
        80: 0x01F0,
        81: 0x0022,
        # NOP, DEVICE RESET, packets, power management.
        82: 0x4218,
        83: 0x4000,
        84: 0x4000,
        85: 0x4218,
        87: 0x4000,
        **_transfer_words(mode),
        93: 0 if sata else 0x600B,
    }
    if sata:
        words |= {76: 0x0006, 77: 0x0004, 222: 0x101F}
    return _fill(words, {10: text(serial, 20), 23: text("1.0", 8), 27: text(model, 40)})
