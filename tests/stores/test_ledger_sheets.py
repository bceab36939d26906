"""Rows that are sums, on both engines: read back as what a batch did."""

import pytest
from sqlalchemy import create_engine, update

from rtb.base.errors import StoreCorrupt
from rtb.ledger.changes import Entry, Row
from rtb.ledger.commands import Expire
from rtb.stores import ledger_schema as schema
from rtb.stores.ledger_pages import decode, encode
from rtb.stores.ledger_sheets import SUMMED
from rtb.stores.ledger_view import LedgerView
from tests.ledger.books import HATS, SHOES, T, enrol, give, grant, post, take, together
from tests.stores.test_ledger_sql import opened, query

BATCHES = [
    [enrol(), enrol(HATS), grant(90), grant(50, line_item=HATS)],
    [together(take(1), take(2, line_item=HATS), take(3))],
    [post(1, 7), together(take(4)), grant(20)],
    [Expire(T + 300), give(), give(line_item=HATS)],
]


def told(rows: list[tuple[int, Row]]) -> list[tuple[int, int, Entry, int, int, int]]:
    """What is told of each row here."""
    return [
        (number, row.account, row.entry, row.nanos, row.units, row.moves) for number, row in rows
    ]


ALL = [
    (1, 1, Entry.GRANT, 90, 100, 1), (2, 2, Entry.GRANT, 50, 100, 1),
    (3, 1, Entry.TAKE, 20, 2, 2), (4, 2, Entry.TAKE, 10, 1, 1),
    (5, 1, Entry.POST, 7, 1, 1), (6, 1, Entry.GRANT, 20, 100, 1),
    (7, 1, Entry.POST, 3, 0, 1), (8, 1, Entry.TAKE, 10, 1, 1),
    (9, 2, Entry.EXPIRE, 10, 1, 1), (10, 1, Entry.EXPIRE, 20, 2, 2),
    (11, 1, Entry.RETURN, 80, 197, 1), (12, 2, Entry.RETURN, 40, 99, 1),
]  # fmt: skip


def test_rows_and_sums_in_one_order(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, whole or in pages of any size, of all or of one line item; after a restart too."""
    monkeypatch.setattr("rtb.stores.ledger_sheets._PAGE_SHEETS", 2)
    for batch in BATCHES:
        with opened(url) as store:
            store.apply(batch)
    with opened(url) as store:
        assert ALL == told(store.rows())
        assert [one for one in ALL if one[1] == 1] == told(store.rows(line_item=SHOES))
        for count in (1, 2, 5):
            pages, after = [], 0
            while page := store.rows(after=after, count=count):
                assert len(page) <= count
                pages += page
                after = page[-1][0]
            assert ALL == told(pages)
        assert [] == store.audit()
    assert [(4,)] == query(url, "SELECT COUNT(*) FROM rows")
    assert [(3,)] == query(url, "SELECT COUNT(*) FROM sheets")
    monkeypatch.setattr("rtb.stores.ledger_view._PAGE_ROWS", 3)
    with LedgerView.open(url) as view:
        assert ALL == told(list(view.rows()))
        assert [one for one in ALL if one[1] == 2] == told(list(view.rows([HATS])))


def test_audit_finds_a_changed_sheet(url: str) -> None:
    """A nano more is a difference in both balances; a body that cannot be read is corrupt."""
    with opened(url) as store:
        for batch in BATCHES[:2]:
            store.apply(batch)
        found = decode(query(url, "SELECT body FROM sheets")[0][0], SUMMED, "sheet").copy()  # type: ignore[arg-type]
        found["nanos"][0] += 1
        change(url, encode(found))
        assert [("account 1 granted nanos", 69, 70), ("account 1 pending nanos", 21, 20)] == [
            (one.place, one.expected, one.found) for one in store.audit()
        ]
        change(url, b"no sheet")
        with pytest.raises(StoreCorrupt, match="sheet 4"):
            store.audit()
        with pytest.raises(StoreCorrupt, match="sheet 4"):
            store.rows()


def change(url: str, body: bytes) -> None:
    engine = create_engine(url.replace("postgresql:", "postgresql+pg8000:"))
    with engine.begin() as connection:
        connection.execute(update(schema.SHEETS).values(body=body))
    engine.dispose()
