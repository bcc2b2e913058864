"""A virtual machine as a Python program holds it."""

import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from ringfence.bus import PacketPort
from ringfence.chars import Console
from ringfence.config import DeviceConfig, DiskConfig, MachineConfig
from ringfence.errors import (
    ConfigError,
    EngineError,
    GuestTimeout,
    ImageCorrupt,
    ImageError,
    ImageNotFound,
    InitrdError,
    KernelError,
)
from ringfence.machine.agent import Agent, Completed, Process
from ringfence.machine.exit import MachineExit
from ringfence.machine.firmware import find_firmware
from ringfence.machine.input import Keyboard, Mouse
from ringfence.machine.machine import BootFiles, Machine, MachineState
from ringfence.machine.screen import Screen
from ringfence.units import GIB, format_size, parse_duration

if TYPE_CHECKING:
    from ringfence.display.record import Recorder
    from ringfence.display.vnc import VncConfig, VncServer
    from ringfence.engines import Engine
    from ringfence.images import Image

__all__ = ["VM"]

_DEFAULT_IMAGE = "debian"
_LARGEST_FILE = 2 * GIB
_SHELL = "ringfence.shell=1"


class VM:
    """A virtual machine; in a ``with`` statement it runs for as long as the block does.

    >>> with VM("debian", memory="512M") as vm:  # doctest: +SKIP
    ...     print(vm.run("uname -a").stdout)

    Args:
        image: Name of an image, fetched if it is not in the store. Without one, and without a
            ``kernel``, it is ``debian``.
        kernel: A kernel file to boot instead of the image's.
        initrd: An initial RAM disk instead of the image's.
        append: More for the kernel's command line.
        memory: Guest memory: bytes, or text like ``"512M"``.
        cpus: Virtual processors, 1 to 64.
        cpu: Model of the processors: ``model,+feature,-feature``, like ``"x86-64-v2"``.
        engine: ``auto`` or ``bt``.
        timeout: Stop the machine after this time: seconds, or text like ``"90s"``.
        on_reboot: ``restart`` or ``stop`` when the guest resets the machine.
        shell: Start a shell on the console; the machine powers off when it ends.
        keyboard: Whether there is a PS/2 keyboard controller.
        display: ``vga``, ``none``, or ``auto``: none where a kernel is booted directly.
        disks: Hard disks: a path or ``FILE[,readonly][,ephemeral][,if=ide]`` each, or
            :class:`~ringfence.config.DiskConfig`.
        cdroms: CD-ROM drives, each with the image in it; ``None`` is an empty drive.
        floppies: Floppy drives, the same.
        vnc: Serve the screen to VNC viewers: ``[HOST:]DISPLAY[,option...]``, like ``":1"``.
        name: Other processes of the user reach the machine by it (``ringfence screenshot``).
        keyboard_layout: The layout that the guest has its keyboard for: ``us``, ``uk``, ``de``...
        firmware: ``bios``, ``uefi`` or a file: boot from disks as a PC does.
        uefi_vars: File in which UEFI keeps its variables.
        boot: What firmware boots from, in order: ``"cdrom,disk"``.
        boot_menu: Whether firmware shows a menu of what to boot.
        devices: More devices: ``"NAME,option=value"`` each.
        board: ``pc`` for any system, ``q35`` with PCI Express, or ``micro``: virtio and no legacy
            devices.
        nets: Network cards, each ``HOST-END[,model=NAME][,mac=ADDRESS]``, like ``"tap:tap0"``.
        networks: Wires by name, whose other end the caller holds (``ringfence.net.cable()``);
            ``nets`` and ``devices`` name them.
        deterministic: Count time in executed instructions, so that every run is the same.
        seed: Where random numbers of a deterministic machine come from.
        pull: Whether to fetch an image that is not in the store.
        progress: Told how far the fetching of an image is (``ringfence.images.Progress``).

    Raises:
        ConfigError: an argument is not valid.
    """

    def __init__(
        self,
        image: str | None = None,
        *,
        kernel: str | Path | None = None,
        initrd: str | Path | None = None,
        append: str = "",
        memory: str | int = "512M",
        cpus: int = 1,
        cpu: str = "host",
        engine: str = "auto",
        timeout: str | float | None = None,
        on_reboot: str = "restart",
        shell: bool = False,
        keyboard: bool = True,
        display: str = "auto",
        keyboard_layout: str = "us",
        vnc: str | None = None,
        name: str | None = None,
        disks: Sequence[str | Path | DiskConfig] = (),
        cdroms: Sequence[str | Path | DiskConfig | None] = (),
        floppies: Sequence[str | Path | DiskConfig | None] = (),
        firmware: str | Path | None = None,
        uefi_vars: str | Path | None = None,
        boot: str | Sequence[str] = (),
        boot_menu: bool = False,
        devices: Sequence[str] = (),
        board: str = "pc",
        nets: Sequence[str] = (),
        networks: Mapping[str, PacketPort] | None = None,
        deterministic: bool = False,
        seed: int = 0,
        pull: bool = True,
        progress: Callable[[Any], None] | None = None,
    ) -> None:
        if not (image or kernel or firmware or disks or cdroms or floppies):
            image = _DEFAULT_IMAGE
        self.config = MachineConfig.from_mapping(
            {
                "image": image,
                "kernel": kernel,
                "initrd": initrd,
                "append": append,
                "memory": memory,
                "cpus": cpus,
                "cpu": cpu,
                "engine": engine,
                "timeout": timeout,
                "on_reboot": on_reboot,
                "shell": shell,
                "keyboard": keyboard,
                "display": display,
                "keyboard_layout": keyboard_layout,
                "vnc": vnc,
                "name": name,
                "disks": disks,
                "cdroms": cdroms,
                "floppies": floppies,
                "firmware": firmware,
                "uefi_vars": uefi_vars,
                "boot": boot,
                "boot_menu": boot_menu,
                "devices": devices,
                "board": board,
                "nets": nets,
                "deterministic": deterministic,
                "seed": seed,
            }
        )
        self._networks = networks
        self._pull = pull
        self._progress = progress
        self._machine: Machine | None = None
        self._agent: Agent | None = None
        self._opened: list[BinaryIO] = []
        self._ends: list[Callable[[], None]] = []
        self._recording: str | Path | Recorder | None = None

    def __repr__(self) -> str:
        config = self.config
        what = config.image or (config.kernel.name if config.kernel else config.firmware)
        engine = self._machine.engine if self._machine else config.engine
        cpus = f"{config.cpus} processor{'s' * (config.cpus > 1)}"
        return f"<VM {what}: {self.state}, {format_size(config.memory)}, {cpus}, engine {engine}>"

    def __enter__(self) -> Self:
        if self._machine is None:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, *, engine: "Engine | None" = None, profile: int = 0) -> Self:
        """Fetches what it boots, builds the machine and lets it run.

        Args:
            engine: An engine other than those Ringfence knows.
            profile: How often per second of processor time to look what it goes into, from the
                first instruction on; ``vm.machine.profile()`` tells.

        Raises:
            ImageError: the image or a file can't be read, or the kernel can't be loaded.
            ConfigError: the host can't run the processor model.
            EngineError: the engine can't run, or the machine was started before.
        """
        if self._machine is None:
            self.prepare(engine=engine)
        machine = self._require()
        if machine.state is not MachineState.CREATED:
            raise EngineError("the machine was started before; make a new one")
        try:
            if profile:
                machine.start_profile(profile)
            machine.start()
        except BaseException:
            self._machine = self._agent = None
            self._close_files()
            self._close_ends()
            raise
        return self

    def prepare(self, *, engine: "Engine | None" = None) -> Self:
        """Fetches what it boots, but does not start it: for :meth:`run_to` and :meth:`type_at`.

        Args:
            engine: An engine other than those Ringfence knows.

        Raises:
            ImageError: the image or a file can't be read.
            EngineError: the engine can't run, or the machine was started before.
        """
        if self._machine is not None:
            raise EngineError("the machine was started before; make a new one")
        try:
            machine = Machine(self.config, self._files(), engine=engine, networks=self._networks)
            agent = Agent(machine)
            self._open_ends(machine)
        except BaseException:
            self._close_files()
            self._close_ends()
            raise
        machine.at_end(self._close_files)
        machine.at_end(self._close_ends)
        self._machine, self._agent = machine, agent
        return self

    def run(
        self,
        command: str | Sequence[str],
        *,
        timeout: str | float | None = None,
        check: bool = False,
        stdout: Callable[[bytes], object] | None = None,
        stderr: Callable[[bytes], object] | None = None,
    ) -> Completed:
        """Runs a command in the guest and waits for its end.

        Args:
            command: A text for the guest's ``sh``, or a list of words that no shell touches.
            timeout: How long it may take, the guest's start included.
            check: Raise :class:`~ringfence.errors.CommandFailed` for a status other than 0.
            stdout: Gets standard output as it comes; then it is not in the result.
            stderr: The same for standard error.

        Raises:
            GuestTimeout: it did not end in time; it runs on in the guest.
            GuestOutOfMemory: the guest killed it for want of memory, or panicked for it.
            GuestPanic: the guest's kernel panicked meanwhile.
            GuestShutdown: a processor shut down meanwhile.
            GuestStopped: the machine ended before the command had.
        """
        limit = None if timeout is None else parse_duration(timeout)
        process = self.start_process(command, timeout=limit)
        completed = process.wait(limit, stdout=stdout, stderr=stderr)
        return completed.check() if check else completed

    def start_process(
        self, command: str | Sequence[str], *, timeout: str | float | None = None
    ) -> Process:
        """Starts a command in the guest; one runs at a time.

        Args:
            command: A text for the guest's ``sh``, or a list of words that no shell touches.
            timeout: How long to wait for the guest to be ready for it.

        Raises:
            GuestError: as for :meth:`run`.
        """
        if isinstance(command, str):
            shown = script = command
        else:
            from shlex import join

            shown = join(command)
            script = f"exec {shown}\n" if command else ""
        if "\0" in script:
            raise ConfigError("a command can't hold a zero byte")
        limit = None if timeout is None else parse_duration(timeout)
        self._require()
        assert self._agent is not None
        return self._agent.start(shown, script, limit)

    def wait(self, timeout: str | float | None = None) -> MachineExit:
        """Waits until the machine has ended by itself.

        Raises:
            GuestTimeout: it did not within ``timeout``, or its own time was over.
            GuestPanic: the guest's kernel panicked.
            GuestShutdown: a processor shut down.
            EngineError: the engine failed.
        """
        limit = None if timeout is None else parse_duration(timeout)
        machine = self._require()
        how = machine.join(limit)
        if how is None:
            raise GuestTimeout(
                f"the machine did not end within {limit:g} s", console=machine.console.tail()
            )
        error = how.error()
        if error is not None:
            raise error
        return how

    def stop(self) -> None:
        """Ends the machine at once, as if its plug was pulled; harmless when it has ended."""
        if self._machine is not None:
            self._machine.stop()

    def shutdown(self, timeout: str | float = 30.0) -> MachineExit:
        """Asks the guest to power off, by its agent or the power button, and waits for it.

        Raises:
            GuestTimeout: it did not; it runs on.
        """
        machine = self._require()
        assert self._agent is not None
        if not self._agent.halt():
            machine.power_button()
        return self.wait(timeout)

    def pause(self) -> None:
        """Stops the processors until :meth:`resume`."""
        self._require().pause()

    def resume(self) -> None:
        """Lets the processors go on."""
        self._require().resume()

    def reset(self) -> None:
        """Resets the machine, as its reset button would."""
        self._require().reset()

    def power_button(self) -> None:
        """Presses the power button: what follows is up to the guest."""
        self._require().power_button()

    def insert(self, drive: str, medium: str | Path | DiskConfig) -> None:
        """Puts a medium into a drive, ``cdrom0`` or ``floppy0``, in place of what is there.

        Raises:
            ConfigError: there is no such drive.
            ImageError: the medium can't be used.
        """
        self._require().insert(drive, DiskConfig.parse(medium))

    def eject(self, drive: str = "cdrom0", *, force: bool = False) -> bool:
        """Takes the medium out of a drive; an empty one stays as it is.

        A guest that has locked the drive is only asked, and false comes back; with ``force`` it
        is not asked.

        Raises:
            ConfigError: there is no such drive.
        """
        return self._require().eject(drive, force=force)

    def run_to(self, instructions: int) -> bool:
        """Lets a deterministic machine run, started or not, until it pauses at that number.

        Returns:
            Whether it did: otherwise it ended before.

        Raises:
            EngineError: the machine is not deterministic.
            ImageError: as for :meth:`start`.
        """
        if self._machine is None:
            self.prepare()
        return self._require().run_to(instructions)

    def type_at(self, instructions: int, text: bytes | str) -> None:
        """Types on the console of a deterministic machine at that number of instructions.

        Raises:
            EngineError: the machine is not deterministic.
            ImageError: as for :meth:`start`.
        """
        if self._machine is None:
            self.prepare()
        self._require().type_at(instructions, text)

    @property
    def instructions(self) -> int:
        """Instructions that a deterministic machine has executed since its start or reset."""
        return self._require().instructions

    def memory_hash(self) -> str:
        """SHA-256 of the memory of a machine that is paused, or was deterministic and has ended.

        Raises:
            EngineError: the machine is running, or its memory is gone.
        """
        return self._require().memory_hash()

    def resize(self, rows: int, columns: int) -> None:
        """Tells the guest the window size of its console."""
        self._require()
        assert self._agent is not None
        self._agent.resize(rows, columns)

    def serve_vnc(
        self, config: "VncConfig | str" = ":0", machine: Machine | None = None
    ) -> "VncServer":
        """Serves the screen to VNC viewers, until the machine ends or the server is closed.

        Args:
            config: Where and how: ``[HOST:]DISPLAY[,option...]``, or a ``VncConfig``.
            machine: The machine; by default the one that was started.

        Raises:
            ConfigError: it can't be served there, or something it needs is not installed.
        """
        from ringfence.display.source import Desk
        from ringfence.display.vnc import VncConfig, VncServer

        if isinstance(config, str):
            config = VncConfig.parse(config)
        served = machine or self._require()
        name = self.config.name or self.config.image or "ringfence"
        server = VncServer(
            config,
            Desk(served.screen, served.keyboard, served.mouse),
            served.hub,
            name=name,
            layout_name=self.config.keyboard_layout,
        )
        server.start()
        if machine is not None:
            self._ends.append(server.close)
        else:
            served.at_end(server.close)
        return server

    def record_screen(self, path: str | Path) -> "Recorder":
        """Records the screen to a ``.gif`` or, by ffmpeg, a ``.mp4``, until it is closed.

        Raises:
            ConfigError: there is no such format, or what encodes it is not installed.
            ImageError: the file can't be written.
        """
        from ringfence.display.record import Recorder

        return Recorder(self._require().hub, Path(path))

    def record_at_start(self, path: str | Path) -> None:
        """Records the screen from the start on, until :meth:`close_recording`."""
        self._recording = path

    def close_recording(self) -> None:
        """Ends the recording that began with the machine, if there is one.

        Raises:
            ImageError: the file could not be written.
        """
        recording, self._recording = self._recording, None
        if recording is not None and not isinstance(recording, str | Path):
            recording.close()

    @property
    def state(self) -> MachineState:
        """``created``, ``running``, ``paused`` or ``ended``."""
        return self._machine.state if self._machine else MachineState.CREATED

    @property
    def exit(self) -> MachineExit | None:
        """How the machine ended; ``None`` until then."""
        machine = self._machine
        return machine.exit if machine and machine.state is MachineState.ENDED else None

    @property
    def console(self) -> Console:
        """The console, COM1: kernel messages and, with ``shell``, a shell."""
        return Console(self._require().console)

    @property
    def screen(self) -> Screen:
        """The screen: its text, its picture, and waiting for either."""
        return self._require().screen

    @property
    def keyboard(self) -> Keyboard:
        """The keyboard."""
        return self._require().keyboard

    @property
    def mouse(self) -> Mouse:
        """The mouse, which machines with a display have."""
        return self._require().mouse

    @property
    def debug_console(self) -> Console:
        """What the guest writes to port E9h."""
        return Console(self._require().debug)

    @property
    def printer(self) -> Console:
        """What the guest prints on its parallel port, LPT1."""
        return Console(self._require().printer)

    @property
    def firmware_log(self) -> Console:
        """What firmware says of itself, at port 402h."""
        return Console(self._require().firmware_log)

    @property
    def machine(self) -> Machine:
        """The machine itself, for tools."""
        return self._require()

    def _require(self) -> Machine:
        if self._machine is None:
            raise EngineError("the machine was not started: use it in a with statement")
        return self._machine

    def _files(self) -> BootFiles:
        """Reads what the machine boots."""
        config = self.config
        if config.firmware is not None:
            firmware = find_firmware(config.firmware, config.uefi_vars, self._opened)
            return BootFiles(firmware=firmware)
        kernel, initrd, words = config.kernel, config.initrd, []
        extra: Callable[[], bytes] | None = None
        if config.image is not None:
            from ringfence import images

            if self._pull:
                image = images.ensure(config.image, progress=self._progress)
            else:
                image = images.resolve(config.image)
            if initrd is None and kernel is None:
                initrd, extra = image.initrd, self._drivers(image)
            kernel = kernel or image.kernel
            words.append(image.append)
        words.append(config.append)
        if config.shell:
            words.append(_SHELL)
        assert kernel is not None
        return BootFiles(
            kernel=self._open(kernel, "kernel", KernelError),
            initrd=None if initrd is None else self._initrd(initrd, extra),
            command_line=" ".join(word for word in words if word),
        )

    def _initrd(self, path: Path, extra: Callable[[], bytes] | None) -> Callable[[], bytes]:
        """The initial RAM disk, with what is appended to it."""
        read = self._open(path, "initial RAM disk", InitrdError)
        return read if extra is None else lambda: read() + extra()

    def _drivers(self, image: "Image") -> Callable[[], bytes] | None:
        """The modules that the machine's devices need, from the image."""
        from ringfence.images.modules import DRIVERS, add_modules

        config = self.config
        cards = (DeviceConfig.network(net).model for net in config.nets)
        models = {*cards, *(device.model for device in config.devices)}
        for medium in (*config.disks, *config.cdroms):
            hangs_on = {"auto": "ide", "virtio": "virtio-blk"}.get(medium.interface)
            models |= {hangs_on or medium.interface, "files"}
        models |= {"floppy", "files"} if config.floppies else set()
        micro = config.board == "micro"
        if micro and config.disks:
            models.add("virtio-blk")
        if micro and "e1000" in models:
            models.add("virtio-net")
        if not models & DRIVERS.keys() or not image.modules.exists():
            return None
        read = self._open(image.modules, "image's modules", ImageCorrupt)
        return lambda: add_modules(read(), models)

    def _open(self, path: Path, what: str, corrupt: type[ImageError]) -> Callable[[], bytes]:
        """Opens a file for the machine's life: a reset boots what the start did."""
        try:
            # Asked before it is opened: opening a pipe would wait for its writer.
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise corrupt(f"the {what} {path} is not a file")
            if status.st_size > _LARGEST_FILE:
                raise corrupt(f"the {what} {path} is larger than 2 GiB")
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            raise ImageNotFound(f"the {what} {path} does not exist") from None
        except OSError as error:
            raise ImageError(f"the {what} {path} can't be read: {error.strerror}") from error
        self._opened.append(file)

        def read() -> bytes:
            try:
                file.seek(0)
                return file.read(_LARGEST_FILE)
            except OSError as error:
                raise ImageError(f"the {what} {path} can't be read: {error.strerror}") from error

        return read

    def _open_ends(self, machine: Machine) -> None:
        """Opens the machine to those outside this process who are to reach it."""
        config = self.config
        if config.vnc is not None:
            from ringfence.display.vnc import VncConfig

            self.serve_vnc(VncConfig.parse(config.vnc), machine)
        if isinstance(self._recording, str | Path):
            from ringfence.display.record import Recorder

            self._recording = Recorder(machine.hub, Path(self._recording))
        if config.name is not None:
            from ringfence.machine.control import ControlSocket

            self._ends.append(ControlSocket(config.name, machine.screen).close)

    def _close_ends(self) -> None:
        while self._ends:
            self._ends.pop()()

    def _close_files(self) -> None:
        while self._opened:
            self._opened.pop().close()
