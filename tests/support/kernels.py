"""Small kernels with all that a loader looks at."""

from struct import pack, pack_into
from typing import Any

DEFAULTS: dict[str, int] = {
    "version": 0x020F,
    "boot_flag": 0xAA55,
    "setup_sects": 3,
    "loadflags": 1,
    "alignment": 0x200000,
    "relocatable": 1,
    "xloadflags": 0x0F,
    "cmdline_size": 255,
    "pref_address": 0x1000000,
    "init_size": 0x600000,
    "initrd_max": 0x7FFFFFFF,
    "payload_offset": 16,
    "payload_length": 32,
}
PLACES = {
    "version": (0x206, "<H"),
    "boot_flag": (0x1FE, "<H"),
    "setup_sects": (0x1F1, "<B"),
    "loadflags": (0x211, "<B"),
    "alignment": (0x230, "<I"),
    "relocatable": (0x234, "<B"),
    "xloadflags": (0x236, "<H"),
    "cmdline_size": (0x238, "<I"),
    "pref_address": (0x258, "<Q"),
    "init_size": (0x260, "<I"),
    "initrd_max": (0x22C, "<I"),
    "payload_offset": (0x248, "<I"),
    "payload_length": (0x24C, "<I"),
}


def bzimage(body: bytes = b"\xf4" * 4096, **fields: int) -> bytes:
    """A bzImage with ``body`` as its protected-mode part."""
    values = DEFAULTS | fields
    setup = bytearray((1 + (values["setup_sects"] or 4)) * 512)
    pack_into("<I", setup, 0x1F4, len(body) // 16)
    setup[0x200:0x202] = b"\xeb\x66"
    setup[0x202:0x206] = b"HdrS"
    for name, value in values.items():
        offset, form = PLACES[name]
        pack_into(form, setup, offset, value)
    return bytes(setup) + body


def elf(
    segments: list[tuple[int, bytes, int]],
    notes: bytes = b"",
    *,
    bits: int = 64,
    machine: int = 62,
    kind: int = 2,
) -> bytes:
    """An ELF file of ``(physical address, bytes, size in memory)`` and a note segment."""
    wide = bits == 64
    head, entry = (64, 56) if wide else (52, 32)
    count = len(segments) + 1
    at = head + entry * count
    parts = [(1, address, data, size) for address, data, size in segments]
    parts.append((4, 0, notes, len(notes)))
    table, body = b"", b""
    for part, address, data, size in parts:
        offset = at + len(body)
        if wide:
            table += pack("<IIQQQQQQ", part, 7, offset, address, address, len(data), size, 16)
        else:
            table += pack("<8I", part, offset, address, address, len(data), size, 7, 16)
        body += data
    identity = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
    rest: tuple[Any, ...] = (kind, machine, 1, segments[0][0] if segments else 0, head, 0)
    tail = (0, head, entry, count, 0, 0, 0)
    return (
        identity
        + pack("<HHIQQQ" if wide else "<HHIIII", *rest)
        + pack("<I6H", *tail)
        + table
        + body
    )


def note(name: bytes, kind: int, descriptor: bytes) -> bytes:
    """An ELF note, padded."""
    pad = lambda data: data + bytes(-len(data) % 4)  # noqa: E731
    return pack("<III", len(name), len(descriptor), kind) + pad(name) + pad(descriptor)


def pvh(entry: int = 0x1000010, bits: int = 64, **options: Any) -> bytes:
    """An ELF kernel with a PVH entry."""
    size = 4 if bits == 32 else 8
    notes = note(b"GNU\0", 3, b"build") + note(b"Xen\0", 18, entry.to_bytes(size, "little"))
    segments = [(0x1000000, b"code" * 100, 0x3000), (0x1200000, b"data", 0x1000)]
    return elf(segments, notes, bits=bits, **options)
