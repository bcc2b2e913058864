"""Shared folder: the 9P transport (VIRTIO device 9; Linux, net/9p/trans_virtio.c).

A buffer holds a request and room for its reply. What is shared, and how, is the host end's.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, Self

from ringfence.bus import Chain
from ringfence.devices.pci.context import DeviceContext
from ringfence.devices.virtio.device import VirtioDevice
from ringfence.errors import ConfigError

__all__ = ["FolderPort", "Share"]

F_MOUNT_TAG = 1
_LONGEST_TAG = 64
_LARGEST = 1 << 20


class FolderPort(Protocol):
    """The host end of a shared folder."""

    def answer(self, request: bytes) -> bytes:
        """The reply to a 9P message."""

    def reset(self) -> None:
        """Forgets all that the guest had open."""


class Share(VirtioDevice):
    """The device.

    Args:
        port: The host end.
        tag: What the guest mounts it by.
        packed: Whether packed rings are offered.
    """

    DEVICE_ID: ClassVar[int] = 9
    CLASS_CODE: ClassVar[int] = 0x018000
    CONFIG_SIZE: ClassVar[int] = 2 + _LONGEST_TAG
    OPTIONS: ClassVar[Mapping[str, Callable[[str], Any]]] = {
        "path": str,
        "tag": str,
        "readonly": lambda text: text == "on",
    }

    def __init__(self, port: FolderPort, tag: str, *, packed: bool = False) -> None:
        super().__init__(F_MOUNT_TAG, [128], packed=packed)
        self._port = port
        self._tag = tag.encode()
        if not 0 < len(self._tag) <= _LONGEST_TAG:
            raise ConfigError(
                f"share: the tag {tag!r} is empty or longer than {_LONGEST_TAG} bytes"
            )

    @classmethod
    def build(cls, context: DeviceContext, **options: Any) -> Self:
        """A folder of the host: ``path``, ``tag``, ``readonly``."""
        path = options.pop("path", "")
        if not path:
            raise ConfigError("virtio-9p: path=FOLDER is missing")
        kind = "folder-readonly" if options.pop("readonly", False) else "folder"
        return cls(context.end(kind, path), options.pop("tag", "share"), **options)

    def config(self) -> bytes:
        """The mount tag."""
        return len(self._tag).to_bytes(2, "little") + self._tag.ljust(_LONGEST_TAG, b"\0")

    def stopped(self) -> None:
        """The guest that had files open is gone."""
        self._port.reset()

    def handle(self, index: int, chain: Chain) -> int | None:
        """Answers a request."""
        if chain.readable > _LARGEST:
            self.fail()
            return None
        return chain.write(0, self._port.answer(chain.read(0)))
