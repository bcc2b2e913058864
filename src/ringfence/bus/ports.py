"""Dispatch of I/O ports (SDM vol. 1, chapter 19).

The port space has 64 Ki addresses, so a dictionary from each claimed port to its handler answers
in constant time. Several bytes at once fall to one device where it takes that width, and are
otherwise split into bytes, lowest port first, as the bus of a PC does.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from ringfence.bus.contracts import ByteWriter, Region
from ringfence.bus.mmio import length_of
from ringfence.errors import ConfigError, OverlapError

__all__ = ["PORTS", "PortBus"]

#: Number of I/O ports.
PORTS = 0x10000

_Read = Callable[[int, int], int]
_Write = Callable[[int, int, int], None]


class _Claim(NamedTuple):
    """Who answers at one port."""

    read: _Read
    write: _Write
    offset: int
    widths: frozenset[int]
    room: int
    name: str
    device: object


class PortBus:
    """All ports of a machine.

    Attributes:
        readers: For each port that takes single bytes, what gives one.
        writers: The same for what takes one. A run loop uses both directly: nearly all accesses
            are of one byte.
    """

    __slots__ = ("_claims", "readers", "writers")

    def __init__(self) -> None:
        self._claims: dict[int, _Claim] = {}
        self.readers: dict[int, Callable[[], int]] = {}
        self.writers: dict[int, Callable[[int], None]] = {}

    def add(
        self,
        base: int,
        device: Region,
        *,
        name: str,
        offset: int = 0,
        length: int | None = None,
        widths: Iterable[int] | None = None,
    ) -> None:
        """Puts ``length`` ports of ``device``, from its ``offset`` on, at ``base``.

        A wide access belongs to the device that claims its first port, as long as it stays
        within the device: so a double word at CF8h and a byte at CF9h can be two devices'.

        Raises:
            ConfigError: the range leaves the port space.
            OverlapError: another device claims one of the ports.
        """
        count = length_of(device) - offset if length is None else length
        if base < 0 or count <= 0 or base + count > PORTS:
            raise ConfigError(f"{name}: ports {base:#x} to {base + count - 1:#x} do not exist")
        for port in range(base, base + count):
            taken = self._claims.get(port)
            if taken is not None:
                raise OverlapError(f"{name} and {taken.name} both claim port {port:#x}")
        accepted = frozenset(device.WIDTHS if widths is None else widths)
        end = offset + count if length is not None and not hasattr(device, "LENGTH") else None
        end = length_of(device) if end is None else end
        short = device.byte_writer if isinstance(device, ByteWriter) else None
        for index in range(count):
            port, at = base + index, offset + index
            self._claims[port] = _Claim(
                device.read, device.write, at, accepted, end - at, name, device
            )
            if 1 in accepted:
                self.readers[port] = partial(device.read, at, 1)
                self.writers[port] = short(at) if short else partial(device.write, at, 1)

    def remove(self, base: int, length: int) -> None:
        """Takes away what claims ``length`` ports at ``base``; nothing there is no error."""
        for port in range(base, min(base + length, PORTS)):
            self._claims.pop(port, None)
            self.readers.pop(port, None)
            self.writers.pop(port, None)

    def read(self, port: int, size: int) -> int:
        """The answer to ``IN``; all ones where nothing is."""
        if size == 1:
            reader = self.readers.get(port)
            return 0xFF if reader is None else reader() & 0xFF
        claim = self._claims.get(port)
        if claim is not None and size in claim.widths and size <= claim.room:
            return claim.read(claim.offset, size) & ((1 << 8 * size) - 1)
        value = 0
        for index in range(size):
            value |= self.read((port + index) % PORTS, 1) << 8 * index
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """Takes ``OUT``; ignored where nothing is."""
        if size == 1:
            writer = self.writers.get(port)
            if writer is not None:
                writer(value & 0xFF)
            return
        claim = self._claims.get(port)
        if claim is not None and size in claim.widths and size <= claim.room:
            claim.write(claim.offset, size, value & ((1 << 8 * size) - 1))
            return
        for index in range(size):
            self.write((port + index) % PORTS, 1, value >> 8 * index)

    def read_string(self, port: int, size: int, count: int) -> bytes:
        """The answer to ``count`` elements of ``REP INS``."""
        claim = self._claims.get(port)
        if claim is not None and size in claim.widths and size <= claim.room:
            several = getattr(claim.device, "read_string", None)
            if several is not None:
                data: bytes = several(claim.offset, size, count)
                return data
        read = self.read
        return b"".join(read(port, size).to_bytes(size, "little") for _ in range(count))

    def write_string(self, port: int, size: int, data: bytes) -> None:
        """Takes the elements of ``REP OUTS``."""
        claim = self._claims.get(port)
        if claim is not None and size in claim.widths and size <= claim.room:
            several = getattr(claim.device, "write_string", None)
            if several is not None:
                several(claim.offset, size, data)
                return
        for at in range(0, len(data), size):
            self.write(port, size, int.from_bytes(data[at : at + size], "little"))

    def owner(self, port: int) -> str | None:
        """Name of the device that claims ``port``."""
        claim = self._claims.get(port)
        return None if claim is None else claim.name

    def ranges(self) -> list[tuple[int, int, str]]:
        """All claims as ``(first port, last port, name)``, in order."""
        found: list[tuple[int, int, str]] = []
        for port in sorted(self._claims):
            name = self._claims[port].name
            if found and found[-1][1] == port - 1 and found[-1][2] == name:
                found[-1] = (found[-1][0], port, name)
            else:
                found.append((port, port, name))
        return found
