"""The engine ``bt``: what it makes of a processor model."""

import pytest

from ringfence.engines.bt import BtEngine
from ringfence.errors import ConfigError


@pytest.mark.parametrize("cpu", ["host", "max", "x86-64-v1", "X86-64", "host,-avx,+sse2"])
def test_models(cpu: str) -> None:
    assert BtEngine().create_machine(1, cpu=cpu) is not None


@pytest.mark.parametrize(
    ("cpu", "said"),
    [
        ("8086", 'no CPU model "8086"; there are host, max, x86-64-v1'),
        ("host,+flux", 'no CPU feature "flux"; there are fpu, vme'),
        ("host,flux", '"flux" is neither \\+feature nor -feature'),
        ("host,+pku", "can't run these CPU features on this host: pku; it can fpu, "),
        ("host,+avx2,-avx", "\\+avx2 can't be had"),
        ("host,-fpu", "fpu can't be left out"),
    ],
)
def test_models_that_can_not_be_had(cpu: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^cpu: .*{said}"):
        BtEngine().create_machine(1, cpu=cpu)
