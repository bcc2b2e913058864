"""Keyboard and mouse of a machine, as a program holds them."""

from collections.abc import Callable
from threading import RLock
from time import monotonic, sleep

from ringfence.bus.keys import KEYS
from ringfence.devices.input.i8042 import I8042
from ringfence.devices.input.mouse import Mouse as MouseDevice
from ringfence.display.layouts import layout
from ringfence.errors import ConfigError, EngineError

__all__ = ["BUTTONS", "Keyboard", "Mouse"]

#: Bits of the buttons by name.
BUTTONS = {"left": 1, "right": 2, "middle": 4, "side": 8, "extra": 16}
#: Seconds between two keys: a BIOS keeps sixteen, and programs seldom ask more often than this.
_INTERVAL = 0.02
#: How long to wait for a guest to take a key before it is given the next one.
_PATIENCE = 1.0
_POLL = 0.002


class _Input:
    """What keyboard and mouse have in common: the controller of the current boot."""

    def __init__(self, lock: RLock, controller: Callable[[], I8042 | None]) -> None:
        self._lock = lock
        self._controller = controller

    def _wait(self, idle: Callable[[I8042], bool]) -> None:
        """Waits until the guest has taken what was sent, but not for ever."""
        deadline = monotonic() + _PATIENCE
        while monotonic() < deadline:
            with self._lock:
                controller = self._controller()
                if controller is None or idle(controller):
                    return
            sleep(_POLL)


class Keyboard(_Input):
    """The keyboard.

    Keys have names (``ringfence.bus.keys.KEYS``): ``a``, ``f1``, ``enter``, ``pageup``, ``kp-5``,
    ``altgr``; a chord is names with hyphens between, like ``ctrl-alt-del``.

    Args:
        lock: The machine's lock.
        controller: Gives the keyboard controller of the current boot.
        layout_name: The layout that the guest has its keyboard for.

    Raises:
        ConfigError: there is no such layout.
    """

    def __init__(
        self, lock: RLock, controller: Callable[[], I8042 | None], layout_name: str = "us"
    ) -> None:
        super().__init__(lock, controller)
        self._layout = layout(layout_name)

    @property
    def layout(self) -> str:
        """Name of the layout by which :meth:`type` finds keys."""
        return self._layout.name

    @layout.setter
    def layout(self, name: str) -> None:
        self._layout = layout(name)

    @property
    def leds(self) -> frozenset[str]:
        """The lights that are on: ``scrolllock``, ``numlock``, ``capslock``."""
        with self._lock:
            controller = self._controller()
            lit = controller.keyboard.leds if controller is not None else 0
        names = ("scrolllock", "numlock", "capslock")
        return frozenset(name for bit, name in enumerate(names) if lit >> bit & 1)

    def type(self, text: str, *, interval: float = _INTERVAL) -> None:
        """Types ``text``, a character every ``interval`` seconds, as fast as the guest takes it.

        Raises:
            ConfigError: a character can't be written by the layout.
            EngineError: the machine has no keyboard.
        """
        for chord in self._layout.chords_for(text):
            self.stroke(chord)
            sleep(interval)

    def press(self, *chords: str, hold: float = 0.0, interval: float = _INTERVAL) -> None:
        """Presses and releases chords, one after the other: ``press("ctrl-alt-del")``.

        Args:
            chords: Names of keys, with hyphens between those that are held together.
            hold: How long each is held, in seconds; a key that is held repeats.
            interval: How long to wait after each, in seconds.

        Raises:
            ConfigError: there is no such key.
            EngineError: the machine has no keyboard.
        """
        for chord in [_chord(text) for text in chords]:
            self.stroke(chord, hold)
            sleep(interval)

    def down(self, key: str) -> None:
        """Presses a key and keeps it down.

        Raises:
            ConfigError: there is no such key.
            EngineError: the machine has no keyboard.
        """
        for number in _chord(key):
            self.send(number, True)

    def up(self, key: str) -> None:
        """Releases a key.

        Raises:
            ConfigError: there is no such key.
            EngineError: the machine has no keyboard.
        """
        for number in reversed(_chord(key)):
            self.send(number, False)

    def send(self, number: int, down: bool) -> None:
        """Presses or releases a key by its number (``ringfence.bus.keys``), at once.

        Raises:
            EngineError: the machine has no keyboard.
        """
        with self._lock:
            self._require().keyboard.key(number, down)

    def stroke(self, chord: tuple[int, ...], hold: float = 0.0) -> None:
        """Presses the keys with these numbers and releases them.

        Waits a little for a guest that has not taken the keys before.

        Raises:
            EngineError: the machine has no keyboard.
        """
        self._wait(lambda controller: controller.keyboard.idle)
        # Without a pause between them nothing can make the key repeat, however slow the host is.
        with self._lock:
            keyboard = self._require().keyboard
            for number in chord:
                keyboard.key(number, True)
            if not hold:
                for number in reversed(chord):
                    keyboard.key(number, False)
        if hold:
            sleep(hold)
            for number in reversed(chord):
                self._wait(lambda controller: controller.keyboard.idle)
                self.send(number, False)

    def release_all(self) -> None:
        """Releases whatever is down."""
        with self._lock:
            controller = self._controller()
            if controller is not None:
                for number in controller.keyboard.held:
                    controller.keyboard.key(number, False)

    async def type_async(self, text: str, *, interval: float = _INTERVAL) -> None:
        """As :meth:`type`, for coroutines."""
        from asyncio import to_thread

        await to_thread(self.type, text, interval=interval)

    async def press_async(
        self, *chords: str, hold: float = 0.0, interval: float = _INTERVAL
    ) -> None:
        """As :meth:`press`, for coroutines."""
        from asyncio import to_thread

        await to_thread(self.press, *chords, hold=hold, interval=interval)

    def _require(self) -> I8042:
        controller = self._controller()
        if controller is None:
            raise EngineError("the machine has no keyboard, or does not run")
        return controller


class Mouse(_Input):
    """The mouse: a PS/2 mouse, which tells how far it moved and not where it is."""

    def move(self, right: int, down: int) -> None:
        """Moves by counts, which guests may scale.

        Raises:
            EngineError: the machine has no mouse.
        """
        with self._lock:
            self._require().move(right, down)

    def scroll(self, clicks: int) -> None:
        """Turns the wheel: down, or up if negative."""
        with self._lock:
            self._require().move(0, 0, clicks)

    def click(self, button: str = "left", *, hold: float = 0.05) -> None:
        """Presses and releases a button.

        Args:
            button: ``left``, ``right``, ``middle``, ``side`` or ``extra``.
            hold: For how many seconds.

        Raises:
            ConfigError: there is no such button.
            EngineError: the machine has no mouse.
        """
        self.down(button)
        self._wait(_mouse_idle)
        sleep(hold)
        self.up(button)
        self._wait(_mouse_idle)

    def down(self, button: str = "left") -> None:
        """Presses a button."""
        with self._lock:
            mouse = self._require()
            mouse.set_buttons(mouse.buttons | _button(button))

    def up(self, button: str = "left") -> None:
        """Releases a button."""
        with self._lock:
            mouse = self._require()
            mouse.set_buttons(mouse.buttons & ~_button(button))

    def send(self, right: int, down: int, wheel: int, buttons: int) -> None:
        """Moves, turns the wheel and sets all buttons at once; nothing without a mouse."""
        with self._lock:
            controller = self._controller()
            if controller is not None and controller.mouse is not None:
                controller.mouse.set_buttons(buttons)
                if right or down or wheel:
                    controller.mouse.move(right, down, wheel)

    async def click_async(self, button: str = "left", *, hold: float = 0.05) -> None:
        """As :meth:`click`, for coroutines."""
        from asyncio import to_thread

        await to_thread(self.click, button, hold=hold)

    def _require(self) -> MouseDevice:
        controller = self._controller()
        if controller is None or controller.mouse is None:
            raise EngineError("the machine has no mouse, or does not run")
        return controller.mouse


def _mouse_idle(controller: I8042) -> bool:
    return controller.mouse is None or controller.mouse.idle


def _chord(text: str) -> tuple[int, ...]:
    """The keys of a chord: names may hold hyphens themselves."""
    parts, numbers, at = text.lower().split("-"), [], 0
    while at < len(parts):
        for length in (2, 1):
            name = "-".join(parts[at : at + length])
            if name in KEYS and len(parts[at : at + length]) == length:
                numbers.append(KEYS[name])
                at += length
                break
        else:
            raise ConfigError(f"{text!r}: there is no key {parts[at]!r}")
    return tuple(numbers)


def _button(name: str) -> int:
    bit = BUTTONS.get(name)
    if bit is None:
        raise ConfigError(f"there is no mouse button {name!r}; there are {', '.join(BUTTONS)}")
    return bit
