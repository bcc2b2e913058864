"""Which engine runs a machine."""

import os
import sys
from collections.abc import Callable

import pytest

from ringfence.engines import Capabilities, choice, kvm, pick, probe
from ringfence.errors import ConfigError, EngineError

Found = Callable[[Capabilities], None]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Found:
    """Sets what the probe of KVM finds."""
    return lambda capabilities: monkeypatch.setattr(kvm, "probe", lambda: capabilities)


def test_auto_falls_back_to_bt_and_says_why(found: Found) -> None:
    found(Capabilities("kvm", False, "/dev/kvm does not exist", mend="load the module"))
    assert pick("auto").name == "bt"
    assert choice() == ("bt", "engine: bt, for kvm can't be had: /dev/kvm does not exist")


def test_kvm_that_is_not_there_is_refused_with_the_mend(found: Found) -> None:
    found(Capabilities("kvm", False, "/dev/kvm does not exist", mend="load the module"))
    said = "kvm can't be used: /dev/kvm does not exist; to mend it, load the module"
    with pytest.raises(EngineError, match=said):
        pick("kvm")


def test_kvm_that_is_worse_is_taken_only_by_name(found: Found) -> None:
    found(Capabilities("kvm", True, "it is slow", advised=False))
    assert choice() == ("bt", "engine: bt, for kvm is worse here: it is slow")
    assert pick("auto").name == "bt"
    assert pick("kvm").name == "kvm"


def test_kvm_is_taken_where_it_is_good(found: Found) -> None:
    found(Capabilities("kvm", True))
    assert pick("auto").name == "kvm"
    assert choice()[1] == "engine: kvm (the processor runs the guest)"


def test_unknown_engines() -> None:
    with pytest.raises(ConfigError, match="auto, bt, kvm"):
        pick("warp")


def test_engines_need_linux_on_x86_64(monkeypatch: pytest.MonkeyPatch) -> None:
    assert probe("bt").available
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not probe("bt").available
    assert not probe("kvm").available
    with pytest.raises(EngineError, match="darwin"):
        pick()
    monkeypatch.undo()

    class Uname:
        machine = "aarch64"

    monkeypatch.setattr(os, "uname", Uname)
    assert "aarch64" in probe("bt").reason
    assert "aarch64" in probe("kvm").reason
