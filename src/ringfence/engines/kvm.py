"""KVM: the host processor's own virtualization, and what a host's /dev/kvm is worth.

A device that opens says little: some hosts offer one that runs a guest's kernel in software, at a
thousandth of the speed, or that refuses instructions. So tiny guests are run, and what they show
is put into words.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ringfence import _core
from ringfence.engines.compiled import CompiledEngine
from ringfence.engines.contract import Capabilities

__all__ = ["DEVICE", "KvmEngine", "judge", "probe"]

#: Where the kernel has it.
DEVICE = Path("/dev/kvm")

#: A kernel that runs slower than this, in instructions a second, is better off on ``bt``.
_SLOW = 100_000_000

_NESTED = "in a virtual machine, its host has to allow nested virtualization"
_MENDS = {
    "missing": (
        "enable virtualization in the firmware's set-up and load the module (modprobe kvm_intel or "
        f"kvm_amd); {_NESTED}; in a container, pass the device in (--device {DEVICE})"
    ),
    "denied": (
        "join the group that owns it (sudo usermod -aG kvm $USER, then log in anew), or have "
        f"access given for now (sudo setfacl -m u:$USER:rw {DEVICE})"
    ),
    "busy": "end the other hypervisor (VirtualBox, VMware and their like), or unload its module",
    "no-driver": f"load the module (modprobe kvm_intel or kvm_amd); {_NESTED}",
    "not-kvm": "name the KVM device; udev makes it with major number 10, minor number 232",
    "version": "use a kernel for x86-64 that is not from before Linux 2.6.22",
    "lacks": "use Linux 4.10 or later on a processor with VT-x or AMD-V",
}


class KvmEngine(CompiledEngine):
    """Runs guests on the host's processor. What KVM can't execute, ``bt`` does.

    Args:
        device: The KVM device.
        chips: Where the interrupt hardware is: ``kernel``, ``own`` (as on ``bt``), or ``auto``.
    """

    def __init__(self, device: Path = DEVICE, chips: str = "auto") -> None:
        super().__init__("kvm", device=device, chips=chips)


def probe(device: Path = DEVICE) -> Capabilities:
    """Whether the KVM device can run guests, and how well. Takes some milliseconds, once."""
    known = _probe_once(device)
    if not known.available:
        # What was missing may have come.
        _probe_once.cache_clear()
    return known


@lru_cache(maxsize=8)
def _probe_once(device: Path) -> Capabilities:
    try:
        return judge(_core.kvm_probe(device))
    except _core.CoreError as error:
        return Capabilities("kvm", False, f"its probe failed: {error}", mend="use bt")


def judge(report: Mapping[str, Any]) -> Capabilities:
    """What a report of ``_core.kvm_probe`` comes to."""
    if "absence" in report:
        mend = _MENDS.get(report["absence"], "use bt")
        return Capabilities("kvm", False, report["reason"], mend=mend)
    failed = {mode: why for mode, why in report["modes"].items() if why is not None}
    if failed.keys() == report["modes"].keys():
        mode, why = next(iter(failed.items()))
        reason = f"no guest runs on it (in {mode} mode: {why}); its module is half-broken"
        return Capabilities("kvm", False, reason, mend="update the kernel, or use bt")
    remarks = [f"guests don't run in {mode} mode ({why})" for mode, why in failed.items()]
    speed = report["kernel_speed"]
    if speed is not None and speed < _SLOW:
        remarks.append(
            f"it runs 64-bit kernels at {speed / 1e6:.1f} million instructions a second, as "
            "software would"
        )
    if not report["cpuid"]:
        remarks.append("guests see the CPUID of the host rather than their own")
    advised = not remarks
    if report["refused"]:
        remarks.append(f"bt has to help with {', '.join(report['refused'])}")
    return Capabilities("kvm", True, "; ".join(remarks), advised=advised)
