"""Downloads that are checked, resumed and atomic.

A file under its final name is whole and has the hash that was asked for. What has arrived so far
is beside it with ``.part`` appended, and the next try goes on from there (RFC 9110 section 14,
byte ranges).
"""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, cast

from ringfence.errors import ImageCorrupt, ImageError
from ringfence.images.model import Progress, ProgressCallback, ignore_progress

SCHEMES = {"http", "https", "file"}
CHUNK = 256 << 10
TIMEOUT_SECONDS = 30.0
TRIES = 3
# An index without a known size: far above Debian's, far below a full disk.
MAXIMUM_UNSIZED = 256 << 20


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    label: str = "",
    progress: ProgressCallback = ignore_progress,
    pause: float = 0.5,
) -> Path:
    """Fetches ``url`` (http, https or file) into ``target`` unless it is there already.

    Raises:
        ImageError: it can't be had.
        ImageCorrupt: what came has another size or hash than asked for.
    """
    label = label or target.name
    if sha256 is not None and target.is_file() and matches(target, size, sha256):
        progress(Progress(label, target.stat().st_size, target.stat().st_size))
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if sha256 is None:
        part.unlink(missing_ok=True)  # without a hash nobody could tell a mixture
    for attempt in range(1, TRIES + 1):
        resumed = part.is_file() and part.stat().st_size > 0
        try:
            _transfer(url, part, size, label, progress)
        except (OSError, http.client.HTTPException) as error:
            if attempt == TRIES or not _transient(error):
                raise ImageError(f"can't fetch {url}: {_reason(error)}") from error
            time.sleep(pause * attempt)
            continue
        if sha256 is None or matches(part, size, sha256):
            part.replace(target)
            return target
        part.unlink()
        if not resumed:
            break
    raise ImageCorrupt(
        f"{url} is not the file that its index names (size or SHA-256 differ): try again later, "
        "or another mirror"
    )


def matches(path: Path, size: int | None, sha256: str) -> bool:
    """Whether the file has this size (where given) and this SHA-256 (hexadecimal)."""
    if size is not None and path.stat().st_size != size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256.lower()


def _transfer(
    url: str, part: Path, size: int | None, label: str, progress: ProgressCallback
) -> None:
    done = part.stat().st_size if part.is_file() else 0
    limit = size if size is not None else MAXIMUM_UNSIZED
    if done > limit:
        done = 0
    if done == limit:
        return
    with _opened(url, done) as (stream, start), part.open("r+b" if start else "wb") as file:
        file.truncate(start)
        file.seek(start)
        done = start
        while chunk := stream.read(CHUNK):
            done += len(chunk)
            if done > limit:
                file.truncate(0)
                raise ImageCorrupt(f"{url} is larger than the {limit} bytes it should have")
            file.write(chunk)
            progress(Progress(label, done, size))
        file.flush()
        os.fsync(file.fileno())
    if size is not None and done < size:
        raise http.client.IncompleteRead(b"", size - done)


@contextmanager
def _opened(url: str, offset: int) -> Iterator[tuple[IO[bytes], int]]:
    """The resource, and the offset that its first byte has: ``offset``, or 0."""
    scheme = urllib.parse.urlsplit(url).scheme
    if scheme not in SCHEMES:
        raise ImageError(f"can't fetch {url}: Ringfence knows http, https and file")
    if scheme == "file":
        with Path(file_path(url)).open("rb") as file:
            file.seek(offset)
            yield file, offset
        return
    request = urllib.request.Request(url)  # noqa: S310 - the scheme was checked
    request.add_header("User-Agent", "ringfence")
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        request.remove_header("Range")
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310
    with closing(cast("http.client.HTTPResponse", response)) as reply:
        ranged = reply.headers.get("Content-Range", "")
        resumed = reply.status == http.HTTPStatus.PARTIAL_CONTENT
        start = offset if resumed and ranged.startswith(f"bytes {offset}-") else 0
        if resumed and start != offset:
            raise ImageError(f"can't fetch {url}: the server sent another part than asked for")
        yield cast("IO[bytes]", reply), start


def file_path(url: str) -> str:
    """The path of a ``file:`` URL (RFC 8089)."""
    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise ImageError(f"can't fetch {url}: a file URL has three slashes, as file:///srv/debian")
    return urllib.parse.unquote(parts.path)


def _transient(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR
    return not isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, http.client.IncompleteRead):
        return "the transfer ended early"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
