"""``ringfence bench`` with a real guest."""

import json

import pytest

from ringfence import images
from ringfence.cli.app import invoke
from ringfence.measure import CASES, Native


def test_each_case_runs_on_the_host(debian: str) -> None:
    initrd = images.resolve(debian).initrd
    assert initrd is not None
    with Native(initrd) as native:
        for case in CASES.values():
            assert native.seconds(f"set -e\nN=3\n{case.script}\n") > 0, case.name


def test_bench_compares_bt_with_the_host(debian: str, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--engine", "bt", "--runs", "1", "--seconds", "0.05", "--json"]
    assert invoke(["bench", "shell", "syscall", *arguments]) == 0
    values = json.loads(capfd.readouterr().out)
    assert set(values) == {"shell_loops_per_s", "syscall_calls_per_s"}
    for value in values.values():
        assert value["median"]["native"] > 0
        assert value["median"]["bt"] > 0
