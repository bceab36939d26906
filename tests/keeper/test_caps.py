"""Frequency caps over workers, journals, keeper and store: nothing missed, nothing twice."""

import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rtb._ext import caps as compiled
from rtb.base.errors import InvariantError, StoreError
from rtb.base.events import LINK, LINK_VERSION, ClaimFlag, Kind, Way, bid_id
from rtb.base.hashing import token_hash
from rtb.base.records import Dim
from rtb.keeper.caps import COUNTED_KINDS, CapsKeeper, Fate, Settings, Stretch
from rtb.keeper.tail import Tail, Tails
from rtb.profiles import codec
from rtb.stores import caps as readable
from rtb.stores.caps import Limits
from rtb.stores.caps_board import CapsBoard, Sizes
from rtb.stores.caps_table import CapsTable
from rtb.stores.counts_lmdb import CountsStore
from rtb.stores.journal import Record
from rtb.stores.journal_write import Journal
from rtb.stores.profiles_lmdb import ProfileStore
from tests.keeper.node import SIZES
from tests.keeper.records import claims, notice_body
from tests.stores.journals import COMPILED, Disk

T = 1_790_000_000
NOW = T * 1000
LINE, CREATIVE, BARE = 11, 12, 13
HOUR, LIFE, AD = 101, 102, 103
WINDOWS_S = {HOUR: 3600, LIFE: 0, AD: 60}
TABLE = CapsTable(
    np.array([LINE, CREATIVE], np.uint64), np.array([0, 2]), np.array([2, 1]),
    np.array([HOUR, LIFE, AD], np.uint64), np.array([3600, 0, 60]), np.array([6, 40, 2]),
)  # fmt: skip
KEYS = [b"i:one", b"i:two"]
PERSONS = [token_hash(Dim.PERSON, key) for key in KEYS]
TWINS = (readable.Caps, compiled.Caps)
IDENTITY = 0xABC


class Killed(BaseException):
    """The keeper ends where it stands."""


class Fragile(CountsStore):
    """A store whose writer can be killed before and after its commit, or be refused."""

    fate = ""

    def count(self, *arguments: Any) -> int:
        fate, self.fate = self.fate, ""
        if fate == "before":
            raise Killed
        if fate == "refused":
            raise StoreError("injected")
        changed = super().count(*arguments)
        if fate == "after":
            raise Killed
        return changed


def impression(
    person: int, bid: int, time_ms: int, creative: int = CREATIVE, flags: int = 0,
    line_item: int = LINE,
) -> bytes:  # fmt: skip
    """The body of an impression's record."""
    said = claims(bid, line_item, flags=flags)
    said["person"], said["creative"] = person, creative
    return notice_body(said, time_ms)


class Place:
    """One machine: board, store, and a worker of each twin that keeps records of its own."""

    def __init__(self, folder: Path, sets_count: int = 4) -> None:
        self.board = CapsBoard.create(folder / "run" / "caps", 2, Sizes(sets_count, 64))
        (folder / "profiles").mkdir()
        self.environment = lmdb.open(str(folder / "profiles"), map_size=1 << 24, sync=False)
        self.store = Fragile(ProfileStore(self.environment, readonly=False))
        self.readers = [ProfileStore(self.environment, readonly=True) for _ in TWINS]
        self.records: list[list[Record]] = [[], []]
        self.workers = [self.start(worker) for worker in (0, 1)]
        self.keeper = CapsKeeper(self.store, self.board, TABLE)
        for _ in range(self.keeper._settings.tidy_steps):
            self.keeper.tidy(T)

    def start(self, worker: int, now_ms: int = NOW) -> Any:
        reader = self.readers[worker]
        found = TWINS[worker](
            self.board, worker, 0, IDENTITY + worker, Limits(), reader.counts,
            lambda kind, body: self.append(worker, kind, body),
        )  # fmt: skip
        found.serve(TABLE)
        found.refresh(now_ms, reader.refresh)
        return found

    def refresh(self, worker: int, now_ms: int) -> None:
        self.workers[worker].refresh(now_ms, self.readers[worker].refresh)

    def append(self, worker: int, kind: int, body: bytes) -> int:
        """A record of a worker's journal; its sequence."""
        sequence = len(self.records[worker]) + 1
        self.records[worker].append((sequence, int(kind), body))
        return sequence

    def shown(self, worker: int, person: int, bid: int, creative: int, now_ms: int) -> None:
        """A notice of an impression arrives: journal, board, and then its answer."""
        body = impression(person, bid, now_ms, creative)
        sequence = self.append(worker, Kind.IMPRESSION, body)
        self.workers[worker].shown(person, bid, LINE, creative, sequence, now_ms)

    def turn(self, most: int = 1_000) -> None:
        """The keeper's; killed if the store says so."""
        reads = []
        for worker, records in enumerate(self.records):
            name = f"0/{worker}/{IDENTITY + worker:016x}"
            after = self.keeper.positions.get(name, 0)
            reads.append(stretch(name, records[after : after + most]))
        try:
            self.keeper.apply(reads)
        except Killed:
            self.keeper = CapsKeeper(self.store, self.board, TABLE)
        except StoreError:
            pass

    def view(self, worker: int, number: int, now_ms: int) -> dict[int, tuple[int, int]]:
        """Start and count of each cap whose window is open, as a worker sees it."""
        record = self.workers[worker].view([KEYS[number]], None, None, now_ms)
        caps = {} if record is None else codec.decode(bytes(record)).caps
        return {cap: one for cap, one in caps.items() if is_open(cap, one[0], now_ms)}

    def close(self) -> None:
        for reader in self.readers:
            reader._end()
        self.environment.close()


def is_open(cap: int, start_s: int, now_ms: int) -> bool:
    return not WINDOWS_S[cap] or now_ms < (start_s + WINDOWS_S[cap]) * 1000


def stretch(name: str, records: list[Record]) -> Stretch:
    """Records that follow one another, as a reader of all kinds has them."""
    first, last = (records[0][0], records[-1][0]) if records else (1, 0)
    return Stretch(name, first - 1, last, records)


def plain_count(times_ms: list[int], cap: int) -> tuple[int, int]:
    """Start and count of a cap's last window after impressions at these times, one by one."""
    start_s = count = 0
    window_s = WINDOWS_S[cap]
    for time_ms in times_ms:
        up_s = -(-time_ms // 1000)
        if count == 0 or not is_open(cap, start_s, time_ms):
            start_s, count = up_s, 1
        elif not window_s or up_s + window_s > start_s:
            count += 1
    return start_s, count


@pytest.fixture
def place(tmp_path: Path) -> Any:
    found = Place(tmp_path)
    yield found
    found.close()


# -- the keeper ------------------------------------------------------------------------------------


def test_what_counts(place: Place) -> None:
    """Impressions of persons and line items with caps; no tests, no other kinds, nothing broken."""
    bid = bid_id(T, 0, 0, 1)
    one = impression(5, bid, NOW)
    bodies = [one, one, impression(5, bid + 1, NOW, flags=ClaimFlag.TEST), impression(0, bid, NOW),
              impression(5, bid + 2, NOW, BARE, line_item=BARE), one[:-1], b"\x09" + one[1:],
              impression(5, bid + 3, 0)]  # fmt: skip
    records = [(number, int(Kind.IMPRESSION), body) for number, body in enumerate(bodies, start=1)]
    records += [(9, int(Kind.CLICK), one), (10, int(Kind.BID), b""), (11, 200, b"?")]
    assert 1 == place.keeper.apply([stretch("0/0/0abc", records)])
    fates = {Fate.GIVEN: 2, Fate.TEST: 1, Fate.NOBODY: 1, Fate.NO_CAPS: 1, Fate.BROKEN: 3}
    assert fates == place.keeper.fates
    assert {"0/0/0abc": 11} == place.keeper.positions
    place.readers[0].refresh()
    counts = place.readers[0].counts(5)
    assert counts is not None
    found = codec.decode_counts(counts)
    assert [bid] == found.bids
    assert {HOUR: 1, LIFE: 1, AD: 1} == {cap: one.shown for cap, one in found.counts.items()}


def linked(person: int, *others: tuple[int, int], time_ms: int = NOW) -> bytes:
    """The body of a link's record: others, and in which ways."""
    row = np.zeros(1, LINK)[0]
    row["version"], row["count"], row["time_ms"] = LINK_VERSION, len(others), time_ms
    row["person"] = person
    for number, (other, ways) in enumerate(others):
        row["others"][number], row["ways"][number] = other, ways
    return row.tobytes()


def test_links_go_to_both_ends(place: Place) -> None:
    """The filter tells of who leads somewhere, and a record that is broken is passed over."""
    body = linked(5 << 60, (6 << 60, Way.TO_PERSON), (7 << 60, Way.TO_PERSON | Way.FROM_PERSON))
    broken = [body[:-1], b"\x09" + body[1:], body[:1] + b"\x08" + body[2:], linked(5, time_ms=0)]
    records = [(n, int(Kind.LINK), one) for n, one in enumerate([body, body, *broken], start=1)]
    assert 3 == place.keeper.apply([Stretch("0/0/0abc", 0, 6, records)])
    assert {Fate.LINKED: 2, Fate.BROKEN: 4} == place.keeper.fates
    found = {}
    for number in (5, 6, 7):
        place.readers[0].refresh()
        counts = place.readers[0].counts(number << 60)
        assert counts is not None
        found[number] = {one >> 60: link.follow
                         for one, link in codec.decode_counts(counts).links.items()}  # fmt: skip
    assert {5: {6: False, 7: True}, 6: {5: True}, 7: {5: True}} == found
    bits = int(place.board.filter[0])
    shift = place.board.filter_shift
    assert [True] * 3 == [bool(bits >> (number << 60 >> shift) & 1) for number in (5, 6, 7)]
    one_way = (7, int(Kind.LINK), linked(9 << 60, (8 << 60, 1)))
    place.keeper.apply([Stretch("0/0/0abc", 6, 7, [one_way])])
    bits = int(place.board.filter[0])
    assert [True, False] == [bool(bits >> (number << 60 >> shift) & 1) for number in (8, 9)]


def test_records_are_counted_once_and_none_is_left_out(place: Place) -> None:
    """What comes again is passed over, in part or whole; a gap stops the keeper."""
    records = [(number, int(Kind.IMPRESSION), impression(5, bid_id(T, 0, 0, number), NOW))
               for number in range(1, 9)]  # fmt: skip
    assert 1 == place.keeper.apply([stretch("0/0/0abc", records[:3])])
    assert 0 == place.keeper.apply([stretch("0/0/0abc", records[:3])])
    assert 1 == place.keeper.apply([stretch("0/0/0abc", records[1:5])])
    with pytest.raises(InvariantError, match="records 6 to 6 were left out"):
        place.keeper.apply([stretch("0/0/0abc", records[6:])])
    assert {"0/0/0abc": 5} == place.keeper.positions


def test_a_position_is_not_written_for_every_batch(place: Place) -> None:
    """Records that are no impressions move it once there are many: a transaction has its price."""
    keeper = CapsKeeper(place.store, place.board, TABLE, Settings(position_every=5))
    for first in (1, 3):
        keeper.apply([stretch("0/0/0abc", [(first, int(Kind.BID), b""), (first + 1, 2, b"")])])
    assert {} == keeper.positions
    keeper.apply([stretch("0/0/0abc", [(5, int(Kind.BID), b"")])])
    assert {"0/0/0abc": 5} == keeper.positions == place.store.positions()


def test_the_board_learns_of_this_node_only(place: Place) -> None:
    """Positions of other nodes and of journals that are no more stay in the store."""
    place.store.count({}, {"1/0/0abc": 9, "0/7/0abc": 9, "0/1/0def": 9, "0/0/0abc": 4})
    keeper = CapsKeeper(place.store, place.board, TABLE)
    assert [4, 0] == place.board.keeper["counted"].tolist()
    place.store.count({}, {"1/0/0abc": 10})  # by the keeper of the other node
    body = impression(5, bid_id(T, 0, 0, 1), NOW)
    keeper.apply([stretch("0/0/0abc", [(5, int(Kind.IMPRESSION), body)])])
    assert (10, 5) == tuple(place.store.positions()[f"{node}/0/0abc"] for node in (1, 0))


def test_a_refused_batch_is_tried_again(tmp_path: Path, place: Place) -> None:
    """A turn that cannot be written holds its records; journals are read on where counts are."""
    journals = [Journal.open(tmp_path, worker, SIZES, COMPILED, Disk(salt=worker + 5).world())
                for worker in (0, 1)]  # fmt: skip
    for number, journal in enumerate(journals):
        journal.append(Kind.BID, b"passed over")
        journal.append(Kind.IMPRESSION, impression(5, bid_id(T, 0, number, 1), NOW))
        journal.append(Kind.CLICK, b"passed over")
        journal.turn()
    positions = place.keeper.begin_at(tmp_path)
    assert [0, 0] == [*positions.values()]
    tails = Tails(lambda worker: Tail(tmp_path, 0, worker, COMPILED, positions, COUNTED_KINDS))
    for worker in (0, 1):
        tails.of(worker)
    place.store.fate = "refused"
    assert 0 == place.keeper.step(tails, NOW)
    assert "injected" in place.keeper.fault
    assert 6 == place.keeper.step(tails, NOW)
    assert ("", {Fate.GIVEN: 2}) == (place.keeper.fault, place.keeper.fates)
    assert 0 == place.keeper.step(tails, NOW)
    assert positions.keys() == place.keeper.positions.keys()
    assert [3, 3] == [*place.keeper.begin_at(tmp_path).values()]
    tails.close()
    for journal in journals:
        journal.close()


def test_the_filter_is_renewed(place: Place) -> None:
    """A walk over the store drops what is spent, and its bits; the board is ready after one."""
    place.shown(0, PERSONS[0], bid_id(T, 0, 0, 1), CREATIVE, NOW)
    place.turn()
    assert place.keeper.ready
    words = place.board.filter.copy()
    assert words.any()
    place.board.filter[:] = (1 << 64) - 1
    assert 1 == place.keeper.tidy(T)
    assert (words == place.board.filter).all()
    assert 0 == place.keeper.tidy(T + 500 * 86_400)
    assert not place.board.filter.any()


# -- all of it together ----------------------------------------------------------------------------


@dataclass
class Bid:
    """What the oracle knows of a bid."""

    person: int
    creative: int
    worker: int
    time_ms: int
    counted_in_flight: bool
    lost: bool = False


@dataclass
class Seen:
    """The store as a reader saw it last: how many impressions, and the positions told before."""

    counted: int = 0
    positions: tuple[int, int] = (0, 0)


@dataclass
class Told:
    """A record of an impression."""

    bid: int
    worker: int
    sequence: int
    time_ms: int


@dataclass
class Truth:
    """A plain list of all that happened."""

    bids: dict[int, Bid] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    counted: list[Told] = field(default_factory=list)  # by the keeper, in its order
    positions: list[int] = field(default_factory=lambda: [0, 0])
    seen: list[Seen] = field(default_factory=lambda: [Seen(), Seen()])

    def expected(self, reader: int, person: int, now_ms: int) -> dict[int, tuple[int, int]]:
        """What a worker must see of a person."""
        seen = self.seen[reader]
        stored = self.counted[: seen.counted]
        done = {one.bid for one in stored}
        done |= {one.bid for one in self.told if one.sequence <= seen.positions[one.worker]}
        pending: dict[int, Told] = {}
        for one in self.told:
            if one.bid not in done:
                first = pending.setdefault(one.bid, one)
                pending[one.bid] = min(first, one, key=lambda told: told.time_ms)
        late = sorted(pending.values(), key=lambda told: (told.time_ms, told.bid))
        shown = {one.bid for one in self.told}
        flying = [
            Told(bid, one.worker, 0, now_ms)
            for bid, one in sorted(self.bids.items())
            if bid not in shown and one.counted_in_flight and not one.lost
            and now_ms - one.time_ms < 2_000
        ]  # fmt: skip
        found = {}
        for cap in WINDOWS_S:
            times_ms = [
                one.time_ms for one in (*stored, *late, *flying)
                if self.bids[one.bid].person == person
                and (cap != AD or self.bids[one.bid].creative == CREATIVE)
            ]  # fmt: skip
            start_s, count = plain_count(times_ms, cap)
            if count and is_open(cap, start_s, now_ms):
                found[cap] = (start_s, count)
        return found


class Caps(RuleBasedStateMachine):
    """Random bids, losses, impressions, duplicates, turns and kills, against the plain list.

    What is in flight at once is bounded, so that no set of the board overflows.
    """

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.place, self.truth = Place(self.folder), Truth()
        self.now_ms, self.made, self.crowd = NOW, itertools.count(1), 0
        self.refreshed_ms = [NOW, NOW]

    def teardown(self) -> None:
        self.place.close()
        shutil.rmtree(self.folder)

    @precondition(lambda self: self.crowd < 8)
    @rule(worker=st.integers(0, 1), number=st.integers(0, 1),
          creative=st.sampled_from([CREATIVE, BARE]))  # fmt: skip
    def bid(self, worker: int, number: int, creative: int) -> None:
        bid = bid_id(self.now_ms // 1000, 0, worker, next(self.made))
        person = PERSONS[number]
        went = self.place.workers[worker].bid(person, bid, LINE, creative, self.now_ms)
        assert went == (self.now_ms - self.refreshed_ms[worker] < 10_000)
        self.truth.bids[bid] = Bid(number, creative, worker, self.now_ms, went)
        self.crowd += 1

    @precondition(lambda self: self.truth.bids and self.crowd < 8)
    @rule(worker=st.integers(0, 1), choice=st.integers(0, 1 << 20))
    def shown(self, worker: int, choice: int) -> None:
        bid = self._choose(choice)
        one = self.truth.bids[bid]
        self.place.shown(worker, PERSONS[one.person], bid, one.creative, self.now_ms)
        sequence = len(self.place.records[worker])
        self.truth.told.append(Told(bid, worker, sequence, self.now_ms))
        self.crowd += 1

    @precondition(lambda self: self.truth.bids and self.crowd < 8)
    @rule(worker=st.integers(0, 1), choice=st.integers(0, 1 << 20))
    def lost(self, worker: int, choice: int) -> None:
        bid = self._choose(choice)
        self.place.workers[worker].lost(PERSONS[self.truth.bids[bid].person], bid, self.now_ms)
        self.truth.bids[bid].lost = True
        self.crowd += 1

    def _choose(self, choice: int) -> int:
        """One of the last bids, mostly."""
        return list(self.truth.bids)[-1 - choice % min(len(self.truth.bids), 6)]

    @precondition(lambda self: self.now_ms < NOW + 60_000_000)
    @rule(ms=st.sampled_from([1, 30, 400, 2_000, 59_000, 60_000, 3_599_500, 3_600_000]))
    def passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule(most=st.sampled_from([0, 1, 2, 100]), other=st.sampled_from([0, 1, 100]),
          fate=st.sampled_from(["", "", "before", "after", "refused"]))  # fmt: skip
    def turn(self, most: int, other: int, fate: str) -> None:
        """The keeper counts some records of each journal, and may die of it."""
        keeper, batch = self.place.keeper, []
        reads, reached = [], list(self.truth.positions)
        for worker, count in enumerate((most, other)):
            after = self.truth.positions[worker]
            records = self.place.records[worker][after : after + count]
            reads.append(stretch(f"0/{worker}/{IDENTITY + worker:016x}", records))
            reached[worker] += len(records)
            batch += [
                one for one in self.truth.told
                if one.worker == worker and after < one.sequence <= reached[worker]
            ]  # fmt: skip
        if not batch:
            return
        self.place.store.fate = fate
        try:
            keeper.apply(reads)
        except StoreError:
            return
        except Killed:
            self.place.keeper = CapsKeeper(self.place.store, self.place.board, TABLE)
            if fate == "before":
                return
        self.truth.positions = reached
        known = {one.bid for one in self.truth.counted}
        for one in sorted(batch, key=lambda told: (told.time_ms, told.bid)):
            if one.bid not in known:
                known.add(one.bid)
                self.truth.counted.append(one)

    @rule(worker=st.integers(0, 1))
    def refresh(self, worker: int) -> None:
        self.place.refresh(worker, self.now_ms)
        self.refreshed_ms[worker] = self.now_ms
        positions = (self.truth.positions[0], self.truth.positions[1])
        self.truth.seen[worker] = Seen(len(self.truth.counted), positions)

    @rule(worker=st.integers(0, 1))
    def tidy(self, worker: int) -> None:
        self.place.workers[worker].tidy(self.now_ms)

    @rule(worker=st.integers(0, 1))
    def restart(self, worker: int) -> None:
        self.place.workers[worker] = self.place.start(worker, self.now_ms)
        self.refresh(worker)

    @rule()
    def sweep(self) -> None:
        self.place.keeper.tidy(self.now_ms // 1000)

    @rule()
    def settle(self) -> None:
        """All is counted, seen and let go of."""
        self.now_ms += 2_000
        self.turn(1_000, 1_000, "")
        for worker in (0, 1, 0, 1):
            self.refresh(worker)
        for worker in (0, 1):
            self.tidy(worker)
        self.crowd = 0
        assert not self.place.board.tags.any()

    @invariant()
    def views_are_right(self) -> None:
        if not hasattr(self, "place"):
            return
        for reader, number in itertools.product((0, 1), (0, 1)):
            if self.now_ms - self.refreshed_ms[reader] >= 10_000:
                continue  # may miss something, and may not bid
            expected = self.truth.expected(reader, number, self.now_ms)
            assert expected == self.place.view(reader, number, self.now_ms)


TestCaps = Caps.TestCase
TestCaps.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("seed", range(6))
def test_sequential_requests_never_exceed_a_cap(tmp_path: Path, seed: int) -> None:
    """Request, bid, impression, next request, at any worker, with the keeper at any time or dead:
    there is a bid just when the plain count says that there may be one.
    """
    chance, place = random.Random(seed), Place(tmp_path)
    most = {HOUR: 6, LIFE: 40, AD: 2}
    times_ms: list[int] = []
    now_ms, refreshed_ms, capped, stale = NOW, [NOW, NOW], 0, 0
    for number in range(600):
        now_ms += chance.choice([0, 1, 300, 2_500, 20_000, 61_000])
        for worker in (0, 1):
            if chance.random() < 0.5:
                place.refresh(worker, now_ms)
                refreshed_ms[worker] = now_ms
        bidder, pixel = chance.randrange(2), chance.randrange(2)
        plain = {cap: plain_count(times_ms, cap) for cap in WINDOWS_S}
        allowed = all(count < most[cap] or not is_open(cap, start_s, now_ms)
                      for cap, (start_s, count) in plain.items())  # fmt: skip
        seen = place.view(bidder, 0, now_ms)
        bid = bid_id(now_ms // 1000, 0, bidder, number)
        goes = all(seen.get(cap, (0, 0))[1] < most[cap] for cap in WINDOWS_S)
        goes = goes and place.workers[bidder].bid(PERSONS[0], bid, LINE, CREATIVE, now_ms)
        fresh = now_ms - refreshed_ms[bidder] < 10_000
        assert goes == (allowed and fresh)
        if goes:
            now_ms += chance.choice([0, 50, 900])
            times_ms.append(now_ms)
            place.shown(pixel, PERSONS[0], bid, CREATIVE, now_ms)
        capped += not allowed
        stale += not fresh
        if chance.random() < 0.4:
            place.store.fate = chance.choice(["", "", "", "before", "after", "refused"])
            place.turn()
            place.store.fate = ""
        for worker in (0, 1):
            if chance.random() < 0.1:
                place.workers[worker] = place.start(worker, now_ms)
                refreshed_ms[worker] = now_ms
            place.workers[worker].tidy(now_ms)
    assert 0 == sum(worker.given_up for worker in place.workers)
    assert min(capped, stale, len(times_ms)) > 8
    place.close()


@pytest.mark.parametrize("seed", range(6))
def test_a_cap_holds_whichever_ids_come(tmp_path: Path, seed: int) -> None:
    """Requests with any of five ids, at any worker, with the keeper at any time or dead: keys that
    came together have one count, just that of a plain list.
    """
    chance, place = random.Random(seed), Place(tmp_path, 256)
    most, capped, joined = 9, 0, 0
    for person in range(12):
        keys = [b"%d:%d" % (number, person) for number in range(5)]
        sets = [{key} for key in keys]  # of keys that are one person
        counts = [0] * 5  # by set
        for number in range(30):
            now_ms = NOW + 40_000_000 * person + 10_000 * number
            for worker in (0, 1):
                place.refresh(worker, now_ms)
            bidder, pixel = chance.randrange(2), chance.randrange(2)
            asked = [key for key in keys if chance.random() < 0.3] or [chance.choice(keys)]
            met = [n for n, one in enumerate(sets) if not one.isdisjoint(asked)]
            count = sum(counts[n] for n in met)
            record = place.workers[bidder].view(asked, None, None, now_ms)
            caps = {} if record is None else codec.decode(bytes(record)).caps
            assert count == caps.get(LIFE, (0, 0))[1]
            bid = bid_id(now_ms // 1000, 0, bidder, number)
            goes = count < most and chance.random() < 0.7
            if goes:
                chosen = place.workers[bidder].person
                assert place.workers[bidder].bid(chosen, bid, LINE, BARE, now_ms)
                place.shown(pixel, chosen, bid, BARE, now_ms + 1)
            if goes or count:
                joined += len(met) > 1
                sets.append(set().union(*(sets[n] for n in met)))
                counts.append(count + goes)
                for n in reversed(met):
                    del sets[n], counts[n]
            capped += count == most
            if chance.random() < 0.4:
                place.store.fate = chance.choice(["", "", "", "before", "after", "refused"])
                place.turn()
                place.store.fate = ""
            if number % 5 == 4:  # no set of the board overflows
                place.turn()
            for worker in (0, 1):
                if chance.random() < 0.1:
                    place.workers[worker] = place.start(worker, now_ms)
                place.workers[worker].tidy(now_ms)
    assert 0 == sum(worker.given_up for worker in place.workers)
    assert min(capped, joined) > 20
    place.close()


CHILD = """
import json, sys
from pathlib import Path
from rtb._ext.caps import Caps
from rtb.profiles import codec
from rtb.stores.caps import Limits
from rtb.stores.caps_board import CapsBoard
from rtb.stores.profiles_lmdb import ProfileStore
from tests.keeper.test_caps import IDENTITY, KEYS, TABLE
folder = Path(sys.argv[1])
store = ProfileStore.open(folder / "profiles")
caps = Caps(CapsBoard.open(folder / "run" / "caps"), 1, 0, IDENTITY + 1, Limits(), store.counts)
caps.serve(TABLE)
caps.refresh(int(sys.argv[2]), store.refresh)
for line in sys.stdin:
    what, now_ms = line.split()
    if what == "refresh":
        caps.refresh(int(sys.argv[2]), store.refresh)
    record = caps.view([KEYS[0]], None, None, int(now_ms))
    counts = {} if record is None else codec.decode(bytes(record)).caps
    print(json.dumps(sorted(one[1] for one in counts.values())), flush=True)
"""


def test_another_process_sees_it_at_once(tmp_path: Path) -> None:
    """An impression that one worker took is counted by the next request at another one, before,
    while and after it goes into the store.
    """
    place = Place(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), str(NOW)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    ) as child:  # fmt: skip

        def ask(what: str) -> list[int]:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(f"{what} {NOW}\n")
            child.stdin.flush()
            found: list[int] = json.loads(child.stdout.readline())
            return found

        assert [] == ask("view")
        bid = bid_id(T, 0, 0, 1)
        place.workers[0].bid(PERSONS[0], bid, LINE, BARE, NOW)
        assert [1, 1] == ask("view")
        place.shown(0, PERSONS[0], bid, BARE, NOW)
        assert [1, 1] == ask("view")
        place.turn()
        place.refresh(0, NOW)
        place.workers[0].tidy(NOW)
        assert [1, 1] == ask("view")
        assert [1, 1] == ask("refresh")
        place.refresh(0, NOW)
        place.workers[0].tidy(NOW)
        assert not place.board.tags.any()
        assert [1, 1] == ask("view")
        assert child.stdin is not None
        child.stdin.close()
        assert 0 == child.wait(10)
    place.close()
