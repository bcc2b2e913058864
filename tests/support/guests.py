"""Kernels that guest tests boot: our images, what is inside them, and a few bytes of our own."""

import functools
import lzma
import struct
import zlib
from pathlib import Path

import pytest

from ringfence import errors, images

SETUP_HEADER = 0x1F1  # Linux boot protocol, "The Real-Mode Kernel Header"
LZ4_LEGACY = b"\x02\x21\x4c\x18"
LZ4_BLOCK = 8 << 20
XZ = b"\xfd7zXZ\0"


@functools.cache
def image(name: str) -> images.Image:
    """An image of ours, fetched if it is not in the store."""
    try:
        return images.ensure(name)
    except errors.ImageError as error:
        pytest.skip(f"no image {name}: {error}")


@functools.cache
def vmlinux(kernel: Path) -> Path:
    """The ELF file inside a bzImage."""
    target = images.cache_folder() / f"vmlinux-{zlib.crc32(str(kernel).encode()):08x}"
    if not target.exists():
        data = kernel.read_bytes()
        start = (data[SETUP_HEADER] + 1) * 512
        offset, length = struct.unpack_from("<II", data, 0x248)
        payload = data[start + offset : start + offset + length]
        # The last four bytes are the length of the unpacked kernel.
        elf = _unpacked(payload[:-4])
        assert elf.startswith(b"\x7fELF")
        partial = target.with_suffix(".part")
        partial.write_bytes(elf)
        partial.rename(target)
    return target


def _unpacked(payload: bytes) -> bytes:
    if payload.startswith(XZ):
        return lzma.LZMADecompressor().decompress(payload)
    if not payload.startswith(LZ4_LEGACY):
        pytest.skip(f"unknown compression {payload[:6].hex()}")
    block = pytest.importorskip("lz4.block")
    parts = []
    at = len(LZ4_LEGACY)
    while at + 4 <= len(payload):
        (size,) = struct.unpack_from("<I", payload, at)
        at += 4
        parts.append(block.decompress(payload[at : at + size], uncompressed_size=LZ4_BLOCK))
        at += size
    return b"".join(parts)


def pvh_kernel(code: bytes, entry: int = 0x100000) -> bytes:
    """An ELF kernel of ``code``, entered in 32-bit protected mode with paging off.

    Xen's x86/HVM direct boot ABI: the note XEN_ELFNOTE_PHYS32_ENTRY (18) names the entry.
    """
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", entry)
    header_size, program_size = 52, 32
    note_at = header_size + 2 * program_size
    code_at = 0x1000
    header = struct.pack(
        "<16sHHIIIIIHHHHHH",
        b"\x7fELF\x01\x01\x01",
        2,  # ET_EXEC
        3,  # EM_386
        1,
        entry,
        header_size,
        0,
        0,
        header_size,
        program_size,
        2,
        40,
        0,
        0,
    )
    load = struct.pack("<8I", 1, code_at, entry, entry, len(code), len(code), 7, 0x1000)
    notes = struct.pack("<8I", 4, note_at, 0, 0, len(note), len(note), 4, 4)
    return (header + load + notes + note).ljust(code_at, b"\0") + code


#: Loads an empty interrupt table and takes a breakpoint: a triple fault.
TRIPLE_FAULT = bytes.fromhex("0f011d 0b001000 cc f4 ebfd 0000 00000000")
#: Spins with interrupts off.
SPIN = bytes.fromhex("fa ebfe")
#: Writes to the debug-exit port.
LEAVE = bytes.fromhex("b000 e6f4 ebfe")
