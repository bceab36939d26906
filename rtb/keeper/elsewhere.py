"""What nodes tell each other of the budgets that they pace together.

Each would else keep the whole plan by itself, and a day's budget of two nodes be gone by noon. All
that a controller looks at is a sum over bids and bills, so the sums of all nodes are what a single
node would see.
"""

from collections.abc import Mapping
from dataclasses import astuple
from typing import Final

from rtb.keeper.pace import Pacers
from rtb.keeper.pace_budgets import Name
from rtb.keeper.pace_pacer import Key
from rtb.pacing.estimate import Observed, together
from rtb.stores.ledger_pool import PooledStore

# Windows of pacing are longer; a plan is kept the better the newer this is.
TELL_EVERY_MS: Final = 2_000


class Elsewhere:
    """Tells and hears, in the keeper's turns."""

    def __init__(self, books: PooledStore) -> None:
        self._books = books
        self._told: dict[Key, Observed] = {}
        self._told_ms = 0

    def turn(self, pacers: Pacers, nodes: Mapping[int, bool], now_ms: int) -> None:
        """nodes: as `Told.nodes`; who is alone has nobody to tell. Raises: StoreError."""
        if sum(nodes.values()) < 2 or 0 <= now_ms - self._told_ms < TELL_EVERY_MS:
            return
        self._told_ms = now_ms
        newest = max((day for _, day in pacers.own), default=0)
        for old in [key for key in pacers.own if 0 < key[1] < newest - 1]:
            del pacers.own[old]  # zones are at most a day apart
            self._told.pop(old, None)
        news = {
            key: seen for key, seen in pacers.own.items() if _differs(seen, self._told.get(key))
        }
        rows = {
            ((name.scope, name.key, day), name.units): astuple(seen)
            for (name, day), seen in news.items()
        }
        found: dict[Key, Observed] = {}
        for ((scope, key, day), units), numbers in self._books.tell(rows, newest - 1):
            budget, seen = (Name(scope, key, units), day), Observed(*numbers)
            found[budget] = together(found[budget], seen) if budget in found else seen
        self._told |= news
        pacers.hear(found)


def _differs(seen: Observed, told: Observed | None) -> bool:
    """Whether anything but the time has changed."""
    return told is None or astuple(seen)[1:] != astuple(told)[1:]
