"""The work program on the host: it builds, and its results do not change from run to run."""

import shutil
import subprocess
from pathlib import Path

import pytest
from bench import work

pytestmark = pytest.mark.skipif(shutil.which(work.COMPILER) is None, reason="needs a C compiler")


def output(*arguments: str) -> list[str]:
    command = [str(work.program()), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_results_are_the_same_each_time() -> None:
    first = output("--check")
    assert output("--check") == first
    assert [line.split()[0] for line in first] == work.names()


def test_results_known_from_elsewhere() -> None:
    results = dict(line.split() for line in output("--check", "calls", "fork", "getpid", "faults"))
    values = {name: int(value, 16) for name, value in results.items()}
    # Three times: the 16th Fibonacci number, exit status 7, 100 calls, 1,024 pages.
    assert values == {"calls": 3 * 987, "fork": 21, "getpid": 300, "faults": 3 * 1024}


def test_rates_have_the_listed_units() -> None:
    units = dict(line.split() for line in output("--list"))
    for line in output("--seconds", "0.01", "integer", "pipe"):
        rate = work.parse_rate(line)
        assert rate.value > 0
        assert rate.unit == units[rate.name]


def test_unknown_names_are_an_error(tmp_path: Path) -> None:
    done = subprocess.run([work.program(), "nothing"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"unknown name" in done.stderr
