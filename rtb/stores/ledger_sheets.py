"""Sheets: what a batch did to every account, on one row.

A movement that names a bid, a worker or a reference is a row of `rows`. The others are sums, one an
account, kind and pair of balances in a batch: thousands a second where many line items are active.
Those of one batch are a sheet: their numbers follow one another and end with the sheet's key, they
share its time, and they take a few bytes each.
"""

from collections.abc import Collection, Iterable, Iterator
from typing import Final

import numpy as np
from sqlalchemy import Connection, select

from rtb.ledger import audit
from rtb.ledger.accounts import Balance
from rtb.ledger.changes import NO_WORKER, Changes, Entry, Row
from rtb.ledger.pages import Groups, Rows
from rtb.stores import ledger_schema as schema
from rtb.stores.ledger_pages import decode, encode

SUMMED: Final = np.dtype(
    [
        ("entry", "u1"),
        ("source", "u1"),  # Balance
        ("target", "u1"),
        ("account", "i8"),
        ("nanos", "i8"),
        ("units", "i8"),
        ("moves", "i8"),
    ]
)
_PAGE_SHEETS: Final = 200  # of one query: a few MB
_BALANCE_BITS: Final = 3
assert len(Balance) <= 1 << _BALANCE_BITS


def sheet(last: int, changes: Changes) -> tuple[int, int, bytes]:
    """The sheet of a batch whose last row has this number."""
    rows = [
        (entry, source, target, account, *amounts)
        for (entry, account, source, target), amounts in changes.sums.items()
    ]
    return last, changes.time_s, encode(np.array(rows, SUMMED))


def _sheets(connection: Connection, after: int) -> Iterator[tuple[int, int, Rows]]:
    """Key, time and rows of the sheets that end after a number. Raises: StoreCorrupt."""
    table = schema.SHEETS
    while True:
        later = select(table).where(table.c.last > after).order_by(table.c.last)
        page = connection.execute(later.limit(_PAGE_SHEETS)).all()
        for last, time_s, body in page:
            yield last, time_s, decode(body, SUMMED, f"sheet {last}")
        if not page:
            return
        after = page[-1][0]


def rows(
    connection: Connection, after: int, accounts: Collection[int] | None
) -> Iterator[tuple[int, Row]]:
    """Rows that come after a number, with theirs, oldest first; of some accounts or (None) all.

    Raises: StoreCorrupt.
    """
    for last, time_s, found in _sheets(connection, after):
        numbers = np.arange(last - len(found) + 1, last + 1)
        chosen = numbers > after
        if accounts is not None:
            chosen &= np.isin(found["account"], np.array(list(accounts), np.int64))
        some = zip(numbers[chosen].tolist(), found[chosen].tolist(), strict=True)
        for number, (entry, source, target, account, nanos, units, moves) in some:
            yield number, Row(
                time_s, Entry(entry), account, Balance(source), Balance(target), nanos, units,
                moves, 0, NO_WORKER, "",
            )  # fmt: skip


def add_up(connection: Connection, sums: audit.Sums) -> None:
    """Adds what all sheets moved. Raises: StoreCorrupt."""
    batch: list[Rows] = []
    for _, _, found in _sheets(connection, 0):
        batch.append(found)
        if len(batch) == _PAGE_SHEETS:
            _add(sums, batch)
            batch.clear()
    _add(sums, batch)


def _add(sums: audit.Sums, sheets: Iterable[Rows]) -> None:
    found = np.concatenate([np.zeros(0, SUMMED), *sheets])
    if not len(found):
        return
    for name, sign in (("source", -1), ("target", 1)):
        groups = Groups(found["account"] << _BALANCE_BITS | found[name])
        moved = zip(groups.keys, groups.sums(found["nanos"]), groups.sums(found["units"]),
                    strict=True)  # fmt: skip
        for key, nanos, units in moved:
            place = (key >> _BALANCE_BITS, Balance(key & (1 << _BALANCE_BITS) - 1))
            audit.add(sums, place, sign * nanos, sign * units)
