"""``bench firmware``: from power-on to what firmware does at its end.

SeaBIOS until it attempts to boot, as it says on its debug port; OVMF until its boot manager
speaks on the serial line. Both run with a VGA and without disks. The time begins when the
machine is let run: the start of a process is in none of them.
"""

import argparse
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench import platforms, report
from ringfence import VM
from ringfence.machine.firmware import find_firmware

TIMEOUT_SECONDS = 120.0


class Case(NamedTuple):
    """A firmware and what shows that it is done."""

    firmware: str
    text: str
    #: The text comes on the debug port rather than the serial line.
    debug_port: bool


CASES = {
    "seabios": Case("bios", "enter handle_19", debug_port=True),
    "ovmf": Case("uefi", "BdsDxe", debug_port=False),
}


def main(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints it."""
    chosen = [name for name in options.platforms if name in RUNNERS]
    if shutil.which(platforms.QEMU) is None and "qemu-tcg" in chosen:
        report.note("qemu-tcg: left out: it is not installed")
        chosen.remove("qemu-tcg")
    series = report.Series(chosen, higher=False)
    for name in options.cases or CASES:
        if name not in CASES:
            report.note(f"there is no firmware {name!r}; there are {', '.join(CASES)}")
            return 2
        for _ in range(options.runs):
            for platform in chosen:
                took = RUNNERS[platform](CASES[name], options)
                series.add(name, "s", platform, took)
    report.show(series, as_json=options.json)
    return 0


def ours(case: Case, options: argparse.Namespace) -> float:
    """Seconds that Ringfence takes."""
    vm = VM(
        firmware=case.firmware,
        memory=options.memory,
        display="vga",
        engine=options.engine,
        timeout=TIMEOUT_SECONDS,
    )
    start = time.perf_counter()
    with vm:
        console = vm.firmware_log if case.debug_port else vm.console
        console.expect(case.text, timeout=TIMEOUT_SECONDS)
        return time.perf_counter() - start


def qemu(case: Case, options: argparse.Namespace) -> float:
    """Seconds that QEMU takes, from ``cont`` on."""
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "control"
        command = [
            *(platforms.QEMU, "-accel", "tcg", "-M", "pc", "-nodefaults", "-vga", "std"),
            *("-display", "none", "-m", options.memory, "-cpu", options.qemu_cpu, "-S"),
            *("-qmp", f"unix:{control},server=on,wait=off", "-chardev", "stdio,id=out"),
        ]
        if case.debug_port:
            command += ["-device", "isa-debugcon,iobase=0x402,chardev=out"]
        else:
            command += ["-serial", "chardev:out"]
        if case.firmware == "uefi":
            image = find_firmware("uefi", None)()
            for unit, contents in enumerate((image.code, image.variables.load())):
                file = Path(folder) / f"flash{unit}"
                file.write_bytes(contents)
                command += ["-drive", f"if=pflash,unit={unit},format=raw,file={file}"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            try:
                _let_run(control)
                start = time.perf_counter()
                seen = b""
                while case.text.encode() not in seen:
                    part = process.stdout.read1(4096)
                    if not part:
                        raise RuntimeError("QEMU ended before the firmware was done")
                    seen = seen[-100:] + part
                return time.perf_counter() - start
            finally:
                process.kill()


def _let_run(control: Path) -> None:
    """Connects to QEMU's monitor, which comes up after a while, and lets the machine run."""
    deadline = time.monotonic() + 10
    while not control.exists():
        if time.monotonic() > deadline:
            raise RuntimeError("QEMU's monitor did not come up")
        time.sleep(0.01)
    with socket.socket(socket.AF_UNIX) as monitor, monitor.makefile("rw") as lines:
        monitor.connect(str(control))
        lines.readline()
        for command in ("qmp_capabilities", "cont"):
            lines.write(json.dumps({"execute": command}) + "\n")
            lines.flush()
            lines.readline()


RUNNERS: dict[str, Callable[[Case, argparse.Namespace], float]] = {
    "ringfence": ours,
    "qemu-tcg": qemu,
}
