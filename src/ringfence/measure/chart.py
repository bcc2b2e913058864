"""A chart of measurements, by matplotlib, which is an optional extra."""

from pathlib import Path
from typing import Any

from ringfence.errors import ConfigError
from ringfence.measure.series import Series, figure

__all__ = ["check", "draw"]

_FORMATS = (".png", ".svg", ".pdf")


def check(path: Path) -> None:
    """Makes sure that :func:`draw` can write there, before anything is measured.

    Raises:
        ConfigError: the name ends with no format that there is, the folder is not there, or
            matplotlib is missing.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(f"plot: {path.name} does not end with one of {', '.join(_FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"plot: the folder {path.parent} is not there")
    _figure_class()


def draw(series: Series, path: Path, title: str) -> None:
    """Draws how fast each platform is, the first one being 1, as bars by case.

    Raises:
        ConfigError: as for :func:`check`, or the file can't be written.
    """
    base, *others = series.platforms
    cases = [case for case in series.values if series.median(case, base)]
    picture = _figure_class()(figsize=(2 + 0.9 * max(len(cases), 3), 4.5), layout="constrained")
    axes = picture.add_subplot()
    width = 0.8 / max(len(others), 1)
    for number, name in enumerate(others):
        ratios = [series.ratio(case, name, base) or 0.0 for case in cases]
        places = [at + (number - (len(others) - 1) / 2) * width for at in range(len(cases))]
        bars = axes.bar(places, ratios, width, label=name)
        axes.bar_label(bars, [figure(ratio) for ratio in ratios], fontsize=8)
    axes.axhline(1, color="black", linewidth=1, label=base)
    axes.set_xticks(range(len(cases)), cases, rotation=30, ha="right")
    axes.set_ylabel(f"speed, {base} = 1")
    axes.set_title(title)
    axes.legend()
    try:
        picture.savefig(path)
    except OSError as error:
        raise ConfigError(f"plot: {path} can't be written: {error.strerror}") from error


def _figure_class() -> Any:
    """The class of figures: drawn without a window, whatever the user's settings."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "plot: matplotlib is not installed; to mend it, pip install 'ringfence[plot]'"
        ) from None
    return Figure
