"""Counts in the embedded store: impressions and positions together, or neither."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.base.events import bid_id
from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.profiles import codec
from rtb.profiles.codec import Profile
from rtb.profiles.reducers import Impression, links_of
from rtb.stores import profiles
from rtb.stores.counts_lmdb import CountsStore
from rtb.stores.profiles import Links
from rtb.stores.profiles_lmdb import ProfileStore

T = 1_790_000_000
LIFE, MINUTE = ((9, 0),), ((7, 60),)


def shown(number: int, caps: tuple[tuple[int, int], ...] = LIFE) -> list[Impression]:
    """One impression at T."""
    return [Impression(bid_id(T, 0, 0, number), T * 1000, caps)]


def count_of(store: ProfileStore, person: int) -> int:
    """Impressions of a person, whatever the cap."""
    record = store.counts(person)
    return 0 if record is None else sum(
        one.shown for one in codec.decode_counts(record).counts.values()
    )  # fmt: skip


def test_counts_and_positions(tmp_path: Path) -> None:
    """What is counted and how far each journal was read is one write, and is there at the next
    start.
    """
    with ProfileStore.open(tmp_path, readonly=False) as store:
        store.put_many([(b"u:zz", codec.encode(Profile()))])  # after all positions
        counts = CountsStore(store)
        assert {} == counts.positions()
        assert 2 == counts.count({5: shown(1), 1 << 63: shown(2)}, {"0/1/ab": 7})
        assert 1 == counts.count({5: shown(3), 1 << 63: shown(2)}, {"0/0/cd": 1 << 40})
    with ProfileStore.open(tmp_path, readonly=False) as store:
        assert {"0/0/cd": 1 << 40, "0/1/ab": 7} == CountsStore(store).positions()
        assert [2, 1] == [count_of(store, person) for person in (5, 1 << 63)]


def test_all_or_none(tmp_path: Path) -> None:
    """A batch that fails in the middle leaves nothing of itself."""
    broken = [Impression(bid_id(T, 0, 0, 1), T * 1000, ((1 << 70, 0),))]  # no hash
    with ProfileStore.open(tmp_path, readonly=False) as store:
        counts = CountsStore(store)
        with pytest.raises(struct.error):
            counts.count({1: shown(1), 2: broken}, {"0/0/ab": 7})
        assert 0 == count_of(store, 1)
        assert {} == counts.positions()
    with ProfileStore.open(tmp_path) as reader, pytest.raises(StoreError, match="for reading"):
        CountsStore(reader).count({}, {})


def test_a_store_that_grows(tmp_path: Path) -> None:
    """A batch that does not fit is written whole once the map is larger."""
    with ProfileStore.open(tmp_path, readonly=False, map_size=1 << 16) as store:
        CountsStore(store).count({person: shown(person) for person in range(1, 3_000)}, {"j": 1})
        assert [1] * 2_999 == [count_of(store, person) for person in range(1, 3_000)]


def test_a_store_that_another_process_made_larger(tmp_path: Path) -> None:
    """A writer goes on with the new size, as its readers do."""
    program = """
import sys
from pathlib import Path
from rtb.stores.profiles_lmdb import ProfileStore
with ProfileStore.open(Path(sys.argv[1]), readonly=False, map_size=1 << 16) as store:
    store.load((b"b:%d" % number, bytes(100)) for number in range(2_000))
"""
    with ProfileStore.open(tmp_path, readonly=False, map_size=1 << 16) as store:
        arguments = [sys.executable, "-c", program, str(tmp_path)]
        subprocess.run(arguments, check=True, cwd=Path(__file__).parents[2])
        assert 1 == CountsStore(store).count({5: shown(1)}, {"j": 1})
        assert 1 == count_of(store, 5)


def test_sweep(tmp_path: Path) -> None:
    """Spent counts in a range of persons are dropped, the others told in order."""
    with ProfileStore.open(tmp_path, readonly=False) as store:
        counts = CountsStore(store)
        last = (1 << 64) - 1
        batch = {1: shown(1), 2: shown(2, MINUTE), 3: shown(3, MINUTE), 1 << 63: shown(4),
                 last: shown(5)}  # fmt: skip
        counts.count(batch, {"j": 1})
        assert [1, 2, 3] == counts.sweep(0, 1 << 63, T + 60)
        assert [1] == counts.sweep(0, 1 << 63, T + 90_001)
        assert [1, 1 << 63, last] == counts.sweep(0, 1 << 64, T)
        assert [] == counts.sweep(2, 1 << 63, T)
        assert [0, 0] == [count_of(store, person) for person in (2, 3)]
        assert [] == counts.sweep(0, 1 << 64, T + 500 * 86_400)
        assert {"j": 1} == counts.positions()


def link(person: int, *others: int, follow: bool = True) -> Links:
    """One that leads to others at T, and is named there."""
    links: Links = {}
    for other in others:
        profiles.link(links, person, other, T * 1000, follow)
        profiles.link(links, other, person, T * 1000, False)
    return links


def test_links_live_as_long_as_counts_at_their_other_end(tmp_path: Path) -> None:
    """Alone they are dropped after a day; requests need not look at who is only named."""
    with ProfileStore.open(tmp_path, readonly=False) as store:
        counts = CountsStore(store)
        assert 5 == counts.count({}, {"j": 1}, link(1, 2) | link(3, 4, 5))
        assert 0 == counts.count({}, {"j": 1}, link(1, 2) | link(3, 4, 5))
        assert 1 == counts.count({5: shown(1)}, {"j": 2})
        assert [1, 3, 5] == counts.sweep(0, 1 << 64, T + 90_000)
        assert [3, 5] == counts.sweep(0, 1 << 64, T + 90_001)
        assert [store.counts(person) is None for person in range(1, 6)] == [
            True, True, False, True, False,
        ]  # fmt: skip
        assert [] == counts.sweep(0, 1 << 64, T + 500 * 86_400)


def test_erasing_a_key_erases_its_links(tmp_path: Path) -> None:
    """At both ends, and with it what was shown; a record that opts out does the same."""
    keys = [b"b:1", b"i:2", b"u:x:3"]
    persons = [token_hash(Dim.PERSON, key) for key in keys]
    for gone in (None, codec.encode(Profile(opt_out=True))):
        with ProfileStore.open(tmp_path, readonly=False) as store:
            counts = CountsStore(store)
            counts.count({persons[1]: shown(1)}, {}, link(persons[1], persons[0]))
            counts.count({}, {}, link(persons[2], persons[0]))
            store.put_many([(keys[2], codec.encode(Profile()))])
            assert [2, 1, 1] == [len(links_of(store.counts(person))) for person in persons]
            store.put_many([(keys[0], gone)])
            assert [0, 0, 0] == [len(links_of(store.counts(person))) for person in persons]
            assert [0, 1, 0] == [count_of(store, person) for person in persons]
            store.put_many([(keys[1], None)])
            assert store.counts(persons[1]) is None


def test_a_position_that_is_none(tmp_path: Path) -> None:
    """A broken position is told with its place, before anything is counted by it."""
    with ProfileStore.open(tmp_path, readonly=False) as store:
        store.put_many([(b"p:0/0/ab", b"7")])
        with pytest.raises(StoreCorrupt, match="at key `0/0/ab`"):
            CountsStore(store).positions()
