"""8042 keyboard controller with a keyboard, as in the IBM PC/AT.

Source: IBM PC/AT technical reference (1984), "Keyboard controller" and "Keyboard"; the commands
of the PS/2 controllers that followed (A7h to A9h, D1h to D4h). Data port at offset 0, status and
command at offset 4, as the ports 60h and 64h lie.

The keyboard answers every command of the reference. The auxiliary device is a mouse; without one
its test reports a stuck clock line and bytes sent to it time out, as on a board without the socket.
Scan codes of set 2 are translated to set 1 by the controller while its command byte says so.
"""

from collections.abc import Callable
from typing import ClassVar

from ringfence.bus import IrqLine, State, restore_fields, save_fields
from ringfence.bus.contracts import Clock
from ringfence.devices.input.keyboard import Keyboard
from ringfence.devices.input.mouse import Mouse
from ringfence.errors import StateError

__all__ = ["I8042"]

DATA, COMMAND = 0, 4

STATUS_OUTPUT, STATUS_INPUT, STATUS_SYSTEM, STATUS_COMMAND = 0x01, 0x02, 0x04, 0x08
STATUS_UNLOCKED, STATUS_AUX, STATUS_TIMEOUT = 0x10, 0x20, 0x40

CTR_KEYBOARD_IRQ, CTR_AUX_IRQ, CTR_SYSTEM = 0x01, 0x02, 0x04
CTR_KEYBOARD_OFF, CTR_AUX_OFF, CTR_TRANSLATE = 0x10, 0x20, 0x40

OUTPUT_RESET, OUTPUT_A20 = 0x01, 0x02

_FROM_KEYBOARD, _FROM_CONTROLLER, _FROM_AUX = 0, 1, 2
_TIMEOUT = 0xFE
_QUEUE = 16
_VERSION = 1
_FIELDS = {
    "_control": 0xFF,
    "_memory": 32,
    "_outport": 0xFF,
    "_status": 0xFF,
    "_parameter_of": 0xFF,
    "_queue": 0x2FF,
    "_data": 0xFF,
    "_source": 2,
    "_full": 1,
    "_was_command": 1,
}


class I8042:
    """The controller.

    Args:
        irq: Interrupt of the keyboard (IRQ 1).
        reset_line: Called when the guest pulses the processor's reset line.
        a20: Told the level of the A20 gate when it changes.
        clock: Time by which held keys repeat; without one they do not.
        aux_irq: Interrupt of the mouse (IRQ 12); without one there is no mouse.
    """

    WIDTHS: ClassVar[frozenset[int]] = frozenset({1})
    LENGTH: ClassVar[int] = 5

    def __init__(
        self,
        irq: IrqLine,
        reset_line: Callable[[], None],
        a20: Callable[[bool], None] | None = None,
        *,
        clock: Clock | None = None,
        aux_irq: IrqLine | None = None,
    ) -> None:
        self._irq = irq
        self._reset_line = reset_line
        self._a20 = a20
        self._aux_irq = aux_irq
        self.keyboard = Keyboard(self._pump, clock)
        self.mouse = None if aux_irq is None else Mouse(self._pump)
        self.reset()

    def reset(self) -> None:
        """Power-on state, with the self-test already passed as a BIOS leaves it."""
        self._control = CTR_KEYBOARD_IRQ | CTR_SYSTEM | CTR_TRANSLATE | CTR_AUX_OFF
        self._memory = bytearray(32)
        self._outport = OUTPUT_RESET | OUTPUT_A20
        self._status = STATUS_SYSTEM | STATUS_UNLOCKED
        self._parameter_of = 0
        #: Answers that wait for the output buffer, each with its source shifted left by 8.
        self._queue: list[int] = []
        self._data = 0
        self._source = _FROM_CONTROLLER
        self._full = False
        self._was_command = False
        self.keyboard.reset()
        if self.mouse is not None:
            self.mouse.reset()
        self._update()

    def read(self, offset: int, size: int) -> int:
        """Reads the output buffer or the status."""
        if offset == COMMAND:
            status = self._status & ~(STATUS_OUTPUT | STATUS_AUX | STATUS_COMMAND)
            if self._full:
                status |= STATUS_OUTPUT | (STATUS_AUX if self._source == _FROM_AUX else 0)
            return status | (STATUS_COMMAND if self._was_command else 0)
        if offset != DATA:
            return 0xFF
        value = self._data
        if self._full:
            self._full = False
            self._status &= ~STATUS_TIMEOUT & 0xFF
            # The wire falls between two bytes, or an edge-triggered input would miss the second.
            self._update()
            self._pump()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        """Writes a command, its parameter, or a byte for the keyboard."""
        if offset == COMMAND:
            self._was_command = True
            self._command(value)
        elif offset == DATA:
            self._was_command = False
            parameter_of, self._parameter_of = self._parameter_of, 0
            if parameter_of:
                self._parameter(parameter_of, value)
            else:
                self._control &= ~CTR_KEYBOARD_OFF & 0xFF
                self.keyboard.receive(value)
        self._pump()

    def state(self) -> State:
        """Controller, keyboard and mouse."""
        state = save_fields(self, _VERSION, _FIELDS)
        state["keyboard"] = self.keyboard.state()
        if self.mouse is not None:
            state["mouse"] = self.mouse.state()
        return state

    def restore(self, state: State) -> None:
        """Takes controller, keyboard and mouse."""
        before = self.state()
        try:
            self._restore(state)
        except StateError:
            self._restore(before)
            raise

    def _restore(self, state: State) -> None:
        keyboard, mouse = state.get("keyboard"), state.get("mouse")
        self.keyboard.restore(keyboard if isinstance(keyboard, dict) else {})
        if self.mouse is not None:
            self.mouse.restore(mouse if isinstance(mouse, dict) else {})
        elif mouse is not None:
            raise StateError("I8042: the state has a mouse, the board has none")
        restore_fields(self, state, _VERSION, _FIELDS)
        self._update()

    def _command(self, command: int) -> None:
        self._parameter_of = 0
        if 0x20 <= command <= 0x3F:
            self._answer(self._control if command == 0x20 else self._memory[command & 0x1F])
        elif 0x60 <= command <= 0x7F or command in (0xD1, 0xD2, 0xD3, 0xD4):
            self._parameter_of = command
        elif command == 0xA7:
            self._set_control(self._control | CTR_AUX_OFF)
        elif command == 0xA8:
            self._set_control(self._control & ~CTR_AUX_OFF)
        elif command == 0xA9:
            # 1: the clock line is stuck low, no device there.
            self._answer(0x01 if self.mouse is None else 0x00)
        elif command == 0xAA:
            self._queue.clear()
            self._full = False
            self._status |= STATUS_SYSTEM
            self._answer(0x55)
        elif command == 0xAB:
            self._answer(0x00)
        elif command == 0xAD:
            self._set_control(self._control | CTR_KEYBOARD_OFF)
        elif command == 0xAE:
            self._set_control(self._control & ~CTR_KEYBOARD_OFF)
        elif command == 0xC0:
            self._answer(0x80)  # keyboard not locked
        elif command == 0xD0:
            full = 0x10 if self._full else 0
            self._answer(self._outport & ~0x30 | full)
        elif command == 0xDD:
            self._set_outport(self._outport & ~OUTPUT_A20)
        elif command == 0xDF:
            self._set_outport(self._outport | OUTPUT_A20)
        elif command == 0xE0:
            self._answer(0x00)
        elif command >= 0xF0 and not command & OUTPUT_RESET:
            # Pulses output bits whose command bit is 0; only the reset line reacts to a pulse.
            self._reset_line()

    def _parameter(self, command: int, value: int) -> None:
        if command == 0x60:
            self._set_control(value)
            self._status = self._status & ~STATUS_SYSTEM | (value & CTR_SYSTEM)
        elif command <= 0x7F:
            self._memory[command & 0x1F] = value
        elif command == 0xD1:
            self._set_outport(value)
        elif command == 0xD2:
            self._answer(value, _FROM_KEYBOARD)
        elif command == 0xD3:
            # The loop of the auxiliary channel: without one the byte comes back inverted, from
            # the controller, so no driver takes the channel for present.
            if self.mouse is None:
                self._answer(value ^ 0xFF)
            else:
                self._answer(value, _FROM_AUX)
        elif command == 0xD4:
            if self.mouse is None:
                self._status |= STATUS_TIMEOUT
                self._answer(_TIMEOUT, _FROM_AUX)
            else:
                self._control &= ~CTR_AUX_OFF & 0xFF
                self.mouse.receive(value)

    def _set_control(self, value: int) -> None:
        self._control = value & 0xFF
        self._update()

    def _set_outport(self, value: int) -> None:
        changed = (value ^ self._outport) & OUTPUT_A20
        self._outport = value & 0xFF
        if changed and self._a20 is not None:
            self._a20(bool(value & OUTPUT_A20))
        if not value & OUTPUT_RESET:
            self._reset_line()

    def _answer(self, value: int, source: int = _FROM_CONTROLLER) -> None:
        if len(self._queue) < _QUEUE:
            self._queue.append(source << 8 | value & 0xFF)
        self._pump()

    def _pump(self) -> None:
        """Moves the next byte into the output buffer when that is empty."""
        if self._full:
            return
        if self._queue:
            entry = self._queue.pop(0)
            self._data, self._source = entry & 0xFF, entry >> 8
        elif not self._take_keyboard() and not self._take_mouse():
            return
        self._full = True
        self._update()

    def _take_keyboard(self) -> bool:
        """Takes a byte from the keyboard, if its clock line is free and it has one."""
        if self._control & CTR_KEYBOARD_OFF:
            return False
        value = self.keyboard.send(translate=bool(self._control & CTR_TRANSLATE))
        if value is None:
            return False
        self._data, self._source = value, _FROM_KEYBOARD
        return True

    def _take_mouse(self) -> bool:
        """The same for the mouse."""
        if self.mouse is None or self._control & CTR_AUX_OFF:
            return False
        value = self.mouse.send()
        if value is None:
            return False
        self._data, self._source = value, _FROM_AUX
        return True

    def _update(self) -> None:
        """Drives IRQ 1 or IRQ 12 while a byte waits, by where it came from."""
        aux = self._source == _FROM_AUX
        self._irq.set(self._full and not aux and bool(self._control & CTR_KEYBOARD_IRQ))
        if self._aux_irq is not None:
            self._aux_irq.set(self._full and aux and bool(self._control & CTR_AUX_IRQ))
