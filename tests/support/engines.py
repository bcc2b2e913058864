"""Tiny guests in each mode, on each engine."""

from collections.abc import Callable
from dataclasses import dataclass
from struct import pack
from threading import Thread, Timer
from typing import Any

import pytest

from ringfence import _core
from ringfence.engines import kvm

PAGE = 0x1000
#: Where guests begin, their page tables and data, and the top of their stack.
CODE, TABLES, DATA, STACK = 0x1000, 0x4000, 0x8000, 0xF000
MEMORY = 0x20_0000
#: No guest of ours runs so long.
PATIENCE = 30.0

#: The bt engine, and KVM with either interrupt hardware.
ENGINES = {
    "bt": {"engine": "bt"},
    "kvm-kernel-chips": {"engine": "kvm", "chips": "kernel"},
    "kvm-own-chips": {"engine": "kvm", "chips": "own"},
}

DATA16, CODE16 = 0x93, 0x9B
DATA32, CODE32, CODE64 = 0xC093, 0xC09B, 0xA09B
PROTECTED, PAGING = 0x11, 0x8000_0011
PAE_AND_SSE = 0x620
LONG_MODE = 0x500


def options(name: str) -> dict[str, Any]:
    """How to make a machine of an engine of ``ENGINES``; skips if this host can't."""
    found = ENGINES[name]
    if found["engine"] == "kvm":
        known = kvm.probe()
        if not known.available:
            pytest.skip(f"kvm: {known.reason}")
    return found


@dataclass
class Guest:
    """A machine with one or two megabytes at 0, and its first processor."""

    machine: _core.Machine
    kvm: bool

    @property
    def vcpu(self) -> _core.Vcpu:
        return self.machine.vcpu(0)

    def load(self, code: str | bytes, *, mode: int = 16) -> "Guest":
        """Puts code where the processor goes on, in a mode of 16, 32 or 64 bits."""
        self.machine.write(CODE, bytes.fromhex(code) if isinstance(code, str) else code)
        enter(self.machine, mode)
        return self

    def run(self, completion: int | bytes | None = None) -> Any:
        """Runs to the next exit; interrupts a guest that hangs."""
        timer = Timer(PATIENCE, self.vcpu.interrupt)
        timer.start()
        try:
            return self.vcpu.run(completion)
        finally:
            timer.cancel()
            timer.join()

    def until_out(self, port: int = 0xF4) -> int:
        """Runs to an OUT; the value written."""
        leaving = self.run()
        assert isinstance(leaving, _core.PortOut), leaving
        assert leaving.port == port
        return leaving.value

    def in_thread(self, index: int = 0) -> "Running":
        """Runs a processor in a thread of its own."""
        return Running(self.machine.vcpu(index))


class Running:
    """A processor that runs until it writes to the port F4h or is interrupted."""

    def __init__(self, vcpu: _core.Vcpu) -> None:
        self.leaving: Any = None
        self._vcpu = vcpu
        self._thread = Thread(target=self._body, daemon=True)
        self._thread.start()

    def _body(self) -> None:
        self.leaving = self._vcpu.run()

    def join(self) -> Any:
        """The exit, once there is one."""
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._vcpu.interrupt()
            self._thread.join()
        return self.leaving

    def stop(self) -> None:
        """Interrupts it."""
        self._vcpu.interrupt()
        self._thread.join()


def enter(machine: _core.Machine, mode: int) -> None:
    """Makes processor 0 begin at CODE in a mode, its segments flat but for 16 bits."""
    attributes = {16: (CODE16, DATA16), 32: (CODE32, DATA32), 64: (CODE64, DATA32)}[mode]
    limit = 0xFFFF if mode == 16 else 0xFFFF_FFFF
    selectors = (0, 0) if mode == 16 else (8, 16)
    code, data = (
        {"base": 0, "limit": limit, "attributes": kind, "selector": selector}
        for kind, selector in zip(attributes, selectors, strict=True)
    )
    values: dict[str, Any] = {"cs": code, **dict.fromkeys(("ds", "es", "ss", "fs", "gs"), data)}
    values |= {"cr0": 0x10, "cr4": 0, "efer": 0}
    values["gdtr"] = {"base": 0x3000, "limit": 0x17}
    machine.write(0x3008, pack("<QQ", 0x00CF9B000000FFFF, 0x00CF93000000FFFF))
    if mode == 32:
        values["cr0"] = PROTECTED
    if mode == 64:
        # 1 GiB of 2 MiB pages, and the chips' addresses, at their physical addresses.
        machine.write(TABLES, pack("<Q", TABLES + PAGE | 7))
        machine.write(
            TABLES + PAGE,
            pack("<QQQQ", TABLES + 2 * PAGE | 7, 0, 0, TABLES + 3 * PAGE | 7),
        )
        for page in range(512):
            machine.write(TABLES + 2 * PAGE + page * 8, pack("<Q", page << 21 | 0x87))
            machine.write(TABLES + 3 * PAGE + page * 8, pack("<Q", 3 << 30 | page << 21 | 0x87))
        values |= {"cr0": PAGING, "cr3": TABLES, "cr4": PAE_AND_SSE, "efer": LONG_MODE}
    vcpu = machine.vcpu(0)
    vcpu.set_system_registers(values)
    zeros = dict.fromkeys(vcpu.registers(), 0)
    vcpu.set_registers({**zeros, "rip": CODE, "rsp": STACK, "rflags": 2})


Maker = Callable[..., Guest]
