"""Probes the engines of this host and picks one."""

import os
import sys

from ringfence.engines.contract import Capabilities, Engine
from ringfence.errors import ConfigError, EngineError

__all__ = ["pick", "probe"]


def probe(name: str) -> Capabilities:
    """Whether the engine ``name`` can run guests on this host.

    Raises:
        ConfigError: there is no such engine.
    """
    if name == "kvm":
        return Capabilities("kvm", False, "this version has no KVM engine; use bt")
    if name != "bt":
        raise ConfigError(f"there is no engine {name!r}; there are auto, bt, kvm")
    machine = os.uname().machine if hasattr(os, "uname") else "another system"
    if not sys.platform.startswith("linux") or machine != "x86_64":
        return Capabilities(
            "bt", False, f"it needs Linux on x86-64, not {sys.platform} on {machine}"
        )
    return Capabilities("bt", True)


def pick(name: str = "auto") -> Engine:
    """The engine ``name``; ``auto`` is the fastest that can run here.

    Raises:
        ConfigError: there is no such engine.
        EngineError: it can't run on this host.
    """
    capabilities = probe("bt" if name == "auto" else name)
    if not capabilities.available:
        raise EngineError(f"the engine {capabilities.name} can't be used: {capabilities.reason}")
    # Imported late: the extension is large, and most of Ringfence is testable without it.
    from ringfence.engines.bt import BtEngine

    return BtEngine()
