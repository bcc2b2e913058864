"""The proleptic Gregorian calendar, for clocks that count years and days."""

__all__ = ["civil", "seconds_of"]

_DAY = 86_400
_ERA = 146_097  # days in 400 years
_EPOCH = 719_468  # days from 0000-03-01 to 1970-01-01


def civil(seconds: int) -> tuple[int, int, int, int, int]:
    """Year, month, day of the month, weekday (1 = Sunday) and second of the day.

    ``seconds`` counts from 1970-01-01 UTC.
    """
    days, second = divmod(seconds, _DAY)
    # Years that begin in March have their leap day at the end.
    era, day_of_era = divmod(days + _EPOCH, _ERA)
    year = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    return year + era * 400 + (month <= 2), month, day, (days + 4) % 7 + 1, second


def seconds_of(year: int, month: int, day: int) -> int:
    """Seconds from 1970-01-01 UTC to the start of a day.

    Months and days out of range run over into the next or the previous ones.
    """
    year += (month - 1) // 12
    month = (month - 1) % 12 + 1
    year -= month <= 2
    era, year_of_era = divmod(year, 400)
    day_of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    day_of_era = year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year
    return (era * _ERA + day_of_era - _EPOCH) * _DAY
