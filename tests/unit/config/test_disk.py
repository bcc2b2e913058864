"""The short form of a disk, and what a machine takes as its media."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.config import DiskConfig, MachineConfig
from ringfence.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a.img", {}),
        ("a.img,readonly", {"readonly": True}),
        ("a.img,readonly=off,if=ahci", {"interface": "ahci"}),
        ("a.img,ephemeral=on,interface=ide", {"ephemeral": True, "interface": "ide"}),
    ],
)
def test_short_form(text: str, values: dict[str, Any]) -> None:
    assert DiskConfig.parse(text) == DiskConfig(file=Path("a.img"), **values)


def test_commas_are_doubled() -> None:
    assert DiskConfig.parse("a,,b,,,readonly") == DiskConfig(file=Path("a,b,"), readonly=True)


@pytest.mark.parametrize(
    "wrong",
    [
        *["", ",readonly", "a,", "a,cache=none", "a,readonly,readonly", "a,readonly=", "a,if=scsi"],
        *[7, b"x", ["a"], {}, {"file": "a", "size": 1}, {"file": ""}, {"file": "a", "readonly": 1}],
    ],
)
def test_what_is_no_disk(wrong: Any) -> None:
    with pytest.raises(ConfigError):
        DiskConfig.parse(wrong)


@given(st.text(max_size=30))
def test_any_text_is_a_disk_or_an_error(text: str) -> None:
    try:
        disk = DiskConfig.parse(text)
    except ConfigError:
        return
    assert DiskConfig.parse(disk.to_mapping()) == disk


def test_media_of_a_machine() -> None:
    config = MachineConfig(
        image="debian",
        disks=["a.img", DiskConfig(file=Path("b.img"), ephemeral=True)],  # type: ignore[arg-type]
        cdroms=[None, "c.iso"],  # type: ignore[arg-type]
    )
    assert config.disks[1].ephemeral
    assert config.cdroms == (DiskConfig(file=None), DiskConfig(file=Path("c.iso")))
    assert MachineConfig.from_mapping(config.to_mapping()) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"disks": "a.img"},
        {"disks": [None]},
        {"cdroms": ["a.iso,if=virtio"]},
        {"floppies": ["a", "b", "c"]},
        {"floppies": ["a,if=ide"]},
    ],
)
def test_media_that_no_machine_takes(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        MachineConfig(image="debian", **wrong)
