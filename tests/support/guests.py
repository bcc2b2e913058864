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


#: Loads an empty interrupt table and takes a breakpoint: a triple fault.
TRIPLE_FAULT = bytes.fromhex("0f011d 0b001000 cc f4 ebfd 0000 00000000")
#: Spins with interrupts off.
SPIN = bytes.fromhex("fa ebfe")
#: Writes to the debug-exit port.
LEAVE = bytes.fromhex("b000 e6f4 ebfe")
