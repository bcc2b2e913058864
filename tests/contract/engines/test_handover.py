"""What KVM can't execute, bt does: on a KVM that refuses instructions of a 64-bit kernel."""

import time
from struct import pack

import pytest

from ringfence import _core
from ringfence.engines import kvm
from support.engines import CODE, DATA, Guest, Maker

CHIPS = ["kvm-kernel-chips", "kvm-own-chips"]
IDT, HANDLER = 0xA000, 0x9000


@pytest.fixture(params=CHIPS)
def guest(request: pytest.FixtureRequest, make: Maker) -> Guest:
    made = make(request.param)
    refused = _core.kvm_probe(kvm.DEVICE)["refused"]
    if not {"INT3", "LOCK CMPXCHG16B"} <= set(refused):
        pytest.skip("this host's KVM refuses none of the instructions")
    return made


def count(guest: Guest, name: str) -> int:
    return guest.vcpu.statistics()[name]


def test_an_exchange_of_16_bytes(guest: Guest) -> None:
    guest.machine.write(DATA, pack("<QQ", 11, 22))
    # mov esi, DATA; mov eax, 11; mov edx, 22; mov ebx, 33; mov ecx, 44; lock cmpxchg16b [rsi];
    # setz al; out F4h, al
    guest.load(
        f"be{pack('<I', DATA).hex()} b80b000000 ba16000000 bb21000000 b92c000000"
        "f0480fc70e 0f94c0 e6f4",
        mode=64,
    )
    assert guest.until_out() == 1
    assert guest.machine.read(DATA, 16) == pack("<QQ", 33, 44)
    assert count(guest, "emulation_failures") == 1
    assert count(guest, "handovers") == 1
    assert count(guest, "handover_instructions") == 1


def test_a_breakpoint_exception(guest: Guest) -> None:
    # int3; out F4h, al. The handler: mov al, 3; iretq
    guest.machine.write(IDT + 3 * 16, pack("<HHHHQ", HANDLER, 8, 0x8E00, 0, 0))
    guest.machine.write(HANDLER, bytes.fromhex("b003 48cf"))
    guest.load("cc e6f4", mode=64)
    guest.vcpu.set_system_registers(
        {
            "idtr": {"base": IDT, "limit": 0xFFF},
            "gdtr": {"base": 0x3000, "limit": 0x17},
        }
    )
    guest.machine.write(0x3008, pack("<QQ", 0x00AF9B000000FFFF, 0x00CF93000000FFFF))
    assert guest.until_out() == 3
    assert count(guest, "handovers") >= 1


def test_a_device_in_the_middle(guest: Guest) -> None:
    """The instruction that KVM refuses reaches a device, which bt leaves to."""
    # mov esi, 400000h; lock cmpxchg16b [rsi]; out F4h, al
    guest.load("be00004000 f0480fc70e e6f4", mode=64)
    loads = [guest.run()]
    while isinstance(loads[-1], _core.MmioRead):
        loads.append(guest.run(0))
    stores = loads.pop()
    assert {(load.address, load.size) for load in loads} == {(0x400000, 8), (0x400008, 8)}
    while isinstance(stores, _core.MmioWrite):
        stores = guest.run()
    assert stores == _core.PortOut(0xF4, 1, 0)
    assert count(guest, "handovers") == 1


def test_many_in_a_row_are_done_in_bursts(guest: Guest) -> None:
    # mov ecx, 2000; mov esi, DATA; l: lock cmpxchg16b [rsi]; dec edi; jnz l
    guest.load(f"be{pack('<I', DATA).hex()} bfd0070000 f0480fc70e ffcf 75f7 b05a e6f4", mode=64)
    assert guest.until_out() == 0x5A
    handovers, instructions = count(guest, "handovers"), count(guest, "handover_instructions")
    assert instructions >= 2000
    assert handovers < 500


def test_an_interruption_during_a_burst(guest: Guest) -> None:
    guest.load(f"be{pack('<I', DATA).hex()} f0480fc70e ebf9", mode=64)
    running = guest.in_thread()
    time.sleep(0.05)
    running.stop()
    assert running.leaving == _core.Interrupted()
    assert guest.vcpu.registers()["rip"] in {CODE + 5, CODE + 10}
    assert count(guest, "handovers") > 0
