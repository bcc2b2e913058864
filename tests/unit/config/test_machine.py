"""The description of a machine."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import MachineConfig
from ringfence.errors import ConfigError


def test_defaults() -> None:
    config = MachineConfig(image="debian")
    assert (config.memory, config.cpus, config.engine) == (512 << 20, 1, "auto")
    assert config.timeout is None
    assert config.to_mapping() == {"image": "debian"}


def test_texts_become_values() -> None:
    config = MachineConfig.from_mapping(
        {"kernel": "vmlinuz", "memory": "1.5G", "cpus": "4", "timeout": "2m"}
    )
    assert config.kernel == Path("vmlinuz")
    assert (config.memory, config.cpus, config.timeout) == (3 << 29, 4, 120)


def test_it_is_frozen() -> None:
    config = MachineConfig(image="debian")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.cpus = 2  # type: ignore[misc]


def test_mapping_is_read_back() -> None:
    config = MachineConfig.from_mapping(
        {"image": "a", "kernel": "k", "memory": "96M", "timeout": 3, "shell": True, "append": "x"}
    )
    mapping = config.to_mapping()
    assert mapping["kernel"] == "k"
    assert mapping["memory"] == "96M"
    assert MachineConfig.from_mapping(mapping) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": None}, "an image, a kernel, a disk or firmware"),
        ({"image": 3}, "image"),
        ({"memory": "32M"}, "memory: 32M is not between 64M and 1T"),
        ({"memory": "2T"}, "memory"),
        ({"memory": "64M"[:-1]}, "memory"),
        ({"memory": (64 << 20) + 1}, "whole pages"),
        ({"memory": "much"}, "size"),
        ({"cpus": 0}, "cpus: 0 is not a number from 1 to 64"),
        ({"cpus": 65}, "cpus"),
        ({"cpus": 1.5}, "cpus"),
        ({"cpus": True}, "cpus"),
        ({"cpus": "many"}, "cpus"),
        ({"cpu": ""}, "cpu: '' is not like host or x86-64-v3,\\+feature,-feature"),
        ({"cpu": "host,avx"}, "cpu"),
        ({"cpu": "host,+avx\n"}, "cpu"),
        ({"cpu": "host,+"}, "cpu"),
        ({"cpu": "h\u00f6st"}, "cpu"),
        ({"cpu": None}, "cpu"),
        ({"engine": "warp"}, "engine: 'warp' is none of auto, bt, kvm"),
        ({"timeout": "soon"}, "duration"),
        ({"timeout": 0}, "timeout"),
        ({"on_reboot": "explode"}, "on_reboot"),
        ({"append": "a\0b"}, "append"),
        ({"append": "a\nb"}, "append"),
        ({"append": "x" * 65536}, "append"),
        ({"append": 5}, "append"),
        ({"kernel": "a\0b"}, "kernel"),
        ({"kernel": 5}, "kernel"),
        ({"shell": "yes"}, "shell"),
        ({"colour": "red", "image": "x"}, "unknown: colour; there are append"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MachineConfig.from_mapping({"image": "debian", **values})


@given(
    st.dictionaries(
        st.sampled_from([field.name for field in dataclasses.fields(MachineConfig)]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=9), st.floats()),
    )
)
def test_any_values_make_a_machine_or_an_error(values: dict[str, Any]) -> None:
    try:
        config = MachineConfig.from_mapping(values)
    except ConfigError:
        return
    assert 64 << 20 <= config.memory <= 1 << 40
    assert 1 <= config.cpus <= 64


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"deterministic": True, "cpus": 2}, "cpus"),
        ({"deterministic": True, "engine": "kvm"}, "engine"),
        ({"seed": 3}, "seed"),
        ({"deterministic": True, "seed": -1}, "seed"),
        ({"deterministic": True, "seed": 1 << 64}, "seed"),
        ({"deterministic": "yes"}, "deterministic"),
    ],
)
def test_what_a_deterministic_machine_can_not_be(values: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        MachineConfig.from_mapping({"image": "debian", **values})


def test_a_seed_may_be_text() -> None:
    config = MachineConfig.from_mapping({"image": "debian", "deterministic": True, "seed": "12"})
    assert config.seed == 12
