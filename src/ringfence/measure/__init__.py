"""Measures guests against the host itself, by turns in one run: ``ringfence bench``.

A figure alone says little on a machine that others use too; ratios of figures taken by turns do.
"""

from ringfence.measure.cases import CASES, Case
from ringfence.measure.platforms import Guest, Native, Platform
from ringfence.measure.run import measure
from ringfence.measure.series import Series, figure

__all__ = ["CASES", "Case", "Guest", "Native", "Platform", "Series", "figure", "measure"]
