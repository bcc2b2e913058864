"""The firmware configuration device, driven as firmware drives it."""

from struct import pack, unpack, unpack_from

import pytest

from ringfence.devices.chipset.fw_cfg import FwCfg


class Memory:
    def __init__(self) -> None:
        self.data = bytearray(1 << 16)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.data[address : address + size]).ljust(size, b"\xff")

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        if address + len(data) <= len(self.data):
            self.data[address : address + len(data)] = data

    def view(self, address: int, size: int) -> memoryview | None:
        return None

    def written(self, address: int, size: int) -> None:
        pass


def read(device: FwCfg, key: int, size: int) -> bytes:
    device.write(0, 2, key)
    return bytes(device.read(1, 1) for _ in range(size))


def files(device: FwCfg) -> dict[str, tuple[int, int]]:
    (count,) = unpack(">I", read(device, 0x19, 4))
    entries = bytes(device.read(1, 1) for _ in range(64 * count))
    found = {}
    for at in range(0, len(entries), 64):
        size, key, _, name = unpack_from(">IHH56s", entries, at)
        found[name.rstrip(b"\0").decode()] = (key, size)
    return found


def transfer(device: FwCfg, memory: Memory, control: int, length: int, target: int) -> int:
    memory.data[0x100:0x110] = pack(">IIQ", control, length, target)
    device.write(4, 4, 0)
    device.write(8, 4, int.from_bytes(pack("<I", 0x100), "big"))
    return int.from_bytes(memory.data[0x100:0x104], "big")


def test_signature_and_interfaces() -> None:
    device = FwCfg()
    assert read(device, 0, 4) == b"QEMU"
    assert read(device, 1, 4) == b"\x03\0\0\0"
    assert read(device, 0x77, 2) == b"\0\0", "no such item"
    assert device.read(4, 4).to_bytes(4, "little") == b"QEMU"
    assert device.read(8, 4).to_bytes(4, "little") == b" CFG"
    assert device.read(4, 8).to_bytes(8, "little") == b"QEMU CFG"


def test_files() -> None:
    device = FwCfg()
    device.add_file("etc/b", b"hello")
    device.add_file("etc/a", lambda: b"made")
    listed = files(device)
    assert list(listed) == ["etc/a", "etc/b"]
    for name, contents in (("etc/a", b"made"), ("etc/b", b"hello")):
        key, size = listed[name]
        assert size == len(contents)
        assert read(device, key, size + 1) == contents + b"\0"
    with pytest.raises(ValueError, match="55 bytes"):
        device.add_file("x" * 56, b"")


def test_what_is_made_on_demand_is_made_once_until_reset() -> None:
    made = []
    device = FwCfg()
    device.add_file("a", lambda: made.append(1) or bytes([len(made)]))  # type: ignore[func-returns-value]
    key, _ = files(device)["a"]
    first = read(device, key, 1)
    assert read(device, key, 1) == first
    device.reset()
    assert read(device, key, 1) != first


def test_dma() -> None:
    memory = Memory()
    device = FwCfg(memory)
    device.add_file("f", bytes(range(100)))
    key, _ = files(device)["f"]
    assert transfer(device, memory, key << 16 | 8 | 2, 10, 0x1000) == 0
    assert memory.data[0x1000:0x100A] == bytes(range(10))
    assert transfer(device, memory, 4, 5, 0) == 0
    assert transfer(device, memory, 2, 200, 0x2000) == 0
    assert memory.data[0x2000 : 0x2000 + 200] == bytes(range(15, 100)) + bytes(115)
    assert transfer(device, memory, 16, 4, 0x2000) == 1, "nothing can be written"
    assert transfer(device, memory, key << 16 | 8 | 2, 0xFFFFFFFF, 0xFFFF_FFFF_FFFF_0000) == 1
    assert memory.data[0x3000:] == bytes(len(memory.data) - 0x3000)


def test_the_position_survives_a_restore() -> None:
    first, second = FwCfg(), FwCfg()
    for device in (first, second):
        device.add_file("f", b"abc")
    key, _ = files(first)["f"]
    assert read(first, key, 1) == b"a"
    second.restore(first.state())
    assert second.read(1, 1) == ord("b")
