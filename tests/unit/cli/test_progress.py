import io

import pytest

from ringfence.cli.progress import ProgressBar, human_size, line, shown
from ringfence.images.model import Progress


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (22_334_455, "21.3 MiB"),
        (150 << 20, "150 MiB"),
        (3 << 40, "3.0 TiB"),
    ],
)
def test_human_size(size: int, text: str) -> None:
    assert human_size(size) == text


def test_bar_is_full_at_the_end_and_no_fuller() -> None:
    assert "─" not in line(Progress("kernel", 10, 10))
    assert line(Progress("kernel", 12, 10)).count("━") == line(Progress("kernel", 10, 10)).count(
        "━"
    )
    assert "━" not in line(Progress("kernel", 0, 10))


def test_unknown_total_shows_bytes() -> None:
    assert line(Progress("unpacking")) == "unpacking"
    assert line(Progress("kernel", 2048, None)) == "kernel  2.0 KiB"


def test_bar_redraws_in_place_and_ends_its_line() -> None:
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar(Progress("kernel", 0, 10))
    bar(Progress("kernel", 10, 10))
    bar(Progress("busybox", 5, 5))
    bar.close()
    bar.close()
    assert stream.getvalue().count("\n") == 2
    assert stream.getvalue().count("\r") == 3


def test_nothing_is_drawn_off_a_terminal() -> None:
    with shown(io.StringIO()) as bar:
        assert bar is None
