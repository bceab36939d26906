"""Budget days: the local calendar days of an advertiser's time zone.

A day is named by its ordinal (`datetime.date.toordinal`) and is the time from its first moment to
the first moment of the next. Clocks are changed by law and whim, so nothing here is ever counted
by 86,400 seconds:

- a day has 23, 24 or 25 hours, or others where the law said so;
- midnight may not exist (Sao Paulo until 2018, Beirut, Cairo): the day begins where the gap ends;
- midnight may come twice (Havana), or evening may come back after midnight (St. John's until 2011,
  at 00:01): the day begins once, at the first, and does not end again;
- a day may not exist at all (Apia had no 30 December 2011): it is empty, and no moment is in it.

So days follow one another without hole or overlap, and a daily budget begins exactly once.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)


def day_of(time_s: int, zone: ZoneInfo) -> int:
    """The day that a moment is in, as an ordinal."""
    day = _local_day(time_s, zone)
    # The evening that comes back belongs to the day that had begun.
    return day + 1 if _start_s(day + 1, zone) <= time_s else day


def day_bounds_s(day: int, zone: ZoneInfo) -> tuple[int, int]:
    """A day as [start, end) in epoch seconds; empty for a day that the zone never had."""
    return _start_s(day, zone), _start_s(day + 1, zone)


def day_name(day: int) -> str:
    """A day for people: 2026-11-22."""
    return date.fromordinal(day).isoformat()


@lru_cache(maxsize=4096)  # yesterday to tomorrow of all zones; every lease asks for it
def _start_s(day: int, zone: ZoneInfo) -> int:
    """The first moment whose local date is `day` or later."""
    midnight = datetime.combine(date.fromordinal(day), time(), zone)
    first_s = _seconds(midnight)
    other_s = _seconds(midnight.replace(fold=1))
    if first_s <= other_s:
        return first_s  # one midnight, or the first of two
    # Midnight is in a gap: read by the clock after it, it lies before it (PEP 495).
    before_s, after_s = other_s, first_s
    while before_s < after_s:
        middle_s = (before_s + after_s) // 2
        if _local_day(middle_s, zone) >= day:
            after_s = middle_s
        else:
            before_s = middle_s + 1
    return after_s


@lru_cache(maxsize=1024)  # the present second of all zones
def _local_day(time_s: int, zone: ZoneInfo) -> int:
    return (_EPOCH + time_s * _SECOND).astimezone(zone).toordinal()


def _seconds(moment: datetime) -> int:
    return (moment.astimezone(UTC) - _EPOCH) // _SECOND
