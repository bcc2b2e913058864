import pytest
from bench.report import Series
from bench.work import Rate, parse_rate


@pytest.fixture
def rates() -> Series:
    series = Series(["ringfence", "qemu-tcg", "native"], higher=True)
    for value in (3.0, 1.0, 200.0):
        series.add("copy", "MiB/s", "ringfence", value)
    series.add("copy", "MiB/s", "qemu-tcg", 1.5)
    series.add("sort", "items/s", "ringfence", 8e6)
    series.add("sort", "items/s", "qemu-tcg", 1e6)
    return series


def test_medians_and_ratios(rates: Series) -> None:
    assert rates.median("copy", "ringfence") == 3.0
    assert rates.ratio("copy", "ringfence", "qemu-tcg") == 2.0
    assert rates.ratio("copy", "ringfence", "native") is None
    assert rates.mean_ratio("ringfence", "qemu-tcg") == pytest.approx(4.0)


def test_less_time_is_better() -> None:
    series = Series(["ringfence", "qemu-tcg"], higher=False)
    series.add("boot", "s", "ringfence", 1.0)
    series.add("boot", "s", "qemu-tcg", 3.0)
    assert series.ratio("boot", "ringfence", "qemu-tcg") == 3.0


def test_table_lines_up_and_shows_what_is_missing(rates: Series) -> None:
    lines = rates.table().splitlines()
    assert [line.split()[0] for line in lines] == ["case", "copy", "sort", "geometric"]
    assert lines[1].split() == ["copy", "MiB/s", "3", "1.5", "-", "2", "-", "-"]
    assert "8 M" in lines[2]
    assert lines[3].split()[2] == "4"
    assert len({len(line) for line in lines}) == 1


def test_units_are_in_the_names_for_programs(rates: Series) -> None:
    assert list(rates.as_json()) == ["copy_MiB_per_s", "sort_items_per_s"]
    assert rates.as_json()["copy_MiB_per_s"]["median"]["ringfence"] == 3.0


def test_lines_of_the_work_program() -> None:
    assert parse_rate("fork 5.5e+02 processes/s\n") == Rate("fork", 550.0, "processes/s")
    with pytest.raises(ValueError, match="unpack"):
        parse_rate("Killed")
