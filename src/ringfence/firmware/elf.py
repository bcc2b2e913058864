"""Executable ELF files, as far as loading a kernel needs them.

Source: System V application binary interface, chapters 4 and 5; AMD64 and i386 supplements.
"""

from dataclasses import dataclass
from struct import unpack_from
from typing import NamedTuple

from ringfence.errors import KernelError

__all__ = ["ElfFile", "Segment", "is_elf", "parse"]

_MAGIC = b"\x7fELF"
_CLASS32, _CLASS64, _LITTLE = 1, 2, 1
_EM_386, _EM_X86_64 = 3, 62
_ET_EXEC, _ET_DYN = 2, 3
_PT_LOAD, _PT_NOTE = 1, 4
_MOST_HEADERS = 1024
_LARGEST = 1 << 52


class Segment(NamedTuple):
    """A loadable segment."""

    #: Physical address.
    address: int
    #: The bytes in the file; zeros follow up to ``size``.
    data: memoryview
    size: int


class _Header(NamedTuple):
    """A program header."""

    kind: int
    offset: int
    address: int
    file_size: int
    memory_size: int


@dataclass(frozen=True, slots=True)
class ElfFile:
    """An ELF executable."""

    #: 32 or 64.
    bits: int
    #: Virtual address of the entry point.
    entry: int
    segments: list[Segment]
    #: ``(name, type, descriptor)`` of the notes in PT_NOTE segments.
    notes: list[tuple[bytes, int, bytes]]


def is_elf(image: bytes | memoryview) -> bool:
    """Whether ``image`` has the mark of ELF."""
    return bytes(image[:4]) == _MAGIC


def parse(image: bytes | memoryview) -> ElfFile:
    """Reads headers, segments and notes; copies nothing but the notes.

    Raises:
        KernelError: it is not an x86 executable, is truncated, or contradicts itself.
    """
    view = memoryview(image).cast("B")
    if not is_elf(view):
        raise KernelError("not an ELF file: the mark is missing")
    if len(view) < 64:
        raise KernelError(f"the ELF file is truncated: it has only {len(view)} bytes")
    kind, order = view[4], view[5]
    if kind not in (_CLASS32, _CLASS64) or order != _LITTLE:
        raise KernelError("the ELF file is not for x86: wrong class or byte order")
    file_type, machine = unpack_from("<HH", view, 16)
    if machine not in (_EM_386, _EM_X86_64):
        raise KernelError(f"the ELF file is not for x86: its machine is {machine}")
    if file_type not in (_ET_EXEC, _ET_DYN):
        raise KernelError(f"the ELF file is not an executable: its type is {file_type}")
    if kind == _CLASS64:
        entry, table = unpack_from("<QQ", view, 24)
        size, count = unpack_from("<HH", view, 54)
    else:
        entry, table = unpack_from("<II", view, 24)
        size, count = unpack_from("<HH", view, 42)
    least = 56 if kind == _CLASS64 else 32
    if count == 0 or count > _MOST_HEADERS or size < least:
        raise KernelError(f"the ELF file is damaged: {count} program headers of {size} bytes")
    if table + size * count > len(view):
        raise KernelError("the ELF file is truncated: its program headers lie behind its end")
    segments: list[Segment] = []
    notes: list[tuple[bytes, int, bytes]] = []
    for index in range(count):
        header = _header(view, table + index * size, kind)
        if header.kind not in (_PT_LOAD, _PT_NOTE) or header.memory_size == 0:
            continue
        if header.offset + header.file_size > len(view):
            raise KernelError(f"the ELF file is truncated: segment {index} lies behind its end")
        data = view[header.offset : header.offset + header.file_size]
        if header.kind == _PT_NOTE:
            notes += _notes(data)
        elif (
            header.file_size > header.memory_size or header.address + header.memory_size > _LARGEST
        ):
            raise KernelError(f"the ELF file is damaged: segment {index} has no valid size")
        else:
            segments.append(Segment(header.address, data, header.memory_size))
    if not segments:
        raise KernelError("the ELF file has nothing to load")
    return ElfFile(64 if kind == _CLASS64 else 32, entry, segments, notes)


def _header(view: memoryview, at: int, kind: int) -> _Header:
    """The program header at offset ``at``."""
    if kind == _CLASS64:
        p_type, _, offset, _, address, file_size, memory_size = unpack_from("<IIQQQQQ", view, at)
    else:
        p_type, offset, _, address, file_size, memory_size = unpack_from("<IIIIII", view, at)
    return _Header(p_type, offset, address, file_size, memory_size)


def _notes(data: memoryview) -> list[tuple[bytes, int, bytes]]:
    """The notes of a segment, up to the first that is not whole."""
    found: list[tuple[bytes, int, bytes]] = []
    at = 0
    while at + 12 <= len(data):
        name_size, descriptor_size, kind = unpack_from("<III", data, at)
        name = at + 12
        descriptor = name + (name_size + 3) // 4 * 4
        end = descriptor + descriptor_size
        if end > len(data):
            break
        found.append((bytes(data[name : name + name_size]), kind, bytes(data[descriptor:end])))
        at = descriptor + (descriptor_size + 3) // 4 * 4
    return found
