"""Console device (VIRTIO 1.2, section 5.3): one console, or several ports with names.

Source: as above; port 0 is the console of a driver that does not know several ports. Left out:
emergency write, and ports that come and go while the guest runs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

from ringfence.bus import Chain, CharPort
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.virtio.device import VirtioDevice
from ringfence.errors import ConfigError, StateError

__all__ = ["Console"]

F_SIZE, F_MULTIPORT, F_EMERG_WRITE = 1, 2, 4
_QUEUE_SIZE, _CONTROL_SIZE = 256, 64
# Events of the control queues (5.3.6.2).
DEVICE_READY, DEVICE_ADD, DEVICE_REMOVE, PORT_READY, CONSOLE_PORT, RESIZE, PORT_OPEN, PORT_NAME = (
    range(8)
)
_CONTROL_IN, _CONTROL_OUT = 2, 3
#: Bytes of one output buffer that are handed on at once.
_PIECE = 1 << 16
#: Control messages that wait for buffers; a driver that takes none gets no more.
_MOST_MESSAGES = 256


class Console(VirtioDevice):
    """The device.

    Args:
        ports: Host ends, in order.
        names: What the driver is told of each port; an empty name: it is a console.
        packed: Whether packed rings are offered.
    """

    DEVICE_ID: ClassVar[int] = 3
    CLASS_CODE: ClassVar[int] = 0x078000
    CONFIG_SIZE: ClassVar[int] = 12
    OPTIONS: ClassVar[Mapping[str, Callable[[str], Any]]] = {"ports": lambda text: text.split("+")}

    def __init__(
        self, ports: Sequence[CharPort], names: Sequence[str] = (), *, packed: bool = False
    ) -> None:
        if not 1 <= len(ports) <= 31:
            raise ConfigError(f"a console has 1 to 31 ports, not {len(ports)}")
        features = F_SIZE | F_EMERG_WRITE | F_MULTIPORT
        # Port 0 has queues 0 and 1, control 2 and 3, port 1 queues 4 and 5.
        sizes = [_QUEUE_SIZE, _QUEUE_SIZE, _CONTROL_SIZE, _CONTROL_SIZE]
        sizes += [_QUEUE_SIZE] * 2 * (len(ports) - 1)
        super().__init__(features, sizes, packed=packed)
        self._ports = list(ports)
        self._names = [*names, *[""] * len(ports)][: len(ports)]
        self._columns, self._rows = 80, 25
        self._messages: list[bytes] = []
        #: Of each port, input that was taken from its host end and found no buffer.
        self._left: dict[int, bytes] = {}
        self._forget()
        for index, port in enumerate(ports):
            port.on_input(partial(self.input_ready, index))

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:
        """A console; ``ports``: names joined by ``+``, each a host end; default ``console``."""
        names = options.pop("ports", ["console"])
        ports = [context.end("char", name) for name in names]
        shown = ["" if name == "console" else name for name in names]
        return cls(ports, shown, **options)

    def config(self) -> bytes:
        """Size of the console, number of ports (5.3.4)."""
        return (
            self._columns.to_bytes(2, "little")
            + self._rows.to_bytes(2, "little")
            + len(self._ports).to_bytes(4, "little")
            + bytes(4)
        )

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Emergency write (5.3.4): a character before the queues are set up."""
        if offset == 8:
            self._ports[0].write(bytes((value & 0xFF,)))

    def resize(self, columns: int, rows: int) -> None:
        """The console's window has another size."""
        self._columns, self._rows = columns, rows
        if self.has(F_MULTIPORT):
            if self._open[0]:
                size = rows.to_bytes(2, "little") + columns.to_bytes(2, "little")
                self._tell(0, RESIZE, 0, size)
        elif self.has(F_SIZE):
            self.changed()

    def started(self) -> None:
        """What was typed meanwhile goes to a driver that knows one port."""
        if not self.has(F_MULTIPORT):
            self._open[0] = True
        for index, is_open in enumerate(self._open):
            if is_open:
                self.input_ready(index)

    def stopped(self) -> None:
        """No port is open."""
        self._forget()

    def available(self, index: int) -> None:
        """Output, room for input, or control messages."""
        if index == _CONTROL_OUT:
            self.drain(index, self._control)
        elif index == _CONTROL_IN:
            self._flush()
        elif index & 1:
            port = self._port_of(index)
            self.drain(index, lambda chain: self._output(port, chain))
        else:
            self.input_ready(self._port_of(index))

    def own_state(self) -> dict[str, Any]:
        """Which ports are open, what they were not told yet, the size."""
        return {
            "open": list(self._open),
            "messages": list(self._messages),
            "size": [self._columns, self._rows],
        }

    def restore_own(self, state: dict[str, Any]) -> None:
        """Takes them."""
        is_open, messages, size = state.get("open"), state.get("messages"), state.get("size")
        if (
            not (isinstance(is_open, list) and len(is_open) == len(self._ports))
            or not (isinstance(messages, list) and all(isinstance(e, bytes) for e in messages))
            or not (isinstance(size, list) and len(size) == 2)
            or not all(type(value) is int and 0 <= value <= 0xFFFF for value in size)
        ):
            raise StateError("Console: the ports or the messages are not valid")
        self._open = [bool(value) for value in is_open]
        self._messages = list(messages)
        self._columns, self._rows = size

    def input_ready(self, index: int) -> None:
        """Told by a host end that there is input: hands it on while there are buffers."""
        if not self.running or not self._open[index]:
            return
        port, queue = self._ports[index], self._queue_of(index)
        ring = self.queues[queue].ring
        if ring is None:
            return
        try:
            while ring.available() or ring.enable_notification():
                data = self._left.pop(index, b"") or port.read(_PIECE)
                if not data:
                    break
                while data:
                    chain = ring.pop()
                    if chain is None:
                        break
                    count = chain.write(0, data)
                    ring.push(chain, count)
                    data = data[count:]
                if data:
                    self._left[index] = data
                    break
            if ring.needs_interrupt():
                self.interrupt(queue)
        except self.rings.error:
            self.fail()

    def _forget(self) -> None:
        self._open = [False] * len(self._ports)
        self._messages.clear()
        self._left.clear()

    def _port_of(self, queue: int) -> int:
        return 0 if queue < 2 else queue // 2 - 1

    def _queue_of(self, port: int) -> int:
        return 0 if port == 0 else 2 * port + 2

    def _output(self, index: int, chain: Chain) -> int | None:
        for at in range(0, chain.readable, _PIECE):
            self._ports[index].write(chain.read(at, _PIECE))
        return 0

    def _control(self, chain: Chain) -> int | None:
        message = chain.read(0, 8)
        if len(message) == 8:
            port = int.from_bytes(message[:4], "little")
            event = int.from_bytes(message[4:6], "little")
            value = int.from_bytes(message[6:8], "little")
            self._event(port, event, value)
        return 0

    def _event(self, port: int, event: int, value: int) -> None:
        if event == DEVICE_READY:
            if value == 1:
                for index in range(len(self._ports)):
                    self._tell(index, DEVICE_ADD, 1)
        elif port >= len(self._ports):
            return
        elif event == PORT_READY and value == 1:
            if not self._names[port]:
                self._tell(port, CONSOLE_PORT, 1)
                size = self._rows.to_bytes(2, "little") + self._columns.to_bytes(2, "little")
                self._tell(port, RESIZE, 0, size)
            else:
                self._tell(port, PORT_NAME, 1, self._names[port].encode())
            self._tell(port, PORT_OPEN, 1)
        elif event == PORT_OPEN:
            self._open[port] = bool(value)
            self.input_ready(port)

    def _tell(self, port: int, event: int, value: int, more: bytes = b"") -> None:
        if len(self._messages) < _MOST_MESSAGES:
            message = port.to_bytes(4, "little") + event.to_bytes(2, "little")
            self._messages.append(message + value.to_bytes(2, "little") + more)
        self._flush()

    def _flush(self) -> None:
        while self._messages:
            chain = self.take(_CONTROL_IN)
            if chain is None:
                return
            self.give(_CONTROL_IN, chain, chain.write(0, self._messages.pop(0)))
