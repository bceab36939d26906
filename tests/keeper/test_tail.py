"""Reading several journals in turn, and telling the dead from the silent."""

import os
import shutil
from pathlib import Path

import pytest

from rtb.base.errors import ConfigError
from rtb.base.events import Kind
from rtb.keeper.tail import Tail, Tails, bury, check
from rtb.ledger.accounts import Balance
from rtb.stores.journal_read import first_sequence, retire
from rtb.stores.journal_write import Journal
from tests.keeper.node import SIZES, Bid, Node, line
from tests.keeper.records import bid_body, claims, notice_body
from tests.stores.journals import COMPILED, Disk

BODY = bid_body(claims(9 << 32, 7), 5, 4_000)


def _journal(folder: Path, worker: int, records: int = 0) -> Journal:
    made = Journal.open(folder, worker, SIZES, COMPILED, Disk(salt=worker + 5).world())
    for _ in range(records):
        made.append(Kind.BID, BODY)
    made.turn()
    return made


def _tails(folder: Path, positions: dict[str, int], *workers: int) -> Tails:
    tails = Tails(lambda worker: Tail(folder, 0, worker, COMPILED, positions))
    for worker in workers:
        tails.of(worker)
    return tails


def test_a_busy_journal_keeps_no_other_waiting(tmp_path: Path) -> None:
    """Each gets its share of a batch; what one leaves, those after it may have."""
    journals = [_journal(tmp_path, 0, 50), _journal(tmp_path, 1, 3)]
    tails = _tails(tmp_path, {}, 0, 1)
    counts: dict[int, list[int]] = {0: [], 1: []}
    for _ in range(4):
        found = {tail.worker: len(records) for tail, records, *_ in tails.read(20, 9_000)}
        for worker, seen in counts.items():
            seen.append(found.get(worker, 0))

    assert [3, 0, 0, 0] == counts[1]
    assert 50 == sum(counts[0])
    assert max(counts[0]) <= 20
    tails.close()
    for journal in journals:
        journal.close()


def test_the_horizon_is_that_of_the_laggard(tmp_path: Path) -> None:
    """A journal that is read to its end is read up to now; else to its last record's time."""
    journal = _journal(tmp_path, 0, 10)
    tails = _tails(tmp_path, {}, 0, 1)
    assert 0 == tails.horizon_ms(9_000)
    tails.read(5, 9_000)
    assert 4_000 == tails.horizon_ms(9_000)
    tails.read(100, 9_500)
    assert 9_500 == tails.horizon_ms(9_500)
    tails.close()
    journal.close()


def test_a_tail_goes_on_where_the_books_are(tmp_path: Path) -> None:
    """By the journal's identity: one that was made anew is read from its start."""
    journal = _journal(tmp_path, 0, 10)
    first = _tails(tmp_path, {}, 0)
    first.read(7, 1)
    name = first.of(0).name
    second = _tails(tmp_path, {name: 7}, 0)
    third = _tails(tmp_path, {"0/0/00000000deadbeef": 7}, 0)

    assert [8, 9, 10] == [one[0] for one in second.read(100, 1)[0].records]
    assert 10 == len(third.read(100, 1)[0].records)
    for tails in (first, second, third):
        tails.close()
    journal.close()


def test_only_the_dead_are_buried(tmp_path: Path) -> None:
    """Who holds the lock lives; without it, all that was appended becomes readable."""
    journal = _journal(tmp_path, 0, 2)
    assert not bury(tmp_path, 0, COMPILED)
    journal.append(Kind.BID, BODY)  # no commit follows
    tail = _tails(tmp_path, {}, 0).of(0)
    assert 2 == tail.durable_sequence()
    journal._lock_file = _unlocked(journal._lock_file)

    assert bury(tmp_path, 0, COMPILED)
    assert 3 == tail.durable_sequence()
    assert bury(tmp_path, 77, COMPILED)
    tail.close()


def _unlocked(file: int) -> int:
    """What the system does for a process that was killed."""
    os.close(file)
    return -1


# -- another node's --------------------------------------------------------------------------------


def _sold(node: Node, worker: int) -> None:
    """A worker bids on line item 7 until it may, and is billed; another bid stays in flight."""
    seller = node.start(worker)
    bids = []
    while len(bids) < 2:
        node.turn()
        bid = seller.bid(7)
        bids += [bid] if bid is not None else []
    seller.notice(Kind.BILL, bids[0], 700)
    node.turns(3)


def _bid(node: Node) -> Bid:
    """One of the first worker, which the books know."""
    worker, count = node.workers[0], len(node.sent)
    assert worker is not None
    while len(node.sent) == count:
        worker.bid(7)
        node.turn()
    node.turn()
    return node.sent[-1]


def test_the_journal_of_another_node_is_not_booked(tmp_path: Path) -> None:
    """A copy under a worker's number stops that tail, with both numbers and the place; bills of the
    other workers are booked, and their holds expire."""
    other = Node(tmp_path / "other", number=2)
    other.offer(line(7, 10_000_000))
    _sold(other, 0)
    other.close()
    node = Node(tmp_path / "node")
    shutil.copytree(other.journals / "0", node.journals / "1")
    node.offer(line(7, 10_000_000))
    _sold(node, 0)
    held = node.balance(Balance.PENDING, 7)
    node.turn(61_000)
    node.turns(3)

    said = f"a journal of node 2, not of node 0 - at `{node.journals / '1'}`"
    assert {1: said} == node.keeper.tails.faults()
    assert (700, 1000, 0) == (
        node.balance(Balance.POSTED, 7),
        held,
        node.balance(Balance.PENDING, 7),
    )
    assert not node.letters.exists()
    with pytest.raises(ConfigError, match="node 2, not of node 0"):
        check(node.journals, 0, COMPILED)
    check(other.journals, 2, COMPILED)
    node.close()


def test_bids_tell_whose_a_journal_is(tmp_path: Path) -> None:
    """Notices of other nodes' bids do not, and neither does what no bid can be read from."""
    foreign = claims(2 << 24 | 9 << 32, 7)
    journal = _journal(tmp_path, 0)
    journal.append(Kind.BILL, notice_body(foreign, 4_000, 700))
    journal.append(Kind.BID, b"broken")
    journal.turn()
    tails = _tails(tmp_path, {}, 0)

    assert 2 == len(tails.read(100, 1)[0].records)
    check(tmp_path, 0, COMPILED)
    journal.append(Kind.BID, bid_body(foreign, 5, 4_000))
    journal.turn()
    with pytest.raises(ConfigError):
        check(tmp_path, 0, COMPILED)
    tails.close()
    journal.close()


def test_damage_does_not_hide_whose_a_journal_is(tmp_path: Path) -> None:
    """The first bid that can be read tells; the damage itself is the tail's to say."""
    journal = _journal(tmp_path, 0, 1)
    journal.append(Kind.BID, bid_body(claims(2 << 24 | 9 << 32, 7), 5, 4_000))
    journal.turn()
    segment = journal._segment.map
    segment[segment.find(BODY) + 3] ^= 1
    with pytest.raises(ConfigError):
        check(tmp_path, 0, COMPILED)
    check(tmp_path, 2, COMPILED)
    (tmp_path / "0" / "durable").write_bytes(b"")
    check(tmp_path, 0, COMPILED)  # who opens it says what is wrong
    journal.close()


@pytest.mark.parametrize("size", [0, 9, None])
def test_a_mark_that_was_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int | None
) -> None:
    """It is made anew before anything starts, and said once: what was booked stays as it is, and a
    bill that was answered and not read is booked, once."""
    node = Node(tmp_path, 2)
    node.offer(line(7, 1_000_000))
    node.start(1)
    _sold(node, 0)
    held = _bid(node)
    unread = _bid(node)
    worker = node.workers[0]
    assert worker is not None
    worker.notice(Kind.BILL, unread, 800)
    node.commit()
    posted, pending = node.balance(Balance.POSTED, 7), node.balance(Balance.PENDING, 7)
    assert 0 < posted
    assert 0 < pending
    for each in node.workers:
        assert each is not None
        each.kill()
    node.kill_keeper()
    mark = node.journals / "0" / "durable"
    mark.unlink() if size is None else os.truncate(mark, size)
    for _ in range(2):
        check(node.journals, node.number, COMPILED)
    node.start_keeper()
    node.start_all()
    node.turns(5)

    assert 1 == caplog.text.count("is made anew")
    assert posted + 800 == node.balance(Balance.POSTED, 7)
    assert pending - unread.nanos == node.balance(Balance.PENDING, 7)
    other = node.workers[1]
    assert other is not None
    other.notice(Kind.BILL, held, 700)
    node.turns(2)
    assert posted + 1_500 == node.balance(Balance.POSTED, 7)
    assert 0 == node.balance(Balance.OVER, 7)
    assert [] == node.books.audit()
    node.close()


def test_a_mark_that_was_lost_after_records_were_retired(tmp_path: Path) -> None:
    """The first ones are gone, booked under the journal's former name: it goes on with the rest.
    Of books that are older than what is gone it does not."""
    journal = _journal(tmp_path, 0, 100)
    while journal.durable_sequence < 2_000:
        for _ in range(100):
            journal.append(Kind.BID, BODY)
        journal.turn()
    journal.close()
    assert [1] == retire(tmp_path, 0, 2_000, -1, 1 << 40)[:1]
    oldest = first_sequence(tmp_path, 0) - 1
    for booked, read in ((oldest, 1), (oldest - 1, 0)):
        tail = Tail(tmp_path, 0, 0, COMPILED, {"0/0/aa": booked, "0/1/bb": 1 << 40})
        assert read == len(tail.read(1, 1_000))
        assert bool(tail.fault) != bool(read)
        tail.close()
