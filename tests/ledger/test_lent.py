"""Books of a node that draws on what the pool has lent it."""

import pytest

from rtb.ledger.accounts import NO_LIMIT, Pot, lend, lend_all
from rtb.ledger.changes import Changes
from rtb.ledger.commands import Outcome, Repay, Scope
from rtb.ledger.machine import apply
from rtb.ledger.pool import Amount, ask_for, budget_of, overspent, pots_of
from tests.ledger.books import CAMPAIGN, SHOES, Books, T, check_all, enrol, grant, limit, post

TOTAL: Pot = (Scope.LINE_ITEM, SHOES, 0)
CAMPAIGNS: Pot = (Scope.CAMPAIGN, CAMPAIGN, 0)


@pytest.fixture
def books() -> Books:
    """100 nanos for the line item, of which nothing was lent; its campaign has no limit."""
    made = Books(enrol(), limit(Scope.LINE_ITEM, SHOES, 100))
    lend_all(made.state, {})
    return made


def left(books: Books) -> int:
    """What the line item may still draw."""
    return books.state.available(Scope.LINE_ITEM, SHOES)[0]


def test_only_what_was_lent_is_drawn(books: Books) -> None:
    """A budget of which nothing was lent is exhausted; a share bounds it as a limit would."""
    assert Outcome.EXHAUSTED_LINE_ITEM == books(grant(10))
    lend(books.state, TOTAL, (30, NO_LIMIT))
    assert Outcome.GRANTED == books(grant(10))
    assert Outcome.GRANTED_PART == books(grant(50))
    assert 0 == left(books)
    check_all(books)


def test_a_limit_that_is_lowered_binds_before_the_pool_hears_of_it(books: Books) -> None:
    """The lesser of share and budget holds; a budget that is raised is not lent by that."""
    lend(books.state, TOTAL, (60, NO_LIMIT))
    books(grant(10))
    books(limit(Scope.LINE_ITEM, SHOES, 40))
    assert 30 == left(books)
    books(limit(Scope.LINE_ITEM, SHOES, 200))
    assert 50 == left(books)
    books(limit(Scope.LINE_ITEM, SHOES))
    assert left(books) > NO_LIMIT // 2
    books(limit(Scope.CAMPAIGN, CAMPAIGN, 500))
    assert -10 == books.state.available(Scope.CAMPAIGN, CAMPAIGN)[0]


def test_days_have_shares_of_their_own(books: Books) -> None:
    """A daily budget is one limit, and as many pots as there are days."""
    books(limit(Scope.LINE_ITEM_DAY, SHOES, 50))
    lend(books.state, TOTAL, (100, NO_LIMIT))
    lend(books.state, (Scope.LINE_ITEM_DAY, SHOES, 1), (50, NO_LIMIT))
    day = (Scope.LINE_ITEM_DAY, SHOES, 2)

    assert (50, NO_LIMIT) == books.state.available(Scope.LINE_ITEM_DAY, SHOES, 1)
    assert (0, NO_LIMIT) == books.state.bound(day)
    lend(books.state, day, (500, NO_LIMIT))
    assert (50, NO_LIMIT) == books.state.bound(day)


def test_overspend_is_told_and_paid(books: Books) -> None:
    """A bill beyond the share is overspend until more was lent."""
    assert Outcome.POSTED_OVER == books(post(1, 30, 30))
    state = books.state
    [number] = state.accounts
    over = overspent(state, [number])

    assert Amount(30, 0) == over[TOTAL]  # impressions have no limit here
    assert Amount(30, 1) == ask_for(state, TOTAL, over).drawn
    assert [TOTAL] == pots_of(state, SHOES, 0, 1)
    assert Amount(NO_LIMIT, NO_LIMIT) == budget_of(state, CAMPAIGNS)
    assert Outcome.NOTHING == apply(state, Repay(T, number), Changes())
    lend(state, TOTAL, (30, NO_LIMIT))
    assert Outcome.REPAID == books(Repay(T, number))
    assert {} == overspent(state, [number])
    assert Outcome.NOTHING == books(Repay(T, number + 1))
    check_all(books)
