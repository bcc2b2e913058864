"""Drives a guest the way a person at its console would: for tests of ours and of users."""

from ringfence.testing.driver import ConsoleDriver
from ringfence.testing.kernels import pvh_kernel

__all__ = ["ConsoleDriver", "pvh_kernel"]
