"""Loading bzImages by the Linux/x86 boot protocol."""

from struct import unpack_from

import pytest

from ringfence.errors import InitrdError, KernelError
from ringfence.firmware import direct, linux
from ringfence.firmware.boot import COMMAND_LINE, PAGE_TABLES, ZERO_PAGE, BootPlan
from ringfence.firmware.e820 import RAM, RESERVED, MemoryRange
from support.kernels import bzimage

MIB = 1 << 20
RANGES = [
    MemoryRange(0, 0x9FC00, RAM),
    MemoryRange(0x9FC00, 0x400, RESERVED),
    MemoryRange(MIB, 127 * MIB, RAM),
]


def plan(kernel: bytes, **options: object) -> BootPlan:
    return direct.plan(kernel, ranges=RANGES, **options)  # type: ignore[arg-type]


def written(boot: BootPlan, address: int) -> bytes:
    return bytes(next(data for at, data in boot.writes if at == address))


def test_64_bit_entry() -> None:
    body = bytes(range(256)) * 16
    boot = plan(bzimage(body), command_line="console=ttyS0", rsdp=0xE0000)
    assert boot.registers["rip"] == 0x1000200
    assert boot.registers["rsi"] == ZERO_PAGE
    assert written(boot, 0x1000000) == body
    assert written(boot, COMMAND_LINE) == b"console=ttyS0\0"
    system = boot.system_registers
    assert system["cs"] == {
        "base": 0,
        "limit": 0xFFFFFFFF,
        "attributes": 0xA09B,
        "selector": 0x10,
    }
    assert system["ds"]["selector"] == 0x18
    assert (system["cr0"] & 0x80000001, system["cr4"], system["efer"]) == (0x80000001, 0x20, 0x500)
    assert system["cr3"] == PAGE_TABLES


def test_zero_page() -> None:
    page = written(plan(bzimage(), command_line="x", rsdp=0xE0000), ZERO_PAGE)
    assert page[0x202:0x206] == b"HdrS"
    assert unpack_from("<H", page, 0x206)[0] == 0x020F
    assert page[0x210] == 0xFF
    assert unpack_from("<I", page, 0x214)[0] == 0x1000000
    assert unpack_from("<I", page, 0x228)[0] == COMMAND_LINE
    assert unpack_from("<Q", page, 0x070)[0] == 0xE0000
    assert unpack_from("<II", page, 0x218) == (0, 0)
    assert page[0x1E8] == 3
    entries = [unpack_from("<QQI", page, 0x2D0 + 20 * index) for index in range(3)]
    assert entries == [tuple(entry) for entry in RANGES]
    assert page[0x1EF] == 0, "the sentinel says that all other fields are set"


def test_identity_page_tables() -> None:
    """A walk of the tables gives each address itself."""
    boot = plan(bzimage())
    memory = {at: bytes(data) for at, data in boot.writes}

    def entry(table: int, index: int) -> int:
        for at, data in memory.items():
            if at <= table + 8 * index < at + len(data):
                return int(unpack_from("<Q", data, table + 8 * index - at)[0])
        raise AssertionError

    for address in (0, 0x7000, 0x1000200, 0xFFFFFFFF, 0xC0000000):
        pdpt = entry(PAGE_TABLES, address >> 39) & ~0xFFF
        directory = entry(pdpt, address >> 30 & 511) & ~0xFFF
        found = entry(directory, address >> 21 & 511)
        assert found & 0x83 == 0x83
        assert (found & ~0x1FFFFF) == address & ~0x1FFFFF


def test_global_descriptors_match_the_segments() -> None:
    boot = plan(bzimage())
    table = written(boot, boot.system_registers["gdtr"]["base"])
    assert len(table) == boot.system_registers["gdtr"]["limit"] + 1
    for name in ("cs", "ds", "ss", "tr"):
        segment = boot.system_registers[name]
        (descriptor,) = unpack_from("<Q", table, segment["selector"])
        # Bits 8 to 23 of the upper half, without the limit's bits 16 to 19 among them.
        assert descriptor >> 40 & 0xF0FF == segment["attributes"]


def test_32_bit_entry_without_the_64_bit_one() -> None:
    boot = plan(bzimage(xloadflags=0))
    assert boot.registers["rip"] == 0x1000000
    assert boot.system_registers["cr0"] & 0x80000001 == 1
    assert boot.system_registers["cs"]["attributes"] == 0xC09B
    assert "32-bit" in boot.kind


def test_initrd_goes_high_and_clear_of_the_kernel() -> None:
    initrd = b"initrd" * 1000
    boot = plan(bzimage(), initrd=initrd)
    page = written(boot, ZERO_PAGE)
    at, size = unpack_from("<II", page, 0x218)
    assert size == len(initrd)
    assert at == 128 * MIB - 0x2000
    assert written(boot, at) == initrd
    boot = plan(bzimage(initrd_max=0x1FFFFFF), initrd=initrd)
    (at,) = unpack_from("<I", written(boot, ZERO_PAGE), 0x218)
    assert at == 0x2000000 - 0x2000
    boot = plan(bzimage(initrd_max=0x11FFFFF), initrd=initrd)
    (at,) = unpack_from("<I", written(boot, ZERO_PAGE), 0x218)
    assert at == 0x1000000 - 0x2000, "below the kernel, for it ends within"


def test_initrd_that_does_not_fit() -> None:
    with pytest.raises(InitrdError, match="empty"):
        plan(bzimage(), initrd=b"")
    with pytest.raises(InitrdError, match="more memory"):
        plan(bzimage(), initrd=bytes(120 * MIB))


def test_kernels_that_do_not_fit() -> None:
    for relocatable in (0, 1):
        boot = plan(bzimage(relocatable=relocatable))
        assert boot.registers["rip"] == 0x1000200
        with pytest.raises(KernelError, match=r"needs at least 216 MiB .* more memory"):
            plan(bzimage(relocatable=relocatable, init_size=200 * MIB))
        for address in (0, 1 << 32, 1 << 63):
            with pytest.raises(KernelError, match="damaged"):
                plan(bzimage(relocatable=relocatable, pref_address=address))
    assert plan(bzimage(pref_address=0x1000001)).registers["rip"] == 0x1200200, "aligned"


def test_old_protocols() -> None:
    boot = plan(bzimage(version=0x0206, pref_address=0, init_size=0))
    assert boot.registers["rip"] == 0x200000, "2.06 has no preferred address and no 64-bit entry"
    with pytest.raises(KernelError, match=r"2\.05.*2\.06"):
        plan(bzimage(version=0x0205))


def test_command_line_limits() -> None:
    plan(bzimage(), command_line="x" * 255)
    with pytest.raises(KernelError, match="256 bytes long; this kernel takes 255"):
        plan(bzimage(), command_line="x" * 256)
    with pytest.raises(KernelError, match="zero byte"):
        plan(bzimage(), command_line="a\0b")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"boot_flag": 0}, "boot flag"),
        ({"loadflags": 0}, "zImage"),
        ({"setup_sects": 60}, "truncated"),
        ({"alignment": 3}, "alignment"),
        ({"alignment": 0}, "alignment"),
        ({"payload_length": 0xFFFFFFFF}, "payload"),
    ],
)
def test_damaged_headers(fields: dict[str, int], message: str) -> None:
    image = bzimage()
    if "setup_sects" in fields:
        image = image[:0x1F1] + bytes([fields["setup_sects"]]) + image[0x1F2:]
    else:
        image = bzimage(**fields)
    with pytest.raises(KernelError, match=message):
        plan(image)


def test_every_truncation_is_refused() -> None:
    image = bzimage(b"\xf4" * 512)
    for length in [*range(0, len(image) - 15, 37), len(image) - 16]:
        with pytest.raises(KernelError):
            plan(image[:length])


def test_parse_does_not_copy() -> None:
    image = bzimage()
    assert linux.parse(image).image.obj is image
