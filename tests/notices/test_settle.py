"""What notices do to money: one kind books, a loss frees, everything odd is kept aside."""

from itertools import product
from typing import Any

import pytest

from rtb.base.events import NO_PRICE, ClaimFlag, Kind, PriceState
from rtb.notices.settle import Settled, Settlement, counts, is_priced, settle, settles
from tests.notices import bids

NOTHING = Settled(Settlement.NOTHING)
QUARANTINE = Settled(Settlement.QUARANTINE)
NOTICES = [Kind.WIN, Kind.BILL, Kind.LOSS, Kind.IMPRESSION, Kind.CLICK, Kind.VIEW, Kind.VIDEO]
SETTLE_ON = {"burl": Kind.BILL, "impression": Kind.IMPRESSION, "nurl": Kind.WIN}


def settled(kind: Kind, state: PriceState, flags: int = 0, **keys: Any) -> Settled:
    price = 1_500_000 if state == PriceState.OK else NO_PRICE
    return settle(kind, flags, state, price, bids.BID_MICROS, bids.exchange(**keys))


@pytest.mark.parametrize("settle_on", SETTLE_ON)
def test_one_kind_books(settle_on: str) -> None:
    """Whatever arrives of a bid, in any number of kinds, one of them posts."""
    exchange = bids.exchange(settle_on=settle_on)
    posted = [
        kind
        for kind in NOTICES
        if settled(kind, PriceState.OK, settle_on=settle_on).settlement == Settlement.POST
    ]

    assert [SETTLE_ON[settle_on]] == posted
    assert posted == [kind for kind in Kind if settles(kind, exchange)]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (PriceState.OK, Settled(Settlement.POST, 1_500_000)),
        (PriceState.EMPTY, QUARANTINE),
        (PriceState.AUDIT, NOTHING),
        (PriceState.UNSUBSTITUTED, QUARANTINE),
        (PriceState.GARBAGE, QUARANTINE),
        (PriceState.ABOVE_BID, QUARANTINE),
        (PriceState.NONE, QUARANTINE),
    ],
)
@pytest.mark.parametrize("settle_on", SETTLE_ON)
def test_prices_that_book(settle_on: str, state: PriceState, expected: Settled) -> None:
    """Only a price books; what is none is kept aside, and an audit is nothing."""
    assert expected == settled(SETTLE_ON[settle_on], state, settle_on=settle_on)


@pytest.mark.parametrize("state", PriceState)
def test_an_empty_price_may_be_the_bid(state: PriceState) -> None:
    """By contract an empty price, and no other missing one, means that the bid is owed."""
    keys = {"empty_price": "bid", "auction_type_default": 1}
    expected = settled(Kind.BILL, state)
    if state == PriceState.EMPTY:
        expected = Settled(Settlement.POST, bids.BID_MICROS)

    assert expected == settled(Kind.BILL, state, **keys)


def test_a_loss_frees() -> None:
    """A loss voids the reservation, unless it is an audit's."""
    assert Settled(Settlement.VOID) == settled(Kind.LOSS, PriceState.NONE)
    assert NOTHING == settled(Kind.LOSS, PriceState.AUDIT)


@pytest.mark.parametrize(("kind", "state"), list(product(NOTICES, PriceState)))
def test_a_test_moves_nothing(kind: Kind, state: PriceState) -> None:
    """With test=1 nothing moves and nothing counts."""
    for flags in (ClaimFlag.TEST, ClaimFlag.TEST | ClaimFlag.EXPECTED):
        assert NOTHING == settled(kind, state, flags)
        assert not counts(flags, state)


def test_what_counts() -> None:
    """An audit is no impression; a price that nobody can read is one."""
    assert not counts(0, PriceState.AUDIT)
    assert counts(ClaimFlag.EXPECTED, PriceState.GARBAGE)


def test_kinds_with_a_price() -> None:
    """Wins and bills always bring a price, our pixel only where it settles."""
    priced = {
        name: {kind for kind in NOTICES if is_priced(kind, bids.exchange(settle_on=name))}
        for name in SETTLE_ON
    }

    assert {Kind.WIN, Kind.BILL} == priced["burl"] == priced["nurl"]
    assert {Kind.WIN, Kind.BILL, Kind.IMPRESSION} == priced["impression"]
