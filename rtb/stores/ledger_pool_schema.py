"""Tables that nodes of one PostgreSQL share, in a schema of their own.

Their names begin with `pool_`, so that they can be looked for after the tables of a node's books.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)

SCHEMA: Final = "rtb_pool"
VERSION: Final = 2
METADATA: Final = MetaData()


def _big(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _small(name: str) -> Column[int]:
    return Column(name, SmallInteger, nullable=False)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


# Amounts are decimal text as in `ledger_schema.LIMITS`; a budget without limit is "".
NODES: Final = Table(
    "pool_nodes", METADATA, Column("node", SmallInteger, primary_key=True), _small("released")
)
# Who pays for a line item, a campaign or an advertiser's line items: see `ledger_owners`.
OWNERS: Final = Table(
    "pool_owners", METADATA, _small("scope"), _big("key"), _big("owner"), _big("currency"),
    PrimaryKeyConstraint("scope", "key"),
)  # fmt: skip
POTS: Final = Table(
    "pool_pots", METADATA, _small("scope"), _big("key"), _big("day"),
    PrimaryKeyConstraint("scope", "key", "day"),
)  # fmt: skip
SHARES: Final = Table(
    "pool_shares", METADATA,
    _small("scope"), _big("key"), _big("day"), _small("node"),
    _text("lent_nanos"), _text("lent_units"), _text("bound_nanos"), _text("bound_units"),
    _text("budget_nanos"), _text("budget_units"), _small("wants"),
    PrimaryKeyConstraint("scope", "key", "day", "node"),
    Index("pool_shares_of_node", "node"),
    Index("pool_shares_wanted", "node", postgresql_where=text("wants != 0")),
)  # fmt: skip
MAIL: Final = Table(
    "pool_mail", METADATA,
    _small("to_node"), _small("from_node"), _big("number"), _big("time_s"),
    _text("journal"), _big("sequence"), _small("kind"), Column("body", LargeBinary, nullable=False),
    PrimaryKeyConstraint("to_node", "from_node", "number"),
)  # fmt: skip
# What the pacers of each node have seen of a budget, for those of the others.
SEEN: Final = Table(
    "pool_seen", METADATA,
    _small("scope"), _big("key"), _big("day"), _small("units"), _small("node"), _text("seen"),
    PrimaryKeyConstraint("scope", "key", "day", "units", "node"),
)  # fmt: skip
# Numbers by name: `version` of these tables; mail_from_s: all mail that was sent since is kept.
META: Final = Table(
    "pool_meta", METADATA, Column("name", Text, primary_key=True), _big("value")
)  # fmt: skip
