"""Probes the engines of this host and picks one."""

import os
import sys

from ringfence.engines.contract import Capabilities, Engine
from ringfence.errors import ConfigError, EngineError

__all__ = ["choice", "pick", "probe"]


def probe(name: str) -> Capabilities:
    """Whether the engine ``name`` can run guests on this host.

    Raises:
        ConfigError: there is no such engine.
    """
    if name not in ("bt", "kvm"):
        raise ConfigError(f"there is no engine {name!r}; there are auto, bt, kvm")
    machine = os.uname().machine if hasattr(os, "uname") else "another system"
    if not sys.platform.startswith("linux") or machine != "x86_64":
        reason = f"it needs Linux on x86-64, not {sys.platform} on {machine}"
        return Capabilities(name, False, reason)
    if name == "kvm":
        # Imported late: the extension is large, and most of Ringfence is testable without it.
        from ringfence.engines import kvm

        return kvm.probe()
    return Capabilities("bt", True)


def choice() -> tuple[str, str]:
    """The engine that ``auto`` is on this host, and in a line why."""
    kvm = probe("kvm")
    if kvm.available and kvm.advised:
        return "kvm", f"engine: kvm ({kvm.reason or 'the processor runs the guest'})"
    return "bt", f"engine: bt, for kvm can't be had: {kvm.reason}" if not kvm.available else (
        f"engine: bt, for kvm is worse here: {kvm.reason}"
    )


def pick(name: str = "auto") -> Engine:
    """The engine ``name``; ``auto`` is the fastest that can run here.

    Raises:
        ConfigError: there is no such engine.
        EngineError: it can't run on this host.
    """
    if name == "auto":
        name, _ = choice()
    capabilities = probe(name)
    if not capabilities.available:
        mend = f"; to mend it, {capabilities.mend}" if capabilities.mend else ""
        raise EngineError(f"the engine {name} can't be used: {capabilities.reason}{mend}")
    if name == "kvm":
        from ringfence.engines.kvm import KvmEngine

        return KvmEngine()
    from ringfence.engines.bt import BtEngine

    return BtEngine()
