# Who a request's ids stand for: what the boards and the store know of each, and who is counted.


cdef void _name(Caps self, uint64_t person, int source) noexcept nogil:
    """One more whom the request may mean."""
    cdef Known *one = &self.people[self.people_count]
    if _number_of(self, person) >= 0:
        return
    one.person, one.source = person, source
    one.is_crowd, one.is_usable, one.has_counts, one.is_told = False, True, False, False
    one.links_start = one.links_end = 0
    self.people_count += 1
    caps_prefetch(&self.filter[person >> self.filter_shift >> 6])
    caps_prefetch(self.tags + (person >> 3 & self.sets_mask) * <uint64_t>self.stride)


cdef int _number_of(Caps self, uint64_t person) noexcept nogil:
    cdef int i
    for i in range(self.people_count):
        if self.people[i].person == person:
            return i
    return -1


cdef inline bint _may_have(Caps self, uint64_t person) noexcept nogil:
    cdef uint64_t bit = person >> self.filter_shift
    return caps_load(self.ready) == 0 or caps_load(&self.filter[bit >> 6]) >> (bit & 63) & 1


cdef inline bint _tagged(Caps self, uint64_t person) noexcept nogil:
    cdef uint64_t place = person >> 3 & self.sets_mask, wanted = EVERY_BYTE << (person & 7)
    cdef const uint64_t *row = <const uint64_t *>(self.tags + place * <uint64_t>self.stride)
    cdef int i
    for i in range(self.stride >> 3):
        if caps_load(&row[i]) & wanted:
            return True
    return False


cdef _with_counts(
    Caps self, bint has_record, profile, int64_t now_ms, counts, int given_count
):
    """The slow half of `view`: somebody with counts or links, or who may have some."""
    cdef int i = 0, found_before
    cdef bint known = False
    cdef Py_ssize_t size
    cdef Known *one
    cdef list stored = []
    self.found_count = self.links_count = 0
    while i < self.people_count:  # grows
        one = &self.people[i]
        found_before = self.found_count
        record = _stored_of(self, one, counts, given_count)
        _look(self, one, record)
        if one.is_crowd and not (has_record and i == 0):
            self.found_count, one.is_usable = found_before, False
            record = None
        stored.append(record)
        i += 1
    if _settle(self, has_record):
        stored[0] = _stored_of(self, &self.people[0], counts, given_count)
        _look(self, &self.people[0], stored[0])
    for i in range(self.people_count):
        known = known or self.people[i].has_counts and self.people[i].is_usable
    if not has_record:
        _choose(self)
    if not known:
        return profile
    self._join(now_ms)
    size = _merge(self, profile, stored, now_ms)
    if size == 0:
        return profile
    return PyMemoryView_FromMemory(self.out, size, PyBUF_READ)


cdef _stored_of(Caps self, const Known *one, counts, int given_count):
    """The store's counts of somebody; None where it has none, or broken ones."""
    cdef int i
    cdef bint known = False
    record = None
    if self.stored is not None:
        if _may_have(self, one.person):
            record = self.stored(one.person)
    elif one.source >= 0:
        record = counts[one.source] if one.source < len(counts) else None
    else:
        known, record = _behind(self, one, counts)
        for i in range(len(counts) if known else given_count, len(counts)):
            if counts[i] is not None and len(counts[i]) >= PERSON_BYTES and (
                int.from_bytes(counts[i][:PERSON_BYTES], "little") == one.person
            ):
                record = counts[i][PERSON_BYTES:]
                known = True
                break
        # What only the board leads to was not asked for.
        if one.is_told and not known and len(counts):
            self.is_blind = True
    if record is not None and not _check_counts(self, record):
        record = None
    return record


cdef tuple _behind(Caps self, const Known *one, counts):
    """Whether somebody is named by a key behind those that are counted, and what came with it."""
    cdef int i, first = self.first_source
    for i in range(KEYS_COUNTED, len(self.asked)):
        if _hash(<bytes?>self.asked[i]) == one.person:
            return True, counts[first + i] if first + i < len(counts) else None
    return False, None


cdef int _look(Caps self, Known *one, record) except -1:
    """What store and board say of somebody, and where he leads."""
    cdef Py_buffer buffer
    cdef const CountsHeader *head
    cdef const CountsLink *links
    cdef int i, number, told_start
    one.links_start = self.links_count
    one.has_counts = False
    if record is not None:
        PyObject_GetBuffer(record, &buffer, PyBUF_SIMPLE)
        head = <const CountsHeader *>buffer.buf
        one.is_crowd = head.links & PROFILE_CROWD != 0
        one.has_counts = head.counts_count > 0 or head.bids_count > 0
        links = <const CountsLink *>(
            <const char *>buffer.buf + sizeof(CountsHeader)
            + head.counts_count * sizeof(Count) + 8 * head.bids_count
        )
        for i in range(head.links & (PROFILE_CROWD - 1)):
            if links[i].follow:
                self.links[self.links_count] = links[i].person
                self.links_count += 1
        PyBuffer_Release(&buffer)
    told_start = self.links_count
    _find(self, one)
    if one.is_crowd:
        self.links_count = one.links_start
    one.links_end = self.links_count
    for i in range(one.links_start, one.links_end):
        if self.people_count < ALIASES_MAX:
            _name(self, self.links[i], -1)
        number = _number_of(self, self.links[i])
        if i >= told_start and number >= 0:
            self.people[number].is_told = True
    return 0


cdef bint _settle(Caps self, bint has_record) noexcept nogil:
    """Whether all are crowds: then the first is looked at after all, and no other."""
    cdef int i
    if has_record:
        return False
    for i in range(self.people_count):
        if self.people[i].is_usable:
            return False
    self.people[0].is_usable = True
    return self.people_count > 0


cdef void _choose(Caps self) noexcept nogil:
    """Who of those without a record is counted."""
    cdef int i, first = -1, linked = -1, with_counts = -1
    for i in range(self.people_count - 1, -1, -1):
        if not self.people[i].is_usable:
            continue
        first = i
        if i >= self.aliases_count:
            linked = i
        if self.people[i].has_counts:
            with_counts = i
    self.chosen = with_counts if with_counts >= 0 else linked if linked >= 0 else first
    self.person = self.people[self.chosen].person


cdef void _find(Caps self, Known *one) noexcept nogil:
    """What the board holds of a person, in order of workers: bids, and links."""
    cdef uint64_t person = one.person, place = person >> 3 & self.sets_mask
    cdef int worker, way, found_before = self.found_count
    cdef Set *entries
    for worker in range(self.workers_count):
        if not caps_load_byte(
            &self.tags[place * <uint64_t>self.stride + <uint64_t>worker]
        ) >> (person & 7) & 1:
            continue
        entries = &self.sets[<uint64_t>worker * (self.sets_mask + 1) + place]
        caps_prefetch(entries.stamp)
        caps_prefetch(entries.sequence)
        caps_prefetch(entries.bid)
        caps_prefetch(entries.line_item)
        caps_prefetch(entries.creative)
        caps_prefetch(entries.time_ms)
        for way in range(WAYS):
            if caps_load(&entries.person[way]) == person:
                _read(self, entries, way, person, worker)
    one.has_counts = one.has_counts or self.found_count > found_before


cdef void _read(Caps self, Set *entries, int way, uint64_t person, int worker) noexcept nogil:
    cdef uint64_t stamp
    cdef Found *one = &self.found[self.found_count]
    while True:
        stamp = caps_load(&entries.stamp[way])
        if caps_load(&entries.person[way]) != person:
            return
        one.sequence = <int64_t>caps_load(<uint64_t *>&entries.sequence[way])
        one.bid = caps_load(&entries.bid[way])
        one.line_item = caps_load(&entries.line_item[way])
        one.creative = caps_load(&entries.creative[way])
        one.time_ms = <int64_t>caps_load(<uint64_t *>&entries.time_ms[way])
        if caps_load(&entries.stamp[way]) == stamp and (
            caps_load(&entries.person[way]) == person
        ):
            break
    if one.bid == NO_BID:
        self.links[self.links_count] = one.line_item
        self.links_count += 1
        return
    one.worker = worker
    self.found_count += 1
