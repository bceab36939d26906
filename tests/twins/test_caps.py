"""Frequency caps as workers see them: one body for both twins, and both on one board."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb._ext import caps as compiled
from rtb.base.errors import ConfigError, StoreError
from rtb.base.events import LINK, Kind, Way, bid_id
from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.profiles import codec
from rtb.profiles.codec import Count, Counts, Profile
from rtb.profiles.record import COUNTS_ONLY
from rtb.stores import caps as readable
from rtb.stores.caps import Limits
from rtb.stores.caps_board import WAYS, CapsBoard, Filter, Sizes
from rtb.stores.caps_table import CapsTable

TWINS = [pytest.param(readable.Caps, id="readable"), pytest.param(compiled.Caps, id="compiled")]
T = 1_790_000_000
NOW = T * 1000
LINE, CREATIVE, BARE = 11, 12, 13  # keys; the last one has no caps
HOUR, LIFE, AD = 101, 102, 103  # caps: two of the line item, one of the creative
TABLE = CapsTable(
    np.array([LINE, CREATIVE], np.uint64), np.array([0, 2]), np.array([2, 1]),
    np.array([HOUR, LIFE, AD], np.uint64), np.array([3600, 0, 60]), np.array([6, 40, 2]),
)  # fmt: skip
KEY, OTHER_KEY = b"i:phone", b"b:us"
PERSON, OTHER = (token_hash(Dim.PERSON, key) for key in (KEY, OTHER_KEY))
SIZES = Sizes(sets_count=4, filter_bits=64)


class View:
    """Counts as one reader sees them: as of its last renewal."""

    def __init__(self, kept: dict[int, bytes]) -> None:
        self.kept = kept
        self.seen: dict[int, bytes] = {}
        self.asked = 0

    def renew(self) -> None:
        self.seen = dict(self.kept)

    def get(self, person: int) -> bytes | None:
        self.asked += 1
        return self.seen.get(person)


class Node:
    """A board, workers of one kind of twin, and a store."""

    def __init__(self, directory: Path, twin: Any, workers: int = 2, given: bool = False) -> None:
        self.board = CapsBoard.create(directory / "caps", workers, SIZES)
        self.board.header["ready"] = 1
        self.kept: dict[int, bytes] = {}
        self.views = [View(self.kept) for _ in range(workers)]
        self.twin = twin
        self.links: list[bytes] = []
        self.full = False
        self.given = given  # counts come with the record
        self.workers = [self.start(number) for number in range(workers)]

    def start(self, number: int, identity: int = 7, now_ms: int = NOW) -> Any:
        worker = self.twin(
            self.board, number, 0, identity + number, Limits(),
            None if self.given else self.views[number].get, self.append,
        )  # fmt: skip
        worker.serve(TABLE)
        worker.refresh(now_ms, self.views[number].renew)
        return worker

    def append(self, kind: int, body: bytes) -> int:
        """Takes a link's record, as the journal does; its sequence."""
        if self.full:
            raise StoreError("the disk is full")
        assert Kind.LINK == kind
        self.links.append(body)
        return len(self.links)

    def count(self, worker: int, sequence: int, person: int, counts: Counts) -> None:
        """What the keeper does with impressions of a worker's journal."""
        Filter(self.board).add(person)
        self.kept[person] = codec.encode_counts(counts)
        row = self.board.keeper[worker]
        row["identity"], row["counted"] = self.board.worker[worker]["identity"], sequence

    def refresh(self, now_ms: int = NOW) -> None:
        for _ in range(2):  # the second time everybody knows what the others have seen
            for worker, view in zip(self.workers, self.views, strict=True):
                worker.refresh(now_ms, view.renew)


@pytest.fixture(params=TWINS)
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Node:
    return Node(tmp_path, request.param)


def caps_of(record: Any) -> dict[int, tuple[int, int]]:
    """Start, from T on, and count of each cap of a record."""
    if record is None:
        return {}
    return {h: (t - T, n) for h, (t, n) in codec.decode(bytes(record)).caps.items()}


def counts_of(worker: Any, now_ms: int = NOW, keys: list[bytes] | None = None) -> list[int]:
    """How often each cap of the person is counted."""
    found = caps_of(worker.view([KEY] if keys is None else keys, None, None, now_ms))
    return [found.get(cap, (0, 0))[1] for cap in (HOUR, LIFE, AD)]


def bid(number: int, worker: int = 0, time_s: int = T) -> int:
    return bid_id(time_s, 0, worker, number)


def test_nothing_to_add(node: Node) -> None:
    """Who has no counts keeps his record, the very same, and the store is not asked."""
    record = codec.encode(Profile(segments=[1]))
    caps = node.workers[0]
    assert caps.view([KEY], KEY, record, NOW) is record
    assert PERSON == caps.person
    assert caps.view([KEY], None, None, NOW) is None
    assert caps.view([], None, None, NOW) is None
    assert 0 == caps.person
    assert 0 == node.views[0].asked


def test_a_bid_counts_until_it_is_lost_or_late(node: Node) -> None:
    """In flight it counts for every worker; a loss or two seconds end that."""
    a, b = node.workers
    assert a.bid(PERSON, bid(1), LINE, CREATIVE, NOW)
    assert a.bid(PERSON, bid(2), LINE, BARE, NOW)
    assert [2, 2, 1] == counts_of(a) == counts_of(b)
    a.lost(PERSON, bid(1), NOW)
    assert [1, 1, 0] == counts_of(a) == counts_of(b)
    assert [1, 1, 0] == counts_of(b, NOW + 1999)
    assert [0, 0, 0] == counts_of(b, NOW + 2000)
    a.tidy(NOW + 2000)
    assert not node.board.tags.any()


def test_who_and_what_has_no_caps_is_not_kept(node: Node) -> None:
    """No person, or neither line item nor creative with caps: nothing is written."""
    caps = node.workers[0]
    assert caps.bid(0, bid(1), LINE, CREATIVE, NOW)
    assert caps.bid(PERSON, bid(1), BARE, BARE, NOW)
    caps.shown(0, bid(1), LINE, CREATIVE, 1, NOW)
    caps.shown(PERSON, bid(1), BARE, BARE, 1, NOW)
    caps.lost(0, bid(1, 1), NOW)
    assert not node.board.tags.any()


def test_loss_told_to_another_worker(node: Node) -> None:
    """It counts no more for anybody; an impression after all does."""
    a, b = node.workers
    a.bid(PERSON, bid(1), LINE, CREATIVE, NOW)
    b.lost(PERSON, bid(1), NOW + 10)
    assert [0, 0, 0] == counts_of(a, NOW + 10) == counts_of(b, NOW + 10)
    b.shown(PERSON, bid(1), LINE, CREATIVE, 5, NOW + 20)
    assert [1, 1, 1] == counts_of(a, NOW + 20) == counts_of(b, NOW + 9_000)
    b.lost(PERSON, bid(9, 0, T - 10), NOW)  # long over: not kept
    b.lost(PERSON, bid(9, 1), NOW)  # its own, and not in flight
    assert 1 == int((node.board.sets["person"][1] != 0).sum())


def test_impression_at_another_worker(node: Node) -> None:
    """A bid is counted once: in flight here, shown there, told twice, and counted by the keeper."""
    a, b = node.workers
    a.bid(PERSON, bid(1), LINE, CREATIVE, NOW)
    b.shown(PERSON, bid(1), LINE, CREATIVE, 5, NOW + 500)
    a.shown(PERSON, bid(1), LINE, CREATIVE, 9, NOW + 600)
    b.shown(PERSON, bid(1), LINE, CREATIVE, 6, NOW + 700)
    assert [1, 1, 1] == counts_of(a, NOW + 700) == counts_of(b, NOW + 700)
    assert {HOUR: (1, 1), LIFE: (1, 1), AD: (1, 1)} == caps_of(a.view([KEY], None, None, NOW))
    shown = Counts({HOUR: Count(T + 1, 3600, 1, T), LIFE: Count(T + 1, 0, 1, T)}, [bid(1)])
    node.count(1, 6, PERSON, shown)
    assert [1, 1, 1] == counts_of(a, NOW + 700)  # whose view of the store is older
    b.refresh(NOW, node.views[1].renew)
    assert [1, 1, 0] == counts_of(b, NOW + 700)
    node.refresh()
    assert [1, 1, 0] == counts_of(a, NOW + 700)
    for worker in node.workers:
        worker.tidy(NOW + 700)
    assert [False, True] == [
        bool((node.board.sets["person"][worker] == 0).all()) for worker in (0, 1)
    ]  # the keeper has not come to the record of the other worker
    assert [1, 1, 0] == counts_of(b, NOW + 5_000)


def test_entries_wait_for_every_reader(node: Node) -> None:
    """What the keeper has counted stays until all workers see it in their store, or are dead."""
    a, b = node.workers
    a.shown(PERSON, bid(1), LINE, BARE, 5, NOW)
    node.count(0, 5, PERSON, Counts({LIFE: Count(T, 0, 1, T)}, [bid(1)]))
    a.refresh(NOW, node.views[0].renew)
    a.tidy(NOW)
    for later_ms in (10_000, 19_999, 20_000):
        assert node.board.tags.any()
        a.refresh(NOW + later_ms, node.views[0].renew)
        a.tidy(NOW + later_ms)
    assert not node.board.tags.any()
    assert [0, 0, 0] == counts_of(b)
    assert not b.bid(PERSON, bid(2, 1), LINE, BARE, NOW + 20_000)
    node.refresh(NOW + 20_000)
    assert [0, 1, 0] == counts_of(a) == counts_of(b)
    assert b.bid(PERSON, bid(2, 1), LINE, BARE, NOW + 20_000)


def test_counts_of_the_store_and_of_the_record_add_up(node: Node) -> None:
    """Windows that are over are left out; the rest of the record is as it was."""
    profile = Profile(segments=[3], items={5: T}, categories={6: T}, viewed=[(5, T)], cart={5: T},
                      caps={LIFE: (T - 9, 2), 999: (T, 4), HOUR: (T - 9_000, 7)},
                      opt_outs={77}, updated_s=T)  # fmt: skip
    record = codec.encode(profile)
    caps = node.workers[0]
    node.count(0, 1, PERSON, Counts({HOUR: Count(T - 60, 3600, 2, T), LIFE: Count(T - 60, 0, 3, T),
                                     AD: Count(T - 60, 60, 9, T)}, []))  # fmt: skip
    node.refresh()
    caps.bid(PERSON, bid(1), LINE, CREATIVE, NOW)
    merged = caps.view([KEY], KEY, record, NOW)
    codec.check(bytes(merged))
    expected = {HOUR: (-60, 3), LIFE: (-9, 6), AD: (0, 1), 999: (0, 4)}
    assert expected == caps_of(merged)
    found = codec.decode(bytes(merged))
    found.caps = profile.caps
    assert codec.decode(record) == found


def test_somebody_without_a_record(node: Node) -> None:
    """The record that is made for him says that it holds counts only."""
    node.count(0, 1, PERSON, Counts({HOUR: Count(T, 3600, 2, T)}, []))
    node.refresh()
    merged = bytes(node.workers[0].view([KEY], None, None, NOW))
    codec.check(merged)
    assert COUNTS_ONLY == merged[3]
    assert {HOUR: (0, 2)} == caps_of(merged)
    assert {HOUR: (0, 2)} == caps_of(node.workers[0].view([KEY], KEY, b"RP no record", NOW))


def test_who_opted_out_is_nobody(node: Node) -> None:
    """His record is left as it is, and nothing is to be counted."""
    record = codec.encode(Profile(opt_out=True))
    node.count(0, 1, PERSON, Counts({HOUR: Count(T, 3600, 2, T)}, []))
    node.refresh()
    assert node.workers[0].view([KEY], KEY, record, NOW) is record
    assert 0 == node.workers[0].person


def test_one_person_under_several_keys(node: Node) -> None:
    """Counts under any key of the request are seen; new ones go where there are some, or to the
    record's key.
    """
    a, b = node.workers
    a.bid(PERSON, bid(1), LINE, BARE, NOW)
    assert [0, 0, 0] == counts_of(b, keys=[OTHER_KEY])
    assert OTHER == b.person
    assert [1, 1, 0] == counts_of(b, keys=[OTHER_KEY, KEY])
    assert PERSON == b.person
    record = codec.encode(Profile())
    assert [(0, 1), (0, 1)] == [*caps_of(b.view([KEY], OTHER_KEY, record, NOW)).values()]
    assert OTHER == b.person
    node.count(0, 1, OTHER, Counts({LIFE: Count(T - 5, 0, 2, T), HOUR: Count(T, 60, 0, T)}, []))
    node.count(0, 1, PERSON, Counts({LIFE: Count(T - 3, 0, 1, T)}, [bid(1)]))
    node.refresh()
    assert {LIFE: (-3, 3)} == {
        cap: one for cap, one in caps_of(b.view([OTHER_KEY, KEY], None, None, NOW)).items()
        if cap == LIFE
    }  # fmt: skip


def links_of(node: Node) -> list[tuple[int, list[tuple[int, int]]]]:
    """Person and others of each link that the journal has, and the ways."""
    found = []
    for body in node.links:
        row = np.frombuffer(body, LINK)[0]
        count = row["count"]
        others = zip(row["others"][:count].tolist(), row["ways"][:count].tolist(), strict=True)
        found.append((int(row["person"]), list(others)))
    return found


KEYS = [b"b:us", b"u:x:1", b"i:phone", b"e:x:2"]
BUYER, USER, PHONE, EID = (token_hash(Dim.PERSON, key) for key in KEYS)


def test_keys_that_come_together_share_their_counts(node: Node) -> None:
    """At once and whichever of them is asked for next, at any worker; it is recorded once."""
    a, b = node.workers
    assert a.view(KEYS[:3], None, None, NOW) is None
    assert [] == node.links
    assert a.bid(a.person, bid(1), LINE, BARE, NOW)
    assert [(BUYER, [(USER, Way.TO_PERSON), (PHONE, Way.TO_PERSON)])] == links_of(node)
    for keys in ([KEYS[1]], [KEYS[2]], [KEYS[0]], KEYS[1:3]):
        for worker in node.workers:
            assert [1, 1, 0] == counts_of(worker, keys=keys)
            assert BUYER == worker.person
    b.shown(BUYER, bid(1), LINE, BARE, 9, NOW + 1)
    assert [1, 1, 0] == counts_of(a, NOW + 5_000, keys=[KEYS[1]])
    assert [1, 1, 0] == counts_of(b, NOW + 5_000, keys=[KEYS[3], KEYS[2]])
    assert (BUYER, [(EID, Way.TO_PERSON)]) == links_of(node)[1]
    assert [1, 1, 0] == counts_of(a, NOW + 5_000, keys=[KEYS[3]])
    assert 2 == len(node.links)


def test_two_who_have_counts_are_one(node: Node) -> None:
    """Each of them leads to the other, also to what a third one leads to; no bid is needed."""
    a, b = node.workers
    for number, key in enumerate(KEYS[:3], start=1):
        a.view([key], None, None, NOW)
        a.shown(a.person, bid(number), LINE, BARE, number, NOW)
    assert [2, 2, 0] == counts_of(a, keys=KEYS[:2])
    assert [2, 2, 0] == counts_of(b, keys=KEYS[:1]) == counts_of(b, keys=KEYS[1:2])
    assert [3, 3, 0] == counts_of(b, keys=KEYS[1:3])
    for key in KEYS[:3]:
        assert [3, 3, 0] == counts_of(a, keys=[key])
    both = Way.TO_PERSON | Way.FROM_PERSON
    links = [(BUYER, [(USER, both)]), (USER, [(PHONE, both)]), (BUYER, [(PHONE, both)])]
    assert links == links_of(node)  # the last one by the look of who knew both


def test_links_of_the_store(node: Node) -> None:
    """What is stored is followed and not written again; nobody is counted who is only led to."""
    a = node.workers[0]
    link = {BUYER: codec.Link(T, True), PHONE: codec.Link(T, False)}
    node.count(0, 1, USER, Counts(links=link))
    node.count(0, 2, BUYER, Counts(links={USER: codec.Link(T, False)}))
    node.count(0, 3, PHONE, Counts({LIFE: Count(T, 0, 7, T)}))
    node.refresh()
    assert a.view([KEYS[1]], None, None, NOW) is None
    assert BUYER == a.person
    assert a.view(KEYS[:2], None, None, NOW) is None
    assert a.bid(a.person, bid(1), LINE, BARE, NOW)
    assert [] == node.links
    assert [1, 1, 0] == counts_of(a, keys=[KEYS[1]])
    record = codec.encode(Profile())
    assert {HOUR: (0, 1), LIFE: (0, 1)} == caps_of(a.view([KEYS[1]], KEYS[1], record, NOW))
    assert USER == a.person
    assert [] == node.links


def test_a_crowd_is_nobody(node: Node) -> None:
    """A key that came together with too many leads nowhere, and counts only where it is alone."""
    a = node.workers[0]
    crowd = Counts({LIFE: Count(T, 0, 5, T)}, [], {PHONE: codec.Link(T, True)}, True)
    node.count(0, 1, USER, crowd)
    node.count(0, 2, PHONE, Counts({LIFE: Count(T, 0, 7, T)}))
    node.count(0, 3, EID, Counts(links={USER: codec.Link(T, True)}))
    node.refresh()
    assert [0, 0, 0] == counts_of(a, keys=KEYS[:2])
    assert BUYER == a.person
    assert a.bid(BUYER, bid(1), LINE, BARE, NOW)
    assert [0, 0, 0] == counts_of(a, keys=[KEYS[3]])
    assert [] == node.links
    assert [0, 5, 0] == counts_of(a, keys=[KEYS[1]])
    assert USER == a.person
    assert [0, 5, 0] == counts_of(a, keys=[KEYS[1], KEYS[1]])
    record = codec.encode(Profile())
    assert {LIFE: (0, 5)} == caps_of(a.view([KEYS[1]], KEYS[1], record, NOW))


def test_whose_keys_are_not_linked(node: Node) -> None:
    """With a record, after an opt-out, without caps, of a test, or with a journal that is full: at
    most for as long as a bid flies.
    """
    a, b = node.workers
    record, refusal = codec.encode(Profile()), codec.encode(Profile(opt_out=True))
    for profile, person in ((record, BUYER), (refusal, 0)):
        a.view(KEYS[:2], KEYS[0], profile, NOW)
        assert person == a.person
        assert a.bid(a.person, bid(1), LINE, BARE, NOW)
    assert [0, 0, 0] == counts_of(b, keys=[KEYS[1]])
    a.lost(BUYER, bid(1), NOW)
    a.view(KEYS[:2], None, None, NOW)
    assert a.bid(BUYER, bid(1), BARE, BARE, NOW)
    assert not node.board.tags.any()
    a.view(KEYS[:2], None, None, NOW, (), True)
    assert a.bid(BUYER, bid(3), LINE, BARE, NOW)
    a.view(KEYS[:2], None, None, NOW, (), True)
    assert [0, 0, 0] == counts_of(b, keys=[KEYS[1]])
    a.lost(BUYER, bid(3), NOW)
    assert [] == node.links
    node.full = True
    a.view(KEYS[:2], None, None, NOW)
    assert a.bid(BUYER, bid(2), LINE, BARE, NOW)
    assert [1, 1, 0] == counts_of(b, keys=[KEYS[1]])
    assert [0, 0, 0] == counts_of(b, NOW + 2_000, keys=[KEYS[1]])
    assert [] == node.links
    a.tidy(NOW + 2_000)
    assert not node.board.tags.any()


def test_a_link_stays_until_all_read_it_in_the_store(node: Node) -> None:
    """As an impression does; a set that is full has no place for one."""
    a, b = node.workers
    a.view(KEYS[:2], None, None, NOW)
    assert a.bid(BUYER, bid(1), LINE, BARE, NOW)
    node.count(0, 1, USER, Counts(links={BUYER: codec.Link(T, True)}))
    for worker in node.workers:
        worker.tidy(NOW + 9_000)
    assert 1 == int((node.board.sets["person"] == USER).sum())
    node.refresh(NOW + 9_000)
    a.tidy(NOW + 9_000)
    assert not node.board.tags.any()
    b.view([KEYS[1]], None, None, NOW + 9_000)
    assert BUYER == b.person
    for number in range(WAYS):
        a.shown(PHONE, bid(10 + number), LINE, BARE, 100 + number, NOW)
    b.shown(EID, bid(30), LINE, BARE, 100, NOW)
    a.view(KEYS[2:], None, None, NOW)
    assert 1 + (node.board.set_of(EID) == node.board.set_of(PHONE)) == a.given_up


def test_counts_that_come_with_the_record(node: Node) -> None:
    """Without a store at hand counts are given: of the record's key first, then of each key."""
    caps = node.twin(node.board, 0, 0, 7, Limits())
    caps.serve(TABLE)
    caps.refresh(NOW)
    life = codec.encode_counts(Counts({LIFE: Count(T, 0, 2, T)}, []))
    hour = codec.encode_counts(Counts({HOUR: Count(T, 3600, 1, T)}, []))
    view: Callable[..., Any] = caps.view
    assert {LIFE: (0, 2)} == caps_of(view([KEY], None, None, NOW, [life]))
    assert {LIFE: (0, 2)} == caps_of(view([KEY, KEY], None, None, NOW, [life, hour]))
    record = codec.encode(Profile())
    merged = view([KEY], OTHER_KEY, record, NOW, [None, hour])
    assert {HOUR: (0, 1)} == caps_of(merged)
    assert OTHER == caps.person
    assert view([KEY], OTHER_KEY, record, NOW, [None, None]) is record
    link = codec.encode_counts(Counts(links={OTHER: codec.Link(T, True)}))
    of_other = OTHER.to_bytes(8, "little") + life
    assert {LIFE: (0, 2)} == caps_of(view([KEY], None, None, NOW, [link, of_other, None, b"x"]))
    assert OTHER == caps.person
    assert view([KEY], None, None, NOW, [link]) is None
    assert OTHER == caps.person
    assert caps.bid(OTHER, bid(50), LINE, BARE, NOW)
    caps.lost(OTHER, bid(50), NOW)
    caps.shown(PERSON, bid(1), LINE, BARE, 5, NOW)
    node.board.keeper[0]["identity"], node.board.keeper[0]["counted"] = 7, 5
    for expected in ({HOUR, LIFE}, {HOUR, LIFE}, set()):  # a reply may be one refresh old
        assert expected == set(caps_of(view([KEY], None, None, NOW, [None])))
        caps.refresh(NOW)


def test_counts_that_only_the_board_leads_to(node: Node) -> None:
    """They did not come with the record, so no bid is made that has caps, until the store has the
    link; where the store did not answer at all the board is all there is.
    """
    caps = node.twin(node.board, 0, 0, 7, Limits(), None, node.append)
    caps.serve(TABLE)
    caps.refresh(NOW)
    life = codec.encode_counts(Counts({LIFE: Count(T, 0, 2, T)}, []))
    assert {LIFE: (0, 2)} == caps_of(caps.view(KEYS[:2], None, None, NOW, [life, None]))
    assert [(BUYER, [(USER, Way.TO_PERSON)])] == links_of(node)
    assert caps.view([KEYS[1]], None, None, NOW, [None]) is None
    assert BUYER == caps.person
    assert not caps.bid(BUYER, bid(1), LINE, BARE, NOW)
    assert caps.bid(BUYER, bid(1), BARE, BARE, NOW)
    link = codec.encode_counts(Counts(links={BUYER: codec.Link(T, True)}))
    of_buyer = BUYER.to_bytes(8, "little")
    for counts in ([link, of_buyer + life], [link, of_buyer], []):
        caps.view([KEYS[1]], None, None, NOW, counts)
        assert caps.bid(BUYER, bid(1), LINE, BARE, NOW)
        caps.lost(BUYER, bid(1), NOW)


class Changing(dict[str, Any]):
    """An entry whose owner makes another one of it while it is read for the first time."""

    def __init__(self, then: dict[str, int], stamps: int) -> None:
        super().__init__({name: [1] for name in (*readable._FIELDS, "stamp")})
        self["person"] = [5]
        self.then, self.reads, self.stamps = then, 0, stamps

    def __getitem__(self, name: str) -> Any:
        if name == "bid":
            self.reads += 1
            if self.reads == 1:
                self.update({name: [value] for name, value in self.then.items()})
                self["stamp"] = [self.stamps]
        return super().__getitem__(name)


def test_an_entry_that_changes_is_read_again() -> None:
    """Neither half of two bids is a bid: another stamp, or another person, begins anew."""
    again = readable._read(Changing({"time_ms": 9, "creative": 9}, 2), 0, 5, 3)
    assert readable.Found(1, 1, 1, 9, 9, 3) == again
    assert readable._read(Changing({"person": 0}, 1), 0, 5, 3) is None
    assert readable._read(Changing({"person": 6}, 2), 0, 5, 3) is None


def test_broken_counts_are_no_counts(node: Node) -> None:
    """What the store has is not believed when it breaks its layout."""
    good = codec.encode_counts(Counts({LIFE: Count(T, 0, 2, T), AD: Count(T, 0, 2, T)}, [1]))
    swapped = good[:8] + good[32:56] + good[8:32] + good[56:]
    for broken in (b"", b"RC", good[:-1], good + b"x", b"RP" + good[2:], swapped, b"RC\x09" * 3,
                   good[:4] + b"\xff\xff" + good[6:]):  # fmt: skip
        Filter(node.board).add(PERSON)
        node.kept[PERSON] = broken
        node.refresh()
        assert node.workers[0].view([KEY], None, None, NOW) is None


def test_everybody_is_looked_for_before_the_filter_is_whole(node: Node) -> None:
    """A board that is new tells of nobody, so it is not asked."""
    node.board.header["ready"] = 0
    node.kept[PERSON] = codec.encode_counts(Counts({LIFE: Count(T, 0, 2, T)}, []))
    node.refresh()
    assert [0, 2, 0] == counts_of(node.workers[0])


def test_a_full_set_refuses_bids_and_takes_impressions(node: Node) -> None:
    """No bid goes out that cannot be counted; an impression takes the least missed place."""
    a, b = node.workers
    for number in range(WAYS):
        assert a.bid(PERSON, bid(number), LINE, BARE, NOW + number)
    assert not a.bid(PERSON, bid(99), LINE, BARE, NOW + 50)
    assert 1 == a.refused
    assert b.bid(PERSON, bid(98, 1), LINE, BARE, NOW + 50)
    for number in range(WAYS):
        a.shown(PERSON, bid(100 + number, 1), LINE, BARE, 1 + number, NOW + 60 + number)
    assert [WAYS + 1] * 2 == counts_of(b, NOW + 80)[:2]
    assert WAYS == a.given_up
    a.shown(PERSON, bid(110, 1), LINE, BARE, 20, NOW + 90)
    assert WAYS + 1 == a.given_up
    node.count(0, 20, PERSON, Counts())
    node.refresh()
    assert a.bid(PERSON, bid(99), LINE, BARE, NOW + 95)


def test_bids_on_one_request_count_for_the_next_of_it(node: Node) -> None:
    """A cap's last place goes to one of them; the next look begins from what the board says."""
    a = node.workers[0]
    a.shown(PERSON, bid(0), LINE, CREATIVE, 1, NOW)
    record = codec.encode(Profile(caps={HOUR: (T - 10, 4)}))
    for key, profile, places in ((None, None, [1, 5]), (KEY, record, [1, 1])):
        for creative, most in zip((CREATIVE, BARE), places, strict=True):
            a.view([KEY], key, profile, NOW)
            for number in range(most):
                assert a.allows(LINE, creative, NOW)
                assert a.bid(PERSON, bid(1 + number), LINE, creative, NOW)
            assert not a.allows(LINE, creative, NOW)
            assert a.allows(BARE, BARE, NOW)
            for number in range(most):
                a.lost(PERSON, bid(1 + number), NOW)


def test_bids_on_one_request_without_counts(node: Node) -> None:
    """Caps of the record alone, or of nobody, are filled by the request's own bids."""
    a = node.workers[0]
    record = codec.encode(Profile(segments=[1], caps={AD: (T, 1)}))
    for profile, places in ((record, 1), (None, 2), (b"RP no record", 2)):
        a.view([KEY], None if profile is None else KEY, profile, NOW)
        for number in range(places):
            assert a.allows(LINE, CREATIVE, NOW)
            assert a.bid(PERSON, bid(number), LINE, CREATIVE, NOW)
        assert not a.allows(LINE, CREATIVE, NOW)
        assert a.allows(LINE, CREATIVE, NOW + 60_000)
        for number in range(places):
            a.lost(PERSON, bid(number), NOW)


def test_a_killed_worker_leaves_its_entries(node: Node) -> None:
    """Its successor takes them over, whatever became of the tags; not those of another journal."""
    a, b = node.workers
    a.bid(PERSON, bid(1), LINE, BARE, NOW)
    a.shown(PERSON, bid(2), LINE, BARE, 3, NOW)
    node.board.tags[:, 0] = 0xAA
    node.workers[0] = node.start(0)
    assert [2, 2, 0] == counts_of(b) == counts_of(node.workers[0])
    assert 1 == int((node.board.tags[:, 0] != 0).sum())
    assert [1, 1, 0] == counts_of(b, NOW + 2_000)
    node.start(0, identity=1_000)
    assert [0, 0, 0] == counts_of(b)
    assert not node.board.tags.any()


def test_a_clock_that_is_set_back(node: Node) -> None:
    """A bid of the near future counts, for clocks differ; one of the far future does not."""
    a, b = node.workers
    a.bid(PERSON, bid(1), LINE, BARE, NOW + 5)
    assert [1, 1, 0] == counts_of(b, NOW)
    assert [0, 0, 0] == counts_of(b, NOW - 60_000)
    a.tidy(NOW - 60_000)
    assert not node.board.tags.any()


def test_a_worker_that_the_board_does_not_know(node: Node) -> None:
    """A number beyond the board's is a mistake of whoever starts it."""
    with pytest.raises(ConfigError, match="worker 2"):
        node.twin(node.board, 2, 0, 7)


# -- both twins, any order of events ---------------------------------------------------------------

PEOPLE = [b"i:%d" % number for number in range(4)]
HASHES = [token_hash(Dim.PERSON, key) for key in PEOPLE]
EVENTS = st.tuples(
    st.sampled_from(
        ["bid", "allows", "shown", "lost", "tidy", "count", "refresh", "restart", "view"]
    ),
    st.integers(0, 1),  # worker
    st.integers(0, 3),  # person
    st.integers(0, 11),  # bid
    st.sampled_from([0, 1, 40, 700, 2_100, 11_000]),  # time that passes, ms
)


@settings(max_examples=150, deadline=None)
@given(events=st.lists(EVENTS, max_size=60), with_record=st.booleans())
def test_twins_agree(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], with_record: bool
) -> None:
    """The same events leave the same bytes on two boards, and the same views."""
    directory = tmp_path_factory.mktemp("boards")
    nodes = [Node(directory / str(n), twin, given=with_record) for n, twin in
             enumerate((readable.Caps, compiled.Caps))]  # fmt: skip
    now_ms = NOW
    for sequence, (what, worker, person, number, passes_ms) in enumerate(events, start=1):
        now_ms += passes_ms
        results = [_play(node, what, worker, person, number, sequence, now_ms) for node in nodes]
        assert results[0] == results[1]
        for name in ("sets", "tags", "seen", "worker"):
            ours, theirs = (getattr(node.board, name).tobytes() for node in nodes)
            assert ours == theirs


def _play(
    node: Node, what: str, worker: int, person: int, number: int, sequence: int, now_ms: int
) -> Any:
    caps, hash_, one = node.workers[worker], HASHES[person], bid(number, number & 1)
    ad = (LINE, CREATIVE if number & 2 else BARE)
    if what == "bid":
        return caps.bid(hash_, one, *ad, now_ms)
    if what == "allows":
        return caps.allows(*ad, now_ms)
    if what == "shown":
        return caps.shown(hash_, one, *ad, sequence, now_ms)
    if what == "lost":
        return caps.lost(hash_, one, now_ms)
    if what == "tidy":
        return caps.tidy(now_ms, 3)
    if what == "count":
        bids = [bid(n, n & 1) for n in range(number)]
        entries = {LIFE: Count(now_ms // 1000, 0, number, 0), AD: Count(T, 60, 1 + person, 0)}
        follow = {HASHES[n]: codec.Link(T, bool(number & 1 + n)) for n in range(number % 4)}
        counts = Counts(entries if number > 2 else {}, bids, follow, number == 10)
        return node.count(worker, sequence - 2, hash_, counts)
    if what == "refresh":
        return caps.refresh(now_ms, node.views[worker].renew)
    if what == "restart":
        node.workers[worker] = node.start(worker, 7 if number < 9 else 70, now_ms)
        return None
    record = codec.encode(Profile(caps={LIFE: (T, 1), HOUR: (T, 2)})) if number & 4 else None
    keys = PEOPLE[person:] if number & 1 else [PEOPLE[person]]
    key, is_test = PEOPLE[person] if record else None, number == 3
    counts = _counts(node, [*([key] if key else []), *keys], number) if node.given else ()
    view = caps.view(keys, key, record, now_ms, counts, is_test)
    return view and bytes(view), caps.person, list(node.links)


def _counts(node: Node, keys: list[bytes], number: int) -> list[bytes | None]:
    """Counts as a store sends them: of keys, and mostly of all others; or nothing."""
    if number == 11:
        return []
    others = [one for n, one in enumerate(HASHES) if n != number]
    return [node.kept.get(token_hash(Dim.PERSON, key)) for key in keys] + [
        one.to_bytes(8, "little") + node.kept.get(one, b"") for one in others
    ]


MANY = [b"e:s:%d" % number for number in range(16)]
MANY_HASHES = [token_hash(Dim.PERSON, key) for key in MANY]


@pytest.mark.parametrize("given_too", [True, False], ids=["redis", "lmdb"])
def test_twins_agree_on_many_keys(tmp_path: Path, given_too: bool) -> None:
    """Requests of up to sixteen ids, of people who are linked to any of them."""
    chance, seen = random.Random(7), set()
    for world in range(60):
        nodes = [Node(tmp_path / f"{world}-{n}", twin, given=given_too) for n, twin in
                 enumerate((readable.Caps, compiled.Caps))]  # fmt: skip
        for person in chance.sample(MANY_HASHES, 6):
            shown = {LIFE: Count(T, 0, chance.randint(1, 5), T)} if chance.random() < 0.7 else {}
            linked = chance.sample(MANY_HASHES, chance.randint(0, 4))
            links = {one: codec.Link(T, chance.random() < 0.7) for one in linked if one != person}
            for node in nodes:
                node.count(0, 1, person, Counts(shown, [], links))
        for node in nodes:
            node.refresh()
        for number in range(12):
            keys = chance.sample(MANY, chance.randint(1, len(MANY)))
            key = chance.choice([None, None, keys[0], b"b:of a link"])
            record = None if key is None else codec.encode(Profile(segments=[1]))
            results = []
            for node in nodes:
                caps, asked = node.workers[number & 1], [*([key] if key else []), *keys]
                counts = _counts_of(node, asked) if given_too else ()
                view = caps.view(keys, key, record, NOW, counts, number == 5)
                went = caps.bid(caps.person, bid(number), LINE, CREATIVE, NOW)
                results.append((view and bytes(view), caps.person, went, list(node.links)))
            assert results[0] == results[1]
            seen.add((bool(results[0][0]), results[0][2], len(keys) > 8))
    assert len(seen) > 4


def _counts_of(node: Node, keys: list[bytes]) -> list[bytes | None]:
    """As Redis answers: counts of the keys, then of whom those lead to and nobody asked for."""
    asked = {token_hash(Dim.PERSON, key) for key in keys}
    own = [node.kept.get(token_hash(Dim.PERSON, key)) for key in keys]
    others = {
        person: None
        for one in own if one is not None
        for person, link in codec.decode_counts(one).links.items()
        if link.follow and person not in asked
    }  # fmt: skip
    return own + [one.to_bytes(8, "little") + node.kept.get(one, b"") for one in others]
