"""Amounts are added up by rates; what nobody has a rate for is left out, not taken for dollars."""

import pytest

from rtb.sim.auction import Bid, Offer, Won, spend_micros
from rtb.sim.currencies import in_dollars, units


def test_other_currencies_are_worth_what_they_are() -> None:
    """Rivals keep the rates of the seed; money is added up as the bidder does, and a yen is no
    dollar."""
    assert (1.0, 0.9, 0.8) == tuple(units()[name] for name in ("USD", "EUR", "GBP"))
    assert 100 < units()["JPY"] < 200
    assert in_dollars({"USD": 2 * 10**9, "EUR": 5 * 10**8}) == pytest.approx(2.58)
    assert in_dollars({"JPY": 10**9}) < 0.01


def test_currencies_without_a_rate_are_left_out() -> None:
    """Nobody can say how many dollars they are."""
    offer = Offer(Bid(impid="1", price=1.0), "s")
    won = [Won(1_000_000, name, 0, offer) for name in ("USD", "XXX", "EUR")]

    assert in_dollars({"XXX": 10**9, "USD": 10**9}) == pytest.approx(1.0)
    assert 1000 + 1112 == spend_micros(won)
