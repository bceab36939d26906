"""How much is lent: pure arithmetic over what was spent and what is left."""

from hypothesis import given
from hypothesis import strategies as st

from rtb.keeper.leases import Lent, Limits, Need, ahead, can_serve, has_headroom, least, lend
from rtb.stores.board_money import GRANTED_MAX

LIMITS = Limits()
RICH = Lent(1 << 60, 1 << 40)
IDLE = Need(0, 0, 0, 0, refused=False, wanted=0, quick=False, last=0, last_units=0)
FIRST = IDLE._replace(refused=True, wanted=1_000)
# Nobody has bid yet.
EXPECTED = FIRST._replace(quick=True, last=32_000, last_units=32)
AMOUNTS = st.integers(0, 1 << 50)
SMALL = st.integers(0, 1 << 20)


def test_the_first_lease_is_one_impression() -> None:
    """Nothing is known yet but what was wanted."""
    assert Lent(1_000, 1) == lend(FIRST, RICH, 2, LIMITS)


def test_who_comes_back_soon_gets_twice_as_much() -> None:
    """Until the rate says what he needs; a slow one gets the same again."""
    again = FIRST._replace(last=4_000, last_units=4)

    assert Lent(8_000, 8) == lend(again._replace(quick=True), RICH, 2, LIMITS)
    assert Lent(1_000, 1) == lend(again, RICH, 2, LIMITS)


def test_a_steady_spender_has_a_lease_of_its_rate() -> None:
    """2 s of 200 nanos and a tenth of a unit a ms, less what is left."""
    steady = IDLE._replace(rate=200, rate_units=100_000, left=100_000, left_units=50)

    assert Lent(300_000, 150) == lend(steady, RICH, 2, LIMITS)


def test_a_slow_spender_is_not_lent_every_few_bids() -> None:
    """32 units of 2,000 nanos, less what is left, though 2 s of it are 6; never above a share."""
    slow = IDLE._replace(rate=6, rate_units=3_000, left=6_000, left_units=3)

    assert Lent(58_000, 29) == lend(slow, RICH, 2, LIMITS)
    assert Lent(4_000, 2) == lend(slow, Lent(20_000, 11), 2, LIMITS)
    assert lend(slow._replace(left=70_000, left_units=40), RICH, 2, LIMITS) is None


def test_a_budget_with_plenty_is_lent_more_of_ahead() -> None:
    """At most a thousandth of it to a worker, and 4,096 impressions; else 64."""

    def first(room: Lent) -> Lent | None:
        return lend(ahead(EXPECTED, room, 2, LIMITS), room, 2, LIMITS)

    assert Lent(4_096_000, 4_096) == first(RICH)
    assert Lent(1_000_000, 1_000) == first(Lent(1 << 60, 2_000_000))
    assert Lent(1_000_000, 1_000) == first(Lent(2_000_000_000, 1 << 40))
    assert Lent(64_000, 64) == first(Lent(2_000_000_000, 100_000))
    assert Lent(64_000, 64) == first(Lent(1_000_000, 1 << 40))


def test_nobody_gets_more_than_a_share() -> None:
    """Of two workers, a fourth of the money that is left, or half of the impressions."""
    steady = IDLE._replace(rate=1_000, rate_units=1_000_000)

    assert Lent(25_000, 25) == lend(steady, Lent(100_000, 1_000), 2, LIMITS)
    assert Lent(500_000, 500) == lend(steady, Lent(1 << 60, 1_000), 2, LIMITS)


def test_scarce_impressions_take_no_more_money_than_they_cost() -> None:
    """Of seven impressions two workers have four and three, each with the money for them; a worker
    that is alone has all."""
    assert Lent(4_000, 4) == lend(EXPECTED, Lent(1 << 60, 7), 2, LIMITS)
    assert Lent(7_000, 7) == lend(EXPECTED, Lent(1 << 60, 7), 1, LIMITS)
    assert Lent(3_600, 4) == lend(EXPECTED._replace(left=400), Lent(1 << 60, 7), 2, LIMITS)


def test_scarce_money_takes_no_more_impressions_than_it_pays_for() -> None:
    """The others can use the rest; where there are enough, a cheap bid may use one more."""
    assert Lent(2_000, 2) == lend(EXPECTED, Lent(10_000, 100), 2, LIMITS)
    assert Lent(2_000, 64) == lend(EXPECTED, Lent(10_000, 1 << 40), 2, LIMITS)


def test_what_makes_no_impression_is_not_lent() -> None:
    """Not a rest of money that a bid costs more than, nor impressions that nobody can pay for."""
    low = IDLE._replace(rate=100, rate_units=100_000, left=300, left_units=1)

    assert lend(low, Lent(699, 5), 1, LIMITS) is None
    assert Lent(700, 0) == lend(low, Lent(700, 0), 1, LIMITS)
    assert lend(
        low._replace(rate=0, left=0, last=5_000, last_units=5), Lent(999, 5), 1, LIMITS
    ) is (None)


def test_impressions_come_without_money_to_who_has_some() -> None:
    """The budget's money may all be lent, while impressions are left."""
    rich = FIRST._replace(left=5_000)

    assert Lent(0, 1) == lend(rich, Lent(0, 7), 2, LIMITS)
    assert 0 == least(rich)
    assert 600 == least(FIRST._replace(left=400))


def test_the_last_impression_goes_to_one() -> None:
    """A share that pays for nothing is no lease; what one has left counts."""
    assert Lent(1_000, 1) == lend(FIRST, Lent(1_000, 1), 16, LIMITS)
    assert lend(FIRST, Lent(999, 1), 1, LIMITS) is None
    assert lend(FIRST, Lent(1_000, 0), 1, LIMITS) is None
    assert Lent(400, 1) == lend(FIRST._replace(left=600), Lent(500, 5), 16, LIMITS)


def test_a_line_item_waits_before_its_words_run_over() -> None:
    """Cumulative grants have an end."""
    assert has_headroom(5, Lent(7, 1))
    assert not has_headroom(GRANTED_MAX - 5, Lent(7, 1))


@given(AMOUNTS, SMALL, SMALL, SMALL, st.booleans(), SMALL, st.booleans(), AMOUNTS, SMALL,
       AMOUNTS, SMALL, st.integers(1, 64))  # fmt: skip
def test_a_lease_is_useful_and_within_the_budget(
    left: int, left_units: int, rate: int, rate_units: int, refused: bool, wanted: int,
    quick: bool, last: int, last_units: int, room: int, room_units: int, workers: int,
) -> None:  # fmt: skip
    """It makes an impression; nobody gets what is not there; and what can be served is served."""
    need = Need(left, left_units, rate, rate_units, refused, wanted, quick, last, last_units)
    found = lend(need, Lent(room, room_units), workers, LIMITS)

    if found is None:
        enough = left >= (wanted if refused else 0) and left_units >= 1
        assert enough or not can_serve(need, Lent(room, room_units))
        return
    assert 0 <= found.nanos <= room
    assert 0 <= found.units <= room_units
    assert any(found)
    assert left_units + found.units >= 1
    assert found.nanos >= least(need)
    if refused:
        assert left + found.nanos >= wanted
