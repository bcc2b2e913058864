from pathlib import Path
from typing import Self

import pytest

from ringfence.cli.app import invoke
from ringfence.errors import ConfigError, ImageCorrupt
from ringfence.images.cpio import overlay
from ringfence.measure import CASES, Case, Series, measure
from ringfence.measure.chart import check, draw
from ringfence.measure.platforms import extract


class Steady:
    """A platform that does so many units a second, after a while for each script."""

    def __init__(self, name: str, speed: float, overhead: float = 0.01) -> None:
        self.name = name
        self.scripts: list[str] = []
        self._speed, self._overhead = speed, overhead

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def seconds(self, script: str) -> float:
        self.scripts.append(script)
        amount = int(script.split()[0].removeprefix("N=")) if script.startswith("N=") else 0
        return self._overhead + amount / self._speed


CASE = Case("count", "steps/s", "counts", "true $N", first=10, scale=2)


def test_rates_are_free_of_overhead() -> None:
    host, guest = Steady("native", 1e6), Steady("bt", 2.5e5, overhead=0.2)
    series = measure([host, guest], [CASE], runs=2, seconds=0.5)
    assert series.median("count", "native") == pytest.approx(2e6)
    assert series.median("count", "bt") == pytest.approx(5e5)
    assert series.ratio("count", "bt", "native") == pytest.approx(0.25)
    assert series.pairs() == [("bt", "native")]
    assert len(series.values["count"]["bt"]) == 2


def test_all_do_the_same_work_which_takes_the_first_long_enough() -> None:
    host, guest = Steady("native", 1e6), Steady("bt", 1e5)
    measure([host, guest], [CASE], runs=1, seconds=0.5)
    assert host.scripts[-1] == guest.scripts[-1]
    amount = int(host.scripts[-1].split()[0].removeprefix("N="))
    assert 0.4 <= amount / 1e6 <= 0.6


def test_a_table_has_the_mean_of_ratios() -> None:
    series = Series(["native", "bt"], higher=True)
    for case, speed in (("one", 0.5), ("two", 0.125)):
        series.add(case, "x/s", "native", 100.0)
        series.add(case, "x/s", "bt", 100.0 * speed)
    assert series.table().splitlines()[-1].split()[-1] == "0.25"


def test_files_come_out_of_an_archive() -> None:
    archive = overlay({"bin/first": b"1", "bin/busybox": b"program"})
    assert extract(archive, "bin/busybox") == b"program"
    for bad in (archive[:40], b"", b"070701" + b"x" * 200):
        with pytest.raises(ImageCorrupt):
            extract(bad, "bin/busybox")


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_chart_is_drawn(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    series = measure([Steady("native", 1e6), Steady("bt", 2.5e5)], [CASE], runs=1)
    path = tmp_path / f"chart{suffix}"
    check(path)
    draw(series, path, "test")
    head = path.read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if suffix == ".png" else b"<?xml" in head


def test_a_chart_needs_a_known_format_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not end"):
        check(tmp_path / "chart.txt")
    with pytest.raises(ConfigError, match="not there"):
        check(tmp_path / "missing" / "chart.png")


def test_a_chart_without_matplotlib_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"ringfence\[plot\]"):
        check(tmp_path / "chart.png")


def test_the_command_lists_cases_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["bench", "--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(CASES)
    assert invoke(["bench", "nonsense"]) != 0
    assert "no case nonsense" in capsys.readouterr().err
