"""The keeper's turn: read the journals, book what they say, lend what is left, publish.

    borrow    where nodes share the budgets, what this one may lend, and mail from the others
    read      records of all journals, as many as a batch takes
    book      one transaction: their commands, returns of ended leases, what is due, new leases,
              and the positions of the journals
    publish   the board, only after the transaction

A batch whose commit fails is kept and tried again as it is; until then nothing is read or lent, and
workers spend what they have. Any other fault ends the process: the next one starts from the books,
the journals and the board. Clocks are arguments: epoch milliseconds, and those of a clock that
nobody sets.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from rtb.base.errors import StoreError
from rtb.keeper import publish
from rtb.keeper.apply import Exchange
from rtb.keeper.batch import Batch, batch_of, is_never_away
from rtb.keeper.cluster import Cluster
from rtb.keeper.deadlines import Deadlines
from rtb.keeper.forgetting import Forgetting
from rtb.keeper.leases import Limits
from rtb.keeper.lending import Lending, Loans
from rtb.keeper.letters import Letters
from rtb.keeper.mail import positions_of
from rtb.keeper.returns import Over, Returns
from rtb.keeper.tail import Read, Tail, Tails, bury
from rtb.keeper.tally import Tally
from rtb.ledger.accounts import Balance, State
from rtb.ledger.changes import Entry
from rtb.ledger.chart import Chart, changes_to, enrolments
from rtb.ledger.commands import Command, Enrol, Expire, Forget, Outcome
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
    loans: Loans = field(default_factory=Loans)
    forgets: bool = False


_ENROLLED: Final = frozenset({Outcome.ENROLLED, Outcome.NOTHING})


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
        self._exchanges, self._settings = exchanges, settings
        _, positions = books.load(settings.node)
        self._cluster = Cluster(books, positions) if isinstance(books, PooledStore) else None
        self.tails = Tails(lambda one: Tail(journals, settings.node, one, kernel, positions))
        self.slots = publish.Slots(board)
        publish.forget_exhausted(board)
        limits = settings.leases
        self._returns = Returns(
            board, self.slots, self.tails, partial(bury, journals, kernel=kernel), settings.node,
            limits.silence_ms, [holder for _, holder in self.state.leases],
        )  # fmt: skip
        self._lending = Lending(
            books, board, self.slots, self._returns, self._cluster, limits, settings.exhausted_ms
        )
        self._reads: list[Read] = []
        self._work: _Work | None = None
        longest_s = max((one.reservation_ttl_s for one in exchanges.values()), default=0)
        self._deadlines = Deadlines(longest_s * 1000 + 1000)
        forgotten_s = self.state.forgotten_s
        self._forgetting = Forgetting(forgotten_s, settings.remember_s, books.noted())
        self._expired_s, self._forgot_s = 0, forgotten_s
        self.outcomes: Counter[Outcome] = Counter()
        self.tally = Tally(exchanges.keys())
        self.records = 0
        self.unbooked: dict[int, str] = {}  # line items that the books refuse, and their names
        self.fault = ""  # of the last commit; "" when it went well

    @property
    def state(self) -> State:
        """The books, to look at."""
        return self._books.state

    @property
    def has_more(self) -> bool:
        """Whether there is more to lend than the last turn might."""
        return self._lending.has_more

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
        lent on it. Nor has anybody a place whose books are of other money than the chart says
        (`unbooked`): he would spend what is not his.

        Raises: CatalogueError, StoreError (then call it again).
        """
        self._books.recall()
        wanted = changes_to(chart, self.state, now_ms // 1000)
        others = self._of_others(enrolments(chart, now_ms // 1000))
        commands = [one for one in wanted if not _enrols(one, others)]
        outcomes = self._books.apply(commands).outcomes if commands else []
        changed = {one.line_item for one in commands if isinstance(one, Enrol)}
        self.unbooked = others | {
            one.line_item: one.name
            for one, outcome in zip(commands, outcomes, strict=True)
            if isinstance(one, Enrol) and outcome not in _ENROLLED
        }
        self.outcomes[Outcome.MOVED] += len(others) + outcomes.count(Outcome.MOVED)
        for key in changed & self.slots.slot.keys():  # their lease may be of another time now
            self._returns.called[:, self.slots.slot[key]] = True
        self._lending.charted()
        if Outcome.LIMIT_BELOW in outcomes:
            self._lending.call_overdrawn(now_ms)
        if self._cluster is not None:
            self._cluster.pool.charted()
        offered = {item.key for item in chart.line_items} - self.unbooked.keys()
        self.slots.leaving = self.slots.slot.keys() - offered
        new = offered - self.slots.slot.keys()
        self.slots.assign(sorted(offered))
        self._lending.serve({key: cost for key, cost in costs.items() if key in offered}, new)

    def _of_others(self, named: Iterable[Enrol]) -> dict[int, str]:
        """Names of line items that are of other money on another node, whether or not they are in
        the books of this one: two nodes may have booked before they shared. Raises: StoreError."""
        if self._cluster is None:
            return {}
        items = {one.line_item: one for one in named}
        return {key: items[key].name for key in self._cluster.claim(items.values())}

    # -- a turn ------------------------------------------------------------------------------------

    def step(self, now_ms: int, steady_ms: int | None = None) -> int:
        """One turn; returns how many records it booked.

        steady_ms: of a clock that nobody sets; None where `now_ms` is of one.

        Raises: StoreError, InvariantError: what was read and not booked is lost to this keeper;
            only a new one can go on.
        """
        steady_ms = now_ms if steady_ms is None else steady_ms
        ended_ms = self._deadlines.now_ms(now_ms, steady_ms)
        self._forgetting.turn(now_ms, steady_ms)
        if self._work is None:
            if not self._look(now_ms):
                return 0
            self._work = self._gather(now_ms, ended_ms)
        work = self._work
        applied = Applied([], [])
        if work.commands or work.positions:
            try:
                also = partial(self._also, work=work)
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
            self._books.recall()
            if cluster is not None and not self._reads:
                self._lending.hear(cluster.turn(now_ms, count), now_ms)
            self._reads = self._reads or self.tails.read(count, now_ms)
            if cluster is not None:
                cluster.meet(self._reads)
        except StoreError as error:
            if not error.transient:
                raise
            self.fault = str(error)
            return False
        return True

    def _gather(self, now_ms: int, ended_ms: int) -> _Work:
        work = _Work()
        self._lending.observe(now_ms)
        self._book(work, now_ms)
        work.over = self._returns.turn(now_ms)
        work.commands += work.over.commands
        self._clock(work, now_ms, ended_ms)
        work.loans = self._lending.lend(now_ms)
        work.commands += work.loans.grants
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

    def _clock(self, work: _Work, now_ms: int, ended_ms: int) -> None:
        """What is due by the time up to which everything was read; ended_ms: as of `Deadlines`."""
        if self._cluster is not None:
            work.commands += self._cluster.pool.repays(now_ms // 1000)
        horizon_ms = self.tails.horizon_ms(now_ms)
        horizon_s, ended_s = horizon_ms // 1000, min(horizon_ms, ended_ms) // 1000
        ends = ended_s != self._expired_s
        if ends:  # by `!=`: a clock that was set back would else end no hold for long
            self._expired_s = ended_s
            due_s = self.state.next_due_s()
            if due_s is not None and due_s <= ended_s:
                work.commands.append(Expire(ended_s))
        before_s = min(self._forgetting.before_s, horizon_s - self._settings.remember_s)
        # In another turn than what ends, but for a keeper whose every turn takes a second.
        if before_s >= self._forgot_s + self._settings.forget_every_s * (2 if ends else 1):
            self._forgot_s = before_s
            work.commands.append(Forget(before_s))
            work.forgets = True

    def _also(self, connection: Connection, work: _Work) -> None:
        """What belongs to the transaction of a batch besides its commands."""
        if self._cluster is not None:
            self._cluster.send(connection, work.mail)
        if work.forgets:
            self._books.note(connection, self._forgetting.noted)

    # -- after the commit --------------------------------------------------------------------------

    def _after(self, work: _Work, applied: Applied, now_ms: int) -> None:
        """Publishes: ended leases first, then new ones, then places that are free."""
        self.outcomes += work.batch.count(applied)
        self.tally.add(work.batch, applied)
        # A kill just here leaves what only the books could refuse to the journal alone.
        self._letters.add(work.batch.refused(applied))
        for ended in work.over.ended:
            self._returns.settled(ended)
            self._lending.ended(ended)
        for row in applied.rows:
            if row.entry == Entry.GRANT:
                self._lending.publish(work.loans, row, now_ms)
            elif row.target == Balance.OVER and self._cluster is not None:
                self._cluster.pool.overspent(row.account)
        self._returns.laid(work.over.ghosts)
        if self._returns.free_slots():
            self._lending.moved()
        self._lending.say_served()


def _enrols(command: Command, line_items: Mapping[int, str]) -> bool:
    return isinstance(command, Enrol) and command.line_item in line_items
