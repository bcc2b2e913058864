"""Devices that a guest sees, each in a file of its own; ``catalog`` lists them."""
