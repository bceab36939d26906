"""A no under any id of a request is a no, in each profile store, and against a plain oracle."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.profiles import codec
from rtb.profiles.codec import Profile
from rtb.profiles.record import counts_key, opts_out
from rtb.stores.profiles import Lookup
from rtb.stores.profiles_lmdb import ProfileStore
from rtb.stores.profiles_redis import RedisProfiles
from rtb.stores.redis_link import MS, Counts, Link
from tests.stores.test_counts_redis import Wire
from tests.stores.test_profiles_redis import Server, needs_redis, opened

YES = codec.encode(Profile(segments=[1, 2, 3]))
NO = codec.encode(Profile(segments=[1, 2, 3], opt_out=True))
OTHER_NO = codec.encode(Profile(opt_out=True))
IDS = [b"b:1", b"u:x:2", b"i:3", b"e:y:4", b"b:5", b"i:6"]
KEYS_MAX = len(IDS)
LIMIT_NS = 10_000 * MS

Stored = dict[bytes, bytes]
Found = tuple[bytes | None, bytes | None]  # record and key


def deciding(stored: Stored, keys: Sequence[bytes]) -> Found:
    """What decides, by a plain oracle: the first no, else the first record, one link on."""
    found = []
    for key in keys:
        value = stored.get(key)
        if value is not None and value.startswith(b"RL"):
            key = value[4:]
            value = stored.get(key)
        if value is not None and value.startswith(b"RP"):
            found.append((value, key))
    nos = [one for one in found if opts_out(one[0])]
    return (nos + found + [(None, None)])[0]


def world(chance: random.Random) -> tuple[Stored, list[list[bytes]]]:
    """Records and links under some ids, and requests of some of them."""
    values = [None, None, YES, YES, NO, OTHER_NO, *map(codec.encode_link, [*IDS, b"b:none"])]
    stored = {key: value for key in IDS if (value := chance.choice(values)) is not None}
    asked = [chance.sample(IDS, chance.randint(1, KEYS_MAX)) for _ in range(8)]
    return stored, asked


def test_lmdb_against_the_oracle(tmp_path: Path) -> None:
    """Random records and links over random ids: the record that decides, and its key."""
    chance, ends = random.Random(8), set()
    with ProfileStore.open(tmp_path, readonly=False) as store:
        for _ in range(150):
            stored, asked = world(chance)
            store.put_many([(key, stored.get(key)) for key in IDS])
            for keys in asked:
                record, key = store.find_key(keys)
                expected = deciding(stored, keys)
                assert expected == (record and bytes(record), key), (stored, keys)
                same = store.find(keys)
                assert expected[0] == (same and bytes(same))
                ends.add(expected[0])
    assert {None, YES, NO, OTHER_NO} == ends


class Reads:
    """A transaction that notes what it is asked for."""

    def __init__(self, get: Callable[[bytes], memoryview | None]) -> None:
        self._get = get
        self.keys: list[bytes] = []

    def get(self, key: bytes) -> memoryview | None:
        """As LMDB's."""
        self.keys.append(key)
        return self._get(key)


def test_no_key_is_read_twice(tmp_path: Path) -> None:
    """Ids of one person cost a read each, and what they lead to one; a no ends the look-up."""
    with ProfileStore.open(tmp_path, readonly=False) as store:
        link = codec.encode_link
        store.put_many([(b"b:1", YES), (b"u:x:2", link(b"b:1")), (b"i:3", link(b"b:1")),
                        (b"b:5", NO)])  # fmt: skip
        for keys, expected in (
            ([b"b:1", b"u:x:2", b"i:3"], [b"b:1", b"u:x:2", b"i:3"]),
            ([b"u:x:2", b"i:3"], [b"u:x:2", b"b:1", b"i:3"]),
            ([b"i:3", b"b:1"], [b"i:3", b"b:1"]),
            ([b"b:5", b"u:x:2", b"i:3"], [b"b:5"]),
        ):
            reads = Reads(store._get)
            store._get, before = reads.get, store._get
            store.find_key(keys)
            store._get = before
            assert expected == reads.keys


Reply = tuple[Lookup, bytes | None, bytes | None, Sequence[bytes | None]]


async def ask(store: RedisProfiles, keys: Sequence[bytes]) -> tuple[Reply, Reply]:
    """A look-up with counts, and one without."""
    loop = asyncio.get_running_loop()
    whole: asyncio.Future[Reply] = loop.create_future()
    plain: asyncio.Future[Reply] = loop.create_future()
    deadline_ns = time.monotonic_ns() + LIMIT_NS
    store.find_counts(keys, deadline_ns, lambda *one: whole.set_result(one))
    store.find(keys, deadline_ns, lambda *one: plain.set_result((*one, None, ())))
    return await asyncio.wait_for(whole, 10), await asyncio.wait_for(plain, 10)


@needs_redis
@pytest.mark.server
async def test_redis_against_the_oracle(tmp_path: Path) -> None:
    """The same in Redis; counts are those of the key that decides, then of each asked for. Of
    several noes any will do: none of them is anybody."""
    server = Server(tmp_path)
    chance = random.Random(9)
    every = [*IDS, b"b:none"]
    counts = {key: b"of " + key for key in every}
    pairs = [(counts_key(token_hash(Dim.PERSON, key)), counts[key]) for key in every]
    async with opened(server.url, budget_ms=5_000.0) as store:
        for _ in range(25):
            stored, asked = world(chance)
            await store.put_many([(key, stored.get(key)) for key in IDS])
            await store.put_many(pairs)
            for keys in asked:
                record, key = deciding(stored, keys)
                outcome = Lookup.MISS if record is None else Lookup.HIT
                own = [] if key is None else [counts[key]]
                whole, plain = await ask(store, keys)
                if record is not None and opts_out(record):
                    assert [True, True] == [opts_out(one[1] or b"") for one in (whole, plain)]
                    continue
                assert (outcome, record, key, own + [counts[one] for one in keys]) == whole
                assert (outcome, record) == plain[:2]
    server.kill()


@pytest.mark.parametrize("reply", [b"", b"*2\r\n$-1\r\n:5\r\n"])
async def test_what_a_link_hides_is_waited_for(reply: bytes) -> None:
    """Behind the link of another id there may be a no: without it nothing is known of anybody."""
    wire = Link(Counts(), 10 * MS, 8)
    wire.connection_made(Wire())
    answers: list[Reply] = []
    deadline_ns = time.monotonic_ns() + 10 * MS
    wire.find_counts([b"b:1", b"i:3"], deadline_ns, lambda *one: answers.append(one))
    values = [YES, codec.encode_link(b"b:5"), b"a", b"b"]
    wire.data_received(b"*4\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(v), v) for v in values))
    assert [] == answers
    if reply:
        wire.data_received(reply)
        assert [(Lookup.HIT, YES, b"b:1", [b"a", b"a", b"b"])] == answers
    else:
        wire.fail("over", Lookup.TIMEOUT)
        assert [(Lookup.TIMEOUT, None, None, [b"a", b"b"])] == answers
