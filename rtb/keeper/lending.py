"""Leases that begin: who is lent how much of what his budgets have left, and who hears that they
have no more.

How much a lease is follows from what its worker spends and was refused (`rtb.keeper.leases`). Here
is what it has to do with the books, the other nodes and the board, where a lease opens only when
the books have committed it. The clock is an argument: epoch milliseconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from rtb.base.records import Overlay
from rtb.keeper import publish
from rtb.keeper.borrow import News
from rtb.keeper.cluster import WAITS_MAX, Cluster
from rtb.keeper.desks import NEVER, Ended
from rtb.keeper.leases import (
    Demand,
    Lent,
    Limits,
    Need,
    ahead,
    can_serve,
    has_headroom,
    least,
    lend,
)  # fmt: skip
from rtb.keeper.returns import Returns
from rtb.ledger.accounts import NO_FLIGHT, Line, State, place, scope_keys
from rtb.ledger.changes import Row
from rtb.ledger.commands import AMOUNT_MAX, Grant, Outcome, Scope
from rtb.ledger.pool import Amount, Wants
from rtb.stores.board_money import MoneyBoard
from rtb.stores.ledger_sql import LedgerStore

_FAR_MS: Final = 1 << 62  # fits the board


@dataclass
class Loans:
    """What a turn lends; spans: slot -> [from, until) in ms of the money that it is lent."""

    grants: list[Grant] = field(default_factory=list)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)


class Lending:
    """What one node lends to its workers."""

    def __init__(
        self,
        books: LedgerStore,
        board: MoneyBoard,
        slots: publish.Slots,
        returns: Returns,
        cluster: Cluster | None,
        limits: Limits,
        exhausted_ms: int,
    ) -> None:
        """exhausted_ms: how often line items without budget are looked at again."""
        self._books, self._board, self._slots, self._returns = books, board, slots, returns
        self._cluster, self._limits, self._again_ms = cluster, limits, exhausted_ms
        self._demand = Demand(board, limits)
        self._charted = False
        self._near: dict[tuple[Scope, int], list[int]] = {}  # slots by scope; empty: to be made
        self._costs: dict[int, int] = {}  # by slot
        self._spans: dict[int, tuple[int, int, int, int]] = {}
        self._exhausted: dict[int, int] = {}  # slot -> nanos of the least bid that was refused
        self._exhausted_ms = 0
        self.has_more = False  # leases to lend than one turn may

    @property
    def _state(self) -> State:
        return self._books.state

    # -- what has changed --------------------------------------------------------------------------

    def charted(self) -> None:
        """Budgets and flights are others now."""
        self._spans.clear()
        self._charted = True
        self._near.clear()

    def moved(self) -> None:
        """Line items have lost their places."""
        self._near.clear()

    def call_overdrawn(self, now_ms: int) -> None:
        """A budget was set below what is committed: what is lent on it comes back first."""
        for key, slot in self._slots.slot.items():
            room = self._room(slot, self._state.lines[key], now_ms)
            if room is not None and min(room) < 0:
                self._returns.called[:, slot] = self._board.until_ms[:, slot] > 0

    def hear(self, news: News, now_ms: int) -> None:
        """Shares of budgets have changed, or others want some."""
        if news.raised:
            self._exhausted_ms = 0
        for pot, wants in news.called.items():
            near = self._slots_near(*pot[:2])
            if wants is Wants.ALL:
                self._returns.called[:, near] |= self._board.until_ms[:, near] > 0
            else:
                self._returns.called |= self._demand.idle(near, now_ms)

    def serve(self, costs: Mapping[int, int], new: Iterable[int]) -> None:
        """Lends some of the line items that are new to all workers; costs: as of `Keeper.chart`."""
        slots = self._slots.slot
        self._costs = {slots[key]: cost for key, cost in costs.items() if key in slots}
        self._expect(slice(None), [slots[key] for key in new if key in slots])

    def _expect(self, workers: slice, slots: Iterable[int]) -> None:
        """Lends some of these line items to workers before they ask."""
        known = [slot for slot in slots if slot in self._costs]
        self._demand.expect(workers, known, [self._costs[slot] for slot in known])

    # -- a turn ------------------------------------------------------------------------------------

    def observe(self, now_ms: int) -> None:
        """Looks at what workers took and were refused since the last turn."""
        self._demand.observe(now_ms)

    def lend(self, now_ms: int) -> Loans:
        """Leases for those that want them; without money for one, looks who does not need his."""
        self._look_again(now_ms)
        loans = Loans()
        short: list[int] = []
        waits = 0
        self.has_more = False
        live = len(self._returns.open_workers())
        for worker, slot, need in self._demand.hungry(now_ms):
            key = self._slots.key.get(slot)
            if key is None or key in self._slots.leaving:
                continue
            if not self._returns.may_lend(worker, slot):
                continue
            grant = self._grant(worker, slot, need, live, now_ms)
            if grant is None:  # what the pool says is worth waiting for
                waits += 1
                if waits >= WAITS_MAX:
                    break
                continue
            if not isinstance(grant, Grant) and self._demand.expected(worker, slot):
                self._demand.let_go(worker, slot)  # it may still ask for less
            elif isinstance(grant, Grant):
                loans.grants.append(grant)
                loans.spans[slot] = self._span(slot, self._state.lines[key], now_ms)[:2]
            elif grant is Outcome.EXHAUSTED_LINE_ITEM:
                short.append(slot)
            if len(loans.grants) >= self._limits.grants_max:
                self.has_more = True
                break
        self._reclaim(short, loans, now_ms)
        return loans

    def _grant(
        self, worker: int, slot: int, need: Need, live: int, now_ms: int
    ) -> Grant | Outcome | None:
        """The lease of one worker and line item, or why there is none; None: not yet."""
        key = self._slots.key[slot]
        line = self._state.lines[key]
        room = self._room(slot, line, now_ms)
        if room is None:
            return Outcome.NOTHING
        if self._cluster is not None:
            _, _, flight, day = self._spans[slot]
            if self._cluster.waits(line, flight, day, need, room, live, self._limits):
                return None
        if not can_serve(need, room):
            if need.refused and not self._demand.expected(worker, slot):
                self._exhausted[slot] = min(self._exhausted.get(slot, need.wanted), need.wanted)
            return Outcome.EXHAUSTED_LINE_ITEM
        if self._demand.expected(worker, slot):
            # Whoever draws on the same budget is lent ahead of it in the same turn.
            sharers = len(self._slots_near(Scope.ADVERTISER, line.advertiser))
            need = ahead(need, room, live * sharers, self._limits)
        lent = lend(need, room, live, self._limits)
        if lent is None or not has_headroom(int(self._board.granted[worker, slot]), lent):
            return Outcome.NOTHING
        now_s = now_ms // 1000
        expires_s = (now_ms + self._limits.lease_ms) // 1000 + 1
        holder = self._returns.holder(worker)
        return Grant(now_s, key, holder, now_s, min(lent.nanos, AMOUNT_MAX),
                     min(lent.units, AMOUNT_MAX), expires_s, least(need))  # fmt: skip

    def _span(self, slot: int, line: Line, now_ms: int) -> tuple[int, int, int, int]:
        """[from, until) in ms of the account that now's money is of, its flight and day."""
        found = self._spans.get(slot)
        if found is None or not found[0] <= now_ms < found[1]:
            flight, day, from_s, until_s = place(line, now_ms // 1000)
            until_ms = min(until_s * 1000, _FAR_MS)
            found = self._spans[slot] = (from_s * 1000, until_ms, flight, day)
        return found

    def _room(self, slot: int, line: Line, now_ms: int) -> Lent | None:
        """What the budget of this day and flight has left; None outside of all flights."""
        _, _, flight, day = self._span(slot, line, now_ms)
        if line.flights and flight == NO_FLIGHT:
            return None
        state = self._state
        number = state.numbers.get((line.line_item, flight, day))
        if number is not None:
            nanos, units, _ = state.accounts[number].room()
            return Lent(nanos, units)
        rooms = [state.available(*key) for key in scope_keys(line, flight, day)]
        return Lent(min(nanos for nanos, _ in rooms), min(units for _, units in rooms))

    def _reclaim(self, short: list[int], loans: Loans, now_ms: int) -> None:
        """Closes idle leases of the advertisers whose line items found no money."""
        if not short:
            return
        lines = self._state.lines
        owners = {lines[self._slots.key[slot]].advertiser for slot in short}
        near = [
            slot for owner in sorted(owners) for slot in self._slots_near(Scope.ADVERTISER, owner)
        ]
        idle = self._demand.idle(near, now_ms)
        idle[:, list(loans.spans)] = False  # just lent on
        self._returns.called |= idle
        for slot in set(short) - set(np.flatnonzero(idle.any(axis=0)).tolist()):
            self._mark(slot, now_ms)

    def _slots_near(self, scope: Scope, key: int) -> list[int]:
        """The places of all line items that draw on a scope."""
        if not self._near:
            for slot, item in self._slots.key.items():
                line = self._state.lines[item]
                pots = scope_keys(line, NO_FLIGHT, 0)
                flights = [(Scope.FLIGHT, flight.key, 0) for flight in line.flights]
                for pot in (*pots, *flights):
                    self._near.setdefault(pot[:2], []).append(slot)
        return self._near.get((scope, key), [])

    def _mark(self, slot: int, now_ms: int) -> None:
        """Says whether a line item can pay for the least bid that was refused."""
        line = self._state.lines[self._slots.key[slot]]
        room, left = self._room(slot, line, now_ms), self._demand.left_on(slot)
        if room is None or slot not in self._exhausted:
            return
        out = room.nanos + left.nanos < self._exhausted[slot] or room.units + left.units < 1
        publish.overlay(self._board, slot, Overlay.EXHAUSTED, on=out)
        if not out:
            del self._exhausted[slot]
        elif self._cluster is not None:
            _, _, flight, day = self._spans[slot]
            least = Amount(max(self._exhausted[slot], 1), 1)
            self._cluster.pool.want(line, flight, day, least, least)

    def _look_again(self, now_ms: int) -> None:
        """Money may have come back, or a day begun."""
        if 0 <= now_ms - self._exhausted_ms < self._again_ms:
            return
        self._exhausted_ms = now_ms
        for slot in list(self._exhausted):
            if slot in self._slots.key:
                self._mark(slot, now_ms)
            else:
                del self._exhausted[slot]

    # -- after the commit --------------------------------------------------------------------------

    def ended(self, ended: Ended) -> None:
        """Leases of a worker have ended; a new process is lent some ahead."""
        self._demand.forget(ended.worker, ended.slots)
        if ended.admit != NEVER:
            self._demand.begin(ended.worker)
            self._expect(slice(ended.worker, ended.worker + 1), self._costs)

    def publish(self, loans: Loans, row: Row, now_ms: int) -> None:
        """A lease is in the books: opens it on the board."""
        slot = self._slots.slot[self._state.accounts[row.account].line_item]
        lent, worker = Lent(row.nanos, row.units), row.worker & 255
        publish.raise_grant(self._board, worker, slot, lent, loans.spans[slot])
        self._demand.lent(worker, slot, lent, now_ms)

    def say_served(self) -> None:
        """Tells workers that have all leases ahead: they may say that they are ready."""
        board = self._board
        for worker in self._returns.open_workers() if self._charted else ():
            if self._demand.all_ahead(worker):
                board.keeper["served"][worker] = board.keeper["incarnation"][worker]
