"""One virtual machine: its life cycle, its processors' threads, its guest agent, its facade."""

from ringfence.machine.agent import Completed, Process
from ringfence.machine.exit import ExitReason, MachineExit
from ringfence.machine.machine import BootFiles, Machine, MachineState
from ringfence.machine.vm import VM

__all__ = [
    "VM",
    "BootFiles",
    "Completed",
    "ExitReason",
    "Machine",
    "MachineExit",
    "MachineState",
    "Process",
]
