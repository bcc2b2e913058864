"""System-management mode: SMI, the state-save map, RSM, memory that only it sees."""

import pytest

from ringfence import _core

PAGE = 0x1000
DATA = 0x8000
SMBASE = 0x30000
#: RSM.
RSM = "0faa"


def handler(value: int) -> bytes:
    """Reports a number, then resumes."""
    number = value.to_bytes(4, "little").hex()
    return bytes.fromhex("6667c70500800000" + number + RSM)


@pytest.fixture
def machine() -> _core.Machine:
    """Stores EAX and counts it up, in flat 32-bit code."""
    machine = _core.Machine()
    machine.map_memory(0, 8 * PAGE)
    machine.map_memory(SMBASE, 16 * PAGE)
    machine.write(PAGE, bytes.fromhex("a30080000040ebf8"))
    flat = {"base": 0, "limit": 0xFFFFFFFF, "selector": 8}
    data = flat | {"attributes": 0xC093, "selector": 16}
    segments = dict.fromkeys(("ds", "es", "ss", "fs", "gs"), data)
    vcpu = machine.vcpu(0)
    vcpu.set_system_registers({"cr0": 0x11, "cs": flat | {"attributes": 0xC09B}, **segments})
    vcpu.set_registers({"rip": PAGE, "rsp": 0x7000, "rax": 7, "rflags": 0x46})
    return machine


def word(machine: _core.Machine, address: int, size: int = 4) -> int:
    return int.from_bytes(machine.read(address, size), "little")


def test_smi_saves_the_state_and_rsm_loads_it(machine: _core.Machine) -> None:
    machine.write(SMBASE + 0x8000, handler(0x1234))
    vcpu = machine.vcpu(0)
    assert vcpu.run() == _core.MmioWrite(DATA, 4, 7)
    before = vcpu.system_registers()
    machine.smi()
    assert vcpu.run() == _core.MmioWrite(DATA, 4, 0x1234)
    assert word(machine, SMBASE + 0xFFF8, 8) == 7
    assert word(machine, SMBASE + 0xFF78, 8) == PAGE + 5
    assert word(machine, SMBASE + 0xFEFC) == 0x20064
    assert word(machine, SMBASE + 0xFF00) == SMBASE
    assert word(machine, SMBASE + 0xFF58, 8) == 0x11
    assert word(machine, SMBASE + 0xFE10 + 4) == 0xFFFFFFFF
    inside = vcpu.system_registers()
    assert inside["cs"]["base"] == SMBASE
    assert inside["cr0"] & 1 == 0
    # What the handler leaves in the map is what comes back.
    machine.write(SMBASE + 0xFFF8, (99).to_bytes(8, "little"))
    assert vcpu.run() == _core.MmioWrite(DATA, 4, 100)
    after = vcpu.system_registers()
    assert after == before


def test_processors_without_64_bits_have_the_older_map() -> None:
    machine = _core.Machine(cpu="pentium3")
    machine.map_memory(SMBASE, 16 * PAGE)
    machine.write(SMBASE + 0x8000, handler(5))
    vcpu = machine.vcpu(0)
    vcpu.set_registers({"rax": 0xABCD})
    machine.smi()
    assert vcpu.run() == _core.MmioWrite(DATA, 4, 5)
    assert word(machine, SMBASE + 0xFFD0) == 0xABCD
    assert word(machine, SMBASE + 0xFEFC) == 0x20000
    assert word(machine, SMBASE + 0xFFF0) == 0xFFF0


def test_smbase_moves_to_memory_that_only_handlers_see(machine: _core.Machine) -> None:
    # mov dword [3FF00h], A0000h; rsm
    machine.write(SMBASE + 0x8000, bytes.fromhex("6667c70500ff030000000a00" + RSM))
    smram = _core.Memory(32 * PAGE)
    smram.view()[0x8000 : 0x8000 + 14] = handler(0x77)
    machine.map(0xA0000, smram, smm=True)
    assert machine.dma_read(0xA8000, 2) == b"\xff\xff"
    vcpu = machine.vcpu(0)
    for value in (7, 8):
        assert vcpu.run() == _core.MmioWrite(DATA, 4, value)
    machine.smi()
    assert vcpu.run() == _core.MmioWrite(DATA, 4, 9)
    # Code of the screen's memory, which is at the same addresses, is something else.
    for value in (10, 11):
        machine.smi()
        assert vcpu.run() == _core.MmioWrite(DATA, 4, 0x77)
        assert vcpu.run() == _core.MmioWrite(DATA, 4, value)
    assert int.from_bytes(smram.view()[0xFF78:0xFF80], "little") == PAGE + 5
    machine.unmap(0xA0000, 32 * PAGE, smm=True)


def test_an_smi_within_a_handler_waits(machine: _core.Machine) -> None:
    machine.write(SMBASE + 0x8000, handler(1))
    vcpu = machine.vcpu(0)
    machine.smi()
    assert vcpu.run() == _core.MmioWrite(DATA, 4, 1)
    machine.smi()
    assert vcpu.run() == _core.MmioWrite(DATA, 4, 1)
    assert vcpu.run() == _core.MmioWrite(DATA, 4, 7)


def test_rsm_is_undefined_elsewhere(machine: _core.Machine) -> None:
    machine.write(PAGE, bytes.fromhex(RSM))
    assert machine.vcpu(0).run() == _core.Shutdown()
    with pytest.raises(_core.CoreError):
        machine.smi(1)
