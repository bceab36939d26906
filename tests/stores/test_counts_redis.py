"""Counts in Redis: all or none, several keepers at once, and a server that forgot a second."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.base.events import bid_id
from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.profiles import codec
from rtb.profiles.record import counts_key
from rtb.profiles.reducers import Impression, count_impressions, links_of
from rtb.stores import profiles
from rtb.stores.counts_redis import RedisCounts
from rtb.stores.profiles import Links, Lookup
from rtb.stores.profiles_redis import RedisProfiles
from rtb.stores.redis_link import Counts, Link
from tests.stores.test_profiles_redis import MS, Server, needs_redis, opened, record, until

pytestmark = [pytest.mark.server, needs_redis]
LIFE, MINUTE = ((9, 0),), ((7, 60),)
Found = tuple[Lookup, bytes | None, bytes | None, Sequence[bytes | None]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path)
    yield found
    found.kill()


def shown(
    number: int, caps: tuple[tuple[int, int], ...] = LIFE, worker: int = 0
) -> list[Impression]:
    """One impression, now: keys end by the clock of the server."""
    now_ms = time.time_ns() // 1_000_000
    return [Impression(bid_id(now_ms // 1000, 0, worker, number), now_ms, caps)]


def count_of(value: bytes | None) -> int:
    """Impressions of a person, whatever the cap."""
    found = codec.decode_counts(value).counts.values() if value is not None else ()
    return sum(one.shown for one in found)


def test_counts_positions_and_ends(server: Server) -> None:
    """Counts and positions are one write; a record ends when nothing in it matters any more."""
    counts, raw = RedisCounts(server.url), redis.Redis.from_url(server.url, protocol=2)
    assert {} == counts.positions()
    assert 0 == counts.count({}, {})
    bid = shown(2)
    assert 2 == counts.count({5: shown(1, MINUTE), 1 << 63: bid}, {"0/1/ab": 7})
    assert 1 == counts.count({5: shown(3, MINUTE), 1 << 63: bid}, {"0/0/cd": 1 << 40})
    assert [2, 1] == [count_of(raw.get(counts_key(person))) for person in (5, 1 << 63)]
    assert {"0/0/cd": 1 << 40, "0/1/ab": 7} == RedisCounts(server.url).positions()
    day_s, year_s = (raw.ttl(counts_key(person)) for person in (5, 1 << 63))
    assert 86_400 < day_s <= 90_001
    assert 399 * 86_400 < year_s <= 400 * 86_400
    assert [] == counts.sweep(0, 1 << 64, 0)
    raw.set(b"p:0/0/ef", b"7")
    with pytest.raises(StoreCorrupt, match="0/0/ef"):
        counts.positions()
    counts.close()
    raw.close()


def test_keepers_of_several_nodes(server: Server) -> None:
    """Two that count the same persons at once lose nothing of each other."""

    faults: set[bool] = set()

    def keep(node: int) -> None:
        counts = RedisCounts(server.url)
        counts.positions()
        for number in range(25):
            batch = {person: shown(number, worker=node) for person in (1, 2, 3)}
            for _ in range(100):
                try:
                    counts.count(batch, {f"{node}/0/ab": 1 + number})
                    break
                except StoreError as error:
                    faults.add(error.transient)
        counts.close()

    keepers = [threading.Thread(target=keep, args=(node,)) for node in (0, 1)]
    for keeper in keepers:
        keeper.start()
    for keeper in keepers:
        keeper.join(20)
    assert faults <= {True}
    with redis.Redis.from_url(server.url, protocol=2) as raw:
        assert [50, 50, 50] == [count_of(raw.get(counts_key(person))) for person in (1, 2, 3)]
    assert {"0/0/ab": 25, "1/0/ab": 25} == RedisCounts(server.url).positions()


def test_a_server_that_forgot(server: Server) -> None:
    """Its keeper does not go on as if nothing were lost; the next one begins where it is told."""
    counts = RedisCounts(server.url)
    counts.positions()
    counts.count({5: shown(1)}, {"0/0/ab": 3})
    with redis.Redis.from_url(server.url, protocol=2) as raw:
        raw.set(b"p:0/0/ab", (2).to_bytes(8, "little"))
    with pytest.raises(StoreError, match="counts were lost") as told:
        counts.count({5: shown(2)}, {"0/0/ab": 4})
    assert not told.value.transient
    assert {"0/0/ab": 2} == counts.positions()
    assert 1 == counts.count({5: shown(2)}, {"0/0/ab": 4})
    server.kill()
    with pytest.raises(StoreError, match="not written") as told:
        counts.count({5: shown(3)}, {"0/0/ab": 5})
    assert told.value.transient
    with pytest.raises(StoreError, match="counts"):
        counts.positions()
    counts.close()


async def find(store: RedisProfiles, *keys: bytes) -> Found:
    """One look-up with counts as a coroutine."""
    done: asyncio.Future[Found] = asyncio.get_running_loop().create_future()
    store.find_counts(
        keys, time.monotonic_ns() + 10_000 * MS, lambda *found: done.set_result(found)
    )
    return await asyncio.wait_for(done, 10)


async def test_counts_come_with_the_record(server: Server) -> None:
    """For the record's key and each key that was asked for, in one command or two."""
    link = codec.encode_link
    pairs = [(b"b:1", record(1)), (b"i:a", link(b"b:1")), (b"i:b", link(b"i:a")),
             (b"i:c", link(b"b:none"))]  # fmt: skip
    async with opened(server.url) as store:
        await store.load(pairs)
        counted = [b"b:1", b"i:a", b"b:9", b"b:none"]
        people = [(counts_key(token_hash(Dim.PERSON, key)), b"of " + key) for key in counted]
        await store.put_many(people)
        hit, miss = Lookup.HIT, Lookup.MISS
        own, alias, other = b"of b:1", b"of i:a", b"of b:9"
        assert (hit, record(1), b"b:1", [own, own]) == await find(store, b"b:1")
        assert (hit, record(1), b"b:1", [own, other, own, None]) == await find(
            store, b"b:9", b"b:1", b"u:x:2"
        )
        assert (hit, record(1), b"b:1", [own, other, alias]) == await find(store, b"b:9", b"i:a")
        assert (miss, None, None, [other, None]) == await find(store, b"b:9", b"b:8")
        assert (hit, record(1), b"b:1", [own, None, alias]) == await find(store, b"i:b", b"i:a")
        assert (miss, None, None, [None]) == await find(store, b"i:c")
        assert (miss, None, None, []) == await find(store)
        assert [4, 3, 0, 0, 0, 0] == store.counts.lookups
        await store.put_many([(b"b:1", None)])
        assert (miss, None, None, [None]) == await find(store, b"b:1")
        server.kill()
        await until(lambda: not store.up, 10)
        assert (Lookup.DOWN, None, None, []) == await find(store, b"b:1")


def link(person: int, other: int) -> Links:
    """One that leads to another, now, and is named there."""
    links: Links = {}
    now_ms = time.time_ns() // 1_000_000
    profiles.link(links, person, other, now_ms, True)
    profiles.link(links, other, person, now_ms, False)
    return links


async def test_links(server: Server) -> None:
    """Counts of whom a key is linked to come with those of the key; erasing one erases them at both
    ends, and counts at one end keep the other alive.
    """
    keys = [b"b:1", b"u:x:2", b"i:3", b"e:x:4"]
    one, two, three, four = (token_hash(Dim.PERSON, key) for key in keys)
    counts, raw = RedisCounts(server.url), redis.Redis.from_url(server.url, protocol=2)
    counts.positions()
    chain = link(two, one) | link(four, three)
    profiles.link(chain, three, two, 1, True)
    profiles.link(chain, two, three, 1, False)
    assert 4 == counts.count({}, {"0/0/ab": 1}, chain)
    assert 86_400 < raw.ttl(counts_key(two)) <= 90_001
    assert 1 == counts.count({one: shown(1)}, {"0/0/ab": 2})
    assert 399 * 86_400 < raw.ttl(counts_key(two)) <= 400 * 86_400
    values = {person: raw.get(counts_key(person)) for person in (one, two, three, four)}

    def named(person: int) -> bytes:
        return person.to_bytes(8, "little") + (values[person] or b"")

    async with opened(server.url) as store:
        assert (Lookup.MISS, None, None, [values[two], named(one)]) == await find(store, keys[1])
        found = await find(store, keys[3])
        assert [values[four], named(three), named(two)] == found[3]  # two further looks at most
        found = await find(store, keys[2], keys[0])
        assert [values[three], values[one], named(two)] == found[3]
        await store.put_many([(keys[1], record(1))])
        assert (Lookup.HIT, record(1), keys[1], [values[two]] * 2 + [named(one)]) == await find(
            store, keys[1]
        )
        assert [1] == [count_of(raw.get(counts_key(one)))]
        await store.put_many([(keys[1], None)])
        assert raw.get(counts_key(two)) is None
        assert [[], [four]] == [links_of(raw.get(counts_key(person))) for person in (one, three)]
        assert 399 * 86_400 < raw.ttl(counts_key(one))
        assert [1] == [count_of(raw.get(counts_key(one)))]
    counts.close()
    raw.close()


class Wire(asyncio.Transport):
    """What a link writes, and nobody at the other end."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Lost."""

    def abort(self) -> None:
        """At once."""


LINKED_REPLIES = {
    b"": Lookup.TIMEOUT, b"-ERR no\r\n": Lookup.ERROR, b"+OK\r\n": Lookup.DOWN,
    b"*1\r\n$1\r\nx\r\n": Lookup.HIT,
}  # fmt: skip


def _answered(first: bytes) -> tuple[Link, list[Found], bytes]:
    """A look-up whose first answer has come: a record, and counts that lead to somebody else."""
    together = profiles.Links()
    profiles.link(together, 1, 5, 1_000, True)
    linked = count_impressions(None, [], together=together[1])
    assert linked is not None
    wire = Link(Counts(), 10 * MS, 8)
    wire.connection_made(Wire())
    answers: list[Found] = []
    wire.find_counts([b"b:1"], time.monotonic_ns() + 10 * MS, lambda *one: answers.append(one))
    values = b"".join(b"$%d\r\n%b\r\n" % (len(one), one) for one in (first, linked))
    wire.data_received(b"*2\r\n" + values)
    return wire, answers, linked


@pytest.mark.parametrize("reply", LINKED_REPLIES)
async def test_links_that_are_not_followed_in_time(reply: bytes) -> None:
    """A record without the counts of those it is linked to is no answer: a cap would not hold."""
    wire, answers, linked = _answered(record(1))
    assert [] == answers
    wire.data_received(reply)
    await until(lambda: bool(answers), 5)
    (found,) = answers
    assert LINKED_REPLIES[reply] == found[0]
    if found[0] == Lookup.HIT:
        counts = [linked, linked, (5).to_bytes(8, "little") + b"x"]
        assert (Lookup.HIT, record(1), b"b:1", counts) == found
    else:
        assert found[1] is None
    wire.fail("over", Lookup.DOWN)
    assert 1 == len(answers)


async def test_a_no_does_not_wait_for_counts() -> None:
    """Nothing is counted for who opted out, so nobody else's counts are asked for."""
    refused = codec.encode(codec.Profile(opt_out=True))
    wire, answers, linked = _answered(refused)
    assert [(Lookup.HIT, refused, b"b:1", [linked, linked])] == answers
    wire.fail("over", Lookup.DOWN)
