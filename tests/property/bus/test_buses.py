"""Buses against the plainest model: a table of one entry per address."""

from typing import ClassVar

from hypothesis import given
from hypothesis import strategies as st

from ringfence.bus import MmioBus, PortBus, State
from ringfence.errors import OverlapError

SPACE = 64


class Memory:
    """Plain bytes."""

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4})
    LENGTH: ClassVar[int] = 8

    def __init__(self) -> None:
        self.bytes = bytearray(self.LENGTH)

    def reset(self) -> None:
        pass

    def read(self, offset: int, size: int) -> int:
        assert 0 <= offset <= self.LENGTH - size
        return int.from_bytes(self.bytes[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        assert 0 <= offset <= self.LENGTH - size
        self.bytes[offset : offset + size] = value.to_bytes(size, "little")

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        pass


class ByteMemory(Memory):
    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})


placements = st.lists(st.tuples(st.integers(0, SPACE - 8), st.booleans()), max_size=12)
accesses = st.lists(
    st.tuples(
        st.booleans(),
        st.integers(0, SPACE - 8),
        st.sampled_from([1, 2, 4]),
        st.integers(0, 2**32 - 1),
    ),
    max_size=40,
)


def check(bus: PortBus | MmioBus, placed: list[tuple[int, bool]], todo: object) -> None:
    model: dict[int, int] = {}
    for index, (base, narrow) in enumerate(placed):
        free = not any(address in model for address in range(base, base + 8))
        try:
            bus.add(base, ByteMemory() if narrow else Memory(), name=f"device {index}")
        except OverlapError:
            assert not free
        else:
            assert free
            model |= dict.fromkeys(range(base, base + 8), 0)
    for is_write, address, size, value in todo:  # type: ignore[attr-defined]
        if is_write:
            bus.write(address, size, value)
            for index in range(size):
                if address + index in model:
                    model[address + index] = value >> 8 * index & 0xFF
        else:
            wanted = b"".join(bytes([model.get(address + n, 0xFF)]) for n in range(size))
            assert bus.read(address, size) == int.from_bytes(wanted, "little")


@given(placements, accesses)
def test_ports(placed: list[tuple[int, bool]], todo: object) -> None:
    check(PortBus(), placed, todo)


@given(placements, accesses)
def test_mmio(placed: list[tuple[int, bool]], todo: object) -> None:
    check(MmioBus(), placed, todo)
