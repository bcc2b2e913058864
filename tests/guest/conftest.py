"""What guest tests boot."""

from pathlib import Path

import pytest

from ringfence.testing import pvh_kernel
from support import guests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.guest)


@pytest.fixture(scope="session")
def debian() -> str:
    """The name of the image ``debian``, which is in the store."""
    return guests.image("debian").name


@pytest.fixture
def triple_fault(tmp_path: Path) -> Path:
    """A kernel whose processor shuts down at once."""
    path = tmp_path / "triple-fault"
    path.write_bytes(pvh_kernel(guests.TRIPLE_FAULT))
    return path


@pytest.fixture
def spin(tmp_path: Path) -> Path:
    """A kernel that never does anything again."""
    path = tmp_path / "spin"
    path.write_bytes(pvh_kernel(guests.SPIN))
    return path
