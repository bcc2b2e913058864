"""What network cards share: checksums of frames and address filters (IEEE 802.3; RFC 1071)."""

import zlib

__all__ = ["BROADCAST", "MINIMUM", "crc_hash", "fold", "frame_check_sequence", "ones_sum"]

BROADCAST = b"\xff" * 6
#: Bytes of the shortest frame, without its frame check sequence.
MINIMUM = 60

_REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def frame_check_sequence(frame: bytes) -> bytes:
    """The four bytes that follow a frame on the wire (IEEE 802.3, 3.2.9)."""
    return zlib.crc32(frame).to_bytes(4, "little")


def crc_hash(address: bytes) -> int:
    """The CRC of an address with its most significant bit sent first, as DP8390s hash it."""
    crc = zlib.crc32(address) ^ 0xFFFFFFFF
    return int.from_bytes(crc.to_bytes(4, "little").translate(_REVERSED), "big")


def ones_sum(data: bytes | bytearray | memoryview, start: int = 0) -> int:
    """One's complement sum of the 16-bit words of ``data``, of which an odd last byte is one."""
    # 2**16 is 1 modulo 2**16 - 1, so the remainder of the whole number is the sum of its digits.
    total = (int.from_bytes(data, "big") << 8 * (len(data) & 1)) + start
    return (total % 0xFFFF or 0xFFFF) if total else 0


def fold(total: int) -> int:
    """The checksum field for a one's complement sum."""
    return ~total & 0xFFFF
