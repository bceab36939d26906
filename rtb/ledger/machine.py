"""The books' state machine: `apply(state, command, changes) -> Outcome`.

Everything that changes a balance lives here. Rules:

1. In every scope with a limit, granted + pending + posted <= limit, after every command; only
   lowering a limit breaks it, and then nothing is granted until it holds again.
2. A bill is booked exactly once, whatever came before it and in whichever order: from the bid's
   hold, then from what the budget has left, and what neither has is overspend (`Balance.OVER`).
3. A bid's record charges the lease of its worker exactly once, whenever it comes. So a lease is
   always what the worker believes it has, less the records that are under way.
4. Money that comes back pays for its account's own overspend before anybody else can have it.
5. No command is refused because of its order; what cannot be booked has an outcome that says why.

Time comes with commands, chance not at all: a state and commands give the same state, rows and
outcomes anywhere.
"""

from collections.abc import Callable
from typing import Any, Final

from rtb.base.events import bid_time_s
from rtb.ledger.accounts import (
    NO_LIMIT,
    Account,
    Balance,
    Hold,
    Lease,
    Limit,
    Line,
    Mark,
    Settled,
    State,
    account_at,
    bind,
    enrol,
    known_zone,
    open_account,
    place,
)  # fmt: skip
from rtb.ledger.changes import Changes, Entry
from rtb.ledger.commands import (
    AMOUNT_MAX,
    BID_MAX,
    TEXT_CHARS_MAX,
    TIME_MAX_S,
    Adjust,
    Command,
    Enrol,
    Expire,
    Forget,
    Grant,
    Outcome,
    Post,
    Repay,
    Return,
    SetLimit,
    Take,
    Takes,
    Void,
    worker_of,
)  # fmt: skip
from rtb.ledger.expiry import close_due
from rtb.ledger.pages import SECOND_SHIFT
from rtb.ledger.takes import take_plain

_OPEN, _GRANTED, _PENDING = Balance.OPEN, Balance.GRANTED, Balance.PENDING
_POSTED, _EXCESS, _OVER = Balance.POSTED, Balance.EXCESS, Balance.OVER
_EXHAUSTED: Final = 32  # Outcome of an exhausted scope: this + Scope


def apply(state: State, command: Command, changes: Changes) -> Outcome:
    """Applies one command to the state, and notes in `changes` what it did."""
    return _HANDLERS[type(command)](state, command, changes)


# -- descriptions ----------------------------------------------------------------------------------


def _enrol(state: State, command: Enrol, changes: Changes) -> Outcome:
    if not _well_formed(command):
        return Outcome.MALFORMED
    line = state.lines.get(command.line_item)
    if line is None:
        line = Line(
            command.line_item, command.campaign, command.advertiser, command.zone,
            command.currency, command.flights, command.name,
        )  # fmt: skip
        if not enrol(state, line):
            return Outcome.MOVED
        changes.lines[command.line_item] = line
        return Outcome.ENROLLED
    fixed = (line.campaign, line.advertiser, line.currency)
    if fixed != (command.campaign, command.advertiser, command.currency):
        return Outcome.MOVED  # its money would be in scopes that never drew it
    described = (command.zone, command.flights, command.name)
    if described == (line.zone, line.flights, line.name):
        return Outcome.NOTHING
    line.zone, line.flights, line.name = described
    line.forget_last()
    changes.lines[command.line_item] = line
    return Outcome.ENROLLED


def _well_formed(command: Enrol) -> bool:
    last_s = 0
    for flight in command.flights:
        if not (flight.key and last_s <= flight.start_s < flight.end_s):
            return False
        last_s = flight.end_s
    return command.line_item != 0 and known_zone(command.zone) and _storable(command.name)


def _storable(text: str) -> bool:
    """A line of text that any engine can keep."""
    return 0 < len(text) <= TEXT_CHARS_MAX and text.isprintable()


def _set_limit(state: State, command: SetLimit, changes: Changes) -> Outcome:
    nanos = NO_LIMIT if command.nanos is None else command.nanos
    units = NO_LIMIT if command.units is None else command.units
    if nanos < 0 or units < 0:
        return Outcome.MALFORMED
    limit = state.limits.setdefault((command.scope, command.key), Limit())
    if (limit.nanos, limit.units) == (nanos, units):
        return Outcome.NOTHING
    limit.nanos, limit.units = nanos, units
    changes.limits.append(command)
    for day in limit.days:
        bind(state, (command.scope, command.key, day))
    scopes = (state.drawn[command.scope, command.key, day] for day in limit.days)
    below = any(drawn.nanos > nanos or drawn.units > units for drawn in scopes)
    return Outcome.LIMIT_BELOW if below else Outcome.LIMIT_SET


# -- leases ----------------------------------------------------------------------------------------


def _grant(state: State, command: Grant, changes: Changes) -> Outcome:
    if not (0 <= command.nanos <= AMOUNT_MAX and 0 <= command.units <= AMOUNT_MAX):
        return Outcome.MALFORMED
    if not (command.nanos or command.units) or not 0 <= command.at_s < TIME_MAX_S:
        return Outcome.MALFORMED
    account = _account_at(state, command.line_item, command.at_s, changes)
    if account is None:
        return Outcome.UNKNOWN_LINE_ITEM
    changes.time_s = max(changes.time_s, command.time_s)
    _repay(account, changes)
    room_nanos, room_units, scarce = account.room()
    nanos, units = max(min(command.nanos, room_nanos), 0), max(min(command.units, room_units), 0)
    if nanos < max(command.least, min(command.nanos, 1)) or (command.units and not units):
        return Outcome(_EXHAUSTED + scarce)
    changes.move(account, Entry.GRANT, _OPEN, _GRANTED, nanos, units, worker=command.worker)
    key = (account.number, command.worker)
    lease = state.leases.setdefault(key, Lease(0, 0, 0))
    lease.nanos += nanos
    lease.units += units
    lease.expires_s = max(lease.expires_s, command.expires_s)
    changes.leases[key] = lease
    part = nanos < command.nanos or units < command.units
    return Outcome.GRANTED_PART if part else Outcome.GRANTED


def _return(state: State, command: Return, changes: Changes) -> Outcome:
    if command.line_item:
        line = state.lines.get(command.line_item)
        if line is None:
            return Outcome.UNKNOWN_LINE_ITEM
        keys = [(number, command.worker) for number in line.numbers]
        keys = [key for key in keys if key in state.leases]
    else:
        keys = [key for key in state.leases if key[1] == command.worker]
    changes.time_s = max(changes.time_s, command.time_s)
    for key in keys:
        lease = state.leases.pop(key)
        changes.leases[key] = None
        _free(state.accounts[key[0]], changes, Entry.RETURN, _GRANTED, lease.nanos, lease.units)
    return Outcome.RETURNED if keys else Outcome.NOTHING


# -- bids ------------------------------------------------------------------------------------------


def _take(state: State, command: Take, changes: Changes) -> Outcome:
    bid = command.bid
    if state.held(bid) is not None:
        return Outcome.DUPLICATE
    settled = state.fate(bid)
    if settled is not None and settled.seen:
        return Outcome.DUPLICATE
    nanos, units = command.nanos, command.units
    if not (0 < bid < BID_MAX and 0 <= nanos <= AMOUNT_MAX and 0 <= units <= AMOUNT_MAX):
        return Outcome.MALFORMED
    time_s = bid_time_s(bid)
    if time_s < state.forgotten_s:
        return Outcome.TOO_OLD
    account = _account_at(state, command.line_item, time_s, changes)
    if account is None:
        return Outcome.UNKNOWN_LINE_ITEM
    if time_s > changes.time_s:
        changes.time_s = time_s
    if settled is not None:
        return _take_settled(state, command, account, settled, changes)
    leased, held_nanos, held_units = _reserve(state, account, bid, nanos, units, changes)
    changes.hold(state, bid, Hold(account.number, held_nanos, held_units, command.deadline_s))
    if leased:
        return Outcome.TAKEN
    short = held_nanos < nanos or held_units < units
    return Outcome.TAKEN_SHORT if short else Outcome.TAKEN_UNGRANTED


def _takes(state: State, command: Takes, changes: Changes) -> Outcome:
    """Says TAKEN for all; of which that is not true, `changes.apart` has the outcome."""
    takes = command.takes
    for index in take_plain(state, takes, changes):
        outcome = _take(state, Take(*takes[index].item()), changes)
        if outcome is not Outcome.TAKEN:
            changes.apart[changes.taken + index] = outcome
    changes.taken += len(takes)
    return Outcome.TAKEN


def _take_settled(
    state: State, command: Take, account: Account, settled: Settled, changes: Changes
) -> Outcome:
    """The record of a bid that was voided before it came: only its lease has not heard of it."""
    nanos, units = _charge(state, account, command.bid, command.nanos, command.units, changes)
    _free(account, changes, Entry.TAKE, _GRANTED, nanos, units)
    changes.settle(state, command.bid, settled.mark, settled.nanos, seen=True)
    return Outcome.TAKEN_SETTLED


def _reserve(
    state: State, account: Account, bid: int, nanos: int, units: int, changes: Changes
) -> tuple[bool, int, int]:
    """Moves a bid's money to PENDING: from its worker's lease, and what that lacks from the budget.

    Returns whether the lease had it all, and how much was moved.
    """
    got_nanos, got_units = _charge(state, account, bid, nanos, units, changes)
    changes.move(account, Entry.TAKE, _GRANTED, _PENDING, got_nanos, got_units)
    if got_nanos == nanos and got_units == units:
        return True, nanos, units
    room_nanos, room_units, _ = account.room()
    more_nanos = max(min(nanos - got_nanos, room_nanos), 0)
    more_units = max(min(units - got_units, room_units), 0)
    changes.move(account, Entry.TAKE, _OPEN, _PENDING, more_nanos, more_units)
    return False, got_nanos + more_nanos, got_units + more_units


def _charge(
    state: State, account: Account, bid: int, nanos: int, units: int, changes: Changes
) -> tuple[int, int]:
    """Lowers the lease that a bid was paid from; returns how much of it was there."""
    key = (account.number, worker_of(bid))
    lease = state.leases.get(key)
    if lease is None:
        return 0, 0
    if lease.nanos < nanos:
        nanos = lease.nanos
    if lease.units < units:
        units = lease.units
    lease.nanos -= nanos
    lease.units -= units
    changes.leases[key] = lease
    return nanos, units


def _post(state: State, command: Post, changes: Changes) -> Outcome:
    bid, nanos = command.bid, command.nanos
    hold = state.held(bid)
    settled = None if hold is not None else state.fate(bid)
    if settled is not None and settled.mark in _BOOKED:
        return Outcome.DUPLICATE if settled.nanos == nanos else Outcome.DUPLICATE_OTHER_PRICE
    if not (0 < bid < BID_MAX and 0 <= nanos <= AMOUNT_MAX and 0 <= command.units <= AMOUNT_MAX):
        return Outcome.MALFORMED
    if nanos > command.bid_nanos:
        return Outcome.ABOVE_BID
    if command.time_s > changes.time_s:
        changes.time_s = command.time_s
    if hold is not None:
        account = state.accounts[hold.account]
        if account.line_item != command.line_item:
            return Outcome.OTHER_LINE_ITEM
        changes.release(state, bid)
        changes.settle(state, bid, Mark.POSTED, nanos, seen=True)
        over = _book(account, command, Entry.POST, hold.nanos, hold.units, changes)
        return Outcome.POSTED_OVER if over else Outcome.POSTED
    if bid_time_s(bid) < state.forgotten_s:
        return Outcome.TOO_OLD
    found = _account_at(state, command.line_item, bid_time_s(bid), changes)
    if found is None:
        return Outcome.UNKNOWN_LINE_ITEM
    if settled is not None:
        return _post_late(state, command, found, settled, changes)
    held_nanos, held_units, seen = _reserve_unseen(state, command, found, changes)
    changes.settle(state, bid, Mark.POSTED, nanos, seen=seen)
    over = _book(found, command, Entry.POST, held_nanos, held_units, changes)
    return Outcome.POSTED_OVER if over else Outcome.POSTED_UNSEEN


def _post_late(
    state: State, command: Post, account: Account, settled: Settled, changes: Changes
) -> Outcome:
    """A bill after its hold was given back. If its record has not come, the lease still has it."""
    held_nanos, held_units, seen = 0, 0, True
    if not settled.seen:
        held_nanos, held_units, seen = _reserve_unseen(state, command, account, changes)
    changes.settle(state, command.bid, Mark.LATE, command.nanos, seen=seen)
    over = _book(account, command, Entry.LATE, held_nanos, held_units, changes)
    return Outcome.LATE_OVER if over else Outcome.LATE


def _reserve_unseen(
    state: State, command: Post, account: Account, changes: Changes
) -> tuple[int, int, bool]:
    """Does what the bid's own record would do, when the bill knows what that would be.

    Returns money and units held, and whether the lease was charged; if not, the record will.
    """
    wanted = min(command.reserve_nanos, command.bid_nanos)
    if wanted <= 0:
        return 0, 0, False
    _, nanos, units = _reserve(state, account, command.bid, wanted, command.units, changes)
    return nanos, units, True


def _void(state: State, command: Void, changes: Changes) -> Outcome:
    bid = command.bid
    hold = state.held(bid)
    settled = None if hold is not None else state.fate(bid)
    if settled is not None:
        return Outcome.ALREADY_POSTED if settled.mark in _BOOKED else Outcome.DUPLICATE
    if not 0 < bid < BID_MAX:
        return Outcome.MALFORMED
    if command.time_s > changes.time_s:
        changes.time_s = command.time_s
    if hold is not None:
        account = state.accounts[hold.account]
        if account.line_item != command.line_item:
            return Outcome.OTHER_LINE_ITEM
        changes.lose(state, bid)
        _free(account, changes, Entry.VOID, _PENDING, hold.nanos, hold.units)
        return Outcome.VOIDED
    if bid_time_s(bid) < state.forgotten_s:
        return Outcome.TOO_OLD
    if command.line_item not in state.lines:
        return Outcome.UNKNOWN_LINE_ITEM
    changes.settle(state, bid, Mark.VOIDED, 0, seen=False)
    return Outcome.VOIDED_UNSEEN


def _expire(state: State, command: Expire, changes: Changes) -> Outcome:
    """Gives back by account, in order of line item, flight and day: that order decides whose
    overspend is paid first by what a shared scope has left."""
    due = close_due(state, command.now_s, changes)
    if not due:
        return Outcome.NOTHING
    changes.time_s = max(changes.time_s, command.now_s)
    accounts = [state.accounts[number] for number in due]
    for account in sorted(accounts, key=lambda one: (one.line_item, one.flight, one.day)):
        nanos, units, moves = due[account.number]
        _free(account, changes, Entry.EXPIRE, _PENDING, nanos, units, moves)
    return Outcome.EXPIRED


def _forget(state: State, command: Forget, changes: Changes) -> Outcome:
    if command.before_s <= state.forgotten_s:
        return Outcome.NOTHING
    state.forgotten_s = command.before_s
    for bid in [bid for bid in state.settled if bid_time_s(bid) < command.before_s]:
        del state.settled[bid]
        changes.settled.pop(bid, None)
    for key in [key for key in state.spent if key >> SECOND_SHIFT < command.before_s]:
        del state.spent[key]
    changes.forgotten = True
    return Outcome.FORGOTTEN


# -- corrections -----------------------------------------------------------------------------------


def _adjust(state: State, command: Adjust, changes: Changes) -> Outcome:
    if command.reference in state.references:
        return Outcome.DUPLICATE
    nanos, units = command.nanos, command.units
    if max(abs(nanos), abs(units)) > AMOUNT_MAX or nanos * units < 0:
        return Outcome.MALFORMED
    if not (_storable(command.reference) and 0 <= command.at_s < TIME_MAX_S):
        return Outcome.MALFORMED
    account = _account_at(state, command.line_item, command.at_s, changes)
    if account is None:
        return Outcome.UNKNOWN_LINE_ITEM
    spent = account.nanos[_POSTED] + account.nanos[_OVER]
    if -nanos > spent or -units > account.units[_POSTED] + account.units[_OVER]:
        return Outcome.ABOVE_POSTED
    changes.time_s = max(changes.time_s, command.time_s)
    state.references.add(command.reference)
    changes.references.append(command.reference)
    if nanos < 0 or units < 0:
        _refund(account, command, changes)
        return Outcome.ADJUSTED
    over = _cover(
        account, Entry.ADJUST, nanos, units, changes, bid=command.bid, reference=command.reference
    )
    return Outcome.ADJUSTED_OVER if over else Outcome.ADJUSTED


def _refund(account: Account, command: Adjust, changes: Changes) -> None:
    """Overspend is forgiven first: it never was the budget's."""
    nanos, units = -command.nanos, -command.units
    over_nanos, over_units = min(nanos, account.nanos[_OVER]), min(units, account.units[_OVER])
    for source, target, part_nanos, part_units in (
        (_OVER, _EXCESS, over_nanos, over_units),
        (_POSTED, _OPEN, nanos - over_nanos, units - over_units),
    ):
        changes.move(
            account, Entry.ADJUST, source, target, part_nanos, part_units,
            bid=command.bid, reference=command.reference,
        )  # fmt: skip
    _repay(account, changes)


def _repay_account(state: State, command: Repay, changes: Changes) -> Outcome:
    account = state.accounts.get(command.account)
    if account is None:
        return Outcome.NOTHING
    before = account.nanos[_OVER], account.units[_OVER]
    changes.time_s = max(changes.time_s, command.time_s)
    _repay(account, changes)
    done = (account.nanos[_OVER], account.units[_OVER]) != before
    return Outcome.REPAID if done else Outcome.NOTHING


# -- what the handlers share -----------------------------------------------------------------------


def _account_at(state: State, line_item: int, time_s: int, changes: Changes) -> Account | None:
    """The account of a line item's money at a time; opened when it is the first of its day."""
    line = state.lines.get(line_item)
    if line is None:
        return None
    found = account_at(state, line, time_s)
    if found is None:
        flight, day, line.from_s, line.until_s = place(line, time_s)
        found = line.last = open_account(state, line, flight, day)
        changes.opened.append(found)
    return found


def _book(
    account: Account, command: Post, entry: Entry, held_nanos: int, held_units: int,
    changes: Changes,
) -> bool:  # fmt: skip
    """Books a bill: from its hold, the rest as `_cover`; gives back what the hold has too much.

    Returns whether some of it is overspend.
    """
    nanos, units, bid = command.nanos, command.units, command.bid
    paid_nanos = nanos if nanos < held_nanos else held_nanos
    paid_units = units if units < held_units else held_units
    changes.move(account, entry, _PENDING, _POSTED, paid_nanos, paid_units, bid)
    if held_nanos > paid_nanos or held_units > paid_units:
        back_nanos, back_units = held_nanos - paid_nanos, held_units - paid_units
        _free(account, changes, entry, _PENDING, back_nanos, back_units)
    if nanos == paid_nanos and units == paid_units:
        return False
    return _cover(account, entry, nanos - paid_nanos, units - paid_units, changes, bid=bid)


def _cover(
    account: Account, entry: Entry, nanos: int, units: int, changes: Changes, *, bid: int = 0,
    reference: str = "",
) -> bool:  # fmt: skip
    """Books what no hold covers: from what the budget has left, and the rest as overspend."""
    room_nanos, room_units, _ = account.room()
    got_nanos, got_units = max(min(nanos, room_nanos), 0), max(min(units, room_units), 0)
    changes.move(account, entry, _OPEN, _POSTED, got_nanos, got_units, bid=bid, reference=reference)
    over_nanos, over_units = nanos - got_nanos, units - got_units
    changes.move(
        account, entry, _EXCESS, _OVER, over_nanos, over_units, bid=bid, reference=reference
    )
    return over_nanos > 0 or over_units > 0


def _free(
    account: Account, changes: Changes, entry: Entry, source: Balance, nanos: int, units: int,
    moves: int = 1,
) -> None:  # fmt: skip
    """Money comes back to the budget."""
    changes.move(account, entry, source, _OPEN, nanos, units, moves=moves)
    if account.nanos[_OVER] or account.units[_OVER]:
        _repay(account, changes)


def _repay(account: Account, changes: Changes) -> None:
    """Turns overspend into spend, as far as the budget has money again."""
    if not (account.nanos[_OVER] or account.units[_OVER]):
        return
    room_nanos, room_units, _ = account.room()
    nanos = max(min(account.nanos[_OVER], room_nanos), 0)
    units = max(min(account.units[_OVER], room_units), 0)
    changes.move(account, Entry.REPAY, _OVER, _EXCESS, nanos, units)
    changes.move(account, Entry.REPAY, _OPEN, _POSTED, nanos, units)


_BOOKED: Final = frozenset({Mark.POSTED, Mark.LATE})

# Each handler takes its own command: the table is what makes that true.
_HANDLERS: Final[dict[type, Callable[[State, Any, Changes], Outcome]]] = {
    Enrol: _enrol,
    SetLimit: _set_limit,
    Grant: _grant,
    Return: _return,
    Take: _take,
    Takes: _takes,
    Post: _post,
    Void: _void,
    Expire: _expire,
    Forget: _forget,
    Adjust: _adjust,
    Repay: _repay_account,
}
