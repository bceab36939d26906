"""Frequency caps as a worker sees them: counts of the store and what the board adds, one record.

    view     before the decision: the person's record, with what was shown and is in flight
    allows   before a further bid on the same request: whether those before it leave room
    bid      a bid goes out: counts at once, for all workers of the node
    lost     a loss notice: the bid counts no more
    shown    an impression: counts until the keeper has put it into the store
    refresh  a few times a second: a newer view of the store

`ext/caps.pyx` is the compiled twin. Both work on the same board (`rtb.stores.caps_board`).

Who is asked about. A person is the hash of the key under which its record lies; without a record,
of the first key of the request that has counts; else of one that a key is linked to; else of the
first key. Counts under all keys of the request, and all that they are linked to, are looked at, so
one who was first seen by a device id alone keeps them when another id comes along. A person who
opted out is nobody: 0. A key that came together with a crowd counts only when it comes alone.

Who is linked. Keys without a record that come together, once there is something to share: when one
of them has counts, or when a bid with caps goes out. At once on the board, and for good by a record
of the journal, from which the keeper puts them to the counts. Each of those that were looked at
leads to the person that is counted from then on; and that person to each that has counts or links
of its own. So whoever of them comes next finds all counts, and a link is written once.

What counts. The store's counts; and each bid in the board that they do not name and that was
neither lost nor given up by time, shown ones in the order of time, then those in flight as of now.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from rtb.base.errors import ConfigError, StoreError
from rtb.base.events import LINK, LINK_VERSION, Kind, Way
from rtb.profiles import codec
from rtb.profiles.record import ENTRIES_MAX, ENTRY, OPT_OUT
from rtb.profiles.reducers import folded
from rtb.stores import caps_merge, caps_people
from rtb.stores.caps_board import IN_FLIGHT, LOST, WAYS, CapsBoard
from rtb.stores.caps_people import ALIASES_MAX, NO_BID, Found, Known
from rtb.stores.caps_table import CapsTable
from rtb.stores.profiles import Record

Stored = Callable[[int], Record | None]
Append = Callable[[int, bytes], int]

_MS: Final = 1000
_WORKER_SHIFT: Final = 16  # of a bid's id
_NODE_SHIFT: Final = 24


@dataclass(frozen=True)
class Limits:
    """Times, each with its reason.

    in_flight_ms   2,000: auctions end within a second, and most impressions are told in another
                   one; what comes later counts from then on
    reader_ms_max  10,000: a worker that has not looked at the store for so long makes no bid that
                   has caps, so entries need not wait for one that is dead
    """

    in_flight_ms: int = 2_000
    reader_ms_max: int = 10_000


class Caps:
    """One worker's frequency caps. One thread, the loop's, calls all methods.

    identity  of the worker's journal: entries that another journal left behind are dropped
    stored    the counts of a person in the store that `refresh` looks at; None where they come with
              the record (`view`)
    person    of the last `view`; 0: nobody to count for
    """

    def __init__(
        self,
        board: CapsBoard,
        worker: int,
        node: int,
        identity: int,
        limits: Limits = Limits(),
        stored: Stored | None = None,
        append: Append | None = None,
    ) -> None:
        if not 0 <= worker < board.workers_count:
            raise ConfigError(f"worker {worker} of a caps board for {board.workers_count}")
        self._board, self._worker, self._node, self._limits = board, worker, node, limits
        self._stored, self._append = stored, append
        self._sets, self._mine = board.sets[worker], board.worker[worker]
        self._table = CapsTable.empty()
        self._seen = [0] * board.workers_count
        self._read = [0] * board.workers_count
        # Counted, as all who may bid see: because they say so, or since long ago.
        self._everywhere = self._long_ago = 0
        self._mark_ms = self._mark = 0
        self._refreshed_ms = 0
        self._swept = 0
        # Of the request in hand: the record that was decided by, and what was bid on it since.
        self._viewed: Record | None = None
        self._made: list[tuple[int, int, int]] = []
        self._apart: list[tuple[int, Way]] = []  # who is not linked to the person yet, and how
        self._blind = False  # counts are missing that the store has
        self.person = 0
        self._start(identity)

    def _start(self, identity: int) -> None:
        """Takes over what a worker before this one left: its entries are right, its tags perhaps
        not.
        """
        if self._mine["identity"] != identity:
            self._sets["person"] = 0
            self._mine["identity"] = identity
        persons = self._sets["person"]
        bits = np.where(persons == 0, 0, 1 << (persons & np.uint64(7)).astype(np.uint8))
        self._board.tags[:, self._worker] = np.bitwise_or.reduce(bits, axis=1)
        self._board.seen[self._worker] = 0

    def serve(self, table: CapsTable) -> None:
        """Puts the caps of a new snapshot in force."""
        self._table = table

    @property
    def refused(self) -> int:
        """Bids that were refused since the board was made."""
        return int(self._mine["refused"])

    @property
    def given_up(self) -> int:
        """Entries overwritten before their time, and links without a place, since the board was
        made.
        """
        return int(self._mine["given_up"])

    # -- the store's view -------------------------------------------------------------------------

    def refresh(self, now_ms: int, renew: Callable[[], object] | None = None) -> None:
        """Goes on to a newer view of the store, and says so on the board; before the first bid, and
        a few times a second.

        renew: makes what `stored` reads as new as the store is now. Without it counts come with
            records, and each is at least as new as the `refresh` before this one.
        """
        counted = self._counted()
        if renew is not None:
            renew()
            self._seen = counted
        else:
            self._seen, self._read = self._read, counted
        seen = self._board.seen
        seen[self._worker, : len(self._seen)] = self._seen
        self._everywhere = int(seen[:, self._worker].min())
        self._refreshed_ms = now_ms
        if not 0 <= now_ms - self._mark_ms < self._limits.reader_ms_max:
            self._long_ago = self._mark if now_ms > self._mark_ms else 0
            self._mark_ms, self._mark = now_ms, self._seen[self._worker]

    def _counted(self) -> list[int]:
        """How far the keeper has come with each journal; 0 for one that it does not know yet."""
        keeper, worker = self._board.keeper, self._board.worker
        known = keeper["identity"] == worker["identity"]
        return [int(one) for one in np.where(known, keeper["counted"], 0)]

    # -- before the decision ----------------------------------------------------------------------

    def view(
        self,
        keys: Sequence[bytes],
        key: bytes | None,
        profile: Record | None,
        now_ms: int,
        counts: Sequence[Record | None] = (),
        is_test: bool = False,
    ) -> Record | None:
        """The person's record with its caps up to date; `profile` itself where nothing is added.

        keys    of the request, most trusted first; key: where `profile` was found, None if nowhere
        counts  where there is no `stored`: those of `key`, if there is one, then of each of `keys`;
                then those that they are linked to, each behind its person's hash
        is_test a request that changes nothing: its keys are not linked
        Returns: a record that is valid until the next call. One made of counts alone has the flag
            COUNTS_ONLY.
        """
        self._viewed = self._with_counts(keys, key, profile, now_ms, counts, is_test)
        self._made = []
        return self._viewed

    def _with_counts(
        self,
        keys: Sequence[bytes],
        key: bytes | None,
        profile: Record | None,
        now_ms: int,
        counts: Sequence[Record | None],
        is_test: bool,
    ) -> Record | None:
        aliases = caps_people.aliases(keys, key)
        self.person, self._apart, self._blind = aliases[0] if aliases else 0, [], False
        if profile is not None and len(profile) > 3 and profile[3] & OPT_OUT:
            self.person = 0
            return profile
        people = caps_people.usable(self._people(aliases, keys, key, counts), key is not None)
        if key is None and people:
            chosen = caps_people.chosen(people, aliases)
            self.person = chosen.person
            self._apart = [] if is_test else caps_people.apart(people, chosen)
        if not any(one.has_counts for one in people):
            return profile
        self._join(now_ms)
        return self._merged(profile, people, now_ms)

    def _people(
        self, aliases: list[int], keys: Sequence[bytes], key: bytes | None,
        counts: Sequence[Record | None],
    ) -> list[Known]:  # fmt: skip
        """Whom the keys name, and whom those are linked to, nearest first."""
        given = caps_people.given(keys, key, counts) if self._stored is None else None
        people, persons = [], list(aliases)
        told: set[int] = set()
        for person in persons:  # grows
            one = Known(person, self._counts_of(person, given))
            people.append(one)
            # What only the board leads to was not asked for when counts came with the record.
            if given and person in told and person not in given:
                self._blind = True
            told |= self._look(one)
            room = ALIASES_MAX - len(persons)
            news = dict.fromkeys(link for link in one.links if link not in persons)
            persons += [*news][:room]
        return people

    def _counts_of(
        self, person: int, given: dict[int, codec.Counts | None] | None
    ) -> codec.Counts | None:
        """The store's counts of a person."""
        if given is not None:
            return given.get(person)
        if self._stored is not None and self._may_have(person):
            return caps_people.opened(self._stored(person))
        return None

    def _look(self, one: Known) -> set[int]:
        """What the board says of somebody, and where he leads; a crowd leads nowhere.

        Returns: whom the board leads to.
        """
        entries = self._entries(one.person)
        one.bids = [entry for entry in entries if entry.bid != NO_BID]
        if one.is_crowd:
            return set()
        if one.stored is not None:
            one.links = [person for person, link in one.stored.links.items() if link.follow]
        told = [entry.line_item for entry in entries if entry.bid == NO_BID]
        one.links += told
        return set(told)

    def _may_have(self, person: int) -> bool:
        board = self._board
        bit = person >> board.filter_shift
        ready = board.header["ready"][0]
        return not ready or bool(int(board.filter[bit >> 6]) >> (bit & 63) & 1)

    def _entries(self, person: int) -> list[Found]:
        """What the board holds of a person, in order of workers."""
        board, found = self._board, []
        place = board.set_of(person)
        for worker in range(board.workers_count):
            if not board.tags[place, worker] >> (person & 7) & 1:
                continue
            entries = board.sets[worker, place]
            for way in range(WAYS):
                entry = _read(entries, way, person, worker)
                if entry is not None:
                    found.append(entry)
        return found

    def _merged(
        self,
        profile: Record | None,
        people: list[Known],
        now_ms: int,
    ) -> Record | None:
        parts = caps_merge.split(profile)
        found = [bid for one in people for bid in one.bids]
        counts, counted = caps_merge.base(parts[1], people, found, now_ms)
        for time_ms, line_item, creative in self._pending(found, counted, now_ms):
            self._fold(counts, line_item, creative, time_ms)
        if not counts:
            return profile
        entries = [(hash_, *counts[hash_]) for hash_ in sorted(counts)]
        head, _, front, back = parts
        head["caps_count"] = len(entries)
        return b"".join((head.tobytes(), front, np.array(entries, ENTRY).tobytes(), back))

    def _fold(
        self, counts: dict[int, tuple[int, int]], line_item: int, creative: int, time_ms: int
    ) -> None:
        """One more impression of both, in start and count by cap."""
        for hash_, window_s in self._table.caps(line_item, creative):
            before = counts.get(hash_)
            if before is None and len(counts) >= ENTRIES_MAX:
                continue
            counts[hash_] = folded(*(before or (0, 0)), window_s, time_ms)

    def _pending(
        self, found: list[Found], counted: set[int], now_ms: int
    ) -> list[tuple[int, int, int]]:
        """(time, line item, creative) of each bid that the board adds."""
        bids: dict[int, Found] = {}
        for one in found:
            bids[one.bid] = caps_merge.stronger(bids.get(one.bid), one)
            if 0 < one.sequence <= self._seen[one.worker]:
                counted.add(one.bid)
        pending = []
        for one in bids.values():
            if one.bid in counted or one.sequence == LOST:
                continue
            if one.sequence > IN_FLIGHT:
                pending.append((0, one.time_ms, one.bid, one))
            elif self._flies(one.time_ms, now_ms):
                pending.append((1, now_ms, one.bid, one))
        pending.sort(key=lambda row: row[:3])
        return [(time_ms, one.line_item, one.creative) for _, time_ms, _, one in pending]

    # -- what happens to a bid --------------------------------------------------------------------

    def allows(self, line_item: int, creative: int, now_ms: int) -> bool:
        """Whether a bid may stand beside those on the same request: by what the last `view` said
        and the bids since, as if all were shown.
        """
        counts = caps_merge.split(self._viewed)[1]
        for one in self._made:
            self._fold(counts, *one)
        table = self._table
        windows_s = dict(table.caps(line_item, creative))
        for hash_, limit in (*table.limits_of(line_item), *table.limits_of(creative)):
            start_s, count = counts.get(hash_, (0, 0))
            if count >= limit and caps_merge.is_open(start_s, windows_s[hash_], now_ms):
                return False
        return True

    def bid(self, person: int, bid: int, line_item: int, creative: int, now_ms: int) -> bool:
        """Counts a bid that is about to go out, by the keys of line item and creative.

        Returns: False when it must not go out: it has caps, and no room is left to count it, or the
            last `refresh` is too long ago, or the last `view` did not see all counts.
        """
        if not person or not self._has_caps(line_item, creative):
            return True
        place, way = self._board.set_of(person), -1
        fresh = abs(now_ms - self._refreshed_ms) < self._limits.reader_ms_max
        if fresh and not self._blind:
            way = self._room(place, now_ms)
        if way < 0:
            self._mine["refused"] += 1
            return False
        self._write(place, way, (person, IN_FLIGHT, bid, line_item, creative, now_ms))
        self._made.append((line_item, creative, now_ms))
        self._join(now_ms)
        return True

    def _join(self, now_ms: int) -> None:
        """Links the keys of the request in hand, on the board and in the journal."""
        apart, self._apart = self._apart, []
        if not apart:
            return
        sequence = self._recorded(apart, now_ms)
        for other, ways in apart:
            if ways & Way.TO_PERSON:
                self._link(other, self.person, sequence, now_ms)
            if ways & Way.FROM_PERSON:
                self._link(self.person, other, sequence, now_ms)

    def _recorded(self, apart: list[tuple[int, Way]], now_ms: int) -> int:
        """Sequence of the links' record; IN_FLIGHT where the journal takes none."""
        if self._append is None:
            return IN_FLIGHT
        row = np.zeros(1, LINK)[0]
        row["version"], row["count"] = LINK_VERSION, len(apart)
        row["time_ms"], row["person"] = now_ms, self.person
        for number, (other, ways) in enumerate(apart):
            row["others"][number], row["ways"][number] = other, ways
        try:
            return self._append(Kind.LINK, row.tobytes())
        except StoreError:
            return IN_FLIGHT  # bids find out for themselves

    def _link(self, person: int, other: int, sequence: int, now_ms: int) -> None:
        place = self._board.set_of(person)
        way = self._room(place, now_ms)
        if way < 0:
            self._mine["given_up"] += 1  # until the keeper has stored it
            return
        self._write(place, way, (person, sequence, NO_BID, other, 0, now_ms))

    def shown(
        self, person: int, bid: int, line_item: int, creative: int, sequence: int, now_ms: int
    ) -> None:
        """Counts an impression, before its notice is answered.

        sequence: of its record in this worker's journal; now_ms: the time in that record.
        """
        if not person or not self._has_caps(line_item, creative):
            return
        place = self._board.set_of(person)
        way = self._way_of(place, person, bid)
        if way >= 0:
            entries = self._sets[place]
            if entries["sequence"][way] <= IN_FLIGHT:
                # A lost bid of another worker did not say what it was for.
                entries["line_item"][way], entries["creative"][way] = line_item, creative
                entries["time_ms"][way] = now_ms
                entries["sequence"][way] = sequence
            return
        way = self._room(place, now_ms)
        if way < 0:
            way = self._oldest(place)
            self._mine["given_up"] += 1
        self._write(place, way, (person, sequence, bid, line_item, creative, now_ms))

    def lost(self, person: int, bid: int, now_ms: int) -> None:
        """Takes a bid back that was not shown."""
        if not person:
            return
        place = self._board.set_of(person)
        way = self._way_of(place, person, bid)
        if way >= 0:
            if self._sets[place]["sequence"][way] == IN_FLIGHT:
                self._free(place, way)
            return
        if self._is_ours(bid) or (bid >> 32) * _MS + _MS + self._limits.in_flight_ms <= now_ms:
            return  # it counts no more
        way = self._room(place, now_ms)
        if way >= 0:  # else it counts until its time is over
            self._write(place, way, (person, LOST, bid, 0, 0, now_ms))

    def tidy(self, now_ms: int, sets_max: int = 1024) -> None:
        """Frees entries whose time is over, in so many sets, going round; a few times a second."""
        count = min(sets_max, self._board.sets_count)
        for place in range(self._swept, self._swept + count):
            place &= self._board.sets_count - 1
            if self._board.tags[place, self._worker]:
                self._clean(place, now_ms)
        self._swept = self._swept + count & self._board.sets_count - 1

    def _has_caps(self, line_item: int, creative: int) -> bool:
        return bool(self._table.of_key(line_item) or self._table.of_key(creative))

    def _is_ours(self, bid: int) -> bool:
        number = bid >> _WORKER_SHIFT & 255, bid >> _NODE_SHIFT & 255
        return number == (self._worker, self._node)

    def _way_of(self, place: int, person: int, bid: int) -> int:
        """Where this worker keeps a bid, -1 nowhere."""
        entries = self._sets[place]
        for way in range(WAYS):
            if entries["person"][way] == person and entries["bid"][way] == bid:
                return way
        return -1

    def _room(self, place: int, now_ms: int) -> int:
        """A free way of a set, -1 when it is full."""
        for _ in range(2):
            for way, person in enumerate(self._sets[place]["person"]):
                if not person:
                    return way
            self._clean(place, now_ms)
        return -1

    def _oldest(self, place: int) -> int:
        """The way that is missed least: the oldest not shown, else the oldest shown."""
        entries = self._sets[place]
        rows = zip(entries["sequence"].tolist(), entries["time_ms"].tolist(), strict=True)
        order = [(sequence > IN_FLIGHT, time_ms, way)
                 for way, (sequence, time_ms) in enumerate(rows)]  # fmt: skip
        return min(order)[2]

    def _clean(self, place: int, now_ms: int) -> None:
        entries = self._sets[place]
        for way in range(WAYS):
            if entries["person"][way] and self._is_over(
                int(entries["sequence"][way]), int(entries["time_ms"][way]), now_ms
            ):
                entries["person"][way] = 0
        self._tag(place)

    def _is_over(self, sequence: int, time_ms: int, now_ms: int) -> bool:
        """Whether nobody needs an entry any more."""
        if sequence <= IN_FLIGHT:
            return not self._flies(time_ms, now_ms)
        return sequence <= max(self._everywhere, self._long_ago)

    def _flies(self, time_ms: int, now_ms: int) -> bool:
        """Whether a bid of then may still be shown. Clocks of workers differ by a little, and a
        clock that is set back must not keep entries for ever.
        """
        return abs(now_ms - time_ms) < self._limits.in_flight_ms

    def _free(self, place: int, way: int) -> None:
        self._sets[place]["person"][way] = 0
        self._tag(place)

    def _write(self, place: int, way: int, values: tuple[int, int, int, int, int, int]) -> None:
        entries = self._sets[place]
        entries["person"][way] = 0
        entries["stamp"][way] += 1
        for name, value in zip(_FIELDS[1:], values[1:], strict=True):
            entries[name][way] = value
        entries["person"][way] = values[0]
        self._tag(place)

    def _tag(self, place: int) -> None:
        bits = 0
        for person in self._sets[place]["person"].tolist():
            bits |= 1 << (person & 7) if person else 0
        self._board.tags[place, self._worker] = bits


# In the order in which a reader takes them: what is shown has all that is before `sequence`.
_FIELDS: Final = ("person", "sequence", "bid", "line_item", "creative", "time_ms")


def _read(entries: Any, way: int, person: int, worker: int) -> Found | None:
    """One entry as its owner wrote it, if it is this person's."""
    while True:
        stamp = entries["stamp"][way]
        if entries["person"][way] != person:
            return None
        sequence, bid, line_item, creative, time_ms = (
            int(entries[name][way]) for name in _FIELDS[1:]
        )
        if entries["stamp"][way] == stamp and entries["person"][way] == person:
            return Found(sequence, bid, line_item, creative, time_ms, worker)
