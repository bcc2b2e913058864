"""Disks, CD-ROMs and floppies as a Linux guest sees them."""

import hashlib
import os
import subprocess
from pathlib import Path
from shutil import which

import pytest

import ringfence
from ringfence.errors import ImageInUse

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(os.urandom(8 * MIB))
    return path


def digest(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.mark.parametrize("mode", ["dma", "pio"])
def test_a_guest_reads_and_writes_its_disk(debian: str, disk: Path, mode: str) -> None:
    append = "libata.dma=0" if mode == "pio" else ""
    with ringfence.VM(debian, disks=[disk], append=append, engine="bt", timeout=120) as vm:
        assert vm.run("md5sum </dev/sda").check().stdout.split()[0] == digest(disk)
        vm.run("seq 100000 | dd of=/dev/sda bs=64k seek=3 conv=fsync").check()
        assert vm.run("dmesg | grep -c 'I/O error'").stdout == "0\n"
        with pytest.raises(ImageInUse):
            ringfence.VM(debian, disks=[disk], engine="bt").start()
    written = "".join(f"{n}\n" for n in range(1, 100001)).encode()
    assert disk.read_bytes()[3 << 16 : (3 << 16) + len(written)] == written


def test_media_are_changed_while_the_guest_runs(debian: str, disk: Path, tmp_path: Path) -> None:
    if which("xorriso") is None:
        pytest.skip("xorriso is not installed")
    discs = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "name").write_text(name)
        discs.append(tmp_path / f"{name}.iso")
        command = ["xorriso", "-as", "mkisofs", "-quiet", "-o", discs[-1], folder]
        subprocess.run(command, check=True, capture_output=True)
    read = "mount -o ro -t iso9660 /dev/sr0 /mnt && cat /mnt/name; umount /mnt"
    with ringfence.VM(
        debian, disks=[f"{disk},ephemeral"], cdroms=[discs[0]], engine="bt", timeout=120
    ) as vm:
        vm.run("mkdir -p /mnt").check()
        assert vm.run(read).stdout == "first"
        vm.insert("cdrom", discs[1])
        assert vm.run(read).stdout == "second"
        assert vm.eject("cdrom0")
        assert vm.run(f"({read}) 2>&1").stdout != "second"
        before = digest(disk)
        vm.run("dd if=/dev/zero of=/dev/sda bs=1M count=1 conv=fsync").check()
    assert digest(disk) == before, "what an ephemeral disk is told is forgotten"
