"""Compiled twin of `rtb.stores.caps.Caps`, whose file states the rules.

The order of reads and writes of an entry is stated in `rtb.stores.caps_board`.

    view          a request's ids to one person's record, with the counts of today merged in
    caps/people   whose counts those are
    caps/merge    the record that the decision reads
    bid, shown    what happens to a bid; caps/board writes it down
"""

from cpython.buffer cimport PyBUF_READ, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset

from links cimport LinkRecord
from records cimport BIDS_MAX, DIM_PERSON
from snapshot cimport (
    PROFILE_BIDS_MAX,
    PROFILE_COUNTS_ONLY,
    PROFILE_COUNTS_VERSION,
    PROFILE_CROWD,
    PROFILE_ENTRIES_MAX,
    PROFILE_LINKS_MAX,
    PROFILE_OPT_OUT,
    PROFILE_OPT_OUTS_MAX,
    PROFILE_RECORD_BYTES_MAX,
    PROFILE_SEGMENTS_MAX,
    PROFILE_VERSION,
    ProfileEntry,
    ProfileHeader,
)
from tokens cimport token_hash

from rtb.base import events
from rtb.base.errors import ConfigError, StoreError
from rtb.profiles import record as layout
from rtb.stores import caps as rules
from rtb.stores import caps_board, caps_people, profiles
from rtb.stores.caps_table import CapsTable

import numpy as np

cdef extern from "caps.h":
    uint64_t caps_load(const uint64_t *) noexcept nogil
    void caps_store(uint64_t *, uint64_t) noexcept nogil
    uint8_t caps_load_byte(const uint8_t *) noexcept nogil
    void caps_store_byte(uint8_t *, uint8_t) noexcept nogil
    void caps_fence() noexcept nogil
    void caps_prefetch(const void *) noexcept nogil

cdef enum:
    WAYS = 8
    ALIASES_MAX = 12
    KEYS_COUNTED = 8
    IN_FLIGHT = 0
    LOST = -1
    MS = 1000
    MADE_MAX = BIDS_MAX  # of one decision
    PERSON_BYTES = 8
    NO_BID = 0
    LINK_OTHERS_MAX = 7
    KEPT_BITS = 12  # of the number of keys whose rows are kept: those that are bid for all the time
    TO_PERSON = 1
    FROM_PERSON = 2

cdef uint64_t EVERY_BYTE = 0x0101010101010101ULL
cdef int64_t U32_MAX = 0xFFFFFFFF
cdef int KIND_LINK = events.Kind.LINK
cdef int LINK_VERSION = events.LINK_VERSION

cdef struct Set:  # caps_board.SET
    uint64_t person[WAYS]
    uint64_t stamp[WAYS]
    uint64_t bid[WAYS]
    uint64_t line_item[WAYS]
    uint64_t creative[WAYS]
    int64_t time_ms[WAYS]
    int64_t sequence[WAYS]
    uint64_t spare[WAYS]

cdef struct CapRow:  # of the table
    uint64_t hash_
    int64_t window_s
    int64_t limit

cdef struct KeptRow:
    uint64_t key
    int64_t row

cdef struct Made:
    uint64_t line_item
    uint64_t creative
    int64_t time_ms

cdef struct Count:  # profiles.record.COUNT
    uint64_t hash_
    uint32_t start_s
    uint32_t window_s
    uint32_t count
    uint32_t last_s

cdef struct CountsHeader:  # profiles.record.COUNTS_HEADER
    uint8_t magic[2]
    uint8_t version
    uint8_t links
    uint16_t counts_count
    uint16_t bids_count

cdef struct CountsLink:  # profiles.record.COUNTS_LINK
    uint64_t person
    uint32_t made_s
    uint32_t follow

cdef struct Known:  # caps_people.Known
    uint64_t person
    int source  # of its counts, where they are given; -1 behind them
    bint is_crowd, is_usable, has_counts
    bint is_told  # the board leads to it
    int links_start, links_end

cdef struct Found:
    uint64_t bid
    uint64_t line_item
    uint64_t creative
    int64_t time_ms
    int64_t sequence
    int worker
    bint counts

assert WAYS == caps_board.WAYS and ALIASES_MAX == caps_people.ALIASES_MAX
assert KEYS_COUNTED == caps_people.KEYS_COUNTED < ALIASES_MAX
assert IN_FLIGHT == caps_board.IN_FLIGHT and LOST == caps_board.LOST
assert sizeof(Set) == caps_board.SET.itemsize
assert sizeof(Count) == layout.COUNT.itemsize
assert sizeof(CountsHeader) == layout.COUNTS_HEADER.itemsize
assert sizeof(CountsLink) == layout.COUNTS_LINK.itemsize
assert sizeof(LinkRecord) == events.LINK.itemsize
assert PERSON_BYTES == profiles.PERSON_BYTES and NO_BID == caps_people.NO_BID
assert LINK_OTHERS_MAX == events.LINK_OTHERS_MAX
assert TO_PERSON == events.Way.TO_PERSON and FROM_PERSON == events.Way.FROM_PERSON


cdef inline uint64_t _hash(bytes key) noexcept:
    return token_hash(DIM_PERSON, <const uint8_t *>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))


cdef inline bint _is_open(int64_t start_s, int64_t window_s, int64_t now_ms) noexcept nogil:
    return window_s == 0 or now_ms < (start_s + window_s) * MS


cdef void _fold(ProfileEntry *entry, int64_t window_s, int64_t time_ms) noexcept nogil:
    """`reducers.folded`, in place."""
    # Division rounds towards zero here: add up only what is positive.
    cdef int64_t time_s = (time_ms + MS - 1) // MS if time_ms > 0 else 0
    if time_s > U32_MAX:
        time_s = U32_MAX
    if entry.value == 0 or not _is_open(entry.time_s, window_s, time_ms):
        entry.time_s = <uint32_t>time_s
        entry.value = 1
    elif window_s and time_s + window_s <= entry.time_s:
        return
    elif entry.value < U32_MAX:
        entry.value += 1


cdef class Caps:
    """One worker's frequency caps."""

    cdef object board, table, stored, append, limits
    cdef object keeper_rows, worker_rows, seen_rows, mine
    cdef int worker, node, workers_count, stride
    cdef uint64_t sets_mask
    cdef int filter_shift
    cdef int64_t in_flight_ms, reader_ms_max
    cdef int64_t everywhere, long_ago, mark_ms, mark, refreshed_ms
    cdef uint8_t *tags
    cdef const uint64_t *filter
    cdef const uint64_t *ready
    cdef Set *sets  # of all workers
    cdef Set *own
    cdef int64_t *seen
    cdef uint64_t *refused_word
    cdef uint64_t *given_up_word
    cdef object read_before
    cdef uint64_t swept
    # of the table
    cdef const uint64_t *keys
    cdef const int64_t *starts
    cdef const int64_t *counts
    cdef CapRow *rows
    cdef int64_t keys_count
    cdef KeptRow kept[1 << KEPT_BITS]
    # of the view that is being made
    cdef Found *found
    cdef int found_max, found_count
    cdef Known people[ALIASES_MAX]
    cdef int people_count, aliases_count, chosen
    cdef uint64_t *links
    cdef int links_count
    cdef bint is_blind  # counts are missing that the store has
    cdef list asked  # keys of the request in hand, whose counts begin at `first_source`
    cdef int first_source
    cdef bint may_join  # keys without a record, which may not be linked yet
    cdef ProfileEntry entries[PROFILE_ENTRIES_MAX]
    cdef int entries_count
    cdef uint64_t counted[ALIASES_MAX * PROFILE_BIDS_MAX]
    cdef int counted_count
    cdef char *out
    # Of the request in hand: the record that was decided by, until it stands in `entries`, and what
    # was bid on it since and is not folded into them.
    cdef object viewed
    cdef bint is_opened
    cdef Made made[MADE_MAX]
    cdef int made_count
    cdef readonly uint64_t person

    def __cinit__(self):
        self.found = NULL
        self.links = NULL
        self.rows = NULL
        self.seen = NULL
        self.out = NULL

    def __init__(
        self, board, int worker, int node, uint64_t identity, limits=rules.Limits(), stored=None,
        append=None,
    ):
        cdef uintptr_t at
        if not 0 <= worker < board.workers_count:
            raise ConfigError(f"worker {worker} of a caps board for {board.workers_count}")
        self.board, self.worker, self.node = board, worker, node
        self.limits, self.stored, self.append = limits, stored, append
        self.in_flight_ms, self.reader_ms_max = limits.in_flight_ms, limits.reader_ms_max
        self.workers_count, self.stride = board.workers_count, board.tags.shape[1]
        self.sets_mask, self.filter_shift = board.sets_count - 1, board.filter_shift
        self.keeper_rows, self.worker_rows = board.keeper, board.worker
        self.seen_rows, self.mine = board.seen, board.worker[worker]
        at = board.tags.ctypes.data
        self.tags = <uint8_t *>at
        at = board.filter.ctypes.data
        self.filter = <const uint64_t *>at
        at = board.header.ctypes.data + board.header.dtype.fields["ready"][1]
        self.ready = <const uint64_t *>at
        at = board.worker[worker:].ctypes.data
        self.refused_word = <uint64_t *>(at + <uintptr_t>board.worker.dtype.fields["refused"][1])
        self.given_up_word = <uint64_t *>(at + <uintptr_t>board.worker.dtype.fields["given_up"][1])
        at = board.sets.ctypes.data
        self.sets = <Set *>at
        self.own = self.sets + <int64_t>worker * <int64_t>board.sets_count
        self.found_max = self.workers_count * WAYS * ALIASES_MAX
        self.found = <Found *>calloc(self.found_max, sizeof(Found))
        self.links = <uint64_t *>calloc(
            self.found_max + ALIASES_MAX * PROFILE_LINKS_MAX, sizeof(uint64_t)
        )
        self.seen = <int64_t *>calloc(self.workers_count, sizeof(int64_t))
        self.out = <char *>calloc(1, PROFILE_RECORD_BYTES_MAX)
        if self.found == NULL or self.links == NULL or self.seen == NULL or self.out == NULL:
            raise MemoryError
        self.read_before = [0] * self.workers_count
        self.everywhere = self.long_ago = self.mark_ms = self.mark = self.refreshed_ms = 0
        self.swept, self.person = 0, 0
        self.viewed, self.is_opened, self.made_count = None, False, 0
        self.people_count = self.aliases_count = self.links_count = self.chosen = 0
        self.may_join = self.is_blind = False
        self.asked, self.first_source = [], 0
        self._start(identity)
        self.serve(CapsTable.empty())

    def __dealloc__(self):
        free(self.found)
        free(self.links)
        free(self.rows)
        free(self.seen)
        free(self.out)

    cdef _start(self, uint64_t identity):
        cdef int64_t place
        cdef int way
        cdef bint stranger = int(self.mine["identity"]) != identity
        for place in range(<int64_t>self.sets_mask + 1):
            if stranger:
                for way in range(WAYS):
                    if self.own[place].person[way]:
                        caps_store(&self.own[place].person[way], 0)
            _tag(self, place)
        self.mine["identity"] = identity
        self.seen_rows[self.worker] = 0

    def serve(self, table) -> None:
        """As the twin."""
        cdef uintptr_t at
        cdef int number
        self.table = table
        at = table.keys.ctypes.data
        self.keys = <const uint64_t *>at
        at = table.starts.ctypes.data
        self.starts = <const int64_t *>at
        at = table.counts.ctypes.data
        self.counts = <const int64_t *>at
        self.keys_count = len(table.keys)
        free(self.rows)
        self.rows = <CapRow *>calloc(len(table.hashes) + 1, sizeof(CapRow))
        if self.rows == NULL:
            raise MemoryError
        packed = np.stack(
            [table.hashes.view(np.int64), table.windows_s, table.limits], axis=1
        )
        at = packed.ctypes.data
        memcpy(self.rows, <const void *>at, packed.nbytes)
        # No key is 0: an empty place is that of a key without caps.
        memset(self.kept, 0, sizeof(self.kept))
        for number in range(1 << KEPT_BITS):
            self.kept[number].row = -1

    @property
    def refused(self) -> int:
        return int(self.mine["refused"])

    @property
    def given_up(self) -> int:
        return int(self.mine["given_up"])

    # -- the store's view -------------------------------------------------------------------------

    def refresh(self, int64_t now_ms, renew=None) -> None:
        """As the twin."""
        cdef int worker
        known = self.keeper_rows["identity"] == self.worker_rows["identity"]
        counted = np.where(known, self.keeper_rows["counted"], 0).tolist()
        if renew is not None:
            renew()
            fresh = counted
        else:
            fresh, self.read_before = self.read_before, counted
        for worker in range(self.workers_count):
            self.seen[worker] = fresh[worker]
        self.seen_rows[self.worker, : self.workers_count] = fresh
        self.everywhere = int(self.seen_rows[:, self.worker].min())
        self.refreshed_ms = now_ms
        if not 0 <= now_ms - self.mark_ms < self.reader_ms_max:
            self.long_ago = self.mark if now_ms > self.mark_ms else 0
            self.mark_ms, self.mark = now_ms, self.seen[self.worker]

    # -- before the decision ----------------------------------------------------------------------

    def view(
        self, list keys not None, key, profile, int64_t now_ms, counts=(), bint is_test=False
    ):
        """As the twin."""
        cdef int every = 0, i
        cdef bint any_ = False, out
        cdef Py_buffer buffer
        self.viewed, self.is_opened, self.made_count = profile, False, 0
        self.people_count = self.chosen = 0
        self.is_blind = False
        self.asked, self.first_source = keys, key is not None
        if key is not None:
            _name(self, _hash(<bytes?>key), 0)
            every = 1
        for one in keys:
            if every == KEYS_COUNTED + (key is not None):
                break
            if one is not key:  # the record's own key is the same object, mostly
                _name(self, _hash(<bytes?>one), every)
            every += 1
        self.aliases_count = self.people_count
        self.may_join = key is None and not is_test
        self.person = self.people[0].person if self.people_count else 0
        if profile is not None:
            PyObject_GetBuffer(profile, &buffer, PyBUF_SIMPLE)
            out = buffer.len > 3 and (<const uint8_t *>buffer.buf)[3] & PROFILE_OPT_OUT
            PyBuffer_Release(&buffer)
            if out:
                self.person, self.may_join = 0, False
                return profile
        for i in range(self.people_count):
            if self.stored is None:
                any_ = any_ or (
                    self.people[i].source < len(counts)
                    and counts[self.people[i].source] is not None
                )
            else:
                any_ = any_ or _may_have(self, self.people[i].person)
            any_ = any_ or _tagged(self, self.people[i].person)
        if not any_:
            return profile
        every = len(keys) + (key is not None)
        return _with_counts(self, key is not None, profile, now_ms, counts, every)

    # -- what happens to a bid --------------------------------------------------------------------

    def allows(self, uint64_t line_item, uint64_t creative, int64_t now_ms) -> bool:
        """As the twin."""
        cdef Py_buffer buffer
        cdef int i
        if not self.is_opened and self.viewed is None:
            _open(self, NULL)
        elif not self.is_opened:
            PyObject_GetBuffer(self.viewed, &buffer, PyBUF_SIMPLE)
            _open(self, _checked(self, <const char *>buffer.buf, buffer.len))
            PyBuffer_Release(&buffer)
        for i in range(self.made_count):
            _fold_caps(self, self.made[i].line_item, self.made[i].time_ms)
            _fold_caps(self, self.made[i].creative, self.made[i].time_ms)
        self.made_count = 0
        return self._has_place(line_item, now_ms) and self._has_place(creative, now_ms)

    cdef bint _has_place(self, uint64_t key, int64_t now_ms) noexcept nogil:
        """Whether the entries leave room in each cap of a line item or a creative."""
        cdef int64_t row = _row_of(self, key), i
        cdef int place
        if row < 0:
            return True
        for i in range(self.starts[row], self.starts[row] + self.counts[row]):
            place = _place_of(self, self.rows[i].hash_)
            if (
                place < self.entries_count and self.entries[place].hash_ == self.rows[i].hash_
                and <int64_t>self.entries[place].value >= self.rows[i].limit
                and _is_open(self.entries[place].time_s, self.rows[i].window_s, now_ms)
            ):
                return False
        return True

    def bid(
        self, uint64_t person, uint64_t bid, uint64_t line_item, uint64_t creative, int64_t now_ms
    ) -> bool:
        """As the twin."""
        cdef int way
        cdef int64_t place = person >> 3 & self.sets_mask
        if person == 0 or not _has_caps(self, line_item, creative):
            return True
        way = -1
        if not self.is_blind and (
            -self.reader_ms_max < now_ms - self.refreshed_ms < self.reader_ms_max
        ):
            way = _room(self, place, now_ms)
        if way < 0:
            caps_store(self.refused_word, self.refused_word[0] + 1)
            return False
        _write(self, place, way, person, bid, line_item, creative, now_ms, IN_FLIGHT)
        if self.made_count < MADE_MAX:  # a decision has no more
            self.made[self.made_count] = Made(line_item, creative, now_ms)
            self.made_count += 1
        self._join(now_ms)
        return True

    cdef int _join(self, int64_t now_ms) except -1:
        """Links the keys of the request in hand, on the board and in the journal."""
        cdef LinkRecord body
        cdef const Known *chosen = &self.people[self.chosen]
        cdef int64_t sequence
        cdef int i
        if not self.may_join:
            return 0
        self.may_join = False
        memset(&body, 0, sizeof(body))
        for i in range(self.people_count):
            if i == self.chosen or not self.people[i].is_usable or body.count == LINK_OTHERS_MAX:
                continue
            body.ways[body.count] = self._ways(&self.people[i], chosen)
            if body.ways[body.count]:
                body.others[body.count] = self.people[i].person
                body.count += 1
        if body.count == 0:
            return 0
        body.version, body.time_ms, body.person = LINK_VERSION, now_ms, self.person
        if body.count < LINK_OTHERS_MAX:
            body.ways[body.count] = 0
        sequence = self._recorded(&body)
        for i in range(body.count):
            if body.ways[i] & TO_PERSON:
                self._link(body.others[i], self.person, sequence, now_ms)
            if body.ways[i] & FROM_PERSON:
                self._link(self.person, body.others[i], sequence, now_ms)
        return 0

    cdef uint8_t _ways(self, const Known *one, const Known *chosen) noexcept nogil:
        """How somebody is still to be linked to the person who is counted."""
        cdef uint8_t ways = 0
        if not self._is_linked(one, chosen.person):
            ways |= TO_PERSON
        if self._leads(one, chosen.person) and not self._is_linked(chosen, one.person):
            ways |= FROM_PERSON
        return ways

    cdef bint _is_linked(self, const Known *one, uint64_t person) noexcept nogil:
        cdef int i
        for i in range(one.links_start, one.links_end):
            if self.links[i] == person:
                return True
        return False

    cdef bint _leads(self, const Known *one, uint64_t person) noexcept nogil:
        """Whether there is more to find here than that person's counts."""
        cdef int i
        for i in range(one.links_start, one.links_end):
            if self.links[i] != person:
                return True
        return one.has_counts

    cdef int64_t _recorded(self, const LinkRecord *body) except? -1:
        if self.append is None:
            return IN_FLIGHT
        try:
            return self.append(
                KIND_LINK, PyBytes_FromStringAndSize(<const char *>body, sizeof(LinkRecord))
            )
        except StoreError:
            return IN_FLIGHT

    cdef int _link(
        self, uint64_t person, uint64_t other, int64_t sequence, int64_t now_ms
    ) except -1:
        cdef int64_t place = person >> 3 & self.sets_mask
        cdef int way = _room(self, place, now_ms)
        if way < 0:
            caps_store(self.given_up_word, self.given_up_word[0] + 1)
            return 0
        _write(self, place, way, person, NO_BID, other, 0, now_ms, sequence)
        return 0

    def shown(
        self, uint64_t person, uint64_t bid, uint64_t line_item, uint64_t creative,
        int64_t sequence, int64_t now_ms,
    ) -> None:
        """As the twin."""
        cdef int way
        cdef int64_t place = person >> 3 & self.sets_mask
        cdef Set *entries = &self.own[place]
        if person == 0 or not _has_caps(self, line_item, creative):
            return
        way = _way_of(self, place, person, bid)
        if way >= 0:
            if entries.sequence[way] <= IN_FLIGHT:
                # A lost bid of another worker did not say what it was for.
                caps_store(&entries.line_item[way], line_item)
                caps_store(&entries.creative[way], creative)
                caps_store(<uint64_t *>&entries.time_ms[way], <uint64_t>now_ms)
                caps_store(<uint64_t *>&entries.sequence[way], <uint64_t>sequence)
            return
        way = _room(self, place, now_ms)
        if way < 0:
            way = _oldest(self, place)
            caps_store(self.given_up_word, self.given_up_word[0] + 1)
        _write(self, place, way, person, bid, line_item, creative, now_ms, sequence)

    def lost(self, uint64_t person, uint64_t bid, int64_t now_ms) -> None:
        """As the twin."""
        cdef int way
        cdef int64_t place = person >> 3 & self.sets_mask
        if person == 0:
            return
        way = _way_of(self, place, person, bid)
        if way >= 0:
            if self.own[place].sequence[way] == IN_FLIGHT:
                caps_store(&self.own[place].person[way], 0)
                _tag(self, place)
            return
        if (<int>(bid >> 16 & 255) == self.worker and <int>(bid >> 24 & 255) == self.node) or (
            <int64_t>(bid >> 32) * MS + MS + self.in_flight_ms <= now_ms
        ):
            return
        way = _room(self, place, now_ms)
        if way >= 0:
            _write(self, place, way, person, bid, 0, 0, now_ms, LOST)

    def tidy(self, int64_t now_ms, int64_t sets_max=1024) -> None:
        """As the twin."""
        cdef int64_t i, count = min(sets_max, <int64_t>self.sets_mask + 1)
        cdef uint64_t place
        for i in range(count):
            place = self.swept & self.sets_mask
            self.swept += 1
            if self.tags[place * <uint64_t>self.stride + <uint64_t>self.worker]:
                _clean(self, <int64_t>place, now_ms)


cdef inline bint _stronger(const Found *one, const Found *other) noexcept nogil:
    """Shown, the first time, beats lost beats in flight."""
    if one.sequence > 0 and other.sequence > 0:
        return one.time_ms < other.time_ms
    if one.sequence > 0 or other.sequence > 0:
        return one.sequence > 0
    return one.sequence == LOST and other.sequence != LOST


cdef inline bint _before(const Found *one, const Found *other) noexcept nogil:
    """The order in which bids are counted."""
    cdef bint flies = one.sequence == IN_FLIGHT, other_flies = other.sequence == IN_FLIGHT
    if flies != other_flies:
        return other_flies
    if one.time_ms != other.time_ms:
        return one.time_ms < other.time_ms
    return one.bid < other.bid


# Parts of the class in files of their own, as functions of it.
include "caps/people.pxi"
include "caps/merge.pxi"
include "caps/board.pxi"
