"""The 9P server keeps to its folder, and does what a file system does."""

import errno
import os
import random
import struct
from pathlib import Path

import pytest

from ringfence.errors import ConfigError
from ringfence.folders import FolderServer, Tree


def text(value: str) -> bytes:
    return struct.pack("<H", len(value.encode())) + value.encode()


class RefusedError(Exception):
    """The server answered with an error number."""

    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.errno = number


class Client:
    def __init__(self, root: Path, *, readonly: bool = False) -> None:
        self.server = FolderServer(Tree(str(root), readonly=readonly))
        self.call(100, struct.pack("<I", 8192) + text("9P2000.L"))
        self.call(104, struct.pack("<II", 0, 0xFFFFFFFF) + text("root") + text("") + bytes(4))

    def raw(self, kind: int, body: bytes) -> tuple[int, bytes]:
        message = struct.pack("<IBH", 7 + len(body), kind, 5) + body
        reply = self.server.answer(message)
        size, got, tag = struct.unpack_from("<IBH", reply)
        assert size == len(reply)
        assert tag == 5
        return got, reply[7:]

    def call(self, kind: int, body: bytes) -> bytes:
        got, reply = self.raw(kind, body)
        if got == 7:
            raise RefusedError(struct.unpack("<I", reply)[0])
        assert got == kind + 1
        return reply

    def walk(self, *names: str, to: int = 1, start: int = 0) -> int:
        body = struct.pack("<IIH", start, to, len(names)) + b"".join(map(text, names))
        (count,) = struct.unpack_from("<H", self.call(110, body))
        if count < len(names):
            raise RefusedError(errno.ENOENT)
        return to

    def clunk(self, fid: int) -> None:
        self.call(120, struct.pack("<I", fid))

    def read(self, *names: str) -> bytes:
        fid = self.walk(*names)
        try:
            self.call(12, struct.pack("<II", fid, os.O_RDONLY))
            return self.call(116, struct.pack("<IQI", fid, 0, 4096))[4:]
        finally:
            self.clunk(fid)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    share = tmp_path / "share"
    (share / "folder").mkdir(parents=True)
    (share / "folder" / "file").write_text("content")
    (share / "out").symlink_to("../secret")
    (share / "up").symlink_to("..")
    (share / "inside").symlink_to("folder/file")
    return share


@pytest.fixture
def client(root: Path) -> Client:
    return Client(root)


def test_reads(client: Client) -> None:
    assert client.read("folder", "file") == b"content"
    assert client.read("folder", "..", "folder", "file") == b"content"


@pytest.mark.parametrize(
    "names",
    [("..", "secret"), ("out",), ("up", "secret"), ("inside",), ("folder/../../secret",), (".",)],
)
def test_nothing_leads_out(client: Client, names: tuple[str, ...]) -> None:
    with pytest.raises(RefusedError) as error:
        client.read(*names)
    assert error.value.errno in (errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.EACCES)


def test_a_folder_that_moves_away_leads_nowhere(client: Client, root: Path) -> None:
    client.walk("folder", to=1)
    (root / "folder").rename(root.parent / "moved")
    with pytest.raises(RefusedError):
        client.walk("..", "..", "secret", to=2, start=1)


def test_links_are_read_not_followed(client: Client) -> None:
    fid = client.walk("out")
    assert client.call(22, struct.pack("<I", fid)) == text("../secret")


def test_writes(client: Client, root: Path) -> None:
    fid = client.walk(to=1)
    flags = os.O_RDWR | os.O_EXCL
    client.call(14, struct.pack("<I", fid) + text("new") + struct.pack("<III", flags, 0o640, 0))
    client.call(118, struct.pack("<IQI", fid, 2, 5) + b"hello")
    client.call(50, struct.pack("<I", fid))
    assert (root / "new").read_bytes() == b"\0\0hello"
    client.call(26, struct.pack("<IIIIIQQQQQ", fid, 9, 0o600, 0, 0, 3, 0, 0, 0, 0))
    assert (root / "new").stat().st_size == 3
    assert (root / "new").stat().st_mode & 0o777 == 0o600
    client.clunk(fid)
    client.call(72, struct.pack("<I", 0) + text("sub") + struct.pack("<II", 0o755, 0))
    body = struct.pack("<I", 0) + text("new") + struct.pack("<I", client.walk("sub")) + text("x")
    client.call(74, body)
    assert (root / "sub" / "x").exists()
    client.call(76, struct.pack("<I", 1) + text("x") + struct.pack("<I", 0))
    client.call(76, struct.pack("<I", 0) + text("sub") + struct.pack("<I", 0x200))
    assert not (root / "sub").exists()


def test_listing(client: Client, root: Path) -> None:
    for index in range(300):
        (root / f"entry{index}").touch()
    fid = client.walk(to=1)
    client.call(12, struct.pack("<II", fid, os.O_RDONLY))
    names, offset = [], 0
    while data := client.call(40, struct.pack("<IQI", fid, offset, 1000))[4:]:
        at = 0
        while at < len(data):
            offset, _, length = struct.unpack_from("<QBH", data, at + 13)
            names.append(data[at + 24 : at + 24 + length].decode())
            at += 24 + length
    assert sorted(names) == sorted([".", "..", *(entry.name for entry in root.iterdir())])


def test_readonly(root: Path) -> None:
    client = Client(root, readonly=True)
    assert client.read("folder", "file") == b"content"
    fid = client.walk("folder", "file")
    for kind, body in [
        (12, struct.pack("<II", fid, os.O_RDWR)),
        (12, struct.pack("<II", fid, os.O_TRUNC)),
        (14, struct.pack("<I", 0) + text("n") + struct.pack("<III", os.O_RDWR, 0o600, 0)),
        (26, struct.pack("<IIIIIQQQQQ", fid, 1, 0, 0, 0, 0, 0, 0, 0, 0)),
        (72, struct.pack("<I", 0) + text("d") + struct.pack("<II", 0o755, 0)),
        (76, struct.pack("<I", 0) + text("folder") + struct.pack("<I", 0x200)),
        (122, struct.pack("<I", fid)),
    ]:
        with pytest.raises(RefusedError) as error:
            client.call(kind, body)
        assert error.value.errno == errno.EROFS


def test_pipes_of_the_host_are_not_opened(client: Client, root: Path) -> None:
    os.mkfifo(root / "pipe")
    fid = client.walk("pipe")
    with pytest.raises(RefusedError):
        client.call(12, struct.pack("<II", fid, os.O_RDONLY))


def test_garbage_is_answered(client: Client, root: Path) -> None:
    rng = random.Random(3)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20000):
        body = rng.choice([struct.pack("<II", 0, rng.randrange(4)), b""]) + rng.randbytes(
            rng.randrange(40)
        )
        client.server.answer(struct.pack("<IBH", 7, rng.randrange(128), 1) + body)
    client.server.answer(b"x")
    client.server.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert (root.parent / "secret").read_text() == "secret"


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="share"):
        Tree(str(tmp_path / "none"))
