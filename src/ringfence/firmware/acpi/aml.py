"""ACPI machine language: the few terms that a description of devices needs.

Source: ACPI specification 6.5, chapter 20 (AML grammar) and 6.4 (resource descriptors). Every
function returns the byte code of one term; terms nest by concatenation.
"""

from collections.abc import Sequence
from struct import pack

__all__ = [
    "address_space",
    "device",
    "dword_field",
    "eisa_id",
    "field",
    "integer",
    "interrupts",
    "io",
    "irq",
    "logical_and",
    "memory32",
    "method",
    "method_return",
    "name",
    "package",
    "path",
    "pci_config",
    "resources",
    "returned",
    "scope",
    "stored",
    "string",
    "when",
]

_ZERO, _ONE, _NAME, _BYTE, _WORD, _DWORD, _STRING, _QWORD = 0, 1, 8, 10, 11, 12, 13, 14
_SCOPE, _BUFFER, _PACKAGE, _METHOD, _RETURN = 0x10, 0x11, 0x12, 0x14, 0xA4
_EXTENDED, _DEVICE, _DUAL, _MULTI = 0x5B, 0x82, 0x2E, 0x2F
_REGION, _FIELD, _DWORD_FIELD = 0x80, 0x81, 0x8A
_STORE, _AND, _IF = 0x70, 0x7B, 0xA0
#: Operation region of PCI configuration space.
_PCI_CONFIG = 2


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


def method(path: str, arguments: int, *terms: bytes) -> bytes:
    """``Method (path, arguments) { terms }``; adding 8 to ``arguments`` makes it serialized."""
    return bytes([_METHOD]) + _sized(_path(path) + bytes([arguments]) + b"".join(terms))


def path(text: str) -> bytes:
    """A reference to the object of that name."""
    return _path(text)


def returned(value: bytes) -> bytes:
    """``Return (value)``."""
    return bytes([_RETURN]) + value


def stored(value: bytes, target: bytes) -> bytes:
    """``Store (value, target)``."""
    return bytes([_STORE]) + value + target


def logical_and(first: bytes, second: bytes) -> bytes:
    """``And (first, second)``, bit by bit, its result not kept."""
    return bytes([_AND]) + first + second + b"\0"


def when(predicate: bytes, *terms: bytes) -> bytes:
    """``If (predicate) { terms }``."""
    return bytes([_IF]) + _sized(predicate + b"".join(terms))


def pci_config(path: str, offset: int, length: int) -> bytes:
    """``OperationRegion (path, PCI_Config, offset, length)`` of the device around it."""
    return (
        bytes([_EXTENDED, _REGION])
        + _path(path)
        + bytes([_PCI_CONFIG])
        + integer(offset)
        + integer(length)
    )


def field(region: str, *units: str) -> bytes:
    """``Field (region, ByteAcc, NoLock, Preserve)`` with a byte for each name of ``units``."""
    body = _path(region) + b"\x01" + b"".join(_path(unit) + b"\x08" for unit in units)
    return bytes([_EXTENDED, _FIELD]) + _sized(body)


def dword_field(buffer: bytes, offset: int, name: str) -> bytes:
    """``CreateDWordField (buffer, offset, name)``."""
    return bytes([_DWORD_FIELD]) + buffer + integer(offset) + _path(name)


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


def interrupts(*numbers: int) -> bytes:
    """An extended interrupt descriptor of a consumer: level, active high, shared (6.4.3.6)."""
    body = bytes([0x09, len(numbers)]) + b"".join(
        number.to_bytes(4, "little") for number in numbers
    )
    return pack("<BH", 0x89, len(body)) + body


def memory32(address: int, length: int) -> bytes:
    """A fixed 32-bit range of memory (section 6.4.3.4)."""
    return pack("<BHBII", 0x86, 9, 1, address, length)


def address_space(kind: str, first: int, last: int, *, bits: int) -> bytes:
    """A range that a bridge hands on, of 16, 32 or 64 bits (section 6.4.3.5).

    Args:
        kind: ``bus``, ``io`` or ``memory``.
        first: First address.
        last: Last address.
        bits: Width of the descriptor.
    """
    tag, letter = {16: (0x88, "H"), 32: (0x87, "I"), 64: (0x8A, "Q")}[bits]
    number, specific = {"memory": (0, 1), "io": (1, 3), "bus": (2, 0)}[kind]
    # Both ends fixed, positively decoded.
    values = pack(f"<5{letter}", 0, first, last, 0, last - first + 1)
    return pack("<BHBBB", tag, 3 + len(values), number, 0x0C, specific) + values


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
