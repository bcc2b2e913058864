"""Ports by which a guest talks to whoever watches it."""
