"""A viewer of a few lines: all encodings that the server has, into a picture of bytes."""

import socket
import ssl
import struct
import zlib
from typing import Any, Self

from ringfence.display.vnc.security import response

RAW, COPY_RECT, ZRLE = 0, 1, 16
DESKTOP_SIZE, CURSOR, POINTER_MOTION, EXTENDED_KEYS, LEDS = -223, -239, -257, -258, -261


class Viewer:
    """Connects; ``pixels`` holds blue, green, red, 0 for each pixel."""

    def __init__(
        self,
        address: tuple[str, int],
        encodings: tuple[int, ...] = (ZRLE, COPY_RECT, RAW, DESKTOP_SIZE),
        *,
        password: str | None = None,
        tls: bool = False,
        version: bytes = b"RFB 003.008\n",
    ) -> None:
        self.socket: Any = socket.create_connection(address, timeout=20)
        self.inflate = zlib.decompressobj()
        self.seen: list[int] = []
        try:
            self._begin(encodings, password, tls, version)
        except BaseException:
            self.socket.close()
            raise

    def _begin(
        self, encodings: tuple[int, ...], password: str | None, tls: bool, version: bytes
    ) -> None:
        assert self.read(12) == b"RFB 003.008\n"
        self.socket.sendall(version)
        self._security(password, tls, version)
        self.socket.sendall(b"\1")
        self.width, self.height = struct.unpack(">HH", self.read(4))
        self.format = self.read(16)
        self.name = self.read(struct.unpack(">I", self.read(4))[0]).decode()
        self.pixels = bytearray(4 * self.width * self.height)
        self.send(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.socket.close()

    def _security(self, password: str | None, tls: bool, version: bytes) -> None:
        if version == b"RFB 003.003\n":
            kind = struct.unpack(">I", self.read(4))[0]
        else:
            kinds = self.read(self.read(1)[0])
            kind = kinds[0]
            self.send(bytes([kind]))
        if kind == 19:
            assert tls
            assert self.read(2) == b"\0\2"
            self.send(b"\0\2")
            assert self.read(1) == b"\0"
            count = self.read(1)[0]
            subtypes = struct.unpack(f">{count}I", self.read(4 * count))
            self.send(struct.pack(">I", subtypes[0]))
            assert self.read(1) == b"\1"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.socket = context.wrap_socket(self.socket)
            kind = 1 if subtypes[0] == 260 else 2
        if kind == 2:
            self.send(response(password or "", self.read(16)))
        if version == b"RFB 003.008\n" or kind == 2:
            result = struct.unpack(">I", self.read(4))[0]
            if result:
                reason = self.read(struct.unpack(">I", self.read(4))[0])
                raise PermissionError(reason.decode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def request(self, *, incremental: bool = True) -> None:
        self.send(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def update(self, *, incremental: bool = True) -> list[int]:
        """Asks for an update and takes it; the encodings that came."""
        self.request(incremental=incremental)
        return self.take()

    def take(self) -> list[int]:
        while (kind := self.read(1)[0]) != 0:
            assert kind == 1
            count = struct.unpack(">xHH", self.read(5))[1]
            self.read(6 * count)
        count = struct.unpack(">xH", self.read(3))[0]
        kinds = []
        for _ in range(count):
            x, y, width, height, encoding = struct.unpack(">HHHHi", self.read(12))
            kinds.append(encoding)
            self._rectangle(encoding, x, y, width, height)
        self.seen += kinds
        return kinds

    def key(self, keysym: int, *, down: bool = True) -> None:
        self.send(struct.pack(">BBxxI", 4, down, keysym))

    def stroke(self, text: str) -> None:
        for character in text:
            keysym = 0xFF0D if character == "\n" else ord(character)
            self.key(keysym)
            self.key(keysym, down=False)

    def pixel(self, x: int, y: int) -> int:
        at = 4 * (y * self.width + x)
        return int.from_bytes(self.pixels[at : at + 3], "little")

    def _rectangle(self, encoding: int, x: int, y: int, width: int, height: int) -> None:
        if encoding == RAW:
            self._put(x, y, width, height, self.read(4 * width * height))
        elif encoding == COPY_RECT:
            from_x, from_y = struct.unpack(">HH", self.read(4))
            self._put(x, y, width, height, self._get(from_x, from_y, width, height))
        elif encoding == ZRLE:
            length = struct.unpack(">I", self.read(4))[0]
            data = Tiles(self.inflate.decompress(self.read(length)))
            for top in range(y, y + height, 64):
                for left in range(x, x + width, 64):
                    size = min(64, x + width - left), min(64, y + height - top)
                    self._put(left, top, *size, data.tile(*size))
            assert not data.left, "bytes behind the last tile"
        elif encoding == DESKTOP_SIZE:
            self.width, self.height = width, height
            self.pixels = bytearray(4 * width * height)
        elif encoding == CURSOR:
            self.read(4 * width * height + (width + 7) // 8 * height)
        elif encoding == LEDS:
            self.leds = self.read(1)[0]
        else:
            assert encoding in (POINTER_MOTION, EXTENDED_KEYS), encoding

    def _get(self, x: int, y: int, width: int, height: int) -> bytes:
        row = 4 * self.width
        return b"".join(
            self.pixels[row * line + 4 * x : row * line + 4 * (x + width)]
            for line in range(y, y + height)
        )

    def _put(self, x: int, y: int, width: int, height: int, data: bytes) -> None:
        assert x + width <= self.width
        assert y + height <= self.height
        row = 4 * self.width
        for line in range(height):
            at = row * (y + line) + 4 * x
            self.pixels[at : at + 4 * width] = data[4 * width * line : 4 * width * (line + 1)]


class Tiles:
    """Tiles of ZRLE, decompressed."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        assert count <= self.left
        self.at += count
        return self.data[self.at - count : self.at]

    def pixel(self) -> bytes:
        return self.take(3) + b"\0"

    def length(self) -> int:
        length = 1
        while (byte := self.take(1)[0]) == 255:
            length += 255
        return length + byte

    def tile(self, width: int, height: int) -> bytes:
        kind, area = self.take(1)[0], width * height
        if kind == 0:
            out, raw = bytearray(4 * area), self.take(3 * area)
            for channel in range(3):
                out[channel::4] = raw[channel::3]
            return bytes(out)
        if kind == 1:
            return self.pixel() * area
        if kind <= 16:
            palette = [self.pixel() for _ in range(kind)]
            bits = 1 if kind == 2 else 2 if kind <= 4 else 4
            rows = []
            for _ in range(height):
                row = self.take((width * bits + 7) // 8)
                number = int.from_bytes(row, "big")
                total = 8 * len(row)
                rows.append(
                    b"".join(
                        palette[number >> (total - bits * (at + 1)) & ((1 << bits) - 1)]
                        for at in range(width)
                    )
                )
            return b"".join(rows)
        runs = bytearray()
        palette = [self.pixel() for _ in range(kind & 127)]
        while len(runs) < 4 * area:
            if kind == 128:
                pixel = self.pixel()
                runs += pixel * self.length()
            else:
                index = self.take(1)[0]
                runs += palette[index & 127] * (self.length() if index & 128 else 1)
        assert len(runs) == 4 * area
        return bytes(runs)
