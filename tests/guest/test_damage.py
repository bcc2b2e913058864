"""Damaged kernels, initrds and odd command lines: a clear end, never a crash or a hang."""

import subprocess
import sys

import pytest

from support import damage, guests

WORKERS = 2
ENDS = {
    "powered-off",
    "guest-panic",
    "guest-out-of-memory",
    "guest-shutdown",
    "guest-stopped",
    "guest-timeout",
    "kernel-invalid",
    "initrd-invalid",
    "config-invalid",
}
# What one process may grow by, in KiB, over all its boots but the first.
GROWTH = 96 << 10


def run(debian: str, count: int, limit: float) -> list[str]:
    """The outcomes of seeds 0 to ``count``, from worker processes."""
    image = guests.image(debian)
    files = [image.kernel, str(image.initrd)]
    share = count // WORKERS
    workers = [
        subprocess.Popen(
            [sys.executable, damage.__file__, *files, str(n * share), str(share)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(WORKERS)
    ]
    ends = []
    for worker in workers:
        output, _ = worker.communicate(timeout=limit)
        lines = [line.split() for line in output.splitlines()]
        assert worker.returncode == 0, f"ended by {worker.returncode} after {lines[-1:]}"
        assert len(lines) == share
        sizes = [int(line[3]) for line in lines]
        assert sizes[-1] - sizes[min(6, share - 1)] < GROWTH, sizes
        ends += [line[2] for line in lines]
    return ends


def test_some(debian: str) -> None:
    ends = run(debian, 36, 170)
    assert set(ends) <= ENDS
    assert len(set(ends)) > 2


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_thousand(debian: str) -> None:
    assert set(run(debian, 1000, 7000)) <= ENDS


def test_damage_is_the_same_each_time() -> None:
    kernel, initrd = bytes(range(256)) * 64, bytes(range(256)) * 8
    for seed in range(12):
        first, second = (damage.case(seed, kernel, initrd) for _ in range(2))
        assert first == second
        assert (first.kernel, first.initrd) != (kernel, initrd) or first.kind == "append"
