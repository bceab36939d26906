"""Do the books agree: with their own rows, with the journals, with an exchange's invoice.

Three comparisons, each against something that was added up another way:

- `compare`: balances against sums of rows, holds and leases;
- `spend_of`: what was spent by day, straight from the journals' bills, without the machine;
- `reconcile`: single bids against the lines of an invoice.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from rtb.base.events import Kind, PriceState, cost_nanos
from rtb.ledger.accounts import Balance
from rtb.ledger.changes import Row

# (account, balance) -> money and units; zeros may be absent.
Sums = dict[tuple[int, Balance], tuple[int, int]]
# (line item, day) -> nanos
Spend = dict[tuple[int, int], int]


class Difference(NamedTuple):
    """Two figures that should be one. `what` says which were compared."""

    what: str
    place: str
    expected: int
    found: int


def add(sums: Sums, key: tuple[int, Balance], nanos: int, units: int) -> None:
    """Adds to one of the sums."""
    before = sums.get(key, (0, 0))
    sums[key] = before[0] + nanos, before[1] + units


def only(sums: Sums, balance: Balance) -> Sums:
    """The sums of one balance."""
    return {key: value for key, value in sums.items() if key[1] is balance}


def sums_of(rows: Iterable[Row]) -> Sums:
    """What each balance is by the rows."""
    sums: Sums = {}
    for row in rows:
        add(sums, (row.account, row.source), -row.nanos, -row.units)
        add(sums, (row.account, row.target), row.nanos, row.units)
    return sums


def compare(what: str, expected: Sums, found: Sums) -> list[Difference]:
    """Where two sums differ, money and units each for itself, in order of account."""
    none = (0, 0)
    keys = sorted(
        key for key in expected.keys() | found.keys()
        if expected.get(key, none) != found.get(key, none)
    )  # fmt: skip
    return [
        Difference(what, f"account {key[0]} {key[1].name.lower()} {unit}", one, other)
        for key in keys
        for unit, one, other in zip(
            ("nanos", "units"), expected.get(key, none), found.get(key, none), strict=True
        )
        if one != other
    ]


def spend_of(
    records: Iterable[tuple[Kind, np.void]], day_of_bid: Callable[[int, int], int]
) -> tuple[Spend, Counter[str]]:
    """What the bills of the journals add up to, a bid once, the first good bill counting.

    records: kind and body of dtype events.NOTICE, of all journals, in the order applied.
    day_of_bid: (line item, bid) -> budget day.
    Returns: spend, and how many bills were not counted, by why.
    """
    spend: Spend = {}
    billed: set[int] = set()
    left_out: Counter[str] = Counter()
    for kind, notice in records:
        if kind is not Kind.BILL:
            continue
        claims = notice["claims"]
        bid, price = int(claims["bid"]), int(notice["price_micros"])
        if bid in billed:
            left_out["duplicate"] += 1
        elif notice["price_state"] != PriceState.OK:
            left_out[PriceState(int(notice["price_state"])).name.lower()] += 1
        elif price > int(claims["price_micros"]):
            left_out["above_bid"] += 1
        else:
            billed.add(bid)
            line_item = int(claims["line_item"])
            key = line_item, day_of_bid(line_item, bid)
            cost = cost_nanos(price, int(claims["rate_e9"]), int(notice["multiplier_e6"]))
            spend[key] = spend.get(key, 0) + cost
    return spend, left_out


def compare_spend(journals: Spend, books: Spend) -> list[Difference]:
    """Where posted and overspent money differs from what the journals' bills add up to."""
    return [
        Difference("journals", f"line item {key[0]} day {key[1]}",
                   journals.get(key, 0), books.get(key, 0))
        for key in sorted(journals.keys() | books.keys())
        if journals.get(key, 0) != books.get(key, 0)
    ]  # fmt: skip


# -- invoices --------------------------------------------------------------------------------------


class Verdict(IntEnum):
    """What reconciliation says of one bid."""

    MATCHED = 0
    MISSING_HERE = 1  # they bill what we did not book
    MISSING_THERE = 2  # we booked what they do not bill
    OTHER_PRICE = 3
    BILLED_TWICE = 4  # the invoice names the bid again


class Line(NamedTuple):
    """A line of an exchange's billing report, its cost in the line item's currency."""

    exchange: str
    bid: int
    nanos: int


class Finding(NamedTuple):
    """One line or bid that does not match."""

    verdict: Verdict
    exchange: str
    bid: int
    invoiced_nanos: int
    booked_nanos: int


class Reconciliation(NamedTuple):
    """All of an invoice: how many of each verdict, both totals, and what differs."""

    counts: Counter[Verdict]
    invoiced_nanos: int
    booked_nanos: int
    findings: list[Finding]


def reconcile(lines: Iterable[Line], booked: Mapping[int, int], exchange: str) -> Reconciliation:
    """Compares the lines of one exchange's report with what was booked for its bids.

    booked: bid -> nanos, all bids of that exchange in the period of the report, and those that the
        report names.
    """
    counts: Counter[Verdict] = Counter()
    findings: list[Finding] = []
    invoiced_nanos = 0
    named: set[int] = set()
    for line in lines:
        invoiced_nanos += line.nanos
        ours = booked.get(line.bid)
        verdict = _verdict(line, ours, line.bid in named)
        named.add(line.bid)
        counts[verdict] += 1
        if verdict is not Verdict.MATCHED:
            findings.append(Finding(verdict, line.exchange, line.bid, line.nanos, ours or 0))
    for bid in sorted(booked.keys() - named):
        counts[Verdict.MISSING_THERE] += 1
        findings.append(Finding(Verdict.MISSING_THERE, exchange, bid, 0, booked[bid]))
    return Reconciliation(counts, invoiced_nanos, sum(booked.values()), findings)


def _verdict(line: Line, ours: int | None, again: bool) -> Verdict:
    if again:
        return Verdict.BILLED_TWICE
    if ours is None:
        return Verdict.MISSING_HERE
    return Verdict.MATCHED if ours == line.nanos else Verdict.OTHER_PRICE
