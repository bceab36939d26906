"""Whose money a line item spends, as all nodes of one PostgreSQL know it.

Their pots are known by campaign and line item alone. So a campaign has one advertiser and one
currency on all nodes, or dollars would be added to pounds: whoever says it first, says it for all,
and for good, as money that is booked cannot move. Of what is refused nothing is written down, so a
node that errs takes nothing from the others.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from sqlalchemy import Connection

from rtb.ledger.commands import Enrol, Scope
from rtb.stores import ledger_pool_schema as tables
from rtb.stores.ledger_engines import Bulk, columns
from rtb.stores.ledger_schema import signed

_Thing = tuple[int, int]  # scope, key
_Payer = tuple[int, int]  # key of the owner, currency
_NOBODY: Final = 0


class Owned(NamedTuple):
    """A line item and who pays for it; keys as columns have them."""

    line_item: int
    campaign: int
    advertiser: int
    currency: int

    def payers(self) -> Iterator[tuple[_Thing, _Payer]]:
        """What it says."""
        yield (int(Scope.ADVERTISER), self.advertiser), (_NOBODY, self.currency)
        yield (int(Scope.CAMPAIGN), self.campaign), (self.advertiser, self.currency)
        yield (int(Scope.LINE_ITEM), self.line_item), (self.campaign, self.currency)


def claim(connection: Connection, bulk: Bulk, enrolments: Iterable[Enrol]) -> set[int]:
    """Writes down who pays for line items; returns those of which it is said otherwise by now."""
    named = {
        Owned(
            signed(one.line_item), signed(one.campaign), signed(one.advertiser), one.currency
        ): one.line_item
        for one in enrolments
    }
    return {named[one] for one in _claim(connection, bulk, list(named))}


def adopt(connection: Connection, bulk: Bulk, schema: str) -> None:
    """Writes down what the books of a node say that had them before this was asked."""
    lines = connection.exec_driver_sql(
        f"SELECT line_item, campaign, advertiser, currency FROM {schema}.lines ORDER BY line_item"
    )
    _claim(connection, bulk, [Owned(*row) for row in lines])


def _claim(connection: Connection, bulk: Bulk, wanted: list[Owned]) -> list[Owned]:
    """Those that are refused. Usually all was said before, and nobody waits for anybody."""
    if not _unlike(connection, wanted):
        return []
    # One node at a time, also of those whose version writes without a look; readers go on.
    connection.exec_driver_sql(
        f"LOCK TABLE {tables.SCHEMA}.{tables.OWNERS.name} IN SHARE ROW EXCLUSIVE MODE"
    )
    said = _unlike(connection, wanted)
    new: dict[_Thing, _Payer] = {}
    refused = []
    for one in wanted:
        payers = dict(one.payers())
        if any(said.get(thing, payer) not in (None, payer) for thing, payer in payers.items()):
            refused.append(one)
            continue
        first = {thing: payer for thing, payer in payers.items() if said.get(thing, payer) is None}
        said |= first
        new |= first
    bulk.insert(connection, tables.OWNERS, [(*thing, *payer) for thing, payer in new.items()])
    return refused


def _unlike(connection: Connection, wanted: Iterable[Owned]) -> dict[_Thing, _Payer | None]:
    """What is said otherwise than wanted; None: of which nothing is said."""
    asked = sorted({(*thing, *payer) for one in wanted for thing, payer in one.payers()})
    if not asked:
        return {}
    found = connection.exec_driver_sql(
        "SELECT scope, key, said.owner, said.currency "
        "FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) "
        "AS asked (scope, key, owner, currency) "
        f"LEFT JOIN {tables.SCHEMA}.{tables.OWNERS.name} AS said USING (scope, key) "
        "WHERE (said.owner, said.currency) IS DISTINCT FROM (asked.owner, asked.currency)",
        columns(asked),
    )
    return {
        (scope, key): None if owner is None else (owner, currency)
        for scope, key, owner, currency in found
    }
