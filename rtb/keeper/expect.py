"""Budgets that reserve what they expect to pay, by choice: a bid takes its price times its chance.

The share is the wins that were billed to the bids that were made, over the last hour or so, and a
fifth more. Until enough bids were seen it is the whole price. Bids in flight may then all win: what
is spent can exceed the budget by what they cost in full less what was taken for them,

    pending * (1 / share - 1)

and by no more, for without budget nothing more is lent. Strict budgets never reserve less than all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from rtb.base.money import ceil_div
from rtb.keeper.chart import Plan
from rtb.ledger.accounts import Balance, State
from rtb.stores.board_money import RESERVE_E6_ALL, MoneyBoard

# How often the share is looked at.
LOOK_MS: Final = 5_000
# A look forgets one part in so many: what is an hour old counts a third.
FORGETS: Final = 720
BIDS_MIN: Final = 200
# A fifth more than expected, and never less than a hundredth of the price.
MARGIN_E6: Final = 1_200_000
SHARE_E6_MIN: Final = 10_000
_MILLION: Final = 1_000_000


@dataclass
class _Count:
    """Of one line item, in millionths: bids and bills that are remembered; and what was seen."""

    bids_e6: int = 0
    bills_e6: int = 0
    taken: int = 0
    posted: int = 0


def share_e6(bids: int, bills: int) -> int:
    """What of a price to reserve, in millionths."""
    if bids < BIDS_MIN:
        return RESERVE_E6_ALL
    share = ceil_div((bills + 1) * MARGIN_E6, bids + 2)
    return min(max(share, SHARE_E6_MIN), RESERVE_E6_ALL)


class Expected:
    """Sets the shares on the money board."""

    def __init__(self, board: MoneyBoard) -> None:
        self._board = board
        self._counts: dict[int, _Count] = {}  # by line item
        self._slots: Mapping[int, int] = {}
        self._looked_ms = 0

    def serve(self, plans: Mapping[int, Plan], slots: Mapping[int, int]) -> None:
        """Puts the plans of a snapshot in force; slots: of line items on the board."""
        self._slots = slots
        kept = self._counts
        self._counts = {
            key: kept.get(key, _Count()) for key, plan in plans.items() if plan.expected
        }
        for key in plans.keys() - self._counts.keys():
            if key in slots:
                self._board.reserve_e6[slots[key]] = RESERVE_E6_ALL

    def turn(self, state: State, now_ms: int) -> None:
        """Looks at bids and bills; to be called in every turn."""
        if not self._counts or 0 <= now_ms - self._looked_ms < LOOK_MS:
            return
        self._looked_ms = now_ms
        posted = dict.fromkeys(self._counts, 0)
        for account in state.accounts.values():
            if account.line_item in posted:
                posted[account.line_item] += account.units[Balance.POSTED]
        for key, count in self._counts.items():
            slot = self._slots.get(key)
            if slot is None:
                continue
            taken = int(self._board.taken_units[:, slot].sum())
            self._remember(count, taken, posted[key])
            share = share_e6(count.bids_e6 // _MILLION, count.bills_e6 // _MILLION)
            self._board.reserve_e6[slot] = share

    @staticmethod
    def _remember(count: _Count, taken: int, posted: int) -> None:
        """Adds what came; a count that fell back, as after a start, adds nothing."""
        count.bids_e6 += max(taken - count.taken, 0) * _MILLION - count.bids_e6 // FORGETS
        count.bills_e6 += max(posted - count.posted, 0) * _MILLION - count.bills_e6 // FORGETS
        count.taken, count.posted = taken, posted
