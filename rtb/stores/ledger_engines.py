"""The two engines of the books: how they are opened, and how each writes many rows fast.

SQLite: the driver repeats one prepared statement. PostgreSQL: one statement with an array a column,
so that a batch costs one round trip a table and not one a row.
"""

import json
import sqlite3
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final, Protocol, Self

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    LargeBinary,
    Table,
    Text,
    create_engine,
    event,
    make_url,
)  # fmt: skip
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from rtb.base.errors import ConfigError, StoreCorrupt, StoreError

# SQLite: pages of 4 KB in the log before they are copied to the file. Every batch changes the same
# pages, so a longer log is copied, and flushed, less often.
WAL_PAGES: Final = 8_000
# The balances, leases and ends of the other tables that every batch touches, and then some.
CACHE_KB: Final = 32_768

Value = int | str | bytes | None
Values = tuple[Value, ...]


class Bulk(Protocol):
    """What the store asks of an engine; an empty list is no statement."""

    def insert(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """Adds rows, values in the order of the table's columns. A key that is there is a fault."""

    def upsert(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """Adds rows, or replaces those that have the same primary key."""

    def delete(self, connection: Connection, table: Table, keys: Sequence[Values]) -> None:
        """Takes rows away by primary key; one that is not there is no fault."""

    def delete_ranges(
        self, connection: Connection, table: Table, ranges: Sequence[tuple[int, int]]
    ) -> None:
        """Takes rows away whose one key is in any of the ranges [first, last]."""

    def find(
        self, connection: Connection, table: Table, keys: Iterable[int | str]
    ) -> list[tuple[Any, ...]]:
        """Rows by a primary key of one column, those that are there, in any order."""

    def find_ranges(
        self, connection: Connection, table: Table, ranges: Sequence[tuple[int, int]]
    ) -> list[tuple[Any, ...]]:
        """Rows whose one key is in any of the ranges [first, last], in any order."""


def _names(table: Table) -> str:
    return ", ".join(column.name for column in table.columns)


def _keys(table: Table) -> list[str]:
    return [column.name for column in table.primary_key.columns]


def _set(table: Table) -> str:
    """The part of an upsert that replaces what is no key."""
    keys = _keys(table)
    others = [column.name for column in table.columns if column.name not in keys]
    if not others:
        return "DO NOTHING"
    return "DO UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in others)


class SqliteBulk:
    """`Bulk` by repeated statements."""

    def insert(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """See `Bulk`."""
        self._many(connection, self._insert(table), rows)

    def upsert(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """See `Bulk`."""
        keys = ", ".join(_keys(table))
        self._many(connection, f"{self._insert(table)} ON CONFLICT ({keys}) {_set(table)}", rows)

    def delete(self, connection: Connection, table: Table, keys: Sequence[Values]) -> None:
        """See `Bulk`."""
        where = " AND ".join(f"{name} = ?" for name in _keys(table))
        self._many(connection, f"DELETE FROM {table.name} WHERE {where}", keys)

    def delete_ranges(
        self, connection: Connection, table: Table, ranges: Sequence[tuple[int, int]]
    ) -> None:
        """See `Bulk`."""
        where = f"{_keys(table)[0]} BETWEEN ? AND ?"
        self._many(connection, f"DELETE FROM {table.name} WHERE {where}", ranges)

    def find_ranges(
        self, connection: Connection, table: Table, ranges: Sequence[tuple[int, int]]
    ) -> list[tuple[Any, ...]]:
        """See `Bulk`. CROSS JOIN keeps the ranges outside, so each is a search and not a scan."""
        found = connection.exec_driver_sql(
            f"SELECT {table.name}.* FROM json_each(?) AS range CROSS JOIN {table.name} "
            f"WHERE {_keys(table)[0]} "
            "BETWEEN json_extract(range.value, '$[0]') AND json_extract(range.value, '$[1]')",
            (json.dumps(ranges),),
        )
        return [tuple(row) for row in found]

    def find(
        self, connection: Connection, table: Table, keys: Iterable[int | str]
    ) -> list[tuple[Any, ...]]:
        """See `Bulk`. The keys travel as one JSON array."""
        found = connection.exec_driver_sql(
            f"SELECT {_names(table)} FROM {table.name} "
            f"WHERE {_keys(table)[0]} IN (SELECT value FROM json_each(?))",
            (json.dumps(list(keys)),),
        )
        return [tuple(row) for row in found]

    @staticmethod
    def _insert(table: Table) -> str:
        marks = ", ".join("?" * len(table.columns))
        return f"INSERT INTO {table.name} ({_names(table)}) VALUES ({marks})"

    @staticmethod
    def _many(connection: Connection, statement: str, rows: Sequence[Values]) -> None:
        if rows:
            connection.exec_driver_sql(statement, list(rows))


class PostgresBulk:
    """`Bulk` by arrays."""

    def insert(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """See `Bulk`."""
        self._insert(connection, table, rows, "")

    def upsert(self, connection: Connection, table: Table, rows: Sequence[Values]) -> None:
        """See `Bulk`."""
        keys = ", ".join(_keys(table))
        self._insert(connection, table, rows, f" ON CONFLICT ({keys}) {_set(table)}")

    def delete(self, connection: Connection, table: Table, keys: Sequence[Values]) -> None:
        """See `Bulk`."""
        if not keys:
            return
        names = _keys(table)
        arrays = ", ".join(f"%s::{_type(table, name)}[]" for name in names)
        connection.exec_driver_sql(
            f"DELETE FROM {table.name} WHERE ({', '.join(names)}) "
            f"IN (SELECT * FROM unnest({arrays}))",
            columns(keys),
        )

    def delete_ranges(
        self, connection: Connection, table: Table, ranges: Sequence[tuple[int, int]]
    ) -> None:
        """See `Bulk`."""
        if ranges:
            connection.exec_driver_sql(
                f"DELETE FROM {table.name} USING {_RANGES} "
                f"WHERE {_keys(table)[0]} BETWEEN range.first_key AND range.last_key",
                columns(ranges),
            )

    def find_ranges(
        self, connection: Connection, table: Table, ranges: Sequence[tuple[int, int]]
    ) -> list[tuple[Any, ...]]:
        """See `Bulk`."""
        found = connection.exec_driver_sql(
            f"SELECT {table.name}.* FROM {_RANGES} JOIN {table.name} "
            f"ON {_keys(table)[0]} BETWEEN range.first_key AND range.last_key",
            columns(ranges),
        )
        return [tuple(row) for row in found]

    def find(
        self, connection: Connection, table: Table, keys: Iterable[int | str]
    ) -> list[tuple[Any, ...]]:
        """See `Bulk`."""
        name = _keys(table)[0]
        found = connection.exec_driver_sql(
            f"SELECT {_names(table)} FROM {table.name} "
            f"WHERE {name} = ANY(%s::{_type(table, name)}[])",
            (_array(keys),),
        )
        return [tuple(row) for row in found]

    @staticmethod
    def _insert(connection: Connection, table: Table, rows: Sequence[Values], end: str) -> None:
        if not rows:
            return
        arrays = ", ".join(f"%s::{_type(table, column.name)}[]" for column in table.columns)
        connection.exec_driver_sql(
            f"INSERT INTO {table.name} ({_names(table)}) SELECT * FROM unnest({arrays}){end}",
            columns(rows),
        )


def _type(table: Table, name: str) -> str:
    """The type of an array's elements; integers are all sent wide and stored as they fit."""
    kind = table.columns[name].type
    if isinstance(kind, LargeBinary):
        return "bytea"
    return "text" if isinstance(kind, Text) else "bigint"


_RANGES: Final = "unnest(%s::bigint[], %s::bigint[]) AS range (first_key, last_key)"


def columns(rows: Sequence[Values]) -> tuple[str, ...]:
    """One array a column, in PostgreSQL's text form."""
    return tuple(map(_array, zip(*rows, strict=True)))


def _array(values: Iterable[Value]) -> str:
    """PostgreSQL's text form of an array, which is the fastest to make and to send."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: Value) -> str:
    if isinstance(value, int):
        return str(int(value))  # an enum's number, not its name
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def bulk_of(engine: Engine) -> Bulk:
    """How to write to an engine."""
    return SqliteBulk() if engine.dialect.name == "sqlite" else PostgresBulk()


# -- opening ---------------------------------------------------------------------------------------


def _checked(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigError("expected sqlite:///<path> or postgresql://... - at `ledger`") from error
    if parsed.drivername == "postgresql":
        return parsed.set(drivername="postgresql+pg8000")
    if parsed.drivername not in ("sqlite", "postgresql+pg8000"):
        raise ConfigError(f"expected SQLite or PostgreSQL, got {parsed.drivername} - at `ledger`")
    return parsed


def is_shared(text: str) -> bool:
    """Whether several nodes may keep their books at a URL. Raises: ConfigError."""
    return _checked(text).get_backend_name() == "postgresql"


def engine_of(text: str, lock_wait_ms: int, schemas: Sequence[str] = ()) -> Engine:
    """The engine of a URL; nothing is connected yet. Raises: ConfigError.

    schemas: of PostgreSQL, where tables are looked for in this order; () for its default.
    """
    url = _checked(text)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url)

        @event.listens_for(engine, "connect")
        def prepare(connection: sqlite3.Connection, _: object) -> None:
            """Every commit is on the disk when it returns; readers do not hold up the writer."""
            connection.isolation_level = None  # we say BEGIN ourselves
            connection.execute(f"PRAGMA busy_timeout={lock_wait_ms}")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES}")
            connection.execute(f"PRAGMA cache_size=-{CACHE_KB}")

        event.listen(engine, "begin", _on_sqlite_begin)
        return engine
    try:
        engine = create_engine(url, pool_pre_ping=True)
    except (ImportError, NoSuchModuleError) as error:
        raise ConfigError("PostgreSQL needs `pip install rtb[postgres]` - at `ledger`") from error
    if schemas:
        _look_in(engine, schemas, lock_wait_ms)
    return engine


def _look_in(engine: Engine, schemas: Sequence[str], lock_wait_ms: int) -> None:
    """Sets the schemas of every connection, and how long it waits for another node's lock."""

    @event.listens_for(engine, "connect", insert=True)  # before SQLAlchemy asks for the default
    def prepare(connection: DBAPIConnection, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET search_path TO {', '.join(schemas)}")
        cursor.execute(f"SET lock_timeout TO {lock_wait_ms}")
        cursor.close()
        connection.commit()  # what a transaction has set ends with its rollback


def _on_sqlite_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


class Database(ABC):
    """The connections to one database of books; a context manager that ends them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bulk = bulk_of(engine)

    def _opened(self) -> Self:
        """Itself, once it has looked at what is there; otherwise nothing stays connected."""
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise
        return self

    @abstractmethod
    def _prepare(self) -> None:
        """Looks whether these are books that it can use, or makes them. Raises: StoreError."""

    def close(self) -> None:
        """Ends all connections."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    @property
    def _place(self) -> str:
        return place_of(self._engine)

    def _transaction(self, *, reading: bool = False) -> AbstractContextManager[Connection]:
        return transaction(self._engine, self._place, reading=reading)


@contextmanager
def transaction(engine: Engine, place: str, *, reading: bool = False) -> Iterator[Connection]:
    """One transaction, or one consistent look; faults of the engine as ours."""
    try:
        with _connected(engine, place) as connection:
            if reading and engine.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection
    except IntegrityError as error:
        raise StoreCorrupt(f"{error.orig} - at `{place}`") from error
    except DBAPIError as error:
        raise fault_of(error, place) from error
    except _RAW as error:
        raise _broken(error, place) from error


# PostgreSQL's driver lets these out as they are: a socket that breaks, an answer that breaks off.
_RAW: Final = (OSError, struct.error)


def _connected(engine: Engine, place: str) -> Connection:
    """A connection. A server that ends, or is none, may say anything before the first statement:
    the driver reads it by tables and as text. Raises: StoreError, DBAPIError.
    """
    try:
        return engine.connect()
    except (*_RAW, ValueError, LookupError) as error:
        raise _broken(error, place) from error


def _broken(error: Exception, place: str) -> StoreError:
    return StoreError(f"connection lost: {type(error).__name__}: {error} - at `{place}`")


def place_of(engine: Engine) -> str:
    """The database as messages name it."""
    return engine.url.render_as_string(hide_password=True)


def fault_of(error: DBAPIError, place: str) -> StoreError:
    """Ours for the engine's: what is not a database, or has lost pages, is no passing trouble."""
    text = str(error.orig)
    if "malformed" in text or "not a database" in text or "no such" in text:
        return StoreCorrupt(f"{text} - at `{place}`")
    return StoreError(f"{text} - at `{place}`")
