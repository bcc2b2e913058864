"""Listens for viewers, in a thread with an event loop of its own."""

import asyncio
import contextlib
import logging
import ssl
from asyncio import StreamReader, StreamWriter
from threading import Event, Thread

from ringfence.display.hub import ScreenHub
from ringfence.display.layouts import layout
from ringfence.display.source import Desk
from ringfence.display.vnc.config import VncConfig
from ringfence.display.vnc.security import RefusedError, Security
from ringfence.display.vnc.session import Session
from ringfence.errors import ConfigError

__all__ = ["VncServer"]

_LOG = logging.getLogger(__name__)
_MOST_VIEWERS = 32
#: Bytes that are read before they are asked for, and that wait to be sent.
_READ_AHEAD, _SEND_AHEAD = 1 << 16, 1 << 18
_START = 10.0  # seconds


class VncServer:
    """Serves a screen to viewers from :meth:`start` to :meth:`close`.

    Args:
        config: Where and how.
        desk: Screen, keyboard and mouse.
        hub: The picture.
        name: What viewers show as their title.
        layout_name: The guest's keyboard layout.

    Raises:
        ConfigError: certificate or password can't be used, or there is no such layout.
    """

    def __init__(
        self,
        config: VncConfig,
        desk: Desk,
        hub: ScreenHub,
        *,
        name: str = "ringfence",
        layout_name: str = "us",
    ) -> None:
        self._config = config
        self._desk = desk
        self._hub = hub
        self._name = name
        self._layout = layout(layout_name)
        self._security = Security(config)
        self._thread = Thread(target=self._serve, name="ringfence-vnc", daemon=True)
        self._ready = Event()
        self._error: OSError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: Address and port that are served, once started.
        self.address: tuple[str, int] = (config.host, config.port)

    def start(self) -> None:
        """Begins to listen.

        Raises:
            ConfigError: the address can't be used.
        """
        self._thread.start()
        self._ready.wait(_START)
        if self._error is not None:
            host, port = self._config.host, self._config.port
            raise ConfigError(f"vnc: {host} port {port} can't be served: {self._error}")

    def close(self) -> None:
        """Sends all viewers away; does not wait for it."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            # The loop is gone when it has been closed before.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)

    def join(self, timeout: float | None = None) -> None:
        """Waits until all viewers are gone."""
        self._thread.join(timeout)

    @property
    def viewers(self) -> int:
        """How many are connected."""
        return len(self._tasks)

    def _serve(self) -> None:
        try:
            asyncio.run(self._listen())
        except OSError as error:
            self._error = error
        finally:
            self._ready.set()

    async def _listen(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        config = self._config
        server = await asyncio.start_server(
            self._connected, config.host, config.port, limit=_READ_AHEAD
        )
        self.address = server.sockets[0].getsockname()[:2]
        self._ready.set()
        async with server:
            await self._stop.wait()
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._tasks) >= _MOST_VIEWERS:
            writer.close()
            return
        self._tasks.add(task)
        writer.transport.set_write_buffer_limits(_SEND_AHEAD)
        session = Session(
            reader,
            writer,
            self._hub,
            self._desk,
            self._layout,
            name=self._name,
            view_only=self._config.view_only,
        )
        try:
            await session.run(self._security)
        except (RefusedError, OSError, EOFError, TimeoutError, ssl.SSLError) as error:
            _LOG.debug("viewer %s left: %s", writer.get_extra_info("peername"), error)
        except asyncio.CancelledError:
            # The server closes; a task that ends by itself says nothing more.
            pass
        except Exception:  # noqa: BLE001 - told, and no matter of the machine's
            _LOG.exception("a viewer's connection failed")
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
