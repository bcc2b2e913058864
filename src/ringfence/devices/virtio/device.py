"""What all virtio devices share, whatever transport a driver finds them by.

Source: Virtual I/O Device (VIRTIO) version 1.2, chapters 2 (facilities) and 3 (operation), section
6 (reserved feature bits). A device model derives from :class:`VirtioDevice`: it says what it is,
offers features and queues, and handles buffers; status, negotiation, resets and errors are dealt
with here.

Offered: VERSION_1, indirect descriptors, event index, ring reset and, if asked for, packed rings.
Devices are modern ones only: a driver that does not accept VERSION_1 is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

from ringfence.bus import Chain, Clock, State, Timer, VirtQueue, VirtQueues
from ringfence.devices.pci.context import DeviceContext
from ringfence.errors import StateError

__all__ = [
    "ACKNOWLEDGE",
    "DRIVER",
    "DRIVER_OK",
    "FAILED",
    "FEATURES_OK",
    "NEEDS_RESET",
    "QueueSetting",
    "Transport",
    "VirtioDevice",
]

# Device status (2.1).
ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK, NEEDS_RESET, FAILED = 1, 2, 4, 8, 0x40, 0x80
# Reserved feature bits (6).
F_INDIRECT_DESC, F_EVENT_IDX, F_VERSION_1, F_RING_PACKED, F_RING_RESET = (
    1 << bit for bit in (28, 29, 32, 34, 40)
)
COMMON_FEATURES = F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1 | F_RING_RESET
#: Buffers that one notification handles at most; the rest follows at the next tick of the clock,
#: so that no driver can keep the machine's lock.
_BATCH = 1024
_VERSION = 1
_AREAS = ("descriptors", "driver", "device")


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError("on or off")
    return text == "on"


class Transport(Protocol):
    """How a device reaches its driver."""

    def queue_interrupt(self, index: int) -> None:
        """A buffer of a queue was used, and the driver wants to know."""

    def config_interrupt(self) -> None:
        """Configuration or status has changed."""


class QueueSetting:
    """What a driver has set of one queue, and the ring it makes."""

    __slots__ = ("descriptors", "device", "driver", "maximum", "ready", "ring", "size")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.ring: VirtQueue | None = None
        self.reset()

    def reset(self) -> None:
        """Nothing set."""
        self.size = self.maximum
        self.descriptors = self.driver = self.device = 0
        self.ready = False
        self.ring = None


class VirtioDevice:
    """Base of all virtio devices.

    Args:
        features: What it offers, beside the common features.
        queues: The largest size of each of its queues.
        packed: Whether packed rings are offered.

    Attributes:
        status: The device status field.
        accepted: Features that the driver has accepted.
        generation: Changes with the device's configuration.
    """

    #: Device type (5).
    DEVICE_ID: ClassVar[int] = 0
    #: PCI class code, for the PCI transport.
    CLASS_CODE: ClassVar[int] = 0xFF0000
    #: Size of the device configuration.
    CONFIG_SIZE: ClassVar[int] = 0
    #: What ``--device NAME,option=value`` takes.
    OPTIONS: ClassVar[Mapping[str, Callable[[str], Any]]] = {}

    @classmethod
    def options(cls) -> dict[str, Callable[[str], Any]]:
        """The model's options and those of all: ``packed=on`` offers packed rings."""
        return {"packed": _switch, **cls.OPTIONS}

    def __init__(self, features: int, queues: Sequence[int], *, packed: bool = False) -> None:
        self.offered = features | COMMON_FEATURES | (F_RING_PACKED if packed else 0)
        self.queues = [QueueSetting(size) for size in queues]
        self.accepted = 0
        self.status = 0
        self.generation = 0
        self._transport: Transport | None = None
        self._rings: VirtQueues | None = None
        self._clock: Clock | None = None
        self._timers: dict[int, Timer] = {}
        self._error: type[Exception] = RuntimeError

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:  # noqa: ARG003 - for models
        """Makes one from the options of ``--device``."""
        return cls(**options)

    def bind(self, transport: Transport, rings: VirtQueues, clock: Clock) -> None:
        """Joins the device to its transport; called once."""
        self._transport, self._rings, self._clock = transport, rings, clock
        self._error = rings.error

    # For the transport.

    def reset(self) -> None:
        """Device reset (2.4): as after power-on."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self.status = self.accepted = 0
        for queue in self.queues:
            queue.reset()
        self.stopped()

    def set_status(self, value: int) -> None:
        """The driver writes the status (3.1.1); 0 resets."""
        if value == 0:
            self.reset()
            return
        # Bits are only ever added; NEEDS_RESET is the device's.
        value = (value | self.status) & ~NEEDS_RESET | self.status & NEEDS_RESET
        if value & FEATURES_OK and not self.status & FEATURES_OK and not self._acceptable():
            value &= ~FEATURES_OK
        begins = value & DRIVER_OK and not self.status & DRIVER_OK
        if begins and not value & FEATURES_OK:
            # A driver that skips negotiation has accepted nothing, not even VERSION_1.
            value &= ~DRIVER_OK
            begins = 0
        self.status = value & 0xFF
        if begins:
            self.started()
            for index, queue in enumerate(self.queues):
                if queue.ready:
                    self.notify(index)

    def set_features(self, value: int) -> None:
        """The driver writes what it accepts; too late once it was agreed upon."""
        if not self.status & FEATURES_OK:
            self.accepted = value

    def enable_queue(self, index: int) -> None:
        """The driver says that a queue is set up (4.1.4.3, 4.2.2)."""
        queue = self.queues[index]
        if queue.ready:
            return
        queue.ready = True
        self._make_ring(queue)
        if self.running:
            self.notify(index)

    def reset_queue(self, index: int) -> None:
        """Queue reset (2.6.1)."""
        queue = self.queues[index]
        timer = self._timers.pop(index, None)
        if timer is not None:
            timer.cancel()
        queue.reset()
        self.queue_stopped(index)

    def notify(self, index: int) -> None:
        """The driver has made buffers of a queue available."""
        if index >= len(self.queues) or not self.running:
            return
        if self.queues[index].ring is None:
            return
        try:
            self.available(index)
        except self._error:
            self.fail()

    def read_config(self, offset: int, size: int) -> int:
        """Reads the device configuration (2.5)."""
        data = self.config()
        return int.from_bytes(data[offset : offset + size], "little")

    def write_config(self, offset: int, size: int, value: int) -> None:
        """Writes the device configuration; most of it can't be."""

    def state(self) -> State:
        """Negotiation, queues and the model's own state."""
        queues = []
        for queue in self.queues:
            position = queue.ring.position() if queue.ring is not None else (0, 0, 0)
            values = [queue.size, int(queue.ready)]
            values += [queue.descriptors, queue.driver, queue.device, *position]
            queues.append(values)
        return {
            "device": type(self).__name__,
            "version": _VERSION,
            "status": self.status,
            "accepted": self.accepted,
            "generation": self.generation,
            "queues": queues,
            "own": self.own_state(),
        }

    def restore(self, state: State) -> None:
        """Takes them.

        Raises:
            StateError: it is another device's state, or damaged.
        """
        name = type(self).__name__
        if state.get("device") != name or state.get("version") != _VERSION:
            raise StateError(f"{name}: the state is of another device or version")
        bounds = {"status": 0xFF, "accepted": (1 << 64) - 1, "generation": 0xFF}
        for key, bound in bounds.items():
            value = state.get(key)
            if type(value) is not int or not 0 <= value <= bound:
                raise StateError(f"{name}: field {key!r} is not between 0 and {bound:#x}")
        queues, own = state.get("queues"), state.get("own")
        limits = (1 << 16, 1, *[(1 << 64) - 1] * 3, *[0xFFFF] * 3)
        if (
            not isinstance(own, dict)
            or not isinstance(queues, list)
            or len(queues) != len(self.queues)
            or not all(isinstance(entry, list) and len(entry) == len(limits) for entry in queues)
            or not all(
                type(value) is int and 0 <= value <= limit
                for entry in queues
                for value, limit in zip(entry, limits, strict=True)
            )
        ):
            raise StateError(f"{name}: the queues or the device's own state are not valid")
        self.restore_own(own)
        self.status, self.accepted = state["status"], state["accepted"]
        self.generation = state["generation"]
        for queue, entry in zip(self.queues, queues, strict=True):
            queue.reset()
            queue.size = min(entry[0], queue.maximum)
            queue.descriptors, queue.driver, queue.device = entry[2:5]
            queue.ready = bool(entry[1])
            if queue.ready:
                self._make_ring(queue)
                if queue.ring is not None:
                    try:
                        queue.ring.set_position(*entry[5:])
                    except self._error:
                        self.fail()
        if self.running:
            self.started()

    # For models to override.

    def config(self) -> bytes:
        """The device configuration."""
        return bytes(self.CONFIG_SIZE)

    def dependencies(self) -> bool:
        """Whether the accepted features fit each other."""
        return True

    def started(self) -> None:
        """The driver is ready (DRIVER_OK), or a state was restored in which it is."""

    def stopped(self) -> None:
        """The device was reset: forget what the driver knew of."""

    def queue_stopped(self, index: int) -> None:
        """A queue was reset."""

    def available(self, index: int) -> None:
        """Buffers may be available; by default each goes through :meth:`handle`."""
        self.drain(index, lambda chain: self.handle(index, chain))

    def handle(self, index: int, chain: Chain) -> int | None:
        """Does what a buffer asks for; how much was written, or ``None`` to keep it.

        Here, nothing: it goes back as it came.
        """
        return 0

    def own_state(self) -> State:
        """What the model saves, in plain values."""
        return {}

    def restore_own(self, state: State) -> None:
        """Takes it.

        Raises:
            StateError: it does not fit.
        """

    # For models to call.

    @property
    def running(self) -> bool:
        """Whether buffers may be used: the driver is ready and nothing is broken."""
        return self.status & (DRIVER_OK | NEEDS_RESET | FAILED) == DRIVER_OK

    def has(self, feature: int) -> bool:
        """Whether a feature was negotiated."""
        return bool(self.accepted & feature)

    def drain(self, index: int, handle: Callable[[Chain], int | None]) -> None:
        """Handles all buffers that are available, then asks for notification again."""
        ring = self.queues[index].ring
        if ring is None:
            return
        ring.disable_notification()
        count = 0
        while True:
            chain = ring.pop()
            if chain is None:
                if ring.enable_notification():
                    continue
                break
            written = handle(chain)
            if self.queues[index].ring is not ring:
                return  # the buffer's work reset the device
            if written is not None:
                ring.push(chain, written)
            count += 1
            if count == _BATCH:
                self._later(index)
                break
        if ring.needs_interrupt():
            self.interrupt(index)

    def take(self, index: int) -> Chain | None:
        """The next buffer of a queue that the device fills when it has something."""
        ring = self.queues[index].ring
        if ring is None or not self.running:
            return None
        try:
            chain = ring.pop()
            if chain is None and ring.enable_notification():
                chain = ring.pop()
        except self._error:
            self.fail()
            return None
        return chain

    def give(self, index: int, chain: Chain, written: int = 0, *, signal: bool = True) -> None:
        """Uses a buffer, and interrupts if the driver wants it."""
        ring = self.queues[index].ring
        if ring is None or not self.running:
            return
        try:
            ring.push(chain, written)
            if signal and ring.needs_interrupt():
                self.interrupt(index)
        except self._error:
            self.fail()

    def signal(self, index: int) -> None:
        """Interrupts for buffers that were given without."""
        ring = self.queues[index].ring
        if ring is None or not self.running:
            return
        try:
            if ring.needs_interrupt():
                self.interrupt(index)
        except self._error:
            self.fail()

    def interrupt(self, index: int) -> None:
        """Tells the driver of used buffers."""
        if self._transport is not None:
            self._transport.queue_interrupt(index)

    def changed(self) -> None:
        """The configuration has changed."""
        self.generation = (self.generation + 1) & 0xFF
        if self.status & DRIVER_OK and self._transport is not None:
            self._transport.config_interrupt()

    def fail(self) -> None:
        """The driver broke the rules, or the device can't go on (2.1.2)."""
        self.status |= NEEDS_RESET
        if self.status & DRIVER_OK and self._transport is not None:
            self._transport.config_interrupt()

    @property
    def clock(self) -> Clock:
        """The machine's clock."""
        assert self._clock is not None
        return self._clock

    @property
    def rings(self) -> VirtQueues:
        """What makes rings, and takes pages back."""
        assert self._rings is not None
        return self._rings

    def _acceptable(self) -> bool:
        if self.accepted & ~self.offered or not self.accepted & F_VERSION_1:
            return False
        return self.dependencies()

    def _make_ring(self, queue: QueueSetting) -> None:
        if self._rings is None:
            return
        try:
            queue.ring = self._rings.make(
                queue.size,
                queue.descriptors,
                queue.driver,
                queue.device,
                packed=self.has(F_RING_PACKED),
                event_index=self.has(F_EVENT_IDX),
                indirect=self.has(F_INDIRECT_DESC),
            )
        except self._error:
            self.fail()

    def _later(self, index: int) -> None:
        if index not in self._timers and self._clock is not None:

            def go_on() -> None:
                self._timers.pop(index, None)
                self.notify(index)

            self._timers[index] = self._clock.call_at(self._clock.now(), go_on)
