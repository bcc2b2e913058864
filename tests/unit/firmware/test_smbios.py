"""SMBIOS tables, walked as an operating system walks them."""

from struct import unpack_from

import pytest

from ringfence.firmware.smbios import SmbiosMachine, anchor, tables

GIB = 1 << 30


def walk(data: bytes) -> list[tuple[int, int, bytes, list[str]]]:
    found, at = [], 0
    while at < len(data):
        kind, length, handle = unpack_from("<BBH", data, at)
        end = data.index(b"\0\0", at + length)
        texts = [text.decode() for text in data[at + length : end].split(b"\0") if text]
        found.append((kind, handle, data[at : at + length], texts))
        at = end + 2
    return found


@pytest.mark.parametrize("memory", [128 << 20, 40 * GIB, 3 << 40])
def test_structures(memory: int) -> None:
    data = tables(SmbiosMachine(3, memory, [(0, 3 * GIB), (4 * GIB, 4 * GIB + memory)]))
    found = walk(data)
    kinds = [kind for kind, *_ in found]
    assert kinds == [0, 1, 3, 4, 4, 4, 16, 17, 19, 19, 32, 127]
    assert len({handle for _, handle, _, _ in found}) == len(found)
    lengths = {kind: len(body) for kind, _, body, _ in found}
    assert lengths[0] == 0x18
    assert lengths[1] == 0x1B
    assert lengths[4] == 0x2A
    (array,) = [body for kind, _, body, _ in found if kind == 16]
    (device,) = [body for kind, _, body, _ in found if kind == 17]
    (short,) = unpack_from("<I", array, 7)
    (size,) = unpack_from("<H", device, 12)
    (extended,) = unpack_from("<I", device, 28)
    assert memory in (short << 10, unpack_from("<Q", array, 15)[0])
    assert memory >> 20 == (size if size != 0x7FFF else extended)
    assert found[1][3][:2] == ["Ringfence", "Standard PC"]


def test_entry_point() -> None:
    data = tables(SmbiosMachine(1, GIB, [(0, GIB)]))
    entry = anchor(data, 0xF1234)
    assert entry[:4] == b"_SM_"
    assert entry[16:21] == b"_DMI_"
    assert len(entry) == entry[5] == 31
    assert sum(entry) & 0xFF == 0
    assert sum(entry[16:]) & 0xFF == 0
    length, address, count = unpack_from("<HIH", entry, 22)
    assert (length, address, count) == (len(data), 0xF1234, len(walk(data)))
