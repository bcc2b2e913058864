"""Drives a guest the way a person at its console would: for tests of ours and of users."""

from ringfence.testing.driver import ConsoleDriver
from ringfence.testing.grub import grub_disk, grub_iso
from ringfence.testing.guests import Guest, Presses, Shows, Types, run_guest
from ringfence.testing.kernels import pvh_kernel
from ringfence.testing.screen import ScreenDriver

__all__ = [
    "ConsoleDriver",
    "Guest",
    "Presses",
    "ScreenDriver",
    "Shows",
    "Types",
    "grub_disk",
    "grub_iso",
    "pvh_kernel",
    "run_guest",
]
