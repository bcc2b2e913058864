"""The least that ``ringfence run`` can be asked for; ``python -m bench start`` times it."""

import subprocess
from pathlib import Path

import pytest

from ringfence.testing import pvh_kernel
from support import guests
from support.monitor import RINGFENCE


@pytest.mark.parametrize("image", [[], ["debian"]], ids=["kernel", "image"])
def test_a_kernel_that_leaves_at_once(debian: str, tmp_path: Path, image: list[str]) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(pvh_kernel(guests.LEAVE))
    command = [*RINGFENCE, "run", *image, "--kernel", str(kernel), "--memory", "4G"]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True, timeout=60)
