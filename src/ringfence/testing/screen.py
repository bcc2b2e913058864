"""A person before the screen: looks, types, clicks, and tells what it saw when it waits in vain."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ringfence.bus.screen import Part
from ringfence.machine import VM

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ScreenDriver"]


class ScreenDriver:
    """Drives a machine by its screen, keyboard and mouse.

    >>> with VM(cdroms=["grub.iso"]) as vm:  # doctest: +SKIP
    ...     user = ScreenDriver(vm)
    ...     user.expect("GNU GRUB")
    ...     user.press("c")
    ...     user.expect("grub>")
    ...     user.line("ls")

    Args:
        vm: The machine, which runs and has a display.
        timeout: How long to wait for a text or a picture, in seconds, unless told otherwise.
        dump_to: A folder that gets the picture of the screen when a wait is in vain.
    """

    def __init__(self, vm: VM, *, timeout: float = 30.0, dump_to: str | Path | None = None) -> None:
        self.vm = vm
        self.timeout = timeout
        vm.screen.dump_to = None if dump_to is None else Path(dump_to)

    @property
    def text(self) -> str:
        """The characters on the screen."""
        return self.vm.screen.text()

    def expect(self, text: str | re.Pattern[str], timeout: float | None = None) -> str:
        """Waits until the screen shows ``text`` (a pattern: a match of it); returns the screen.

        Raises:
            GuestTimeout: it did not come; the message holds screen and console.
            GuestStopped: the machine ended before it came.
        """
        return self.vm.screen.wait_text(text, self.timeout if timeout is None else timeout)

    def expect_image(
        self,
        image: "Image | str | Path",
        timeout: float | None = None,
        *,
        tolerance: float = 0.0,
        region: Part | None = None,
    ) -> "Image":
        """Waits until the screen shows ``image``; see :meth:`ringfence.VM.screen`.

        Raises:
            GuestTimeout: it did not come.
            GuestStopped: the machine ended before it came.
        """
        return self.vm.screen.wait_image(
            image,
            self.timeout if timeout is None else timeout,
            tolerance=tolerance,
            region=region,
        )

    def type(self, text: str) -> None:
        """Types ``text``."""
        self.vm.keyboard.type(text)

    def line(self, text: str = "") -> None:
        """Types ``text`` and Enter."""
        self.vm.keyboard.type(text + "\n")

    def press(self, *chords: str) -> None:
        """Presses keys: ``press("ctrl-alt-del")``, ``press("down", "enter")``."""
        self.vm.keyboard.press(*chords)

    def click(self, button: str = "left") -> None:
        """Clicks a button of the mouse."""
        self.vm.mouse.click(button)
