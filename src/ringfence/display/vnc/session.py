"""One viewer: what it asks for and what it is sent.

Nothing that a viewer sends makes us keep more than a few kilobytes: messages are of bounded
length, an update is made when the one before has been taken, and what changes meanwhile is kept
as places, not as pixels.
"""

import asyncio
import struct
import zlib
from asyncio import StreamReader, StreamWriter
from time import monotonic

from ringfence.bus.screen import Part
from ringfence.display.hub import ScreenHub, Update
from ringfence.display.layouts import Layout
from ringfence.display.source import Desk
from ringfence.display.vnc.damage import Damage, clip
from ringfence.display.vnc.messages import (
    DEFAULT_FORMAT,
    Encoding,
    WireFormat,
    color_map,
    cursor,
    rectangle,
)
from ringfence.display.vnc.person import Person
from ringfence.display.vnc.security import RefusedError, Security

__all__ = ["Session"]

_VERSION = b"RFB 003.008\n"
_HANDSHAKE = 20.0  # seconds
#: Longest text of a clipboard that is read over; encodings that are looked at.
_MOST_TEXT, _MOST_ENCODINGS, _MOST_SCREENS = 1 << 20, 256, 64
#: Messages a second, and at once: more are read later.
_MESSAGE_RATE, _MESSAGE_BURST = 2000.0, 500.0
#: Seconds between two updates.
_UPDATE_INTERVAL = 1 / 60
_LED_INTERVAL = 0.5
#: Lines of a rectangle that is encoded at once.
_BAND = 256
_SIZE_WITHOUT_PICTURE = (640, 400)
_LED_BITS = {"scrolllock": 1, "numlock": 2, "capslock": 4}


class Session:
    """A viewer's connection.

    Args:
        reader: What it sends.
        writer: What it is sent.
        hub: The picture.
        desk: Screen, keyboard and mouse.
        layout: The guest's keyboard layout.
        name: What the viewer shows as its title.
        view_only: Its keys and mouse are ignored.
    """

    def __init__(
        self,
        reader: StreamReader,
        writer: StreamWriter,
        hub: ScreenHub,
        desk: Desk,
        layout: Layout,
        *,
        name: str,
        view_only: bool = False,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._hub = hub
        self._desk = desk
        self._name = name
        self._person = Person(desk, layout, view_only=view_only)
        self._wire = DEFAULT_FORMAT
        self._encodings: frozenset[int] = frozenset()
        self._encoding = Encoding.RAW
        self._deflate = zlib.compressobj(1)
        self._damage = Damage()
        self._size = _SIZE_WITHOUT_PICTURE
        self._requested = False
        #: What is to be sent beside pixels.
        self._resized = self._introduced = False
        self._leds = -1
        self._wake = asyncio.Event()
        self._tokens, self._filled = _MESSAGE_BURST, monotonic()

    async def run(self, security: Security) -> None:
        """Serves it until it leaves.

        Raises:
            RefusedError: it may not look, or does not keep to the protocol.
            OSError, EOFError: the connection broke.
        """
        async with asyncio.timeout(_HANDSHAKE):
            await self._shake_hands(security)
        loop = asyncio.get_running_loop()

        def changed(update: Update) -> None:
            loop.call_soon_threadsafe(self._changed, update)

        leave = await asyncio.to_thread(self._hub.subscribe, changed)
        updates = asyncio.create_task(self._send_updates())
        messages = asyncio.create_task(self._read_messages())
        try:
            done, _ = await asyncio.wait((updates, messages), return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (updates, messages):
                task.cancel()
            await asyncio.gather(updates, messages, return_exceptions=True)
            await asyncio.to_thread(leave)
            await asyncio.to_thread(self._person.leave)

    # The beginning.

    async def _shake_hands(self, security: Security) -> None:
        reader, writer = self._reader, self._writer
        writer.write(_VERSION)
        await writer.drain()
        version = await reader.readexactly(12)
        if not version.startswith(b"RFB 003.") or not version[8:11].isdigit():
            raise RefusedError("this is not the remote framebuffer protocol")
        minor = int(version[8:11])
        minor = 8 if minor >= 8 else 7 if minor == 7 else 3
        try:
            await security.negotiate(reader, writer, minor)
        except RefusedError as error:
            reason = str(error).encode()
            if minor >= 8 and reason:
                writer.write(struct.pack(">II", 1, len(reason)) + reason)
                await writer.drain()
            raise
        await reader.readexactly(1)  # whether to share: always
        await asyncio.to_thread(self._hub.refresh)
        self._size = self._picture_size()
        name = self._name.encode()
        writer.write(
            struct.pack(">HH", *self._size)
            + DEFAULT_FORMAT.pack()
            + struct.pack(">I", len(name))
            + name
        )
        await writer.drain()

    def _picture_size(self) -> tuple[int, int]:
        size = self._hub.canvas.size
        return size if all(size) else _SIZE_WITHOUT_PICTURE

    # What it sends.

    async def _read_messages(self) -> None:
        read = self._reader.readexactly
        while True:
            kind = (await read(1))[0]
            await self._throttle()
            if kind == 0:
                self._set_format((await read(19))[3:])
            elif kind == 2:
                await self._set_encodings()
            elif kind == 3:
                self._request(*struct.unpack(">BHHHH", await read(9)))
            elif kind == 4:
                down, keysym = struct.unpack(">BxxI", await read(7))
                await self._input(self._person.keysym, keysym, bool(down))
            elif kind == 5:
                mask, x, y = struct.unpack(">BHH", await read(5))
                await self._input(self._person.pointer, mask, x, y)
            elif kind == 6:
                await self._skip_text()
            elif kind == 251:
                screens = (await read(7))[5]
                if screens > _MOST_SCREENS:
                    raise RefusedError("too many screens")
                await read(16 * screens)
            elif kind == 255 and (await read(1)) == b"\0":
                down, keysym, number = struct.unpack(">HII", await read(10))
                await self._input(self._person.key, number, keysym, bool(down))
            else:
                raise RefusedError(f"there is no message {kind}")

    async def _throttle(self) -> None:
        """Lets a viewer send so many messages a second."""
        now = monotonic()
        self._tokens = min(self._tokens + (now - self._filled) * _MESSAGE_RATE, _MESSAGE_BURST)
        self._filled = now
        self._tokens -= 1
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / _MESSAGE_RATE)

    async def _input(self, call: object, *arguments: object) -> None:
        # The machine's lock may be held: not a matter for everybody's loop.
        await asyncio.to_thread(call, *arguments)  # type: ignore[arg-type]

    def _set_format(self, data: bytes) -> None:
        wire = WireFormat.unpack(data)
        if wire is None:
            raise RefusedError("there is no such pixel format")
        self._wire = wire
        if not wire.true_color:
            self._writer.write(color_map())

    async def _set_encodings(self) -> None:
        count = int.from_bytes((await self._reader.readexactly(3))[1:], "big")
        data = await self._reader.readexactly(4 * count)
        numbers = struct.unpack(f">{count}i", data)[:_MOST_ENCODINGS]
        self._encodings = frozenset(numbers)
        usable = (n for n in numbers if n in (Encoding.RAW, Encoding.ZRLE))
        self._encoding = next(usable, Encoding.RAW)
        self._introduced = False
        if Encoding.EXTENDED_DESKTOP_SIZE in self._encodings:
            self._resized = True
        self._person.relative = Encoding.POINTER_MOTION in self._encodings
        self._wake.set()

    def _request(self, incremental: int, x: int, y: int, width: int, height: int) -> None:
        if not incremental:
            part = clip((x, y, width, height), *self._size)
            if part is not None:
                self._damage.settle(self._size[0])
                self._damage.add(part)
        self._requested = True
        self._wake.set()

    async def _skip_text(self) -> None:
        length = int.from_bytes((await self._reader.readexactly(7))[3:], "big")
        if length > _MOST_TEXT:
            raise RefusedError("the clipboard is too long")
        while length:
            length -= len(await self._reader.readexactly(min(length, 4096)))

    # What it is sent.

    def _changed(self, update: Update) -> None:
        """The picture has changed."""
        if update.resized and self._picture_size() != self._size:
            self._resized = True
        moves = Encoding.COPY_RECT in self._encodings and not self._resized
        self._damage.update(update, self._picture_size()[0], moves=moves)
        self._wake.set()

    async def _send_updates(self) -> None:
        leds = False
        while True:
            try:
                async with asyncio.timeout(_LED_INTERVAL if leds else None):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            leds = Encoding.LEDS in self._encodings
            if not self._requested:
                continue
            began = monotonic()
            rectangles = self._pseudo_rectangles()
            if not rectangles and not self._damage:
                continue
            self._requested = False
            await self._send_update(rectangles)
            await asyncio.sleep(max(_UPDATE_INTERVAL - (monotonic() - began), 0))

    async def _send_update(self, rectangles: list[bytes]) -> None:
        copy, parts = self._damage.take()
        if copy is not None and copy[1] + copy[2] <= self._size[1]:
            source, to, lines = copy
            part = (0, to, self._size[0], lines)
            rectangles.append(rectangle(part, Encoding.COPY_RECT) + struct.pack(">HH", 0, source))
        bands = [band for part in parts for band in self._bands(part)]
        self._writer.write(struct.pack(">BxH", 0, len(rectangles) + len(bands)))
        self._writer.write(b"".join(rectangles))
        for band in bands:
            self._writer.write(await asyncio.to_thread(self._encode, band))
            # A viewer that does not read holds itself up, and nobody else.
            await self._writer.drain()
        await self._writer.drain()

    def _bands(self, part: Part) -> list[Part]:
        """A part cut to the viewer's screen, and into pieces."""
        clipped = clip(part, *self._size)
        if clipped is None:
            return []
        x, y, width, height = clipped
        return [(x, y + at, width, min(_BAND, height - at)) for at in range(0, height, _BAND)]

    def _encode(self, part: Part) -> bytes:
        """A rectangle of pixels; where the picture has none any more they are black."""
        _, _, width, height = part
        pixels = self._wire.pixels
        with self._hub.lock:
            canvas = self._hub.canvas
            self._damage.sent = self._hub.generation
            inside = clip(part, *canvas.size)
            if inside == part and self._encoding == Encoding.ZRLE:
                tiles = canvas.zrle(part, pixels)
            elif inside == part:
                return rectangle(part, Encoding.RAW) + canvas.packed(part, pixels)
            else:
                # The viewer's screen is larger, and it can't be told, or is told next.
                inner = b"" if inside is None else canvas.packed(inside, pixels)
                filled = _pad(inner, inside or (0, 0, 0, 0), (width, height), pixels[0])
                return rectangle(part, Encoding.RAW) + filled
        data = self._deflate.compress(tiles) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return rectangle(part, Encoding.ZRLE) + struct.pack(">I", len(data)) + data

    def _pseudo_rectangles(self) -> list[bytes]:
        """What is told beside pixels: the size, the pointer, the lights."""
        found, known = [], self._encodings
        if self._resized:
            self._resized = False
            size = self._picture_size()
            if Encoding.EXTENDED_DESKTOP_SIZE in known:
                screen = struct.pack(">BxxxIHHHHI", 1, 0, 0, 0, *size, 0)
                found.append(rectangle((0, 0, *size), Encoding.EXTENDED_DESKTOP_SIZE) + screen)
            elif Encoding.DESKTOP_SIZE in known and size != self._size:
                found.append(rectangle((0, 0, *size), Encoding.DESKTOP_SIZE))
            if found:
                changed, self._size = size != self._size, size
                if changed:
                    self._damage.take()
                    self._damage.add((0, 0, *size))
        if not self._introduced:
            self._introduced = True
            relative = self._person.relative
            if relative:
                found.append(rectangle((0, 0, *self._size), Encoding.POINTER_MOTION))
            if Encoding.CURSOR in known:
                found.append(cursor(self._wire, shown=not relative))
            if Encoding.EXTENDED_KEYS in known:
                found.append(rectangle((0, 0, 0, 0), Encoding.EXTENDED_KEYS))
        if Encoding.LEDS in known:
            leds = sum(_LED_BITS[name] for name in self._desk.keys.leds)
            if leds != self._leds:
                self._leds = leds
                found.append(rectangle((0, 0, 1, 1), Encoding.LEDS) + bytes([leds]))
        return found


def _pad(inner: bytes, part: Part, size: tuple[int, int], each: int) -> bytes:
    """Pixels of ``each`` bytes with black to the right and below, up to a size."""
    width, height = size
    row, right = part[2] * each, bytes((width - part[2]) * each)
    rows = (inner[at * row : (at + 1) * row] + right for at in range(part[3]))
    return b"".join(rows) + bytes((height - part[3]) * width * each)
