"""The screen in a window of the desktop, by tkinter, which comes with Python on most systems."""

from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Any

from ringfence.display.hub import ScreenHub, Update
from ringfence.display.layouts import layout
from ringfence.display.source import Desk
from ringfence.display.vnc.person import Person
from ringfence.errors import ConfigError

if TYPE_CHECKING:
    import tkinter as tk

__all__ = ["Window"]

_INTERVAL = 33  # milliseconds
_SIZE_WITHOUT_PICTURE = (640, 400)
#: X11 counts keys as Linux does, from 8 on; the first of them as scan code set 1 does.
_FIRST_KEYCODE, _LAST_KEYCODE = 9, 96
#: Bits of the protocol's buttons by tkinter's numbers: left, middle, right, wheel.
_WHEEL_UP, _WHEEL_DOWN = 8, 16


class Window:
    """A window with the picture, made in the main thread.

    Args:
        title: Its title.
        layout_name: The layout that the guest has its keyboard for.

    Raises:
        ConfigError: tkinter is not installed, or there is no desktop.
    """

    def __init__(self, title: str, layout_name: str = "us") -> None:
        self._layout = layout(layout_name)
        try:
            import tkinter as tk
        except ImportError:
            raise ConfigError(
                "windows need tkinter, which is not installed: install python3-tk, "
                "or use --screen text or --vnc"
            ) from None
        try:
            self._root = tk.Tk()
        except tk.TclError as error:
            raise ConfigError(f"no window can be opened: {error}; use --vnc") from None
        self._title = title
        self._root.title(title)
        self._root.resizable(False, False)
        self._photo = tk.PhotoImage(width=640, height=400)
        self._label = tk.Label(self._root, image=self._photo, borderwidth=0, bg="black")
        self._label.pack()
        self._changed = Event()
        self._mask = 0
        self._failure: BaseException | None = None

    def show(
        self,
        desk: Desk,
        hub: ScreenHub,
        ended: Callable[[], bool],
        check: Callable[[], object] = bool,
    ) -> bool:
        """Shows the screen until the machine has ended or the user closes the window.

        Args:
            desk: Screen, keyboard and mouse.
            hub: The picture.
            ended: Whether the machine has ended.
            check: Called often; what it raises is raised here.

        Returns:
            Whether the machine has ended.
        """
        person = Person(desk, self._layout)
        self._bind(person)
        closed = Event()
        self._root.protocol("WM_DELETE_WINDOW", closed.set)
        leave = hub.subscribe(self._note)
        self._changed.set()

        def tick() -> None:
            try:
                check()
                if ended() or closed.is_set():
                    self._root.quit()
                    return
                if self._changed.is_set():
                    self._changed.clear()
                    self._draw(hub)
            except BaseException as error:  # noqa: BLE001 - raised below, out of the toolkit
                self._failure = error
                self._root.quit()
                return
            self._root.after(_INTERVAL, tick)

        try:
            self._root.after(0, tick)
            self._root.mainloop()
        finally:
            leave()
            person.leave()
            self._root.destroy()
        if self._failure is not None:
            raise self._failure
        return not closed.is_set()

    def _note(self, update: Update) -> None:  # noqa: ARG002 - all of it is drawn
        self._changed.set()

    def _draw(self, hub: ScreenHub) -> None:
        with hub.lock:
            size = hub.canvas.size
            pixels = hub.canvas.rgb((0, 0, *size))
        if all(size):
            header = f"P6 {size[0]} {size[1]} 255\n".encode()
            self._photo.configure(width=size[0], height=size[1], data=header + pixels)

    def _bind(self, person: Person) -> None:
        root = self._root
        x11 = root.tk.call("tk", "windowingsystem") == "x11"

        def key(event: "tk.Event[Any]", *, down: bool) -> None:
            number = 0
            if x11 and _FIRST_KEYCODE <= event.keycode <= _LAST_KEYCODE:
                number = event.keycode - 8
            person.key(number, event.keysym_num, down)

        def pointer(event: "tk.Event[Any]") -> None:
            person.pointer(self._mask, max(event.x, 0), max(event.y, 0))

        def button(event: "tk.Event[Any]", *, down: bool) -> None:
            bit = 1 << (event.num - 1) if 1 <= event.num <= 5 else 0
            self._mask = self._mask | bit if down else self._mask & ~bit
            pointer(event)

        def wheel(event: "tk.Event[Any]") -> None:
            bit = _WHEEL_UP if event.delta > 0 else _WHEEL_DOWN
            for mask in (self._mask | bit, self._mask):
                person.pointer(mask, max(event.x, 0), max(event.y, 0))

        root.bind("<KeyPress>", lambda event: key(event, down=True))
        root.bind("<KeyRelease>", lambda event: key(event, down=False))
        root.bind("<FocusOut>", lambda _event: person.leave())
        self._label.bind("<Motion>", pointer)
        self._label.bind("<ButtonPress>", lambda event: button(event, down=True))
        self._label.bind("<ButtonRelease>", lambda event: button(event, down=False))
        self._label.bind("<MouseWheel>", wheel)
