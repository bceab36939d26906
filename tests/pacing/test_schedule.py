"""Targets, to the nano."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.errors import ConfigError, InvariantError
from rtb.ledger.calendar import day_bounds_s, day_of
from rtb.pacing.schedule import AHEAD_E6_MAX, HOUR_S, Schedule, Shape, pacing_error_e6

DAY_S = 86_400
BUDGET = 1_000_000_007

# shape, seconds since the start, nanos of a budget of 1,000
TARGETS = [
    (Shape.EVEN, -1, 0),
    (Shape.EVEN, 0, 0),
    (Shape.EVEN, 43_200, 500),
    (Shape.EVEN, DAY_S - 1, 999),
    (Shape.EVEN, DAY_S, 1000),
    (Shape.EVEN, 2 * DAY_S, 1000),
    (Shape.AHEAD, 0, 0),
    (Shape.AHEAD, 21_600, 343),
    (Shape.AHEAD, 43_200, 625),
    (Shape.AHEAD, DAY_S, 1000),
    (Shape.ASAP, -1, 0),
    (Shape.ASAP, 0, 1000),
]


@pytest.mark.parametrize(("shape", "since_s", "expected"), TARGETS, ids=str)
def test_targets(shape: Shape, since_s: int, expected: int) -> None:
    """Each shape has its target at a moment of a day."""
    schedule = Schedule(1000, 1000 + DAY_S, shape)

    assert expected == schedule.target_nanos(1000, 1000 + since_s)


def test_curve_follows_traffic() -> None:
    """Between the hours' shares the target grows with the clock."""
    schedule = Schedule(0, 3 * HOUR_S, Shape.CURVE, traffic=(1, 0, 3))
    targets = [schedule.target_nanos(1000, hour * HOUR_S // 2) for hour in range(7)]

    assert [0, 125, 250, 250, 250, 625, 1000] == targets


def test_no_forecast_is_even() -> None:
    """A curve of nothing but zeros says nothing, so the clock does."""
    schedule = Schedule(0, 2 * HOUR_S, Shape.CURVE, traffic=(0, 0))

    assert 500 == schedule.target_nanos(1000, HOUR_S)


@pytest.mark.parametrize(
    ("zone", "noon", "hours"),
    [("Europe/Berlin", "2026-03-29T12:00", 23), ("Europe/Berlin", "2026-10-25T12:00", 25),
     ("Australia/Lord_Howe", "2026-10-04T02:00", 23.5)],
)  # fmt: skip
def test_days_of_other_lengths(zone: str, noon: str, hours: float) -> None:
    """A day on which clocks are changed ends with the whole budget, like any other."""
    time_s = int(datetime.fromisoformat(noon).replace(tzinfo=UTC).timestamp())
    start_s, end_s = day_bounds_s(day_of(time_s, ZoneInfo(zone)), ZoneInfo(zone))
    schedule = Schedule(start_s, end_s, Shape.CURVE, traffic=(1,) * 25)

    assert hours * HOUR_S == end_s - start_s
    assert 480 == schedule.target_nanos(round(hours * 40), start_s + 12 * HOUR_S)
    assert BUDGET == schedule.target_nanos(BUDGET, end_s)
    assert schedule.target_nanos(BUDGET, end_s - 1) < BUDGET


def test_empty_period() -> None:
    """A day that a zone never had is over when it begins."""
    for shape in Shape:
        schedule = Schedule(100, 100, shape)

        assert 0 == schedule.target_nanos(BUDGET, 99)
        assert BUDGET == schedule.target_nanos(BUDGET, 100)


@given(
    shape=st.sampled_from(Shape),
    length_s=st.integers(1, 40 * HOUR_S),
    budget=st.integers(-5, 2**63),
    ahead_e6=st.integers(1_000_000, AHEAD_E6_MAX),
    traffic=st.lists(st.integers(0, 2**40), min_size=40, max_size=40),
    moments=st.lists(st.integers(-10, 41 * HOUR_S), min_size=2, max_size=20),
)
def test_any_schedule_never_falls(
    shape: Shape,
    length_s: int,
    budget: int,
    ahead_e6: int,
    traffic: list[int],
    moments: list[int],
) -> None:
    """A target is never negative, never falls, and is exactly the budget at the end."""
    schedule = Schedule(50, 50 + length_s, shape, ahead_e6, tuple(traffic))
    targets = [schedule.target_nanos(budget, 50 + moment) for moment in sorted(moments)]

    assert sorted(targets) == targets
    assert all(0 <= target <= max(budget, 0) for target in targets)
    assert max(budget, 0) == schedule.target_nanos(budget, 50 + length_s)
    assert 0 == schedule.target_nanos(budget, 49)


@pytest.mark.parametrize(
    "traffic", [(), (1,), (1, -1), (1,) * (5 * 366 * 24 + 1)], ids=["none", "few", "below", "many"]
)
def test_bad_forecasts(traffic: tuple[int, ...]) -> None:
    """A forecast covers the period, without negative hours and within limits."""
    with pytest.raises(InvariantError, match=r"schedule\.traffic"):
        Schedule(0, 2 * HOUR_S, Shape.CURVE, traffic=traffic)


@pytest.mark.parametrize("ahead_e6", [999_999, 2_000_001])
def test_bad_factor(ahead_e6: int) -> None:
    """Behind is not ahead, and beyond two the target would have to fall."""
    with pytest.raises(ConfigError, match=r"pacing\.ahead"):
        Schedule(0, 1, Shape.AHEAD, ahead_e6)


@pytest.mark.parametrize(
    ("spent", "target", "budget", "expected"),
    [(50, 50, 100, 0), (40, 50, 100, 100_000), (60, 50, 100, 100_000), (1, 0, 3, 333_334),
     (0, 0, 0, 0), (1, 0, 0, 1_000_000), (10**18 + 1, 10**18, 10**18, 1)],
)  # fmt: skip
def test_pacing_error(spent: int, target: int, budget: int, expected: int) -> None:
    """The error is in millionths of the budget, rounded up, whichever side it is on."""
    assert expected == pacing_error_e6(spent, target, budget)
