"""The three comparisons of an audit."""

import numpy as np
import pytest

from rtb.base.events import (
    MULTIPLIER_ONE,
    NO_PRICE,
    NOTICE,
    RATE_ONE,
    ClaimFlag,
    Kind,
    PriceState,
)
from rtb.ledger import audit
from rtb.ledger.accounts import Balance
from rtb.ledger.audit import Charges, Difference, Finding, Line, Sums, Terms, Verdict
from tests.ledger.books import SHOES, Books, T, bid, enrol, grant, post, take

BURL = Terms(Kind.BILL)


def notice(
    number: int, price_micros: int, state: PriceState = PriceState.OK, rate_e9: int = RATE_ONE,
    multiplier_e6: int = MULTIPLIER_ONE,
) -> np.void:  # fmt: skip
    """A bill for one of our bids at a CPM of 10 micros."""
    record = np.zeros(1, dtype=NOTICE)[0]
    record["claims"]["bid"] = bid(number)
    record["claims"]["line_item"] = SHOES
    record["claims"]["price_micros"] = 10
    record["claims"]["rate_e9"] = rate_e9
    record["price_micros"] = price_micros
    record["price_state"] = state
    record["multiplier_e6"] = multiplier_e6
    return record


def charges_of(*records: tuple[Kind, np.void], terms: Terms = BURL, day: int = 9) -> Charges:
    """The charges of records of exchange 0."""
    charges = Charges()
    for kind, record in records:
        charges.add(kind, record.tobytes(), lambda line_item, name: day, {0: terms})
    return charges


def test_rows_and_balances() -> None:
    """A nano too much or too little is found, and said where."""
    rows = Books(enrol(), grant(50), take(1), post(1, 7)).rows
    sums = audit.sums_of(rows)
    wrong: Sums = {**sums, (1, Balance.POSTED): (8, 1), (2, Balance.OVER): (0, 3)}

    assert [] == audit.compare("rows", sums, dict(sums))
    assert [
        Difference("rows", "account 1 posted nanos", 7, 8),
        Difference("rows", "account 2 over units", 0, 3),
    ] == audit.compare("rows", sums, wrong)
    assert {(1, Balance.POSTED): (7, 1)} == audit.only(sums, Balance.POSTED)


def test_spend_of_the_journals() -> None:
    """The first good bill of a bid counts, at its cost in the line item's currency."""
    charges = charges_of(
        (Kind.WIN, notice(1, 5)),
        (Kind.BILL, notice(1, 11)),
        (Kind.BILL, notice(1, NO_PRICE, PriceState.EMPTY)),
        (Kind.BILL, notice(1, 7)),
        (Kind.BILL, notice(1, 7)),
        (Kind.BILL, notice(2, 7, rate_e9=RATE_ONE * 3 // 2)),
        (Kind.BILL, notice(3, 7, multiplier_e6=4 * MULTIPLIER_ONE)),
    )
    spend = charges.spend()

    assert {(SHOES, 9): 7 + 11 + 28} == spend
    assert {"above_bid": 1, "empty": 1, "duplicate": 1} == charges.left_out
    assert {} == charges.spend(from_s=T + 1)
    assert [] == audit.compare_spend(spend, dict(spend))
    assert [
        Difference("journals", "line item 5 day 9", 0, 1),
        Difference("journals", f"line item {SHOES} day 9", 46, 0),
    ] == audit.compare_spend(spend, {(5, 9): 1})


@pytest.mark.parametrize(
    ("terms", "spent", "left_out"),
    [
        (Terms(Kind.BILL), 7, {"empty": 1}),
        (Terms(Kind.IMPRESSION), 5, {}),
        (Terms(Kind.WIN), 6, {}),
        (Terms(Kind.BILL, empty_is_bid=True), 17, {}),
    ],
)
def test_one_kind_settles(terms: Terms, spent: int, left_out: dict[str, int]) -> None:
    """What an exchange settles on counts, and an empty price means the bid where it says so."""
    charges = charges_of(
        (Kind.WIN, notice(1, 6)), (Kind.BILL, notice(1, 7)), (Kind.IMPRESSION, notice(1, 5)),
        (Kind.BILL, notice(2, NO_PRICE, PriceState.EMPTY)), terms=terms,
    )  # fmt: skip

    assert ({(SHOES, 9): spent}, left_out) == (charges.spend(), charges.left_out)


def test_what_never_counts() -> None:
    """Tests, audits and exchanges that nobody knows are left out, and said so."""
    test, strange = notice(1, 7), notice(2, 7)
    test["claims"]["flags"], strange["claims"]["exchange"] = ClaimFlag.TEST, 99
    charges = charges_of(
        (Kind.BILL, test), (Kind.BILL, strange), (Kind.BILL, notice(3, 0, PriceState.AUDIT))
    )

    assert ({}, {"test": 1, "unknown_exchange": 1, "audit": 1}) == (
        charges.spend(), charges.left_out,
    )  # fmt: skip


def test_two_prices_of_one_bid() -> None:
    """The order in which journals were read is not known here: the books say which price stands."""
    charges = charges_of((Kind.BILL, notice(1, 7)), (Kind.BILL, notice(1, 4)))
    first = charges.spend()
    charges.resolve({bid(1): 5})
    strange = charges.spend()
    charges.resolve({bid(1): 4})

    assert [{(SHOES, 9): 7}, {(SHOES, 9): 7}, {(SHOES, 9): 4}] == [first, strange, charges.spend()]
    assert {"other_price": 1} == charges.left_out


def test_books_equal_journals() -> None:
    """The same bills through the machine and straight from the journal are the same money."""
    prices = [(number, number % 10) for number in range(50)]
    books = Books(enrol(), grant(10_000))
    for number, price in prices:
        books(take(number))
        books(post(number, price))
    journal = [(Kind.BILL, notice(number, price)) for number, price in prices]
    account = books.state.accounts[1]
    spend = charges_of(*journal, day=account.day).spend()

    assert [] == audit.compare_spend(spend, {(SHOES, account.day): account.nanos[Balance.POSTED]})


def test_an_invoice() -> None:
    """Each kind of difference is counted and listed; totals are of everything."""
    lines = [Line("x", 1, 5), Line("x", 2, 6), Line("x", 3, 7), Line("x", 1, 5)]
    found = audit.reconcile(lines, {1: 5, 2: 4, 9: 1}, "x")

    assert {
        Verdict.MATCHED: 1, Verdict.OTHER_PRICE: 1, Verdict.MISSING_HERE: 1,
        Verdict.BILLED_TWICE: 1, Verdict.MISSING_THERE: 1,
    } == found.counts  # fmt: skip
    assert (23, 10) == (found.invoiced_nanos, found.booked_nanos)
    assert [
        Finding(Verdict.OTHER_PRICE, "x", 2, 6, 4),
        Finding(Verdict.MISSING_HERE, "x", 3, 7, 0),
        Finding(Verdict.BILLED_TWICE, "x", 1, 5, 5),
        Finding(Verdict.MISSING_THERE, "x", 9, 0, 1),
    ] == found.findings


def test_time_is_not_money() -> None:
    """Rows say when: the time of the youngest command of their batch."""
    rows = Books(enrol(), grant(50), take(1, time_s=T + 3)).rows

    assert [T, T + 3] == [row.time_s for row in rows]
