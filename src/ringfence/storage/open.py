"""Opens the media that a machine gets, or tells what is wrong with one and what helps."""

import errno
import os
import stat
from pathlib import Path

from ringfence.errors import ImageCorrupt, ImageDenied, ImageError, ImageInUse, ImageNotFound
from ringfence.storage.formats import PACKED, recognize
from ringfence.storage.lock import InUse, lock
from ringfence.storage.overlay import Overlay
from ringfence.storage.raw import RawImage

__all__ = ["SECTOR", "Image", "open_cdrom", "open_disk", "open_floppy"]

Image = RawImage | Overlay

#: Bytes of a disk's sector, and of a CD-ROM's.
SECTOR = 512
CD_SECTOR = 2048
_HEAD = 64 << 10
# ISO 9660: descriptors from block 16 on; the space's size in a primary one at byte 80.
_PRIMARY_DESCRIPTOR = b"\x01CD001"
_DESCRIPTOR_AT = 16 * CD_SECTOR
# Blocks of padding that a drive may not have copied from the end of a CD.
_RUN_OUT = 150


def open_disk(path: Path, *, readonly: bool = False, ephemeral: bool = False) -> Image:
    """A hard disk.

    Args:
        path: A raw image or a block device.
        readonly: Open for reading only; the guest's writes fail.
        ephemeral: Keep the guest's writes in memory and forget them with the machine.

    Raises:
        ImageNotFound: there is no such file.
        ImageInUse: another machine or program has it open.
        ImageDenied: its permissions or its file system forbid it.
        ImageCorrupt: it is empty, cut short, no whole number of sectors, or of another format.
    """
    image = _open("disk", path, write=not readonly and not ephemeral, sector=SECTOR)
    return Overlay(image) if ephemeral and not readonly else image


def open_floppy(path: Path, *, readonly: bool = False, ephemeral: bool = False) -> Image:
    """A floppy disk; raises as :func:`open_disk` does.

    A file that may not be written to is a disk with its write-protect tab set.
    """
    write = not readonly and not ephemeral and os.access(path, os.W_OK | os.R_OK)
    image = _open("floppy", path, write=write, sector=SECTOR)
    return Overlay(image) if ephemeral and not readonly else image


def open_cdrom(path: Path) -> RawImage:
    """A CD-ROM or DVD; raises as :func:`open_disk` does."""
    return _open("CD-ROM", path, write=False, sector=CD_SECTOR)


def _open(what: str, path: Path, *, write: bool, sector: int) -> RawImage:
    named = f"the {what} {path}"
    try:
        # Asked before it is opened: opening a pipe would wait for its other end.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{named} is a directory; name an image file or a block device")
        if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
            raise ImageError(f"{named} is neither a file nor a block device")
        descriptor = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(named, error, write=write, what=what) from error
    try:
        _lock(named, descriptor, write=write, what=what)
        size = _size(named, descriptor, sector, what=what)
        return RawImage(descriptor, size, readonly=not write)
    except OSError as error:
        os.close(descriptor)
        raise ImageError(f"{named} can't be used: {error.strerror}") from error
    except BaseException:
        os.close(descriptor)
        raise


def _refused(named: str, error: OSError, *, write: bool, what: str) -> ImageError:
    """What to say of a file that can't be opened."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        mend = "; truncate -s 8G FILE makes an empty one" if what == "disk" else ""
        return ImageNotFound(f"{named} does not exist{mend}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        if write:
            return ImageDenied(
                f"{named} can't be opened for writing ({error.strerror}): change its permissions, "
                "or add ,readonly or ,ephemeral"
            )
        return ImageDenied(f"{named} can't be read ({error.strerror}): change its permissions")
    return ImageError(f"{named} can't be opened: {error.strerror}")


def _lock(named: str, descriptor: int, *, write: bool, what: str) -> None:
    try:
        lock(descriptor, write=write)
    except InUse:
        share = "" if what == "CD-ROM" else ", or add ,readonly to every machine that uses it"
        if write:
            text = f"{named} is in use: stop the machine or program that has it open{share}"
        else:
            text = f"{named} is being written by another machine or program: stop that first"
        raise ImageInUse(text) from None


def _size(named: str, descriptor: int, sector: int, *, what: str) -> int:
    """Bytes of the medium, after a look at whether it can be one."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    if size == 0:
        raise ImageCorrupt(f"{named} is empty: give it a size with truncate -s SIZE FILE")
    head = os.pread(descriptor, _HEAD, 0)
    form = recognize(head)
    if form in PACKED:
        raise ImageCorrupt(f"{named} is compressed ({form}): unpack it first")
    if form != "raw":
        raise ImageCorrupt(
            f"{named} is of the format {form}, which can't be used here: make it a raw image with "
            f"qemu-img convert -O raw OLD NEW"
        )
    if sector == CD_SECTOR:
        _check_iso(named, head, size)
        # Images of hybrid media need not end with a whole block; what is missing reads as zeros.
        return -(-size // sector) * sector
    if size % sector:
        raise ImageCorrupt(
            f"{named} is cut short or no {what}: {size} bytes are not whole sectors of {sector}; "
            f"if its end may be padded, truncate -s %{sector} FILE does it"
        )
    _check_gpt(named, head, size)
    return size


def _check_iso(named: str, head: bytes, size: int) -> None:
    """Refuses an ISO 9660 image that lacks more than its padding."""
    at = head[_DESCRIPTOR_AT:]
    if at[:6] != _PRIMARY_DESCRIPTOR:
        return
    blocks = int.from_bytes(at[80:84], "little")
    if size < (blocks - _RUN_OUT) * CD_SECTOR:
        raise ImageCorrupt(
            f"{named} is cut short: it says it has {blocks * CD_SECTOR} bytes, and {size} are "
            "there; fetch it again"
        )


def _check_gpt(named: str, head: bytes, size: int) -> None:
    """Refuses a disk whose partition table ends behind the disk (UEFI 2.10, 5.3.2)."""
    header = head[SECTOR : 2 * SECTOR]
    if header[:8] != b"EFI PART":
        return
    last = int.from_bytes(header[32:40], "little")
    if (last + 1) * SECTOR > size:
        raise ImageCorrupt(
            f"{named} is cut short: its partition table is of a disk of {(last + 1) * SECTOR} "
            f"bytes, and {size} are there; fetch it again, or truncate -s {(last + 1) * SECTOR} "
            "FILE if the rest may be zeros"
        )
