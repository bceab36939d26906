"""The books on disk: SQLite with `synchronous=FULL`, or PostgreSQL.

One writer holds the state in memory. A batch of commands is applied to it and written, with the
positions of the journals it came from, in one transaction: after any crash the database holds a
whole number of batches, and the journals say which commands come next. Whoever calls `load` becomes
the writer; a former one is refused from then on, so two keepers cannot both spend a budget.

Readers (`rows`, `balances`, `audit`) may be other processes, at any time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Final, NamedTuple, Self
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, select

from rtb.base.errors import InvariantError, StoreError
from rtb.base.events import BID_SECOND_SHIFT
from rtb.ledger import audit
from rtb.ledger.accounts import BALANCES, Balance, Mark, Settled, State
from rtb.ledger.calendar import day_of
from rtb.ledger.changes import Changes, Row
from rtb.ledger.commands import (
    TIME_MAX_S,
    Adjust,
    Command,
    Grant,
    Outcome,
    Post,
    Scope,
    Take,
    Takes,
    Void,
)
from rtb.ledger.machine import apply
from rtb.ledger.pages import PAGE_SHIFT
from rtb.stores import ledger_pages as pages
from rtb.stores import ledger_read as read
from rtb.stores import ledger_schema as schema
from rtb.stores import ledger_sheets as sheets
from rtb.stores.ledger_engines import Database, engine_of
from rtb.stores.ledger_schema import signed

UTC: Final = ZoneInfo("UTC")
# How long a batch waits for a reader or a backup that holds the file, before it is tried again.
LOCK_WAIT_MS: Final = 2_000
# Settled bids that one batch forgets at most, so that a long rest does not make one long batch.
PURGE_ROWS_MAX: Final = 20_000
NONE_APART: Final[Mapping[int, Outcome]] = {}


class Applied(NamedTuple):
    """What became of a batch: an outcome a command, and the rows that are no sums.

    Rows of grants say what a worker may take: raise its part of the board by their nanos.
    apart: outcomes of those bids of `Takes` that were not simply TAKEN, by their place among all
    """

    outcomes: list[Outcome]
    rows: list[Row]
    apart: Mapping[int, Outcome] = NONE_APART


class LedgerStore(Database):
    """The books of one database. Not for two threads at once."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._state: State | None = None
        self._positions: dict[str, int] = {}
        self._sequence = 0
        self._limits_sequence = 0
        self._writer = 0
        self._purging = False
        self._from_day = 0
        self._days: set[int] = set()  # loaded, before `_from_day`

    @classmethod
    def open(cls, url: str, *, lock_wait_ms: int = LOCK_WAIT_MS) -> Self:
        """Opens the books at "sqlite:///<path>" or "postgresql://..."; makes them if need be.

        Raises: ConfigError for a URL that names neither; StoreError when it cannot be reached,
            StoreCorrupt when what is there are no books of this version.
        """
        return cls(engine_of(url, lock_wait_ms))._opened()

    def _prepare(self) -> None:
        with self._transaction() as connection:
            schema.METADATA.create_all(connection)
            found = read.meta(connection)
            if not found:
                start = {"version": schema.SCHEMA_VERSION, "writer": 0, "forgotten_s": 0}
                self._bulk.insert(connection, schema.META, list(start.items()))
            elif found.get("version") == schema.WITHOUT_PAGES:
                now = [("version", schema.SCHEMA_VERSION)]
                self._bulk.upsert(connection, schema.META, now)
            elif found.get("version") != schema.SCHEMA_VERSION:
                raise schema.other_version(found.get("version"), self._place)

    # -- writing -----------------------------------------------------------------------------------

    def load(self, node: int | None = None) -> tuple[State, dict[str, int]]:
        """Becomes the writer; returns the state (read it, do not change it) and the positions.

        node: whose books these are from now on; None does not ask.
        Raises: StoreError, not transient when this store was the writer and another is now, or
            when they are another node's.
        """
        with self._transaction() as connection:
            if self._writer:
                self._fence(connection)
            else:
                if node is not None:
                    self._belong_to(connection, node)
                self._take_over(connection)
            self._read(connection)
        return self.state, dict(self._positions)

    def owner(self) -> int | None:
        """The node whose books these are; None before its keeper first loaded them."""
        with self._transaction(reading=True) as connection:
            return read.meta(connection).get("node")

    def noted(self) -> dict[str, int]:
        """What was written by `note`, among other numbers of the books. Raises: StoreError."""
        with self._transaction(reading=True) as connection:
            return read.meta(connection)

    def note(self, connection: Connection, numbers: Mapping[str, int]) -> None:
        """Keeps numbers of the keeper by name, in the transaction of a batch."""
        self._bulk.upsert(connection, schema.META, list(numbers.items()))

    @property
    def state(self) -> State:
        """The state after the last batch. Raises: InvariantError where it is not known."""
        if self._state is None:
            raise InvariantError("the books were not loaded")
        return self._state

    def recall(self) -> None:
        """Reads the books again where a batch failed half way: then the state is not known.

        Raises: StoreError.
        """
        if self._state is None:
            with self._transaction(reading=True) as connection:
                self._read(connection)

    def apply(
        self,
        commands: Sequence[Command],
        positions: Mapping[str, int] | None = None,
        also: Callable[[Connection], None] | None = None,
    ) -> Applied:
        """Applies a batch, and moves the journals to `positions`, all or nothing.

        positions: journal -> sequence of the last record that the batch holds or leaves out. A
            journal that begins anew needs a new name.
        also: writes what else belongs to the batch, in the same transaction.

        After a StoreError nothing of the batch has happened; a transient one may be tried again
        with the same batch. Only a network that breaks during a commit leaves it open whether it
        happened: then the second try raises InvariantError, and `load` tells.

        Raises: StoreError; InvariantError for a position that does not advance.
        """
        if not self._writer:
            raise InvariantError("the books were not loaded")
        positions = positions or {}
        changes = Changes()
        with self._transaction() as connection:
            self._fence(connection)
            if self._state is None:
                self._read(connection)
            self._check(positions)
            state, self._state = self.state, None  # not known until the commit
            self._stage(connection, state, commands)
            outcomes = [apply(state, command, changes) for command in commands]
            self._write(connection, state, changes, positions)
            if also is not None:
                also(connection)
        self._positions.update(positions)
        self._sequence += len(changes.rows) + len(changes.sums)
        self._limits_sequence += len(changes.limits)
        for shown in (state.settled, state.spent, state.references):
            shown.clear()
        self._state = state
        return Applied(outcomes, changes.rows, changes.apart)

    def _belong_to(self, connection: Connection, node: int) -> None:
        """Two nodes on the same books would take them from each other at every turn."""
        owner = read.meta(connection).get("node")
        if owner is None:
            self._bulk.insert(connection, schema.META, [("node", node)])
        elif owner != node:
            raise StoreError(
                f"these are the books of node {owner}, not of {node}: each node keeps its own"
                f" - at `{self._place}`",
                transient=False,
            )

    def _take_over(self, connection: Connection) -> None:
        meta = schema.META
        ours = meta.c.name == "writer"
        connection.execute(meta.update().where(ours).values(value=meta.c.value + 1))
        self._writer = read.meta(connection)["writer"]

    def _fence(self, connection: Connection) -> None:
        """Takes the write lock, if we are still the writer."""
        meta = schema.META
        ours = (meta.c.name == "writer", meta.c.value == self._writer)
        found = connection.execute(meta.update().where(*ours).values(value=self._writer))
        if found.rowcount != 1:
            raise StoreError(f"another keeper took over - at `{self._place}`", transient=False)

    def _read(self, connection: Connection) -> None:
        state = read.read_state(connection)
        state.forgotten_s = read.meta(connection)["forgotten_s"]
        # No bid is booked that is older; a local day begins at most a day before UTC's.
        self._from_day = day_of(state.forgotten_s, UTC) - 1
        self._days = read.read_accounts(connection, state, self._from_day)
        found = connection.execute(select(schema.POSITIONS))
        self._positions = {str(journal): int(position) for journal, position in found}
        numbers = (schema.ROWS.c.sequence, schema.SHEETS.c.last)
        self._sequence = max(read.last(connection, number) for number in numbers)
        self._limits_sequence = read.last(connection, schema.LIMITS.c.sequence)
        self._purging = True
        self._state = state

    def _check(self, positions: Mapping[str, int]) -> None:
        for journal, position in positions.items():
            if position <= self._positions.get(journal, -1):
                raise InvariantError(f"position {position} was applied - at journal `{journal}`")

    def _stage(self, connection: Connection, state: State, commands: Sequence[Command]) -> None:
        """Shows the machine the marks of the bids that the batch names; the rest stay on disk.

        Of bids that are taken together only those have marks whose bill or loss came first: they
        are looked for by range, not one by one.
        """
        singles = [one.bid for one in commands if isinstance(one, Take | Post | Void)]
        together = [one.takes for one in commands if isinstance(one, Takes)]
        forgotten = state.forgotten_s << BID_SECOND_SHIFT
        bids = [bid for bid in singles if forgotten <= bid < 1 << 63 and state.held(bid) is None]
        ranges = pages.stage(connection, self._bulk, state, bids, together)
        found = self._bulk.find(connection, schema.SETTLED, bids) if bids else []
        if ranges:
            found += self._bulk.find_ranges(connection, schema.SETTLED, ranges)
        for bid, mark, nanos, seen in found:
            state.settled[bid] = Settled(Mark(mark), nanos, bool(seen))
        self._stage_days(connection, state, commands)
        references = [command.reference for command in commands if isinstance(command, Adjust)]
        if references:
            found = self._bulk.find(connection, schema.REFERENCES, references)
            state.references.update(str(row[0]) for row in found)

    def _stage_days(
        self, connection: Connection, state: State, commands: Sequence[Command]
    ) -> None:
        """Loads the days long past that commands name, whichever zone the batch may set."""
        times = {one.at_s for one in commands if isinstance(one, Adjust | Grant)}
        for at_s in times:
            if not 0 <= at_s < TIME_MAX_S:
                continue
            near = day_of(at_s, UTC)
            for day in {near - 1, near, near + 1} - self._days:
                if day < self._from_day:
                    read.read_day(connection, state, day)
                    self._days.add(day)

    def _write(
        self,
        connection: Connection,
        state: State,
        changes: Changes,
        positions: Mapping[str, int],
    ) -> None:
        """Everything that a batch changed."""
        bulk = self._bulk
        bulk.upsert(
            connection, schema.LINES, [read.line_row(line) for line in changes.lines.values()]
        )
        bulk.insert(
            connection, schema.LIMITS,
            [read.limit_row(number, command)
             for number, command in enumerate(changes.limits, self._limits_sequence + 1)],
        )  # fmt: skip
        bulk.insert(connection, schema.ACCOUNTS, [read.account_row(one) for one in changes.opened])
        bulk.insert(
            connection, schema.ROWS,
            [read.row_values(*one) for one in enumerate(changes.rows, self._sequence + 1)],
        )  # fmt: skip
        if changes.sums:
            last = self._sequence + len(changes.rows) + len(changes.sums)
            bulk.insert(connection, schema.SHEETS, [sheets.sheet(last, changes)])
        touched = changes.accounts.union(one.number for one in changes.opened)
        accounts = [state.accounts[number] for number in sorted(touched)]
        bulk.upsert(
            connection, schema.BALANCES, [(one.number, *one.nanos, *one.units) for one in accounts]
        )
        self._write_leases(connection, changes)
        bulk.delete(connection, schema.HOLDS, [(bid,) for bid in changes.released])
        bulk.insert(
            connection, schema.HOLDS,
            [(bid, hold.account, hold.nanos, hold.units, hold.deadline_s)
             for bid, hold in changes.held.items()],
        )  # fmt: skip
        bulk.upsert(
            connection, schema.SETTLED,
            [(bid, int(one.mark), one.nanos, int(one.seen))
             for bid, one in changes.settled.items()],
        )  # fmt: skip
        pages.write(connection, bulk, changes)
        bulk.insert(connection, schema.REFERENCES, [(one,) for one in changes.references])
        bulk.upsert(connection, schema.POSITIONS, list(positions.items()))
        if changes.forgotten:
            bulk.upsert(connection, schema.META, [("forgotten_s", state.forgotten_s)])
            self._purging = True
        if self._purging:
            self._purge(connection, state)

    def _write_leases(self, connection: Connection, changes: Changes) -> None:
        leases = changes.leases.items()
        ended = [key for key, lease in leases if lease is None]
        self._bulk.delete(connection, schema.LEASES, ended)
        self._bulk.upsert(
            connection, schema.LEASES,
            [(*key, lease.nanos, lease.units, lease.expires_s)
             for key, lease in leases if lease is not None],
        )  # fmt: skip

    def _purge(self, connection: Connection, state: State) -> None:
        """Lets go of what can no longer be asked for, some at a time.

        Marks of a page that is not spent stay: they say which of its bids are no longer open.
        """
        settled = schema.SETTLED
        below = min(state.forgotten_s << BID_SECOND_SHIFT, (1 << 63) - 1)
        if state.pages:
            below = min(below, min(state.pages) << PAGE_SHIFT)
        some = select(settled.c.bid).where(settled.c.bid < below).order_by(settled.c.bid)
        found = connection.execute(
            settled.delete().where(settled.c.bid.in_(some.limit(PURGE_ROWS_MAX)))
        )
        gone = pages.purge(connection, state.forgotten_s, PURGE_ROWS_MAX)
        self._purging = max(found.rowcount, gone) >= PURGE_ROWS_MAX

    # -- reading -----------------------------------------------------------------------------------

    def rows(
        self,
        *,
        line_item: int | None = None,
        day: int | None = None,
        bid: int | None = None,
        after: int = 0,
        count: int = 1_000,
    ) -> list[tuple[int, Row]]:
        """At most `count` rows with their numbers, oldest first, that come after number `after`.

        Raises: StoreError.
        """
        table, accounts = schema.ROWS, schema.ACCOUNTS
        query = select(table).where(table.c.sequence > after).order_by(table.c.sequence)
        if bid is not None:
            query = query.where(table.c.bid == bid, table.c.bid != 0)
        chosen = select(accounts.c.number)
        if line_item is not None:
            chosen = chosen.where(accounts.c.line_item == signed(line_item))
        if day is not None:
            chosen = chosen.where(accounts.c.day == day)
        everything = line_item is None and day is None
        if not everything:
            query = query.where(table.c.account.in_(chosen))
        with self._transaction(reading=True) as connection:
            found = [read.row(values) for values in connection.execute(query.limit(count))]
            if bid is not None:
                return found
            some = None if everything else set(connection.execute(chosen).scalars())
            return list(islice(merge(found, sheets.rows(connection, after, some)), count))

    def balances(self, scope: Scope, key: int, day: int = 0) -> tuple[list[int], list[int]]:
        """Money and units of a scope by `Balance`, summed over its accounts.

        day: for daily scopes. Raises: StoreError.
        """
        accounts, lines, kept = schema.ACCOUNTS, schema.LINES, schema.BALANCES
        query = (
            select(kept)
            .join(accounts, accounts.c.number == kept.c.account)
            .join(lines, lines.c.line_item == accounts.c.line_item)
        )
        column = {
            Scope.LINE_ITEM: accounts.c.line_item, Scope.LINE_ITEM_DAY: accounts.c.line_item,
            Scope.FLIGHT: accounts.c.flight, Scope.CAMPAIGN: lines.c.campaign,
            Scope.CAMPAIGN_DAY: lines.c.campaign, Scope.ADVERTISER: lines.c.advertiser,
        }[scope]  # fmt: skip
        query = query.where(column == signed(key))
        if scope in (Scope.LINE_ITEM_DAY, Scope.CAMPAIGN_DAY):
            query = query.where(accounts.c.day == day)
        total = [0] * (2 * BALANCES)
        with self._transaction(reading=True) as connection:
            for row in connection.execute(query):
                total = [sum(pair) for pair in zip(total, row[1:], strict=True)]
        return total[:BALANCES], total[BALANCES:]

    def booked(self, bids: Iterable[int]) -> dict[int, int]:
        """Nanos booked for each of these bids by its rows, corrections included; absent: none.

        Raises: StoreError.
        """
        table = schema.ROWS
        found: dict[int, int] = {}
        wanted = sorted(set(bids))
        spent = (Balance.POSTED, Balance.OVER)
        with self._transaction(reading=True) as connection:
            for start in range(0, len(wanted), 500):  # engines limit the values of a statement
                chosen = table.c.bid.in_(wanted[start : start + 500])
                columns = (table.c.bid, table.c.source, table.c.target, table.c.nanos)
                query = select(*columns).where(chosen, table.c.bid != 0)
                for bid, source, target, nanos in connection.execute(query):
                    amount = nanos * ((target in spent) - (source in spent))
                    found[bid] = found.get(bid, 0) + amount
        return found

    def audit(self) -> list[audit.Difference]:
        """Adds up all rows, holds and leases, and compares with the balances; empty: all is well.

        Raises: StoreError.
        """
        with self._transaction(reading=True) as connection:
            rows = read.sums_of_rows(connection)
            kept = read.kept(connection)
            holds = read.held(connection)
            leases = read.sums_by_account(connection, schema.LEASES, Balance.GRANTED)
        return [
            *audit.compare("rows", rows, kept),
            *audit.compare("holds", holds, audit.only(kept, Balance.PENDING)),
            *audit.compare("leases", leases, audit.only(kept, Balance.GRANTED)),
        ]
