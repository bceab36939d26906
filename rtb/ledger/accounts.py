"""The accounts: what the books know between two commands.

An account is one line item's money of one day in one flight. Its balances always sum to zero, for
money as for units:

    OPEN      what was drawn from the budget, negative
    GRANTED   lent to workers
    PENDING   bids in flight
    POSTED    spent
    EXCESS    what was spent without budget, negative
    OVER      the same, positive: the only money that no limit bounds

Every amount is written once, in its account. A limit stands at a *scope* (`commands.Scope`), which
is the sum over its accounts: `drawn = granted + pending + posted`. So the scopes of a line item
cannot disagree, and `drawn <= limit` is the whole promise.

Where several nodes share the budgets, each draws on what the pool has lent it of a *pot*, one scope
of one day (`rtb.ledger.pool`): `State.lent` then bounds it as a limit does.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import msgspec

from rtb.base.events import bid_time_s
from rtb.ledger.calendar import day_bounds_s, day_of
from rtb.ledger.commands import Flight, Scope
from rtb.ledger.pages import Page, is_in, number_of, page_of

NO_LIMIT: Final = 1 << 100  # larger than any sum
NO_FLIGHT: Final = 0
DAILY: Final = frozenset({Scope.LINE_ITEM_DAY, Scope.CAMPAIGN_DAY})
_TIME_MAX: Final = 1 << 62

Pot = tuple[Scope, int, int]  # scope, key, day; day 0 where a scope has no days


class Balance(IntEnum):
    """Index of an account's balances. Numbers are stored."""

    OPEN = 0
    GRANTED = 1
    PENDING = 2
    POSTED = 3
    EXCESS = 4
    OVER = 5


BALANCES: Final = len(Balance)


class Mark(IntEnum):
    """How a bid was settled. `Settled.seen` says whether its own record had come."""

    POSTED = 1
    VOIDED = 2
    EXPIRED = 3
    LATE = 4


class Hold(msgspec.Struct, frozen=True, gc=False):
    """The money of one bid in flight."""

    account: int
    nanos: int
    units: int
    deadline_s: int


class Settled(msgspec.Struct, frozen=True, gc=False):
    """What became of a bid; `seen`: its lease was charged."""

    mark: Mark
    nanos: int  # booked
    seen: bool


EXPIRED: Final = Settled(Mark.EXPIRED, 0, True)


@dataclass(slots=True)
class Lease:
    """What a worker may still take from an account."""

    nanos: int
    units: int
    expires_s: int


@dataclass(slots=True)
class Limit:
    """What may be drawn in a scope; `days` are those that have drawn on it, 0 if it has none."""

    nanos: int = NO_LIMIT
    units: int = NO_LIMIT
    days: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Drawn:
    """What was drawn in a scope, and its limit: shared by all days of a daily scope, but of each
    day its own where it is what the pool has lent."""

    scope: Scope
    limit: Limit
    nanos: int = 0
    units: int = 0


@dataclass(slots=True)
class Account:
    """Balances of one line item, flight and day."""

    number: int
    line_item: int
    flight: int
    day: int
    scopes: tuple[Drawn, ...]
    nanos: list[int] = field(default_factory=lambda: [0] * BALANCES)
    units: list[int] = field(default_factory=lambda: [0] * BALANCES)

    def room(self) -> tuple[int, int, Scope]:
        """Money and units that may still be drawn, and the scope that is scarcest.

        Negative where a limit was lowered below what is committed; a scope without units is
        scarcer than any shortage of money, since nothing can be bought in it.
        """
        nanos = units = NO_LIMIT
        scarce = by_units = Scope.LINE_ITEM
        for drawn in self.scopes:
            limit = drawn.limit
            if limit.nanos - drawn.nanos < nanos:
                nanos = limit.nanos - drawn.nanos
                scarce = drawn.scope
            if limit.units - drawn.units < units:
                units = limit.units - drawn.units
                by_units = drawn.scope
        return nanos, units, by_units if units <= 0 else scarce


@dataclass(slots=True)
class Line:
    """An enrolled line item; [from_s, until_s) is the time of the account used last."""

    line_item: int
    campaign: int
    advertiser: int
    zone: str
    currency: int
    flights: tuple[Flight, ...]
    name: str
    numbers: list[int] = field(default_factory=list)
    from_s: int = field(default=0, compare=False)
    until_s: int = field(default=0, compare=False)
    last: Account | None = field(default=None, compare=False)

    def forget_last(self) -> None:
        """The next look-up goes by the calendar again."""
        self.from_s = self.until_s = 0
        self.last = None


@dataclass(slots=True)
class State:
    """All of the books. Plain values: a test copies and compares them.

    pages: bids in flight that were taken together; holds: those that were taken one by one
    settled, spent: the marks of bids, and the pages that have expired. A store that keeps them
    elsewhere shows here what the bids of a batch ask for.
    lent: nanos and units that may be drawn of each pot; None where the budgets are all its own
    payers: the advertiser and currency of each campaign, and of each advertiser himself
    rest: nanos by `Balance` of accounts that a store keeps to itself, by currency
    """

    lines: dict[int, Line] = field(default_factory=dict)
    payers: dict[tuple[Scope, int], tuple[int, int]] = field(default_factory=dict, compare=False)
    accounts: dict[int, Account] = field(default_factory=dict)  # by number, from 1
    numbers: dict[tuple[int, int, int], int] = field(default_factory=dict)
    limits: dict[tuple[Scope, int], Limit] = field(default_factory=dict)
    drawn: dict[Pot, Drawn] = field(default_factory=dict)
    lent: dict[Pot, tuple[int, int]] | None = None
    leases: dict[tuple[int, int], Lease] = field(default_factory=dict)  # account, worker
    holds: dict[int, Hold] = field(default_factory=dict)
    due: dict[int, list[int]] = field(default_factory=dict, compare=False)  # deadline -> bids
    pages: dict[int, Page] = field(default_factory=dict)
    pages_due: dict[int, list[int]] = field(default_factory=dict, compare=False)  # -> pages
    settled: dict[int, Settled] = field(default_factory=dict)
    spent: dict[int, bytes] = field(default_factory=dict)  # page -> `Page.bitmap`
    references: set[str] = field(default_factory=set)
    forgotten_s: int = 0
    last_number: int = 0  # of an account
    rest: dict[int, list[int]] = field(default_factory=dict, compare=False)

    def held(self, bid: int) -> Hold | None:
        """The money of a bid in flight."""
        page = self.pages.get(page_of(bid))
        found = page.held(number_of(bid)) if page is not None else None
        return self.holds.get(bid) if found is None else Hold(*found)

    def fate(self, bid: int) -> Settled | None:
        """What became of a bid that is no longer in flight; None for what is forgotten."""
        found = self.settled.get(bid)
        if found is not None or bid_time_s(bid) < self.forgotten_s:
            return found
        key, number = page_of(bid), number_of(bid)
        page = self.pages.get(key)
        if page is not None and page.knows(number):
            return EXPIRED if page.held(number) is None else None
        return EXPIRED if is_in(self.spent.get(key, b""), number) else None

    def next_due_s(self) -> int | None:
        """The next deadline of a bid in flight."""
        return min((min(one) for one in (self.due, self.pages_due) if one), default=None)

    def available(self, scope: Scope, key: int, day: int = 0) -> tuple[int, int]:
        """Money and units that a scope has left, NO_LIMIT and more where it has no limit.

        day: for daily scopes; 0 for the others.
        """
        drawn = self.drawn.get((scope, key, day))
        if drawn is None:
            return self.bound((scope, key, day))
        return drawn.limit.nanos - drawn.nanos, drawn.limit.units - drawn.units

    def bound(self, pot: Pot) -> tuple[int, int]:
        """Money and units that may be drawn of a pot: its budget, or what of it the pool lent."""
        limit = self.limits.get(pot[:2])
        if limit is None:
            return NO_LIMIT, NO_LIMIT
        if self.lent is None:
            return limit.nanos, limit.units
        nanos, units = self.lent.get(pot, (0, 0))
        return (
            NO_LIMIT if limit.nanos == NO_LIMIT else min(nanos, limit.nanos),
            NO_LIMIT if limit.units == NO_LIMIT else min(units, limit.units),
        )

    def leases_due(self, now_s: int) -> list[tuple[int, int]]:
        """(line item, worker) of every lease that has run out: fence, read on, then `Return`."""
        accounts = self.accounts
        found = {
            (accounts[number].line_item, worker)
            for (number, worker), lease in self.leases.items()
            if lease.expires_s <= now_s
        }
        return sorted(found)


@lru_cache(maxsize=600)  # as many as there are zones
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def known_zone(name: str) -> bool:
    """Whether a name is a time zone's."""
    try:
        _zone(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        return False
    return True


def place(line: Line, time_s: int) -> tuple[int, int, int, int]:
    """Flight and day that hold a moment, and the time [from, until) over which both stay."""
    zone = _zone(line.zone)
    day = day_of(time_s, zone)
    from_s, until_s = day_bounds_s(day, zone)
    after_s = 0
    for flight in line.flights:
        if time_s < flight.start_s:
            return NO_FLIGHT, day, max(from_s, after_s), min(until_s, flight.start_s)
        if time_s < flight.end_s:
            return flight.key, day, max(from_s, flight.start_s), min(until_s, flight.end_s)
        after_s = flight.end_s
    return NO_FLIGHT, day, max(from_s, after_s), min(until_s, _TIME_MAX)


def enrol(state: State, line: Line) -> bool:
    """Adds a line item; False where its campaign or advertiser has books of another advertiser or
    currency: their budgets would add up what does not add.
    """
    payer = line.advertiser, line.currency
    owners = (Scope.CAMPAIGN, line.campaign), (Scope.ADVERTISER, line.advertiser)
    if any(state.payers.get(owner, payer) != payer for owner in owners):
        return False
    state.payers |= dict.fromkeys(owners, payer)
    state.lines[line.line_item] = line
    return True


def account_at(state: State, line: Line, time_s: int) -> Account | None:
    """The account of a line item's money at a time; None where it was not opened."""
    if line.from_s <= time_s < line.until_s:
        return line.last
    flight, day, from_s, until_s = place(line, time_s)
    number = state.numbers.get((line.line_item, flight, day))
    if number is None:
        return None
    line.from_s, line.until_s, line.last = from_s, until_s, state.accounts[number]
    return line.last


def open_account(state: State, line: Line, flight: int, day: int, number: int = 0) -> Account:
    """An account, joined to its scopes; a new one (number 0) takes the next number."""
    number = number or state.last_number + 1
    state.last_number = max(state.last_number, number)
    account = Account(
        number=number,
        line_item=line.line_item,
        flight=flight,
        day=day,
        scopes=tuple(_drawn(state, *key) for key in scope_keys(line, flight, day)),
    )
    state.accounts[account.number] = account
    state.numbers[account.line_item, flight, day] = account.number
    line.numbers.append(account.number)
    return account


def scope_keys(line: Line, flight: int, day: int) -> list[tuple[Scope, int, int]]:
    """The scopes of an account: (scope, key, day), day 0 where a scope has no days."""
    keys = [
        (Scope.LINE_ITEM, line.line_item, 0),
        (Scope.LINE_ITEM_DAY, line.line_item, day),
        (Scope.CAMPAIGN, line.campaign, 0),
        (Scope.CAMPAIGN_DAY, line.campaign, day),
        (Scope.ADVERTISER, line.advertiser, 0),
    ]
    return [*keys, (Scope.FLIGHT, flight, 0)] if flight != NO_FLIGHT else keys


def carry_forward(state: State, line: Line, flight: int, nanos: int, units: int) -> None:
    """Counts what accounts that are not loaded have drawn, in the scopes that have no days."""
    for scope, key, _ in scope_keys(line, flight, 0):
        if scope not in DAILY:
            drawn = _drawn(state, scope, key, 0)
            drawn.nanos += nanos
            drawn.units += units


def _drawn(state: State, scope: Scope, key: int, day: int) -> Drawn:
    found = state.drawn.get((scope, key, day))
    if found is None:
        limit = state.limits.setdefault((scope, key), Limit())
        limit.days.append(day)
        own = limit if state.lent is None else Limit(*state.bound((scope, key, day)))
        found = state.drawn[scope, key, day] = Drawn(scope, own)
    return found


def lend(state: State, pot: Pot, amounts: tuple[int, int]) -> None:
    """The pool has lent so much of a pot; less than is drawn stops all grants, as a limit would."""
    assert state.lent is not None
    state.lent[pot] = amounts
    bind(state, pot)


def lend_all(state: State, lent: dict[Pot, tuple[int, int]]) -> None:
    """From now on only what the pool has lent may be drawn."""
    state.lent = lent
    for pot, drawn in state.drawn.items():
        drawn.limit = Limit(*state.bound(pot))


def bind(state: State, pot: Pot) -> None:
    """Brings the bound of a pot up to date after its limit or its share has changed."""
    drawn = state.drawn.get(pot)
    if state.lent is not None and drawn is not None:
        drawn.limit.nanos, drawn.limit.units = state.bound(pot)
