"""Engines: what virtualizes processors and memory. The only importer of ``ringfence._core``."""

from ringfence.engines.contract import (
    Capabilities,
    Engine,
    EngineMachine,
    EngineMemory,
    EngineVcpu,
    ExitKinds,
)
from ringfence.engines.pick import choice, pick, probe

__all__ = [
    "Capabilities",
    "Engine",
    "EngineMachine",
    "EngineMemory",
    "EngineVcpu",
    "ExitKinds",
    "choice",
    "pick",
    "probe",
]
