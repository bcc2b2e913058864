"""Threads that wait for the host's disks, and the media of a machine."""

import errno
import threading
import time
from pathlib import Path

import pytest

from ringfence.bus import BlockQueue
from ringfence.config import DiskConfig, MachineConfig
from ringfence.errors import ConfigError, ImageCorrupt, ImageInUse
from ringfence.machine.media import Media
from ringfence.machine.workers import DiskWorkers
from support.disks import MemoryDisk


class Bench:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.failures: list[BaseException] = []
        self.workers = DiskWorkers(self.lock, self.failures.append)
        self.seen: list[OSError | None] = []

    def done(self, error: OSError | None) -> None:
        assert self.lock._is_owned()  # type: ignore[attr-defined]
        self.seen.append(error)


def test_work_is_done_without_the_lock_and_told_with_it() -> None:
    bench = Bench()
    gate = threading.Event()
    with bench.lock:
        for _ in range(8):
            bench.workers.submit(gate.wait, bench.done)
        assert not bench.seen
        gate.set()
        bench.workers.drain()
        assert bench.seen == [None] * 8, "whoever drains makes the calls"
    bench.workers.close()


def test_errors_of_the_host_are_told_and_defects_end_the_machine() -> None:
    bench = Bench()

    def full() -> None:
        raise OSError(errno.ENOSPC, "full")

    def broken() -> None:
        raise ZeroDivisionError

    bench.workers.submit(full, bench.done)
    bench.workers.submit(broken, bench.done)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not (bench.seen and bench.failures):
        time.sleep(0.005)
    assert [error and error.errno for error in bench.seen] == [errno.ENOSPC]
    assert isinstance(bench.failures[0], ZeroDivisionError)
    bench.workers.close()


def test_a_queue_forgets_what_was_cancelled() -> None:
    bench = Bench()
    disk = MemoryDisk(4096, cached=False)
    queue = BlockQueue(disk, bench.workers)
    with bench.lock:
        queue.read(0, [bytearray(512)], bench.done)
        assert queue.busy
        queue.cancel()
        assert not queue.busy
        queue.write(0, [b"x" * 512], bench.done)
        queue.settle()
    assert bench.seen == [None]
    assert disk.data[:512] == b"x" * 512
    bench.workers.close()


def test_media_are_opened_all_or_none(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.img", tmp_path / "bad.img"
    good.write_bytes(bytes(4096))
    bad.write_bytes(b"")
    with pytest.raises(ImageCorrupt, match="empty"):
        Media(MachineConfig.from_mapping({"kernel": "k", "disks": [good, bad]}))
    config = MachineConfig.from_mapping({"kernel": "k", "disks": [good], "cdroms": [None]})
    media = Media(config)
    with pytest.raises(ImageInUse):
        Media(config)
    assert media.removable("cdrom") == "cdrom0"
    for wrong in ("disk0", "floppy0", "tape"):
        with pytest.raises(ConfigError, match="cdrom0"):
            media.removable(wrong)
    assert media.open("cdrom0", DiskConfig(file=None)) is None
    media.close()
    Media(config).close()
