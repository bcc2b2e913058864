"""A serial line with nothing at its end."""

from collections.abc import Callable

__all__ = ["NullPort"]


class NullPort:
    """Drops what the guest sends and never sends anything."""

    def write(self, data: bytes) -> None:
        """Drops ``data``."""

    def read(self, limit: int) -> bytes:  # noqa: ARG002 - the contract's signature
        """Nothing."""
        return b""

    def on_input(self, callback: Callable[[], None]) -> None:
        """Forgets ``callback``: there is never input."""
