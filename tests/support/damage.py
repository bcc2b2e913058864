"""Boots damaged kernels, initial RAM disks and command lines; prints how each one ended.

Usage: damage.py KERNEL INITRD FIRST COUNT

One line a seed: the seed, what was damaged, how it ended, and resident KiB afterwards. Runs in a
process of its own, so that a crash of the monitor is seen as such.
"""

import contextlib
import ctypes
import random
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ringfence

# Long enough for what runs into the kernel's own code; a guest that lives on is stopped.
SECONDS = 3
WORDS = [
    "console=ttyS0",
    "console=ttyS9",
    "earlyprintk=serial",
    "mem=0",
    "mem=17M",
    "mem=999G",
    "memmap=4G$0",
    "nosmp",
    "noapic",
    "nolapic",
    "acpi=off",
    "acpi=force",
    "pci=off",
    "maxcpus=0",
    "nr_cpus=64",
    "init=/nowhere",
    "rdinit=/nowhere",
    "root=",
    "panic=-1",
    "loglevel=9",
    "initcall_debug",
    "nokaslr",
    "kaslr",
    "tsc=unstable",
    "clocksource=pit",
    "lpj=1",
    "hpet=force",
    "apic=debug",
    "x2apic",
    "nox2apic",
    "noexec=off",
    "clearcpuid=156",
    "nopti",
    "pti=on",
    "mitigations=off",
    "hugepages=9999",
    "reboot=t",
    "reboot=k",
    "idle=poll",
    "idle=halt",
    "nohz=off",
    "highres=off",
    "log_buf_len=99G",
    "crashkernel=999M",
]


@dataclass
class Case:
    """What one seed boots."""

    kind: str
    kernel: bytes
    initrd: bytes
    append: str = "console=ttyS0 panic=-1"


def case(seed: int, kernel: bytes, initrd: bytes) -> Case:
    """The damage of one seed."""
    rng = random.Random(seed)
    kind = ("header", "kernel", "short-kernel", "initrd", "short-initrd", "append")[seed % 6]
    damaged = Case(kind, kernel, initrd)
    if kind == "header":
        damaged.kernel = flipped(kernel, rng, 0x1F1, 0x290)
    elif kind == "kernel":
        damaged.kernel = flipped(kernel, rng, 0, len(kernel))
    elif kind == "short-kernel":
        damaged.kernel = kernel[: rng.choice([rng.randrange(2048), rng.randrange(len(kernel))])]
    elif kind == "initrd":
        damaged.initrd = flipped(initrd, rng, 0, len(initrd))
    elif kind == "short-initrd":
        damaged.initrd = initrd[: rng.randrange(len(initrd))]
    else:
        words = rng.choices(WORDS, k=rng.randrange(1, 12))
        noise = "".join(chr(rng.randrange(1, 0x250)) for _ in range(rng.randrange(64)))
        damaged.append = " ".join([*words, noise, "x" * rng.choice([0, 0, 100, 5000])])
    return damaged


def flipped(data: bytes, rng: random.Random, start: int, end: int) -> bytes:
    """``data`` with some bits of ``start`` to ``end`` flipped, few or many."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 4, 64, 4096])):
        result[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    return bytes(result)


def outcome(damaged: Case, folder: Path) -> str:
    """How a boot ended, in a word."""
    kernel, initrd = folder / "kernel", folder / "initrd"
    kernel.write_bytes(damaged.kernel)
    initrd.write_bytes(damaged.initrd)
    try:
        with ringfence.VM(
            kernel=kernel, initrd=initrd, append=damaged.append, memory="128M", timeout=SECONDS
        ) as vm:
            vm.wait()
    except ringfence.RingfenceError as error:
        return error.code
    return "powered-off"


def resident() -> int:
    """Resident KiB of this process, without what the allocator keeps for later."""
    ctypes.CDLL(None).malloc_trim(0)
    match = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text("ascii"))
    assert match
    return int(match[1])


def main() -> None:
    kernel, initrd = (Path(name).read_bytes() for name in sys.argv[1:3])
    first, count = int(sys.argv[3]), int(sys.argv[4])
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(KeyboardInterrupt):
        for seed in range(first, first + count):
            damaged = case(seed, kernel, initrd)
            print(seed, damaged.kind, outcome(damaged, Path(folder)), resident(), flush=True)


if __name__ == "__main__":
    main()
