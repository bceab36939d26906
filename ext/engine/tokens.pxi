# The request's values: rows to AND, lists to block by, the person's hour of the week.


cdef inline int _value(Engine self, uint64_t token) noexcept nogil:
    cdef uint64_t slot = token & self.value_mask
    cdef int found = self.value_slots[slot]
    while found >= 0:
        if self.values[found].hash_ == token:
            return found
        slot = (slot + 1) & self.value_mask
        found = self.value_slots[slot]
    return -1


cdef inline void _hit(Engine self, int dim, uint64_t token, int owner) noexcept nogil:
    cdef int position = self.dim_position[dim]
    cdef int value
    cdef Hit *hit
    if position < 0:
        return
    value = _value(self, token)
    if value < 0 or self.hits_count >= HITS_MAX:
        return
    hit = &self.hits[self.hits_count]
    hit.include_row = self.values[value].include_row
    hit.exclude_row = self.values[value].exclude_row
    if hit.include_row < 0 and hit.exclude_row < 0:
        return
    hit.owner = owner
    hit.next = self.first_hit[position]
    self.first_hit[position] = self.hits_count
    self.hits_count += 1


cdef void _collect(Engine self) noexcept nogil:
    """Sorts the request's tokens into rows to AND and lists to block by."""
    cdef const Head *head = &self.facts.head
    cdef const Token *token
    cdef int i, dim, value
    self.hits_count = 0
    for i in range(self.dims_count):
        self.first_hit[i] = -1
    self.wseat_count = self.bseat_count = self.bapp_count = self.wlang_count = 0
    # A list may be there without a token, when nothing in it can be read: it allows nothing.
    self.wseat_present = head.blocks >> (DIM_WSEAT - DIM_BCAT) & 1
    self.acat_present = head.blocks >> (DIM_ACAT - DIM_BCAT) & 1
    self.wlang_present = head.blocks >> (DIM_WLANG - DIM_BCAT) & 1
    self.has_deal_seats = self.bcat_met = self.badv_met = 0
    self.stamp += 1
    for i in range(64):
        self.first_token[i] = -1
    _hit(self, DIM_EXCHANGE, self.terms.exchange, -1)
    for i in range(head.tokens_count):
        PREFETCH(&self.value_slots[self.facts.tokens[i].hash_ & self.value_mask])
    for i in range(head.tokens_count):
        token = &self.facts.tokens[i]
        dim = token.dim
        if dim < 64:
            if not (self.is_private and IS_PERSONAL[dim]):
                _hit(self, dim, token.hash_, token.imp)
                if UNION_OF[dim] and self.dim_position[UNION_OF[dim]] >= 0 and token.imp < 0:
                    _hit(self, UNION_OF[dim], union_hash(UNION_OF[dim], token.hash_), -1)
                self.next_token[i] = self.first_token[dim]
                self.first_token[dim] = i
            continue
        if token.imp >= 0:
            self.has_deal_seats |= dim == DIM_DEAL_WSEAT
            continue
        if dim == DIM_BCAT or dim == DIM_ACAT or dim == DIM_BADV:
            value = _value(self, token.hash_)
            if value >= 0 and self.values[value].ordinal >= 0:
                value = self.values[value].ordinal
                if dim == DIM_BCAT:
                    self.bcat_met = 1
                    self.category_stamp[value] = self.stamp
                elif dim == DIM_ACAT:
                    self.allowed_stamp[value] = self.stamp
                else:
                    self.badv_met = 1
                    self.domain_stamp[value] = self.stamp
        elif dim == DIM_WSEAT:
            self.wseat[self.wseat_count] = token.hash_
            self.wseat_count += 1
        elif dim == DIM_BSEAT:
            self.bseat[self.bseat_count] = token.hash_
            self.bseat_count += 1
        elif dim == DIM_BAPP:
            self.bapp[self.bapp_count] = token.hash_
            self.bapp_count += 1
        elif dim == DIM_WLANG:
            self.wlang[self.wlang_count] = token.hash_
            self.wlang_count += 1
    for i in range(self.person.segments_count):
        _hit(self, DIM_AUDIENCE, self.person.segments[i], -1)
        if self.dim_position[DIM_ANY_PERSON] >= 0:
            _hit(
                self, DIM_ANY_PERSON, union_hash(DIM_ANY_PERSON, self.person.segments[i]), -1
            )
    if head.flags & FLAG_HAS_GEO and not self.is_private:
        _hit(self, DIM_GEO_CELL, cell_hash(head.lat, head.lon), -1)
    self.hour_token = HOUR_TOKENS[_hour_of_week(self)]
    _hit(self, DIM_HOUR_OF_WEEK, self.hour_token, -1)


cdef int _hour_of_week(Engine self) noexcept nogil:
    cdef int64_t local_ms = self.now_ms + <int64_t>_utcoffset_min(self) * 60000
    cdef int64_t hours = local_ms // 3600000
    return <int>((hours + EPOCH_HOUR) % 168)


cdef int _utcoffset_min(Engine self) noexcept nogil:
    cdef const Head *head = &self.facts.head
    cdef int dim, i, low, high, middle
    if head.flags & FLAG_HAS_UTCOFFSET:
        return head.utcoffset_min
    for dim in range(2):
        for i in range(head.tokens_count):
            if self.facts.tokens[i].imp >= 0:
                continue
            if self.facts.tokens[i].dim != (DIM_REGION if dim == 0 else DIM_COUNTRY):
                continue
            low = 0
            high = self.terms.zones_count
            while low < high:
                middle = (low + high) >> 1
                if self.terms.zones[middle].hash_ < self.facts.tokens[i].hash_:
                    low = middle + 1
                else:
                    high = middle
            if low < self.terms.zones_count and (
                self.terms.zones[low].hash_ == self.facts.tokens[i].hash_
            ):
                return self.terms.zones[low].utcoffset_min
    return 0
