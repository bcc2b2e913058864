"""Ethernet addresses (IEEE 802, clause 8)."""

import re
import zlib

from ringfence.errors import ConfigError

__all__ = ["format_mac", "generated_mac", "parse_mac"]

_MAC = re.compile(r"[0-9a-fA-F]{1,2}([:-][0-9a-fA-F]{1,2}){5}", re.ASCII)
GROUP, LOCAL = 0x01, 0x02


def parse_mac(text: str) -> bytes:
    """The six octets of ``52:54:00:12:34:56``.

    Raises:
        ConfigError: it is not an address of one station.
    """
    if not _MAC.fullmatch(text):
        raise ConfigError(f"mac: {text!r} is not like 52:54:00:12:34:56")
    octets = bytes(int(part, 16) for part in re.split("[:-]", text))
    if octets[0] & GROUP or not any(octets):
        raise ConfigError(f"mac: {text} is not the address of one station")
    return octets


def format_mac(octets: bytes) -> str:
    """``52:54:00:12:34:56`` of six octets."""
    return octets.hex(":")


def generated_mac(name: str) -> bytes:
    """A locally administered address that is always the same for ``name``."""
    return bytes((0x52, 0x54)) + zlib.crc32(name.encode()).to_bytes(4, "big")
