"""The parallel port."""
