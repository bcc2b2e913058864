"""An engine whose guest is a Python generator: it yields exits and gets what is read."""

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from mmap import mmap
from threading import Condition
from time import monotonic_ns
from typing import Any, NamedTuple
from weakref import proxy

from ringfence.engines import ExitKinds


class PortIn(NamedTuple):
    port: int
    size: int = 1


class PortOut(NamedTuple):
    port: int
    value: int
    size: int = 1


class MmioRead(NamedTuple):
    address: int
    size: int


class MmioWrite(NamedTuple):
    address: int
    size: int
    value: int


class Halt:
    pass


class Shutdown:
    pass


class Hypercall:
    pass


class Debug:
    pass


class Interrupted:
    pass


class FakeError(Exception):
    """What this engine raises."""

    code = "internal"


Guest = Generator[Any, int, None]
Program = Callable[["FakeMachine", int], Guest]


@dataclass
class FakeVcpu:
    machine: "FakeMachine"
    index: int
    values: dict[str, int] = field(default_factory=dict)
    system: dict[str, Any] = field(default_factory=dict)
    guest: Guest | None = None
    started: bool = False
    interrupts: int = 0
    runs: int = 0

    def run(self, completion: int = 0) -> Any:
        """Goes on with the generator; when that has ended, the processor sleeps."""
        self.runs += 1
        with self.machine.condition:
            if self.guest is None:
                self.guest = self.machine.program(self.machine, self.index)
            if self.interrupts:
                # As KVM does: the pending access is completed by the run that comes next.
                self.interrupts = 0
                self.completion = completion
                return Interrupted()
        try:
            if self.started:
                exit_ = self.guest.send(getattr(self, "completion", None) or completion)
                self.completion = None
            else:
                self.started = True
                exit_ = next(self.guest)
        except StopIteration:
            self.guest = _sleep()
            self.started = False
            return self.run()
        if exit_ is None:
            with self.machine.condition:
                self.machine.condition.wait_for(lambda: self.interrupts, 10)
                self.interrupts = 0
            return Interrupted()
        return exit_

    def interrupt(self) -> None:
        with self.machine.condition:
            self.interrupts += 1
            self.machine.condition.notify_all()

    def registers(self) -> dict[str, int]:
        return {**self.values}

    def set_registers(self, values: dict[str, int]) -> None:
        self.values |= values

    def system_registers(self) -> dict[str, Any]:
        return {"cr0": 0x11, "cs": {"base": 0, "selector": 16}, **self.system}

    def set_system_registers(self, values: dict[str, Any]) -> None:
        self.system |= values

    def statistics(self) -> dict[str, int]:
        return {"runs": self.runs}

    def recent_code(self) -> list[str]:
        return ["0000000000001234 int3"]

    def start_profile(self, hertz: int) -> None:
        self.hertz = hertz

    def profile(self, most: int = 0) -> dict[str, Any]:
        return {"phases": {"outside": self.hertz}, "blocks": [{"samples": most}] if most else []}


def _sleep() -> Guest:
    while True:
        yield None


class FakeMemory:
    """Memory that no guest sees."""

    def __init__(self, size: int) -> None:
        self.size = size
        # Committed when it is touched, for machines are large.
        self.bytes = mmap(-1, size)

    def view(self) -> memoryview:
        return memoryview(self.bytes)

    def written(self, offset: int = 0, size: int | None = None) -> None:
        pass

    def dirty_pages(self, offset: int = 0, size: int | None = None) -> bytes:
        return bytes(-(-(size or self.size - offset) // 0x8000))


class FakeMachine:
    """Memory as a dictionary of what was written."""

    def __init__(self, program: Program, vcpus: int) -> None:
        self.program = program
        self.condition = Condition()
        # No cycle: a test looks at when the machine is freed.
        self.cpus = [FakeVcpu(proxy(self), index) for index in range(vcpus)]
        self.mapped: list[tuple[int, int]] = []
        self.written: dict[int, bytes] = {}
        self.lines: list[tuple[int, bool]] = []
        self.a20_enabled = True
        self.smis = 0
        self.messages: list[tuple[int, int]] = []
        self.start = monotonic_ns()

    def map_memory(self, address: int, size: int, *, readonly: bool = False) -> None:
        self.mapped.append((address, size))

    def map(
        self,
        address: int,
        memory: Any,
        *,
        offset: int = 0,
        size: int | None = None,
        readonly: bool = False,
        log_dirty: bool = False,
        replace: bool = False,
        smm: bool = False,
    ) -> None:
        self.mapped.append((address, size or memory.size - offset))

    def smi(self, vcpu: int = 0) -> None:
        self.smis += 1

    def unmap(self, address: int, size: int, *, smm: bool = False) -> None:
        self.mapped.remove((address, size))

    def dirty_pages(self, address: int, size: int) -> bytes:
        return bytes(-(-size // 0x8000))

    def a20(self, enabled: bool) -> None:
        self.a20_enabled = enabled

    def dma_read(self, address: int, size: int) -> bytes:
        return self.read(address, size)

    def dma_write(self, address: int, data: Any) -> None:
        self.written[address] = bytes(data)

    def read(self, address: int, size: int) -> bytes:
        return self.written.get(address, bytes(size))[:size]

    def write(self, address: int, data: Any) -> None:
        if not any(start <= address < start + size for start, size in self.mapped):
            raise FakeError("unmapped")
        self.written[address] = bytes(data)

    def irq_line(self, gsi: int, level: bool) -> None:
        self.lines.append((gsi, level))

    def signal_msi(self, address: int, data: int) -> None:
        self.messages.append((address, data))

    def vcpu(self, index: int) -> FakeVcpu:
        return self.cpus[index]

    @property
    def nanoseconds(self) -> int:
        return monotonic_ns() - self.start


class FakeEngine:
    """Runs ``program(machine, index)`` on each processor."""

    name = "fake"
    error: type[Exception] = FakeError
    exits = ExitKinds(
        PortIn, PortOut, MmioRead, MmioWrite, Halt, Shutdown, Hypercall, Debug, Interrupted
    )

    def __init__(self, program: Program) -> None:
        self.program = program
        self.machines: list[FakeMachine] = []
        #: Processor models asked for.
        self.cpus: list[str] = []

    def create_memory(self, size: int) -> FakeMemory:
        return FakeMemory(size)

    def create_machine(self, vcpus: int, *, cpu: str = "host") -> FakeMachine:
        self.cpus.append(cpu)
        self.machines.append(FakeMachine(self.program, vcpus))
        return self.machines[-1]


def say(text: str | bytes, port: int = 0x3F8) -> Guest:
    """Sends ``text`` on a serial line."""
    for byte in text.encode() if isinstance(text, str) else text:
        yield PortOut(port, byte)


def hear_line(port: int = 0x3F8) -> Generator[Any, int, bytes]:
    """Receives a line on a serial line, by polling."""
    line = bytearray()
    while not line.endswith(b"\n"):
        status = yield PortIn(port + 5)
        if status & 1:
            line.append((yield PortIn(port)))
    return bytes(line[:-1])


def power_off() -> Guest:
    """ACPI S5."""
    yield PortOut(0x604, 5 << 10 | 1 << 13, 2)
