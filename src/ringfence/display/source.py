"""What host ends of a screen are joined to."""

from typing import Any, NamedTuple, Protocol

from ringfence.bus.screen import Canvas

__all__ = ["Desk", "Keys", "Pointer", "ScreenSource"]


class ScreenSource(Protocol):
    """Something that shows pictures. Thread-safe."""

    def new_canvas(self) -> Canvas:
        """What pictures are drawn on."""

    def stamp(self) -> object:
        """A value that stays equal while the picture can't have changed."""

    def plan(self) -> tuple[Any, Any] | None:
        """What a canvas takes to draw the picture; ``None`` while there is none."""


class Keys(Protocol):
    """A keyboard. Thread-safe."""

    def send(self, number: int, down: bool) -> None:
        """Presses or releases a key (``bus.keys``).

        Raises:
            EngineError: there is no keyboard now.
        """

    @property
    def leds(self) -> frozenset[str]:
        """The lights that are on: ``scrolllock``, ``numlock``, ``capslock``."""


class Pointer(Protocol):
    """A mouse. Thread-safe."""

    def send(self, right: int, down: int, wheel: int, buttons: int) -> None:
        """Moves, turns the wheel and sets all buttons; nothing while there is no mouse."""


class Desk(NamedTuple):
    """What a person sits at."""

    screen: ScreenSource
    keys: Keys
    pointer: Pointer
