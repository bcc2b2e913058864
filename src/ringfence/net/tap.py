"""A Linux TAP device as a wire (Linux, Documentation/networking/tuntap.rst)."""

import fcntl
import os
import struct

from ringfence.errors import NetworkError
from ringfence.net.descriptor import DescriptorPort

__all__ = ["TapPort"]

_CLONE = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_NAME_LENGTH = 15


class TapPort(DescriptorPort):
    """The far end of the host's network interface ``interface``.

    The interface must exist and be ours (``ip tuntap add NAME mode tap user USER``), or the
    process must have CAP_NET_ADMIN, which makes it for as long as the port lives.

    Raises:
        NetworkError: the interface can't be opened.
    """

    def __init__(self, interface: str) -> None:
        if not 0 < len(interface.encode()) <= _NAME_LENGTH or "/" in interface:
            raise NetworkError(f"net: {interface!r} is not the name of an interface")
        try:
            descriptor = os.open(_CLONE, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise NetworkError(f"net: {_CLONE}: {error.strerror}") from error
        request = struct.pack("16sH22x", interface.encode(), _IFF_TAP | _IFF_NO_PI)
        try:
            fcntl.ioctl(descriptor, _TUNSETIFF, request)
        except OSError as error:
            os.close(descriptor)
            raise NetworkError(
                f"net: the TAP interface {interface}: {error.strerror}; its owner makes it with "
                f"ip tuntap add {interface} mode tap user NAME"
            ) from error
        super().__init__(descriptor, f"tap:{interface}")
