"""The books on disk, on both engines: the same state after every batch, restart and crash."""

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from rtb.base.errors import ConfigError, InvariantError, StoreCorrupt, StoreError
from rtb.ledger import audit
from rtb.ledger.accounts import Balance, State
from rtb.ledger.changes import Entry
from rtb.ledger.commands import (
    Command,
    Enrol,
    Expire,
    Flight,
    Forget,
    Grant,
    Outcome,
    Post,
    Scope,
    SetLimit,
    Take,
)  # fmt: skip
from rtb.stores.ledger_sql import LedgerStore
from tests.ledger.books import (
    ADVERTISER,
    CAMPAIGN,
    EUR,
    HATS,
    LATER,
    SHOES,
    Books,
    T,
    adjust,
    bid,
    enrol,
    give,
    grant,
    limit,
    post,
    take,
    together,
    void,
)  # fmt: skip
from tests.ledger.test_oracle import chaos, chaos_start
from tests.ledger.test_takes import no_old_marks
from tests.stores.postgres import sqlite_url, start_or_skip

ROOT = Path(__file__).parents[2]
START = (enrol(), enrol(HATS), limit(Scope.LINE_ITEM, SHOES, 100))


def opened(url: str) -> LedgerStore:
    store = LedgerStore.open(url, lock_wait_ms=0)
    store.load()
    return store


def kept(state: State) -> State:
    """A state without what stores do not keep in memory."""
    for shown in (state.settled, state.spent, state.references):
        shown.clear()
    return state


def gathered(batch: list[Command]) -> Iterator[Command]:
    """A batch whose bids come first, together."""
    yield together(*(one for one in batch if isinstance(one, Take)))
    yield from (one for one in batch if not isinstance(one, Take))


def batches(commands: Iterator[Command], size: int) -> Iterator[list[Command]]:
    while batch := list(islice(commands, size)):
        yield batch


def test_a_restart_changes_nothing(url: str) -> None:
    """After a bad day in batches, restarted in between: outcomes, state, rows as in memory."""
    books = Books(*chaos_start())
    chance = random.Random(2)
    store = opened(url)
    store.apply(chaos_start())
    for number, batch in enumerate(batches(chaos(seed=9, count=6_000), 400)):
        commands = list(gathered(batch)) if number % 3 else batch
        expected = [books.told(command) for command in commands]
        applied = store.apply(commands, {"w0": number * 7})
        assert [outcome for outcome, _ in expected] == applied.outcomes
        assert [apart for _, apart in expected if apart] == [applied.apart] * bool(applied.apart)
        no_old_marks(books.state)
        if chance.random() < 0.3:
            assert [] == store.audit()
            store.close()
            store = opened(url)
        assert kept(books.copy().state) == store.state
    assert [] == store.audit()
    assert store.state.pages
    rows = [row for _, row in store.rows(count=100_000)]
    assert [] == audit.compare("rows", audit.sums_of(books.rows), audit.sums_of(rows))
    bills = [row for row in books.rows if row.entry is Entry.POST and row.bid]
    assert [row[1:] for row in bills] == [
        row[1:] for row in rows if row.entry is Entry.POST and row.bid
    ]
    store.close()


def test_a_restart_returns_positions(url: str) -> None:
    """Journals go on behind what was applied; a position cannot be applied again."""
    with opened(url) as store:
        store.apply(START, {"w0": 5, "w1": 9})
        store.apply([grant(50)], {"w0": 6})
        with pytest.raises(InvariantError, match="w0"):
            store.apply([grant(50)], {"w0": 6})
    with LedgerStore.open(url) as store:
        state, positions = store.load()
        assert {"w0": 6, "w1": 9} == positions
        assert 50 == state.available(Scope.LINE_ITEM, SHOES)[0]


def test_marks_and_references_survive(url: str) -> None:
    """A bill, a loss, a forgotten bid and a correction are known after a restart."""
    with opened(url) as store:
        store.apply([*START, grant(90)])
        store.apply([take(1), take(2), take(3), post(1, 7), void(2), adjust("a", 3), void(5)])
        store.apply([Expire(T + 300)])
    with opened(url) as store:
        commands = [post(1, 7), post(2, 7), post(3, 6), adjust("a", 3), take(1), take(5)]
        assert [
            Outcome.DUPLICATE, Outcome.LATE, Outcome.LATE, Outcome.DUPLICATE, Outcome.DUPLICATE,
            Outcome.TAKEN_SETTLED,
        ] == store.apply(commands).outcomes  # fmt: skip
        assert [Outcome.FORGOTTEN] == store.apply([Forget(T + 1)]).outcomes
        assert [Outcome.TOO_OLD] * 2 == store.apply([post(1, 7), post(9)]).outcomes
    with opened(url) as store:
        assert [Outcome.TOO_OLD, Outcome.NOTHING] == store.apply([post(1, 7), Forget(T)]).outcomes
        assert [] == store.audit()


def test_days_long_past_are_not_loaded(url: str) -> None:
    """They are summed up in the limits that have no days, and come back whole for a correction."""
    daily = limit(Scope.CAMPAIGN_DAY, CAMPAIGN, 60)
    past = [
        *START, daily, grant(40, 5), take(1), post(1, 7), give(), grant(9, line_item=HATS),
        give(line_item=HATS),
        take(1, line_item=HATS, time_s=LATER), Forget(T + 20 * 86_400),
    ]  # fmt: skip
    now = T + 20 * 86_400
    later = [
        grant(10, at_s=now), adjust("a", 51), adjust("b", 8), adjust("c", -4), adjust("d", -62),
        grant(3), post(1, 5, line_item=HATS, time_s=LATER), give(), grant(60, at_s=now),
    ]  # fmt: skip
    books = Books(*past)
    with opened(url) as store:
        store.apply(past)
    with opened(url) as store:
        assert [3] == list(store.state.accounts)
        for scope, key in (
            (Scope.LINE_ITEM, SHOES),
            (Scope.FLIGHT, 77),
            (Scope.CAMPAIGN, CAMPAIGN),
        ):
            assert books.state.available(scope, key) == store.state.available(scope, key)
        expected = [books(command) for command in later]
        assert expected == store.apply(later).outcomes
        assert kept(books.copy().state) == in_order(store.state)
        assert [] == store.audit()
    assert Outcome.ADJUSTED_OVER in expected
    with opened(url) as store:
        assert books.state.available(Scope.LINE_ITEM, SHOES) == store.state.available(
            Scope.LINE_ITEM, SHOES
        )


def in_order(state: State) -> State:
    """A state whose accounts and days were loaded in another order, as if from the first."""
    for line in state.lines.values():
        line.numbers.sort()
    for one in state.limits.values():
        one.days.sort()
    return state


def test_what_is_shown(url: str) -> None:
    """Rows by line item, day and bid, in pages; balances by scope; what a bid cost."""
    with opened(url) as store:
        granted = store.apply([*START, grant(50), grant(40, line_item=HATS), grant(9, at_s=LATER)])
        shown = [(row.entry, row.worker, row.nanos) for row in granted.rows]
        assert [(Entry.GRANT, 0, 50), (Entry.GRANT, 0, 40), (Entry.GRANT, 0, 9)] == shown
        store.apply([take(1), take(2), post(1, 7), adjust("a", 2), adjust("b", -1)])
        day = store.state.accounts[1].day

        assert [1, 3] == [number for number, row in store.rows(line_item=SHOES)][:2]
        assert [1, 2] == [number for number, row in store.rows(day=day, count=2)]
        assert [3] == [number for number, row in store.rows(line_item=SHOES, day=day + 1)]
        assert [(Entry.POST, 7)] == [(row.entry, row.nanos) for _, row in store.rows(bid=bid(1))]
        assert store.rows(after=2) == store.rows()[2:]
        assert {bid(1): 7} == store.booked([bid(1), bid(2)])

        nanos, units = store.balances(Scope.LINE_ITEM_DAY, SHOES, day)
        assert [-48, 30, 10, 8, 0, 0] == nanos
        assert 98 == units[Balance.GRANTED]
        for scope, key, granted_nanos in [
            (Scope.LINE_ITEM, SHOES, 39), (Scope.FLIGHT, 77, 79), (Scope.CAMPAIGN, CAMPAIGN, 79),
            (Scope.ADVERTISER, ADVERTISER, 79), (Scope.CAMPAIGN, 1, 0),
        ]:  # fmt: skip
            assert granted_nanos == store.balances(scope, key)[0][Balance.GRANTED]
        assert 70 == store.balances(Scope.CAMPAIGN_DAY, CAMPAIGN, day)[0][Balance.GRANTED]


def test_descriptions_survive(url: str) -> None:
    """Names in any script, keys of 64 bits, limits beyond 64 bits and the last of each limit."""
    name = 'Ключ "a\\b" / {null, ナイン} '
    start = Enrol(T, SHOES, (1 << 64) - 2, 1 << 63, "Asia/Tokyo", EUR, name,
                  (Flight((1 << 64) - 3, 0, 1 << 40),))  # fmt: skip
    with opened(url) as store:
        store.apply([start, SetLimit(T, Scope.ADVERTISER, 1 << 63, 10**30, 7)])
        store.apply([SetLimit(T, Scope.ADVERTISER, 1 << 63, 10**29), grant(1 << 50)])
        before = store.state
        assert 10**29 - (1 << 50) == before.available(Scope.ADVERTISER, 1 << 63)[0]
    with opened(url) as store:
        assert before == store.state
        assert name == store.state.lines[SHOES].name


def test_one_writer(url: str) -> None:
    """Who loads last writes; the former is refused for good, and nothing of it is booked."""
    with opened(url) as former, LedgerStore.open(url) as store:
        former.apply(START)
        store.load()
        for _ in range(2):
            with pytest.raises(StoreError, match="took over") as caught:
                former.apply([grant(10)])
            assert not caught.value.transient
        with pytest.raises(StoreError, match="took over"):
            former.load()
        assert [Outcome.GRANTED_PART] == store.apply([grant(1_000)]).outcomes
        assert 1 == len(former.rows())


def test_books_of_one_node(url: str) -> None:
    """Another node's keeper cannot take them over; nor does it end the one that has them."""
    with LedgerStore.open(url) as ours, LedgerStore.open(url) as other:
        assert ours.owner() is None
        ours.load(3)
        with pytest.raises(StoreError, match="node 3, not of 4") as caught:
            other.load(4)
        assert not caught.value.transient
        ours.apply(START)
        assert 3 == other.owner()
    with LedgerStore.open(url) as again:
        again.load(3)


def test_nothing_before_load(url: str) -> None:
    """Who has not read the books cannot change them."""
    with LedgerStore.open(url) as store:
        with pytest.raises(InvariantError, match="not loaded"):
            store.apply([grant(1)])
        with pytest.raises(InvariantError, match="not loaded"):
            assert store.state


def test_audit_finds_a_changed_nano(url: str) -> None:
    """In a balance, a hold and a lease alike."""
    with opened(url) as store:
        store.apply([*START, grant(50), take(1), take(2), post(1, 7)])
        assert [] == store.audit()
        store.close()
        engine = create_engine(url.replace("postgresql:", "postgresql+pg8000:"))
        with engine.begin() as connection:
            for statement in (
                "UPDATE balances SET posted_nanos = posted_nanos + 1",
                "UPDATE holds SET nanos = nanos - 2",
                "UPDATE leases SET units = 0",
            ):
                connection.execute(text(statement))
        engine.dispose()
        assert [("rows", 7, 8), ("holds", 8, 10), ("leases", 0, 98)] == [
            (one.what, one.expected, one.found) for one in store.audit()
        ]


def test_other_versions_are_refused(url: str) -> None:
    """Books of a later program are not touched."""
    LedgerStore.open(url).close()
    engine = create_engine(url.replace("postgresql:", "postgresql+pg8000:"))
    with engine.begin() as connection:
        connection.execute(text("UPDATE meta SET value = 3 WHERE name = 'version'"))
    engine.dispose()
    with pytest.raises(StoreCorrupt, match="version 3"):
        LedgerStore.open(url)


def test_a_fault_in_a_batch_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the tables and not in memory; the same batch may be tried again."""
    with opened(url) as store:
        store.apply(START, {"w0": 1})
        before = store.rows()
        with monkeypatch.context() as patch:
            patch.setattr(store, "_purge", fail)
            with pytest.raises(StoreError, match="power"):
                store.apply([grant(50), take(1), Forget(T)], {"w0": 2})
        assert before == store.rows()
        assert [Outcome.GRANTED, Outcome.TAKEN] == store.apply([grant(50), take(1)],
                                                               {"w0": 2}).outcomes  # fmt: skip
        assert [] == store.audit()


def fail(*_: object) -> None:
    raise StoreError("power failure")


def test_a_long_rest_is_forgotten_in_parts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks go some at a time, and are too old from the first moment."""
    monkeypatch.setattr("rtb.stores.ledger_sql.PURGE_ROWS_MAX", 4)
    with opened(url) as store:
        store.apply([*START, grant(100), *(take(number) for number in range(9))])
        store.apply([void(number) for number in range(9)])
        store.apply([Forget(T + 1)])
        for _ in range(3):
            assert [Outcome.TOO_OLD] * 9 == store.apply([post(n) for n in range(9)]).outcomes
    assert [(0,)] == query(url, "SELECT COUNT(*) FROM settled")


def query(url: str, statement: str) -> list[tuple[int, ...]]:
    engine = create_engine(url.replace("postgresql:", "postgresql+pg8000:"))
    with engine.connect() as connection:
        found = [tuple(row) for row in connection.execute(text(statement))]
    engine.dispose()
    return found


# -- one engine alone ------------------------------------------------------------------------------


def test_sqlite_is_synchronous(tmp_path: Path) -> None:
    """Each connection writes ahead and waits for the disk."""
    with opened(sqlite_url(tmp_path)) as store, store._transaction() as connection:
        assert "wal" == connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        assert 2 == connection.exec_driver_sql("PRAGMA synchronous").scalar()
        assert 8_000 == connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar()
        assert -32_768 == connection.exec_driver_sql("PRAGMA cache_size").scalar()


def test_locked(tmp_path: Path) -> None:
    """A lock is a passing fault, in which nothing happens; then the same batch goes through."""
    with opened(sqlite_url(tmp_path)) as store:
        store.apply(START)
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked") as caught:
            store.apply([grant(50)], {"w0": 1})
        assert caught.value.transient
        assert {} == store.state.leases
        other.execute("ROLLBACK")
        other.close()
        assert [Outcome.GRANTED] == store.apply([grant(50)], {"w0": 1}).outcomes


def test_full(tmp_path: Path) -> None:
    """A full disk is a passing fault; what was booked stays, and it goes on when there is room."""
    with opened(sqlite_url(tmp_path)) as store:
        store.apply([*START, grant(100)])
        [(pages,)] = query(sqlite_url(tmp_path), "PRAGMA page_count")
        with store._transaction() as connection:
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        many = [take(number, 0) for number in range(5_000)]
        with pytest.raises(StoreError, match="full") as caught:
            store.apply(many)
        assert caught.value.transient
        with store._transaction() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count=100000")
        store.apply(many)
        assert 5_000 == len(store.state.holds)
        assert [] == store.audit()


def test_refusals(tmp_path: Path) -> None:
    """URLs that name no engine of ours, a folder that is not there, a file that is no database."""
    for wrong in ("mysql://x/y", "ledger.db", "redis://x"):
        with pytest.raises(ConfigError, match="ledger"):
            LedgerStore.open(wrong)
    with pytest.raises(StoreError):
        LedgerStore.open(sqlite_url(tmp_path / "absent"))
    (tmp_path / "ledger.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreCorrupt):
        LedgerStore.open(sqlite_url(tmp_path))


PROGRAM = """
import sys
from itertools import count
from rtb.ledger.commands import Scope
from rtb.stores.ledger_sql import LedgerStore
from tests.stores.test_ledger_sql import killed_batch, START
store = LedgerStore.open(sys.argv[1])
_, positions = store.load()
for number in count(positions.get("w0", -1) + 1):
    store.apply(killed_batch(number), {"w0": number})
    print(number, flush=True)
"""


def killed_batch(number: int) -> list[Command]:
    """A batch that depends on nothing but its number."""
    if number == 0:
        return [*START, limit(Scope.LINE_ITEM, SHOES, 10**12)]
    time_s = T + number
    takes = [Take(bid(n, 0, time_s), SHOES, 10, time_s + 3) for n in range(60)]
    alone = takes[50:]
    bills = [Post(time_s, one.bid, SHOES, 7, 10, 10) for one in takes[::3]]
    grants = [Grant(time_s, SHOES, 0, time_s, 700, 60, time_s + 60)]
    return [*grants, together(*takes[:50]), *alone, *bills, Expire(time_s), Forget(time_s - 5)]


def kill_while_applying(url: str, after: int) -> int:
    """Kills a writer some batches on; returns the last batch that it said was applied."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        lines = [int(next(writer.stdout)) for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        lines += [int(line) for line in writer.stdout]
    return lines[-1]


def check_prefix(url: str, said: int, replay: Callable[[int], Books]) -> None:
    """The database holds whole batches: those said to be applied, and at most one more."""
    with LedgerStore.open(url) as store:
        state, positions = store.load()
        assert positions["w0"] in (said, said + 1)
        assert kept(replay(positions["w0"]).state) == state
        assert [] == store.audit()


def replay(last: int) -> Books:
    return Books(*(command for number in range(last + 1) for command in killed_batch(number)))


@pytest.mark.server
def test_killed_while_applying(tmp_path: Path) -> None:
    """kill -9 at any moment leaves a whole number of batches, again and again."""
    for after in (3, 9, 4):
        said = kill_while_applying(sqlite_url(tmp_path), after)
        check_prefix(sqlite_url(tmp_path), said, replay)


@pytest.mark.server
def test_killed_postgres() -> None:
    """The server dies under us: a passing fault, and after its return the books are whole."""
    server = start_or_skip()
    try:
        url = server.url()
        said = kill_while_applying(url, 3)
        check_prefix(url, said, replay)
        with LedgerStore.open(url) as store:
            _, positions = store.load()
            last = positions["w0"]
            server.kill()
            with pytest.raises(StoreError) as caught:
                store.apply(killed_batch(last + 1), {"w0": last + 1})
            assert caught.value.transient
            server.start()
            store.apply(killed_batch(last + 1), {"w0": last + 1})
        check_prefix(url, last + 1, replay)
    finally:
        server.stop()
