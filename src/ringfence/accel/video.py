"""Memory of a VGA, and pictures of it (``crates/chips/src/vga``)."""

from ringfence._core import Picture, Video

__all__ = ["Picture", "Video"]
