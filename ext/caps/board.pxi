# Our own column of the board, which only this worker writes: see `rtb.stores.caps_board`.


cdef int64_t _row_of(Caps self, uint64_t key) noexcept nogil:
    """The row of a key in the table, -1 without caps."""
    cdef KeptRow *kept = &self.kept[key >> (64 - KEPT_BITS)]
    if kept.key != key:
        kept.row = _search(self, key)
        kept.key = key
    return kept.row


cdef int64_t _search(Caps self, uint64_t key) noexcept nogil:
    cdef int64_t low = 0, high = self.keys_count, middle
    while low < high:
        middle = (low + high) >> 1
        if self.keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low if low < self.keys_count and self.keys[low] == key else -1


cdef inline bint _has_caps(Caps self, uint64_t line_item, uint64_t creative) noexcept nogil:
    return _row_of(self, line_item) >= 0 or _row_of(self, creative) >= 0


cdef int _way_of(Caps self, int64_t place, uint64_t person, uint64_t bid) noexcept nogil:
    cdef int way
    for way in range(WAYS):
        if self.own[place].person[way] == person and self.own[place].bid[way] == bid:
            return way
    return -1


cdef int _room(Caps self, int64_t place, int64_t now_ms) noexcept nogil:
    cdef int turn, way
    for turn in range(2):
        for way in range(WAYS):
            if self.own[place].person[way] == 0:
                return way
        _clean(self, place, now_ms)
    return -1


cdef int _oldest(Caps self, int64_t place) noexcept nogil:
    cdef Set *entries = &self.own[place]
    cdef int way, best = 0
    cdef bint shown, best_shown
    for way in range(1, WAYS):
        shown, best_shown = entries.sequence[way] > 0, entries.sequence[best] > 0
        if shown < best_shown or (
            shown == best_shown and entries.time_ms[way] < entries.time_ms[best]
        ):
            best = way
    return best


cdef void _clean(Caps self, int64_t place, int64_t now_ms) noexcept nogil:
    cdef Set *entries = &self.own[place]
    cdef int way
    for way in range(WAYS):
        if entries.person[way] and _is_over(self,
            entries.sequence[way], entries.time_ms[way], now_ms
        ):
            caps_store(&entries.person[way], 0)
    _tag(self, place)


cdef bint _is_over(Caps self, int64_t sequence, int64_t time_ms, int64_t now_ms) noexcept nogil:
    if sequence <= IN_FLIGHT:
        return not _flies(self, time_ms, now_ms)
    return sequence <= max(self.everywhere, self.long_ago)


cdef inline bint _flies(Caps self, int64_t time_ms, int64_t now_ms) noexcept nogil:
    return -self.in_flight_ms < now_ms - time_ms < self.in_flight_ms


cdef void _write(
    Caps self, int64_t place, int way, uint64_t person, uint64_t bid, uint64_t line_item,
    uint64_t creative, int64_t time_ms, int64_t sequence,
) noexcept nogil:
    cdef Set *entries = &self.own[place]
    caps_store(&entries.person[way], 0)
    caps_store(&entries.stamp[way], entries.stamp[way] + 1)
    caps_fence()
    caps_store(&entries.bid[way], bid)
    caps_store(&entries.line_item[way], line_item)
    caps_store(&entries.creative[way], creative)
    caps_store(<uint64_t *>&entries.time_ms[way], <uint64_t>time_ms)
    caps_store(<uint64_t *>&entries.sequence[way], <uint64_t>sequence)
    caps_store(&entries.person[way], person)
    _tag(self, place)


cdef void _tag(Caps self, int64_t place) noexcept nogil:
    cdef uint8_t bits = 0
    cdef int way
    for way in range(WAYS):
        if self.own[place].person[way]:
            bits |= <uint8_t>(1 << (self.own[place].person[way] & 7))
    caps_store_byte(&self.tags[place * self.stride + self.worker], bits)
