"""Counts for caps in a Redis that loses what it had acknowledged: the journals have it all."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from rtb.base.errors import StoreError
from rtb.base.events import Kind, bid_id
from rtb.keeper.caps import CapsKeeper
from rtb.profiles import codec
from rtb.profiles.record import counts_key
from rtb.stores.caps_board import CapsBoard, Sizes
from rtb.stores.counts_redis import RedisCounts
from rtb.stores.journal import Record
from tests.keeper.test_caps import LIFE, TABLE, Stretch, impression
from tests.stores.test_profiles_redis import Server, needs_redis

pytestmark = [pytest.mark.server, needs_redis]
NAME = "0/0/0abc"
PERSONS = 20


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, which keeps what it is told to save."""
    found = Server(tmp_path)
    yield found
    found.kill()


def counted(server: Server) -> list[int]:
    """Impressions of each person."""
    with redis.Redis.from_url(server.url, protocol=2) as raw:
        values = [raw.get(counts_key(person)) for person in range(1, PERSONS + 1)]
    return [
        codec.decode_counts(value).counts[LIFE].shown if value is not None else 0
        for value in values
    ]


@pytest.mark.parametrize("lost", ["a third", "all"])
def test_counts_that_were_lost_are_counted_again(tmp_path: Path, server: Server, lost: str) -> None:
    """Redis fails over to an old copy, or is flushed: the keeper does not count on from there, and
    the next one begins where the copy does, so everybody has been shown what he was shown."""
    now_ms = time.time_ns() // 1_000_000  # keys end by the server's clock
    bodies = [
        impression(one % PERSONS + 1, bid_id(now_ms // 1000, 0, 0, one), now_ms)
        for one in range(3 * PERSONS)
    ]
    records: list[Record] = [
        (number, int(Kind.IMPRESSION), body) for number, body in enumerate(bodies, start=1)
    ]
    board = CapsBoard.create(tmp_path / "run" / "caps", 1, Sizes(4, 64))
    keeper = CapsKeeper(RedisCounts(server.url), board, TABLE)
    keeper.apply([Stretch(NAME, 0, 20, records[:20])])
    with redis.Redis.from_url(server.url, protocol=2) as raw:
        raw.save()
        keeper.apply([Stretch(NAME, 20, 40, records[20:40])])
        assert [2] * PERSONS == counted(server)
        if lost == "all":
            raw.flushall()
    if lost == "a third":
        server.kill()
        server.start()

    faults = []
    while not faults or faults[-1].transient:  # the connection is gone, then the counts are
        with pytest.raises(StoreError) as told:
            keeper.apply([Stretch(NAME, 40, 60, records[40:])])
        faults.append(told.value)
    assert "counts were lost" in str(faults[-1])
    again = CapsKeeper(RedisCounts(server.url), board, TABLE)
    after = again.positions.get(NAME, 0)
    assert (0 if lost == "all" else 20) == after
    again.apply([Stretch(NAME, after, 60, records[after:])])

    assert [3] * PERSONS == counted(server)
