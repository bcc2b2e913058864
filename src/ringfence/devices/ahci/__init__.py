"""The AHCI controller."""
