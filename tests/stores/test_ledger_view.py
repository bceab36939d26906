"""Looking at the books, on both engines, while somebody else writes them."""

import sqlite3
from pathlib import Path

import pytest

from rtb.base.errors import ConfigError, StoreCorrupt, StoreError
from rtb.ledger.accounts import Balance
from rtb.ledger.commands import Outcome, Scope
from rtb.stores.ledger_sql import LedgerStore
from rtb.stores.ledger_view import LedgerView, name_of
from tests.ledger.books import HATS, SHOES, T, adjust, bid, enrol, grant, limit, post, take
from tests.stores.postgres import sqlite_url


def test_a_look(url: str) -> None:
    """Lines, limits, accounts, positions and what bills spent, without the corrections."""
    with LedgerStore.open(url) as store:
        store.load()
        store.apply(
            [
                enrol(), enrol(HATS), limit(Scope.LINE_ITEM, SHOES, 100), grant(60),
                take(1), post(1, 7), take(2, time_s=T + 60), post(2, 9, time_s=T + 60), take(3),
                adjust("refund", -3),
            ],
            {"0/0/1": 5},
        )  # fmt: skip
        with LedgerView.open(url) as view:
            whole, later = view.look(), view.look(T + 60)
            booked, rows = view.booked([bid(1), bid(2, time_s=T + 60)]), list(view.rows())
            differences = view.audit()
        outcomes = store.apply([post(3, 10)], {"0/0/1": 6}).outcomes
    account = whole.accounts[0]

    assert {SHOES, HATS} == set(whole.lines)
    assert 100 == whole.limits[Scope.LINE_ITEM, SHOES].nanos
    assert {"0/0/1": 5} == whole.positions
    assert (SHOES, 13, 10) == (
        account.line_item, account.nanos[Balance.POSTED], account.nanos[Balance.PENDING],
    )  # fmt: skip
    assert {(SHOES, account.day): 16} == whole.spent
    assert {(SHOES, account.day): 9} == later.spent
    assert {bid(1): 7, bid(2, time_s=T + 60): 9} == booked
    assert [] == differences
    assert sorted(number for number, _ in rows) == [number for number, _ in rows]
    assert [Outcome.POSTED] == outcomes  # the writer is still the writer
    assert ("shop / shoes", "000000000000000c") == (name_of(SHOES, whole.lines), name_of(12, {}))


def test_rows_of_some(url: str) -> None:
    """Of single line items, one after the other."""
    with LedgerStore.open(url) as store:
        store.load()
        store.apply([enrol(), enrol(HATS), grant(60), grant(50, line_item=HATS), take(1)])
        with LedgerView.open(url) as view:
            counts = [len(list(view.rows(some))) for some in ([SHOES], [HATS], [HATS, SHOES], [])]

    assert [2, 1, 3, 0] == counts


def test_books_that_are_not_there(tmp_path: Path) -> None:
    """Nothing is made by looking."""
    with pytest.raises(StoreError, match="there are no books"):
        LedgerView.open(sqlite_url(tmp_path))
    with pytest.raises(ConfigError):
        LedgerView.open("mysql://x/y")

    assert [] == list(tmp_path.iterdir())


def test_books_of_another_version(tmp_path: Path) -> None:
    """They are refused, and so is a file of something else."""
    path = tmp_path / "ledger.db"
    LedgerStore.open(sqlite_url(tmp_path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = 99 WHERE name = 'version'")
    connection.close()
    with pytest.raises(StoreCorrupt, match="books of version 99"):
        LedgerView.open(f"sqlite:///{path}")
    path.write_bytes(b"no database at all, just text" * 100)
    with pytest.raises(StoreCorrupt):
        LedgerView.open(f"sqlite:///{path}")
