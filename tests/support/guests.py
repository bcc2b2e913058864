"""Kernels and initial RAM disks that guest tests boot, made from packages once and kept."""

import functools
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest

SETUP_HEADER = 0x1F1  # Linux boot protocol, "The Real-Mode Kernel Header"
LZ4_LEGACY = b"\x02\x21\x4c\x18"
LZ4_BLOCK = 8 << 20
XZ = b"\xfd7zXZ\0"


def cache() -> Path:
    """A folder for what is worth keeping between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base) / "ringfence-tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


@functools.cache
def debian_kernel(flavour: str) -> Path:
    """Debian's ``cloud-amd64`` or ``amd64`` kernel, as it is in its package."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip("needs apt-get and dpkg-deb for a Debian kernel")
    depends = subprocess.run(
        ["apt-cache", "depends", f"linux-image-{flavour}"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    name = re.search(r"Depends: (linux-image-\d\S+)", depends)
    if not name:
        pytest.skip(f"apt knows no linux-image-{flavour}")
    package = f"{name[1]}-unsigned"
    release = name[1].removeprefix("linux-image-")
    kernel = cache() / f"vmlinuz-{release}"
    if not kernel.exists():
        with tempfile.TemporaryDirectory(dir=cache()) as folder:
            subprocess.run(
                ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package],
                cwd=folder,
                check=True,
            )
            (deb,) = Path(folder).glob("*.deb")
            archive = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
            subprocess.run(
                ["tar", "-x", "-C", folder, f"./boot/vmlinuz-{release}"],
                stdin=archive.stdout,
                check=True,
            )
            assert archive.stdout
            archive.stdout.close()
            archive.wait()
            (Path(folder) / "boot" / f"vmlinuz-{release}").rename(kernel)
    return kernel


@functools.cache
def vmlinux(kernel: Path) -> Path:
    """The ELF file inside a bzImage."""
    target = cache() / f"vmlinux-{kernel.name.removeprefix('vmlinuz-')}"
    if not target.exists():
        image = kernel.read_bytes()
        start = (image[SETUP_HEADER] + 1) * 512
        offset, length = struct.unpack_from("<II", image, 0x248)
        payload = image[start + offset : start + offset + length]
        # The last four bytes are the length of the unpacked kernel.
        data = _unpacked(payload[:-4])
        assert data.startswith(b"\x7fELF")
        partial = target.with_suffix(".part")
        partial.write_bytes(data)
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
