"""Do the books agree: with their own rows, with the journals, with an exchange's invoice.

Three comparisons, each against something that was added up another way:

- `compare`: balances against sums of rows, holds and leases;
- `Charges`: what was spent by day, straight from the journals' notices, without the machine;
- `reconcile`: single bids against the lines of an invoice.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from struct import Struct
from typing import Final, NamedTuple

from rtb.base.events import (
    NO_PRICE,
    NOTICE,
    ClaimFlag,
    Kind,
    PriceState,
    bid_time_s,
    cost_nanos,
)
from rtb.ledger.accounts import Balance
from rtb.ledger.changes import Row

# `events.NOTICE`: single records are read ten times as fast by `struct` as through an array.
_NOTICE: Final = Struct("<BBBBIQQQQQQqQqqqIHBBqq")
assert _NOTICE.size == NOTICE.itemsize

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


class Terms(NamedTuple):
    """How an exchange settles: the one kind of notice, and whether an empty price means the bid."""

    kind: Kind
    empty_is_bid: bool = False


class Charge(NamedTuple):
    """What the journals say that a bid cost; `rate_e9` as in `events.CLAIMS`."""

    line_item: int
    day: int
    nanos: int
    exchange: int
    rate_e9: int
    time_ms: int


@dataclass
class Charges:
    """What the journals charge.

    by_bid     the first good settling notice of each bid
    contested  bids that have others at other costs, and those costs: the one that was read first
               stands, and which one that was, only the books know
    left_out   how many settling notices were not counted, by why
    """

    by_bid: dict[int, Charge] = field(default_factory=dict)
    contested: dict[int, set[int]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        kind: Kind,
        body: bytes,
        day_of_bid: Callable[[int, int], int],
        terms: Mapping[int, Terms],
    ) -> None:
        """One record, in the order written.

        Shapes: body of dtype events.NOTICE.
        day_of_bid: (line item, bid) -> budget day; terms: by `claims.exchange`.
        """
        (_, _, flags, _, exchange, bid, line_item, _, _, _, _, bid_micros, rate_e9, time_ms,
         price_micros, _, multiplier_e6, _, state, _, _, _) = _NOTICE.unpack(body)  # fmt: skip
        settles = terms.get(exchange)
        if settles is None:
            self.left_out["unknown_exchange"] += 1
            return
        if kind is not settles.kind:
            return
        owed_micros, why = _owed(flags, state, price_micros, bid_micros, settles)
        if why:
            self.left_out[why] += 1
            return
        nanos = cost_nanos(owed_micros, rate_e9, multiplier_e6)
        day = day_of_bid(line_item, bid)
        self._charge(bid, Charge(line_item, day, nanos, exchange, rate_e9, time_ms))

    def _charge(self, bid: int, charge: Charge) -> None:
        first = self.by_bid.setdefault(bid, charge)
        if first is charge:
            return
        if first.nanos == charge.nanos:
            self.left_out["duplicate"] += 1
            return
        self.left_out["other_price"] += 1
        self.contested.setdefault(bid, {first.nanos}).add(charge.nanos)

    def resolve(self, booked: Mapping[int, int]) -> None:
        """Takes the books' word for which of several costs stands, if it is one of them."""
        for bid, costs in self.contested.items():
            if booked.get(bid) in costs:
                self.by_bid[bid] = self.by_bid[bid]._replace(nanos=booked[bid])

    def spend(self, from_s: int = 0) -> Spend:
        """Sums by line item and day, of bids made at `from_s` or later."""
        spend: Spend = {}
        for bid, charge in self.by_bid.items():
            if bid_time_s(bid) >= from_s:
                key = charge.line_item, charge.day
                spend[key] = spend.get(key, 0) + charge.nanos
        return spend


def _owed(
    flags: int, state: int, price_micros: int, bid_micros: int, settles: Terms
) -> tuple[int, str]:
    """The CPM that is owed, or why none is."""
    if flags & ClaimFlag.TEST:
        return NO_PRICE, "test"
    if state == PriceState.EMPTY and settles.empty_is_bid:
        return bid_micros, ""
    if state != PriceState.OK:
        return NO_PRICE, PriceState(state).name.lower()
    return (price_micros, "") if price_micros <= bid_micros else (NO_PRICE, "above_bid")


def compare_spend(journals: Spend, books: Spend) -> list[Difference]:
    """Where posted and overspent money differs from what the journals add up to."""
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
