"""``bench screen``: what drawing costs, with nobody watching and with a viewer.

A boot sector draws for ever and tells how long a batch of frames took. ``plain`` draws in ordinary
memory of a machine without a display; ``nobody`` on a screen that nobody looks at; ``viewer`` with
a VNC viewer that takes every update. Ratios are of one run.
"""

import argparse
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import platforms, report
from ringfence import VM

CASES = {"text": 4000, "pixels": 50}
_WARM_UP, _BATCHES = 1.0, 5
_TICK = os.sysconf("SC_CLK_TCK")


def main(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints it."""
    if shutil.which("nasm") is None:
        report.note("nasm is not installed")
        return 1
    names = ["ringfence"]
    if shutil.which(platforms.QEMU) is not None and "qemu-tcg" in options.platforms:
        names.append("qemu-tcg")
    cost = report.Series(names, higher=False)
    rate = report.Series(names, higher=True)
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            disks = {plain: _assemble(Path(folder), case, plain) for plain in (True, False)}
            for _ in range(options.runs):
                for name in names:
                    _measure(name, case, disks, options, cost, rate)
    report.show(cost, as_json=options.json)
    report.show(rate, as_json=options.json)
    return 0


def _measure(
    name: str,
    case: str,
    disks: dict[bool, Path],
    options: argparse.Namespace,
    cost: report.Series,
    rate: report.Series,
) -> None:
    machine = _ringfence if name == "ringfence" else _qemu
    with machine(disks[True], display=False) as guest:
        plain = guest.ticks(options.seconds)
    with machine(disks[False], display=True) as guest:
        nobody = guest.ticks(options.seconds)
        used = guest.processor_time()
        watcher = subprocess.Popen(
            [sys.executable, __file__, str(guest.port), str(options.seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        watched = guest.ticks(options.seconds)
        said, _ = watcher.communicate()
        used = guest.processor_time() - used
    cost.add(f"{case}: nobody watches", "x plain", name, nobody / plain)
    cost.add(f"{case}: a viewer", "x plain", name, watched / plain)
    cost.add(f"{case}: processor with a viewer", "s/s", name, used / options.seconds)
    rate.add(f"{case}: viewer", "frames/s", name, float(said))


def _assemble(folder: Path, case: str, plain: bool) -> Path:
    disk = folder / f"{case}-{plain}.img"
    source = Path(__file__).with_name("guest") / "screen.asm"
    defines = [f"-D{case.upper()}", f"-DFRAMES={CASES[case]}", *(["-DPLAIN"] if plain else [])]
    subprocess.run(["nasm", "-f", "bin", *defines, "-o", disk, source], check=True)
    with disk.open("r+b") as file:
        file.truncate(1 << 20)
    return disk


class _Guest:
    """A machine that draws."""

    def __init__(self, port: int) -> None:
        self.port = port

    def said(self) -> bytes:
        """What came at port E9h since the last call."""
        raise NotImplementedError

    def processor_time(self) -> float:
        """Seconds of processor time that it has used."""
        raise NotImplementedError

    def ticks(self, seconds: float) -> float:
        """Median of the ticks of a batch, over so many seconds."""
        deadline, text = time.monotonic() + _WARM_UP + 30, b""
        while text.count(b"\n") < _BATCHES and time.monotonic() < deadline:
            time.sleep(0.05)
            text += self.said()
        text, deadline = b"", time.monotonic() + seconds
        while time.monotonic() < deadline or text.count(b"\n") < _BATCHES:
            if time.monotonic() > deadline + 30:
                raise RuntimeError("the guest draws nothing")
            time.sleep(0.05)
            text += self.said()
        return statistics.median(int(line, 16) for line in text.split(b"\n")[1:-1])


class _Ringfence(_Guest):
    def __init__(self, vm: VM, port: int) -> None:
        super().__init__(port)
        self.vm = vm

    def said(self) -> bytes:
        self.vm.machine.flush()
        return self.vm.debug_console.receive(0.01)

    def processor_time(self) -> float:
        return time.process_time()


class _Qemu(_Guest):
    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        super().__init__(port)
        self.process = process

    def said(self) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.read() or b""

    def processor_time(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK


@contextmanager
def _ringfence(disk: Path, *, display: bool) -> Iterator[_Guest]:
    from ringfence.display.vnc import VncConfig

    with VM(disks=[f"{disk},readonly"], memory="64M", display="vga" if display else "none") as vm:
        port = vm.serve_vnc(VncConfig(port=0)).address[1] if display else 0
        yield _Ringfence(vm, port)


@contextmanager
def _qemu(disk: Path, *, display: bool) -> Iterator[_Guest]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1] if display else 0
    # Displays count from 5900 on.
    display_number = (port - 5900) % 65536
    command = [
        *(platforms.QEMU, "-accel", "tcg", "-m", "64", "-debugcon", "stdio", "-monitor", "none"),
        *("-drive", f"file={disk},format=raw,if=ide,snapshot=on"),
        *("-vga", "std" if display else "none"),
        *(("-vnc", f"127.0.0.1:{display_number}") if display else ("-display", "none")),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        try:
            yield _Qemu(process, port)
        finally:
            process.kill()


def _watch(port: int, seconds: float) -> float:
    """A viewer that takes raw updates; how many came a second."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        stream = client.makefile("rb")
        stream.read(12)
        client.sendall(b"RFB 003.008\n")
        stream.read(stream.read(1)[0])
        client.sendall(b"\1")
        stream.read(4)
        client.sendall(b"\1")
        width, height = struct.unpack(">HH", stream.read(20)[:4])
        stream.read(struct.unpack(">I", stream.read(4))[0])
        client.sendall(struct.pack(">BxHii", 2, 2, 0, 1))
        frames, start = 0, time.monotonic()
        incremental = 0
        while time.monotonic() - start < seconds:
            client.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, width, height))
            incremental = 1
            count = struct.unpack(">BxH", stream.read(4))[1]
            for _ in range(count):
                _, _, w, h, encoding = struct.unpack(">HHHHi", stream.read(12))
                stream.read(4 * w * h if encoding == 0 else 4)
            frames += 1
        return frames / (time.monotonic() - start)


if __name__ == "__main__":
    print(_watch(int(sys.argv[1]), float(sys.argv[2])))
