"""Kernel modules that a machine's devices need, out of the kernel's package.

An image keeps those that are named here, each behind what it depends on. What a machine needs goes
into an archive that is appended to its initial RAM disk; the first process loads it in order.
"""

import io
import lzma
import re
import tarfile
from collections.abc import Iterable, Mapping

from ringfence.errors import ImageCorrupt
from ringfence.images.cpio import overlay

__all__ = ["DRIVERS", "MODULE_PATH", "add_modules", "pack"]

_VIRTIO = ("virtio_pci", "virtio_mmio")
_DISK = ("sd_mod", "sr_mod")
#: Device models, and ``disk`` for file systems: the modules of their drivers.
DRIVERS: dict[str, tuple[str, ...]] = {
    "e1000": ("e1000",),
    "rtl8029": ("ne2k_pci",),
    "rtl8139": ("8139too", "8139cp"),
    "ide": ("ata_piix", "ata_generic", *_DISK),
    "ahci": ("ahci", *_DISK),
    "floppy": ("floppy",),
    "files": ("ext4", "vfat", "nls_ascii", "nls_cp437", "isofs"),
    "virtio-blk": (*_VIRTIO, "virtio_blk"),
    "virtio-net": (*_VIRTIO, "virtio_net"),
    "virtio-console": (*_VIRTIO, "virtio_console"),
    "virtio-rng": (*_VIRTIO, "virtio_rng"),
    "virtio-balloon": (*_VIRTIO, "virtio_balloon"),
    "virtio-mem": (*_VIRTIO, "virtio_mem"),
    "virtio-vsock": (*_VIRTIO, "vmw_vsock_virtio_transport"),
    "virtio-9p": (*_VIRTIO, "9pnet_virtio", "9p"),
    "virtio-fs": (*_VIRTIO, "virtiofs"),
    "virtio-input": (*_VIRTIO, "virtio_input", "evdev"),
    "virtio-gpu": (*_VIRTIO, "virtio_gpu"),
}
MODULE_PATH = re.compile(r"(?:usr/)?lib/modules/[^/]+/kernel/(?:[^/]+/)*([^/]+)\.ko(\.xz)?")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
#: Where the first process finds them, and their order.
_FOLDER = "lib/modules/ringfence"
#: What those above depend on; a kernel that has one of all these built in lacks its file.
_BENEATH = frozenset(
    (
        *("virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev"),
        *("failover", "net_failover", "rng_core", "drm", "drm_kms_helper", "drm_shmem_helper"),
        *("virtio_dma_buf", "fuse", "9pnet", "netfs", "fscache", "vsock"),
        *("vmw_vsock_virtio_transport_common", "8390", "mii", "jbd2", "mbcache", "crc16"),
        *("crc32c_generic", "libcrc32c", "fat", "cdrom", "scsi_common", "scsi_mod"),
        *("crct10dif_common", "crc_t10dif", "crc64", "crc64_rocksoft", "t10_pi"),
        *("libata", "libahci"),
    )
)
_WANTED = _BENEATH.union(*DRIVERS.values())


def is_wanted(name: str) -> bool:
    """Whether an image keeps the module whose file has this name, without its suffix."""
    return _plain(name) in _WANTED


def unpacked(content: bytes, suffix: str | None) -> bytes:
    """The module in a file that may be compressed.

    Raises:
        ImageCorrupt: it is damaged.
    """
    if not suffix:
        return content
    try:
        return lzma.decompress(content)
    except lzma.LZMAError as error:
        raise ImageCorrupt(f"a kernel module is damaged: {error}") from error


def pack(modules: Mapping[str, bytes]) -> bytes:
    """An archive of modules (name without suffix to content), each behind what it depends on."""
    files = {_plain(name): content for name, content in modules.items()}
    order: list[str] = []

    def visit(name: str, depth: int = 0) -> None:
        if name in order or name not in files or depth > len(files):
            return
        found = _DEPENDS.search(files[name])
        for other in found[1].decode("ascii", "replace").split(",") if found else []:
            visit(_plain(other), depth + 1)
        order.append(name)

    for name in sorted(files):
        visit(name)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in order:
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files[name]))
    return out.getvalue()


def add_modules(archive: bytes, models: Iterable[str]) -> bytes:
    """What to append to an initial RAM disk for machines with these devices; may be empty.

    Raises:
        ImageCorrupt: the archive is damaged.
    """
    roots = {module for model in models for module in DRIVERS.get(model, ())}
    if not roots:
        return b""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for entry in tar:
                content = tar.extractfile(entry)
                files[entry.name] = content.read() if content else b""
    except tarfile.TarError as error:
        raise ImageCorrupt(f"the image's kernel modules are damaged: {error}") from error
    needed: set[str] = set()

    def need(name: str) -> None:
        if name in files and name not in needed:
            needed.add(name)
            found = _DEPENDS.search(files[name])
            for other in found[1].decode("ascii", "replace").split(",") if found else []:
                need(_plain(other))

    for root in roots:
        need(root)
    order = [name for name in files if name in needed]
    contents = {f"{_FOLDER}/{name}.ko": files[name] for name in order}
    contents[f"{_FOLDER}/order"] = "".join(f"{name}\n" for name in order).encode()
    return overlay(contents, 0o644)


def _plain(name: str) -> str:
    """The kernel's own name of a module, which has no dashes."""
    return name.replace("-", "_")
