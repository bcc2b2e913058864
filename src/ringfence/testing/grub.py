"""Makes disks that boot by GRUB, from files: no root, no mounting, no partition tool.

A disk has an MBR with one partition, a FAT file system filled by mtools, and GRUB's core image in
the gap before it (GRUB manual, "BIOS installation"). GRUB itself is the host's: packages
``grub-pc-bin``, ``grub-common`` and ``mtools``; for :func:`grub_iso` ``grub-efi-amd64-bin`` and
``xorriso`` as well.
"""

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from struct import pack_into

from ringfence.errors import ImageError, ImageNotFound
from ringfence.units import MIB

__all__ = ["GRUB_MODULES", "grub_disk", "grub_iso"]

_SECTOR = 512
#: The partition begins after the first megabyte; GRUB's core image lies before it.
_START = MIB
_PLATFORM = Path("/usr/lib/grub/i386-pc")
# boot.img: where its code finds the sector of the core image, and the drive.
_KERNEL_SECTOR, _BOOT_DRIVE, _DRIVE_CHECK = 0x5C, 0x64, 0x66
# The core image's first sector ends with a list of where the rest is.
_BLOCK_LIST = 0x1F4
_FAT, _ACTIVE = 0x0C, 0x80

#: Modules that are linked into the core image.
GRUB_MODULES = (
    *("biosdisk", "part_msdos", "fat", "normal", "configfile", "echo", "test", "ls", "cat"),
    *(
        "linux",
        "linux16",
        "multiboot",
        "multiboot2",
        "gzio",
        "serial",
        "terminal",
        "halt",
        "reboot",
    ),
)


def grub_disk(
    path: Path, files: Mapping[str, bytes | Path], config: str, *, spare: int = 8 * MIB
) -> Path:
    """Makes a raw disk image that a BIOS boots.

    Args:
        path: The image to make.
        files: Contents by path in the file system, such as ``/boot/vmlinuz``.
        config: ``grub.cfg``.
        spare: Bytes of the partition that stay free.

    Raises:
        ImageNotFound: a tool or a part of GRUB is not installed.
        ImageError: a tool failed.
    """
    _need("grub-mkimage", "grub-common")
    _need("mformat", "mtools")
    if not (_PLATFORM / "boot.img").exists():
        raise ImageNotFound("GRUB for BIOS is not installed: apt-get install grub-pc-bin")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        contents = {**files, "/boot/grub/grub.cfg": config.encode()}
        size = sum(
            entry.stat().st_size if isinstance(entry, Path) else len(entry)
            for entry in contents.values()
        )
        length = -(-(size + size // 64 + spare + 2 * MIB) // MIB) * MIB
        core = _core(work)
        if len(core) > _START - _SECTOR:
            raise ImageError(f"GRUB's core image is too large for its place: {len(core)} bytes")
        with path.open("wb") as disk:
            disk.truncate(_START + length)
            disk.write(_master_boot_record(length))
            disk.write(core)
        partition = f"{path}@@{_START}"
        sectors = length // _SECTOR
        _run("mformat", "-i", partition, "-T", str(sectors), "-h", "64", "-s", "32", "-v", "GRUB")
        _fill(partition, contents, work)
    return path


def grub_iso(path: Path, files: Mapping[str, bytes | Path], config: str) -> Path:
    """Makes an ISO image that BIOS and UEFI boot, from CD-ROM or as a disk, by grub-mkrescue.

    Raises:
        ImageNotFound: a tool is not installed.
        ImageError: a tool failed.
    """
    for tool, package in (("grub-mkrescue", "grub-common"), ("xorriso", "xorriso")):
        _need(tool, package)
    _need("mformat", "mtools")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in {**files, "/boot/grub/grub.cfg": config.encode()}.items():
            target = root / name.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        _run("grub-mkrescue", "-o", str(path), folder)
    return path


def _core(work: Path) -> bytes:
    """The core image, told where it lies."""
    target = work / "core.img"
    _run(
        *("grub-mkimage", "-O", "i386-pc", "-o", str(target), "-p", "(hd0,msdos1)/boot/grub"),
        *GRUB_MODULES,
    )
    core = bytearray(target.read_bytes())
    core += bytes(-len(core) % _SECTOR)
    # All of it but the first sector follows in one piece.
    pack_into("<QHH", core, _BLOCK_LIST, 2, len(core) // _SECTOR - 1, 0x820)
    return bytes(core)


def _master_boot_record(length: int) -> bytes:
    """GRUB's boot sector with a partition table of one entry."""
    sector = bytearray((_PLATFORM / "boot.img").read_bytes())
    pack_into("<Q", sector, _KERNEL_SECTOR, 1)
    sector[_BOOT_DRIVE] = 0xFF
    # Don't second-guess the drive number that the BIOS gives.
    sector[_DRIVE_CHECK : _DRIVE_CHECK + 2] = b"\x90\x90"
    entry = bytearray(16)
    entry[0], entry[4] = _ACTIVE, _FAT
    entry[1:4] = entry[5:8] = b"\xfe\xff\xff"
    pack_into("<II", entry, 8, _START // _SECTOR, length // _SECTOR)
    # What boot.img has here is for floppy disks.
    sector[446:510] = entry + bytes(48)
    sector[510:512] = b"\x55\xaa"
    return bytes(sector)


def _fill(partition: str, files: Mapping[str, bytes | Path], work: Path) -> None:
    """Copies files into a FAT file system."""
    made: set[str] = set()
    for index, (name, content) in enumerate(files.items()):
        parts = name.strip("/").split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder not in made:
                made.add(folder)
                _run("mmd", "-i", partition, f"::/{folder}")
        source = content
        if isinstance(source, bytes):
            source = work / f"file{index}"
            source.write_bytes(content if isinstance(content, bytes) else b"")
        _run("mcopy", "-i", partition, str(source), "::/" + "/".join(parts))


def _need(tool: str, package: str) -> None:
    if which(tool) is None:
        raise ImageNotFound(f"{tool} is not installed: apt-get install {package}")


def _run(*command: str) -> None:
    words: Sequence[str] = command
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise ImageError(f"{words[0]} failed: {said[-1] if said else done.returncode}")
