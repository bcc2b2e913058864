"""What the engines of the compiled extension have in common."""

from typing import Any

from ringfence import _core
from ringfence.engines.contract import EngineMachine, EngineMemory, ExitKinds
from ringfence.errors import ConfigError, EngineError

__all__ = ["CompiledEngine"]


class CompiledEngine:
    """An engine of ``ringfence._core``.

    Args:
        name: Which: ``bt`` or ``kvm``.
        options: What its machines are made with.
    """

    error: type[Exception] = _core.CoreError
    exits = ExitKinds(
        port_in=_core.PortIn,
        port_out=_core.PortOut,
        port_in_string=_core.PortInString,
        port_out_string=_core.PortOutString,
        mmio_read=_core.MmioRead,
        mmio_write=_core.MmioWrite,
        halt=_core.Halt,
        shutdown=_core.Shutdown,
        hypercall=_core.Hypercall,
        debug=_core.Debug,
        interrupted=_core.Interrupted,
    )

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self.options = options

    def create_memory(self, size: int) -> EngineMemory:
        """Makes memory of whole pages, zeroed, to be mapped.

        Raises:
            EngineError: the host refuses.
        """
        try:
            return _core.Memory(size)
        except _core.CoreError as error:
            raise EngineError(f"{size} bytes of guest memory can't be had: {error}") from error

    def create_machine(
        self, vcpus: int, *, cpu: str = "host", seed: int | None = None
    ) -> EngineMachine:
        """Makes a machine without memory, its processors of the model ``cpu``.

        With a ``seed`` it is deterministic.

        Raises:
            ConfigError: there is no such model, or the host can't run it.
            EngineError: the host refuses.
        """
        try:
            return _core.Machine(self.name, vcpus=vcpus, cpu=cpu, seed=seed, **self.options)
        except _core.CoreError as error:
            if error.code == "cpu_model":
                raise ConfigError(f"cpu: {error}") from error
            raise EngineError(f"the engine {self.name} can't be used: {error}") from error
