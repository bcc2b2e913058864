"""The ``ringfence`` command, as a user's shell would start it."""

import os
import subprocess
import sys
from collections.abc import Sequence

RINGFENCE = [sys.executable, "-m", "ringfence.cli"]


def ringfence(
    *arguments: str, data: bytes = b"", timeout: float = 120
) -> subprocess.CompletedProcess[bytes]:
    """Runs one command line to its end."""
    return subprocess.run(
        [*RINGFENCE, *arguments], input=data, capture_output=True, timeout=timeout, check=False
    )


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts one command line."""
    return subprocess.Popen(
        [*RINGFENCE, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
    )
