"""A virtual machine from its making to its end.

::

    created ── start ──> running <── pause / resume ──> paused
                            │  ↺ reset by the guest: memory and processors are made anew
                            └── power-off, panic, triple fault, stop, time-out ──> ended

Host ends (serial lines) live as long as the machine; engine, board and threads as long as a boot.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import starmap
from threading import Condition, RLock, Timer, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from ringfence.boards import FirmwareImage, HostEnds, Pc
from ringfence.bus import PacketPort
from ringfence.bus.screen import Canvas, Surface
from ringfence.chars import Stream
from ringfence.config import DeviceConfig, DiskConfig, MachineConfig
from ringfence.devices.input.i8042 import I8042
from ringfence.display.hub import ScreenHub
from ringfence.engines import Engine, EngineMachine, EngineVcpu, pick
from ringfence.errors import EngineError
from ringfence.machine.clock import CountedClock, MachineClock
from ringfence.machine.determinism import Counting, Stops, memory_hash
from ringfence.machine.ends import HostEndTable
from ringfence.machine.exit import ExitReason, MachineExit
from ringfence.machine.input import Keyboard, Mouse
from ringfence.machine.media import Media
from ringfence.machine.memory import GuestMemory, Ram
from ringfence.machine.processors import Processors
from ringfence.machine.screen import Screen
from ringfence.machine.vgabios import vga_bios
from ringfence.machine.watch import ConsoleWatch
from ringfence.machine.workers import DiskWorkers
from ringfence.units import NANOSECONDS

if TYPE_CHECKING:
    from ringfence.accel.virtqueue import MachineQueues
    from ringfence.boards import Micro

__all__ = ["BootFiles", "Machine", "MachineState"]

# How long a panicked kernel may go on printing, in nanoseconds.
_PANIC_GRACE = NANOSECONDS // 2


class MachineState(StrEnum):
    """The states of a machine."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What a machine boots. Files are read at each boot, for their bytes are many and seldom used.

    Raises:
        ImageError: by the calls, when a file can't be read.
    """

    kernel: Callable[[], bytes] | None = None
    initrd: Callable[[], bytes] | None = None
    command_line: str = ""
    #: Instead of a kernel.
    firmware: Callable[[], FirmwareImage] | None = None


@dataclass(slots=True)
class _Boot:
    """Everything that a reset makes anew."""

    engine: EngineMachine
    vcpus: list[EngineVcpu]
    clock: MachineClock | CountedClock
    board: "Pc | Micro"
    memory: GuestMemory
    queues: "MachineQueues"
    processors: Processors
    #: Of a deterministic machine.
    counting: Counting | None = None
    #: Ends the machine in the host's time, where the clock is another.
    alarm: Timer | None = None


class Machine:
    """One virtual machine.

    Args:
        config: Its description.
        files: What it boots.
        engine: What runs it; by default what the description names.
        networks: Wires by name, whose other end the caller holds; network cards name them.

    Attributes:
        screen, keyboard, mouse: What a person would have before them.
        hub: The picture, for viewers.
        console: COM1.
        control: COM2, ``stdout``: COM3, ``stderr``: COM4: the lines of the guest agent.
        debug: The console at port E9h.
        firmware_log: What firmware says of itself, at port 402h.
        printer: What the guest prints on LPT1.
        exit: How the machine ended; ``None`` until then.
    """

    def __init__(
        self,
        config: MachineConfig,
        files: BootFiles,
        *,
        engine: Engine | None = None,
        networks: Mapping[str, PacketPort] | None = None,
    ) -> None:
        self.config = config
        self.console = Stream("console")
        self.control = Stream("control", limit=1 << 16)
        self.stdout = Stream("stdout", limit=None)
        self.stderr = Stream("stderr", limit=None)
        self.debug = Stream("debug", limit=1 << 16)
        self.firmware_log = Stream("firmware log", limit=1 << 16)
        self.printer = Stream("printer", limit=1 << 20)
        self.exit: MachineExit | None = None
        self._files = files
        # The clock that a guest on `micro` needs is bt's.
        on_bt = config.deterministic or (config.board, config.engine) == ("micro", "auto")
        wanted = "bt" if on_bt else config.engine
        self._engine = engine or pick(wanted)
        self._lock = RLock()
        self._ends = HostEndTable(self._lock, networks or {})
        self._changed = Condition(self._lock)
        self._state = MachineState.CREATED
        self._deadline: float | None = None
        self._stops = Stops()
        self._restart = False
        self._boots = 0
        self._watch = ConsoleWatch(self._panicked, self._panic_finished)
        self.console.listen(self._watch.feed)
        self._boot: _Boot | None = None
        self._workers = DiskWorkers(self._lock, self._failed)
        self._media: Media | None = None
        self.screen = Screen(
            self._lock,
            self._surface,
            _new_canvas,
            ended=lambda: self._state is MachineState.ENDED,
            console=self.console.tail,
        )
        self.hub = ScreenHub(self.screen)
        self.keyboard = Keyboard(self._lock, self._i8042, config.keyboard_layout)
        self.mouse = Mouse(self._lock, self._i8042)
        self._statistics: list[dict[str, int]] = []
        self._profile_hertz = 0
        self._at_end: list[Callable[[], None]] = []
        self._at_reset: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Machine {self._state} on {self._engine.name}, {self.config.cpus} processors>"

    @property
    def state(self) -> MachineState:
        """Where in its life the machine is."""
        return self._state

    @property
    def engine(self) -> str:
        """Name of the engine."""
        return self._engine.name

    @property
    def boots(self) -> int:
        """How often the guest was started: once, and once more for each reset."""
        return self._boots

    @property
    def memory_kills(self) -> int:
        """How many processes the guest's kernel has killed for want of memory."""
        return self._watch.kills

    @property
    def board(self) -> "Pc | Micro | None":
        """The devices of the current boot."""
        return self._boot.board if self._boot else None

    def start(self) -> None:
        """Builds the machine and lets it run.

        Raises:
            EngineError: the engine can't run, or the machine was started before.
            KernelError: the kernel can't be loaded.
            InitrdError: the initial RAM disk can't be loaded.
            ImageError: a disk can't be used.
        """
        with self._lock:
            if self._state is not MachineState.CREATED:
                raise EngineError(f"the machine can't be started: it is {self._state}")
            if self.config.timeout is not None:
                self._deadline = monotonic() + self.config.timeout
            self._media = Media(self.config)
            try:
                self._start_boot()
            except BaseException:
                self._media.close()
                raise
            self._state = MachineState.RUNNING

    def pause(self) -> None:
        """Stops the processors until :meth:`resume`; the guest's clock goes on."""
        with self._lock:
            if self._state is not MachineState.RUNNING or self._boot is None:
                return
            self._state = MachineState.PAUSED
            self._boot.processors.pause()
            self._changed.notify_all()

    def resume(self) -> None:
        """Lets the processors go on."""
        with self._lock:
            if self._state is MachineState.PAUSED and self._boot is not None:
                self._state = MachineState.RUNNING
                self._boot.processors.resume()

    def stop(self, timeout: float | None = 10.0) -> None:
        """Ends the machine at once, as if its plug was pulled; harmless when it has ended."""
        with self._lock:
            self.finish(MachineExit(ExitReason.STOPPED))
        if not self._is_own_thread():
            self.join(timeout)

    def power_button(self) -> None:
        """Presses the power button: what follows is up to the guest."""
        with self._lock:
            if self._boot is not None:
                self._boot.board.pm.press_power_button()

    def reset(self) -> None:
        """Resets the machine, as its reset button would."""
        with self._lock:
            if self._boot is not None and self._state is not MachineState.ENDED:
                self._reset()

    def join(self, timeout: float | None = None) -> MachineExit | None:
        """Waits until the machine has ended; ``None`` when ``timeout`` seconds were over first."""
        with self._lock:
            self._changed.wait_for(lambda: self._state is MachineState.ENDED, timeout)
            return self.exit if self._state is MachineState.ENDED else None

    def finish(self, how: MachineExit) -> None:
        """Makes the machine end for the given reason; the first reason stays."""
        with self._lock:
            if self.exit is not None or self._state is MachineState.ENDED:
                return
            if self._boot is not None:
                self._boot.board.flush()
            # Flushing may have shown a panic, which then is the reason.
            if self.exit is None:
                self.exit = self._with_console(how)
            self._restart = False
            if self._boot is None:
                self._end()
            else:
                self._boot.processors.leave()

    @property
    def instructions(self) -> int:
        """Instructions that a deterministic machine has executed since its start or reset."""
        with self._lock:
            if self._boot is not None:
                return self._boot.engine.instructions
            return self._stops.last[0] if self._stops.last else 0

    @property
    def nanoseconds(self) -> int:
        """Time since the machine's start or reset on its own clock; 0 when it has ended."""
        with self._lock:
            return self._boot.engine.nanoseconds if self._boot is not None else 0

    def run_to(self, instructions: int) -> bool:
        """Starts or resumes a deterministic machine, and waits until it pauses at that number.

        Returns:
            Whether it did: otherwise it ended before, or was paused by someone else.

        Raises:
            EngineError: the machine is not deterministic.
        """
        with self._lock:
            self._require_counting()
            if self.instructions < instructions:
                self._stops.pause_at = instructions
                if self._state is MachineState.CREATED:
                    self.start()
                elif self._boot is not None and self._boot.counting is not None:
                    self._boot.counting.update()
                    self.resume()
                self._changed.wait_for(lambda: self._state is not MachineState.RUNNING)
            return self._state is MachineState.PAUSED and self.instructions == instructions

    def type_at(self, instructions: int, text: bytes | str) -> None:
        """Types on the console of a deterministic machine at that number of instructions.

        Raises:
            EngineError: the machine is not deterministic.
        """
        with self._lock:
            self._require_counting()
            self._stops.add_input(instructions, lambda: self.console.send(text))
            if self._boot is not None and self._boot.counting is not None:
                self._boot.counting.update()

    def memory_hash(self) -> str:
        """SHA-256 of the memory of a machine that is paused, or was deterministic and has ended.

        It covers address and content of each mebibyte that is not all zeros.

        Raises:
            EngineError: the machine is running, or its memory is gone.
        """
        with self._lock:
            if self._boot is not None and self._state is MachineState.PAUSED:
                return memory_hash(self._boot.memory.contents())
            if self._state is MachineState.ENDED and self._stops.last:
                return self._stops.last[1]
        raise EngineError(f"memory can't be hashed: the machine is {self._state}; pause it")

    @property
    def processor(self) -> EngineVcpu | None:
        """The first processor of a paused machine, for debugging tools."""
        with self._lock:
            paused = self._boot is not None and self._state is MachineState.PAUSED
            return self._boot.vcpus[0] if self._boot is not None and paused else None

    def memory(self) -> Iterator[tuple[int, memoryview]]:
        """Guest memory of a machine that is paused, by address, in pieces of at most 1 MiB.

        Raises:
            EngineError: it has no memory yet, or no more.
        """
        with self._lock:
            if self._boot is None:
                raise EngineError("the machine has no memory: it is not running")
            return self._boot.memory.contents()

    def statistics(self) -> list[dict[str, int]]:
        """Counters of the engine, per processor, as of the last pause or the end."""
        with self._lock:
            if self._state is MachineState.PAUSED and self._boot is not None:
                self._statistics = [dict(vcpu.statistics()) for vcpu in self._boot.vcpus]
            return self._statistics

    def insert(self, drive: str, medium: DiskConfig) -> None:
        """Puts a medium into a drive, in place of the one that is there.

        Raises:
            ConfigError: there is no such drive.
            ImageError: the medium can't be used.
            EngineError: the machine is not running.
        """
        with self._lock:
            if self._boot is None or self._media is None:
                raise EngineError(f"there is no drive: the machine is {self._state}")
            name = self._media.removable(drive)
            image = self._media.open(name, medium)
            drives = self._boot.board.drives
            drives.insert(name, None)
            self._media.change(name, image)
            if image is not None:
                drives.insert(name, self._media.queue(name, self._workers))

    def eject(self, drive: str, *, force: bool = False) -> bool:
        """Presses the eject button of a drive.

        A guest that has locked the drive is asked instead, and false comes back; with ``force``
        the medium is taken out nevertheless.

        Raises:
            ConfigError: there is no such drive.
            EngineError: the machine is not running.
        """
        with self._lock:
            if self._boot is None or self._media is None:
                raise EngineError(f"there is no drive: the machine is {self._state}")
            name = self._media.removable(drive)
            drives = self._boot.board.drives
            if not drives.press_eject(name) and not force:
                return False
            drives.insert(name, None)
            self._media.change(name, None)
            return True

    def start_profile(self, hertz: int = 1000) -> None:
        """Counts ``hertz`` times per second of processor time what it goes into; 0 stops.

        Before :meth:`start`, it takes effect with the first instruction.
        """
        with self._lock:
            self._profile_hertz = hertz
        with self._stopped() as vcpus:
            for vcpu in vcpus:
                vcpu.start_profile(hertz)

    def profile(self, most: int = 0) -> list[dict[str, Any]]:
        """What was counted, per processor: ``phases``, and the ``most`` hottest ``blocks``."""
        with self._stopped() as vcpus:
            return [vcpu.profile(most) for vcpu in vcpus]

    @contextmanager
    def _stopped(self) -> Iterator[list[EngineVcpu]]:
        """The processors, for a moment at rest."""
        paused = self._state is MachineState.PAUSED
        self.pause()
        try:
            with self._lock:
                yield self._boot.vcpus if self._boot else []
        finally:
            if not paused:
                self.resume()

    def flush(self) -> None:
        """Brings all that the guest has sent to the host ends."""
        with self._lock:
            if self._boot is not None:
                self._boot.board.flush()

    def stream(self, name: str) -> Stream:
        """The host end of a port that a device names: ``virtio-console,ports=NAME``."""
        return self._ends.stream(name)

    def balloon(self, size: int) -> None:
        """Asks the guest to give ``size`` bytes of its memory back, by its memory balloon.

        Raises:
            EngineError: the machine has no balloon, or is not running.
        """
        from ringfence.devices.virtio.balloon import Balloon

        with self._lock:
            found = self._boot.board.find(Balloon) if self._boot is not None else None
            if not isinstance(found, Balloon):
                raise EngineError("there is no memory balloon: plug in virtio-balloon")
            found.set_target(size)

    def at_end(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` once when the machine has ended, or at once if it has."""
        with self._lock:
            if self._state is not MachineState.ENDED:
                self._at_end.append(callback)
                return
        callback()

    def at_reset(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` at each reset, before the guest starts anew."""
        with self._lock:
            self._at_reset.append(callback)

    # A boot: from power-on or reset to the next reset or the end.

    def _start_boot(self) -> None:
        """Makes memory, processors and devices, loads the guest, starts the threads."""
        config, files = self.config, self._files
        # Imported late, as the engine is: it needs the extension.
        from ringfence.accel.virtqueue import MachineQueues

        clock: MachineClock | CountedClock
        if config.deterministic:
            machine = self._engine.create_machine(1, cpu=self._cpu_model(), seed=config.seed)
            clock = CountedClock(_reader(machine), machine.set_deadline, self._failed)
            self._workers.later = clock.call_soon
        else:
            machine = self._engine.create_machine(config.cpus, cpu=self._cpu_model())
            clock = MachineClock(self._lock, _reader(machine), self._failed)
        ports = [self.console, self.control, self.stdout, self.stderr]
        memory = GuestMemory(self._engine, machine, config.memory)
        queues = MachineQueues(machine)
        self._ends.end_boot()
        ends = HostEnds(
            clock=clock,
            irq_line=machine.irq_line,
            serial=ports,
            debug=self.debug,
            power_off=self._power_off,
            reset=self._reset,
            debug_exit=self._debug_exit,
            memory=memory,
            memory_map=memory,
            firmware_log=self.firmware_log,
            printer=self.printer,
            a20=machine.a20,
            pm_timer=getattr(machine, "pm_timer", None),
            hpet=getattr(machine, "hpet", False),
            signal_msi=machine.signal_msi,
            media=self._media.ends(self._workers) if self._media else (),
            attach_video=getattr(machine, "attach_video", _leave_to_the_buses),
            end=self._ends.end,
            queues=queues,
        )
        board = self._make_board(ends, files)
        if files.kernel is None:
            plan = board.power_on()
        else:
            plan = board.boot(
                files.kernel(),
                initrd=files.initrd() if files.initrd is not None else None,
                command_line=files.command_line,
            )
        try:
            memory.add_ram(starmap(Ram, board.memory_ranges()))
            for address, data in plan.writes:
                machine.write(address, data)
            vcpus = [machine.vcpu(index) for index in range(config.cpus)]
            if self._profile_hertz:
                for vcpu in vcpus:
                    vcpu.start_profile(self._profile_hertz)
            vcpus[0].set_system_registers(plan.system_registers)
            vcpus[0].set_registers({**_ZERO_REGISTERS, **plan.registers})
        except self._engine.error as error:
            raise EngineError(f"the machine can't be built: {error}") from error
        counting: Counting | None = None
        if isinstance(clock, CountedClock):
            counting = Counting(machine, clock, self._stops, self.pause)
        processors = Processors(
            vcpus,
            self._engine.exits,
            board,
            self._lock,
            shutdown=self._shutdown,
            failed=self._processor_failed,
            left=self._left,
            interrupted=None if counting is None else counting.interrupted,
        )
        self._boot = _Boot(machine, vcpus, clock, board, memory, queues, processors, counting)
        self._boots += 1
        if self._deadline is not None:
            left = max(self._deadline - monotonic(), 0)
            if counting is None:
                clock.call_at(clock.now() + int(left * NANOSECONDS), self._timed_out)
            else:
                self._boot.alarm = Timer(left, self._locked(self._timed_out))
                self._boot.alarm.daemon = True
                self._boot.alarm.start()
        for port, uart in zip(ports, board.uarts, strict=True):
            port.on_input(self._locked(uart.input_ready))
        processors.start()

    def _cpu_model(self) -> str:
        """The processor model; on ``micro`` it has the paravirtual clock, for there is no other."""
        cpu = self.config.cpu
        silent = "kvm" in cpu or "-hypervisor" in cpu
        told = self.config.board == "micro" and self._engine.name == "bt" and not silent
        return f"{cpu},+kvm" if told else cpu

    def _make_board(self, ends: HostEnds, files: BootFiles) -> "Pc | Micro":
        config = self.config
        models = [*map(DeviceConfig.network, config.nets), *config.devices]
        if config.board == "micro":
            virtio = [_paravirtual(model) for model in models]
            from ringfence.boards import Micro

            return Micro(ends, memory=config.memory, cpus=config.cpus, devices=virtio)
        return Pc(
            ends,
            memory=config.memory,
            cpus=config.cpus,
            keyboard=config.keyboard,
            display=config.has_display,
            vga_bios=vga_bios() if config.has_display else b"",
            firmware=files.firmware() if files.firmware is not None else None,
            boot_order=config.boot,
            boot_menu=config.boot_menu,
            q35=config.board == "q35",
            devices=models,
        )

    def _left(self) -> None:
        """All threads have left: the machine starts anew, or ends."""
        with self._lock:
            self._close_boot()
            if self._restart and self.exit is None:
                self._restart = False
                for callback in self._at_reset:
                    callback()
                try:
                    self._start_boot()
                except Exception as error:  # noqa: BLE001 - told to whoever waits
                    self._failed(error)
            elif self.exit is None:
                self.exit = self._with_console(MachineExit(ExitReason.STOPPED))
                self._end()
            else:
                self._end()

    def _close_boot(self) -> None:
        """Lets go of everything that a boot made: its memory is free then."""
        boot, self._boot = self._boot, None
        if boot is None:
            return
        if boot.alarm is not None:
            boot.alarm.cancel()
        boot.board.flush()
        self._workers.drain()
        if boot.counting is not None:
            self._stops.last = boot.engine.instructions, memory_hash(boot.memory.contents())
        boot.clock.close()
        boot.board.close()
        boot.memory.close()
        boot.queues.close()
        self._ends.end_boot()
        self._statistics = [dict(vcpu.statistics()) for vcpu in boot.vcpus]

    def _end(self) -> None:
        self._state = MachineState.ENDED
        self._ends.close()
        self._workers.close()
        if self._media is not None:
            self._media.close()
        for stream in (
            self.console,
            self.control,
            self.stdout,
            self.stderr,
            self.debug,
            self.firmware_log,
            self.printer,
        ):
            stream.close()
        self._changed.notify_all()
        for callback in self._at_end:
            callback()

    # What the guest does, called under the lock.

    def _power_off(self) -> None:
        self.finish(MachineExit(ExitReason.POWER_OFF))

    def _debug_exit(self, status: int) -> None:
        self.finish(
            MachineExit(ExitReason.DEBUG_EXIT, f"status {status} at the debug-exit port", status)
        )

    def _reset(self) -> None:
        assert self._boot is not None
        self._boot.board.flush()
        if self._watch.panic is not None:
            self._panic_finished()
        elif self.config.on_reboot == "stop":
            self.finish(MachineExit(ExitReason.RESET))
        elif self.exit is None:
            self._restart = True
            self._state = MachineState.RUNNING
            self._boot.processors.leave()

    def _shutdown(self, index: int) -> None:
        assert self._boot is not None
        vcpu = self._boot.vcpus[index]
        registers = vcpu.registers()
        self.finish(
            MachineExit(
                ExitReason.SHUTDOWN,
                f"a triple fault at {registers.get('rip', 0):#x}",
                processor=index,
                registers=registers,
                system_registers=vcpu.system_registers(),
                disassembly=tuple(vcpu.recent_code()),
            )
        )

    def _panicked(self, message: str) -> None:  # noqa: ARG002 - the watch keeps it
        if self._boot is not None:
            clock = self._boot.clock
            clock.call_at(clock.now() + _PANIC_GRACE, self._panic_finished)

    def _panic_finished(self) -> None:
        self.finish(MachineExit(ExitReason.PANIC, self._watch.panic or ""))

    def _require_counting(self) -> None:
        if not self.config.deterministic:
            raise EngineError("only a deterministic machine counts instructions")

    def _timed_out(self) -> None:
        limit = self.config.timeout
        assert limit is not None
        self.finish(MachineExit(ExitReason.TIMEOUT, f"the machine did not end within {limit:g} s"))

    def _processor_failed(self, error: BaseException, index: int) -> None:
        boot = self._boot
        if boot is None or getattr(error, "code", "") != "emulation":
            self._failed(error)
            return
        vcpu = boot.vcpus[index]
        self.finish(
            MachineExit(
                ExitReason.EMULATION,
                str(error),
                processor=index,
                registers=vcpu.registers(),
                system_registers=vcpu.system_registers(),
                disassembly=tuple(vcpu.recent_code()),
                cause=error,
            )
        )

    def _failed(self, error: BaseException) -> None:
        self.finish(MachineExit(ExitReason.FAILED, f"{type(error).__name__}: {error}", cause=error))

    def _with_console(self, how: MachineExit) -> MachineExit:
        return replace(how, console=self.console.tail())

    def _locked(self, call: Callable[[], None]) -> Callable[[], None]:
        """``call`` under the machine's lock."""

        def locked() -> None:
            with self._lock:
                call()

        return locked

    def _surface(self) -> Surface | None:
        """The display of the current boot."""
        return self._boot.board.display if self._boot is not None else None

    def _i8042(self) -> I8042 | None:
        """The keyboard controller of the current boot."""
        return self._boot.board.i8042 if self._boot is not None else None

    def _is_own_thread(self) -> bool:
        boot = self._boot
        return boot is not None and current_thread() in boot.processors.threads


_ZERO_REGISTERS = dict.fromkeys(
    ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16))), 0
)


def _new_canvas() -> Canvas:
    # Imported late: most of Ringfence is testable without the extension.
    from ringfence.accel.video import Picture

    return Picture()


def _leave_to_the_buses(video: object) -> None:
    """Does what an engine does that serves no devices itself."""


def _paravirtual(config: DeviceConfig) -> DeviceConfig:
    """The network card of a board without a PCI bus, where none was named."""
    return replace(config, model="virtio-net") if config.model == "e1000" else config


def _reader(machine: EngineMachine) -> Callable[[], int]:
    """A call that gives the machine's time."""
    return lambda: machine.nanoseconds
