# A person's record with the counts of the store and of the boards merged into it.


cdef bint _check_counts(Caps self, data) except -1:
    cdef Py_buffer buffer
    cdef const CountsHeader *head
    cdef const Count *rows
    cdef bint good = False
    cdef int i
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    head = <const CountsHeader *>buffer.buf
    if (
        buffer.len >= <Py_ssize_t>sizeof(CountsHeader)
        and head.magic[0] == c'R' and head.magic[1] == c'C'
        and head.version == PROFILE_COUNTS_VERSION
        and head.counts_count <= PROFILE_ENTRIES_MAX and head.bids_count <= PROFILE_BIDS_MAX
        and buffer.len == <Py_ssize_t>sizeof(CountsHeader)
        + head.counts_count * <Py_ssize_t>sizeof(Count) + 8 * <Py_ssize_t>head.bids_count
        + (head.links & (PROFILE_CROWD - 1)) * <Py_ssize_t>sizeof(CountsLink)
        and head.links & (PROFILE_CROWD - 1) <= PROFILE_LINKS_MAX
    ):
        good = True
        rows = <const Count *>(<const char *>buffer.buf + sizeof(CountsHeader))
        for i in range(1, head.counts_count):
            good = good and rows[i - 1].hash_ < rows[i].hash_
    PyBuffer_Release(&buffer)
    return good


cdef Py_ssize_t _merge(Caps self, profile, list stored, int64_t now_ms) except -1:
    """Writes the merged record; 0 when there is nothing to add."""
    cdef Py_buffer buffer
    cdef const ProfileHeader *head = NULL
    cdef Py_ssize_t start = sizeof(ProfileHeader), end, size = 0
    self.counted_count = 0
    if profile is not None:
        PyObject_GetBuffer(profile, &buffer, PyBUF_SIMPLE)
        head = _checked(self, <const char *>buffer.buf, buffer.len)
    try:
        start = _open(self, head)
        end = start + <Py_ssize_t>sizeof(ProfileEntry) * self.entries_count
        for one in stored:
            if one is not None:
                _add_counts(self, one, now_ms)
        _add_found(self, now_ms)
        if self.entries_count:
            size = _write_out(self, head, start, end, buffer.len if head != NULL else end)
    finally:
        if profile is not None:
            PyBuffer_Release(&buffer)
    return size


cdef Py_ssize_t _open(Caps self, const ProfileHeader *head) noexcept nogil:
    """Takes the caps of a record, or of nobody; returns where they stand in it."""
    cdef Py_ssize_t start = sizeof(ProfileHeader)
    self.is_opened = True
    self.entries_count = 0
    if head != NULL:
        start += 8 * head.segments_count + <Py_ssize_t>sizeof(ProfileEntry) * (
            head.items_count + head.categories_count
        )
        self.entries_count = head.caps_count
        memcpy(
            self.entries, <const char *>head + start,
            head.caps_count * sizeof(ProfileEntry),
        )
    return start


cdef const ProfileHeader *_checked(Caps self, const char *data, Py_ssize_t size) noexcept nogil:
    """The record, or NULL where its layout is broken."""
    cdef const ProfileHeader *head = <const ProfileHeader *>data
    cdef const ProfileEntry *rows
    cdef Py_ssize_t at
    cdef int i
    if size < <Py_ssize_t>sizeof(ProfileHeader) or data[0] != c'R' or data[1] != c'P':
        return NULL
    if (
        head.version != PROFILE_VERSION or head.segments_count > PROFILE_SEGMENTS_MAX
        or head.items_count > PROFILE_ENTRIES_MAX
        or head.categories_count > PROFILE_ENTRIES_MAX
        or head.caps_count > PROFILE_ENTRIES_MAX or head.viewed_count > PROFILE_ENTRIES_MAX
        or head.cart_count > PROFILE_ENTRIES_MAX
        or head.opt_outs_count > PROFILE_OPT_OUTS_MAX
    ):
        return NULL
    at = <Py_ssize_t>sizeof(ProfileHeader) + 8 * head.segments_count + (
        <Py_ssize_t>sizeof(ProfileEntry)
    ) * (head.items_count + head.categories_count)
    rows = <const ProfileEntry *>(data + at)
    at += <Py_ssize_t>sizeof(ProfileEntry) * (
        head.caps_count + head.viewed_count + head.cart_count
    ) + 8 * head.opt_outs_count
    if at != size:
        return NULL
    for i in range(1, head.caps_count):
        if rows[i - 1].hash_ >= rows[i].hash_:
            return NULL
    return head


cdef int _place_of(Caps self, uint64_t wanted) noexcept nogil:
    """Where a cap stands among the entries, or would."""
    cdef int low = 0, high = self.entries_count, middle
    while low < high:
        middle = (low + high) >> 1
        if self.entries[middle].hash_ < wanted:
            low = middle + 1
        else:
            high = middle
    return low


cdef ProfileEntry *_entry(Caps self, uint64_t wanted) noexcept nogil:
    """The entry of a cap, made with a count of 0 where there is none; NULL without room."""
    cdef int place = _place_of(self, wanted)
    cdef ProfileEntry *entry = &self.entries[place]
    if place < self.entries_count and entry.hash_ == wanted:
        return entry
    if self.entries_count == PROFILE_ENTRIES_MAX:
        return NULL
    memmove(entry + 1, entry, <size_t>(self.entries_count - place) * sizeof(ProfileEntry))
    self.entries_count += 1
    entry.hash_, entry.time_s, entry.value = wanted, 0, 0
    return entry


cdef _add_counts(Caps self, data, int64_t now_ms):
    """Adds one store's counts, which were checked."""
    cdef Py_buffer buffer
    cdef const CountsHeader *head
    cdef const Count *rows
    cdef const uint64_t *bids
    cdef ProfileEntry *entry
    cdef int64_t since_ms = now_ms
    cdef int i
    for i in range(self.found_count):
        if self.found[i].sequence > IN_FLIGHT:
            since_ms = min(since_ms, self.found[i].time_ms)
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    head = <const CountsHeader *>buffer.buf
    rows = <const Count *>(<const char *>buffer.buf + sizeof(CountsHeader))
    bids = <const uint64_t *>(rows + head.counts_count)
    for i in range(head.bids_count):
        self.counted[self.counted_count] = bids[i]
        self.counted_count += 1
    for i in range(head.counts_count):
        if rows[i].count == 0 or not _is_open(rows[i].start_s, rows[i].window_s, since_ms):
            continue
        entry = _entry(self, rows[i].hash_)
        if entry == NULL:
            continue
        if entry.value == 0:
            entry.time_s, entry.value = rows[i].start_s, rows[i].count
        elif _is_open(min(entry.time_s, rows[i].start_s), rows[i].window_s, now_ms):
            entry.time_s = max(entry.time_s, rows[i].start_s)
            entry.value = <uint32_t>min(<int64_t>entry.value + rows[i].count, U32_MAX)
        elif rows[i].start_s > entry.time_s:
            entry.time_s, entry.value = rows[i].start_s, rows[i].count
    PyBuffer_Release(&buffer)


cdef bint _is_counted(Caps self, uint64_t bid) noexcept nogil:
    cdef int i
    for i in range(self.counted_count):
        if self.counted[i] == bid:
            return True
    for i in range(self.found_count):
        if (
            self.found[i].bid == bid
            and 0 < self.found[i].sequence <= self.seen[self.found[i].worker]
        ):
            return True
    return False


cdef void _add_found(Caps self, int64_t now_ms) noexcept nogil:
    """Folds in each bid of the board that counts: shown ones by time, then those in flight."""
    cdef int i, j, count = 0
    cdef Found one
    for i in range(self.found_count):
        one = self.found[i]
        self.found[i].counts = (
            one.sequence != LOST and not _is_counted(self, one.bid) and _is_strongest(self, i)
            and (one.sequence != IN_FLIGHT or _flies(self, one.time_ms, now_ms))
        )
    for i in range(self.found_count):
        one = self.found[i]
        if not one.counts:
            continue
        if one.sequence == IN_FLIGHT:
            one.time_ms = now_ms
        j = count
        while j > 0 and _before(&one, &self.found[j - 1]):
            self.found[j] = self.found[j - 1]
            j -= 1
        self.found[j] = one
        count += 1
    for i in range(count):
        _fold_caps(self, self.found[i].line_item, self.found[i].time_ms)
        _fold_caps(self, self.found[i].creative, self.found[i].time_ms)


cdef bint _is_strongest(Caps self, int number) noexcept nogil:
    """Whether no other entry says more of the same bid; of equal ones the first."""
    cdef int i
    cdef const Found *one = &self.found[number]
    cdef const Found *other
    for i in range(self.found_count):
        other = &self.found[i]
        if i != number and other.bid == one.bid and (
            _stronger(other, one) or i < number and not _stronger(one, other)
        ):
            return False
    return True


cdef void _fold_caps(Caps self, uint64_t key, int64_t time_ms) noexcept nogil:
    cdef int64_t row = _row_of(self, key), i
    cdef ProfileEntry *entry
    if row < 0:
        return
    for i in range(self.starts[row], self.starts[row] + self.counts[row]):
        entry = _entry(self, self.rows[i].hash_)
        if entry != NULL:
            _fold(entry, self.rows[i].window_s, time_ms)


cdef Py_ssize_t _write_out(
    Caps self, const ProfileHeader *head, Py_ssize_t start, Py_ssize_t end, Py_ssize_t size
) noexcept nogil:
    cdef ProfileHeader *to = <ProfileHeader *>self.out
    cdef Py_ssize_t caps_bytes = self.entries_count * <Py_ssize_t>sizeof(ProfileEntry)
    if head == NULL:
        memset(to, 0, sizeof(ProfileHeader))
        self.out[0], self.out[1] = c'R', c'P'
        to.version, to.flags = PROFILE_VERSION, PROFILE_COUNTS_ONLY
    else:
        memcpy(self.out, head, start)
        memcpy(self.out + start + caps_bytes, <const char *>head + end, size - end)
    memcpy(self.out + start, self.entries, caps_bytes)
    to.caps_count = <uint16_t>self.entries_count
    return start + caps_bytes + size - end
