"""The transmit side of the 82540EM: descriptors, checksum insertion, TCP segmentation.

Source: 8254x software developer's manual, sections 3.3 to 3.5.
"""

from collections.abc import Callable

from ringfence.devices.net.frames import fold, ones_sum

__all__ = ["Context", "Transmitter"]

_SIZE = 16
# Command bits of a descriptor.
EOP, IFCS, IC_OR_TSE, RS, RPS, DEXT, VLE = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
_TYPE_DATA = 1
# Bits of a context's command (TUCMD) and of a packet's options (POPTS).
TUCMD_TCP, TUCMD_IP, TUCMD_TSE = 1, 2, 4
POPTS_IXSM, POPTS_TXSM = 1, 2
DD = 1
#: The largest frame without segmentation (3.3.3), and with it.
LARGEST, LARGEST_SEGMENTED = 16288, 1 << 18
_VLAN_AT = 12
_TCP_FLAGS, _TCP_FIN_PSH = 13, 0x09
_MINIMUM_TCP = 20


class Context:
    """What a context descriptor sets for the data descriptors that follow (3.3.6)."""

    FIELDS = ("ipcss", "ipcso", "ipcse", "tucss", "tucso", "tucse", "paylen", "tucmd", "hdrlen")

    def __init__(self, raw: bytes = bytes(_SIZE)) -> None:
        self.raw = raw
        self.ipcss, self.ipcso = raw[0], raw[1]
        self.ipcse = int.from_bytes(raw[2:4], "little")
        self.tucss, self.tucso = raw[4], raw[5]
        self.tucse = int.from_bytes(raw[6:8], "little")
        self.tucmd = raw[11]
        self.header = raw[13]
        self.mss = int.from_bytes(raw[14:16], "little")


class Transmitter:
    """Gathers frames from descriptors.

    Args:
        dma_read: Reads guest memory.
        dma_write: Writes it.
        send: Takes a finished frame.
    """

    def __init__(
        self,
        dma_read: Callable[[int, int], bytes],
        dma_write: Callable[[int, bytes], None],
        send: Callable[[bytes], None],
    ) -> None:
        self._read, self._write, self._send = dma_read, dma_write, send
        self.context = Context()
        self.frame = bytearray()
        #: Of the first descriptor of a frame: options, segmentation, VLAN tag to insert.
        self.options = 0
        self.segment = False
        self.tag = -1
        self.segmented = 0

    def reset(self) -> None:
        """Forgets what it has of a frame."""
        self.context = Context()
        self._begin()

    def descriptor(self, address: int, *, ethertype: int, vlan: bool) -> bool:
        """Processes the descriptor at ``address``; true when it asks for a report.

        Args:
            address: Where it is.
            ethertype: What VLAN tags begin with (VET).
            vlan: Whether tags are inserted at all (CTRL.VME).
        """
        raw = self._read(address, _SIZE)
        command, status = raw[11], raw[12]
        report = bool(command & (RS | RPS))
        if command & DEXT and raw[10] >> 4 != _TYPE_DATA:
            self.context = Context(raw)
        else:
            self._data(raw, ethertype, vlan)
        if report:
            self._write(address + 12, bytes((status | DD,)))
        return report

    def _begin(self) -> None:
        self.frame.clear()
        self.options, self.segment, self.tag = 0, False, -1

    def _data(self, raw: bytes, ethertype: int, vlan: bool) -> None:
        buffer = int.from_bytes(raw[:8], "little")
        command = raw[11]
        extended = bool(command & DEXT)
        length = int.from_bytes(raw[8:11], "little") & 0xFFFFF if extended else raw[8] | raw[9] << 8
        if not self.frame:
            self.segment = extended and bool(command & IC_OR_TSE)
            self.options = raw[13] if extended else 0
        limit = LARGEST_SEGMENTED if self.segment else LARGEST
        # One byte too many marks a frame that is too long; the rest is not worth reading.
        length = min(length, limit + 1 - len(self.frame))
        if length:
            self.frame += self._read(buffer, length)
        if not command & EOP:
            return
        if command & VLE and vlan:
            self.tag = raw[14] << 8 | raw[15]
            self.tag = int.from_bytes(raw[14:16], "little")
        frame = self.frame
        if 14 <= len(frame) <= limit:
            if self.segment:
                self._send_segments(frame, ethertype)
            else:
                if extended:
                    self._insert(frame)
                elif command & IC_OR_TSE:
                    _put_sum(frame, raw[13], raw[10], 0)
                self._emit(bytes(frame), ethertype)
        self._begin()

    def _emit(self, frame: bytes, ethertype: int) -> None:
        if self.tag >= 0:
            head = ethertype.to_bytes(2, "big") + self.tag.to_bytes(2, "big")
            frame = frame[:_VLAN_AT] + head + frame[_VLAN_AT:]
        self._send(frame)

    def _insert(self, frame: bytearray) -> None:
        context = self.context
        # TCP first: the IP header is not part of its sum.
        if self.options & POPTS_TXSM:
            _put_sum(frame, context.tucss, context.tucso, context.tucse)
        if self.options & POPTS_IXSM:
            _put_sum(frame, context.ipcss, context.ipcso, context.ipcse)

    def _send_segments(self, frame: bytearray, ethertype: int) -> None:
        """Cuts a large frame into segments of MSS bytes (3.5)."""
        context = self.context
        head, mss, ip, transport = context.header, context.mss, context.ipcss, context.tucss
        tcp = bool(context.tucmd & TUCMD_TCP)
        if not mss or not head < len(frame) or transport + (_MINIMUM_TCP if tcp else 8) > head:
            return
        if ip + (20 if context.tucmd & TUCMD_IP else 40) > transport:
            return
        payload = memoryview(bytes(frame[head:]))
        header = bytes(frame[:head])
        total = len(payload)
        for number, at in enumerate(range(0, total, mss)):
            part = payload[at : at + mss]
            segment = bytearray(header)
            segment += part
            self._fix_headers(segment, number, at, last=at + len(part) == total)
            self._insert(segment)
            self._emit(bytes(segment), ethertype)
        self.segmented += 1

    def _fix_headers(self, segment: bytearray, number: int, at: int, *, last: bool) -> None:
        context = self.context
        ip, transport = context.ipcss, context.tucss
        if context.tucmd & TUCMD_IP:
            _put16(segment, ip + 2, len(segment) - ip)
            _put16(segment, ip + 4, _get16(segment, ip + 4) + number)
        else:
            _put16(segment, ip + 4, len(segment) - ip - 40)
        length = len(segment) - transport
        if context.tucmd & TUCMD_TCP:
            sequence = int.from_bytes(segment[transport + 4 : transport + 8], "big") + at
            segment[transport + 4 : transport + 8] = (sequence & 0xFFFFFFFF).to_bytes(4, "big")
            if not last:
                segment[transport + _TCP_FLAGS] &= ~_TCP_FIN_PSH & 0xFF
        else:
            _put16(segment, transport + 4, length)
        if self.options & POPTS_TXSM and context.tucso + 2 <= len(segment):
            # The driver left the sum of the pseudo header, to which the length still belongs.
            start = _get16(segment, context.tucso)
            _put16(segment, context.tucso, ones_sum(length.to_bytes(4, "big"), start))


def _put_sum(frame: bytearray, start: int, offset: int, end: int) -> None:
    """Stores the checksum of ``start`` to ``end`` (0: all; the byte itself included)."""
    stop = end + 1 if end else len(frame)
    if start >= len(frame) or offset + 2 > len(frame) or offset < start:
        return
    total = ones_sum(memoryview(frame)[start:stop])
    _put16(frame, offset, fold(total))


def _get16(data: bytearray, at: int) -> int:
    return data[at] << 8 | data[at + 1]


def _put16(data: bytearray, at: int, value: int) -> None:
    data[at], data[at + 1] = value >> 8 & 0xFF, value & 0xFF
