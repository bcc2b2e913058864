"""Virtio devices as Linux drives them: over PCI on the board pc, over MMIO on micro."""

import hashlib
import time
from pathlib import Path

import pytest

import ringfence
from ringfence.devices.virtio.balloon import Balloon
from ringfence.net import cable
from support import guests
from support.peer import Peer

MIB = 1 << 20


@pytest.mark.parametrize(("board", "packed"), [("pc", "off"), ("pc", "on"), ("micro", "off")])
def test_devices(board: str, packed: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(range(256)) * (MIB // 64))
    ours, theirs = cable()
    peer = Peer(ours)
    with ringfence.VM(
        guests.image("debian").name,
        board=board,
        disks=[f"{disk},if=virtio"],
        nets=["wire,model=virtio-net,mac=52:54:00:12:34:56"],
        networks={"wire": theirs},
        devices=[f"virtio-rng,packed={packed}", f"virtio-console,ports=log+other,packed={packed}"],
        timeout=90,
    ) as vm:
        script = (
            "ip addr add 10.9.0.2/24 dev eth0 && ip link set eth0 up && "
            "ping -c 3 -i 0.1 -W 5 -s 1400 10.9.0.1 >/dev/null && "
            "head -c 4 /dev/hwrng | wc -c && cat /sys/block/vda/serial && echo && "
            "cat /sys/class/virtio-ports/*/name && "
            "for port in /dev/vport*p1; do echo hello >$port; done && "
            "dd if=/dev/vda bs=64k count=64 2>/dev/null | sha256sum && "
            "dd if=/dev/zero of=/dev/vda bs=4k seek=1 count=1 conv=fsync 2>/dev/null"
        )
        words = vm.run(script, check=True).stdout.split()
        assert vm.machine.stream("other").receive(5) == b"hello\n"
    peer.close()
    assert words[:4] == ["4", "disk0", "log", "other"]
    assert words[4] == hashlib.sha256(bytes(range(256)) * (MIB // 64)).hexdigest()
    content = disk.read_bytes()
    assert not any(content[4096:8192])
    assert content[8192:8448] == bytes(range(256))
    assert peer.pings == 3
    assert not peer.bad


def resident() -> int:
    """Bytes of this process that are in the host's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_balloon_and_reporting_give_memory_back() -> None:
    with ringfence.VM(
        guests.image("debian").name, memory="1G", devices=["virtio-balloon"], timeout=90
    ) as vm:
        board = vm.machine.board
        assert board is not None
        (balloon,) = [
            device
            for _, function in board.pci_bus.functions()
            if isinstance(device := getattr(function, "device", None), Balloon)
        ]
        vm.run("head -c 500000000 /dev/zero >/tmp/full", check=True)
        full = resident()
        vm.run("rm /tmp/full", check=True)
        deadline = time.monotonic() + 30
        while resident() > full - 300 * MIB:
            assert time.monotonic() < deadline, "reported pages did not come back"
            time.sleep(0.2)
        before = vm.run("grep MemFree /proc/meminfo", check=True).stdout.split()
        vm.machine.balloon(256 * MIB)
        while balloon.actual * 4096 < 256 * MIB:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        after = vm.run("grep MemFree /proc/meminfo", check=True).stdout.split()
        assert int(before[1]) - int(after[1]) > 200 * 1024
        vm.machine.balloon(0)


def test_paravirtual_clock() -> None:
    """The clock of KVM's interface keeps the host's time, in every processor."""
    with ringfence.VM(guests.image("debian").name, cpus=2, cpu="host,+kvm", timeout=90) as vm:
        source = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
        vm.run(f"echo kvm-clock >{source} && grep -q kvm-clock {source}", check=True)
        start, here = float(vm.run("cat /proc/uptime").stdout.split()[0]), time.monotonic()
        vm.run("taskset 1 date >/dev/null; taskset 2 date; sleep 1")
        end, there = float(vm.run("cat /proc/uptime").stdout.split()[0]), time.monotonic()
        assert abs((end - start) - (there - here)) < 0.5
        assert abs(int(vm.run("date +%s").stdout) - time.time()) < 3
        assert "kvm-guest: PV spinlocks enabled" in vm.run("dmesg").stdout
