"""Finds firmware where the system's packages put it, and keeps the variables of UEFI."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ringfence.boards import FirmwareImage
from ringfence.errors import ImageError, ImageNotFound

__all__ = ["FileStore", "MemoryStore", "find_firmware", "places"]

_LARGEST = 64 << 20
_BIOS = (
    "/usr/share/seabios/bios-256k.bin",
    "/usr/share/qemu/bios-256k.bin",
    "/usr/share/seabios/bios.bin",
    "/usr/local/share/qemu/bios-256k.bin",
)


class _Uefi(NamedTuple):
    """Code and the template of its variables."""

    code: str
    variables: str


# Debian and Ubuntu; Fedora; Arch; openSUSE; QEMU's own.
_UEFI = (
    _Uefi("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    _Uefi("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    _Uefi("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
    _Uefi("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    _Uefi("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
    _Uefi("/usr/share/qemu/edk2-x86_64-code.fd", "/usr/share/qemu/edk2-i386-vars.fd"),
)


def places(name: str) -> tuple[str, ...]:
    """Where packages put the code of ``bios`` or ``uefi``."""
    return _BIOS if name == "bios" else tuple(pair.code for pair in _UEFI)


class MemoryStore:
    """Contents of a flash chip that are forgotten with the machine."""

    def __init__(self, contents: bytes) -> None:
        self._contents = bytearray(contents)

    def load(self) -> bytes:
        """All of them."""
        return bytes(self._contents)

    def store(self, offset: int, data: bytes) -> None:
        """Keeps ``data``."""
        self._contents[offset : offset + len(data)] = data


class FileStore:
    """Contents of a flash chip in a file, which is made from ``template`` when it is not there.

    Raises:
        ImageError: the file can't be made, read or written.
    """

    def __init__(self, path: Path, template: Callable[[], bytes]) -> None:
        self._path = path
        try:
            if not path.exists():
                # Whole or not at all.
                part = path.with_name(f".{path.name}.{os.getpid()}")
                part.write_bytes(template())
                part.replace(path)
            self.file = path.open("r+b", buffering=0)
        except OSError as error:
            raise ImageError(
                f"the UEFI variables {path} can't be opened: {error.strerror}"
            ) from error

    def load(self) -> bytes:
        """All of them."""
        return os.pread(self.file.fileno(), _LARGEST, 0)

    def store(self, offset: int, data: bytes) -> None:
        """Writes ``data`` through to the file."""
        try:
            os.pwrite(self.file.fileno(), data, offset)
        except OSError as error:
            raise ImageError(
                f"the UEFI variables {self._path} can't be written: {error.strerror}"
            ) from error


def find_firmware(
    name: str, variables: Path | None, opened: list[BinaryIO] | None = None
) -> Callable[[], FirmwareImage]:
    """What reads the firmware ``bios``, ``uefi`` or a file, at each start of the machine.

    Args:
        name: Which.
        variables: File for the variables of UEFI.
        opened: Gets what is open, to be closed when the machine has ended.

    Raises:
        ImageNotFound: it is not installed, or there is no such file.
        ImageError: the file for the variables can't be used.
    """
    template: Path | None = None
    if name == "bios":
        code = _first([Path(path) for path in _BIOS])
        if code is None:
            raise ImageNotFound(
                "there is no BIOS on this host: install the package seabios, or give its file by "
                "--firmware FILE"
            )
    elif name == "uefi":
        pairs = [(Path(pair.code), Path(pair.variables)) for pair in _UEFI]
        pair = next((pair for pair in pairs if all(map(Path.is_file, pair))), None)
        if pair is None:
            raise ImageNotFound(
                "there is no UEFI firmware on this host: install the package ovmf (or edk2-ovmf), "
                "or give its file by --firmware FILE"
            )
        code, template = pair
    else:
        code = Path(name)
        template = _template_of(code)
    _read(code)
    store: MemoryStore | FileStore | None = None
    if template is not None or variables is not None:
        known = template

        def contents() -> bytes:
            if known is None:
                raise ImageNotFound(
                    f"the UEFI variables {variables} do not exist, and there is no template of "
                    f"them beside {code}"
                )
            return _read(known)

        if variables is None:
            store = MemoryStore(contents())
        else:
            store = file_store = FileStore(variables, contents)
            if opened is not None:
                opened.append(file_store.file)
    return lambda: FirmwareImage(_padded(_read(code)), store)


def _first(paths: list[Path]) -> Path | None:
    return next((path for path in paths if path.is_file()), None)


def _template_of(code: Path) -> Path | None:
    """The template beside a file of code alone, by the customary names."""
    for text, other in (("CODE", "VARS"), ("code", "vars")):
        if text in code.name:
            for name in (
                code.name.replace(text, other),
                code.name.replace(f"{text}_", f"{other}_"),
            ):
                found = code.with_name(name.replace(".secboot", ""))
                if found.is_file():
                    return found
    return None


def _padded(code: bytes) -> bytes:
    """Firmware ends at 4 GiB; what is no whole pages is filled up in front."""
    return code.rjust(-(-len(code) // 4096) * 4096, b"\xff")


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except FileNotFoundError:
        raise ImageNotFound(f"the firmware {path} does not exist") from None
    except OSError as error:
        raise ImageError(f"the firmware {path} can't be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise ImageError(f"the firmware {path} is larger than 64 MiB")
    return data
