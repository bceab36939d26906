"""The traffic curve as it learns."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.errors import InvariantError
from rtb.pacing.curve import (
    FLAT,
    HOUR_S,
    SLOTS,
    WEIGHT_SCALE,
    Curve,
    observe,
    share_e6,
    slots,
    traffic_of,
    weights,
    with_prior,
)
from rtb.pacing.schedule import Schedule, Shape

NEW = Curve()
BERLIN = ZoneInfo("Europe/Berlin")


def weeks(count: int, hourly: list[int], curve: Curve = NEW) -> Curve:
    """The curve after so many weeks of the same hours."""
    for _ in range(count):
        for slot, requests in enumerate(hourly):
            curve = observe(curve, slot, requests, HOUR_S)
    return curve


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def test_learns_the_shape() -> None:
    """After weeks of the same, the expected hour is what it was."""
    hourly = [100 if slot % 24 < 8 else 1000 for slot in range(SLOTS)]
    expected = weights(weeks(40, hourly))

    assert expected[9] == pytest.approx(1000 * WEIGHT_SCALE, rel=0.05)
    assert expected[3] == pytest.approx(100 * WEIGHT_SCALE, rel=0.5)


def test_unseen_hours_come_from_the_prior() -> None:
    """Hours never counted have the prior's shape at the level of those that were."""
    prior = [1.0 if slot < 84 else 3.0 for slot in range(SLOTS)]
    curve = with_prior(prior)
    for slot in range(10):
        curve = observe(curve, slot, 500, HOUR_S)
    expected = weights(curve)

    assert 500 * WEIGHT_SCALE == expected[50]
    assert 1500 * WEIGHT_SCALE == expected[100]


def test_forgets() -> None:
    """A new habit outweighs the old within weeks."""
    curve = weeks(9, [1000] * SLOTS, weeks(20, [100] * SLOTS))

    assert weights(curve)[0] > 800 * WEIGHT_SCALE


def test_shares_of_a_week() -> None:
    """Nothing known: every hour has the same share."""
    assert 1_000_000 // SLOTS == share_e6(Curve(), 7)


def test_no_time_says_nothing() -> None:
    """A count without a length changes nothing."""
    curve = Curve()

    assert curve is observe(curve, 3, 100, 0)


def test_slots_follow_the_wall_clock() -> None:
    """On the Sunday on which clocks go forward, hour two is left out; back, it comes twice."""
    spring = slots(moment("2026-03-28T23:00"), moment("2026-03-29T22:00"), BERLIN)
    autumn = slots(moment("2026-10-24T22:00"), moment("2026-10-25T23:00"), BERLIN)

    assert [144, 145, 147, 148] == spring[:4]
    assert 23 == len(spring)
    assert [144, 145, 146, 146, 147] == autumn[:5]
    assert 25 == len(autumn)


def test_forecast_fits_a_schedule() -> None:
    """What a curve says of a period is what a schedule takes, half an hour at the end included."""
    start_s, end_s = moment("2026-10-03T13:30"), moment("2026-10-04T13:00")
    traffic = traffic_of(Curve(), start_s, end_s, ZoneInfo("Australia/Lord_Howe"))
    schedule = Schedule(start_s, end_s, Shape.CURVE, traffic=traffic)

    assert 24 == len(traffic)
    assert 500 == schedule.target_nanos(1000, (start_s + end_s) // 2)


@pytest.mark.parametrize(
    "prior", [FLAT[1:], (0.0,) * SLOTS, (-1.0, *FLAT[1:]), (float("nan"), *FLAT[1:]),
              (float("inf"), *FLAT[1:])],
    ids=["short", "zero", "negative", "nan", "infinite"],
)  # fmt: skip
def test_bad_priors(prior: tuple[float, ...]) -> None:
    """A prior is a week of finite shares."""
    with pytest.raises(InvariantError, match=r"curve\.prior"):
        with_prior(prior)


@given(
    st.lists(
        st.tuples(
            st.integers(0, SLOTS - 1), st.integers(-1, 2**70), st.integers(-1, 10**9)
        ),
        max_size=30,
    )
)  # fmt: skip
def test_any_counts_make_a_curve(counts: list[tuple[int, int, int]]) -> None:
    """Whatever was counted, the weights are integers, none negative."""
    curve = Curve()
    for slot, requests, seconds in counts:
        curve = observe(curve, slot, requests, seconds)
    expected = weights(curve)

    assert SLOTS == len(expected)
    assert all(weight >= 0 for weight in expected)
