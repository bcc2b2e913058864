"""What a KVM device is worth: devices that are none, and reports of what trials found."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ringfence import _core
from ringfence.engines import kvm
from ringfence.engines.kvm import KvmEngine, judge, probe
from ringfence.errors import EngineError

#: What a trial of a processor's own virtualization finds.
GOOD: dict[str, Any] = {
    "chips": True,
    "modes": dict.fromkeys(("real", "protected", "long", "user")),
    "refused": [],
    "cpuid": True,
    "kernel_speed": 5e9,
    "user_speed": 5e9,
}


@pytest.fixture
def absent(tmp_path: Path) -> Path:
    return tmp_path / "kvm"


def test_a_device_that_is_missing(absent: Path) -> None:
    found = probe(absent)
    assert not found.available
    assert found.reason == f"{absent} does not exist"
    assert "modprobe" in found.mend


@pytest.mark.parametrize("device", ["/dev/null", __file__])
def test_a_device_that_is_something_else(device: str) -> None:
    found = probe(Path(device))
    assert not found.available
    assert found.reason == f"{device} is not a KVM device"


def test_a_device_node_without_a_driver(absent: Path) -> None:
    try:
        os.mknod(absent, 0o600 | 0o020000, os.makedev(10, 254))
    except PermissionError:
        pytest.skip("only root makes device nodes")
    try:
        os.close(os.open(absent, os.O_RDWR))
    except PermissionError:
        pytest.skip("this file system has no devices")
    except OSError:
        pass
    assert "no driver" in probe(absent).reason


def test_a_device_without_permission(absent: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes device nodes, and becomes somebody else")
    try:
        os.mknod(absent, 0o600 | 0o020000, os.makedev(10, 232))
    except PermissionError:
        pytest.skip("this user makes no device nodes")
    for folder in (absent.parent, *absent.parent.parents[:2]):
        if "pytest" in str(folder):
            folder.chmod(0o711)
    check = (
        "import sys; from pathlib import Path; from ringfence.engines.kvm import probe;"
        "import os; os.setuid(65534); found = probe(Path(sys.argv[1]));"
        "print(found.available, found.reason, found.mend, sep='\\n')"
    )
    told = subprocess.run(
        [sys.executable, "-c", check, str(absent)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert told[0] == "False"
    assert told[1] == f"no permission to open {absent}"
    assert "usermod -aG kvm" in told[2]


@pytest.mark.parametrize(
    "absence", ["missing", "denied", "busy", "no-driver", "not-kvm", "version", "lacks", "other"]
)
def test_every_absence_has_a_mend(absence: str) -> None:
    found = judge({"absence": absence, "reason": "it is not so"})
    assert not found.available
    assert found.reason == "it is not so"
    assert found.mend


def test_a_good_device_is_advised() -> None:
    found = judge(GOOD)
    assert found.available
    assert found.advised
    assert not found.reason


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kernel_speed": 2e6}, "runs 64-bit kernels at 2.0 million instructions a second"),
        ({"cpuid": False}, "guests see the CPUID of the host"),
        (
            {"modes": {**GOOD["modes"], "real": "the guest had a triple fault"}},
            r"guests don't run in real mode \(the guest had a triple fault\)",
        ),
    ],
)
def test_a_device_that_does_half_is_not_advised(changes: dict[str, Any], said: str) -> None:
    found = judge({**GOOD, **changes})
    assert found.available
    assert not found.advised
    assert re.search(said, found.reason)


def test_help_of_bt_alone_is_no_reason_against_it() -> None:
    found = judge({**GOOD, "refused": ["INT3"]})
    assert found.advised
    assert found.reason == "bt has to help with INT3"


def test_a_module_that_runs_no_guest() -> None:
    found = judge({**GOOD, "modes": dict.fromkeys(GOOD["modes"], "it can't emulate that")})
    assert not found.available
    assert "half-broken" in found.reason


def test_what_is_missing_is_looked_for_again(absent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not probe(absent).available
    monkeypatch.setattr(_core, "kvm_probe", lambda _: GOOD)
    assert probe(absent).available
    kvm._probe_once.cache_clear()


def test_a_probe_that_fails_is_told(absent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Path) -> None:
        raise _core.CoreError("out of luck")

    monkeypatch.setattr(_core, "kvm_probe", fails)
    assert "out of luck" in probe(absent).reason


def test_a_machine_without_a_device(absent: Path) -> None:
    with pytest.raises(EngineError, match=r"kvm can't be used: .*does not exist"):
        KvmEngine(absent).create_machine(1)
