"""Builds the initial RAM disk: busybox, a minimal tree, and our first process.

It is left uncompressed, which boots fastest on a translated processor (some 50 ms of two seconds
under another translator), and its device nodes need no root to write.
"""

import re
import zlib
from functools import cache
from pathlib import Path

from ringfence.errors import ImageCorrupt
from ringfence.images.cpio import CpioWriter

ELF_MAGIC = b"\x7fELF"
# busybox keeps its applets' names in one sorted run of strings, and these two sort first.
APPLETS_START = b"\0[\0[[\0"
APPLET = re.compile(rb"[A-Za-z0-9_.\[-]{1,32}")
NEEDED_APPLETS = frozenset(
    ("base64", "cat", "insmod", "ip", "mkdir", "mount", "poweroff", "rm", "setsid", "sh", "stty")
)
SERIAL_LINES = 4
DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "run/ringfence", "sys", "usr")
FILES = {
    "etc/fstab": (
        b"proc /proc proc defaults 0 0\nsysfs /sys sysfs defaults 0 0\n"
        b"devtmpfs /dev devtmpfs defaults 0 0\n"
    ),
    "etc/group": b"root:x:0:\n",
    "etc/hosts": b"127.0.0.1 localhost ringfence\n::1 localhost\n",
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
}


@cache
def init_script() -> bytes:
    """The guest's first process."""
    return (Path(__file__).parent / "guest" / "init.sh").read_bytes()


@cache
def revision() -> str:
    """Changes when :func:`build` would make something else of the same busybox."""
    return f"{zlib.crc32(build_tree(b'', ['sh'])):08x}"


def build(busybox: bytes) -> bytes:
    """The initial RAM disk around a statically linked busybox.

    Raises:
        ImageCorrupt: that is no busybox, or one without what the first process needs.
    """
    return build_tree(busybox, applets(busybox))


def build_tree(busybox: bytes, names: list[str]) -> bytes:
    """The initial RAM disk with one link to busybox for each name."""
    writer = CpioWriter()
    for path in DIRECTORIES:
        writer.directory(path)
    writer.directory("tmp", 0o1777)
    writer.directory("var")
    writer.symlink("var/tmp", "/tmp")  # noqa: S108 - the guest's
    writer.symlink("var/run", "/run")
    writer.symlink("sbin", "bin")
    writer.symlink("usr/bin", "../bin")
    writer.symlink("usr/sbin", "../bin")
    writer.character_device("dev/console", 5, 1)
    writer.character_device("dev/null", 1, 3, 0o666)
    for line in range(SERIAL_LINES):
        writer.character_device(f"dev/ttyS{line}", 4, 64 + line)
    writer.fifo("run/ringfence/stdout")
    writer.fifo("run/ringfence/stderr")
    for path, content in FILES.items():
        writer.file(path, content)
    writer.file("init", init_script(), 0o755)
    writer.file("bin/busybox", busybox, 0o755)
    for name in names:
        writer.symlink(f"bin/{name}", "busybox")
    return writer.finish()


def applets(busybox: bytes) -> list[str]:
    """Names of the commands in a busybox, read from the program without running it."""
    if not busybox.startswith(ELF_MAGIC):
        raise ImageCorrupt("busybox is not an ELF program")
    at = busybox.find(APPLETS_START)
    names: list[str] = []
    if at >= 0:
        for name in busybox[at + 1 : at + 16384].split(b"\0"):
            if not APPLET.fullmatch(name):
                break
            names.append(name.decode())
    if missing := NEEDED_APPLETS.difference(names):
        raise ImageCorrupt(f"busybox lacks {', '.join(sorted(missing))}: use Debian's")
    return sorted(set(names) - {"busybox"})
