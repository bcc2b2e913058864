"""What guest tests boot."""

from pathlib import Path

import pytest

import ringfence
from ringfence import images
from support import guests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.guest)


@pytest.fixture(scope="session")
def debian() -> str:
    """The image ``debian``, fetched if it is not in the store."""
    try:
        images.ensure("debian")
    except ringfence.ImageError as error:
        pytest.skip(f"no image to boot: {error}")
    return "debian"


@pytest.fixture
def triple_fault(tmp_path: Path) -> Path:
    """A kernel whose processor shuts down at once."""
    path = tmp_path / "triple-fault"
    path.write_bytes(guests.pvh_kernel(guests.TRIPLE_FAULT))
    return path


@pytest.fixture
def spin(tmp_path: Path) -> Path:
    """A kernel that never does anything again."""
    path = tmp_path / "spin"
    path.write_bytes(guests.pvh_kernel(guests.SPIN))
    return path
