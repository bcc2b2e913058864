"""Takes measurements by turns."""

from collections.abc import Callable, Sequence

from ringfence.measure.cases import Case
from ringfence.measure.platforms import Platform
from ringfence.measure.series import Series

__all__ = ["measure"]

# Work is repeated until the host needs this share of the wanted time for it.
_ENOUGH = 0.8
_MOST = 1 << 40


def measure(
    platforms: Sequence[Platform],
    cases: Sequence[Case],
    *,
    runs: int = 3,
    seconds: float = 0.5,
    note: Callable[[str], None] = lambda _: None,
) -> Series:
    """Measures every case on every platform, by turns.

    Args:
        platforms: Where, started; the first, which is the fastest, tells how much work is enough.
        cases: What.
        runs: How often.
        seconds: How long the first platform works for a measurement.
        note: Told how far it is.

    Returns:
        Rates: more is better.

    Raises:
        RingfenceError: a guest failed, or the host's program.
    """
    series = Series([platform.name for platform in platforms], higher=True)
    overheads = {platform.name: _overhead(platform) for platform in platforms}
    for case in cases:
        amount = _amount(platforms[0], case, seconds, overheads[platforms[0].name])
        for _ in range(runs):
            for platform in platforms:
                took = platform.seconds(_script(case, amount)) - overheads[platform.name]
                rate = amount * case.scale / max(took, 1e-6)
                series.add(case.name, case.unit, platform.name, rate)
        note(f"{case.name} done")
    return series


def _script(case: Case, amount: int) -> str:
    return f"N={amount}\n{case.script}\n"


def _overhead(platform: Platform) -> float:
    """Seconds that a script takes which does nothing."""
    return min(platform.seconds(":") for _ in range(3))


def _amount(platform: Platform, case: Case, seconds: float, overhead: float) -> int:
    """How much work takes about ``seconds``."""
    amount = case.first
    while amount < _MOST:
        took = max(platform.seconds(_script(case, amount)) - overhead, 1e-4)
        if took >= seconds * _ENOUGH:
            break
        # A short try tells little: it may only lead to a longer one.
        amount = max(int(amount * min(seconds / took, 20)), amount + 1)
    return amount
