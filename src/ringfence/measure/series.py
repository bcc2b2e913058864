"""Measurements by case and platform: medians, ratios, tables."""

import statistics
from collections.abc import Sequence
from typing import Any

__all__ = ["Series", "figure"]


class Series:
    """Measurements by case and platform.

    Args:
        platforms: Their names, in the order of the columns.
        higher: Whether more is better.
        compared: Pairs of platforms whose ratio is told, where both were measured; by default
            each with the first.
    """

    def __init__(
        self,
        platforms: Sequence[str],
        *,
        higher: bool,
        compared: Sequence[tuple[str, str]] | None = None,
    ) -> None:
        self.platforms = list(platforms)
        self.higher = higher
        self.units: dict[str, str] = {}
        self.values: dict[str, dict[str, list[float]]] = {}
        self._compared = compared

    def add(self, case: str, unit: str, platform: str, value: float) -> None:
        """Notes one measurement."""
        self.units[case] = unit
        self.values.setdefault(case, {}).setdefault(platform, []).append(value)

    def median(self, case: str, platform: str) -> float | None:
        """The median of a case on a platform, or None where it did not run."""
        values = self.values[case].get(platform)
        return statistics.median(values) if values else None

    def ratio(self, case: str, ours: str, theirs: str) -> float | None:
        """How many times better ``ours`` is than ``theirs``: 2 is twice as fast."""
        mine, other = self.median(case, ours), self.median(case, theirs)
        if not mine or not other:
            return None
        return mine / other if self.higher else other / mine

    def mean_ratio(self, ours: str, theirs: str) -> float | None:
        """The geometric mean of the ratios of all cases that both ran."""
        ratios = [ratio for case in self.values if (ratio := self.ratio(case, ours, theirs))]
        return statistics.geometric_mean(ratios) if ratios else None

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of platforms that are compared and were both measured."""
        if self._compared is None:
            return [(name, self.platforms[0]) for name in self.platforms[1:]]
        return [pair for pair in self._compared if set(pair) <= set(self.platforms)]

    def as_json(self) -> dict[str, Any]:
        """All of it, with the unit in each metric's name."""
        return {
            f"{case}_{_word(self.units[case])}": {
                "median": {p: self.median(case, p) for p in self.platforms},
                "runs": self.values[case],
                "times_as_fast": {f"{a}/{b}": self.ratio(case, a, b) for a, b in self.pairs()},
            }
            for case in self.values
        }

    def table(self) -> str:
        """Rows of cases, columns of platforms and of ratios, and the ratios' geometric means."""
        pairs = self.pairs()
        rows = [["case", "unit", *self.platforms, *(f"{a}/{b}" for a, b in pairs)]]
        for case in self.values:
            medians = [figure(self.median(case, p)) for p in self.platforms]
            ratios = [figure(self.ratio(case, a, b)) for a, b in pairs]
            rows.append([case, self.units[case], *medians, *ratios])
        if pairs and len(self.values) > 1:
            rows.append(["geometric mean", "", *("" for _ in self.platforms)])
            rows[-1] += [figure(self.mean_ratio(a, b)) for a, b in pairs]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if index < 2 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )


def figure(value: float | None) -> str:
    """A number in three digits."""
    if value is None:
        return "-"
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if suffix == 'k' else size):.3g} {suffix}"
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _word(unit: str) -> str:
    return unit.replace("/s", "_per_s").replace("-", "_").replace("/", "_per_")
