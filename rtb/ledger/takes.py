"""Bids that are taken together: of `Takes`, those to which nothing happens but that.

A bid is *plain* when it is new and well-formed, and its worker's lease pays for it and for all
other bids of its account and worker in the command. Plain bids are charged in one sum for each
account and worker, and written on their pages. The others are taken one by one, after them. That
is the same as all in turn: a plain bid moves money from its lease to its hold and nothing else, no
other bid of the command touches that lease, and where it has enough for all, order does not matter.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from rtb.base.events import BID_SECOND_SHIFT
from rtb.ledger.accounts import Balance, Line, State, account_at
from rtb.ledger.changes import Changes, Entry
from rtb.ledger.commands import AMOUNT_MAX, BID_MAX
from rtb.ledger.pages import HELD, NUMBERS_MAX, PAGE_SHIFT, Groups, Rows

Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.int64]
_WORKER_SHIFT: Final = 16  # of an account in the key of a lease
_WORKERS_MAX: Final = 1 << _WORKER_SHIFT


def take_plain(state: State, takes: Rows, changes: Changes) -> list[int]:
    """Books the plain bids; returns the indices of the others.

    Shapes: takes (n,) of TAKE
    """
    bids = takes["bid"]
    sound = _well_formed(takes) & (bids >> BID_SECOND_SHIFT >= state.forgotten_s)
    accounts = _accounts(state, takes, sound)
    owned = np.flatnonzero(accounts)
    rest = np.ones(len(takes), np.bool_)
    if len(owned):
        odd = ~_are_new(state, takes)[owned]
        taken = owned[_charge(state, takes[owned], accounts[owned], odd, changes)]
        rest[taken] = False
        if len(taken):
            _write(state, takes[taken], accounts[taken], changes)
    return np.flatnonzero(rest).tolist()


def _well_formed(takes: Rows) -> Mask:
    bids, nanos, units = takes["bid"], takes["nanos"], takes["units"]
    in_range = (nanos >= 0) & (nanos <= AMOUNT_MAX) & (units >= 0) & (units <= AMOUNT_MAX)
    found: Mask = in_range & (bids > 0) & (bids < BID_MAX)
    return found


def _accounts(state: State, takes: Rows, sound: Mask) -> Words:
    """The account of each bid; 0 where there is none yet, or a day begins among these bids."""
    found = np.zeros(len(takes), np.int64)
    if not sound.any():
        return found
    seconds = takes["bid"][sound] >> BID_SECOND_SHIFT
    from_s, last_s = int(seconds.min()), int(seconds.max())
    keys, inverse = np.unique(takes["line_item"], return_inverse=True)
    lines = state.lines
    numbers = [_account(state, lines.get(key), from_s, last_s) for key in keys.tolist()]
    found[sound] = np.array(numbers, np.int64)[inverse[sound]]
    return found


def _account(state: State, line: Line | None, from_s: int, last_s: int) -> int:
    if line is None:
        return 0
    account = account_at(state, line, from_s)
    return account.number if account is not None and last_s < line.until_s else 0


def _charge(state: State, takes: Rows, accounts: Words, odd: Mask, changes: Changes) -> Mask:
    """Moves money of all accounts and workers whose bids are plain; returns which bids are."""
    workers = (takes["bid"] >> PAGE_SHIFT & _WORKERS_MAX - 1).astype(np.int64)
    groups = Groups(accounts << _WORKER_SHIFT | workers)
    moved = ((takes["nanos"] | takes["units"]) != 0).astype(np.int64)
    columns = (takes["nanos"], takes["units"], moved, odd.astype(np.int64))
    sums = zip(groups.keys, *(groups.sums(one) for one in columns), strict=True)
    leases = state.leases
    paid = np.zeros(len(groups.keys), np.bool_)
    charged = []
    for index, (key, nanos, units, moves, strange) in enumerate(sums):
        place = (key >> _WORKER_SHIFT, key & _WORKERS_MAX - 1)
        lease = leases.get(place)
        if strange or lease is None or lease.nanos < nanos or lease.units < units:
            continue
        lease.nanos -= nanos
        lease.units -= units
        changes.leases[place] = lease
        charged.append((place[0], nanos, units, moves))
        paid[index] = True
    between = (Balance.GRANTED, Balance.PENDING)
    changes.move_all(state.accounts, Entry.TAKE, between, charged)
    return groups.spread(paid)


def _are_new(state: State, takes: Rows) -> Mask:
    """Whether the books have never heard of a bid, and its page can take it up."""
    found = _first(takes["bid"])
    bids = takes["bid"].tolist()
    for marks in (state.holds.keys(), state.settled.keys()):
        if not marks.isdisjoint(bids):
            found &= [bid not in marks for bid in bids]
    pages = takes["bid"] >> PAGE_SHIFT
    for key in np.unique(pages).tolist():
        page = state.pages.get(key)
        if page is None and key not in state.spent:
            continue
        inside = pages == key
        found[inside] &= page is not None and page.can_add(
            takes["bid"][inside] & NUMBERS_MAX - 1, takes["deadline_s"][inside]
        )
    return found


def _first(bids: npt.NDArray[np.uint64]) -> Mask:
    """Which bids are not a repetition of one before."""
    ranked = np.sort(bids)
    if (ranked[1:] != ranked[:-1]).all():
        return np.ones(len(bids), np.bool_)
    found = np.zeros(len(bids), np.bool_)
    found[np.unique(bids, return_index=True)[1]] = True
    return found


def _write(state: State, takes: Rows, accounts: Words, changes: Changes) -> None:
    """Puts bids on their pages."""
    bids = takes["bid"]
    rows = np.zeros(len(takes), HELD)
    rows["number"], rows["open"], rows["account"] = bids & NUMBERS_MAX - 1, 1, accounts
    for name in ("nanos", "units", "deadline_s"):
        rows[name] = takes[name]
    pages = bids >> PAGE_SHIFT
    for key in np.unique(pages).tolist():
        changes.write(state, key, rows[pages == key])
    changes.time_s = max(changes.time_s, int(bids.max()) >> BID_SECOND_SHIFT)
