"""The board micro: what is on it, and what can't be."""

import pytest

from ringfence.boards import HostEnds, Micro
from ringfence.config import DeviceConfig, MachineConfig
from ringfence.errors import ConfigError, StateError
from ringfence.firmware.acpi.reduced import ReducedHardware, VirtioPlace, build_reduced
from support.fake_devices import HandClock, Port


class Queues:
    """Makes no queue: no driver runs here."""

    error = RuntimeError

    def make(self, *areas: int, **options: bool) -> None:
        raise RuntimeError

    def discard(self, address: int, size: int) -> int:
        return 0


def ends() -> HostEnds:
    return HostEnds(
        clock=HandClock(),
        irq_line=lambda gsi, level: None,
        serial=[Port()],
        debug=Port(),
        power_off=lambda: None,
        reset=lambda: None,
        debug_exit=lambda status: None,
        end=lambda kind, name: lambda size: bytes(size),
        queues=Queues(),  # type: ignore[arg-type]
    )


def board(*devices: str) -> Micro:
    return Micro(ends(), memory=64 << 20, devices=[DeviceConfig.parse(text) for text in devices])


def test_nothing_older_than_serial_lines() -> None:
    micro = board("virtio-rng")
    assert micro.ports.read(0x60, 1) == micro.ports.read(0x70, 1) == 0xFF
    assert micro.ports.read(0xCFC, 4) == 0xFFFFFFFF
    assert micro.mmio.read(0xD0000000, 4).to_bytes(4, "little") == b"virt"
    assert micro.mmio.read(0xD0001000, 4) == 0xFFFFFFFF


def test_devices_that_can_not_be_on_it() -> None:
    for text, message in [
        ("e1000", "no PCI bus"),
        ("virtio-rng,speed=9", "no option 'speed'"),
        ("virtio-rng,packed=maybe", "on or off"),
        ("toaster", "there is no device"),
    ]:
        with pytest.raises(ConfigError, match=message):
            board(text)
    with pytest.raises(ConfigError, match="17 devices"):
        board(*["virtio-rng"] * 18)
    with pytest.raises(ConfigError, match="kernels only"):
        board().power_on()


def test_state() -> None:
    micro, other = board("virtio-rng"), board("virtio-rng")
    micro.mmio.write(0xD0000070, 4, 1)
    other.restore(micro.state())
    assert other.mmio.read(0xD0000070, 4) == 1
    with pytest.raises(StateError, match="virtio0"):
        board().restore(micro.state())
    micro.reset()
    assert micro.mmio.read(0xD0000070, 4) == 0


def test_tables_have_good_checksums() -> None:
    hardware = ReducedHardware(
        cpus=2,
        local_apic=0xFEE00000,
        io_apic=0xFEC00000,
        sleep_control=0x600,
        sleep_status=0x601,
        slp_typ_s5=5,
        reset_port=0xCF9,
        reset_value=6,
        serial=(),
        virtio=(VirtioPlace(0xD0000000, 0x1000, 5),),
    )
    base = 0xE0000
    tables = build_reduced(hardware, base)
    assert tables[:8] == b"RSD PTR "
    assert sum(tables[:20]) & 0xFF == sum(tables[:36]) & 0xFF == 0
    xsdt = int.from_bytes(tables[24:32], "little") - base
    count = (int.from_bytes(tables[xsdt + 4 : xsdt + 8], "little") - 36) // 8
    names = []
    for index in range(count):
        at = int.from_bytes(tables[xsdt + 36 + 8 * index :][:8], "little") - base
        size = int.from_bytes(tables[at + 4 : at + 8], "little")
        assert sum(tables[at : at + size]) & 0xFF == 0
        names.append(tables[at : at + 4])
    assert names == [b"FACP", b"APIC"]
    assert b"LNRO0005" in tables


def test_configuration() -> None:
    assert MachineConfig.from_mapping({"image": "debian", "board": "micro"}).board == "micro"
    with pytest.raises(ConfigError, match="micro"):
        MachineConfig.from_mapping({"image": "debian", "board": "atx"})
