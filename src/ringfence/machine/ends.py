"""Host ends that devices ask for by kind and name; they live as long as the machine."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from ringfence.bus import PacketPort
from ringfence.chars import Stream
from ringfence.errors import ConfigError

if TYPE_CHECKING:
    from ringfence.folders import FolderServer
    from ringfence.net import UnixSocketHost

__all__ = ["HostEndTable"]


class _LockedPort:
    """A wire whose calls come under the machine's lock, to the devices of the current boot."""

    def __init__(self, port: PacketPort, lock: RLock) -> None:
        self._lock = lock
        self._port = port
        self.send = port.send
        self.receive = port.receive
        self._callback: Callable[[], None] | None = None

    def on_receive(self, callback: Callable[[], None]) -> None:
        """Sets what is called; frames that wait already are told of at once."""
        self._callback = callback
        self._port.on_receive(self._came)

    def disconnect(self) -> None:
        """The device has gone; what comes stays with the port."""
        self._callback = None

    def _came(self) -> None:
        with self._lock:
            if self._callback is not None:
                self._callback()


class _LockedChars:
    """A serial line whose calls come under the machine's lock."""

    def __init__(self, stream: Stream, lock: RLock) -> None:
        self._lock = lock
        self._stream = stream
        self.write = stream.write
        self.read = stream.read

    def on_input(self, callback: Callable[[], None]) -> None:
        """Sets what is called when there is input for the guest."""

        def came() -> None:
            with self._lock:
                callback()

        self._stream.on_input(came)


class HostEndTable:
    """The host ends of one machine.

    Args:
        lock: The machine's lock.
        networks: Wires that the user holds the other end of, by name.
    """

    def __init__(self, lock: RLock, networks: Mapping[str, PacketPort]) -> None:
        self._lock = lock
        self._networks = dict(networks)
        self._opened: dict[str, PacketPort] = {}
        self._used: dict[str, _LockedPort] = {}
        self._streams: dict[str, Stream] = {}
        self._folders: list[FolderServer] = []
        self._sockets: dict[str, UnixSocketHost] = {}

    def end(self, kind: str, name: str) -> Any:
        """The host end ``name`` of a kind.

        Raises:
            ConfigError: there is none, or another device has it.
            NetworkError: the host refuses it.
        """
        if kind == "entropy":
            return os.urandom
        if kind == "char":
            return _LockedChars(self.stream(name), self._lock)
        if kind in ("folder", "folder-readonly"):
            # Imported late, as what else few machines have: a machine should start at once.
            from ringfence.folders import FolderServer, Tree

            server = FolderServer(Tree(name, readonly=kind == "folder-readonly"))
            self._folders.append(server)
            return server
        if kind == "vsock":
            from ringfence.net import UnixSocketHost

            if name not in self._sockets:
                self._sockets[name] = UnixSocketHost(Path(name), self._lock)
            return self._sockets[name]
        if kind != "net":
            raise ConfigError(f"there is no {kind} named {name!r}")
        from ringfence.net import NetSpec

        if name == "none":
            return NetSpec("none").open()
        if name in self._used:
            raise ConfigError(f"net: {name} is plugged into two cards")
        port = self._networks.get(name) or self._opened.get(name)
        if port is None:
            port = self._opened[name] = NetSpec.parse(name).open()
        self._used[name] = locked = _LockedPort(port, self._lock)
        return locked

    def stream(self, name: str) -> Stream:
        """The serial line ``name``, made when it is first asked for."""
        return self._streams.setdefault(name, Stream(name))

    def end_boot(self) -> None:
        """The devices have gone; those of the next boot may ask anew."""
        for port in self._used.values():
            port.disconnect()
        self._used.clear()
        for sockets in self._sockets.values():
            sockets.disconnect()
        while self._folders:
            self._folders.pop().close()

    def close(self) -> None:
        """Closes what was opened here."""
        self.end_boot()
        for stream in self._streams.values():
            stream.close()
        while self._sockets:
            self._sockets.popitem()[1].close()
        while self._opened:
            port: Any = self._opened.popitem()[1]
            port.close()
