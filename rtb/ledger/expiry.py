"""What is due: closes bids in flight, and says how much they held of each account."""

import numpy as np

from rtb.ledger.accounts import Mark, State
from rtb.ledger.changes import Changes
from rtb.ledger.pages import SECOND_SHIFT, by_account

Due = dict[int, list[int]]  # account -> nanos, units, and how many bids held any


def close_due(state: State, now_s: int, changes: Changes) -> Due:
    """Closes every bid whose deadline is `now_s` or before. Their money stays in PENDING: whoever
    calls gives it back."""
    due: Due = {}
    _close_holds(state, now_s, due, changes)
    _close_pages(state, now_s, due, changes)
    return due


def _close_holds(state: State, now_s: int, due: Due, changes: Changes) -> None:
    for deadline in [deadline for deadline in state.due if deadline <= now_s]:
        for bid in state.due.pop(deadline):
            hold = state.holds.get(bid)
            if hold is None:
                continue  # settled before
            changes.release(state, bid)
            changes.settle(state, bid, Mark.EXPIRED, 0, seen=True)
            moved = hold.nanos != 0 or hold.units != 0
            _add(due, hold.account, hold.nanos, hold.units, int(moved))


def _close_pages(state: State, now_s: int, due: Due, changes: Changes) -> None:
    """Closes what is due on pages, and lets go of those that are spent."""
    deadlines = [deadline for deadline in state.pages_due if deadline <= now_s]
    keys = {key for deadline in deadlines for key in state.pages_due.pop(deadline)}
    closed = []
    for key in sorted(keys):
        page = state.pages[key]
        closed.append(page.expire(now_s))
        changes.expired[key] = now_s
        if not page.due_s:
            del state.pages[key]
            changes.spent[key] = b""
            if key >> SECOND_SHIFT >= state.forgotten_s:
                state.spent[key] = changes.spent[key] = page.bitmap()
    if closed:
        for account, *sums in by_account(np.concatenate(closed)):
            _add(due, account, *sums)


def _add(due: Due, account: int, nanos: int, units: int, moves: int) -> None:
    found = due.setdefault(account, [0, 0, 0])
    found[0] += nanos
    found[1] += units
    found[2] += moves
