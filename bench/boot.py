"""``bench boot``: how long a machine takes from nothing to its first command.

``boot_to_command`` is on the host's clock, from the start of the monitor's process (interpreter
and imports included) to the answer of the first command. ``kernel_to_init`` is on the guest's
clock, from the kernel's start to its first process.
"""

import argparse
import re
import subprocess
import sys
import time

from bench import platforms, report
from ringfence import images
from ringfence.errors import RingfenceError

INIT_COMMAND = "dmesg | grep 'Run /init'"
INIT_LINE = re.compile(r"\[ *([0-9.]+)\]")
# A process of its own, as QEMU is one.
RINGFENCE_SCRIPT = """
import sys
import ringfence
with ringfence.VM(sys.argv[1], memory=sys.argv[2], engine=sys.argv[3]) as vm:
    print(vm.run(sys.argv[4]).stdout, flush=True)
    sys.stdin.read()
"""


def main(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints it."""
    image = images.ensure(options.image)
    measures = {"ringfence": measure_ringfence, "qemu-tcg": measure_qemu}
    chosen = [name for name in options.platforms if name in measures]
    series = report.Series(chosen, higher=False)
    failed = False
    for run in range(options.runs):
        for name in list(chosen):
            try:
                measured = measures[name](image, options)
            except platforms.UnavailableError as reason:
                report.note(f"{name}: left out: {reason}")
                chosen.remove(name)
                series.platforms.remove(name)
                continue
            except (*platforms.FAILURES, ValueError) as error:
                report.note(f"FAILED: {name}: {error}")
                failed = True
                continue
            report.note(f"run {run + 1}: {name}: {measured[0]:.3f} s")
            series.add("boot_to_command", "s", name, measured[0])
            series.add("kernel_to_init", "s", name, measured[1])
    report.show(series, as_json=options.json)
    return 1 if failed or not series.values else 0


def measure_qemu(image: images.Image, options: argparse.Namespace) -> tuple[float, float]:
    """Seconds to the first command's answer, and to the kernel's first process."""
    assert image.initrd is not None
    guest = platforms.Qemu(image, image.initrd, memory=options.memory, cpu=options.qemu_cpu)
    start = time.monotonic()
    with guest:
        log = guest.run(INIT_COMMAND)
        took = time.monotonic() - start
    return took, init_time(log)


def measure_ringfence(image: images.Image, options: argparse.Namespace) -> tuple[float, float]:
    """The same for Ringfence."""
    platforms.Ringfence(image, image.kernel)  # is it here at all?
    script = [RINGFENCE_SCRIPT, image.name, options.memory, options.engine, INIT_COMMAND]
    start = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-c", *script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        took = time.monotonic() - start
        _, errors = process.communicate("", timeout=platforms.BOOT_TIMEOUT_SECONDS)
    if process.returncode or not line.strip():
        reason = errors.strip().splitlines()
        raise RingfenceError(reason[-1] if reason else "it printed nothing")
    return took, init_time(line)


def init_time(log: str) -> float:
    """Seconds on the guest's clock at which the kernel started its first process."""
    found = INIT_LINE.search(log)
    if found is None:
        raise ValueError(f"no kernel message about the first process in {log!r}")
    return float(found[1])
