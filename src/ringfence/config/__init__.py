"""What a user can ask of a machine."""

from ringfence.config.device import DeviceConfig
from ringfence.config.disk import DiskConfig, Interface
from ringfence.config.machine import EngineName, MachineConfig, OnReboot

__all__ = ["DeviceConfig", "DiskConfig", "EngineName", "Interface", "MachineConfig", "OnReboot"]
