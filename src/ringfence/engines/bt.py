"""The binary translator, from the compiled extension."""

from ringfence.engines.compiled import CompiledEngine

__all__ = ["BtEngine"]


class BtEngine(CompiledEngine):
    """Runs anywhere an x86-64 Linux process runs."""

    def __init__(self) -> None:
        super().__init__("bt")
