"""Small Debian packages and archives of them, made by the tests."""

import gzip
import hashlib
import io
import lzma
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ringfence.images.initramfs import APPLETS_START, NEEDED_APPLETS

COMPRESS = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


def kernel(release: str = "6.1.0-1-test") -> bytes:
    """The beginning of a bzImage: its magic and the pointer to its version."""
    data = bytearray(4096)
    data[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", data, 0x20E, 0x800 - 0x200)
    text = f"{release} (someone@example) #1\0".encode()
    data[0x800 : 0x800 + len(text)] = text
    return bytes(data)


def busybox(applets: Sequence[str] = ("ls", *sorted(NEEDED_APPLETS))) -> bytes:
    """An ELF magic and a list of applets."""
    names = "\0".join(applets).encode()
    return b"\x7fELF" + bytes(60) + APPLETS_START + names + b"\0\0text\0"


def tar(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of regular files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def ar(members: Mapping[str, bytes]) -> bytes:
    """An ar archive, as ar(5) has it."""
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


def deb(
    name: str, version: str, files: Mapping[str, bytes], depends: str = "", suffix: str = ".xz"
) -> bytes:
    """A binary package."""
    control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nDepends: {depends}\n"
    compress = COMPRESS[suffix]
    return ar(
        {
            "debian-binary": b"2.0\n",
            f"control.tar{suffix}": compress(tar({"./control": control.encode()})),
            f"data.tar{suffix}": compress(tar(files)),
        }
    )


@dataclass(frozen=True)
class Offered:
    """A package and what an index says of it."""

    name: str
    version: str
    content: bytes
    depends: str = ""

    @property
    def filename(self) -> str:
        return f"pool/main/{self.name[0]}/{self.name}_{self.version}_amd64.deb"

    @property
    def stanza(self) -> str:
        return (
            f"Package: {self.name}\nVersion: {self.version}\nDepends: {self.depends}\n"
            f"Filename: {self.filename}\nSize: {len(self.content)}\n"
            f"SHA256: {hashlib.sha256(self.content).hexdigest()}\n"
        )


def debian(release: str = "6.1.0-1-test", *, signed: bool = True) -> list[Offered]:
    """What the recipe ``debian`` asks for, and packages that it must not take."""
    image = f"linux-image-{release}"
    offered = [
        ("linux-image-cloud-amd64", "6.1.9-1", {}, f"linux-base, {image} (= 6.1.9-1)"),
        ("linux-image-cloud-amd64", "6.1.10-1", {}, f"{image} (= 6.1.10-1)"),
        (
            image if signed else f"{image}-unsigned",
            "6.1.10-1",
            {"./usr/share/doc/x": b"x", f"./boot/vmlinuz-{release}": kernel(release)},
            "",
        ),
        ("busybox-static", "1:1.35.0-4", {"./bin/busybox": busybox()}, ""),
        ("busybox-static-doc", "1:2", {}, ""),
    ]
    return [Offered(n, v, deb(n, v, files, d), d) for n, v, files, d in offered]


def mirror(folder: Path, packages: Sequence[Offered], suffix: str = ".xz") -> str:
    """Writes a Debian archive into ``folder``; its URL."""
    index = folder / f"dists/bookworm/main/binary-amd64/Packages{suffix}"
    index.parent.mkdir(parents=True)
    data = COMPRESS[suffix]("\n".join(offered.stanza for offered in packages).encode())
    index.write_bytes(data)
    name = f"main/binary-amd64/Packages{suffix}"
    release = f"Suite: bookworm\nSHA256:\n {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n"
    (folder / "dists/bookworm/Release").write_text(release)
    for offered in packages:
        path = folder / offered.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(offered.content)
    return folder.as_uri()
