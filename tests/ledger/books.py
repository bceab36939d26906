"""Books for tests: two line items of one campaign, and commands with little to say."""

import copy
from collections.abc import Iterable

import numpy as np

from rtb.base.events import bid_id
from rtb.ledger import audit
from rtb.ledger.accounts import NO_LIMIT, Balance, Hold, State
from rtb.ledger.changes import Changes, Row
from rtb.ledger.commands import (
    TAKE,
    Adjust,
    Command,
    Enrol,
    Flight,
    Grant,
    Outcome,
    Post,
    Reason,
    Return,
    Scope,
    SetLimit,
    Take,
    Takes,
    Void,
)  # fmt: skip
from rtb.ledger.machine import apply

T = 1_790_000_000  # 2026-09-21 16:13:20 in Berlin
LATER = T + 86_400
EUR = 0x455552
USD = 0x555344
SHOES, HATS, CAMPAIGN, ADVERTISER = (1 << 64) - 1, 12, 20, 1 << 63
AUTUMN = Flight(77, T - 90_000, T + 500_000)


def enrol(line_item: int = SHOES, flights: tuple[Flight, ...] = (AUTUMN,)) -> Enrol:
    return Enrol(T, line_item, CAMPAIGN, ADVERTISER, "Europe/Berlin", EUR, "shop / shoes", flights)


def limit(scope: Scope, key: int, nanos: int | None = None, units: int | None = None) -> SetLimit:
    return SetLimit(T, scope, key, nanos, units)


def grant(nanos: int, units: int = 100, worker: int = 0, line_item: int = SHOES,
          at_s: int = T, least: int = 0) -> Grant:  # fmt: skip
    return Grant(T, line_item, worker, at_s, nanos, units, T + 60, least)


def bid(number: int, worker: int = 0, time_s: int = T) -> int:
    return bid_id(time_s, 0, worker, number)


def take(number: int, nanos: int = 10, worker: int = 0, line_item: int = SHOES,
         time_s: int = T) -> Take:  # fmt: skip
    return Take(bid(number, worker, time_s), line_item, nanos, time_s + 300)


def together(*bids: Take) -> Takes:
    return Takes(
        np.array([(t.bid, t.line_item, t.nanos, t.deadline_s, t.units) for t in bids], TAKE)
    )


def post(number: int, nanos: int = 10, top: int = 10, worker: int = 0, line_item: int = SHOES,
         time_s: int = T, reserve: int | None = None) -> Post:  # fmt: skip
    """A bill; `top` is what was bid, and reserved unless told otherwise."""
    reserved = top if reserve is None else reserve
    return Post(T + 5, bid(number, worker, time_s), line_item, nanos, top, reserved)


def void(number: int, worker: int = 0, line_item: int = SHOES, time_s: int = T) -> Void:
    return Void(T + 5, bid(number, worker, time_s), line_item)


def give(worker: int = 0, line_item: int = SHOES) -> Return:
    return Return(T + 60, worker, line_item)


def adjust(reference: str, nanos: int, units: int = 0, at_s: int = T) -> Adjust:
    return Adjust(T + 9, reference, SHOES, at_s, nanos, units, Reason.INVOICE)


class Books:
    """A state and everything that was ever done to it."""

    def __init__(self, *commands: Command) -> None:
        self.state = State()
        self.rows: list[Row] = []
        for command in commands:
            self(command)

    def __call__(self, command: Command) -> Outcome:
        return self.told(command)[0]

    def told(self, command: Command) -> tuple[Outcome, dict[int, Outcome]]:
        """The outcome, and those that `Takes` told apart."""
        changes = Changes()
        outcome = apply(self.state, command, changes)
        self.rows += changes.all_rows()
        check_touched(self.state, changes)
        return outcome, changes.apart

    def take_all(self, *bids: Take) -> list[Outcome]:
        """Takes bids together; the outcome of each."""
        outcome, apart = self.told(together(*bids))
        return [apart.get(number, outcome) for number in range(len(bids))]

    def copy(self) -> "Books":
        return copy.deepcopy(self)

    def money(self, number: int = 1) -> dict[str, int]:
        """Balances of an account that are not zero; OPEN and EXCESS follow from the others."""
        nanos = self.state.accounts[number].nanos
        shown = (Balance.GRANTED, Balance.PENDING, Balance.POSTED, Balance.OVER)
        return {one.name.lower(): nanos[one] for one in shown if nanos[one]}

    def units(self, number: int = 1) -> dict[str, int]:
        """The same for units."""
        units = self.state.accounts[number].units
        shown = (Balance.GRANTED, Balance.PENDING, Balance.POSTED, Balance.OVER)
        return {one.name.lower(): units[one] for one in shown if units[one]}


def holds_of(state: State) -> dict[int, Hold]:
    """All bids in flight, however they are kept."""
    found = dict(state.holds)
    for key, page in state.pages.items():
        for number, _, *held in page.open_rows().tolist():
            found[key << 16 | number] = Hold(*held)
    return found


def check_touched(state: State, changes: Changes) -> None:
    """What must hold of every account that a batch changed, and of its scopes."""
    for number in changes.accounts:
        account = state.accounts[number]
        assert sum(account.nanos) == 0
        assert sum(account.units) == 0
        for balance in (Balance.GRANTED, Balance.PENDING, Balance.POSTED, Balance.OVER):
            assert account.nanos[balance] >= 0
            assert account.units[balance] >= 0
        assert account.nanos[Balance.OPEN] <= 0
        assert account.nanos[Balance.EXCESS] <= 0


def check_all(books: Books, lowered: Iterable[tuple[Scope, int]] = ()) -> None:
    """Everything that must hold of the whole state: rows, holds, leases, scopes, limits."""
    state = books.state
    balances: audit.Sums = {}
    for account in state.accounts.values():
        for balance in Balance:
            audit.add(balances, (account.number, balance), account.nanos[balance],
                      account.units[balance])  # fmt: skip
    assert [] == audit.compare("rows", audit.sums_of(books.rows), balances)
    holds: audit.Sums = {}
    for hold in holds_of(state).values():
        audit.add(holds, (hold.account, Balance.PENDING), hold.nanos, hold.units)
    assert [] == audit.compare("holds", holds, audit.only(balances, Balance.PENDING))
    leases: audit.Sums = {}
    for (number, _), lease in state.leases.items():
        audit.add(leases, (number, Balance.GRANTED), lease.nanos, lease.units)
    assert [] == audit.compare("leases", leases, audit.only(balances, Balance.GRANTED))
    _check_scopes(state, set(lowered))


def _check_scopes(state: State, lowered: set[tuple[Scope, int]]) -> None:
    for (scope, key, day), drawn in state.drawn.items():
        members = [one for one in state.accounts.values() if any(d is drawn for d in one.scopes)]
        assert drawn.nanos == -sum(one.nanos[Balance.OPEN] for one in members)
        assert drawn.units == -sum(one.units[Balance.OPEN] for one in members)
        if (scope, key) not in lowered:
            assert drawn.nanos <= drawn.limit.nanos <= NO_LIMIT, (scope, key, day)
            assert drawn.units <= drawn.limit.units
