"""Virtio over PCI (VIRTIO 1.2, section 4.1): a function that any virtio device sits behind.

A modern device: its device ID is 1040h and the type, and it has no legacy interface. All structures
lie in one 64-bit window; MSI-X has a vector for each queue and one for the configuration.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from ringfence.bus import Clock, State, VirtQueues
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.pci.function import PciDevice, PciIdentity
from ringfence.devices.virtio.device import QueueSetting, VirtioDevice
from ringfence.errors import ConfigError, StateError

__all__ = ["VirtioPci"]

_VENDOR, _FIRST_DEVICE = 0x1AF4, 0x1040
_VENDOR_CAPABILITY = 0x09
# Kinds of structures (4.1.4).
_COMMON, _NOTIFY, _ISR, _DEVICE, _ACCESS = 1, 2, 3, 4, 5
_WINDOW_BAR, _MSIX_BAR, _WINDOW = 4, 1, 0x4000
_COMMON_AT, _ISR_AT, _DEVICE_AT, _NOTIFY_AT = 0x0000, 0x1000, 0x2000, 0x3000
_PART, _NOTIFY_STEP = 0x1000, 4
_NO_VECTOR = 0xFFFF
_ISR_QUEUE, _ISR_CONFIG = 1, 2
#: Fields of the common configuration (4.1.4.3): offset, size.
_FEATURE_SELECT, _FEATURE, _DRIVER_SELECT, _DRIVER_FEATURE = (0, 4), (4, 4), (8, 4), (12, 4)
_CONFIG_VECTOR, _NUM_QUEUES, _STATUS, _GENERATION = (16, 2), (18, 2), (20, 1), (21, 1)
_QUEUE_SELECT, _QUEUE_SIZE, _QUEUE_VECTOR, _QUEUE_ENABLE = (22, 2), (24, 2), (26, 2), (28, 2)
_QUEUE_NOTIFY_OFF, _QUEUE_DESC, _QUEUE_DRIVER, _QUEUE_DEVICE = (30, 2), (32, 8), (40, 8), (48, 8)
_QUEUE_NOTIFY_DATA, _QUEUE_RESET = (56, 2), (58, 2)
_AREAS = {_QUEUE_DESC: "descriptors", _QUEUE_DRIVER: "driver", _QUEUE_DEVICE: "device"}
_FIELDS = (
    *(_FEATURE_SELECT, _FEATURE, _DRIVER_SELECT, _DRIVER_FEATURE, _CONFIG_VECTOR, _NUM_QUEUES),
    *(_STATUS, _GENERATION, _QUEUE_SELECT, _QUEUE_SIZE, _QUEUE_VECTOR, _QUEUE_ENABLE),
    *(_QUEUE_NOTIFY_OFF, _QUEUE_DESC, _QUEUE_DRIVER, _QUEUE_DEVICE, _QUEUE_NOTIFY_DATA),
    _QUEUE_RESET,
)
_FIELD_AT = {offset: field for field in _FIELDS for offset in range(field[0], field[0] + field[1])}


class VirtioPci(PciDevice):
    """A virtio device on the PCI bus.

    Args:
        device: The device itself.
        rings: What makes virtqueues in guest memory.
        clock: The machine's clock.
    """

    #: The device behind it, for :meth:`build`.
    MODEL: ClassVar[type[VirtioDevice]] = VirtioDevice
    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 8})
    FIELDS: ClassVar[Mapping[str, int]] = {
        "_device_select": 0xFFFFFFFF,
        "_driver_select": 0xFFFFFFFF,
        "_queue_select": 0xFFFF,
        "_isr": 3,
        "_config_vector": 0xFFFF,
        "_vectors": 0xFFFF,
    }

    def __init__(self, device: VirtioDevice, rings: VirtQueues, clock: Clock) -> None:
        identity = PciIdentity(
            _VENDOR,
            _FIRST_DEVICE + device.DEVICE_ID,
            device.CLASS_CODE,
            1,
            _VENDOR,
            _FIRST_DEVICE + device.DEVICE_ID,
        )
        super().__init__(identity, pin=1)
        self.device = device
        self._isr = 0
        self._clear()
        name = f"virtio {type(device).__name__.lower()}"
        self.add_bar(_WINDOW_BAR, self, size=_WINDOW, kind="memory64", prefetchable=True, name=name)
        self._structure(_COMMON, _COMMON_AT, 64)
        self._structure(_ISR, _ISR_AT, 1)
        if device.CONFIG_SIZE:
            self._structure(_DEVICE, _DEVICE_AT, device.CONFIG_SIZE)
        size = _NOTIFY_STEP * len(device.queues)
        self._structure(_NOTIFY, _NOTIFY_AT, size, _NOTIFY_STEP.to_bytes(4, "little"))
        # The window into the windows (4.1.4.9): bar, offset, length and data can be written.
        self._access = self.add_capability(
            _VENDOR_CAPABILITY,
            bytes((20, _ACCESS)) + bytes(16),
            writable=b"\0\0\xff\0\0\0" + b"\xff" * 12,
        )
        self.add_msix(len(device.queues) + 1, bar=_MSIX_BAR)
        device.bind(self, rings, clock)

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:
        """Makes function and device from the options of ``--device``."""
        if context.queues is None:
            raise ConfigError("a virtio device needs virtqueues, which this machine has none of")
        return cls(cls.MODEL.build(context, **options), context.queues, context.clock)

    def reset(self) -> None:
        """Bus reset."""
        super().reset()
        self._clear()
        self.device.reset()

    def read(self, offset: int, size: int) -> int:
        """Reads a structure; the ISR status clears."""
        if offset < _ISR_AT:
            return self._read_common(offset, size)
        if offset < _DEVICE_AT:
            value, self._isr = self._isr, 0
            self.set_irq(False)
            return value if offset == _ISR_AT else 0
        if offset < _NOTIFY_AT:
            return self.device.read_config(offset - _DEVICE_AT, size)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a structure; a write to its place notifies a queue."""
        if offset >= _NOTIFY_AT:
            if self.bus_master:
                self.device.notify((offset - _NOTIFY_AT) // _NOTIFY_STEP)
        elif offset < _ISR_AT:
            self._write_common(offset, size, value)
        elif offset >= _DEVICE_AT:
            self.device.write_config(offset - _DEVICE_AT, size, value)

    def state(self) -> State:
        """Function, registers and device."""
        state = super().state()
        state["virtio"] = self.device.state()
        return state

    def restore(self, state: State) -> None:
        """Takes them."""
        device = state.get("virtio")
        if not isinstance(device, dict):
            raise StateError(f"{type(self).__name__}: field 'virtio' is missing")
        before = super().state()
        super().restore({key: value for key, value in state.items() if key != "virtio"})
        try:
            if len(self._vectors) != len(self.device.queues):
                raise StateError(f"{type(self).__name__}: the vectors are of other queues")
            self.device.restore(device)
        except StateError:
            super().restore(before)
            raise

    # For the device.

    def queue_interrupt(self, index: int) -> None:
        """Interrupts for a queue: by its vector, or by the pin (4.1.5.3, 4.1.5.4)."""
        self._interrupt(_ISR_QUEUE, self._vectors[index])

    def config_interrupt(self) -> None:
        """Interrupts for the configuration."""
        self._interrupt(_ISR_CONFIG, self._config_vector)

    # Configuration space.

    def config_read(self, offset: int, size: int) -> int:
        """Reads a register; the data of the access capability come from a window."""
        at = self._access + 16
        if offset == at:
            where, length = self._accessed()
            if where is not None:
                self.set_register(at, self.read(where, length), length)
        return super().config_read(offset, size)

    def config_written(self, offset: int, size: int) -> None:
        """Passes a write to the data of the access capability on to a window."""
        if offset == self._access + 16:
            where, length = self._accessed()
            if where is not None:
                self.write(where, length, self.register(offset, length))

    def _accessed(self) -> tuple[int | None, int]:
        bar, offset = self.register(self._access + 4, 1), self.register(self._access + 8, 4)
        length = self.register(self._access + 12, 4)
        valid = length in (1, 2, 4) and not offset % length and offset + length <= _WINDOW
        return (offset if valid and bar == _WINDOW_BAR else None), length

    def _structure(self, kind: int, offset: int, length: int, more: bytes = b"") -> None:
        body = bytes((16 + len(more), kind, _WINDOW_BAR, 0, 0, 0))
        body += offset.to_bytes(4, "little") + length.to_bytes(4, "little") + more
        self.add_capability(_VENDOR_CAPABILITY, body)

    def _clear(self) -> None:
        self._device_select = self._driver_select = self._queue_select = 0
        self._isr = 0
        self._config_vector = _NO_VECTOR
        self._vectors = [_NO_VECTOR] * len(self.device.queues)

    def _interrupt(self, cause: int, vector: int) -> None:
        if self.msix is not None and self.msix.enabled:
            if vector != _NO_VECTOR:
                self.msix.send(vector)
            return
        self._isr |= cause
        self.set_irq(True)

    # The common configuration.

    def _queue(self) -> QueueSetting | None:
        index = self._queue_select
        return self.device.queues[index] if index < len(self.device.queues) else None

    def _read_common(self, offset: int, size: int) -> int:
        field = _FIELD_AT.get(offset)
        if field is None:
            return 0
        value = self._get(field) >> 8 * (offset - field[0])
        return value & (1 << 8 * size) - 1

    def _get(self, field: tuple[int, int]) -> int:
        device, queue = self.device, self._queue()
        if field in _AREAS:
            return int(getattr(queue, _AREAS[field])) if queue else 0
        select = self._device_select
        accepted = self._driver_select
        values: dict[tuple[int, int], int] = {
            _FEATURE_SELECT: select,
            _FEATURE: device.offered >> 32 * select & 0xFFFFFFFF if select < 2 else 0,
            _DRIVER_SELECT: accepted,
            _DRIVER_FEATURE: device.accepted >> 32 * accepted & 0xFFFFFFFF if accepted < 2 else 0,
            _CONFIG_VECTOR: self._config_vector,
            _NUM_QUEUES: len(device.queues),
            _STATUS: device.status,
            _GENERATION: device.generation,
            _QUEUE_SELECT: self._queue_select,
        }
        if queue is not None:
            values |= {
                _QUEUE_SIZE: queue.size,
                _QUEUE_VECTOR: self._vectors[self._queue_select],
                _QUEUE_ENABLE: int(queue.ready),
                _QUEUE_NOTIFY_OFF: self._queue_select,
                _QUEUE_NOTIFY_DATA: self._queue_select,
            }
        return values.get(field, 0)

    def _write_common(self, offset: int, size: int, value: int) -> None:
        field = _FIELD_AT.get(offset)
        if field in _AREAS:
            self._write_area(field, offset - field[0], size, value)
            return
        # Other fields are written whole (4.1.3.1).
        if field is None or (offset, size) != field:
            return
        device = self.device
        if field == _FEATURE_SELECT:
            self._device_select = value
        elif field == _DRIVER_SELECT:
            self._driver_select = value
        elif field == _DRIVER_FEATURE:
            if self._driver_select < 2:
                shift = 32 * self._driver_select
                device.set_features(device.accepted & ~(0xFFFFFFFF << shift) | value << shift)
            elif value:
                # Bits that there are not: kept, so that FEATURES_OK is refused.
                device.set_features(device.accepted | 1 << 63)
        elif field == _CONFIG_VECTOR:
            self._config_vector = self._vector(value)
        elif field == _STATUS:
            device.set_status(value)
            if value == 0:
                self._clear()
                self.set_irq(False)
        elif field == _QUEUE_SELECT:
            self._queue_select = value
        else:
            self._write_queue(field, value)

    def _write_queue(self, field: tuple[int, int], value: int) -> None:
        queue = self._queue()
        if queue is None:
            return
        if field == _QUEUE_SIZE:
            if not queue.ready and 0 < value <= queue.maximum:
                queue.size = value
        elif field == _QUEUE_VECTOR:
            self._vectors[self._queue_select] = self._vector(value)
        elif field == _QUEUE_ENABLE:
            if value == 1:
                self.device.enable_queue(self._queue_select)
        elif field == _QUEUE_RESET and value == 1:
            self.device.reset_queue(self._queue_select)

    def _write_area(self, field: tuple[int, int], at: int, size: int, value: int) -> None:
        queue = self._queue()
        if queue is None or queue.ready or at + size > 8:
            return
        name = _AREAS[field]
        mask = ((1 << 8 * size) - 1) << 8 * at
        setattr(queue, name, getattr(queue, name) & ~mask | value << 8 * at & mask)

    def _vector(self, value: int) -> int:
        """A vector that there is, or none: what a driver reads back (4.1.5.1.2)."""
        assert self.msix is not None
        return value if value < self.msix.vectors else _NO_VECTOR
