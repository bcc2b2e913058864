"""Answers of a CD-ROM drive in the formats of SCSI multimedia commands 4 (and SPC-3)."""

__all__ = [
    "block_of",
    "configuration",
    "disc_information",
    "dvd_structure",
    "event",
    "inquiry",
    "kind",
    "mode_sense",
    "raw_sector",
    "sense",
    "subchannel",
    "toc",
    "track_information",
]

#: The lead-in before block 0, in blocks.
_PREGAP = 150
#: Blocks of a CD of 99 minutes; a disc with more is a DVD.
_LARGEST_CD = 99 * 60 * 75 - _PREGAP
_PROFILE_CD, _PROFILE_DVD = 0x0008, 0x0010
_LEAD_OUT = 0xAA


def kind(blocks: int) -> int:
    """0 for no disc, 1 for a CD, 2 for a DVD."""
    return 0 if not blocks else 1 if blocks <= _LARGEST_CD else 2


def block_of(msf: bytes) -> int:
    """The block at minute, second and frame."""
    return (msf[0] * 60 + msf[1]) * 75 + msf[2] - _PREGAP


def _msf(block: int) -> bytes:
    """Minute, second and frame of a block; a DVD's are cut off where a CD would end."""
    seconds, frame = divmod(min(block, _LARGEST_CD) + _PREGAP, 75)
    return bytes([min(seconds // 60, 99), seconds % 60, frame])


def _address(block: int, *, msf: bool) -> bytes:
    return b"\0" + _msf(block) if msf else (block & 0xFFFFFFFF).to_bytes(4)


def sense(key: int, code: int, qualifier: int) -> bytes:
    """Fixed-format sense data (SPC-3, 4.5.3)."""
    return bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0])


def inquiry(model: str, serial: str, *, vital: int, page: int) -> bytes | None:
    """INQUIRY data (SPC-3, 6.4), or a page of vital product data; ``None`` if there is none."""
    if vital:
        pages = {0x00: bytes([0x00, 0x80, 0x83]), 0x80: serial.encode()}
        name = model.encode()[:40]
        pages[0x83] = bytes([0x02, 0x00, 0x00, len(name)]) + name
        body = pages.get(page)
        return None if body is None else bytes([5, page, 0, len(body)]) + body
    if page:
        return None
    return (
        bytes([0x05, 0x80, 0x05, 0x32, 31, 0, 0, 0])
        + b"Virtual "
        + model.encode()[:16].ljust(16)
        + b"1.0 "
    )


def toc(blocks: int, form: int, *, msf: bool, start: int) -> bytes | None:
    """READ TOC/PMA/ATIP (MMC-4, 6.30): one data track."""
    if form == 0:
        if start > 1 and start != _LEAD_OUT:
            return None
        body = b""
        if start <= 1:
            body += bytes([0, 0x14, 1, 0]) + _address(0, msf=msf)
        body += bytes([0, 0x16, _LEAD_OUT, 0]) + _address(blocks, msf=msf)
        return (len(body) + 2).to_bytes(2) + bytes([1, 1]) + body
    if form == 1:
        return bytes([0, 10, 1, 1, 0, 0x14, 1, 0]) + _address(0, msf=msf)
    if form == 2:
        entries = (
            bytes([1, 0x14, 0, 0xA0, 0, 0, 0, 0, 1, 0, 0]),
            bytes([1, 0x14, 0, 0xA1, 0, 0, 0, 0, 1, 0, 0]),
            bytes([1, 0x14, 0, 0xA2, 0, 0, 0, 0]) + _msf(blocks),
            bytes([1, 0x14, 0, 0x01, 0, 0, 0, 0]) + _msf(0),
        )
        body = b"".join(entries)
        return (len(body) + 2).to_bytes(2) + bytes([1, 1]) + body
    return None


def mode_sense(page: int, *, long: bool, locked: bool, disc: int) -> bytes | None:
    """MODE SENSE (MMC-4, 7.1): the header and one page, or all (3Fh)."""
    pages = {
        # Read error recovery.
        0x01: bytes([0x01, 10, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]),
        # CD-ROM device parameters.
        0x0D: bytes([0x0D, 6, 0, 13, 0, 60, 0, 75]),
        # CD audio control.
        0x0E: bytes([0x0E, 14, 4, 0, 0, 0, 0, 75, 1, 0xFF, 2, 0xFF, 0, 0, 0, 0]),
        # Fault reporting, time-outs.
        0x1A: bytes([0x1A, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        0x1C: bytes([0x1C, 6, 0, 0, 0, 0, 0, 0]),
        0x1D: bytes([0x1D, 8, 0, 0, 7, 0, 0, 10, 0, 10]),
        # Capabilities: reads CD-R, CD-RW and DVD; mode 2; a tray that locks and ejects.
        0x2A: bytes([0x2A, 18, 0x3B, 0x00, 0x70, 0x60, 0x29 | locked << 1, 0])
        + (5632).to_bytes(2)
        + bytes([0, 2])
        + (512).to_bytes(2)
        + (5632).to_bytes(2)
        + bytes(4),
    }
    if page == 0x3F:
        body = b"".join(pages[number] for number in sorted(pages))
    elif page in pages:
        body = pages[page]
    else:
        return None
    medium = {0: 0x70, 1: 0x01, 2: 0x41}[disc]
    if long:
        return (len(body) + 6).to_bytes(2) + bytes([medium, 0, 0, 0, 0, 0]) + body
    return bytes([len(body) + 3, medium, 0, 0]) + body


def configuration(disc: int, requested: int, first: int) -> bytes:
    """GET CONFIGURATION (MMC-4, 5.2): the features of a drive for CDs and DVDs."""
    current = {0: 0, 1: _PROFILE_CD, 2: _PROFILE_DVD}[disc]

    def feature(code: int, version: int, persistent: bool, now: bool, data: bytes) -> bytes:
        flags = version << 2 | persistent << 1 | now
        return code.to_bytes(2) + bytes([flags, len(data)]) + data

    profiles = b"".join(
        profile.to_bytes(2) + bytes([profile == current, 0])
        for profile in (_PROFILE_DVD, _PROFILE_CD)
    )
    features = {
        0x0000: (True, feature(0x0000, 0, True, True, profiles)),
        # Core: ATAPI. Then morphing, removable medium, random readable, CD read, DVD read.
        0x0001: (True, feature(0x0001, 1, True, True, bytes([0, 0, 0, 2, 1, 0, 0, 0]))),
        0x0002: (True, feature(0x0002, 1, True, True, bytes([2, 0, 0, 0]))),
        0x0003: (True, feature(0x0003, 0, True, True, bytes([0x29, 0, 0, 0]))),
        0x0010: (
            disc > 0,
            feature(0x0010, 0, False, disc > 0, bytes([0, 0, 8, 0, 0, 0x10, 1, 0])),
        ),
        0x001E: (disc == 1, feature(0x001E, 2, False, disc == 1, bytes(4))),
        0x001F: (disc == 2, feature(0x001F, 1, False, disc == 2, bytes(4))),
        0x0100: (True, feature(0x0100, 0, True, True, b"")),
        0x0105: (True, feature(0x0105, 1, True, True, bytes([0, 0, 0, 0]))),
    }
    body = b"".join(
        data
        for code, (now, data) in features.items()
        if (code == first if requested == 2 else code >= first and (requested == 0 or now))
    )
    return (len(body) + 4).to_bytes(4) + bytes([0, 0]) + current.to_bytes(2) + body


def event(classes: int, code: int, *, tray: bool, disc: bool) -> bytes:
    """GET EVENT STATUS NOTIFICATION (MMC-4, 6.7): media events alone."""
    if not classes & 0x10:
        return bytes([0, 2, 0x80, 0x10])
    return bytes([0, 6, 4, 0x10, code, tray | disc << 1, 0, 0])


def subchannel(form: int) -> bytes:
    """READ SUB-CHANNEL (MMC-4, 6.28): no audio is playing."""
    body = bytes([form]) + bytes(11 if form == 1 else 19)
    return bytes([0, 0x15]) + len(body).to_bytes(2) + body


def disc_information() -> bytes:
    """READ DISC INFORMATION (MMC-4, 6.26): complete, one session, one track."""
    return (32).to_bytes(2) + bytes([0x0E, 1, 1, 1, 1, 0x20, 0]) + bytes(8) + b"\xff" * 8 + bytes(9)


def track_information(blocks: int) -> bytes:
    """READ TRACK INFORMATION (MMC-4, 6.31) of the one track."""
    head = (34).to_bytes(2) + bytes([1, 1, 0, 4, 1, 0])
    return head + bytes(4) + bytes(12) + blocks.to_bytes(4) + bytes(4) + bytes(4)


def dvd_structure(blocks: int, form: int) -> bytes | None:
    """READ DVD STRUCTURE (MMC-4, 6.27): physical format and copyright information."""
    if form == 0:
        first = 0x30000
        last = min(first + blocks - 1, 0xFFFFFF)
        body = bytes([0x01, 0x02, 0x01, 0x00, 0]) + first.to_bytes(3) + b"\0" + last.to_bytes(3)
        body = body.ljust(2048, b"\0")
    elif form == 1:
        body = bytes(4)
    else:
        return None
    return (len(body) + 2).to_bytes(2) + bytes(2) + body


def raw_sector(block: int, data: bytes) -> bytes:
    """A whole mode 1 sector (ECMA-130): sync, header, data; the error correction is left zero."""
    bcd = bytes(part // 10 << 4 | part % 10 for part in _msf(block))
    return b"\0" + b"\xff" * 10 + b"\0" + bcd + b"\x01" + data + bytes(288)
