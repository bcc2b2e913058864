"""Keyboards and pointing devices."""
