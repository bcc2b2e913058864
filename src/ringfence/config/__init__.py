"""The description of a machine: frozen, validated, and knowing no device."""

from ringfence.config.machine import MachineConfig

__all__ = ["MachineConfig"]
