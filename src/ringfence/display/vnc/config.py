"""What a user asks of the VNC server: ``[HOST:]DISPLAY[,option...]``."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from ringfence.errors import ConfigError

__all__ = ["VncConfig"]

_FIRST_PORT = 5900
_MOST_DISPLAYS = 65535 - _FIRST_PORT
_PLACE = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:.%]+\]|[^:,\s]*):)?(?P<display>\d{1,5})")
_LOOPBACK = "127.0.0.1"
_OPTIONS = "password-file=FILE, tls, cert=FILE, key=FILE, view-only"


@dataclass(frozen=True, slots=True, kw_only=True)
class VncConfig:
    """Where and how to serve.

    Raises:
        ConfigError: a value is not valid.
    """

    host: str = _LOOPBACK
    #: TCP port; 0 takes a free one.
    port: int = _FIRST_PORT
    #: At most eight bytes of it count (RFC 6143, section 7.2.2).
    password: str | None = None
    #: Encrypt by TLS (VeNCrypt); without a certificate one is made.
    tls: bool = False
    certificate: Path | None = None
    key: Path | None = None
    #: Keys and mouse of viewers are ignored.
    view_only: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"vnc: there is no port {self.port}")
        if self.password is not None and not self.password:
            raise ConfigError("vnc: the password is empty")
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("vnc: a certificate needs its key, and a key its certificate")
        if self.password is None and not _is_loopback(self.host):
            raise ConfigError(
                f"vnc: everybody who reaches {self.host} could use the machine: "
                "set a password (password-file=FILE), or serve 127.0.0.1"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The configuration that a command line names.

        Raises:
            ConfigError: it is none.
        """
        place, *options = text.split(",")
        match = _PLACE.fullmatch(place)
        if match is None or int(match["display"]) > _MOST_DISPLAYS:
            raise ConfigError(f"vnc: {place!r} is not [HOST:]DISPLAY, like :1 or 127.0.0.1:1")
        host = (match["host"] or _LOOPBACK).strip("[]")
        values: dict[str, str] = {}
        for option in options:
            name, _, value = option.partition("=")
            values[name] = value
        unknown = set(values) - {"password-file", "tls", "cert", "key", "view-only"}
        if unknown:
            raise ConfigError(f"vnc: no option {min(unknown)!r}; there are {_OPTIONS}")
        password = values.get("password-file")
        certificate, key = values.get("cert"), values.get("key")
        return cls(
            host=host,
            port=_FIRST_PORT + int(match["display"]),
            password=None if password is None else _read_password(Path(password)),
            tls="tls" in values or certificate is not None,
            certificate=None if certificate is None else Path(certificate),
            key=None if key is None else Path(key),
            view_only="view-only" in values,
        )


def _read_password(path: Path) -> str:
    """The first line of a file."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"vnc: the password file {path} can't be read: {error}") from error
    if not lines or not lines[0]:
        raise ConfigError(f"vnc: the password file {path} is empty")
    return lines[0]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
