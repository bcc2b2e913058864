"""Runs one deterministic machine twice, on two engines, and finds the first difference.

The two are stepped together. Registers are compared every few thousand instructions, the memory's
hash more seldom. Where something differs, both are run again from the last state that was equal,
until the block of translated code is found that made the difference.

The usual pair is translated code against the interpreter: each instruction's meaning exists once
more there, without a trick.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ringfence import VM

__all__ = ["Difference", "State", "lockstep"]

# How many instructions before a difference are shown.
_SHOWN = 64
_MOST_ADDRESSES = 16

Maker = Callable[[], "VM"]


@dataclass(frozen=True, slots=True)
class State:
    """A processor between two instructions."""

    #: General, segment, table and control registers by name; ``fs.base`` is a part of one.
    registers: dict[str, int]
    #: x87, SSE and AVX registers in the standard format of XSAVE.
    xsave: bytes
    #: The instruction at RIP.
    instruction: str = field(compare=False)

    def __str__(self) -> str:
        names = list(self.registers)
        rows = [names[at : at + 4] for at in range(0, len(names), 4)]
        return "\n".join(
            "  ".join(f"{name:>16}={self.registers[name]:016x}" for name in row) for row in rows
        )


@dataclass(frozen=True, slots=True)
class Difference:
    """The first block of translated code after which two runs differ."""

    #: Instructions after which all was equal, and after which it no longer was.
    last_equal: int
    first_different: int
    #: What was executed up to there, one instruction a line, the last few.
    code: tuple[str, ...]
    #: The states after it, of translated code and of the interpreter; ``None`` if it ended.
    translated: State | None
    interpreted: State | None
    #: Names of registers that differ.
    registers: tuple[str, ...] = ()
    #: Physical addresses of bytes in memory that differ, the first few.
    addresses: tuple[int, ...] = ()

    def __str__(self) -> str:
        lines = [f"after instruction {self.first_different} there is a difference:"]
        for name in self.registers:
            values = [
                "ended" if state is None else f"{state.registers.get(name, 0):#x}"
                for state in (self.translated, self.interpreted)
            ]
            lines.append(f"  {name}: translated {values[0]}, interpreted {values[1]}")
        if self.addresses:
            shown = ", ".join(f"{address:#x}" for address in self.addresses)
            lines.append(f"  memory differs at {shown}")
        lines += ["executed before:", *(f"  {line}" for line in self.code)]
        for title, state in (("translated", self.translated), ("interpreted", self.interpreted)):
            lines += [f"{title}:", "ended" if state is None else str(state)]
        return "\n".join(lines)


class _Pair:
    """The machine, translated and interpreted."""

    def __init__(self, make: Maker, pool: ThreadPoolExecutor, start: int) -> None:
        self._pool = pool
        self.machines = [make(), make()]
        # Up to the start both are known to be equal, and translated code gets there sooner.
        self.run_to(start)
        processor: Any = self.machines[1].machine.processor
        if processor is not None:
            processor.set_interpreter(True)

    def run_to(self, instructions: int) -> bool:
        """Runs both; whether at least one of them got there."""
        # A list: both must have stopped.
        return any(list(self._pool.map(lambda vm: vm.run_to(instructions), self.machines)))

    def states(self) -> list[State | None]:
        """Where they are; ``None`` for one that has ended."""
        return [_state(vm) for vm in self.machines]

    def hashes_differ(self) -> bool:
        """Whether their memories differ."""
        hashes = self._pool.map(lambda vm: vm.memory_hash(), self.machines)
        return len(set(hashes)) > 1

    def differing_addresses(self) -> tuple[int, ...]:
        """Physical addresses of the first bytes that differ."""
        found: list[int] = []
        chunks = (vm.machine.memory() for vm in self.machines)
        for (address, first), (_, second) in zip(*chunks, strict=True):
            if first != second:
                pairs = enumerate(zip(first, second, strict=True))
                found += [address + at for at, (one, other) in pairs if one != other]
            if len(found) >= _MOST_ADDRESSES:
                break
        return tuple(found[:_MOST_ADDRESSES])

    def stop(self) -> None:
        """Ends both."""
        for vm in self.machines:
            vm.stop()


def lockstep(
    make: Maker,
    *,
    until: int,
    start: int = 1,
    step: int = 10_000,
    memory_step: int = 10_000_000,
    progress: Callable[[int], None] | None = None,
) -> Difference | None:
    """Compares translated code with the interpreter, from the start of a machine on or later.

    Args:
        make: Makes a deterministic machine, prepared but not started; called at least twice.
        until: How many instructions to execute, if the machine does not end before.
        start: Instructions that both execute by translated code before they are compared.
        step: Instructions between comparisons of registers.
        memory_step: Instructions between comparisons of memory, a multiple of ``step``.
        progress: Told the number of instructions after each comparison of memory.

    Returns:
        The first difference, or ``None``.

    Raises:
        EngineError: the machine is not deterministic.
    """
    with ThreadPoolExecutor(2) as pool:
        good, bad = _search(make, pool, start, until, step, memory_step, progress)
        if bad is None:
            return None
        return _explain(make, pool, good, *_narrow(make, pool, good, bad))


def _search(
    make: Maker,
    pool: ThreadPoolExecutor,
    start: int,
    until: int,
    step: int,
    memory_step: int,
    progress: Callable[[int], None] | None,
) -> tuple[int, int | None]:
    """The last number at which all is equal and the first at which something is not."""
    pair = _Pair(make, pool, start)
    good = at = start
    try:
        while at < until:
            at = min(at + step, until)
            running = pair.run_to(at)
            states = pair.states()
            if states[0] != states[1]:
                return good, at
            if (at - start) % memory_step == 0 or at == until or not running:
                if pair.hashes_differ():
                    return good, at
                good = at
                if progress is not None:
                    progress(at)
            if not running:
                return good, None
        return good, None
    finally:
        pair.stop()


def _narrow(make: Maker, pool: ThreadPoolExecutor, start: int, bad: int) -> tuple[int, int]:
    """The last number at which all is equal and the first at which something is not.

    Both run from ``start`` without a stop: a block that is stopped within is interpreted.
    """

    def differs(at: int) -> bool:
        pair = _Pair(make, pool, start)
        try:
            pair.run_to(at)
            states = pair.states()
            return states[0] != states[1] or (None not in states and pair.hashes_differ())
        finally:
            pair.stop()

    good, end = start, bad
    while end - good > 1:
        middle = (good + end) // 2
        if differs(middle):
            end = middle
        else:
            good = middle
    return good, end


def _explain(make: Maker, pool: ThreadPoolExecutor, start: int, good: int, bad: int) -> Difference:
    """What is different after ``bad`` instructions."""
    pair = _Pair(make, pool, max(start, bad - _SHOWN))
    try:
        interpreted = pair.machines[1]
        code: list[str] = []
        for at in range(max(start, bad - _SHOWN), bad):
            state = _state(interpreted)
            if state is None:
                break
            code.append(state.instruction)
            interpreted.run_to(at + 1)
    finally:
        pair.stop()
    pair = _Pair(make, pool, start)
    try:
        pair.run_to(bad)
        one, other = pair.states()
        names: tuple[str, ...] = ()
        addresses: tuple[int, ...] = ()
        if one is not None and other is not None:
            names = tuple(
                name for name, value in one.registers.items() if value != other.registers.get(name)
            )
            if one.xsave != other.xsave:
                names += ("xsave",)
            addresses = pair.differing_addresses()
        return Difference(good, bad, tuple(code), one, other, names, addresses)
    finally:
        pair.stop()


def _state(vm: "VM") -> State | None:
    processor = vm.machine.processor
    if processor is None:
        return None
    registers: dict[str, int] = dict(processor.registers())
    for name, value in processor.system_registers().items():
        if isinstance(value, dict):
            registers.update({f"{name}.{part}": number for part, number in value.items()})
        else:
            registers[name] = value
    return State(registers, _xsave(processor), processor.recent_code()[-1])


def _xsave(processor: Any) -> bytes:
    image: bytes = processor.xsave()
    return image
