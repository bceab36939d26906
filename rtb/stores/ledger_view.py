"""The books for those who only look: audits and reports, while a keeper writes.

Nothing here takes over the books, makes them or changes them.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

from sqlalchemy import Connection, Engine, case, func, select

from rtb.base.errors import ConfigError, StoreError
from rtb.base.events import BID_SECOND_SHIFT
from rtb.ledger import audit
from rtb.ledger.accounts import BALANCES, Balance, Limit, Line, Pot
from rtb.ledger.changes import Entry, Row
from rtb.ledger.commands import Scope
from rtb.ledger.pool import Amount, Share
from rtb.stores import ledger_mail as mail
from rtb.stores import ledger_pool as pool
from rtb.stores import ledger_pool_schema as tables
from rtb.stores import ledger_read as read
from rtb.stores import ledger_schema as schema
from rtb.stores.ledger_engines import Database, engine_of
from rtb.stores.ledger_schema import unsigned
from rtb.stores.ledger_sql import LOCK_WAIT_MS, LedgerStore

_SPENT: Final = (Balance.POSTED, Balance.OVER)
_BILLS: Final = (Entry.POST, Entry.LATE)
# Rows of one query: a report of millions must not hold a snapshot of the database for minutes.
_PAGE_ROWS: Final = 5_000


NOBODY_ELSE: Final[Mapping[Pot, Amount]] = {}


class Account(NamedTuple):
    """Balances of one line item, flight and day, by `Balance`."""

    number: int
    line_item: int
    flight: int
    day: int
    nanos: tuple[int, ...]
    units: tuple[int, ...]


class Look(NamedTuple):
    """The books at one moment.

    positions   of each journal: sequence of the last record that is in the books
    post        notices that went to or came from other nodes
    elsewhere   what other nodes were lent of each pot
    """

    lines: dict[int, Line]
    limits: dict[tuple[Scope, int], Limit]
    accounts: list[Account]
    positions: dict[str, int]
    spent: audit.Spend
    post: mail.Post = mail.NO_POST
    elsewhere: Mapping[Pot, Amount] = NOBODY_ELSE


class LedgerView(Database):
    """Reads the books of one node; node: None where no others are beside them."""

    def __init__(self, engine: Engine, node: int | None = None) -> None:
        super().__init__(engine)
        self._store = LedgerStore(engine)
        self.node = node

    @classmethod
    def open(cls, url: str, *, node: int | None = None, lock_wait_ms: int = LOCK_WAIT_MS) -> Self:
        """Opens books that are there.

        node: whose; may be None where the database has one node's only.
        Raises: ConfigError for a URL that names none, or several nodes' books; StoreError where
            there are no books, StoreCorrupt where they are of another version.
        """
        nodes = pool.nodes_in(url, lock_wait_ms=lock_wait_ms)
        if nodes:
            found = _which(nodes, node)
            schemas = (pool.schema_of(found), tables.SCHEMA)
            return cls(engine_of(url, lock_wait_ms, schemas), found)._opened()
        engine = engine_of(url, lock_wait_ms)
        path = engine.url.database or ""
        if engine.dialect.name == "sqlite" and not Path(path).exists():
            raise StoreError(f"there are no books - at `{path}`", transient=False)
        return cls(engine)._opened()

    def _prepare(self) -> None:
        with self._transaction(reading=True) as connection:
            found = read.meta(connection).get("version")
        if found != schema.SCHEMA_VERSION:
            raise schema.other_version(found, self._place)

    def look(self, from_s: int = 0) -> Look:
        """Everything that an audit compares; `spent` is of bids made at `from_s` or later, and
        holds no corrections.

        Raises: StoreError.
        """
        with self._transaction(reading=True) as connection:
            found = connection.execute(select(schema.POSITIONS))
            positions = {str(journal): int(position) for journal, position in found}
            return Look(
                lines=read.read_lines(connection),
                limits=read.read_limits(connection),
                accounts=list(_accounts(connection)),
                positions=positions,
                spent=_spent(connection, from_s),
                post=mail.NO_POST
                if self.node is None
                else mail.post_of(connection, self.node, positions),
                elsewhere=NOBODY_ELSE
                if self.node is None
                else pool.lent_elsewhere(connection, self.node),
            )

    def positions(self) -> dict[str, int]:
        """See `Look`. Raises: StoreError."""
        with self._transaction(reading=True) as connection:
            found = connection.execute(select(schema.POSITIONS))
            return {str(journal): int(position) for journal, position in found}

    def lines(self) -> dict[int, Line]:
        """All line items that were ever enrolled, by key. Raises: StoreError."""
        with self._transaction(reading=True) as connection:
            return read.read_lines(connection)

    def shares(self) -> list[tuple[Pot, int, Share]]:
        """What each node was lent of every pot. Raises: StoreError."""
        if self.node is None:
            return []
        with self._transaction(reading=True) as connection:
            return pool.shares_in(connection)

    def mail_from_s(self) -> int:
        """Since when all mail is kept; 0 for all. Raises: StoreError."""
        if self.node is None:
            return 0
        with self._transaction(reading=True) as connection:
            return mail.mail_from_s(connection)

    def audit(self) -> list[audit.Difference]:
        """See `LedgerStore.audit`."""
        return self._store.audit()

    def booked(self, bids: Iterable[int]) -> dict[int, int]:
        """See `LedgerStore.booked`."""
        return self._store.booked(bids)

    def rows(
        self, line_items: Iterable[int | None] = (None,), day: int | None = None
    ) -> Iterator[tuple[int, Row]]:
        """The rows of line items, oldest first for each; those of all for None. Raises:
        StoreError."""
        for line_item in line_items:
            after = 0
            while page := self._store.rows(
                line_item=line_item, day=day, after=after, count=_PAGE_ROWS
            ):
                yield from page
                after = page[-1][0]


def _which(nodes: list[int], node: int | None) -> int:
    """Whose books are meant. Raises: ConfigError, StoreError."""
    if node is None and len(nodes) == 1:
        return nodes[0]
    names = ", ".join(map(str, nodes))
    if node is None:
        raise ConfigError(f"there are books of nodes {names}: say which - at `--node`")
    if node not in nodes:
        raise StoreError(f"there are books of {names}, none of node {node}", transient=False)
    return node


def _accounts(connection: Connection) -> Iterator[Account]:
    accounts, kept = schema.ACCOUNTS, schema.BALANCES
    query = select(accounts, *list(kept.c)[1:]).join(kept, kept.c.account == accounts.c.number)
    for number, line_item, flight, day, *values in connection.execute(
        query.order_by(accounts.c.number)
    ):
        yield Account(
            number, unsigned(line_item), unsigned(flight), day,
            tuple(values[:BALANCES]), tuple(values[BALANCES:]),
        )  # fmt: skip


def _spent(connection: Connection, from_s: int) -> audit.Spend:
    """What bills booked, by line item and day; by the rows, which name their bids."""
    rows, accounts = schema.ROWS, schema.ACCOUNTS
    amount = case((rows.c.target.in_(_SPENT), rows.c.nanos), else_=0) - case(
        (rows.c.source.in_(_SPENT), rows.c.nanos), else_=0
    )
    query = (
        select(accounts.c.line_item, accounts.c.day, func.sum(amount))
        .join(accounts, accounts.c.number == rows.c.account)
        .where(rows.c.entry.in_(_BILLS), rows.c.bid >= from_s << BID_SECOND_SHIFT, rows.c.bid != 0)
        .group_by(accounts.c.line_item, accounts.c.day)
    )
    found: audit.Spend = {}
    for line_item, day, nanos in connection.execute(query):
        found[unsigned(line_item), int(day)] = int(nanos)
    return found


def name_of(line_item: int, lines: dict[int, Line]) -> str:
    """A line item for people."""
    line = lines.get(line_item)
    return line.name if line is not None else f"{line_item:016x}"
