"""The description of a device that a user puts on the board, and its short form as text.

``NAME[,option=value...]``: a comma within a value is doubled. Which options there are is the
device model's to say; ``addr=SLOT[.FUNCTION]`` (hexadecimal) is every PCI device's.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ringfence.errors import ConfigError

__all__ = ["DeviceConfig"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_OPTION = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
_COMMA = re.compile(r"(?<!,),(?!,)|(?<=,,),(?!,)")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """A device as its user describes it.

    Raises:
        ConfigError: a name is not valid.
    """

    #: Name of the model, as ``ringfence.devices.catalog`` or an entry point has it.
    model: str
    #: Options by name, as text.
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.model):
            raise ConfigError(f"devices: {self.model!r} is not the name of a device model")
        options = self.options
        for name in options:
            if not _OPTION.fullmatch(name):
                raise ConfigError(f"devices: {self.model}: {name!r} is not the name of an option")

    @classmethod
    def parse(cls, value: object) -> Self:
        """A description from its short form, a mapping, or one that is it already.

        Raises:
            ConfigError: it is none of these.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            model, *rest = (part.replace(",,", ",") for part in _COMMA.split(value))
            options: dict[str, str] = {}
            for part in rest:
                name, equals, text = part.partition("=")
                if name in options:
                    raise ConfigError(f"devices: {model}: the option {name} is given twice")
                options[name] = text if equals else "on"
            return cls(model=model, options=options)
        if isinstance(value, Mapping):
            model_value = value.get("model")
            if not isinstance(model_value, str):
                raise ConfigError("devices: a device needs a model")
            return cls(
                model=model_value,
                options={str(name): str(entry) for name, entry in value.items() if name != "model"},
            )
        raise ConfigError(f"devices: {value!r} is no device: give NAME[,option=value...]")

    @classmethod
    def network(cls, text: str) -> Self:
        """A network card from ``HOST-END[,model=NAME][,mac=ADDRESS]``; an e1000 unless said.

        Raises:
            ConfigError: a part is not valid.
        """
        if not isinstance(text, str):
            raise ConfigError(f"net: {text!r} is not a text")
        model, options = "e1000", {}
        end: list[str] = []
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if equals and name == "model":
                model = value
            elif equals and name == "mac":
                options["mac"] = value
            else:
                end.append(part)
        return cls(model=model, options={"net": ",".join(end), **options})

    def to_mapping(self) -> dict[str, Any]:
        """What :meth:`parse` reads, in plain values."""
        return {"model": self.model, **self.options}
