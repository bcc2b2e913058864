"""The far end of a guest's cable: a host that answers ARP, pings, UDP echoes and DHCP."""

import socket
import struct
import threading

from ringfence.net import FrameQueue

MAC = bytes.fromhex("020000000001")
ADDRESS = socket.inet_aton("10.9.0.1")
GUEST = socket.inet_aton("10.9.0.2")
ARP, IP = b"\x08\x06", b"\x08\x00"
ECHO_PORT = 7


def checksum(data: bytes) -> int:
    if len(data) & 1:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Peer:
    """Answers what comes out of ``port``; remembers it."""

    def __init__(self, port: FrameQueue) -> None:
        self.port = port
        self.frames = 0
        self.bytes = 0
        self.bad = 0
        self.pings = 0
        self.longest = 0
        self._came = threading.Semaphore(0)
        self._closed = False
        port.on_receive(self._came.release)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._came.release()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            self._came.acquire()
            if self._closed:
                return
            while (frame := self.port.receive()) is not None:
                self._answer(frame)

    def _answer(self, frame: bytes) -> None:
        self.frames += 1
        self.bytes += len(frame)
        self.longest = max(self.longest, len(frame))
        kind = frame[12:14]
        if kind == ARP and frame[20:22] == b"\0\1" and frame[38:42] == ADDRESS:
            reply = frame[14:20] + b"\0\2" + MAC + ADDRESS + frame[22:32]
            self.port.send(frame[6:12] + MAC + ARP + reply)
        elif kind == IP:
            self._ip(frame[6:12], frame[14:])

    def _ip(self, sender: bytes, packet: bytes) -> None:
        length = (packet[0] & 15) * 4
        size = int.from_bytes(packet[2:4], "big")
        if size > len(packet) or checksum(packet[:length]):
            self.bad += 1
            return
        protocol, source, target = packet[9], packet[12:16], packet[16:20]
        body = packet[length:size]
        if target != ADDRESS:
            return
        if protocol == 1 and body[:1] == b"\x08":
            self.bad += checksum(body) != 0
            self.pings += 1
            reply = bytearray(b"\0\0\0\0" + body[4:])
            reply[2:4] = checksum(bytes(reply)).to_bytes(2, "big")
            self._send(sender, 1, source, bytes(reply))
        elif protocol == 17 and body[2:4] == ECHO_PORT.to_bytes(2, "big"):
            pseudo = source + target + struct.pack(">HH", 17, len(body))
            self.bad += body[6:8] != b"\0\0" and checksum(pseudo + body) != 0
            reply = bytearray(body[2:4] + body[0:2] + body[4:6] + b"\0\0" + body[8:])
            pseudo = target + source + struct.pack(">HH", 17, len(reply))
            reply[6:8] = (checksum(pseudo + bytes(reply)) or 0xFFFF).to_bytes(2, "big")
            self._send(sender, 17, source, bytes(reply))

    def _send(self, mac: bytes, protocol: int, to: bytes, body: bytes) -> None:
        head = struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, ADDRESS, to
        )
        head = head[:10] + checksum(head).to_bytes(2, "big") + head[12:]
        self.port.send(mac + MAC + IP + head + body)
