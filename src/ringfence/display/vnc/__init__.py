"""The remote framebuffer protocol (RFC 6143) and its extensions, served to any viewer."""

from ringfence.display.vnc.config import VncConfig
from ringfence.display.vnc.server import VncServer

__all__ = ["VncConfig", "VncServer"]
