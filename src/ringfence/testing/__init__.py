"""Drives a guest the way a person at its console would: for tests of ours and of users."""

from ringfence.testing.driver import ConsoleDriver

__all__ = ["ConsoleDriver"]
