"""What a user can ask of a machine."""

from ringfence.config.disk import DiskConfig, Interface
from ringfence.config.machine import EngineName, MachineConfig, OnReboot

__all__ = ["DiskConfig", "EngineName", "Interface", "MachineConfig", "OnReboot"]
