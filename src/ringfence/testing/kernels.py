"""Kernels of a few instructions: what a test of a machine, or of one instruction, boots."""

import struct

__all__ = ["pvh_kernel"]


def pvh_kernel(code: bytes, entry: int = 0x100000) -> bytes:
    """An ELF kernel of ``code``, entered in 32-bit protected mode with paging off.

    Args:
        code: Machine code, which starts at its first byte and owns the machine.
        entry: Guest physical address that it is loaded at, in RAM and a multiple of 4 KiB.

    Returns:
        The file's bytes. The note XEN_ELFNOTE_PHYS32_ENTRY (18) names the entry (Xen's x86/HVM
        direct boot ABI).
    """
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", entry)
    header_size, program_size = 52, 32
    note_at = header_size + 2 * program_size
    code_at = 0x1000
    header = struct.pack(
        "<16sHHIIIIIHHHHHH",
        b"\x7fELF\x01\x01\x01",
        2,  # ET_EXEC
        3,  # EM_386
        1,
        entry,
        header_size,
        0,
        0,
        header_size,
        program_size,
        2,
        40,
        0,
        0,
    )
    load = struct.pack("<8I", 1, code_at, entry, entry, len(code), len(code), 7, 0x1000)
    notes = struct.pack("<8I", 4, note_at, 0, 0, len(note), len(note), 4, 4)
    return (header + load + notes + note).ljust(code_at, b"\0") + code
