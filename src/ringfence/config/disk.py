"""The description of a disk, CD-ROM or floppy of a machine, and its short form as text.

``FILE[,readonly][,ephemeral][,if=ide]``: a comma within the name is doubled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from ringfence.errors import ConfigError

__all__ = ["DiskConfig", "Interface"]

Interface = Literal["auto", "ide", "ahci", "virtio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskConfig:
    """A medium as its user describes it.

    Raises:
        ConfigError: a value is not valid; the text names the field.
    """

    #: A raw image or a block device; for a drive with a removable medium, ``None`` when empty.
    file: Path | None
    #: The guest can't write to it.
    readonly: bool = False
    #: What the guest writes is kept in memory and forgotten with the machine.
    ephemeral: bool = False
    #: The controller it hangs on; ``auto`` is what suits the board.
    interface: Interface = "auto"

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", _path(self.file))
        for name in ("readonly", "ephemeral"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name}: {getattr(self, name)!r} is neither true nor false")
        if self.interface not in get_args(Interface):
            raise ConfigError(
                f"interface: {self.interface!r} is none of {', '.join(get_args(Interface))}"
            )

    @classmethod
    def parse(cls, value: object) -> Self:
        """A description from its short form, a path, a mapping, or one that is it already.

        Raises:
            ConfigError: it is none of these.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Path) or value is None:
            return cls(file=value)
        if isinstance(value, Mapping):
            return cls._from_mapping(value)
        if isinstance(value, str):
            return cls._from_text(value)
        raise ConfigError(f"{value!r} is no disk: give FILE[,readonly][,ephemeral][,if=ide]")

    def to_mapping(self) -> dict[str, Any]:
        """What :meth:`parse` reads, in plain values; defaults are left out."""
        values = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return {**values, "file": None if self.file is None else str(self.file)}

    @classmethod
    def _from_mapping(cls, value: Mapping[Any, Any]) -> Self:
        known = {field.name for field in fields(cls)}
        unknown = sorted(map(str, set(value) - known))
        if unknown or "file" not in value:
            what = f"unknown: {', '.join(unknown)}" if unknown else "a disk needs a file"
            raise ConfigError(f"{what}; there are {', '.join(sorted(known))}")
        return cls(**value)

    @classmethod
    def _from_text(cls, text: str) -> Self:
        # No path holds a zero byte.
        parts = text.replace(",,", "\0").split(",")
        if not parts[0] or "\0" in text:
            raise ConfigError(f"{text!r} names no file: give FILE[,readonly][,ephemeral][,if=ide]")
        values: dict[str, Any] = {}
        for part in parts[1:]:
            setting: object
            name, given, option = part.partition("=")
            if name in ("readonly", "ephemeral") and option in ("", "on", "off"):
                key, setting = name, option != "off"
            elif name in ("if", "interface") and option:
                key, setting = "interface", option
            else:
                raise ConfigError(
                    f"{part!r} is no option of a disk: there are readonly, ephemeral and "
                    f"if={'|'.join(get_args(Interface))}; a comma in a file's name is doubled"
                )
            if key in values or (given and not option):
                raise ConfigError(f"{part!r} is given twice, or has no value")
            values[key] = setting
        return cls(file=Path(parts[0].replace("\0", ",")), **values)


def _path(value: object) -> Path | None:
    if isinstance(value, str) and value:
        value = Path(value)
    if value is None or (isinstance(value, Path) and "\0" not in str(value)):
        return value
    raise ConfigError(f"file: {value!r} is not a path")
