"""``bench paravirt``: the same kernel and work on transparent devices and on paravirtual ones.

``transparent`` is the board pc with an IDE disk, ``virtio`` the same board with a virtio disk and
KVM's paravirtual interface, ``micro`` the board without legacy devices; ``qemu-virtio`` is QEMU's
translator with its virtio disk. Times are those of the guest's own clock.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from bench import boot, platforms, report, work
from ringfence import images
from ringfence.images.modules import add_modules

MACHINES: dict[str, dict[str, Any]] = {
    "transparent": {"interface": "ide"},
    "virtio": {"interface": "virtio", "cpu": "host,+kvm"},
    "micro": {"interface": "virtio", "board": "micro"},
    "qemu-virtio": {},
}
WAIT = (
    "n=0; until test -b /dev/vda || test -b /dev/sda || test $n = 50; do sleep 0.1; "
    "n=$((n+1)); done; d=/dev/vda; test -b $d || d=/dev/sda; "
)
TIMED = "a=$(cut -d' ' -f1 /proc/uptime); {}; cut -d' ' -f1 /proc/uptime; echo $a"
CASES = {
    "disk_read": ("echo 3 >/proc/sys/vm/drop_caches", "dd if=$d of=/dev/null bs=1M 2>/dev/null"),
    "disk_write": ("true", "dd if=/dev/zero of=$d bs=1M count={size} conv=fsync 2>/dev/null"),
    "disk_read_4k": ("true", "dd if=$d of=/dev/null bs=4k count={count} iflag=direct 2>/dev/null"),
}


def main(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints it."""
    image = images.ensure(options.image)
    series = report.Series(list(MACHINES), higher=True)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        disk, initrd = Path(folder) / "disk.img", Path(folder) / "initrd"
        with disk.open("wb") as file:
            for _ in range(options.size):
                file.write(os.urandom(1 << 20))
        modules = add_modules(image.modules.read_bytes(), ["ide", "virtio-blk"])
        initrd.write_bytes(work.initrd(image).read_bytes() + modules)
        for name, machine in MACHINES.items():
            try:
                for _ in range(options.runs):
                    with _platform(name, machine, image, initrd, disk, options) as guest:
                        _measure(guest, name, series, options)
            except platforms.UnavailableError as reason:
                report.note(f"{name}: left out: {reason}")
            except (*platforms.FAILURES, ValueError) as error:
                report.note(f"FAILED: {name}: {error}")
                failed = True
    report.show(series, as_json=options.json)
    return 1 if failed or not series.values else 0


def _measure(
    guest: platforms.Platform, name: str, series: report.Series, options: argparse.Namespace
) -> None:
    """All cases once."""
    init = boot.init_time(guest.run(boot.INIT_COMMAND))
    series.add("boots_to_init", "1/s", name, 1 / init)
    report.note(f"{name}: {init:.2f} s to init")
    count = 64 * options.size
    for case, (before, command) in CASES.items():
        script = TIMED.format(command.format(size=options.size, count=count))
        end, start = guest.run(f"{WAIT}{before}; {script}").split()
        amount = count / 256 if case == "disk_read_4k" else options.size
        speed = amount / max(float(end) - float(start), 0.01)
        series.add(case, "MiB/s", name, speed)
        report.note(f"{name}: {case}: {speed:.0f} MiB/s")
    for case in options.cases:
        rate = work.parse_rate(guest.run(f"work --seconds {options.seconds} {case}"))
        series.add(case, rate.unit, name, rate.value)


def _platform(
    name: str,
    machine: dict[str, Any],
    image: images.Image,
    initrd: Path,
    disk: Path,
    options: argparse.Namespace,
) -> platforms.Platform:
    if name == "qemu-virtio":
        more = ("-drive", f"file={disk},format=raw,if=virtio")
        return platforms.Qemu(image, initrd, memory=options.memory, cpu=options.qemu_cpu, more=more)
    return platforms.Ringfence(
        image,
        initrd,
        memory=options.memory,
        engine=options.engine,
        disks=[f"{disk},if={machine['interface']}"],
        cpu=machine.get("cpu", "host"),
        board=machine.get("board", "pc"),
    )
