"""``bench disk``: how fast a guest reads its disk, one byte after the other."""

import argparse
import os
import tarfile
import tempfile
from pathlib import Path

from bench import platforms, report
from ringfence import images
from ringfence.images.modules import add_modules

READ = (
    "n=0; until test -b /dev/sda || test $n = 20; do sleep 0.1; n=$((n+1)); done; "
    "test -b /dev/sda && echo 3 >/proc/sys/vm/drop_caches; a=$(cut -d' ' -f1 /proc/uptime); "
    "dd if=/dev/sda of=/dev/null bs=1M 2>/dev/null; cut -d' ' -f1 /proc/uptime; echo $a"
)
CONTROLLERS = ("ide", "ahci")
QEMU_DRIVE = {
    "ide": ("-drive", "file={},format=raw,if=ide"),
    "ahci": (
        *("-device", "ahci,id=ahci", "-drive", "file={},format=raw,if=none,id=disk"),
        *("-device", "ide-hd,drive=disk,bus=ahci.0"),
    ),
}


def main(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints it."""
    image = images.ensure(options.image)
    assert image.initrd is not None
    chosen = [name for name in options.platforms if name in ("ringfence", "qemu-tcg")]
    series = report.Series(chosen, higher=True)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        disk, initrd = Path(folder) / "disk.img", Path(folder) / "initrd"
        with disk.open("wb") as file:
            for _ in range(options.size):
                file.write(os.urandom(1 << 20))
        modules = add_modules(image.modules.read_bytes(), CONTROLLERS)
        drivers = [name for name in CONTROLLERS if _has_driver(image, name)]
        initrd.write_bytes(image.initrd.read_bytes() + modules)
        for controller in drivers:
            for name in chosen:
                try:
                    with _platform(name, image, initrd, disk, controller, options) as guest:
                        for _ in range(options.runs):
                            end, start = guest.run(READ).split()
                            speed = options.size / max(float(end) - float(start), 0.01)
                            report.note(f"{controller}: {name}: {speed:.0f} MiB/s")
                            series.add(f"{controller}_read", "MiB/s", name, speed)
                except platforms.UnavailableError as reason:
                    report.note(f"{name}: left out: {reason}")
                except (*platforms.FAILURES, ValueError) as error:
                    report.note(f"FAILED: {name}: {error}")
                    failed = True
    report.show(series, as_json=options.json)
    return 1 if failed or not series.values else 0


def _has_driver(image: images.Image, controller: str) -> bool:
    """Whether the image has a driver: the cloud kernel has none for AHCI."""
    name = {"ide": "ata_piix", "ahci": "ahci"}[controller]
    with tarfile.open(image.modules) as archive:
        return name in archive.getnames()


def _platform(
    name: str,
    image: images.Image,
    initrd: Path,
    disk: Path,
    controller: str,
    options: argparse.Namespace,
) -> platforms.Platform:
    """A guest with the disk on this controller."""
    if name == "qemu-tcg":
        more = [word.format(disk) for word in QEMU_DRIVE[controller]]
        return platforms.Qemu(image, initrd, memory=options.memory, cpu=options.qemu_cpu, more=more)
    return platforms.Ringfence(
        image,
        initrd,
        memory=options.memory,
        engine=options.engine,
        disks=[f"{disk},if={controller}"],
    )
