"""What a line item's counts say."""

from rtb.pacing.estimate import HALF_LIFE_S, NOTHING, Observed, Step, between


def test_counts_that_fall_back_stand_still() -> None:
    """A restart or a correction never makes a negative step."""
    before = Observed(100, 50, 5, 60, 7, 6, 1000)
    after = Observed(90, 40, 5, 10, 2, 1, 5)

    assert Step(0, 0, 0, 0, 0, 0) == between(before, after)


def test_ratios() -> None:
    """Cost of a win, reservation of an open request, and the share of it that is spent."""
    recent = NOTHING.after(Step(60, 300, 4000, 40, 3, 100), participation_e6=500_000)

    assert 100 == recent.win_nanos()
    assert (4000 + 10 * 100) / (50 + 10) == recent.request_nanos()
    assert 300 / 4000 == recent.spent_share()
    assert 1300 / 5000 == recent.spent_share(doubt_nanos=1000)
    assert 100 / 60 == recent.rate()


def test_before_a_win_a_bid_is_the_cost() -> None:
    """Nothing won yet: a win may cost what a bid does."""
    assert 100 == NOTHING.after(Step(60, 0, 4000, 40, 0, 100), 1_000_000).win_nanos()


def test_nothing_known() -> None:
    """Without counts there is no cost, and nothing is divided by it."""
    found = (NOTHING.win_nanos(), NOTHING.request_nanos(), NOTHING.spent_share(), NOTHING.rate())

    assert (0, 0, 0, 0) == found


def test_counts_fade() -> None:
    """After the half-life they are worth half."""
    old = NOTHING.after(Step(0, 300, 4000, 40, 3, 100), 1_000_000)
    recent = old.after(Step(HALF_LIFE_S, 0, 0, 0, 0, 0), 1_000_000)

    assert 150 == recent.spent_nanos
    assert 20 == recent.bids
