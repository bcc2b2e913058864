"""``bench exits``: what it costs to leave an engine, by engine.

Round trips of a port and of a memory-mapped access to a Python device, in the same loop that
machines run; writes that signal an eventfd instead; and an interrupt from its line to the first
instruction of its handler, in a guest that is halted. Times are per access, on the host's clock.
"""

import argparse
import os
import statistics
import time
from struct import pack
from threading import RLock, Thread

from bench import report
from ringfence import _core
from ringfence.bus import MmioBus, PortBus
from ringfence.engines import kvm
from ringfence.engines.compiled import CompiledEngine
from ringfence.machine.processors import Processors

CODE = 0x1000
PORT, FINISHED, MMIO = 0x50, 0xF4, 0x40_0000
#: A round trip is short; this many make a measurement.
ACCESSES = 20_000
INTERRUPTS = 500


class Latch:
    """A register in Python."""

    LENGTH = 4
    WIDTHS = (1, 2, 4)

    def __init__(self) -> None:
        self.value = 0

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002 - the protocol's
        """The value."""
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Sets the value."""
        self.value = value


class Finish:
    """A port at whose write the guest has ended."""

    LENGTH = 1
    WIDTHS = (1,)

    def __init__(self) -> None:
        self.leave = lambda: None

    def read(self, offset: int, size: int) -> int:  # noqa: ARG002
        """Nothing."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:  # noqa: ARG002
        """Ends the run."""
        self.leave()


class Board:
    """The buses that the run loop answers from."""

    def __init__(self) -> None:
        self.ports, self.mmio = PortBus(), MmioBus()
        self.finish = Finish()
        self.ports.add(PORT, Latch(), name="latch")
        self.ports.add(FINISHED, self.finish, name="finish")
        self.mmio.add(MMIO, Latch(), name="latch")


def engines() -> dict[str, CompiledEngine]:
    """The engines of this host by the names of their columns."""
    found = {"bt": CompiledEngine("bt")}
    known = kvm.probe()
    if not known.available:
        report.note(f"kvm: left out: {known.reason}")
        return found
    if not known.advised:
        report.note(f"kvm: {known.reason}")
    return {
        **found,
        "kvm": CompiledEngine("kvm", chips="kernel"),
        "kvm-own-chips": CompiledEngine("kvm", chips="own"),
    }


def machine(engine: CompiledEngine) -> _core.Machine:
    """A machine of two megabytes, its processor in protected mode at CODE."""
    made = _core.Machine(engine.name, **engine.options)
    made.map_memory(0, 0x20_0000)
    made.write(0x3008, pack("<QQ", 0x00CF9B000000FFFF, 0x00CF93000000FFFF))
    flat = {"base": 0, "limit": 0xFFFFFFFF}
    code = {**flat, "attributes": 0xC09B, "selector": 8}
    data = {**flat, "attributes": 0xC093, "selector": 16}
    vcpu = made.vcpu(0)
    vcpu.set_system_registers(
        {
            "cs": code,
            **dict.fromkeys(("ds", "es", "ss"), data),
            "gdtr": {"base": 0x3000, "limit": 0x17},
            "cr0": 0x11,
        }
    )
    vcpu.set_registers({"rip": CODE, "rsp": 0xF000, "rflags": 2})
    return made


def loop(body: str, count: int) -> bytes:
    """``body`` so many times, then the end."""
    code = bytes.fromhex(body)
    # mov ecx, count; l: body; dec ecx; jnz l; out FINISHED, al; jmp $
    back = 0x100 - (len(code) + 4)
    return (
        b"\xb9"
        + pack("<I", count)
        + code
        + bytes([0xFF, 0xC9, 0x75, back])
        + bytes.fromhex("e6f4 ebfe")
    )


def run_board(made: _core.Machine, engine: CompiledEngine) -> float:
    """Seconds that the run loop of machines takes to the guest's end."""
    board, lock = Board(), RLock()
    failures: list[BaseException] = []
    processors = Processors(
        [made.vcpu(0)],
        engine.exits,
        board,  # type: ignore[arg-type] - all that the loop looks at
        lock,
        shutdown=lambda _: None,
        failed=lambda error, _: failures.append(error),
        left=lambda: None,
    )
    board.finish.leave = processors.leave
    start = time.perf_counter()
    processors.start()
    for thread in processors.threads:
        thread.join()
    took = time.perf_counter() - start
    if failures:
        raise failures[0]
    return took


def port(engine: CompiledEngine) -> float:
    """IN AL from a port: to a device in Python and back."""
    made = machine(engine)
    made.write(CODE, loop(f"e4{PORT:02x}", ACCESSES))
    return run_board(made, engine) / ACCESSES


def mmio(engine: CompiledEngine) -> float:
    """A load of 4 bytes: to a device in Python and back."""
    made = machine(engine)
    made.write(CODE, loop("a1" + pack("<I", MMIO).hex(), ACCESSES))
    return run_board(made, engine) / ACCESSES


def bare_port(engine: CompiledEngine) -> float:
    """IN AL from a port: to a loop in Python that does nothing, and back."""
    made = machine(engine)
    made.write(CODE, loop(f"e4{PORT:02x}", ACCESSES))
    run = made.vcpu(0).run
    start = time.perf_counter()
    for _ in range(ACCESSES):
        run(0)
    return (time.perf_counter() - start) / ACCESSES


def io_event(engine: CompiledEngine) -> float:
    """OUT of 4 bytes to a port: signals an eventfd, and does not leave."""
    made = machine(engine)
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    made.io_event(fd, port=PORT, size=4)
    made.write(CODE, loop(f"e7{PORT:02x}", ACCESSES))
    start = time.perf_counter()
    made.vcpu(0).run()
    took = time.perf_counter() - start
    assert os.eventfd_read(fd) == ACCESSES
    os.close(fd)
    return took / ACCESSES


def interrupt(engine: CompiledEngine) -> float:
    """From a rising line to its handler, which leaves: the median."""
    made = machine(engine)
    irq, handler, idt = 5, 0x9000, 0xA000
    # out PORT, al; mov al, 20h; out 20h, al; iret
    made.write(handler, bytes.fromhex(f"e6{PORT:02x} b020 e620 cf"))
    made.write(idt + (0x20 + irq) * 8, pack("<HHHH", handler, 8, 0x8E00, 0))
    pairs = [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFF & ~(1 << irq))]
    setup = "".join(f"b0{value:02x} e6{at:02x}" for at, value in pairs)
    # out PORT, al; sti; hlt; jmp to it
    made.write(CODE, bytes.fromhex(setup + f"e6{PORT:02x} fb f4 ebfd"))
    vcpu = made.vcpu(0)
    vcpu.set_system_registers({"idtr": {"base": idt, "limit": 0x7FF}})
    seen: list[float] = []

    def serve() -> None:
        while len(seen) < INTERRUPTS:
            if isinstance(vcpu.run(), _core.PortOut):
                seen.append(time.perf_counter())

    # The controller is set up before the first interrupt.
    vcpu.run()
    thread = Thread(target=serve)
    thread.start()
    times = []
    for count in range(INTERRUPTS):
        time.sleep(0.0002)
        start = time.perf_counter()
        made.irq_line(irq, True)
        while len(seen) <= count:
            time.sleep(0)
        times.append(seen[count] - start)
        made.irq_line(irq, False)
    thread.join()
    return statistics.median(times)


CASES = {
    "port_read": port,
    "mmio_read": mmio,
    "port_read_bare": bare_port,
    "io_event": io_event,
    "interrupt": interrupt,
}


def main(options: argparse.Namespace) -> int:
    """Runs the benchmark and prints it."""
    found = engines()
    series = report.Series(list(found), higher=False)
    for name, case in CASES.items():
        for _ in range(options.runs):
            for column, engine in found.items():
                series.add(name, "us", column, case(engine) * 1e6)
        report.note(f"{name} done")
    report.show(series, as_json=options.json)
    return 0
