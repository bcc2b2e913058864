"""A guest on each engine."""

import pytest

from ringfence import _core
from support.engines import ENGINES, MEMORY, Guest, Maker, options


@pytest.fixture
def make() -> Maker:
    """Makes guests on an engine by name."""

    def made(name: str, *, vcpus: int = 1, cpu: str = "host") -> Guest:
        machine = _core.Machine(vcpus=vcpus, cpu=cpu, **options(name))
        machine.map_memory(0, MEMORY)
        return Guest(machine, name != "bt")

    return made


@pytest.fixture(params=ENGINES)
def guest(request: pytest.FixtureRequest, make: Maker) -> Guest:
    """A guest on each engine."""
    return make(request.param)
