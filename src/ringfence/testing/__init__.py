"""Drives a guest the way a person at its console would: for tests of ours and of users."""

from ringfence.testing.driver import ConsoleDriver
from ringfence.testing.kernels import pvh_kernel
from ringfence.testing.screen import ScreenDriver

__all__ = ["ConsoleDriver", "ScreenDriver", "pvh_kernel"]
