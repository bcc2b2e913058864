"""``bench start``: how long a monitor takes from nothing to the guest's first instruction.

The guest is a kernel whose first instructions leave through the debug-exit port, so all of the
time is the monitor's: its own start, making the machine, and its end. Whole processes, on the
host's clock.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import platforms, report
from ringfence.testing import pvh_kernel

# mov al, 0; out 0xf4, al; jmp $
LEAVE = bytes.fromhex("b000 e6f4 ebfe")
DEBUG_EXIT = "isa-debug-exit,iobase=0xf4,iosize=1"
# What QEMU makes of a zero: (value << 1) | 1.
QEMU_STATUS = 1


def main(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints it."""
    chosen = [name for name in options.platforms if name in ("ringfence", "qemu-tcg")]
    if shutil.which(platforms.QEMU) is None and "qemu-tcg" in chosen:
        report.note("qemu-tcg: left out: it is not installed")
        chosen.remove("qemu-tcg")
    series = report.Series(chosen, higher=False)
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "kernel"
        kernel.write_bytes(pvh_kernel(LEAVE))
        for _ in range(options.runs):
            for name in chosen:
                command, status = commands(kernel, options)[name]
                start = time.perf_counter()
                done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
                took = time.perf_counter() - start
                if done.returncode != status:
                    report.note(f"FAILED: {name}: {done.stderr.decode().strip()}")
                    return 1
                series.add("start_to_end", "s", name, took)
    report.show(series, as_json=options.json)
    return 0


def commands(kernel: Path, options: argparse.Namespace) -> dict[str, tuple[list[str], int]]:
    """The command of each monitor, and the status it ends with."""
    ringfence = [sys.executable, "-m", "ringfence", "run", "--kernel", str(kernel)]
    qemu = [
        *(platforms.QEMU, "-accel", "tcg", "-nodefaults", "-display", "none"),
        *("-device", DEBUG_EXIT, "-m", options.memory, "-kernel", str(kernel)),
    ]
    return {
        "ringfence": ([*ringfence, "--memory", options.memory], 0),
        "qemu-tcg": (qemu, QEMU_STATUS),
    }
