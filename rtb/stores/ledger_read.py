"""Between the tables of the books and the values of `rtb.ledger`."""

import json
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Column, ColumnElement, Connection, Table, func, not_, or_, select

from rtb.ledger import audit
from rtb.ledger.accounts import (
    BALANCES,
    DAILY,
    NO_LIMIT,
    Account,
    Balance,
    Hold,
    Lease,
    Limit,
    Line,
    State,
    carry_forward,
    enrol,
    open_account,
)  # fmt: skip
from rtb.ledger.changes import Entry, Row
from rtb.ledger.commands import Flight, Scope, SetLimit
from rtb.stores import ledger_schema as schema
from rtb.stores import ledger_sheets as sheets
from rtb.stores.ledger_pages import pending, read_pages
from rtb.stores.ledger_schema import signed, unsigned

# An account with any of these has money lent out or in flight.
_MOVING: Final = ("granted_nanos", "granted_units", "pending_nanos", "pending_units")


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


def row_values(number: int, row: Row) -> tuple[int | str, ...]:
    """A row as `rows` has it. Drivers are much slower with enums than with plain integers."""
    time_s, entry, account, source, target, nanos, units, moves, bid, worker, reference = row
    return (
        number, time_s, int(entry), account, int(source), int(target), nanos, units, moves, bid,
        worker, reference,
    )  # fmt: skip


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
    """The state as the tables have it, but for its accounts."""
    state = State(limits=read_limits(connection))
    for line in read_lines(connection).values():
        if not enrol(state, line):  # by an earlier version: it may only be read
            state.lines[line.line_item] = line
    for account, worker, nanos, units, expires_s in connection.execute(select(schema.LEASES)):
        state.leases[account, worker] = Lease(nanos, units, expires_s)
    for bid, *values in connection.execute(select(schema.HOLDS)):
        hold = state.holds[bid] = Hold(*values)
        state.due.setdefault(hold.deadline_s, []).append(bid)
    read_pages(connection, state)
    return state


def read_lines(connection: Connection) -> dict[int, Line]:
    """All line items that were ever enrolled."""
    lines = {}
    for line_item, campaign, advertiser, zone, currency, flights, name in connection.execute(
        select(schema.LINES)
    ):
        keys = (unsigned(line_item), unsigned(campaign), unsigned(advertiser))
        spans = tuple(Flight(*flight) for flight in json.loads(flights))
        lines[keys[0]] = Line(*keys, zone, currency, spans, name)
    return lines


def read_limits(connection: Connection) -> dict[tuple[Scope, int], Limit]:
    """The limits that are in force."""
    limits, found = schema.LIMITS, {}
    for _, _, scope, key, nanos, units in connection.execute(
        select(limits).order_by(limits.c.sequence)
    ):
        found[Scope(scope), unsigned(key)] = Limit(
            NO_LIMIT if nanos is None else int(nanos), NO_LIMIT if units is None else int(units)
        )
    return found


def read_accounts(connection: Connection, state: State, from_day: int) -> set[int]:
    """Loads the accounts of the days that may still move, whole days, and sums up the others.

    Those are the days from `from_day` on and any that has money lent out or in flight; returns the
    latter.
    """
    accounts, kept = schema.ACCOUNTS, schema.BALANCES
    joined = accounts.join(kept, kept.c.account == accounts.c.number)
    moving = or_(*(kept.c[name] != 0 for name in _MOVING))
    older = select(accounts.c.day).select_from(joined).where(accounts.c.day < from_day, moving)
    days = {int(day) for day in connection.execute(older.distinct()).scalars()}
    rest = (accounts.c.day < from_day) & accounts.c.day.not_in(days)
    query = select(
        accounts.c.line_item, accounts.c.flight, func.sum(kept.c.open_units),
        *(func.sum(column) for column in list(kept.c)[1 : 1 + BALANCES]),
    ).select_from(joined).where(rest)  # fmt: skip
    grouped = query.group_by(accounts.c.line_item, accounts.c.flight)
    for line_item, flight, units, *found in connection.execute(grouped):
        line, nanos = state.lines[unsigned(line_item)], [int(one) for one in found]
        carry_forward(state, line, unsigned(flight), -nanos[Balance.OPEN], -int(units))
        _add_rest(state, line, nanos)
    _open(connection, state, not_(rest), lifetime=True)
    state.last_number = last(connection, accounts.c.number)
    return days


def read_day(connection: Connection, state: State, day: int) -> None:
    """Loads the accounts of a day that was summed up before."""
    for account in _open(connection, state, schema.ACCOUNTS.c.day == day, lifetime=False):
        line = state.lines[account.line_item]
        _add_rest(state, line, [-nanos for nanos in account.nanos])


def _add_rest(state: State, line: Line, nanos: Sequence[int]) -> None:
    """Adds to what the accounts on the disk alone have."""
    rest = state.rest.setdefault(line.currency, [0] * BALANCES)
    state.rest[line.currency] = [sum(pair) for pair in zip(rest, nanos, strict=True)]


def _open(
    connection: Connection, state: State, where: ColumnElement[bool], *, lifetime: bool
) -> list[Account]:
    """Opens accounts as stored; `lifetime`: scopes without days have not counted them yet."""
    accounts, kept, opened = schema.ACCOUNTS, schema.BALANCES, []
    query = select(accounts, *list(kept.c)[1:]).join(kept, kept.c.account == accounts.c.number)
    for number, line_item, flight, day, *values in connection.execute(
        query.where(where).order_by(accounts.c.number)
    ):
        line = state.lines[unsigned(line_item)]
        account = open_account(state, line, unsigned(flight), day, number)
        account.nanos = values[:BALANCES]
        account.units = values[BALANCES:]
        for drawn in account.scopes:
            if lifetime or drawn.scope in DAILY:
                drawn.nanos -= account.nanos[Balance.OPEN]
                drawn.units -= account.units[Balance.OPEN]
        opened.append(account)
    return opened


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
    sheets.add_up(connection, sums)
    return sums


def kept(connection: Connection) -> audit.Sums:
    """What each balance is by `balances`."""
    sums: audit.Sums = {}
    for account, *values in connection.execute(select(schema.BALANCES)):
        for balance in Balance:
            nanos, units = values[balance], values[BALANCES + balance]
            audit.add(sums, (account, balance), nanos, units)
    return sums


def held(connection: Connection) -> audit.Sums:
    """What PENDING must be by all bids in flight."""
    sums = sums_by_account(connection, schema.HOLDS, Balance.PENDING)
    for key, (nanos, units) in pending(connection).items():
        audit.add(sums, key, nanos, units)
    return sums


def sums_by_account(connection: Connection, table: Table, balance: Balance) -> audit.Sums:
    """What a balance must be by the table that holds its parts."""
    sums: audit.Sums = {}
    query = select(table.c.account, func.sum(table.c.nanos), func.sum(table.c.units))
    for account, nanos, units in connection.execute(query.group_by(table.c.account)):
        audit.add(sums, (account, balance), int(nanos), int(units))
    return sums
