"""Every error that Ringfence raises on purpose.

::

    RingfenceError              anything below; catch this one
    ├── ConfigError             the description of the machine is not valid
    │   └── OverlapError        two devices claim the same address
    ├── StateError              a saved device state can't be restored
    ├── ImageError              something is wrong with an image
    │   ├── ImageNotFound       no image or file of that name
    │   ├── ImageInUse          another machine or program has it open
    │   ├── ImageDenied         permissions or the file system forbid its use
    │   └── ImageCorrupt        an image or a file in it is damaged
    │       ├── KernelError     this kernel can't be loaded
    │       └── InitrdError     this initial RAM disk can't be loaded
    ├── NetworkError            the host end of a network card can't be opened
    ├── EngineError             the engine can't run, or failed
    │   └── EmulationError      the guest did what the engine can't
    └── GuestError              the guest did something its user should know
        ├── GuestPanic          its kernel panicked
        │   └── GuestOutOfMemory    for want of memory (or a command was killed for it)
        ├── GuestShutdown       its processor shut down: a triple fault
        ├── GuestStopped        it ended before the command had finished
        ├── GuestTimeout        it did not do in time what was waited for
        └── CommandFailed       a checked command ended with a status other than 0

Each class has a stable ``code`` for programs and an ``exit_status`` for the command line. The
exit statuses of guest errors lie between 120 and 125, where commands seldom put theirs (124 is
what ``timeout(1)`` uses).
"""

from collections.abc import Mapping, Sequence

__all__ = [
    "CommandFailed",
    "ConfigError",
    "EmulationError",
    "EngineError",
    "GuestError",
    "GuestOutOfMemory",
    "GuestPanic",
    "GuestShutdown",
    "GuestStopped",
    "GuestTimeout",
    "ImageCorrupt",
    "ImageDenied",
    "ImageError",
    "ImageInUse",
    "ImageNotFound",
    "InitrdError",
    "KernelError",
    "NetworkError",
    "OverlapError",
    "RingfenceError",
    "StateError",
]


class RingfenceError(Exception):
    """Base of all errors of this package."""

    code = "error"
    exit_status = 125


class ConfigError(RingfenceError, ValueError):
    """The description of the machine is not valid; the text says what and what would be."""

    code = "config-invalid"
    exit_status = 2


class OverlapError(ConfigError):
    """Two devices claim the same port, address or name."""

    code = "config-overlap"


class StateError(RingfenceError, ValueError):
    """A saved state does not fit the device that it is restored into."""

    code = "state-invalid"
    exit_status = 65


class ImageError(RingfenceError):
    """Something is wrong with an image."""

    code = "image-error"
    exit_status = 66


class ImageNotFound(ImageError):  # noqa: N818 - reads as what happened
    """There is no image or file of that name."""

    code = "image-not-found"
    exit_status = 66


class ImageInUse(ImageError):  # noqa: N818
    """Another machine or program has the image open, and one of both would write to it."""

    code = "image-in-use"
    exit_status = 66


class ImageDenied(ImageError):  # noqa: N818
    """The permissions of an image, or its file system, forbid what was asked for."""

    code = "image-denied"
    exit_status = 77


class ImageCorrupt(ImageError):  # noqa: N818
    """An image, or a file in it, is damaged."""

    code = "image-corrupt"
    exit_status = 65


class KernelError(ImageCorrupt):
    """This kernel can't be loaded: damaged, of an unknown format, or too big for the memory."""

    code = "kernel-invalid"


class InitrdError(ImageCorrupt):
    """This initial RAM disk can't be loaded."""

    code = "initrd-invalid"


class NetworkError(RingfenceError):
    """The host end of a network card can't be opened; the text says what would help."""

    code = "network-failed"
    exit_status = 69


class _WithProcessor:
    """The state of a processor that could not go on."""

    registers: dict[str, int]
    system_registers: dict[str, object]
    disassembly: list[str]

    def _keep(
        self,
        registers: Mapping[str, int] | None,
        system_registers: Mapping[str, object] | None,
        disassembly: Sequence[str],
    ) -> None:
        self.registers = dict(registers or {})
        self.system_registers = dict(system_registers or {})
        self.disassembly = list(disassembly)

    def report(self) -> str:
        """The processor's state and its last instructions, to print."""
        lines: list[str] = []
        values = [f"{name:>6}={value:016x}" for name, value in self.registers.items()]
        lines += [" ".join(values[i : i + 4]) for i in range(0, len(values), 4)]
        plain = [
            f"{name:>6}={value:016x}"
            for name, value in self.system_registers.items()
            if isinstance(value, int)
        ]
        lines += [" ".join(plain[i : i + 4]) for i in range(0, len(plain), 4)]
        for name, value in self.system_registers.items():
            if isinstance(value, Mapping):
                parts = " ".join(f"{k}={v:x}" for k, v in value.items() if isinstance(v, int))
                lines.append(f"{name:>6}: {parts}")
        if self.disassembly:
            lines.append("last instructions:")
            lines += [f"  {line}" for line in self.disassembly]
        return "\n".join(lines)


class EngineError(RingfenceError):
    """The engine can't run on this host, or met a defect of its own."""

    code = "engine-failed"
    exit_status = 70


class EmulationError(_WithProcessor, EngineError):
    """The guest did what the engine can't: an instruction that it lacks, in a state that it lacks.

    ``registers`` and ``system_registers`` hold the processor's state by name, ``disassembly`` the
    last instructions, newest last. The text names the instruction.
    """

    code = "emulation-failed"

    def __init__(
        self,
        message: str,
        *,
        registers: Mapping[str, int] | None = None,
        system_registers: Mapping[str, object] | None = None,
        disassembly: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self._keep(registers, system_registers, disassembly)


class GuestError(RingfenceError):
    """The guest ended, or behaved, in a way its user should know.

    ``console`` holds the last lines that the guest wrote to its console.
    """

    code = "guest-error"
    exit_status = 125

    def __init__(self, message: str, *, console: str = "") -> None:
        super().__init__(message)
        self.console = console


class GuestPanic(GuestError):  # noqa: N818
    """The guest's kernel panicked; the message is the kernel's."""

    code = "guest-panic"
    exit_status = 120


class GuestOutOfMemory(GuestPanic):
    """The guest ran out of memory: its kernel panicked for it, or killed the command."""

    code = "guest-out-of-memory"
    exit_status = 122


class GuestShutdown(_WithProcessor, GuestError):  # noqa: N818
    """A processor of the guest shut down after a triple fault (SDM vol. 3A, 6.15).

    ``registers`` and ``system_registers`` hold its state by name, ``disassembly`` the last
    instructions, newest last.
    """

    code = "guest-shutdown"
    exit_status = 121

    def __init__(
        self,
        message: str,
        *,
        console: str = "",
        registers: Mapping[str, int] | None = None,
        system_registers: Mapping[str, object] | None = None,
        disassembly: Sequence[str] = (),
    ) -> None:
        super().__init__(message, console=console)
        self._keep(registers, system_registers, disassembly)


class GuestStopped(GuestError):  # noqa: N818
    """The machine ended before the command had finished."""

    code = "guest-stopped"
    exit_status = 123


class GuestTimeout(GuestError):  # noqa: N818
    """The guest did not do in time what was waited for."""

    code = "guest-timeout"
    exit_status = 124


class CommandFailed(GuestError):  # noqa: N818
    """A command that had to succeed ended with another status than 0.

    ``status`` is the command's exit status, ``stderr`` the end of what it said.
    """

    code = "command-failed"
    exit_status = 1

    def __init__(self, message: str, *, status: int, stderr: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.stderr = stderr
