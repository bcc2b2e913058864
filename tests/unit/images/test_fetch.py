import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ringfence.errors import ImageCorrupt, ImageError
from ringfence.images.fetch import download
from ringfence.images.model import Progress

DATA = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(DATA).hexdigest()


@dataclass
class Server:
    """A server of DATA: how it misbehaves, and what it was asked."""

    url: str = ""
    ranges: bool = True
    cut_after: list[int] = field(default_factory=list)
    status: int = 200
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.asked.append(wanted)
            if state.status != 200:
                self.send_error(state.status)
                return
            start = int(wanted[6:-1]) if wanted and state.ranges else 0
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
            self.send_header("Content-Length", str(len(DATA) - start))
            self.end_headers()
            end = start + state.cut_after.pop(0) if state.cut_after else len(DATA)
            self.wfile.write(DATA[start:end])

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_port}/file"
        yield state
        http.shutdown()
        thread.join()


def fetch(url: str, target: Path, **options: Any) -> Path:
    return download(url, target, **{"size": len(DATA), "sha256": SHA256, "pause": 0, **options})


def test_whole_file_with_progress(server: Server, tmp_path: Path) -> None:
    steps: list[Progress] = []
    path = fetch(server.url, tmp_path / "deep" / "f", label="it", progress=steps.append)
    assert path.read_bytes() == DATA
    assert steps[-1] == Progress("it", len(DATA), len(DATA))
    assert [step.done for step in steps] == sorted({step.done for step in steps})
    assert list(path.parent.iterdir()) == [path]


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch(server.url, tmp_path / "f")
    fetch(server.url, tmp_path / "f")
    assert len(server.asked) == 1
    (tmp_path / "f").write_bytes(b"damaged")
    assert fetch(server.url, tmp_path / "f").read_bytes() == DATA


def test_broken_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut_after = [1000, 500_000]
    assert fetch(server.url, tmp_path / "f").read_bytes() == DATA
    assert server.asked == ["", "bytes=1000-", "bytes=501000-"]


def test_next_run_goes_on_where_the_last_one_stopped(server: Server, tmp_path: Path) -> None:
    server.cut_after = [1000, 1000, 1000]
    with pytest.raises(ImageError, match="ended early"):
        fetch(server.url, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    assert fetch(server.url, tmp_path / "f").read_bytes() == DATA
    assert server.asked[-1] == "bytes=3000-"


def test_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "f.part").write_bytes(DATA[:5000])
    assert fetch(server.url, tmp_path / "f").read_bytes() == DATA


@pytest.mark.parametrize("rest", [b"wrong" * 100, b"x" * (len(DATA) + 5), DATA[:-1] + b"!"])
def test_wrong_beginning_is_thrown_away(server: Server, tmp_path: Path, rest: bytes) -> None:
    (tmp_path / "f.part").write_bytes(rest)
    assert fetch(server.url, tmp_path / "f").read_bytes() == DATA


def test_wrong_hash(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ImageCorrupt, match="SHA-256"):
        fetch(server.url, tmp_path / "f", sha256="0" * 64)
    assert list(tmp_path.glob("f*")) == []


def test_more_than_promised_is_refused_before_it_fills_the_disk(
    server: Server, tmp_path: Path
) -> None:
    with pytest.raises(ImageCorrupt, match="larger than the 1000 bytes"):
        fetch(server.url, tmp_path / "f", size=1000)


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (503, 3)])
def test_errors_of_the_server(server: Server, tmp_path: Path, status: int, tries: int) -> None:
    server.status = status
    with pytest.raises(ImageError, match=f"answers {status}"):
        fetch(server.url, tmp_path / "f")
    assert len(server.asked) == tries


def test_no_server(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"can't fetch http://127\.0\.0\.1:9/f"):
        fetch("http://127.0.0.1:9/f", tmp_path / "f")


def test_file_urls(tmp_path: Path) -> None:
    source = tmp_path / "with space"
    source.write_bytes(DATA)
    (tmp_path / "f.part").write_bytes(DATA[:77])
    assert fetch(source.as_uri(), tmp_path / "f").read_bytes() == DATA
    with pytest.raises(ImageError, match="No such file"):
        fetch((tmp_path / "none").as_uri(), tmp_path / "g")


@pytest.mark.parametrize("url", ["ftp://host/f", "f", "file://host/f"])
def test_other_urls_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ImageError, match="can't fetch"):
        fetch(url, tmp_path / "f")
