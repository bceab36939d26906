"""The keeper's turn: read the journals, book what they say, lend what is left, publish.

    borrow    where nodes share the budgets, what this one may lend, and mail from the others
    read      records of all journals, as many as a batch takes
    book      one transaction: their commands, returns of ended leases, what is due, new leases,
              and the positions of the journals
    publish   the board, only after the transaction

A batch whose commit fails is kept and tried again as it is; until then nothing is read or lent, and
workers spend what they have. Any other fault ends the process: the next one starts from the books,
the journals and the board. The clock is an argument: epoch milliseconds.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from rtb.base.errors import StoreError
from rtb.base.records import Overlay
from rtb.keeper import publish
from rtb.keeper.apply import Exchange
from rtb.keeper.batch import Batch, batch_of, is_never_away
from rtb.keeper.borrow import News
from rtb.keeper.cluster import WAITS_MAX, Cluster
from rtb.keeper.desks import NEVER
from rtb.keeper.leases import Demand, Lent, Limits, Need, can_serve, has_headroom, least, lend
from rtb.keeper.letters import Letters
from rtb.keeper.mail import positions_of
from rtb.keeper.returns import Over, Returns
from rtb.keeper.tail import Read, Tail, Tails, bury
from rtb.ledger.accounts import NO_FLIGHT, Balance, Line, State, place, scope_keys
from rtb.ledger.changes import Entry, Row
from rtb.ledger.chart import Chart, changes_to
from rtb.ledger.commands import (
    AMOUNT_MAX,
    Command,
    Enrol,
    Expire,
    Forget,
    Grant,
    Outcome,
    Scope,
)
from rtb.ledger.pool import Amount, Wants
from rtb.stores.board_money import MoneyBoard
from rtb.stores.journal import Kernel
from rtb.stores.ledger_mail import Mail
from rtb.stores.ledger_pool import PooledStore
from rtb.stores.ledger_sql import Applied, LedgerStore

NO_COSTS: Final[Mapping[int, int]] = {}


@dataclass(frozen=True)
class Settings:
    """What a node sets for its keeper.

    node             number of the node, in every bid's id
    batch_records    5,000: a quarter of a second at the rate that one core books
    remember_s       90,000: bills are promised to be booked for a day; an hour for a keeper that
                     is behind
    forget_every_s   1: how often older marks are let go of; seldom makes long batches
    exhausted_ms     500: how often line items without budget are looked at again
    """

    node: int = 0
    batch_records: int = 5_000
    remember_s: int = 90_000
    forget_every_s: int = 1
    exhausted_ms: int = 500
    leases: Limits = field(default_factory=Limits)


@dataclass
class _Work:
    """A batch and what to publish after it; commands: of its records, then the keeper's own."""

    batch: Batch = field(default_factory=Batch)
    commands: list[Command] = field(default_factory=list)
    positions: dict[str, int] = field(default_factory=dict)
    mail: list[Mail] = field(default_factory=list)
    over: Over = field(default_factory=Over)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)  # slot -> [from, until) ms


class Keeper:
    """The one keeper of a node. `step` does a turn."""

    def __init__(
        self,
        books: LedgerStore,
        board: MoneyBoard,
        journals: Path,
        letters: Letters,
        exchanges: Mapping[int, Exchange],
        kernel: Kernel,
        settings: Settings = Settings(),
    ) -> None:
        self._books, self._board, self._letters = books, board, letters
        self._exchanges, self._settings, self._limits = exchanges, settings, settings.leases
        _, positions = books.load(settings.node)
        self._cluster = Cluster(books, positions) if isinstance(books, PooledStore) else None
        self.tails = Tails(lambda one: Tail(journals, settings.node, one, kernel, positions))
        self.slots = publish.Slots(board)
        publish.forget_exhausted(board)
        self._demand = Demand(board, self._limits)
        self._returns = Returns(
            board, self.slots, self.tails, partial(bury, journals, kernel=kernel), settings.node,
            self._limits.silence_ms, [holder for _, holder in self.state.leases],
        )  # fmt: skip
        self._reads: list[Read] = []
        self._work: _Work | None = None
        self._charted = False
        self._near: dict[tuple[Scope, int], list[int]] = {}  # slots by scope; empty: to be made
        self._costs: dict[int, int] = {}  # by slot
        self._spans: dict[int, tuple[int, int, int, int]] = {}
        self._exhausted: dict[int, int] = {}  # slot -> nanos of the least bid that was refused
        self._expired_s = self._forgot_s = self._exhausted_ms = 0
        self.outcomes: Counter[Outcome] = Counter()
        self.records = 0
        self.has_more = False  # leases to lend than one turn may
        self.fault = ""  # of the last commit; "" when it went well

    @property
    def state(self) -> State:
        """The books, to look at."""
        return self._books.state

    @property
    def nodes(self) -> Mapping[int, bool]:
        """All nodes on these books, and whether each takes part; none where it is one node's."""
        return self._cluster.nodes if self._cluster is not None else {}

    def positions(self) -> dict[int, int]:
        """How far each worker's journal has been booked; nothing while a batch waits."""
        return {} if self._is_busy() else self.tails.positions()

    def is_idle(self) -> bool:
        """Whether all that can be read has been booked."""
        read = self._cluster is None or self._cluster.mailbox.is_empty
        return not self._is_busy() and self.tails.are_read() and read

    def _is_busy(self) -> bool:
        """Whether something was read that is not booked."""
        return self._work is not None or bool(self._reads)

    def give_back(self) -> None:
        """Before a stop: leaves to other nodes what this one was lent. Raises: StoreError."""
        if self._cluster is not None and not self._is_busy():
            self._cluster.give_back()

    def tidy_mail(self, before_s: int) -> None:
        """Deletes mail that was booked and is older. Raises: StoreError."""
        if self._cluster is not None and not self._is_busy():
            self._cluster.tidy_mail(before_s)

    def lag_ms(self, now_ms: int) -> int:
        """How old the oldest record is that has not been read."""
        return now_ms - self.tails.horizon_ms(now_ms)

    def close(self) -> None:
        """Lets go of the journals; books and board are the caller's."""
        self.tails.close()

    # -- what the catalogue says -------------------------------------------------------------------

    def chart(self, chart: Chart, now_ms: int, costs: Mapping[int, int] = NO_COSTS) -> None:
        """Brings budgets up to date, and gives the line items a place on the board.

        costs: the most that an impression of a line item costs, in nanos: who has one is lent some
        ahead.

        Those that the chart names no longer keep their books; their place is free once nothing is
        lent on it. Raises: CatalogueError, StoreError (then call it again).
        """
        commands = changes_to(chart, self.state, now_ms // 1000)
        outcomes = self._books.apply(commands).outcomes if commands else []
        changed = {one.line_item for one in commands if isinstance(one, Enrol)}
        for key in changed & self.slots.slot.keys():  # their lease may be of another time now
            self._returns.called[:, self.slots.slot[key]] = True
        self._spans.clear()
        self._charted = True
        self._near.clear()
        if Outcome.LIMIT_BELOW in outcomes:
            self._close_overdrawn(now_ms)
        if self._cluster is not None:
            self._cluster.pool.charted()
        offered = {item.key for item in chart.line_items}
        self.slots.leaving = self.slots.slot.keys() - offered
        new = offered - self.slots.slot.keys()
        self.slots.assign(sorted(offered))
        self._costs = {
            self.slots.slot[key]: cost
            for key, cost in costs.items()
            if key in offered and key in self.slots.slot
        }
        self._expect(slice(None), [self.slots.slot[key] for key in new if key in self.slots.slot])

    def _expect(self, workers: slice, slots: Iterable[int]) -> None:
        """Lends some of these line items to workers before they ask."""
        known = [slot for slot in slots if slot in self._costs]
        self._demand.expect(workers, known, [self._costs[slot] for slot in known])

    def _close_overdrawn(self, now_ms: int) -> None:
        """A budget was set below what is committed: what is lent on it comes back first."""
        for key, slot in self.slots.slot.items():
            room = self._room(slot, self.state.lines[key], now_ms)
            if room is not None and min(room) < 0:
                self._returns.called[:, slot] = self._board.until_ms[:, slot] > 0

    # -- a turn ------------------------------------------------------------------------------------

    def step(self, now_ms: int) -> int:
        """One turn; returns how many records it booked.

        Raises: StoreError, InvariantError: what was read and not booked is lost to this keeper;
            only a new one can go on.
        """
        if self._work is None:
            if not self._look(now_ms):
                return 0
            self._work = self._gather(now_ms)
        work = self._work
        applied = Applied([], [])
        if work.commands or work.positions:
            try:
                also = self._cluster.sends(work.mail) if self._cluster is not None else None
                applied = self._books.apply(work.commands, work.positions, also)
            except StoreError as error:
                if not error.transient:
                    raise
                self.fault = str(error)
                return 0
        self.fault, self._work = "", None
        self._after(work, applied, now_ms)
        self._board.header["beat_ms"] = now_ms
        return len(work.batch)

    def _look(self, now_ms: int) -> bool:
        """Reads what is new in the journals, and what the other nodes say.

        False when the books cannot be reached: who takes part, and so gets mail, must be known
        before a record is judged.
        """
        cluster, count = self._cluster, self._settings.batch_records
        try:
            if cluster is not None and not self._reads:
                self._hear(cluster.turn(now_ms, count), now_ms)
            self._reads = self._reads or self.tails.read(count, now_ms)
            if cluster is not None:
                cluster.meet(self._reads)
        except StoreError as error:
            if not error.transient:
                raise
            self.fault = str(error)
            return False
        return True

    def _hear(self, news: News, now_ms: int) -> None:
        """Shares of budgets have changed, or others want some."""
        if news.raised:
            self._exhausted_ms = 0
        for pot, wants in news.called.items():
            near = self._slots_near(*pot[:2])
            if wants is Wants.ALL:
                self._returns.called[:, near] |= self._board.until_ms[:, near] > 0
            else:
                self._returns.called |= self._demand.idle(near, now_ms)

    def _gather(self, now_ms: int) -> _Work:
        work = _Work()
        self._demand.observe(now_ms)
        self._book(work, now_ms)
        work.over = self._returns.turn(now_ms)
        work.commands += work.over.commands
        self._clock(work, now_ms)
        self._lend(work, now_ms)
        return work

    def _book(self, work: _Work, now_ms: int) -> None:
        """Commands of records; what cannot be booked goes to the dead letters first."""
        reads, self._reads = self._reads, []
        is_away = is_never_away
        if self._cluster is not None:
            reads += self._cluster.mailbox.read(self._settings.batch_records)
            is_away = self._cluster.mailbox.is_for_another
        work.batch = batch_of(reads, self._exchanges, self.state, is_away)
        work.commands += work.batch.commands
        if self._cluster is not None and work.batch.away:
            work.mail = self._cluster.mailbox.stamp(work.batch.away, now_ms // 1000)
            work.positions |= positions_of(work.mail)
        for tail, records, _, last in reads:
            work.positions[tail.name] = last
            self.records += len(records)
        self._letters.add(work.batch.dead)

    def _clock(self, work: _Work, now_ms: int) -> None:
        """What is due by the time up to which everything was read."""
        if self._cluster is not None:
            work.commands += self._cluster.pool.repays(now_ms // 1000)
        horizon_s = self.tails.horizon_ms(now_ms) // 1000
        if horizon_s > self._expired_s:
            self._expired_s = horizon_s
            due_s = self.state.next_due_s()
            if due_s is not None and due_s <= horizon_s:
                work.commands.append(Expire(horizon_s))
        elif horizon_s >= self._forgot_s + self._settings.forget_every_s:  # in another turn
            self._forgot_s = horizon_s
            work.commands.append(Forget(max(horizon_s - self._settings.remember_s, 0)))

    # -- leases that begin -------------------------------------------------------------------------

    def _lend(self, work: _Work, now_ms: int) -> None:
        """Leases for those that want them; without money for one, looks who does not need his."""
        self._look_again(now_ms)
        short: list[int] = []
        grants = waits = 0
        self.has_more = False
        live = len(self._returns.open_workers())
        for worker, slot, need in self._demand.hungry(now_ms):
            key = self.slots.key.get(slot)
            if key is None or key in self.slots.leaving:
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
                work.commands.append(grant)
                work.spans[slot] = self._span(slot, self.state.lines[key], now_ms)[:2]
                grants += 1
            elif grant is Outcome.EXHAUSTED_LINE_ITEM:
                short.append(slot)
            if grants >= self._limits.grants_max:
                self.has_more = True
                break
        self._reclaim(short, work, now_ms)

    def _grant(
        self, worker: int, slot: int, need: Need, live: int, now_ms: int
    ) -> Grant | Outcome | None:
        """The lease of one worker and line item, or why there is none; None: not yet."""
        key = self.slots.key[slot]
        line = self.state.lines[key]
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
        state = self.state
        number = state.numbers.get((line.line_item, flight, day))
        if number is not None:
            nanos, units, _ = state.accounts[number].room()
            return Lent(nanos, units)
        rooms = [state.available(*key) for key in scope_keys(line, flight, day)]
        return Lent(min(nanos for nanos, _ in rooms), min(units for _, units in rooms))

    def _reclaim(self, short: list[int], work: _Work, now_ms: int) -> None:
        """Closes idle leases of the advertisers whose line items found no money."""
        if not short:
            return
        lines = self.state.lines
        owners = {lines[self.slots.key[slot]].advertiser for slot in short}
        near = [
            slot for owner in sorted(owners) for slot in self._slots_near(Scope.ADVERTISER, owner)
        ]
        idle = self._demand.idle(near, now_ms)
        idle[:, list(work.spans)] = False  # just lent on
        self._returns.called |= idle
        for slot in set(short) - set(np.flatnonzero(idle.any(axis=0)).tolist()):
            self._mark(slot, now_ms)

    def _slots_near(self, scope: Scope, key: int) -> list[int]:
        """The places of all line items that draw on a scope."""
        if not self._near:
            for slot, item in self.slots.key.items():
                line = self.state.lines[item]
                pots = scope_keys(line, NO_FLIGHT, 0)
                flights = [(Scope.FLIGHT, flight.key, 0) for flight in line.flights]
                for pot in (*pots, *flights):
                    self._near.setdefault(pot[:2], []).append(slot)
        return self._near.get((scope, key), [])

    def _mark(self, slot: int, now_ms: int) -> None:
        """Says whether a line item can pay for the least bid that was refused."""
        line = self.state.lines[self.slots.key[slot]]
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
        if now_ms - self._exhausted_ms < self._settings.exhausted_ms:
            return
        self._exhausted_ms = now_ms
        for slot in list(self._exhausted):
            if slot in self.slots.key:
                self._mark(slot, now_ms)
            else:
                del self._exhausted[slot]

    # -- after the commit --------------------------------------------------------------------------

    def _after(self, work: _Work, applied: Applied, now_ms: int) -> None:
        """Publishes: ended leases first, then new ones, then places that are free."""
        self.outcomes += work.batch.count(applied)
        # A kill just here leaves what only the books could refuse to the journal alone.
        self._letters.add(work.batch.refused(applied))
        for ended in work.over.ended:
            self._returns.settled(ended)
            self._demand.forget(ended.worker, ended.slots)
            if ended.admit != NEVER:
                self._demand.begin(ended.worker)
                self._expect(slice(ended.worker, ended.worker + 1), self._costs)
        for row in applied.rows:
            if row.entry == Entry.GRANT:
                self._publish_grant(work, row, now_ms)
            elif row.target == Balance.OVER and self._cluster is not None:
                self._cluster.pool.overspent(row.account)
        self._returns.laid(work.over.ghosts)
        if self._returns.free_slots():
            self._near.clear()
        self._say_served()

    def _publish_grant(self, work: _Work, row: Row, now_ms: int) -> None:
        slot = self.slots.slot[self.state.accounts[row.account].line_item]
        lent, worker = Lent(row.nanos, row.units), row.worker & 255
        publish.raise_grant(self._board, worker, slot, lent, work.spans[slot])
        self._demand.lent(worker, slot, lent, now_ms)

    def _say_served(self) -> None:
        """Tells workers that have all leases ahead: they may say that they are ready."""
        board = self._board
        for worker in self._returns.open_workers() if self._charted else ():
            if self._demand.all_ahead(worker):
                board.keeper["served"][worker] = board.keeper["incarnation"][worker]


_FAR_MS: Final = 1 << 62  # fits the board
