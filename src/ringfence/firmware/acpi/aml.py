"""ACPI machine language: the few terms that a static description of devices needs.

Source: ACPI specification 6.5, chapter 20 (AML grammar) and 6.4 (resource descriptors). Every
function returns the byte code of one term; terms nest by concatenation.
"""

from collections.abc import Sequence
from struct import pack

__all__ = [
    "device",
    "eisa_id",
    "integer",
    "io",
    "irq",
    "method_return",
    "name",
    "package",
    "resources",
    "scope",
    "string",
]

_ZERO, _ONE, _NAME, _BYTE, _WORD, _DWORD, _STRING, _QWORD = 0, 1, 8, 10, 11, 12, 13, 14
_SCOPE, _BUFFER, _PACKAGE, _METHOD, _RETURN = 0x10, 0x11, 0x12, 0x14, 0xA4
_EXTENDED, _DEVICE, _DUAL, _MULTI = 0x5B, 0x82, 0x2E, 0x2F


def integer(value: int) -> bytes:
    """An integer in its shortest form (section 20.2.3)."""
    if value in (_ZERO, _ONE):
        return bytes([value])
    for prefix, size in ((_BYTE, 1), (_WORD, 2), (_DWORD, 4), (_QWORD, 8)):
        if value < 1 << 8 * size:
            return bytes([prefix]) + value.to_bytes(size, "little")
    raise ValueError(f"{value:#x} does not fit in 64 bits")


def string(text: str) -> bytes:
    """A string of ASCII characters."""
    return bytes([_STRING]) + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """A compressed EISA identifier such as ``PNP0501`` (section 19.3.4, EISAID)."""
    letters = 0
    for letter in text[:3]:
        letters = letters << 5 | ord(letter) - 0x40
    return bytes([_DWORD]) + pack(">HH", letters, int(text[3:], 16))


def package(elements: Sequence[bytes]) -> bytes:
    """A package of terms."""
    return bytes([_PACKAGE]) + _sized(bytes([len(elements)]) + b"".join(elements))


def name(path: str, value: bytes) -> bytes:
    """``Name (path, value)``."""
    return bytes([_NAME]) + _path(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    """``Scope (path) { terms }``."""
    return bytes([_SCOPE]) + _sized(_path(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """``Device (path) { terms }``."""
    return bytes([_EXTENDED, _DEVICE]) + _sized(_path(path) + b"".join(terms))


def method_return(path: str, value: bytes) -> bytes:
    """``Method (path) { Return (value) }`` without arguments."""
    return bytes([_METHOD]) + _sized(_path(path) + b"\0" + bytes([_RETURN]) + value)


def resources(*descriptors: bytes) -> bytes:
    """``ResourceTemplate () { descriptors }``: a buffer with an end tag (section 6.4.2.9)."""
    template = b"".join(descriptors) + b"\x79\0"
    return bytes([_BUFFER]) + _sized(integer(len(template)) + template)


def io(port: int, length: int) -> bytes:
    """An I/O port descriptor with 16-bit decoding (section 6.4.2.5)."""
    return pack("<BBHHBB", 0x47, 1, port, port, 1, length)


def irq(number: int) -> bytes:
    """An IRQ descriptor, edge-triggered and active high (section 6.4.2.1)."""
    return pack("<BH", 0x22, 1 << number)


def _path(path: str) -> bytes:
    """A name string (section 20.2.2): segments are padded with underscores."""
    root = path.startswith("\\")
    segments = [part.ljust(4, "_").encode("ascii") for part in path.lstrip("\\").split(".") if part]
    prefix = b"\\" if root else b""
    if not segments:
        return prefix + b"\0"
    if len(segments) == 1:
        return prefix + segments[0]
    if len(segments) == 2:
        return prefix + bytes([_DUAL]) + b"".join(segments)
    return prefix + bytes([_MULTI, len(segments)]) + b"".join(segments)


def _sized(body: bytes) -> bytes:
    """``body`` behind its package length, which counts itself (section 20.2.4)."""
    length = len(body) + 1
    if length < 0x40:
        return bytes([length]) + body
    for extra in (1, 2, 3):
        length = len(body) + 1 + extra
        if length < 1 << 4 + 8 * extra:
            rest = (length >> 4).to_bytes(extra, "little")
            return bytes([extra << 6 | length & 15]) + rest + body
    raise ValueError(f"{len(body)} bytes are too many for an AML package")
