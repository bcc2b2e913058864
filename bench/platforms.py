"""Where work can run: the host itself, QEMU's translator, Ringfence."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, Self

from bench import work
from bench.agent import Agent, AgentError
from ringfence import engines, images
from ringfence.errors import RingfenceError

QEMU = "qemu-system-x86_64"
BOOT_TIMEOUT_SECONDS = 120.0
# Longer than any one workload takes under the slowest translator.
RUN_TIMEOUT_SECONDS = 120.0


class UnavailableError(Exception):
    """This platform is not on this host; the text says why."""


# What a platform can fail with once it is there.
FAILURES = (AgentError, RingfenceError, subprocess.SubprocessError, OSError)


class Platform(Protocol):
    """Something that runs shell lines; a context manager."""

    name: str

    def __enter__(self) -> Self:
        """Starts it."""

    def __exit__(self, *_: object) -> bool | None:
        """Ends it."""

    def run(self, command: str) -> str:
        """Standard output of a command that must succeed."""


class Native:
    """The host itself."""

    name = "native"

    def __init__(self, **_: Any) -> None:
        self._folder = str(work.program().parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, command: str) -> str:
        # The program has another name here than in the guest.
        line = f'work() {{ {work.program()} "$@"; }}; {command}'
        return subprocess.run(["sh", "-c", line], check=True, capture_output=True, text=True).stdout


class Qemu:
    """QEMU's translator (TCG): same kernel, initial RAM disk and command line as Ringfence."""

    name = "qemu-tcg"

    def __init__(
        self,
        image: images.Image,
        initrd: Path,
        memory: str = "512M",
        cpu: str = "max",
        more: Sequence[str] = (),
        **_: Any,
    ) -> None:
        if shutil.which(QEMU) is None:
            raise UnavailableError(f"{QEMU} is not installed")
        self._arguments = [
            *(QEMU, "-accel", "tcg", "-machine", "pc", "-cpu", cpu, "-m", memory),
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *("-kernel", str(image.kernel), "-initrd", str(initrd), "-append", image.append),
            *more,
        ]
        self._agent: Agent | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        folder = Path(self._folder.name)
        lines = [folder / f"serial{index}" for index in (1, 2, 3)]
        serials = [f"file:{folder / 'console'}"]
        serials += [f"unix:{line},server=on,wait=off" for line in lines]
        serial_arguments = [word for serial in serials for word in ("-serial", serial)]
        try:
            self._process = subprocess.Popen(
                [*self._arguments, *serial_arguments], stdin=subprocess.DEVNULL
            )
            self._agent = Agent(*(_connect(line, self._process) for line in lines))
            self._agent.wait_ready(BOOT_TIMEOUT_SECONDS)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            with suppress(OSError, AttributeError, subprocess.TimeoutExpired):
                assert self._agent is not None
                self._agent.halt()
                self._process.wait(10)
            self._process.kill()
            self._process.wait()
        if self._agent is not None:
            self._agent.close()
        self._folder.cleanup()

    @property
    def agent(self) -> Agent:
        """The guest's agent, while it runs."""
        assert self._agent is not None
        return self._agent

    def wait(self, timeout: float) -> int:
        """Waits for the guest to power off; QEMU's exit status."""
        assert self._process is not None
        return self._process.wait(timeout)

    def run(self, command: str) -> str:
        done = self.agent.run(command, RUN_TIMEOUT_SECONDS)
        if done.status:
            raise AgentError(f"{command}: status {done.status}: {done.stderr.decode()}")
        return done.stdout.decode()


class Ringfence:
    """Ringfence, through its Python API."""

    name = "ringfence"

    def __init__(
        self,
        image: images.Image,
        initrd: Path,
        memory: str = "512M",
        engine: str = "auto",
        disks: Sequence[str] = (),
        cpu: str = "host",
        board: str = "pc",
        **_: Any,
    ) -> None:
        try:
            from ringfence import VM, _core  # noqa: F401
        except ImportError as error:
            raise UnavailableError(f"Ringfence is not built: {error}") from error
        self._vm = VM(
            image.name,
            initrd=initrd,
            memory=memory,
            engine=engine,
            disks=disks,
            cpu=cpu,
            board=board,
        )

    def __enter__(self) -> Self:
        self._vm.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._vm.stop()

    def run(self, command: str) -> str:
        result = self._vm.run(command, timeout=RUN_TIMEOUT_SECONDS)
        result.check()
        return str(result.stdout)


class Kvm(Ringfence):
    """Ringfence on KVM, where the host's is worth it."""

    name = "kvm"

    def __init__(self, image: images.Image, initrd: Path, memory: str = "512M", **_: Any) -> None:
        known = engines.probe("kvm")
        if not known.available or not known.advised:
            raise UnavailableError(known.reason)
        super().__init__(image, initrd, memory, engine="kvm")


PLATFORMS = {platform.name: platform for platform in (Ringfence, Kvm, Qemu, Native)}


def check_names(chosen: Sequence[str]) -> None:
    """Raises ValueError for a platform that there is not."""
    for name in chosen:
        if name not in PLATFORMS:
            raise ValueError(f"no platform {name!r}: there are {', '.join(PLATFORMS)}")


def _connect(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    """QEMU makes its sockets a moment after it starts."""
    deadline = time.monotonic() + 10
    while True:
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.connect(str(path))
        except OSError as error:
            stream.close()
            if process.poll() is not None or time.monotonic() > deadline:
                raise AgentError(f"{QEMU} did not start") from error
            time.sleep(0.005)
        else:
            return stream
