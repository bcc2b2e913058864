"""Systems that nobody prepared for us, from their own boot media."""

from pathlib import Path
from shutil import which

import pytest

from ringfence.errors import ImageNotFound
from ringfence.testing import Guest, run_guest
from support.systems import SYSTEMS

TOOLS = ("mformat", "grub-mkimage", "xorriso", "syslinux", "nasm")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("guest", SYSTEMS, ids=str)
def test_system(guest: Guest, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if "soak" in guest.tags and not request.config.getoption("--soak"):
        pytest.skip("takes long: --soak")
    missing = [tool for tool in TOOLS if which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (tools/host-packages)")
    try:
        run_guest(guest, tmp_path, engine="bt")
    except ImageNotFound as error:
        pytest.skip(str(error))
