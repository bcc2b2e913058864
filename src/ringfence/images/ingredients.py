"""Makes the files of an image from packages, or from files that the user has.

The kernel and the busybox are taken out of their packages and kept beside the initial RAM disk, so
that a later Ringfence can build a new one without fetching anything.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ringfence.errors import ImageCorrupt, ImageError, ImageNotFound
from ringfence.images import initramfs, modules
from ringfence.images.deb import AR_MAGIC, DebPackage
from ringfence.images.model import Progress, ProgressCallback
from ringfence.images.recipes import Recipe
from ringfence.images.sources.packages import NAME, Package, Source

KERNEL_FILE = "vmlinuz"
INITRD_FILE = "initrd.img"
BUSYBOX_FILE = "busybox"
MODULES_FILE = "modules.tar"
# Linux x86 boot protocol, Documentation/arch/x86/boot.rst: the header's magic, at 0x202.
BOOT_MAGIC_AT = 0x202
BOOT_MAGIC = b"HdrS"
KERNEL_VERSION_AT = 0x20E
KERNEL_PATH = re.compile(r"(?:usr/)?(?:boot|lib/modules/[^/]+)/vmlinuz[^/]*")
BUSYBOX_PATHS = {"bin/busybox", "usr/bin/busybox"}


@dataclass(slots=True)
class Ingredients:
    """What an image is made from; a recipe fills in what the user did not bring."""

    kernel: bytes = b""
    busybox: bytes = b""
    #: Modules of the kernel that devices need, packed; empty where nobody brought any.
    modules: bytes = b""
    version: str = ""
    packages: list[str] = field(default_factory=list)


def from_files(files: Sequence[Path]) -> Ingredients:
    """Sorts files of the user by content: packages, kernels (bzImage), a busybox.

    Raises:
        ImageNotFound: there is no such file.
        ImageCorrupt: a file is none of these.
    """
    found = Ingredients()
    for path in files:
        try:
            head = _head(path)
        except OSError as error:
            raise ImageNotFound(f"can't read {path}: {error.strerror}") from error
        if head.startswith(AR_MAGIC):
            _from_package(path, found)
        elif is_kernel(head):
            found.kernel = path.read_bytes()
            found.version = found.version or kernel_version(found.kernel)
            found.packages.append(path.name)
        elif head.startswith(initramfs.ELF_MAGIC):
            found.busybox = path.read_bytes()
            initramfs.applets(found.busybox)
            found.packages.append(path.name)
        else:
            raise ImageCorrupt(f"{path} is no Debian package, no Linux kernel and no busybox")
    return found


def complete(
    recipe: Recipe, found: Ingredients, source: Source | None, progress: ProgressCallback
) -> None:
    """Fetches what is still missing.

    Raises:
        ImageError: it can't be had; the text says what helps.
    """
    if not found.kernel:
        package = _kernel_package(recipe, _needed(source, "a kernel"), progress)
        _add(package, _needed(source, "a kernel"), found, progress)
        if not found.kernel:
            raise ImageCorrupt(f"there is no kernel in the package {package.label}")
    if not found.busybox:
        wanted = _needed(source, "busybox")
        static = wanted.find("busybox-static", progress)
        if static is None:
            raise ImageNotFound(_not_offered("busybox-static"))
        _add(static, wanted, found, progress)
        if not found.busybox:
            raise ImageCorrupt(f"there is no busybox in the package {static.label}")


def write(found: Ingredients, directory: Path, progress: ProgressCallback) -> None:
    """Writes the image's files into an empty directory."""
    progress(Progress("initial RAM disk"))
    (directory / KERNEL_FILE).write_bytes(found.kernel)
    (directory / BUSYBOX_FILE).write_bytes(found.busybox)
    (directory / MODULES_FILE).write_bytes(found.modules)
    (directory / INITRD_FILE).write_bytes(initramfs.build(found.busybox))


def is_kernel(data: bytes) -> bool:
    """Whether this is the beginning of a bzImage."""
    return data[BOOT_MAGIC_AT : BOOT_MAGIC_AT + len(BOOT_MAGIC)] == BOOT_MAGIC


def kernel_version(data: bytes) -> str:
    """The release that a bzImage names, such as ``6.1.0-1-amd64``; empty if it does not."""
    at = 0x200 + int.from_bytes(data[KERNEL_VERSION_AT : KERNEL_VERSION_AT + 2], "little")
    words = data[at : at + 256].split(b"\0")[0].split()
    return words[0].decode("ascii", "replace") if words else ""


def _kernel_package(recipe: Recipe, source: Source, progress: ProgressCallback) -> Package:
    meta = source.find(recipe.kernel_package, progress)
    if meta is None:
        raise ImageNotFound(_not_offered(recipe.kernel_package))
    for depend in re.split(r"[,|]", meta.depends):
        name = depend.split("(")[0].strip().partition(":")[0]
        if name.startswith("linux-image-") and NAME.fullmatch(name):
            # The same kernel with and without a signature, which no one here checks.
            for variant in (name, f"{name}-unsigned"):
                if package := source.find(variant, progress):
                    return package
            raise ImageNotFound(_not_offered(name))
    raise ImageCorrupt(f"{meta.label} depends on no kernel")


def _add(package: Package, source: Source, found: Ingredients, progress: ProgressCallback) -> None:
    path = source.fetch(package, progress)
    progress(Progress(f"unpack {package.name}"))
    _from_package(path, found)


def _from_package(path: Path, found: Ingredients) -> None:
    package = DebPackage(path)
    control = package.control()
    name, version = control.get("Package", path.name), control.get("Version", "")
    kernel, busybox, held = None, None, {}
    for entry, content in package.files(_is_ingredient):
        if KERNEL_PATH.fullmatch(entry):
            kernel = kernel or (entry, content)
        elif entry in BUSYBOX_PATHS:
            busybox = busybox or content
        elif module := modules.MODULE_PATH.fullmatch(entry):
            held[module[1]] = modules.unpacked(content, module[2])
    if kernel:
        if not is_kernel(kernel[1]):
            raise ImageCorrupt(f"{path}: {kernel[0]} in it is no Linux kernel for x86")
        found.kernel, found.version = kernel[1], version
        found.modules = modules.pack(held)
    elif busybox:
        initramfs.applets(busybox)
        found.busybox = busybox
    else:
        raise ImageCorrupt(f"{path}: there is neither a kernel nor busybox in the package")
    found.packages.append(f"{name} {version}".strip())


def _is_ingredient(path: str) -> bool:
    if path in BUSYBOX_PATHS or KERNEL_PATH.fullmatch(path):
        return True
    module = modules.MODULE_PATH.fullmatch(path)
    return module is not None and modules.is_wanted(module[1])


def _needed(source: Source | None, what: str) -> Source:
    if source is None:
        raise ImageError(
            f"nowhere to get {what} from: this host has no apt. Name a Debian mirror with "
            "--mirror URL (there is a list at www.debian.org/mirror/list), or package files "
            "with --deb FILE"
        )
    return source


def _not_offered(name: str) -> str:
    return (
        f"the package {name} is not offered here: run apt-get update, name a Debian mirror with "
        "--mirror URL, or a package file with --deb FILE"
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1024)
