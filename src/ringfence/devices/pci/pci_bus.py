"""PCI bus 0: which function sits where, and their ways to interrupts, memory and address spaces.

Source: PCI local bus specification 3.0, sections 2.2.6 (interrupt pins) and 3.2.2.3 (configuration
cycles). Left out: buses behind bridges.
"""

from collections.abc import Callable, Iterator

from ringfence.bus import NO_MEMORY, AddressMap, Dma, PciFunction, State, Window
from ringfence.errors import ConfigError, OverlapError, StateError

__all__ = ["PciBus", "PciPlace"]

_DEVICES, _FUNCTIONS = 32, 8
_HEADER_TYPE, _MULTIFUNCTION = 0x0E, 0x80
_VERSION = 1


def _ignore_message(address: int, data: int) -> None:
    """Delivers nothing."""


def _ignore_pin(device: int, pin: int, level: bool) -> None:
    """Is wired to nothing."""


class PciPlace:
    """A place on the bus: what the function in it has of the machine."""

    __slots__ = ("_bus", "_device", "_levels")

    def __init__(self, bus: "PciBus", device: int) -> None:
        self._bus = bus
        self._device = device
        self._levels = 0

    @property
    def memory(self) -> Dma:
        """Guest memory."""
        return self._bus.memory

    def set_intx(self, pin: int, level: bool) -> None:
        """Drives an interrupt pin; the bus hears of changes only."""
        bit = 1 << pin
        if bool(self._levels & bit) is not level:
            self._levels ^= bit
            self._bus.intx(self._device, pin, level)

    def send_msi(self, address: int, data: int) -> None:
        """Sends a message-signalled interrupt."""
        self._bus.send_msi(address, data)

    def place(self, window: Window, address: int | None) -> None:
        """Moves a window."""
        self._bus.addresses.place(window, address)


class PciBus:
    """The functions of bus 0.

    Args:
        addresses: Where windows are placed.
        memory: Guest memory for functions that master the bus.
        send_msi: Delivers an interrupt message.

    Attributes:
        intx: What hears of an interrupt pin: device number, pin (1 to 4) and level.
    """

    def __init__(
        self,
        addresses: AddressMap,
        memory: Dma = NO_MEMORY,
        send_msi: Callable[[int, int], None] = _ignore_message,
    ) -> None:
        self.addresses = addresses
        self.memory = memory
        self.send_msi = send_msi
        self.intx: Callable[[int, int, bool], None] = _ignore_pin
        self._functions: dict[int, PciFunction] = {}
        self._names: dict[int, str] = {}

    def reset(self) -> None:
        """Resets all functions."""
        for function in self._functions.values():
            function.reset()

    def read(self, place: int, register: int, size: int) -> int:
        """Reads configuration space of the function at ``place`` (device * 8 + function).

        Where no function is, all ones come back: nobody has claimed the cycle.
        """
        function = self._functions.get(place)
        if function is None:
            return (1 << 8 * size) - 1
        value = function.config_read(register, size)
        if not place & 7 and register <= _HEADER_TYPE < register + size:
            several = any(place | number in self._functions for number in range(1, _FUNCTIONS))
            value |= (_MULTIFUNCTION if several else 0) << 8 * (_HEADER_TYPE - register)
        return value

    def write(self, place: int, register: int, size: int, value: int) -> None:
        """Writes configuration space of the function at ``place``."""
        function = self._functions.get(place)
        if function is not None:
            function.config_write(register, size, value)

    def state(self) -> State:
        """The state of each function under its place."""
        functions = {_text(place): entry.state() for place, entry in self._functions.items()}
        return {"device": "PciBus", "version": _VERSION, "functions": functions}

    def restore(self, state: State) -> None:
        """Takes the state of each function: of all, or of none.

        Raises:
            StateError: it is of other functions, or does not fit one of them.
        """
        functions = state.get("functions")
        here = {_text(place): entry for place, entry in self._functions.items()}
        if state.get("device") != "PciBus" or state.get("version") != _VERSION:
            raise StateError("PciBus: the state is of another device or version")
        if not isinstance(functions, dict) or set(functions) != set(here):
            raise StateError("PciBus: the state is of other functions")
        before = self.state()["functions"]
        try:
            for text, function in here.items():
                function.restore(functions[text])
        except StateError:
            for text, function in here.items():
                function.restore(before[text])
            raise

    def add(
        self, function: PciFunction, device: int | None = None, *, number: int = 0, name: str = ""
    ) -> int:
        """Plugs a function in and returns its place (device * 8 + function).

        Args:
            function: What to plug in.
            device: Device number; by default the first free one.
            number: Function number.
            name: For messages.

        Raises:
            ConfigError: there is no such place, or none is free.
            OverlapError: it is taken.
        """
        if device is None:
            free = (n for n in range(_DEVICES) if not any(p >> 3 == n for p in self._functions))
            device = next(free, None)
            if device is None:
                raise ConfigError("the PCI bus is full: it has 32 devices")
        if not (0 <= device < _DEVICES and 0 <= number < _FUNCTIONS):
            raise ConfigError(f"there is no PCI device {device:#x} function {number}")
        place = device << 3 | number
        if place in self._functions:
            raise OverlapError(
                f"PCI device {device:#x} function {number} is taken by {self._names[place]}"
            )
        self._functions[place] = function
        self._names[place] = name or type(function).__name__
        function.attach(PciPlace(self, device))
        return place

    def functions(self) -> Iterator[tuple[int, PciFunction]]:
        """All functions with their places, in the order in which a guest finds them."""
        for place in sorted(self._functions):
            yield place, self._functions[place]

    def close(self) -> None:
        """Cuts all ways to the machine."""
        self.memory = NO_MEMORY
        self.send_msi = _ignore_message
        self.intx = _ignore_pin
        self.addresses.close()


def _text(place: int) -> str:
    return f"{place >> 3:02x}.{place & 7}"
