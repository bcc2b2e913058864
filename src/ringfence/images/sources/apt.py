"""Packages from the host's own apt: its archives, its keys, its proxies.

Nothing on the system changes and no root is needed: where the system's package lists are empty,
lists of our own are fetched into the cache. apt-get(8), apt.conf(5); the progress lines are those
of apt's README.progress-reporting.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ringfence.errors import ImageCorrupt, ImageError
from ringfence.images.fetch import matches
from ringfence.images.model import Progress, ProgressCallback
from ringfence.images.sources.packages import Package, newest, parse_package

ARCHITECTURE = "amd64"
# The system's hooks are about the system's lists.
NO_HOOKS = """
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""


def available() -> bool:
    """Whether this host has apt."""
    return shutil.which("apt-get") is not None and shutil.which("apt-cache") is not None


class AptSource:
    """The host's apt, with a folder of ours for what it fetches.

    Args:
        cache: The folder.
        architecture: Of the packages; for another than the image's, lists of our own are fetched.
    """

    def __init__(self, cache: Path, architecture: str = ARCHITECTURE) -> None:
        self._cache = cache
        self._architecture = architecture
        self._private = False

    def find(self, name: str, progress: ProgressCallback) -> Package | None:
        """The version that apt would install, or None."""
        if self._architecture != ARCHITECTURE and not self._private:
            self._update(progress)
        found = self._show(name)
        if found is None and not self._private and not self._has_lists():
            self._update(progress)
            found = self._show(name)
        return found

    def fetch(self, package: Package, progress: ProgressCallback) -> Path:
        """Downloads with apt-get, which checks signatures; size and hash are checked here too."""
        target = self._cache / "packages" / package.cache_name
        if target.is_file() and matches(target, package.size, package.sha256):
            progress(Progress(package.label, package.size, package.size))
            return target
        # The same folder at the next try: apt goes on where it stopped.
        folder = self._cache / "packages" / f"{package.cache_name}.part"
        folder.mkdir(parents=True, exist_ok=True)

        def percent(value: float) -> None:
            progress(Progress(package.label, int(package.size * value / 100), package.size))

        self._run(["download", f"{package.name}={package.version}"], folder, percent)
        files = [file for file in folder.glob("*.deb") if file.stat().st_size == package.size]
        if not files or not matches(files[0], package.size, package.sha256):
            shutil.rmtree(folder, ignore_errors=True)
            raise ImageCorrupt(
                f"apt-get downloaded another {package.label} than its index names: "
                "run apt-get update and pull again"
            )
        files[0].replace(target)
        shutil.rmtree(folder, ignore_errors=True)
        progress(Progress(package.label, package.size, package.size))
        return target

    def _show(self, name: str) -> Package | None:
        done = subprocess.run(
            ["apt-cache", *self._options(), "show", "--no-all-versions", "--", name],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=_environment(),
        )
        stanzas = [text for text in done.stdout.split("\n\n") if "\nSHA256:" in text]
        # A virtual name shows the packages that provide it.
        packages = [parse_package(text, "apt's package list") for text in stanzas]
        return newest(package for package in packages if package.name == name)

    def _has_lists(self) -> bool:
        """Whether apt knows any package that could be downloaded."""
        return self._show("busybox-static") is not None

    def _update(self, progress: ProgressCallback) -> None:
        self._private = True
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (self._cache / "apt" / folder).mkdir(parents=True, exist_ok=True)
        (self._cache / "apt" / "apt.conf").write_text(NO_HOOKS)
        progress(Progress("package lists"))
        self._run(
            ["update"],
            self._cache,
            lambda value: progress(Progress("package lists", int(value), 100)),
        )

    def _options(self) -> list[str]:
        options = ["-o", f"APT::Architecture={self._architecture}"]
        if os.geteuid() == 0:
            # Otherwise apt complains that its own user can't write into the folder.
            options += ["-o", "APT::Sandbox::User=root"]
        if self._private:
            home = self._cache / "apt"
            options += ["-o", f"Dir::State={home / 'state'}", "-o", f"Dir::Cache={home / 'cache'}"]
            options += ["-c", str(home / "apt.conf")]
        return options

    def _run(
        self, arguments: Sequence[str], folder: Path, percent: Callable[[float], None]
    ) -> None:
        reader, writer = os.pipe()
        with (
            os.fdopen(reader, errors="replace") as status,
            tempfile.TemporaryFile("w+", errors="replace") as complaints,
        ):
            try:
                process = subprocess.Popen(
                    ["apt-get", *self._options(), f"-oAPT::Status-Fd={writer}", *arguments],
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=complaints,
                    pass_fds=[writer],
                    env=_environment(),
                )
            finally:
                os.close(writer)
            with process:
                try:
                    for line in status:
                        _report(line, percent)
                except BaseException:
                    process.terminate()
                    raise
            if process.returncode:
                complaints.seek(0)
                raise ImageError(f"apt-get {arguments[0]} failed: {_complaint(complaints.read())}")


def _report(line: str, percent: Callable[[float], None]) -> None:
    kind, _, rest = line.partition(":")
    fields = rest.split(":")
    if kind == "dlstatus" and len(fields) > 1:
        try:
            value = float(fields[1])
        except ValueError:
            return
        percent(min(max(value, 0.0), 100.0))


def _complaint(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("E: ")]
    return (
        "; ".join(line.removeprefix("E: ") for line in lines) or text.strip() or "no reason given"
    )


def _environment() -> dict[str, str]:
    # Messages in English, and no question that nobody would answer.
    return {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
