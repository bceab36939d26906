"""Tables of the books, the same on SQLite and PostgreSQL.

`rows`, `sheets` and `limits` are the books: they are only ever added to. `balances`, `leases`,
`holds`, `settled`, `packs`, `losses` and `pages` are what those and the journals add up to, kept so
that a start needs not read them all; they change in the same transaction, and an audit compares.
`positions` says how far each journal was applied, in the same transaction again: that is what makes
a record count once.

Keys of 64 bits are stored as signed integers. Limits are decimal text: in currencies of small
units they pass 64 bits of nanos.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from rtb.base.errors import StoreCorrupt
from rtb.ledger.accounts import Balance

SCHEMA_VERSION: Final = 2
# Books without the tables of `ledger_pages` and `ledger_sheets`, which need only be made.
WITHOUT_PAGES: Final = 1

METADATA: Final = MetaData()
# SQLite makes a column its row id only when it is spelled INTEGER; the same 64 bits to it.
_Key: Final = BigInteger().with_variant(Integer, "sqlite")
BALANCE_COLUMNS: Final = tuple(
    f"{balance.name.lower()}_{unit}" for unit in ("nanos", "units") for balance in Balance
)


def _big(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _small(name: str) -> Column[int]:
    return Column(name, SmallInteger, nullable=False)


def _key(name: str) -> Column[int]:
    return Column(name, _Key, primary_key=True, autoincrement=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _blob(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


# Numbers by name: `version` of the schema, `writer` (who opened last may write), `forgotten_s`,
# and what `keeper.forgetting` has seen of the clock.
META: Final = Table("meta", METADATA, Column("name", Text, primary_key=True), _big("value"))
LINES: Final = Table(
    "lines", METADATA,
    _key("line_item"), _big("campaign"), _big("advertiser"), _text("zone"), _big("currency"),
    _text("flights"), _text("name"),
)  # fmt: skip
LIMITS: Final = Table(
    "limits", METADATA,
    _key("sequence"), _big("time_s"), _small("scope"), _big("key"),
    Column("nanos", Text), Column("units", Text),
)  # fmt: skip
ACCOUNTS: Final = Table(
    "accounts", METADATA,
    _key("number"), _big("line_item"), _big("flight"), _big("day"),
    UniqueConstraint("day", "line_item", "flight"),
)  # fmt: skip
BALANCES: Final = Table("balances", METADATA, _key("account"), *map(_big, BALANCE_COLUMNS))
LEASES: Final = Table(
    "leases", METADATA,
    _big("account"), _big("worker"), _big("nanos"), _big("units"), _big("expires_s"),
    PrimaryKeyConstraint("account", "worker"),
    sqlite_with_rowid=False,  # one tree, not two: a lease changes in every batch
)  # fmt: skip
HOLDS: Final = Table(
    "holds",
    METADATA,
    _key("bid"),
    _big("account"),
    _big("nanos"),
    _big("units"),
    _big("deadline_s"),
)
SETTLED: Final = Table(
    "settled", METADATA, _key("bid"), _small("mark"), _big("nanos"), _small("seen")
)
# See `ledger_pages`.
PACKS: Final = Table("packs", METADATA, _key("first"), _blob("body"))
LOSSES: Final = Table("losses", METADATA, _key("first"), _blob("body"))
PAGES: Final = Table("pages", METADATA, _key("page"), _big("expired_s"), _blob("bitmap"))
REFERENCES: Final = Table("corrections", METADATA, Column("reference", Text, primary_key=True))
ROWS: Final = Table(
    "rows", METADATA,
    _key("sequence"), _big("time_s"), _small("entry"), _big("account"), _small("source"),
    _small("target"), _big("nanos"), _big("units"), _big("moves"), _big("bid"), _big("worker"),
    _text("reference"),
    Index("rows_of_bid", "bid", sqlite_where=text("bid != 0"), postgresql_where=text("bid != 0")),
)  # fmt: skip
# See `ledger_sheets`; last: the number of a sheet's last row, counted on from those of `rows`.
SHEETS: Final = Table("sheets", METADATA, _key("last"), _big("time_s"), _blob("body"))
POSITIONS: Final = Table(
    "positions", METADATA, Column("journal", Text, primary_key=True), _big("position")
)


def other_version(found: int | None, place: str) -> StoreCorrupt:
    """The refusal of books that are not of this version."""
    return StoreCorrupt(f"books of version {found}, expected {SCHEMA_VERSION} - at `{place}`")


def signed(key: int) -> int:
    """A 64-bit key as the signed integer that columns hold."""
    return key - (key >> 63 << 64)


def unsigned(key: int) -> int:
    """The inverse of `signed`."""
    return key & 0xFFFF_FFFF_FFFF_FFFF
