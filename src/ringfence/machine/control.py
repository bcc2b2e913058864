"""A running machine that has a name, reached by other processes of its user.

A Unix socket in a folder that only the user can open. A request is a line of JSON with ``op``;
the answer is a line of JSON with ``ok``, then ``size`` bytes. Operations: ``screenshot`` (PNG) and
``text`` (UTF-8). This is for tools on the same host; a server for many machines is another thing.
"""

import json
import os
import re
import socket
import stat
import tempfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from threading import Thread

from ringfence.errors import ConfigError, EngineError, RingfenceError
from ringfence.machine.screen import Screen

__all__ = ["ControlSocket", "ask", "socket_path"]

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,47}", re.ASCII)
_LONGEST_LINE = 4096
_LONGEST_ANSWER = 256 << 20
_PATIENCE = 30.0  # seconds


def socket_path(name: str) -> Path:
    """Where the socket of a machine is.

    Raises:
        ConfigError: machines are not called so, or the folder is not ours.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"name: {name!r} is not a name: letters, digits, . _ -")
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and Path(base).is_dir():
        folder = Path(base) / "ringfence"
    else:
        folder = Path(tempfile.gettempdir()) / f"ringfence-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise ConfigError(f"the folder {folder} can't be used: {error}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o77:
        raise ConfigError(f"the folder {folder} is not ours alone")
    return folder / f"{name}.sock"


class ControlSocket:
    """Answers for one machine from its making to :meth:`close`.

    Args:
        name: The machine's name.
        screen: Its screen.

    Raises:
        ConfigError: a machine of this name runs, or the socket can't be made.
    """

    def __init__(self, name: str, screen: Screen) -> None:
        self.path = socket_path(name)
        self._screen = screen
        self._operations = {"screenshot": self._screenshot, "text": self._text, "ping": bytes}
        if self.path.exists():
            try:
                ask(name, "ping")
            except ConfigError:
                # Left behind by one that was killed.
                self.path.unlink(missing_ok=True)
            else:
                raise ConfigError(f"name: a machine named {name!r} runs already")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(self.path))
            self._socket.listen(8)
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"name: {self.path} can't be used: {error}") from error
        self._thread = Thread(target=self._serve, name="ringfence-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it; harmless when it has ended."""
        self.path.unlink(missing_ok=True)
        with suppress(OSError):
            # Wakes whoever waits in accept.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client, suppress(OSError, ValueError):
                client.settimeout(_PATIENCE)
                self._answer(client)

    def _answer(self, client: socket.socket) -> None:
        with client.makefile("rb") as lines:
            request = json.loads(lines.readline(_LONGEST_LINE))
        try:
            name = request.get("op") if isinstance(request, dict) else None
            operation = self._operations.get(str(name))
            if operation is None:
                raise EngineError(f"there is no operation {name!r}")
            data = operation()
            answer: dict[str, object] = {"ok": True, "size": len(data)}
        except RingfenceError as error:
            data, answer = b"", {"ok": False, "size": 0, "error": str(error)}
        client.sendall(json.dumps(answer).encode() + b"\n" + data)

    def _text(self) -> bytes:
        return self._screen.text().encode()

    def _screenshot(self) -> bytes:
        file = BytesIO()
        self._screen.image().save(file, "PNG")
        return file.getvalue()


def ask(name: str, operation: str) -> bytes:
    """Asks the machine ``name`` of this user; gives what it answers.

    Raises:
        ConfigError: no machine of this name runs.
        EngineError: it can't do that.
    """
    path = socket_path(name)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_PATIENCE)
            client.connect(str(path))
            client.sendall(json.dumps({"op": operation}).encode() + b"\n")
            with client.makefile("rb") as file:
                answer = json.loads(file.readline(_LONGEST_LINE))
                data = file.read(min(int(answer["size"]), _LONGEST_ANSWER))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"no machine named {name!r} runs: start one with ringfence run --name {name}"
        ) from error
    if not answer.get("ok"):
        raise EngineError(str(answer.get("error")))
    return data
