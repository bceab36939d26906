"""What pacing reads on the boards: requests, bids and what they reserved, by line item.

Bids and their money are exact: every worker counts what it takes. Requests are counted one in
`FUNNEL_SAMPLE`: what the funnel says of a line item, but what no price could have changed.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rtb.base.reasons import Reject
from rtb.stores.board import FUNNEL_FIRST_REASON, FUNNEL_REASONS, FUNNEL_SAMPLE, Board
from rtb.stores.board_money import NO_SLOT, MoneyBoard

Words = npt.NDArray[np.int64]

# Told once for an impression and line item. Those left out are not a request that it could have
# had: they come before the throttle, or outside of its flights, or without its budget.
_LEFT_OUT: Final = frozenset(
    {
        Reject.TARGETING_EXPRESSION, Reject.PAUSED, Reject.FLIGHT, Reject.EXHAUSTED,
        Reject.TRUNCATED, Reject.MULTIPLIER,
    }
)  # fmt: skip
_ONCE: Final = frozenset(
    {Reject.DEAL_ONLY, Reject.PRIVATE_AUCTION, Reject.SEAT, Reject.OPTED_OUT, Reject.PACED}
)


def _mask(chosen: bool) -> npt.NDArray[np.uint32]:
    """Which columns of the funnel are told once (or of each creative) for a request."""
    out = {reason - FUNNEL_FIRST_REASON for reason in _LEFT_OUT}
    once = {reason - FUNNEL_FIRST_REASON for reason in _ONCE}
    rest = set(range(FUNNEL_REASONS)) - out - once
    found = np.zeros(FUNNEL_REASONS, np.uint32)
    found[sorted(once if chosen else rest)] = 1
    return found


_MASK_ONCE, _MASK_EACH = _mask(True), _mask(False)


class Counts:
    """Sums that only grow, from any start, for line items in a fixed order. A worker that starts
    again, and a board that is new, only stand still for a moment.

    Shapes: requests, bids, reserved (line items,) int64. Units: reserved in nanos.
    """

    def __init__(self, board: Board, money: MoneyBoard) -> None:
        self._board, self._money = board, money
        self._places: dict[int, int] = {}
        self.requests: Words = np.zeros(0, np.int64)
        self.bids: Words = np.zeros(0, np.int64)
        self.reserved: Words = np.zeros(0, np.int64)
        self.serve([], [], {}, [])

    def serve(
        self,
        keys: Sequence[int],
        rows: Sequence[int],
        slots: Mapping[int, int],
        creatives: Sequence[int],
    ) -> None:
        """Counts for these line items from now on: their row in the funnel, their slot, and how
        many creatives speak for them there. Those that were there before go on counting.
        """
        count = len(keys)
        fresh = [np.zeros(count, np.int64) for _ in range(3)]
        both = [(place, self._places[key]) for place, key in enumerate(keys) if key in self._places]
        if both:
            now, before = np.array(both, np.int64).T
            for new, old in zip(fresh, (self.requests, self.bids, self.reserved), strict=True):
                new[now] = old[before]
        self.requests, self.bids, self.reserved = fresh
        self._places = {key: place for place, key in enumerate(keys)}
        self._rows = np.minimum(np.array(rows, np.int64), self._board.line_items_max)
        self._creatives = np.maximum(np.array(creatives, np.int64), 1)
        self.slots = np.array([slots.get(key, NO_SLOT) for key in keys], np.int64)
        self._known = np.flatnonzero(self.slots != NO_SLOT)
        self._told = np.zeros((self._board.workers_count, 2, count), np.uint32)
        for worker in range(self._board.workers_count):
            self._told[worker] = self._funnel(worker)
        self._taken, self._units = self._money.taken.copy(), self._money.taken_units.copy()

    def look(self) -> None:
        """Counts what was taken since the last look."""
        taken, units = self._money.taken.copy(), self._money.taken_units.copy()
        # A process that started anew counts from nothing.
        again = units < self._units
        new = np.where(again, taken, np.maximum(taken - self._taken, 0)).sum(axis=0)
        new_units = np.where(again, units, units - self._units).sum(axis=0)
        known, slots = self._known, self.slots[self._known]
        self.reserved[known] += new[slots]
        self.bids[known] += new_units[slots]
        self._taken, self._units = taken, units

    def look_at(self, worker: int) -> None:
        """Counts what a worker has added to the funnel since the last look."""
        told = self._funnel(worker)
        once, each = (told - self._told[worker]).astype(np.int64)  # modulo 2**32, as it is counted
        self.requests += (once * self._creatives + each) * FUNNEL_SAMPLE // self._creatives
        self._told[worker] = told

    def workers(self) -> range:
        """Whose columns there are."""
        return range(self._board.workers_count)

    def answered(self) -> int:
        """Requests of all exchanges and line items."""
        return int(self._board.total("requests").sum())

    def _funnel(self, worker: int) -> npt.NDArray[np.uint32]:
        """(2, line items): told once a request, and once for each creative."""
        funnel = self._board.funnel[worker]
        found = np.zeros((2, len(funnel) + 1), np.uint32)  # rows beyond have no counts
        last = int(self._rows.max(initial=-1)) + 1
        last = min(last, len(funnel))
        found[0, :last] = funnel[:last] @ _MASK_ONCE
        found[1, :last] = funnel[:last] @ _MASK_EACH
        return found[:, self._rows]
