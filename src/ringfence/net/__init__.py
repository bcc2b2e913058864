"""Host ends of network cards: where frames go when they leave the machine."""

from ringfence.net.descriptor import DescriptorPort
from ringfence.net.queued import FrameQueue, Loopback, cable
from ringfence.net.sockets import from_descriptor, udp_port, unix_port
from ringfence.net.spec import NetSpec
from ringfence.net.tap import TapPort
from ringfence.net.vsock import UnixSocketHost

__all__ = [
    "DescriptorPort",
    "FrameQueue",
    "Loopback",
    "NetSpec",
    "TapPort",
    "UnixSocketHost",
    "cable",
    "from_descriptor",
    "udp_port",
    "unix_port",
]
