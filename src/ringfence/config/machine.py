"""What a user can ask of a machine, checked before anything is built."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from ringfence.config.device import DeviceConfig
from ringfence.config.disk import DiskConfig
from ringfence.errors import ConfigError
from ringfence.units import GIB, KIB, MIB, TIB, format_size, parse_duration, parse_size

__all__ = ["DisplayName", "EngineName", "MachineConfig", "OnReboot"]

EngineName = Literal["auto", "bt", "kvm"]
BootKind = Literal["floppy", "disk", "cdrom", "net"]
OnReboot = Literal["restart", "stop"]
BoardName = Literal["pc", "q35", "micro"]
DisplayName = Literal["auto", "none", "vga"]

_LEAST_MEMORY, _MOST_MEMORY, _PAGE = 64 * MIB, 1 * TIB, 4 * KIB
_MOST_CPUS = 64
_MOST_COMMAND_LINE = 64 * KIB
_MOST_MEDIA = {"disks": 32, "cdroms": 6, "floppies": 2}
_CPU = re.compile(r"[\w.-]{1,40}(,[+-][\w.-]{1,40}){0,200}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineConfig:
    """A machine as its user describes it.

    Sizes and durations may be given as text (``"512M"``, ``"30s"``); they are kept as bytes and
    seconds.

    Raises:
        ConfigError: a value is not valid; the text names the field.
    """

    #: Name of an image, or ``None`` when ``kernel`` is given.
    image: str | None = None
    #: A kernel to boot instead of the image's: bzImage, or ELF with a PVH entry.
    kernel: Path | None = None
    #: An initial RAM disk instead of the image's.
    initrd: Path | None = None
    #: Kernel command line, after that of the image.
    append: str = ""
    #: Guest memory in bytes: whole pages, 64 MiB to 1 TiB.
    memory: int = 512 * MIB
    #: Virtual processors, 1 to 64.
    cpus: int = 1
    #: Model of the processors: ``model,+feature,-feature``. Names are the engine's to check.
    cpu: str = "host"
    engine: EngineName = "auto"
    #: The machine is stopped after this many seconds.
    timeout: float | None = None
    #: What to do when the guest resets the machine.
    on_reboot: OnReboot = "restart"
    #: The guest's init starts a shell on the console.
    shell: bool = False
    #: A PS/2 keyboard controller is there.
    keyboard: bool = True
    #: What shows pictures: ``vga`` also brings a mouse; ``auto`` is none where a kernel is booted
    #: directly, which needs none, and nobody asked for a screen.
    display: DisplayName = "auto"
    #: Where to serve the screen to VNC viewers: ``[HOST:]DISPLAY[,option...]``.
    vnc: str | None = None
    #: What other processes of the user call the machine.
    name: str | None = None
    #: Layout that the guest has its keyboard for: what typing a text presses.
    keyboard_layout: str = "us"
    #: What the processors start with: ``bios``, ``uefi`` or a file. By default ``bios`` where there
    #: is no kernel and no image; with one of these, none.
    firmware: str | None = None
    #: Where UEFI keeps its variables; made from the firmware's template when it is not there.
    #: Without it they are forgotten with the machine.
    uefi_vars: Path | None = None
    #: What firmware boots from, in order: of ``floppy``, ``disk``, ``cdrom``, ``net``.
    boot: tuple[str, ...] = ()
    #: Firmware shows a menu of what to boot.
    boot_menu: bool = False
    #: Time is the number of executed instructions, so that every run is the same; one processor.
    deterministic: bool = False
    #: Where random numbers of a deterministic machine come from, 0 to 2^64 - 1.
    seed: int = 0
    #: Hard disks, in order; ``FILE[,readonly][,ephemeral][,if=ide]`` or :class:`DiskConfig` each.
    disks: tuple[DiskConfig, ...] = ()
    #: CD-ROM drives and what is in them, in order; ``None`` is an empty drive.
    cdroms: tuple[DiskConfig, ...] = ()
    #: Floppy drives A: and B: and what is in them.
    floppies: tuple[DiskConfig, ...] = ()
    #: ``pc`` for any system (an Intel 440FX with PIIX), ``q35`` for those that want PCI Express (a
    #: Q35 with ICH9), ``micro`` for kernels that know virtio and need nothing older.
    board: BoardName = "pc"
    #: More devices, in order: ``NAME[,option=value...]`` or :class:`DeviceConfig` each.
    devices: tuple[DeviceConfig, ...] = ()
    #: Network cards, in order: ``HOST-END[,model=NAME][,mac=ADDRESS]``, like ``tap:tap0``.
    nets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        direct = self.image is not None or self.kernel is not None
        media = self.disks or self.cdroms or self.floppies
        if not (direct or media or self.firmware is not None):
            raise ConfigError("a machine needs an image, a kernel, a disk or firmware")
        if direct and self.firmware is not None:
            raise ConfigError("firmware boots from disks: leave out image and kernel, or firmware")
        if not direct and self.firmware is None:
            _set(self, "firmware", "bios")
        if self.firmware is not None:
            _set(self, "firmware", str(_path("firmware", self.firmware)))
        if self.image is not None and not isinstance(self.image, str):
            raise ConfigError(f"image: {self.image!r} is not a name")
        _set(self, "boot", _boot(self.boot))
        for name in ("kernel", "initrd", "uefi_vars"):
            value = getattr(self, name)
            if value is not None:
                _set(self, name, _path(name, value))
        _set(self, "append", _command_line(self.append))
        _set(self, "memory", _memory(self.memory))
        _set(self, "cpus", _count("cpus", self.cpus, _MOST_CPUS))
        _set(self, "cpu", _cpu(self.cpu))
        _choice("engine", self.engine, get_args(EngineName))
        _choice("board", self.board, get_args(BoardName))
        _choice("on_reboot", self.on_reboot, get_args(OnReboot))
        _choice("display", self.display, get_args(DisplayName))
        _set(self, "seed", _seed(self.seed))
        if self.deterministic and self.cpus != 1:
            raise ConfigError(f"cpus: a deterministic machine has one processor, not {self.cpus}")
        if self.deterministic and self.engine == "kvm":
            raise ConfigError("engine: kvm can't count instructions; bt can")
        if self.seed and not self.deterministic:
            raise ConfigError("seed: only a deterministic machine has one")
        if self.timeout is not None:
            seconds = parse_duration(self.timeout)
            if seconds == 0:
                raise ConfigError("timeout: 0 leaves no time to run")
            _set(self, "timeout", seconds)
        for name in ("disks", "cdroms", "floppies"):
            _set(self, name, _media(name, getattr(self, name)))
        _set(self, "devices", _devices(self.devices))
        for name in ("vnc", "name"):
            if not isinstance(getattr(self, name), str | None):
                raise ConfigError(f"{name}: {getattr(self, name)!r} is not a text")
        if not isinstance(self.keyboard_layout, str):
            raise ConfigError(f"keyboard_layout: {self.keyboard_layout!r} is not a name")
        _set(self, "nets", _nets(self.nets))
        for name in ("shell", "keyboard", "boot_menu", "deterministic"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}: {getattr(self, name)!r} is neither true nor false")

    @property
    def has_display(self) -> bool:
        """Whether the machine has a display."""
        wanted = self.vnc is not None or (self.kernel is None and self.image is None)
        return self.display == "vga" or (self.display == "auto" and wanted)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """The configuration that a TOML table or a request names.

        Raises:
            ConfigError: a name is unknown or a value is not valid.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"unknown: {', '.join(unknown)}; there are {', '.join(sorted(known))}"
            )
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """What :meth:`from_mapping` reads, in plain values; defaults are left out."""
        mapping: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            if field.name == "memory":
                value = format_size(value)
            if isinstance(value, tuple):
                value = [entry if isinstance(entry, str) else entry.to_mapping() for entry in value]
            mapping[field.name] = str(value) if isinstance(value, Path) else value
        return mapping


def _set(config: MachineConfig, name: str, value: object) -> None:
    """Sets a field of a frozen instance while it is being made."""
    object.__setattr__(config, name, value)


def _path(name: str, value: object) -> Path:
    if isinstance(value, str):
        value = Path(value)
    if not isinstance(value, Path) or "\0" in str(value):
        raise ConfigError(f"{name}: {value!r} is not a path")
    return value


def _media(name: str, value: object) -> tuple[DiskConfig, ...]:
    if isinstance(value, str | bytes | Path | DiskConfig) or not isinstance(value, Iterable):
        raise ConfigError(f"{name}: {value!r} is not a list")
    try:
        media = tuple(map(DiskConfig.parse, value))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    if len(media) > _MOST_MEDIA[name]:
        raise ConfigError(f"{name}: {len(media)} are more than {_MOST_MEDIA[name]}")
    for medium in media:
        if medium.file is None and name == "disks":
            raise ConfigError("disks: a hard disk needs a file")
        if (medium.interface == "virtio" and name != "disks") or (
            medium.interface != "auto" and name == "floppies"
        ):
            raise ConfigError(f"{name}: none hangs on {medium.interface}")
    return media


def _boot(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",") if value else ()
    if isinstance(value, bytes | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"boot: {value!r} is not a list")
    kinds = tuple(value)
    for kind in kinds:
        if kind not in get_args(BootKind):
            raise ConfigError(f"boot: {kind!r} is none of {', '.join(get_args(BootKind))}")
    if len(set(kinds)) != len(kinds):
        raise ConfigError("boot: each kind of medium comes once")
    return kinds


def _devices(value: object) -> tuple[DeviceConfig, ...]:
    if isinstance(value, str | bytes | Mapping | DeviceConfig) or not isinstance(value, Iterable):
        raise ConfigError(f"devices: {value!r} is not a list")
    return tuple(map(DeviceConfig.parse, value))


def _nets(value: object) -> tuple[str, ...]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"nets: {value!r} is not a list")
    nets = tuple(value)
    for entry in nets:
        DeviceConfig.network(entry)
    return nets


def _command_line(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"append: {value!r} is not a text")
    if "\0" in value or "\n" in value:
        raise ConfigError("append: a kernel command line has no line ends and no zero bytes")
    if len(value.encode(errors="surrogateescape")) >= _MOST_COMMAND_LINE:
        raise ConfigError(f"append: longer than {_MOST_COMMAND_LINE >> 10} KiB")
    return value


def _memory(value: object) -> int:
    size = parse_size(value)
    if size % _PAGE:
        raise ConfigError(f"memory: {size} bytes are not whole pages of 4 KiB")
    if not _LEAST_MEMORY <= size <= _MOST_MEMORY:
        shown = f"{size / GIB:g}G" if size >= GIB else f"{size / MIB:g}M"
        raise ConfigError(f"memory: {shown} is not between 64M and 1T")
    return size


def _count(name: str, value: object, most: int) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(f"{name}: {value!r} is not a number from 1 to {most}")
    return value


def _seed(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 21:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise ConfigError(f"seed: {value!r} is not a number from 0 to 2^64 - 1")
    return value


def _cpu(value: object) -> str:
    if not isinstance(value, str) or not _CPU.fullmatch(value):
        raise ConfigError(f"cpu: {value!r} is not like host or x86-64-v3,+feature,-feature")
    return value


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}: {value!r} is none of {', '.join(choices)}")
