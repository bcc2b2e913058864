"""Real kernels boot: a table of image, machine, awaited text and time limit."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import ringfence
from support import guests


@dataclass(frozen=True)
class Boot:
    """One boot. ``limit`` is in seconds."""

    kernel: str
    memory: str
    append: str = ""
    text: str = "Run /init as init process"
    limit: float = 60

    def __str__(self) -> str:
        return f"{self.kernel}-{self.memory}{'-' if self.append else ''}{self.append}"


BOOTS = [
    Boot("cloud", "128M"),
    Boot("cloud", "512M"),
    Boot("cloud", "3G"),
    Boot("cloud", "8G"),
    Boot("cloud", "512M", append="nokaslr"),
    Boot("cloud", "512M", append="noapic"),
    Boot("cloud", "512M", append="nolapic acpi=off"),
    Boot("cloud", "512M", append="nox2apic clocksource=acpi_pm"),
    Boot("cloud-vmlinux", "512M"),
    Boot("generic", "512M", limit=90),
    Boot("generic-vmlinux", "512M", limit=90),
]

IMAGES = {"cloud": "debian", "generic": "debian-generic"}


def kernel_file(name: str) -> Path:
    flavour, _, form = name.partition("-")
    kernel = guests.image(IMAGES[flavour]).kernel
    return guests.vmlinux(kernel) if form == "vmlinux" else kernel


@pytest.mark.parametrize("boot", BOOTS, ids=str)
def test_boot(debian: str, boot: Boot) -> None:
    with ringfence.VM(
        kernel=kernel_file(boot.kernel),
        initrd=guests.image(debian).initrd,
        memory=boot.memory,
        append=f"console=ttyS0 {boot.append}",
        timeout=boot.limit,
    ) as vm:
        vm.console.expect("Linux version 6.", timeout=boot.limit)
        vm.console.expect(boot.text, timeout=boot.limit)


def test_memory_is_the_guests(debian: str) -> None:
    for memory, low, high in [("128M", 80, 128), ("1G", 900, 1024), ("8G", 7700, 8192)]:
        with ringfence.VM(debian, memory=memory, timeout=90) as vm:
            text = vm.run("grep MemTotal /proc/meminfo").check().stdout
            assert low < int(text.split()[1]) / 1024 <= high, text


def test_userland_works(debian: str) -> None:
    with ringfence.VM(debian, timeout=120) as vm:
        assert vm.run("uname -sm").check().stdout == "Linux x86_64\n"
        assert vm.run("echo $((6*7))").check().stdout == "42\n"
        assert vm.run("printf abc | sha256sum").check().stdout.startswith("ba7816bf8f01cfea")
        assert vm.run("awk 'BEGIN { printf \"%.6f\", 1e9 / 7 }'").stdout == "142857142.857143"
        assert vm.run("seq 1000 | gzip -9 | gunzip | tail -n 1").check().stdout == "1000\n"
        assert vm.run("dmesg | grep -c -E 'BUG:|WARNING:|Call Trace'").stdout == "0\n"


def test_time_passes_as_on_the_host(debian: str) -> None:
    with ringfence.VM(debian, timeout=120) as vm:
        uptimes = vm.run(
            "date +%s; cut -d ' ' -f 1 /proc/uptime; sleep 2; cut -d ' ' -f 1 /proc/uptime"
        )
        _, before, after = uptimes.check().stdout.split()
        assert 1.9 < float(after) - float(before) < 4


def test_idle_memory_and_processor(debian: str) -> None:
    script = Path(guests.__file__).with_name("idle.py")
    done = subprocess.run(
        [sys.executable, script, debian, "4G"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    resident, processor = done.stdout.split()
    assert int(resident) < 300 << 10, f"{resident} KiB resident"
    assert float(processor) < 0.5, f"{processor} of a processor while idle"
