"""Bids that were taken together, on both engines: after a restart they are what they were."""

import zlib
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from rtb.base.errors import StoreCorrupt
from rtb.ledger.commands import Command, Expire, Forget, Outcome, Scope, Take
from rtb.ledger.pages import HELD
from rtb.stores.ledger_pages import decode
from rtb.stores.ledger_sql import LedgerStore
from rtb.stores.ledger_view import LedgerView
from tests.ledger.books import (
    HATS,
    SHOES,
    Books,
    T,
    bid,
    enrol,
    grant,
    holds_of,
    limit,
    post,
    take,
    together,
    void,
)  # fmt: skip
from tests.stores.postgres import sqlite_url
from tests.stores.test_ledger_sql import kept, opened, query

O = Outcome  # noqa: E741
START = (enrol(), enrol(HATS), limit(Scope.LINE_ITEM, SHOES, 1_000), grant(200))


def execute(url: str, statement: str) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+pg8000:"))
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def counts(url: str) -> dict[str, int]:
    """Rows of the tables that bids are in."""
    names = ("packs", "losses", "pages", "holds", "settled")
    found = {name: query(url, f"SELECT COUNT(*) FROM {name}")[0][0] for name in names}
    return {name: count for name, count in found.items() if count}


def test_a_bid_that_is_not_won_leaves_no_row(url: str) -> None:
    """A row a batch while it is in flight and for losses, one a page when it has expired, none when
    forgotten."""
    with opened(url) as store:
        store.apply([*START, together(*(take(number) for number in range(9)))])
        store.apply([together(*(take(number) for number in range(9, 12))), post(0, 7)])
        store.apply([void(1), void(2), void(11)])
        store.apply([void(3), void(2)])
        assert {"packs": 2, "losses": 2, "settled": 1} == counts(url)
        assert [O.EXPIRED] == store.apply([Expire(T + 300)]).outcomes
        assert {"pages": 1, "settled": 1} == counts(url)
        store.apply([Forget(T + 1)])
        assert {} == counts(url)
        assert [] == store.audit()


def steps() -> list[list[Command]]:
    """Batches in which a page is written, billed, expired in parts, and asked for again."""
    soon = [Take(bid(number), SHOES, 10, T + 5) for number in range(4)]
    late = [Take(bid(number), SHOES, 10, T + 50, 2) for number in range(4, 8)]
    return [
        [*START, void(8), post(9, 4, reserve=0), post(10, 4)],
        [together(*soon), post(0, 7), void(1)],
        [together(*late, take(8), take(9), take(10)), post(4, 7)],
        [void(0), post(0, 7), post(1, 5), take(2), post(8, 3)],
        [Expire(T + 6)],
        [post(2, 5), void(3), take(3), post(5, 6), together(Take(bid(11), SHOES, 10, T + 6))],
        [together(Take(bid(12), SHOES, 10, T + 60), take(2), take(5), take(11)), void(6)],
        [Expire(T + 60), Expire(T + 61)],
        [post(7, 3), post(12, 3), post(12, 3), void(6), take(7), together(take(7), take(13))],
        [post(13, 9), post(5, 6), Expire(T + 400)],
        [Forget(T + 1), post(5, 6), post(13, 9), together(take(7))],
    ]


def test_restarts_between_all_batches(url: str) -> None:
    """State and outcomes are those of books that never stopped."""
    books = Books()
    for number, batch in enumerate(steps()):
        expected = [books.told(command) for command in batch]
        with opened(url) as store:
            applied = store.apply(batch, {"w0": number})
            assert [outcome for outcome, _ in expected] == applied.outcomes
            assert [one for _, one in expected if one] == [applied.apart] * bool(applied.apart)
            assert [] == store.audit()
        with opened(url) as store:
            assert kept(books.copy().state) == store.state
            assert books.state.next_due_s() == store.state.next_due_s()
    assert {} == books.state.pages


def test_a_mark_lives_as_long_as_its_page(url: str) -> None:
    """A billed bid is not open again because its mark could be forgotten."""
    with opened(url) as store:
        store.apply([*START, together(take(1), take(2)), post(1, 7)])
        store.apply([Forget(T + 1)])
    with opened(url) as store:
        assert {bid(2)} == set(holds_of(store.state))
        assert [] == store.audit()
        assert [O.TOO_OLD, O.EXPIRED] == store.apply([post(1, 7), Expire(T + 300)]).outcomes
        store.apply([Forget(T + 2)])
    assert {} == counts(url)


def test_audit_finds_a_page_that_is_changed(url: str) -> None:
    """A pack that is gone is a difference; one that cannot be read is corrupt."""
    with opened(url) as store:
        store.apply([*START, together(take(1), take(2))])
        execute(url, "DELETE FROM packs")
        with LedgerView.open(url) as view:
            assert [("holds", 0, 20), ("holds", 0, 2)] == [
                (one.what, one.expected, one.found) for one in view.audit()
            ]
        store.apply([void(1)])
        with pytest.raises(StoreCorrupt, match="no such page"):
            store.audit()
    for body in (b"", b"no stream", zlib.compress(b"too short")):
        with pytest.raises(StoreCorrupt, match="pack 7"):
            decode(body, HELD, "pack 7")


def test_spent_pages_are_forgotten_in_parts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some at a time, and too old from the first moment."""
    monkeypatch.setattr("rtb.stores.ledger_sql.PURGE_ROWS_MAX", 2)
    with opened(url) as store:
        store.apply([*START, *(together(take(1, time_s=T + number)) for number in range(5))])
        store.apply([Expire(T + 400)])
        for left in (3, 1, 0):
            outcomes = store.apply([Forget(T + 9), post(1, 7)]).outcomes
            assert (left, O.TOO_OLD) == (counts(url).get("pages", 0), outcomes[1])


def test_books_without_pages_become_books_with(tmp_path: Path) -> None:
    """What the former program kept row by row goes on as it was."""
    url = sqlite_url(tmp_path)
    with opened(url) as store:
        store.apply([*START, take(1), take(2), post(1, 7)])
        before = store.rows()
        for number, row in before:
            values = (number, *(str(one) if isinstance(one, str) else int(one) for one in row))
            execute(url, f"INSERT OR IGNORE INTO rows VALUES {values}")
    for name in ("packs", "losses", "pages", "sheets"):
        execute(url, f"DROP TABLE {name}")
    execute(url, "UPDATE meta SET value = 1 WHERE name = 'version'")
    with pytest.raises(StoreCorrupt, match="version 1"):
        LedgerView.open(url)
    with opened(url) as store:
        outcomes = store.apply([together(take(3)), post(1, 7), post(2, 7), post(3, 7)]).outcomes
        assert [O.TAKEN, O.DUPLICATE, O.POSTED, O.POSTED] == outcomes
        assert [] == store.audit()
        assert (len(before), before) == (before[-1][0], store.rows()[: len(before)])
    LedgerStore.open(url).close()
