"""What a worker finds of its journal when it starts."""

import time
from pathlib import Path

import pytest

from rtb.base.events import Kind
from rtb.server.money import first_second
from rtb.stores.journal import FRAMES_AT, READABLE
from rtb.stores.journal_read import folder_of, segments
from rtb.stores.journal_write import Journal
from tests.keeper.records import bid_body, claims, notice_body

SECOND = 1_790_000_000


@pytest.fixture
def last(tmp_path: Path) -> int:
    """A journal with two bids; the sequence of the second one."""
    journal = Journal.open(tmp_path, 0)
    for number in range(2):
        body = bid_body(claims(number + 1, 7, 5), 5, SECOND * 1000 + number)
        sequence = journal.append(Kind.BID, body)
    journal.turn()
    journal.close()
    return sequence


def test_ids_begin_after_the_last_record(tmp_path: Path, last: int) -> None:
    """No second is used again whose ids the life before may have given away."""
    assert SECOND + 1 == first_second(tmp_path, 0, last, READABLE)
    assert 0 == first_second(tmp_path, 0, 0, READABLE)


@pytest.mark.parametrize("notices", [1, 1_500])
def test_ids_begin_after_the_last_bid(tmp_path: Path, last: int, notices: int) -> None:
    """A clock that was set back five minutes between a bid and what followed it does not lead a
    new process to give the ids of those five minutes away again."""
    journal = Journal.open(tmp_path, 0)
    for number in range(notices):
        body = notice_body(claims(number + 1, 7, 5), (SECOND - 300) * 1000)
        last = journal.append(Kind.LOSS, body)
        journal.turn()
    journal.close()

    assert SECOND + 1 == first_second(tmp_path, 0, last, READABLE)


def test_ids_begin_after_the_last_notice_where_no_bid_is_kept(tmp_path: Path) -> None:
    """Of a worker that only hears notices, or whose bids are of long ago."""
    journal = Journal.open(tmp_path, 0)
    last = journal.append(Kind.LOSS, notice_body(claims(1, 7, 5), SECOND * 1000))
    journal.turn()
    journal.close()

    assert SECOND + 1 == first_second(tmp_path, 0, last, READABLE)


def test_ids_begin_after_now_where_the_record_is_damaged(tmp_path: Path, last: int) -> None:
    """A worker whose last record cannot be read starts all the same, a second later."""
    (_, path), *_ = segments(folder_of(tmp_path, 0))
    data = bytearray(path.read_bytes())
    data[FRAMES_AT + 40 : FRAMES_AT + 300] = bytes(260)
    path.write_bytes(data)

    assert abs(first_second(tmp_path, 0, last, READABLE) - time.time()) < 60
