"""The guest table: systems that boot from media of their own, on the board ``pc``.

How each comes: packages of Debian by the host's apt (``support.packages``), media made of them by
``ringfence.testing``. Rows tagged ``soak`` take long and run with ``--soak``.
"""

import gzip
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringfence.images.cpio import CpioWriter
from ringfence.testing import Guest, Presses, Shows, Types, grub_disk, grub_iso
from support.packages import package_file

Media = dict[str, Any]

PROGRAMS = Path(__file__).parent.parent / "guests"

_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
echo machine $(uname -m) has a shell
exec sh
"""
_MENU = "set timeout=0\nmenuentry guest {{\n{commands}\n}}\n"
_LINUX = "linux /boot/vmlinuz console=ttyS0 {append}\ninitrd /boot/initrd"


def initrd(architecture: str) -> bytes:
    """A busybox and a shell on the console."""
    writer = CpioWriter()
    for folder in ("bin", "dev", "proc", "sys"):
        writer.directory(folder)
    writer.character_device("dev/console", 5, 1)
    writer.file("init", _INIT.encode(), 0o755)
    busybox = package_file("busybox-static", r"(usr/)?bin/busybox", architecture)
    writer.file("bin/busybox", busybox.read_bytes(), 0o755)
    return writer.finish()


def kernel(package: str, architecture: str = "amd64") -> Path:
    return package_file(package, r"boot/vmlinuz-.*", architecture)


def linux_disk(
    package: str, architecture: str, append: str = "", **options: Any
) -> Callable[[Path], Media]:
    """A kernel and its initial RAM disk on a disk that boots by GRUB."""

    def make(folder: Path) -> Media:
        files = {
            "/boot/vmlinuz": kernel(package, architecture),
            "/boot/initrd": initrd(architecture),
        }
        config = _MENU.format(commands=_LINUX.format(append=append))
        disk = grub_disk(folder / "disk.img", files, config)
        return {"disks": [f"{disk},ephemeral"], "memory": "512M", **options}

    return make


def xen_disk(folder: Path) -> Media:
    """The Xen hypervisor with Linux as its first domain."""
    xen = package_file("xen-hypervisor-4.17-amd64", r"boot/xen-4\.17-amd64\.gz")
    files: dict[str, bytes | Path] = {
        # GRUB would unpack it several times over.
        "/boot/xen": gzip.decompress(xen.read_bytes()),
        "/boot/vmlinuz": kernel("linux-image-amd64"),
        "/boot/initrd": initrd("amd64"),
    }
    commands = (
        "multiboot2 /boot/xen placeholder com1=115200,8n1 console=com1,vga dom0_mem=300M\n"
        "module2 /boot/vmlinuz placeholder console=hvc0\n"
        "module2 /boot/initrd"
    )
    disk = grub_disk(folder / "xen.img", files, _MENU.format(commands=commands))
    return {"disks": [f"{disk},ephemeral"], "memory": "768M"}


def invaders_disk(folder: Path) -> Media:
    game = package_file("grub-invaders", r"boot/invaders\.exec")
    config = _MENU.format(commands="multiboot /boot/invaders")
    disk = grub_disk(folder / "disk.img", {"/boot/invaders": game}, config)
    return {"disks": [f"{disk},ephemeral"], "memory": "128M"}


def grub_says(folder: Path, interface: str) -> Media:
    config = _MENU.format(commands="echo grub speaks; sleep 600")
    disk = grub_disk(folder / "disk.img", {}, config)
    return {"disks": [f"{disk},ephemeral,if={interface}"], "memory": "64M"}


def program(name: str) -> Guest:
    """A program of ours for the boot sector of a floppy disk."""

    def make(folder: Path) -> Media:
        image = folder / f"{name}.img"
        command = ["nasm", "-f", "bin", "-o", image, f"{name}.asm"]
        subprocess.run(command, check=True, capture_output=True, cwd=PROGRAMS)
        return {"floppies": [f"{image},readonly"], "memory": "64M"}

    return Guest(
        name=name,
        machine=make,
        steps=(Shows("all as documented", on="debug", never="not as documented"),),
        exit_status=0,
    )


def uefi_iso(folder: Path) -> Media:
    config = _MENU.format(commands="echo grub speaks; sleep 600")
    return {"firmware": "uefi", "cdroms": [grub_iso(folder / "grub.iso", {}, config)]}


def syslinux_floppy(folder: Path) -> Media:
    """A floppy disk with SYSLINUX and a configuration that only asks."""
    image = folder / "floppy.img"
    config = folder / "syslinux.cfg"
    config.write_text("SERIAL 0\nPROMPT 1\nSAY this is syslinux\nDEFAULT nothing\n")
    commands = (
        ["mformat", "-C", "-i", image, "-f", "1440", "::"],
        ["mcopy", "-i", image, config, "::/syslinux.cfg"],
        ["syslinux", "--install", image],
    )
    for command in commands:
        subprocess.run(command, check=True, capture_output=True)
    return {"floppies": [image], "memory": "64M"}


def cdrom(package: str, path: str, **options: Any) -> Callable[[Path], Media]:
    return lambda folder: {"cdroms": [package_file(package, path)], **options}


def memtest(bits: str) -> Guest:
    """memtest86+ from its CD-ROM, until it tests memory; two minutes of it with ``--soak``."""
    path = rf"usr/lib/memtest86\+/memtest86\+{bits}\.iso"
    return Guest(
        name=f"memtest-{bits}",
        machine=cdrom("memtest86+", path, memory="64M"),
        steps=(
            Shows("Memtest86+ v6"),
            Presses("enter"),
            Shows(re.compile(r"Pass +[1-9]\d*%"), never="FAIL"),
            Shows("Errors: 0"),
        ),
        limit=90,
    )


SHELL = "machine {} has a shell"

SYSTEMS = (
    program("real"),
    program("v86"),
    program("tasks"),
    Guest(
        name="grub-floppy",
        machine=lambda folder: {
            "floppies": [package_file("grub-rescue-pc", r".*/grub-rescue-floppy\.img")]
        },
        steps=(
            Shows("GNU GRUB"),
            Presses("c"),
            Shows("grub>"),
            Types("echo a$grub_cpu\n"),
            Shows("ai386"),
        ),
    ),
    Guest(
        name="grub-cdrom",
        machine=cdrom("grub-rescue-pc", r".*/grub-rescue-cdrom\.iso"),
        steps=(Shows("GNU GRUB"), Presses("c"), Shows("grub>"), Types("ls\n"), Shows("(cd")),
    ),
    Guest(
        name="grub-ahci",
        machine=lambda folder: grub_says(folder, interface="ahci"),
        steps=(Shows("grub speaks"),),
    ),
    Guest(
        name="grub-uefi",
        machine=uefi_iso,
        steps=(Shows("grub speaks", on="serial"),),
        limit=120,
    ),
    memtest("x64"),
    memtest("ia32"),
    Guest(
        name="ipxe",
        machine=cdrom("ipxe", r"usr/lib/ipxe/ipxe\.iso"),
        steps=(Shows("iPXE initialising devices...ok"), Shows("Features:")),
    ),
    Guest(
        name="syslinux-floppy",
        machine=syslinux_floppy,
        steps=(Shows("this is syslinux"), Shows("boot:", on="serial")),
    ),
    Guest(
        name="linux-686",
        machine=linux_disk("linux-image-686", "i386"),
        steps=(Shows(SHELL.format("i686"), on="serial", never="Kernel panic"),),
        limit=120,
    ),
    Guest(
        name="linux-686-pae",
        machine=linux_disk("linux-image-686-pae", "i386"),
        steps=(Shows(SHELL.format("i686"), on="serial", never="Kernel panic"),),
        limit=120,
    ),
    Guest(
        name="linux-amd64",
        machine=linux_disk("linux-image-amd64", "amd64"),
        steps=(Shows(SHELL.format("x86_64"), on="serial", never="Kernel panic"),),
        limit=120,
    ),
    Guest(
        name="xen",
        machine=xen_disk,
        steps=(
            Shows("(XEN)", on="serial", never="Panic on CPU"),
            Shows(SHELL.format("x86_64"), on="serial", never="Panic on CPU"),
        ),
        limit=240,
    ),
    Guest(
        name="invaders",
        machine=invaders_disk,
        steps=(Shows("-*-"), Presses("spacebar")),
        tags=frozenset({"soak"}),
    ),
    Guest(
        name="u-boot",
        machine=lambda folder: {
            "firmware": str(package_file("u-boot-qemu", r"usr/lib/u-boot/qemu-x86_64/u-boot\.rom"))
        },
        steps=(
            Shows("Hit any key", on="serial"),
            Types(" ", on="serial"),
            Shows("=>", on="serial"),
        ),
        tags=frozenset({"soak"}),
    ),
)
