"""The work program: ``bench/guest``, built with the host's compiler, run natively and in guests."""

import hashlib
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ringfence import images
from ringfence.images.cpio import overlay

SOURCES = Path(__file__).parent / "guest"
COMPILER = "gcc"
# No contraction and no automatic vectors: every host must compile the same work.
FLAGS = ("-O2", "-static", "-std=gnu11", "-ffp-contract=off", "-fno-tree-vectorize")
GUEST_PATH = "bin/work"


@dataclass(frozen=True, slots=True)
class Rate:
    """What one measurement gave: ``value`` per second in ``unit``."""

    name: str
    value: float
    unit: str


@cache
def program() -> Path:
    """The compiled program, in the cache under the hash of its sources."""
    sources = sorted(SOURCES.glob("*.[ch]"))
    text = b"".join(path.read_bytes() for path in sources) + " ".join(FLAGS).encode()
    target = images.cache_folder() / "bench" / f"work-{hashlib.sha256(text).hexdigest()[:16]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".part")
        files = [str(path) for path in sources if path.suffix == ".c"]
        subprocess.run([COMPILER, *FLAGS, "-o", str(partial), *files], check=True)
        partial.replace(target)
    return target


def initrd(image: images.Image) -> Path:
    """The image's initial RAM disk with the work program appended."""
    assert image.initrd is not None
    target = program().with_suffix(f".{image.recipe}.img")
    if not target.exists():
        partial = target.with_suffix(".part")
        added = overlay({GUEST_PATH: program().read_bytes()})
        partial.write_bytes(image.initrd.read_bytes() + added)
        partial.replace(target)
    return target


def names() -> list[str]:
    """All workloads, in the program's order."""
    listing = subprocess.run([program(), "--list"], check=True, capture_output=True, text=True)
    return [line.split()[0] for line in listing.stdout.splitlines()]


def parse_rate(line: str) -> Rate:
    """One line that the program printed."""
    name, value, unit = line.split()
    return Rate(name, float(value), unit)
