"""Medians, ratios, tables."""

import json
import sys
from collections.abc import Sequence

from ringfence import measure

PAIRS = (
    ("ringfence", "qemu-tcg"),
    ("ringfence", "native"),
    ("kvm", "native"),
    ("qemu-tcg", "native"),
    ("kvm", "bt"),
)


class Series(measure.Series):
    """Measurements by case and platform. ``higher`` says whether more is better."""

    def __init__(self, platforms: Sequence[str], *, higher: bool) -> None:
        super().__init__(platforms, higher=higher, compared=PAIRS)


def show(series: Series, *, as_json: bool) -> None:
    """Prints a series for people or for programs."""
    if as_json:
        print(json.dumps(series.as_json(), indent=2))
        return
    print(series.table())
    if series.pairs():
        print("A column a/b says how many times as fast a is as b.")


def note(text: str) -> None:
    """Tells the person at the terminal how far it is."""
    print(text, file=sys.stderr, flush=True)
