"""Budget days, where clocks are changed."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.ledger.calendar import day_bounds_s, day_name, day_of

HOUR_S = 3600


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


# zone, day, first moment in UTC, hours
DAYS = [
    ("UTC", "2026-11-22", "2026-11-22T00:00", 24),
    ("Europe/Berlin", "2026-03-29", "2026-03-28T23:00", 23),
    ("Europe/Berlin", "2026-10-25", "2026-10-24T22:00", 25),
    ("America/New_York", "2026-03-08", "2026-03-08T05:00", 23),
    ("America/New_York", "2026-11-01", "2026-11-01T04:00", 25),
    ("Australia/Lord_Howe", "2026-04-05", "2026-04-04T13:00", 24.5),
    ("Australia/Lord_Howe", "2026-10-04", "2026-10-03T13:30", 23.5),
    ("Asia/Kathmandu", "2026-11-22", "2026-11-21T18:15", 24),
    # no midnight: the day begins at one
    ("America/Sao_Paulo", "2018-11-04", "2018-11-04T03:00", 23),
    ("America/Sao_Paulo", "2018-02-17", "2018-02-17T02:00", 25),
    ("Asia/Beirut", "2024-03-31", "2024-03-30T22:00", 23),
    ("Africa/Cairo", "2024-04-26", "2024-04-25T22:00", 23),
    # two midnights, the first begins the day
    ("America/Havana", "2024-11-03", "2024-11-03T04:00", 25),
    # the evening comes back a minute after midnight, and belongs to the day that had begun
    ("America/St_Johns", "2010-11-06", "2010-11-06T02:30", 24),
    ("America/St_Johns", "2010-11-07", "2010-11-07T02:30", 25),
    # a gap that begins before midnight and ends after it
    ("America/Scoresbysund", "2024-03-31", "2024-03-31T01:00", 24),
    # no such day
    ("Pacific/Apia", "2011-12-30", "2011-12-30T10:00", 0),
    ("Pacific/Apia", "2011-12-31", "2011-12-30T10:00", 24),
]


@pytest.mark.parametrize(("zone", "name", "start", "hours"), DAYS, ids=str)
def test_days(zone: str, name: str, start: str, hours: float) -> None:
    """A day begins at its first moment, and is as long as the law made it."""
    day = date.fromisoformat(name).toordinal()
    bounds = day_bounds_s(day, ZoneInfo(zone))

    assert (moment(start), moment(start) + hours * HOUR_S) == bounds
    assert name == day_name(day)
    if hours:
        assert day == day_of(bounds[0], ZoneInfo(zone))
        assert day == day_of(bounds[1] - 1, ZoneInfo(zone))


ZONES = sorted({zone for zone, *_ in DAYS} | {"Africa/Casablanca", "America/Asuncion",
               "Antarctica/Troll", "Asia/Gaza", "America/Toronto", "Asia/Tehran"})  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
@given(time_s=st.integers(0, 2_000_000_000))
def test_days_tile_time(zone: str, time_s: int) -> None:
    """Every moment is in one day, and days meet without hole or overlap."""
    place = ZoneInfo(zone)
    day = day_of(time_s, place)
    start_s, end_s = day_bounds_s(day, place)

    assert start_s <= time_s < end_s
    assert start_s == day_bounds_s(day - 1, place)[1]
    assert day <= day_of(end_s, place)


@pytest.mark.parametrize("zone", ZONES)
def test_days_begin_once(zone: str) -> None:
    """Over three years of odd changes, hour after hour, the day never goes back."""
    place = ZoneInfo(zone)
    start_s = moment("2009-06-01T00:00")
    days = [day_of(time_s, place) for time_s in range(start_s, start_s + 3 * 31_557_600, 7 * 900)]

    assert sorted(days) == days
