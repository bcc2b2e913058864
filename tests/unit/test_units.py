"""Sizes and durations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import ConfigError
from ringfence.units import format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512M", 512 << 20),
        ("1.5G", 3 << 29),
        ("64KiB", 64 << 10),
        ("64 kb", 64 << 10),
        (" 2t ", 2 << 40),
        ("17", 17),
        ("17B", 17),
        (".5K", 512),
        ("0.0009765625K", 1),
        (4096, 4096),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "512M"),
        ("M", "512M"),
        ("1.2.3M", "512M"),
        ("-1", "512M"),
        ("1e3", "no unit"),
        ("5X", "no unit"),
        ("0.3", "whole number"),
        ("1.0001K", "whole number"),
        ("9" * 60, "too large"),
        ("9" * 100, "…"),
        (-5, "negative"),
        (True, "not a size"),
        ("٣M", "512M"),
    ],
)
def test_sizes_that_are_none(text: str | int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("30s", 30), ("250ms", 0.25), ("1.5m", 90), ("2h", 7200), (7, 7), (0.5, 0.5)],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "soon", "-3", "5 years", "1e9", "9" * 40, -1, 1e300, float("nan"), True]
)
def test_durations_that_are_none(text: str | float) -> None:
    with pytest.raises(ConfigError):
        parse_duration(text)


@given(st.integers(0, 1 << 60))
def test_formatted_sizes_are_read_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=80))
def test_any_text_is_a_size_or_an_error(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            assert parse(text) >= 0
        except ConfigError as error:
            assert len(str(error)) < 400  # noqa: PT017
