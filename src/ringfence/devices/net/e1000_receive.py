"""The receive side of the 82540EM: address filters, checksum reports, descriptor status.

Source: 8254x software developer's manual, sections 3.2, 10.1 and 13.4.22.
"""

from ringfence.devices.net import e1000_registers as r
from ringfence.devices.net.frames import BROADCAST, ones_sum

__all__ = ["accepts", "buffer_size", "checksum_status", "take_tag"]

DD, EOP, IXSM, VP, TCPCS, IPCS, PIF = 0x01, 0x02, 0x04, 0x08, 0x20, 0x40, 0x80
ERROR_TCPE, ERROR_IPE = 0x20, 0x40
_HASH_SHIFTS = (4, 3, 2, 0)
_IPV4, _IPV6, _TCP, _UDP = 0x0800, 0x86DD, 6, 17
_LONGEST = 1522 - 4


def buffer_size(rctl: int) -> int:
    """Bytes of each receive buffer (RCTL.BSIZE and BSEX)."""
    size = 2048 >> (rctl >> 16 & 3)
    if rctl & r.RCTL_BSEX:
        # 00 is reserved there and taken for the largest.
        return min(size * 16, 16384)
    return size


def accepts(
    frame: bytes, rctl: int, addresses: list[int], table: list[int], vlans: list[int], vet: int
) -> tuple[bool, bool]:
    """Whether the filters let ``frame`` in, and whether only an inexact one did (PIF).

    Args:
        frame: The frame.
        rctl: Receive control.
        addresses: RAL and RAH, 16 pairs.
        table: The multicast table.
        vlans: The VLAN filter table.
        vet: What VLAN tags begin with.
    """
    if len(frame) > _LONGEST and not rctl & r.RCTL_LPE:
        return False, False
    tagged = len(frame) >= 18 and int.from_bytes(frame[12:14], "big") == vet
    if rctl & r.RCTL_VFE and tagged:
        vlan = int.from_bytes(frame[14:16], "big") & 0xFFF
        if not vlans[vlan >> 5] >> (vlan & 31) & 1:
            return False, False
    address = frame[:6]
    low, high = int.from_bytes(address[:4], "little"), int.from_bytes(address[4:], "little")
    for index in range(0, len(addresses), 2):
        above = addresses[index + 1]
        if above & r.RAH_AV and addresses[index] == low and above & 0xFFFF == high:
            return True, False
    if address == BROADCAST and rctl & r.RCTL_BAM:
        return True, False
    if address[0] & 1:
        if rctl & r.RCTL_MPE:
            return True, True
        shift = _HASH_SHIFTS[rctl >> 12 & 3]
        index = (high >> shift) & 0xFFF
        return bool(table[index >> 5] >> (index & 31) & 1), True
    return bool(rctl & r.RCTL_UPE), True


def take_tag(frame: bytes, vet: int) -> tuple[bytes, int]:
    """The frame without its VLAN tag, and the tag; -1 for none."""
    if len(frame) < 18 or int.from_bytes(frame[12:14], "big") != vet:
        return frame, -1
    return frame[:12] + frame[16:], int.from_bytes(frame[14:16], "big")


def checksum_status(frame: bytes, rxcsum: int) -> tuple[int, int]:
    """Status and error bits of the checksums that the card was asked to look at."""
    if not rxcsum & (r.RXCSUM_IPOFL | r.RXCSUM_TUOFL):
        return IXSM, 0
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _IPV4:
        return _check_ipv4(frame, rxcsum)
    if kind == _IPV6 and len(frame) >= 54 and rxcsum & r.RXCSUM_TUOFL:
        end = 54 + int.from_bytes(frame[18:20], "big")
        return _check_transport(frame, frame[20], 54, end, frame[22:54])
    return IXSM, 0


def _check_ipv4(frame: bytes, rxcsum: int) -> tuple[int, int]:
    if len(frame) < 34:
        return IXSM, 0
    length = (frame[14] & 15) * 4
    end = 14 + int.from_bytes(frame[16:18], "big")
    if frame[14] >> 4 != 4 or length < 20 or end > len(frame) or 14 + length > end:
        return IXSM, 0
    status = errors = 0
    if rxcsum & r.RXCSUM_IPOFL:
        status |= IPCS
        if ones_sum(frame[14 : 14 + length]) != 0xFFFF:
            errors |= ERROR_IPE
    fragment = int.from_bytes(frame[20:22], "big") & 0x3FFF
    if rxcsum & r.RXCSUM_TUOFL and not fragment:
        more, wrong = _check_transport(frame, frame[23], 14 + length, end, frame[26:34])
        status |= more & ~IXSM
        errors |= wrong
    return status or IXSM, errors


def _check_transport(
    frame: bytes, protocol: int, start: int, end: int, addresses: bytes
) -> tuple[int, int]:
    if protocol not in (_TCP, _UDP) or end > len(frame) or end - start < 8:
        return IXSM, 0
    if protocol == _UDP and frame[start + 6 : start + 8] == b"\0\0":
        return IXSM, 0  # the sender made none
    pseudo = ones_sum(addresses, protocol + end - start)
    good = ones_sum(memoryview(frame)[start:end], pseudo) == 0xFFFF
    return TCPCS, 0 if good else ERROR_TCPE
