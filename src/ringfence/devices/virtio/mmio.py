"""Virtio over memory-mapped registers (VIRTIO 1.2, section 4.2): a device without a bus.

Version 2 of the register layout; there is no legacy interface and no shared memory region.
"""

from typing import ClassVar

from ringfence.bus import Clock, IrqLine, State, VirtQueues, restore_fields, save_fields
from ringfence.devices.virtio.device import QueueSetting, VirtioDevice
from ringfence.errors import StateError

__all__ = ["VirtioMmio"]

MAGIC, VERSION, DEVICE_ID, VENDOR_ID = 0x000, 0x004, 0x008, 0x00C
DEVICE_FEATURES, DEVICE_FEATURES_SEL, DRIVER_FEATURES, DRIVER_FEATURES_SEL = (
    *(0x010, 0x014),
    *(0x020, 0x024),
)
QUEUE_SEL, QUEUE_SIZE_MAX, QUEUE_SIZE, QUEUE_READY, QUEUE_NOTIFY = 0x30, 0x34, 0x38, 0x44, 0x50
INTERRUPT_STATUS, INTERRUPT_ACK, STATUS = 0x60, 0x64, 0x70
QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE = 0x80, 0x90, 0xA0
SHM_LEN, SHM_END, QUEUE_RESET, CONFIG_GENERATION, CONFIG = 0x0B0, 0x0C0, 0x0C0, 0x0FC, 0x100
_AREAS = {QUEUE_DESC: "descriptors", QUEUE_DRIVER: "driver", QUEUE_DEVICE: "device"}
_VALUES = {MAGIC: 0x74726976, VERSION: 2, VENDOR_ID: 0x464E4752}
_QUEUE_CAUSE, _CONFIG_CAUSE = 1, 2
_STATE_VERSION = 1
_FIELDS = {
    "_device_select": 0xFFFFFFFF,
    "_driver_select": 0xFFFFFFFF,
    "_queue_select": 0xFFFFFFFF,
    "_causes": 3,
}


class VirtioMmio:
    """A virtio device behind a page of registers.

    Args:
        device: The device itself.
        irq: Its interrupt wire.
        rings: What makes virtqueues in guest memory.
        clock: The machine's clock.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1, 2, 4, 8})
    LENGTH: ClassVar[int] = 0x1000

    def __init__(self, device: VirtioDevice, irq: IrqLine, rings: VirtQueues, clock: Clock) -> None:
        self.device = device
        self._irq = irq
        self._causes = 0
        device.bind(self, rings, clock)
        self.reset()

    def reset(self) -> None:
        """As after power-on."""
        self._clear()
        self.device.reset()

    def read(self, offset: int, size: int) -> int:
        """Reads a register (double words only) or the configuration."""
        if offset >= CONFIG:
            return self.device.read_config(offset - CONFIG, size)
        if size != 4 or offset % 4:
            return 0
        if offset in _VALUES:
            return _VALUES[offset]
        device, queue = self.device, self._queue()
        if SHM_LEN <= offset < SHM_END:
            return 0xFFFFFFFF  # no such region
        select = self._device_select
        values = {
            DEVICE_ID: device.DEVICE_ID,
            DEVICE_FEATURES: device.offered >> 32 * select & 0xFFFFFFFF if select < 2 else 0,
            QUEUE_SIZE_MAX: queue.maximum if queue else 0,
            QUEUE_READY: int(queue.ready) if queue else 0,
            INTERRUPT_STATUS: self._causes,
            STATUS: device.status,
            CONFIG_GENERATION: device.generation,
        }
        return values.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a register (double words only) or the configuration."""
        if offset >= CONFIG:
            self.device.write_config(offset - CONFIG, size, value)
            return
        if size != 4 or offset % 4:
            return
        device = self.device
        if offset == QUEUE_NOTIFY:
            device.notify(value)
        elif offset == INTERRUPT_ACK:
            self._causes &= ~value
            self._irq.set(bool(self._causes))
        elif offset == DEVICE_FEATURES_SEL:
            self._device_select = value
        elif offset == DRIVER_FEATURES_SEL:
            self._driver_select = value
        elif offset == DRIVER_FEATURES:
            if self._driver_select < 2:
                shift = 32 * self._driver_select
                device.set_features(device.accepted & ~(0xFFFFFFFF << shift) | value << shift)
            elif value:
                # Bits that there are not: kept, so that FEATURES_OK is refused.
                device.set_features(device.accepted | 1 << 63)
        elif offset == QUEUE_SEL:
            self._queue_select = value
        elif offset == STATUS:
            device.set_status(value & 0xFF)
            if value == 0:
                self._clear()
        else:
            self._write_queue(offset, value)

    def state(self) -> State:
        """Registers and device."""
        return {**save_fields(self, _STATE_VERSION, _FIELDS), "virtio": self.device.state()}

    def restore(self, state: State) -> None:
        """Takes them."""
        device = state.get("virtio")
        if not isinstance(device, dict):
            raise StateError("VirtioMmio: field 'virtio' is missing")
        before = save_fields(self, _STATE_VERSION, _FIELDS)
        restore_fields(self, state, _STATE_VERSION, _FIELDS)
        try:
            self.device.restore(device)
        except StateError:
            restore_fields(self, before, _STATE_VERSION, _FIELDS)
            raise
        self._irq.set(bool(self._causes))

    # For the device.

    def queue_interrupt(self, index: int) -> None:
        """A buffer was used."""
        self._causes |= _QUEUE_CAUSE
        self._irq.set(True)

    def config_interrupt(self) -> None:
        """The configuration has changed."""
        self._causes |= _CONFIG_CAUSE
        self._irq.set(True)

    def _clear(self) -> None:
        self._device_select = self._driver_select = self._queue_select = 0
        self._causes = 0
        self._irq.set(False)

    def _queue(self) -> QueueSetting | None:
        index = self._queue_select
        return self.device.queues[index] if index < len(self.device.queues) else None

    def _write_queue(self, offset: int, value: int) -> None:
        queue = self._queue()
        if queue is None:
            return
        if offset == QUEUE_READY:
            if value & 1:
                self.device.enable_queue(self._queue_select)
            else:
                self.device.reset_queue(self._queue_select)
        elif offset == QUEUE_RESET:
            if value == 1:
                self.device.reset_queue(self._queue_select)
        elif queue.ready:
            return
        elif offset == QUEUE_SIZE:
            if 0 < value <= queue.maximum:
                queue.size = value
        elif offset & ~4 in _AREAS:
            name, shift = _AREAS[offset & ~4], 8 * (offset & 4)
            kept = getattr(queue, name) & ~(0xFFFFFFFF << shift)
            setattr(queue, name, kept | value << shift)
