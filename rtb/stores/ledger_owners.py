"""Whose money a line item spends, as all nodes of one PostgreSQL know it.

Their pots are known by campaign and line item alone. So a campaign has one advertiser and one
currency on all nodes, or dollars would be added to pounds: whoever says it first, says it for all,
and for good, as money that is booked cannot move.
"""

from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection

from rtb.ledger.commands import Enrol, Scope
from rtb.stores import ledger_pool_schema as tables
from rtb.stores.ledger_engines import Bulk, columns
from rtb.stores.ledger_schema import signed

_Thing = tuple[int, int]  # scope, key
_Payer = tuple[int, int]  # key of the owner, currency
_NOBODY: Final = 0


def claim(connection: Connection, bulk: Bulk, enrolments: Iterable[Enrol]) -> set[int]:
    """Writes down who pays for line items; returns those of which it is said otherwise by now.

    Rows are written in the order of their keys, so that no two nodes wait for each other.
    """
    enrolments = list(enrolments)
    wanted = {thing: payer for one in enrolments for thing, payer in _payers(one)}
    if not wanted:
        return set()
    things = sorted(wanted)
    bulk.insert_new(connection, tables.OWNERS, [(*thing, *wanted[thing]) for thing in things])
    said = _said(connection, things)
    return {
        one.line_item
        for one in enrolments
        if any(said[thing] != payer for thing, payer in _payers(one))
    }


def adopt(connection: Connection, schema: str) -> None:
    """Writes down what the books of a node say that had them before this was asked."""
    pairs = (
        (Scope.LINE_ITEM, "line_item", "campaign"),
        (Scope.CAMPAIGN, "campaign", "advertiser"),
        (Scope.ADVERTISER, "advertiser", str(_NOBODY)),
    )
    for scope, key, owner in pairs:
        connection.exec_driver_sql(
            f"INSERT INTO {tables.SCHEMA}.{tables.OWNERS.name} "
            f"SELECT DISTINCT {int(scope)}, {key}, {owner}, currency FROM {schema}.lines "
            "ON CONFLICT DO NOTHING"
        )


def _payers(one: Enrol) -> Iterable[tuple[_Thing, _Payer]]:
    campaign, advertiser = signed(one.campaign), signed(one.advertiser)
    yield (int(Scope.LINE_ITEM), signed(one.line_item)), (campaign, one.currency)
    yield (int(Scope.CAMPAIGN), campaign), (advertiser, one.currency)
    yield (int(Scope.ADVERTISER), advertiser), (_NOBODY, one.currency)


def _said(connection: Connection, things: list[_Thing]) -> dict[_Thing, _Payer]:
    rows = connection.exec_driver_sql(
        "SELECT owners.* FROM unnest(%s::bigint[], %s::bigint[]) AS asked (scope, key) "
        f"JOIN {tables.OWNERS.name} AS owners USING (scope, key)",
        columns(things),
    )
    return {(scope, key): (owner, currency) for scope, key, owner, currency in rows}
