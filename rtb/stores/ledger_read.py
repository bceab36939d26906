"""Between the tables of the books and the values of `rtb.ledger`."""

import json
from collections.abc import Sequence

from sqlalchemy import Column, Connection, Table, func, select

from rtb.base.errors import StoreCorrupt
from rtb.ledger import audit
from rtb.ledger.accounts import (
    BALANCES,
    NO_LIMIT,
    Account,
    Balance,
    Hold,
    Lease,
    Limit,
    Line,
    State,
    open_account,
)  # fmt: skip
from rtb.ledger.changes import Entry, Row
from rtb.ledger.commands import Flight, Scope, SetLimit
from rtb.stores import ledger_schema as schema
from rtb.stores.ledger_schema import signed, unsigned


def line_row(line: Line) -> tuple[int | str, ...]:
    """A line item as `lines` has it."""
    flights = [(flight.key, flight.start_s, flight.end_s) for flight in line.flights]
    return (
        signed(line.line_item), signed(line.campaign), signed(line.advertiser), line.zone,
        line.currency, json.dumps(flights), line.name,
    )  # fmt: skip


def limit_row(sequence: int, command: SetLimit) -> tuple[int | str | None, ...]:
    """A limit as `limits` has it."""
    nanos, units = (None if one is None else str(one) for one in (command.nanos, command.units))
    return sequence, command.time_s, int(command.scope), signed(command.key), nanos, units


def account_row(account: Account) -> tuple[int, ...]:
    """An account as `accounts` has it."""
    return account.number, signed(account.line_item), signed(account.flight), account.day


def row(values: Sequence[int | str]) -> tuple[int, Row]:
    """A row of `rows` with its number."""
    number, time_s, entry, account, source, target, nanos, units, moves, bid, worker, reference = (
        values
    )
    found = Row(
        int(time_s), Entry(int(entry)), int(account), Balance(int(source)), Balance(int(target)),
        int(nanos), int(units), int(moves), int(bid), int(worker), str(reference),
    )  # fmt: skip
    return int(number), found


def meta(connection: Connection) -> dict[str, int]:
    """The numbers of the table `meta` by name."""
    return {str(name): int(value) for name, value in connection.execute(select(schema.META))}


def last(connection: Connection, column: Column[int]) -> int:
    """The greatest value of a column, 0 when there is none."""
    return connection.execute(select(func.max(column))).scalar() or 0


def read_state(connection: Connection) -> State:
    """The state as the tables have it."""
    state = State()
    for line_item, campaign, advertiser, zone, currency, flights, name in connection.execute(
        select(schema.LINES)
    ):
        keys = (unsigned(line_item), unsigned(campaign), unsigned(advertiser))
        spans = tuple(Flight(*flight) for flight in json.loads(flights))
        state.lines[keys[0]] = Line(*keys, zone, currency, spans, name)
    limits = schema.LIMITS
    for _, _, scope, key, nanos, units in connection.execute(
        select(limits).order_by(limits.c.sequence)
    ):
        state.limits[Scope(scope), unsigned(key)] = Limit(
            NO_LIMIT if nanos is None else int(nanos), NO_LIMIT if units is None else int(units)
        )
    _read_accounts(connection, state)
    for account, worker, nanos, units, expires_s in connection.execute(select(schema.LEASES)):
        state.leases[account, worker] = Lease(nanos, units, expires_s)
    for bid, *values in connection.execute(select(schema.HOLDS)):
        hold = state.holds[bid] = Hold(*values)
        state.due.setdefault(hold.deadline_s, []).append(bid)
    return state


def _read_accounts(connection: Connection, state: State) -> None:
    accounts, kept = schema.ACCOUNTS, schema.BALANCES
    query = select(accounts, *list(kept.c)[1:]).join(kept, kept.c.account == accounts.c.number)
    for number, line_item, flight, day, *values in connection.execute(
        query.order_by(accounts.c.number)
    ):
        account = open_account(state, state.lines[unsigned(line_item)], unsigned(flight), day)
        if account.number != number:
            raise StoreCorrupt(f"account {account.number} is missing")
        account.nanos = values[:BALANCES]
        account.units = values[BALANCES:]
        for drawn in account.scopes:
            drawn.nanos -= account.nanos[Balance.OPEN]
            drawn.units -= account.units[Balance.OPEN]


def sums_of_rows(connection: Connection) -> audit.Sums:
    """What each balance must be by the rows."""
    table = schema.ROWS
    sums: audit.Sums = {}
    for column, sign in ((table.c.source, -1), (table.c.target, 1)):
        query = select(
            table.c.account, column, func.sum(table.c.nanos), func.sum(table.c.units)
        ).group_by(table.c.account, column)
        for account, balance, nanos, units in connection.execute(query):
            audit.add(sums, (account, Balance(balance)), sign * int(nanos), sign * int(units))
    return sums


def kept(connection: Connection) -> audit.Sums:
    """What each balance is by `balances`."""
    sums: audit.Sums = {}
    for account, *values in connection.execute(select(schema.BALANCES)):
        for balance in Balance:
            nanos, units = values[balance], values[BALANCES + balance]
            audit.add(sums, (account, balance), nanos, units)
    return sums


def sums_by_account(connection: Connection, table: Table, balance: Balance) -> audit.Sums:
    """What a balance must be by the table that holds its parts."""
    sums: audit.Sums = {}
    query = select(table.c.account, func.sum(table.c.nanos), func.sum(table.c.units))
    for account, nanos, units in connection.execute(query.group_by(table.c.account)):
        audit.add(sums, (account, balance), int(nanos), int(units))
    return sums
