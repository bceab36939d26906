"""The embedded profile store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rtb.base.errors import StoreCorrupt, StoreError
from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.profiles import codec
from rtb.profiles.codec import Profile
from rtb.profiles.record import counts_key
from rtb.stores.profiles_lmdb import ProfileStore

RECORD = codec.encode(Profile(segments=[1, 2, 3]))


def test_find_follows_one_link(tmp_path: Path) -> None:
    """The first known key wins; a link is followed once, and a link to a link is a miss."""
    with ProfileStore.open(tmp_path, readonly=False) as store:
        link = codec.encode_link
        store.put_many([(b"b:1", RECORD), (b"i:a", link(b"b:1")), (b"i:b", link(b"i:a")),
                        (b"i:c", link(b"b:none"))])  # fmt: skip
        found = {key: store.get(key) for key in (b"b:1", b"i:a", b"i:b", b"i:c", b"b:2")}
        hits = {key: bytes(view) for key, view in found.items() if view is not None}
        assert hits == {b"b:1": RECORD, b"i:a": RECORD}
        view = store.find([b"b:2", b"i:b", b"i:a", b"b:1"])
        assert view is not None
        assert bytes(view) == RECORD
        assert store.find([]) is None


def test_find_key_names_where_the_record_lies(tmp_path: Path) -> None:
    """A person is named by the key of its record, not by that of the link."""
    with ProfileStore.open(tmp_path, readonly=False) as store:
        link = codec.encode_link
        store.put_many([(b"b:1", RECORD), (b"i:a", link(b"b:1")), (b"i:b", link(b"i:a"))])
        for keys, expected in (([b"b:1"], b"b:1"), ([b"b:2", b"i:b", b"i:a"], b"b:1"),
                               ([b"i:b"], None), ([], None)):  # fmt: skip
            record, key = store.find_key(keys)
            assert expected == key
            assert (None if expected is None else RECORD) == (record and bytes(record))


def test_counts_live_and_die_apart(tmp_path: Path) -> None:
    """An import of a record leaves what was shown to its person; erasing the key erases it."""
    person = token_hash(Dim.PERSON, b"b:1")
    with ProfileStore.open(tmp_path, readonly=False) as store:
        assert store.counts(person) is None
        store.put_many([(counts_key(person), b"counts"), (b"b:1", RECORD)])
        store.put_many([(b"b:1", RECORD)])
        counts = store.counts(person)
        assert counts is not None
        assert b"counts" == bytes(counts)
        store.put_many([(b"b:1", None)])
        assert store.counts(person) is None
        assert 0 == store.count()


def test_erase(tmp_path: Path) -> None:
    """None as a record erases the key; erasing what is not there is no error."""
    with ProfileStore.open(tmp_path, readonly=False) as store:
        assert store.put_many([(b"b:1", RECORD)]) == 1
        assert store.put_many([(b"b:1", None), (b"b:2", None)]) == 2
        assert store.get(b"b:1") is None
        assert store.count() == 0


def test_map_grows(tmp_path: Path) -> None:
    """A store that outgrows its map doubles it, and loses nothing."""
    with ProfileStore.open(tmp_path, readonly=False, map_size=1 << 16) as store:
        keys = [b"b:%d" % number for number in range(2_000)]
        assert len(keys) == store.load((key, RECORD) for key in keys)
        assert all(store.get(key) is not None for key in keys)
        assert len(keys) == store.count()


def test_reader_in_another_process(tmp_path: Path) -> None:
    """A reader sees one version until it refreshes, also when the writer outgrew its map."""
    program = """
import sys
from pathlib import Path
from rtb.stores.profiles_lmdb import ProfileStore
store = ProfileStore.open(Path(sys.argv[1]), map_size=1 << 16)
print(store.get(b"b:1999") is not None, flush=True)
for line in sys.stdin:
    if line.strip() == "refresh":
        store.refresh()
    print(store.get(b"b:1999") is not None, flush=True)
"""
    with ProfileStore.open(tmp_path, readonly=False, map_size=1 << 16) as store:
        store.put_many([(b"b:0", RECORD)])
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            cwd=Path(__file__).parents[2],
        ) as reader:  # fmt: skip
            assert reader.stdin is not None
            assert reader.stdout is not None
            assert reader.stdout.readline() == "False\n"
            store.load((b"b:%d" % number, RECORD) for number in range(2_000))
            reader.stdin.write("look\n")
            assert reader.stdout.readline() == "False\n"
            reader.stdin.write("refresh\n")
            assert reader.stdout.readline() == "True\n"
            reader.stdin.close()
            assert reader.wait(10) == 0


def test_dead_readers_are_forgotten(tmp_path: Path) -> None:
    """A reader that died without a word does not pin old pages for ever."""
    program = """
import os, sys
from pathlib import Path
from rtb.stores.profiles_lmdb import ProfileStore
store = ProfileStore.open(Path(sys.argv[1]))
os._exit(0)
"""
    ProfileStore.open(tmp_path, readonly=False).close()
    arguments = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(arguments, check=True, cwd=Path(__file__).parents[2])
    with ProfileStore.open(tmp_path, readonly=False) as store:
        slots = store.readers()
    assert [str(os.getpid())] == [line.split()[0] for line in slots.splitlines()[1:]]


def test_refusals(tmp_path: Path) -> None:
    """No store, no LMDB file, writing through a reader, and a record over its limit."""
    with pytest.raises(StoreError):
        ProfileStore.open(tmp_path / "absent")
    (tmp_path / "data.mdb").write_bytes(b"not a store" * 1000)
    with pytest.raises(StoreCorrupt):
        ProfileStore.open(tmp_path)
    good = tmp_path / "good"
    good.mkdir()
    with (
        ProfileStore.open(good, readonly=False) as writer,
        pytest.raises(ValueError, match="limit"),
    ):
        writer.put_many([(b"b:1", bytes(50_000))])
    with ProfileStore.open(good) as reader, pytest.raises(StoreError, match="for reading"):
        reader.put_many([(b"b:1", RECORD)])
