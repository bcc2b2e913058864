"""Which engine runs a machine."""

import os
import sys

import pytest

from ringfence.engines import pick, probe
from ringfence.errors import ConfigError, EngineError


def test_kvm_is_refused_clearly() -> None:
    with pytest.raises(EngineError, match=r"kvm can't be used.*use bt"):
        pick("kvm")


def test_unknown_engines() -> None:
    with pytest.raises(ConfigError, match="auto, bt, kvm"):
        pick("warp")


def test_bt_needs_linux_on_x86_64(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe("bt").available
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not probe("bt").available
    with pytest.raises(EngineError, match="darwin"):
        pick()
    monkeypatch.undo()

    class Uname:
        machine = "aarch64"

    monkeypatch.setattr(os, "uname", Uname)
    assert "aarch64" in probe("bt").reason
