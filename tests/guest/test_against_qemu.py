"""A guest of our own on both sides: our deterministic machine and QEMU's gdbstub."""

import shutil
from pathlib import Path

import pytest

from ringfence.testing import pvh_kernel
from ringfence.testing.qemu import QEMU, against_qemu

ENTRY = 0x100000
# mov eax, 12345678h; mov ecx, 5; 1: add eax, ecx; rol eax, 7; adc edx, eax; dec ecx; jnz 1b;
# mov esp, 180000h; push eax; pop ebx; xor ebx, 55h; bswap ebx; cmp ebx, eax; setb cl; jmp $
CODE = bytes.fromhex(
    "b878563412 b905000000 01c8 c1c007 11c2 49 75f6 bc00001800 50 5b 83f355 0fcb 39c3 0f92c1 ebfe"
)

needs_qemu = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"no {QEMU}")


@needs_qemu
def test_our_processor_does_what_qemus_does(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(pvh_kernel(CODE))
    difference = against_qemu(kernel, ENTRY, until=45)
    assert difference is None, str(difference)


@needs_qemu
def test_the_first_difference_is_told(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    # nop; nop; mov eax, cr4: the models' features differ, and so does what the kernel finds;
    # cpuid tells them apart for sure.
    kernel.write_bytes(pvh_kernel(bytes.fromhex("90 90 31c0 0fa2 ebfe")))
    difference = against_qemu(kernel, ENTRY, until=10, cpu="EPYC", qemu_cpu="qemu64")
    assert difference is not None
    assert difference.instructions == 3
    assert "cpuid" in difference.instruction
    assert "rax" in str(difference) or "rbx" in str(difference)
