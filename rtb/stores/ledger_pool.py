"""The books of several nodes in one PostgreSQL: a schema each, and one that they share.

    rtb_node_<n>   the books of node n, whose one writer is its keeper
    rtb_pool       who takes part, what each was lent of every pot, and mail: notices of other
                   nodes' bids

Everything here is done while the node's own books are locked by its writer, so a keeper that was
replaced can neither borrow nor return. A pot's row is locked while its shares are looked at and
changed, in the order of the pots, so that no two nodes wait for each other in a circle.

A share is written down before it is drawn on, and given back after the node has stopped drawing on
it: a crash, or a commit of which nothing was heard, leaves a node with less than is written down,
and its next start reads what that is.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Self

from sqlalchemy import Connection, Engine, MetaData, func, or_, select

from rtb.base.errors import StoreCorrupt
from rtb.ledger.accounts import NO_LIMIT, Pot, lend, lend_all
from rtb.ledger.commands import Enrol, Scope
from rtb.ledger.pool import Amount, Ask, Share, Wants, answer, ask_for, overspent
from rtb.stores import ledger_mail as mail
from rtb.stores import ledger_owners as owners
from rtb.stores import ledger_pool_schema as tables
from rtb.stores import ledger_schema as schema
from rtb.stores.ledger_engines import columns, engine_of, is_shared, place_of, transaction
from rtb.stores.ledger_schema import signed, unsigned
from rtb.stores.ledger_sql import LOCK_WAIT_MS, LedgerStore

# Held while schemas are made: two nodes may start at the same time. Any number of our own.
_MAKING: Final = 0x7274_6200
# The version of the pool before nodes agreed on owners.
_WITHOUT_OWNERS: Final = 1
_SCHEMA: Final = re.compile(r"rtb_node_([0-9]{1,3})", re.ASCII)
Paced = tuple[Pot, bool]  # whether in impressions


class Told(NamedTuple):
    """What a node hears from the pool.

    shares  the answers to what it asked
    wanted  what other nodes want of pots
    nodes   all that ever took part, itself included, and whether each still does
    """

    shares: dict[Pot, Share]
    wanted: dict[Pot, Wants]
    nodes: dict[int, bool]


def schema_of(node: int) -> str:
    """Where a node's books are."""
    return f"rtb_node_{node}"


def nodes_in(url: str, *, lock_wait_ms: int = LOCK_WAIT_MS) -> list[int]:
    """The nodes whose books are in a database, in order; none in SQLite. Raises: StoreError."""
    if not is_shared(url):
        return []
    engine = engine_of(url, lock_wait_ms)
    try:
        with transaction(engine, place_of(engine), reading=True) as connection:
            return _books_in(connection)
    finally:
        engine.dispose()


def open_books(url: str, node: int, *, lock_wait_ms: int = LOCK_WAIT_MS) -> LedgerStore:
    """The books of a node: with others' in PostgreSQL, alone in SQLite.

    Raises: as `LedgerStore.open`.
    """
    if is_shared(url):
        return PooledStore.of_node(url, node, lock_wait_ms=lock_wait_ms)
    return LedgerStore.open(url, lock_wait_ms=lock_wait_ms)


class PooledStore(LedgerStore):
    """The books of one node beside those of others, and its end of the pool."""

    def __init__(self, engine: Engine, node: int) -> None:
        super().__init__(engine)
        self.node = node

    @classmethod
    def of_node(cls, url: str, node: int, *, lock_wait_ms: int = LOCK_WAIT_MS) -> Self:
        """See `open_books`."""
        engine = engine_of(url, lock_wait_ms, (schema_of(node), tables.SCHEMA))
        return cls(engine, node)._opened()

    def _prepare(self) -> None:
        with self._transaction() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(_MAKING)))
            for name in (tables.SCHEMA, schema_of(self.node)):
                connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {name}")
            is_moved = _move_here(connection, self.node)
            self._prepare_pool(connection)
            if is_moved:
                owners.adopt(connection, self._bulk, schema_of(self.node))
        super()._prepare()

    def _prepare_pool(self, connection: Connection) -> None:
        """Makes the tables that nodes share, if they are not there."""
        if _is_there(connection, f"{tables.SCHEMA}.{tables.META.name}"):
            query = select(tables.META.c.value).where(tables.META.c.name == "version")
            found = connection.execute(query).scalar()
            if found == _WITHOUT_OWNERS:
                self._add_owners(connection)
            elif found != tables.VERSION:
                raise StoreCorrupt(
                    f"a pool of version {found}, expected {tables.VERSION} - at `{self._place}`"
                )
            return
        connection.exec_driver_sql(f"SET LOCAL search_path TO {tables.SCHEMA}")
        tables.METADATA.create_all(connection)
        self._bulk.insert(connection, tables.META, [("version", tables.VERSION)])
        self._adopt_all(connection)

    def _add_owners(self, connection: Connection) -> None:
        tables.OWNERS.to_metadata(MetaData(), schema=tables.SCHEMA).create(connection)
        self._adopt_all(connection)
        self._bulk.upsert(connection, tables.META, [("version", tables.VERSION)])

    def _adopt_all(self, connection: Connection) -> None:
        """Of two nodes that have said different things so far, the first in number is right."""
        for node in _books_in(connection):
            if _is_there(connection, f"{schema_of(node)}.lines"):
                owners.adopt(connection, self._bulk, schema_of(node))

    def _take_over(self, connection: Connection) -> None:
        super()._take_over(connection)
        self._bulk.upsert(connection, tables.NODES, [(self.node, 0)])

    def _read(self, connection: Connection) -> None:
        super()._read(connection)
        query = select(tables.SHARES).where(tables.SHARES.c.node == self.node)
        shares = (_share(row) for row in connection.execute(query))
        lend_all(self.state, {pot: share.bound for pot, _, share in shares})

    # -- shares ------------------------------------------------------------------------------------

    def exchange(self, asks: Sequence[Ask]) -> Told:
        """Asks for shares, and puts the answers in force.

        Raises: StoreError; the node then has at most what is written down.
        """
        asks = sorted(asks, key=lambda ask: _key(ask.pot))
        with self._transaction(reading=not asks) as connection:
            if asks:
                self._fence(connection)
            nodes = _nodes(connection)
            live = frozenset(node for node, takes_part in nodes.items() if takes_part)
            wanted = _wanted(connection, self.node)
            shares = self._answers(connection, asks, alone=live <= {self.node})
            for ask, share in zip(asks, shares, strict=True):
                self._lower(ask.pot, share.bound)
        for ask, share in zip(asks, shares, strict=True):
            lend(self.state, ask.pot, share.bound)
        return Told(dict(zip((ask.pot for ask in asks), shares, strict=True)), wanted, nodes)

    def _answers(
        self, connection: Connection, asks: Sequence[Ask], *, alone: bool, leaves: bool = False
    ) -> list[Share]:
        """New shares, written down; the pots are locked until the transaction ends."""
        if not asks:
            return []
        keys = [_key(ask.pot) for ask in asks]
        self._bulk.upsert(connection, tables.POTS, keys)
        kept = _locked(connection, keys)
        found, changed = [], []
        for ask, key in zip(asks, keys, strict=True):
            of_pot = kept.get(ask.pot, {})
            mine = of_pot.pop(self.node, None)
            share = answer(ask, mine, list(of_pot.values()), alone=alone, leaves=leaves)
            found.append(share)
            if share != mine:
                changed.append((*key, self.node, *_values(share)))
        self._bulk.upsert(connection, tables.SHARES, changed)
        return found

    def _lower(self, pot: Pot, bound: Amount) -> None:
        """Before the commit: if nothing is heard of it, the node has the less of both."""
        now = self.state.bound(pot)
        lend(self.state, pot, (min(now[0], bound.nanos), min(now[1], bound.units)))

    def give_back(self) -> None:
        """Returns what the node was lent and has not drawn. Raises: StoreError."""
        state = self.state
        assert state.lent is not None
        over = overspent(state, state.accounts)
        asks = [ask_for(state, pot, over) for pot in sorted(state.lent, key=_key)]
        with self._transaction() as connection:
            self._fence(connection)
            shares = self._answers(connection, asks, alone=False, leaves=True)
            for ask, share in zip(asks, shares, strict=True):
                self._lower(ask.pot, share.bound)

    def release(self) -> None:
        """Gives back, and takes the node out of the pool until its keeper loads the books again. A
        keeper that has them by now is refused from then on.

        Raises: StoreError.
        """
        self.load(self.node)
        self.give_back()
        with self._transaction() as connection:
            self._fence(connection)
            self._bulk.upsert(connection, tables.NODES, [(self.node, 1)])

    def let_go(self, before_day: int) -> None:
        """Forgets the pots of days before; no account of theirs can be drawn on any more."""
        state = self.state
        assert state.lent is not None
        with self._transaction() as connection:
            self._fence(connection)
            for table in (tables.SHARES, tables.SEEN):
                old = table.c.day.between(1, before_day - 1)
                connection.execute(table.delete().where(old, table.c.node == self.node))
            pots = tuple(
                tables.POTS.c[name] == tables.SHARES.c[name] for name in ("scope", "key", "day")
            )
            unused = ~select(tables.SHARES.c.node).where(*pots).exists()
            connection.execute(
                tables.POTS.delete().where(tables.POTS.c.day.between(1, before_day - 1), unused)
            )
        for pot in [pot for pot in state.lent if 0 < pot[2] < before_day]:
            del state.lent[pot]

    # -- owners ------------------------------------------------------------------------------------

    def claim(self, enrolments: Iterable[Enrol]) -> set[int]:
        """Says who pays for line items; returns those of which another node said otherwise.

        Raises: StoreError.
        """
        with self._transaction() as connection:
            self._fence(connection)
            return owners.claim(connection, self._bulk, enrolments)

    # -- pacing ------------------------------------------------------------------------------------

    def tell(
        self, seen: Mapping[Paced, Sequence[int]], from_day: int
    ) -> list[tuple[Paced, list[int]]]:
        """Tells the others what this node has seen of budgets; returns what each of them has.

        from_day: of daily budgets. Raises: StoreError.
        """
        with self._transaction() as connection:
            rows = [
                (*_key(pot), int(units), self.node, json.dumps(list(numbers)))
                for (pot, units), numbers in sorted(seen.items())
            ]
            self._bulk.upsert(connection, tables.SEEN, rows)
            days = or_(tables.SEEN.c.day == 0, tables.SEEN.c.day >= from_day)
            found = connection.execute(
                select(tables.SEEN).where(tables.SEEN.c.node != self.node, days)
            )
            return [
                ((_pot(scope, key, day), bool(units)), json.loads(numbers))
                for scope, key, day, units, _, numbers in found
            ]

    # -- mail --------------------------------------------------------------------------------------

    def nodes(self) -> dict[int, bool]:
        """As `Told.nodes`. Raises: StoreError."""
        with self._transaction(reading=True) as connection:
            return _nodes(connection)

    def send(self, connection: Connection, letters: Iterable[mail.Mail]) -> None:
        """Puts records into the mail, in the transaction of the batch that they came with."""
        self._bulk.insert(connection, tables.MAIL, [tuple(one) for one in letters])

    def receive(self, after: Mapping[int, int], count: int) -> list[mail.Mail]:
        """At most `count` records from other nodes, those of each in the order it sent them.

        after: node -> number of the last one that was booked. Raises: StoreError.
        """
        if not after:
            return []
        with self._transaction(reading=True) as connection:
            return mail.after(connection, self.node, after, count)

    def tidy_mail(self, after: Mapping[int, int], before_s: int) -> None:
        """Deletes mail that was booked and is older, and says since when all is kept."""
        with self._transaction() as connection:
            self._fence(connection)
            mail.tidy(connection, self.node, after, before_s)


def _move_here(connection: Connection, node: int) -> bool:
    """Books of a version that kept one node's alone, in the default schema; False: none of its."""
    here = f"{schema_of(node)}.meta"
    for name, found in (("public.lines", True), ("public.sheets", True), (here, False)):
        if _is_there(connection, name) is not found:
            return False
    owner = connection.exec_driver_sql("SELECT value FROM public.meta WHERE name = 'node'").scalar()
    if owner != node:
        return False
    for table in schema.METADATA.tables:
        connection.exec_driver_sql(
            f"ALTER TABLE IF EXISTS public.{table} SET SCHEMA {schema_of(node)}"
        )
    return True


def _books_in(connection: Connection) -> list[int]:
    """The nodes that have books here."""
    names = connection.exec_driver_sql("SELECT nspname FROM pg_namespace").scalars()
    found = (_SCHEMA.fullmatch(name) for name in names)
    return sorted(int(one[1]) for one in found if one is not None)


def _is_there(connection: Connection, table: str) -> bool:
    return bool(connection.execute(select(func.to_regclass(table).is_not(None))).scalar())


def _nodes(connection: Connection) -> dict[int, bool]:
    """All nodes that ever took part, and whether each still does."""
    return {int(node): not released for node, released in connection.execute(select(tables.NODES))}


def _wanted(connection: Connection, node: int) -> dict[Pot, Wants]:
    """What nodes but this one want."""
    columns = (tables.SHARES.c.scope, tables.SHARES.c.key, tables.SHARES.c.day)
    query = select(*columns, func.max(tables.SHARES.c.wants)).group_by(*columns)
    found = connection.execute(
        query.where(tables.SHARES.c.wants != 0, tables.SHARES.c.node != node)
    )
    return {_pot(*pot): Wants(wants) for *pot, wants in found}


def _locked(
    connection: Connection, keys: Sequence[tuple[int, int, int]]
) -> dict[Pot, dict[int, Share]]:
    """Locks pots, in order; what each node has of them by now."""
    asked = "unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS asked (scope, key, day)"
    arrays = columns(keys)
    connection.exec_driver_sql(
        f"SELECT 1 FROM {asked} JOIN {tables.POTS.name} AS pot USING (scope, key, day) "
        "ORDER BY scope, key, day FOR UPDATE OF pot",
        arrays,
    )
    # A statement of its own: it sees what was committed while the one before waited.
    kept: dict[Pot, dict[int, Share]] = {}
    for row in connection.exec_driver_sql(
        f"SELECT share.* FROM {asked} JOIN {tables.SHARES.name} AS share "
        "ON (share.scope, share.key, share.day) = (asked.scope, asked.key, asked.day)",
        arrays,
    ):
        pot, node, share = _share(row)
        kept.setdefault(pot, {})[node] = share
    return kept


def shares_in(connection: Connection) -> list[tuple[Pot, int, Share]]:
    """What each node was lent of every pot."""
    return [_share(row) for row in connection.execute(select(tables.SHARES))]


def lent_elsewhere(connection: Connection, node: int) -> dict[Pot, Amount]:
    """What nodes but this one have of each pot."""
    found: dict[Pot, Amount] = {}
    for row in connection.execute(select(tables.SHARES).where(tables.SHARES.c.node != node)):
        pot, _, share = _share(row)
        before = found.get(pot, Amount(0, 0))
        found[pot] = Amount(before.nanos + share.lent.nanos, before.units + share.lent.units)
    return found


# -- between rows and values -----------------------------------------------------------------------


def _key(pot: Pot) -> tuple[int, int, int]:
    scope, key, day = pot
    return int(scope), signed(key), day


def _pot(scope: int, key: int, day: int) -> Pot:
    return Scope(scope), unsigned(key), day


def _values(share: Share) -> tuple[int | str, ...]:
    amounts = (*share.lent, *share.bound, *share.budget)
    return (*("" if one == NO_LIMIT else str(one) for one in amounts), int(share.wants))


def _share(row: Sequence[int | str]) -> tuple[Pot, int, Share]:
    """A row of `pool_shares`."""
    scope, key, day, node, *amounts, wants = row
    nanos = [NO_LIMIT if one == "" else int(one) for one in amounts]
    lent, bound, budget = (Amount(*nanos[start : start + 2]) for start in (0, 2, 4))
    share = Share(lent, bound, budget, Wants(int(wants)))
    return _pot(int(scope), int(key), int(day)), int(node), share
