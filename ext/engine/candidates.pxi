# Who the candidates of an impression are, in which order they are looked at, and the rules of a
# line item: flight, deals, seat, person.


cdef void _impression(
    Engine self, int number, const uint64_t *start, const uint64_t *start_summary
) noexcept nogil:
    """Looks into the blocks, those first that can be worth the most (twin: `_impression`)."""
    cdef const Imp *imp = &self.facts.imps[number]
    cdef int i, at, ahead = 0
    cdef uint64_t passing[SNAP_BLOCK_WORDS]
    for i in range(imp.deals_count + 1):
        self.imp_groups[i].count = 0
    self.assets_clash = _assets_clash(self, imp)
    self.scored_for = -1
    self.looked_at = 0
    self.found_count = 0
    bits_alive(
        self.stage_dims, self.stage_dims_count, self.stage_rows, self.words // BLOCK,
        self.summary_words, start_summary, self.alive,
    )
    for i in range(BLOCKS_AHEAD):
        ahead = _fetch_next(self, ahead)
    for at in range(self.order.count):
        i = self.order.blocks[at].line_item
        if not _is_alive(self, i):
            continue
        if _is_settled(self, imp, &self.order.blocks[at]):
            break
        ahead = _fetch_next(self, ahead)
        if bits_block(
            self.stage_dims, self.stage_dims_count, self.stage_rows, start + i * BLOCK, i,
            passing,
        ):
            _find_in(self, number, i, passing)
            if self.found_count >= BATCH_MIN:
                _batch(self, number, imp)
    _batch(self, number, imp)
    _close(self, number, imp)


cdef inline bint _is_alive(Engine self, int block) noexcept nogil:
    return self.alive[block >> 6] >> (block & 63) & 1


cdef inline int _fetch_next(Engine self, int at) noexcept nogil:
    """Asks for the rows of the next block that may hold somebody; returns the place after."""
    cdef int block
    while at < self.order.count:
        block = self.order.blocks[at].line_item
        at += 1
        if _is_alive(self, block):
            bits_prefetch(self.stage_rows, self.stage_rows_count, block)
            break
    return at


cdef void _put_in_order(Engine self) noexcept nogil:
    """Finds the order of blocks for this request's rates, or makes it."""
    cdef int i, c
    cdef double ratios[CURRENCIES_BOUND_CAP]
    memset(ratios, 0, sizeof(ratios))
    for c in range(self.bound_currencies_count):
        ratios[c] = self._ratio(self.bound_currencies[c], self.currency)
    for i in range(ORDERS):
        self.order = &self.orders[i]
        if self.order.count and memcmp(self.order.ratios, ratios, sizeof(ratios)) == 0:
            return
    self.order = &self.orders[self.next_order]
    self.next_order = (self.next_order + 1) % ORDERS
    memcpy(self.order.ratios, ratios, sizeof(ratios))
    self.order.count = self.words // BLOCK
    for i in range(self.order.count):
        self.order.blocks[i].value = _block_value(self, i, ratios)
        self.order.blocks[i].line_item = i
    _sort(self, self.order.blocks, self.order.count)


cdef double _block_value(Engine self, int block, const double *ratios) noexcept nogil:
    """The most that anybody in a block can be worth, in the currency of the answer."""
    cdef int c
    cdef const double *bounds = &self.block_bounds[block * CURRENCIES_BOUND_MAX]
    cdef double value = 0.0
    if self.bound_currencies_count < 0:
        return CPM_LIMIT
    for c in range(self.bound_currencies_count):
        if bounds[c] > 0.0:
            # Without a rate they are looked at, and told so.
            value = max(value, bounds[c] * ratios[c] if ratios[c] else CPM_LIMIT)
    return value


cdef void _sort(Engine self, Ranked *items, int count) noexcept nogil:
    """Heap sort, the most valuable first."""
    cdef int i
    cdef Ranked last
    for i in range(count // 2 - 1, -1, -1):
        _sink(self, items, i, count)
    for i in range(count - 1, 0, -1):
        last = items[i]
        items[i] = items[0]
        items[0] = last
        _sink(self, items, 0, i)


cdef void _sink(Engine self, Ranked *items, int at, int count) noexcept nogil:
    cdef int child
    cdef Ranked moved = items[at]
    while 2 * at + 1 < count:
        child = 2 * at + 1
        if child + 1 < count and _ahead(self, &items[child], &items[child + 1]):
            child += 1
        if not _ahead(self, &moved, &items[child]):
            break
        items[at] = items[child]
        at = child
    items[at] = moved


cdef bint _is_settled(Engine self, const Imp *imp, const Ranked *block) noexcept nogil:
    """Whether nobody of this block, nor of those after it, can reach the short list."""
    cdef const Group *group = &self.imp_groups[0]
    if self.terms.exhaustive or imp.deals_count or group.count < _shortlist_max(self, imp):
        return False
    return rint(block.value) < <double>group.entries[group.count - 1].value


cdef void _batch(Engine self, int number, const Imp *imp) noexcept nogil:
    """Looks at the candidates found so far, those first that can be worth the most."""
    cdef int round_, count, step = _shortlist_max(self, imp)
    _bound(self)
    for round_ in range(ROUNDS_RANKED + 1):
        _drop_hopeless(self, number, imp)
        if round_ == ROUNDS_RANKED:
            step = self.ranked_count
        count = _take(self, step)
        if count == 0:
            break
        _look_at(self, number, imp, count)
    self.found_count = 0


cdef void _look_at(Engine self, int number, const Imp *imp, int count) noexcept nogil:
    """Checks and prices the first `count` of `found`."""
    cdef int i
    self.ready_count = 0
    self.places_count = 0
    for i in range(min(count, AHEAD)):
        _prefetch(self, self.found[i])
    for i in range(count):
        if i + AHEAD < count:
            _prefetch(self, self.found[i + AHEAD])
        _line_item(self, number, imp, self.found[i])
    if self.ready_count:
        _price(self, number, imp)


# Candidates are known before they are looked at: their rows are fetched while others are.
cdef inline void _prefetch(Engine self, int line_item) noexcept nogil:
    cdef const char *row = <const char *>&self.line_items[line_item]
    cdef const char *creative = <const char *>&self.creatives[
        self.bounds[line_item].creatives_start
    ]
    PREFETCH(row)
    PREFETCH(row + 64)
    PREFETCH(creative)
    PREFETCH(creative + 64)
    PREFETCH(creative + sizeof(Creative))
    PREFETCH(creative + sizeof(Creative) + 64)


cdef int _shortlist_max(Engine self, const Imp *imp) noexcept nogil:
    if imp.video.poddur_s > 0 or imp.audio.poddur_s > 0:
        return SHORTLIST_CAP
    return self.room


cdef int _rivals_max(Engine self, const Imp *imp) noexcept nogil:
    """How many of one separation group a short list may hold (twin: `select.rivals_max`)."""
    cdef int limit = _shortlist_max(self, imp)
    if self.imps_count <= 1 and imp.video.poddur_s <= 0 and imp.audio.poddur_s <= 0:
        return limit
    return max(limit - SHORTLIST_MAX, self.imps_count)


cdef int _room(Engine self, int imps, int competitions) noexcept nogil:
    """How long short lists are (twin: `select.shortlist_room`)."""
    cdef int wanted = min(SHORTLIST_MAX + imps - 1, SHORTLIST_CAP)
    if imps <= 1:
        return SHORTLIST_MAX
    if self.separates:
        wanted = SHORTLIST_CAP
    return max(min(wanted, BIDS_MAX // competitions), SHORTLIST_MAX)


cdef void _bound(Engine self) noexcept nogil:
    """The most that each candidate can be worth, in the currency of the answer."""
    cdef int i, count = self.found_count
    cdef const Bound *bound
    cdef double ratio
    for i in range(count):
        bound = &self.bounds[self.found[i]]
        if bound.currency != self.last_currency:
            self.last_currency = bound.currency
            self.last_ratio = self._ratio(bound.currency, self.currency)
        ratio = self.last_ratio
        # Without a rate it is looked at, and told so.
        self.ranked[i].value = bound.micros * ratio if ratio != 0.0 else CPM_LIMIT
        self.ranked[i].line_item = self.found[i]
    self.ranked_count = count


cdef int _crowd(Engine self, const Group *group, int rivals, int limit) noexcept nogil:
    """Where the last of a separation group stands that has all its places, or -1."""
    cdef int i, at, separation
    if rivals >= limit:
        return -1
    for i in range(group.count - rivals + 1):
        separation = self.line_items[group.entries[i].line_item].separation
        if separation >= 0:
            at = _crowded(self, group, separation, rivals)
            if at >= 0:
                return at
    return -1


cdef void _drop_hopeless(Engine self, int number, const Imp *imp) noexcept nogil:
    """Drops whose highest value misses a full short list of the open market, or the places that it
    has for a separation group.

    Deals have lists of their own; where one may be ours, nothing is known before it is looked
    at.
    """
    cdef const Group *group = &self.imp_groups[imp.deals_count]
    cdef int i, at, kept = 0, crowd = -1, limit = _shortlist_max(self, imp)
    cdef double last = 0.0, crowd_last = 0.0
    if self.terms.exhaustive:
        return
    if self.separates:
        at = _crowd(self, group, _rivals_max(self, imp), limit)
        if at >= 0:
            crowd = self.line_items[group.entries[at].line_item].separation
            crowd_last = <double>group.entries[at].value
    if group.count == limit:
        last = <double>group.entries[group.count - 1].value
    elif crowd < 0:
        return
    for i in range(self.ranked_count):
        if rint(self.ranked[i].value) >= last and (
            crowd < 0 or rint(self.ranked[i].value) >= crowd_last
            or self.line_items[self.ranked[i].line_item].separation != crowd
        ) or (
            imp.deals_count and self.line_items[self.ranked[i].line_item].deals_count
        ):
            self.ranked[kept] = self.ranked[i]
            kept += 1
        else:
            self._drop(self.ranked[i].line_item, -1, number, REJECT_BELOW_SHORTLIST)
    self.ranked_count = kept


cdef inline bint _ahead(Engine self, const Ranked *one, const Ranked *other) noexcept nogil:
    if one.value != other.value:
        return one.value > other.value
    return one.line_item < other.line_item


cdef int _take(Engine self, int step) noexcept nogil:
    """Moves the best `step` of `ranked` to `found`; of equals the first in the catalogue."""
    cdef int i, at, count = 0, kept = 0
    cdef Ranked best[SHORTLIST_CAP]
    cdef Ranked moved
    if step >= self.ranked_count:
        for i in range(self.ranked_count):
            self.found[i] = self.ranked[i].line_item
        count = self.ranked_count
        self.ranked_count = 0
        return count
    for i in range(self.ranked_count):
        moved = self.ranked[i]
        if count == step:
            if not _ahead(self, &moved, &best[step - 1]):
                self.ranked[kept] = moved
                kept += 1
                continue
            self.ranked[kept] = best[step - 1]
            kept += 1
            count -= 1
        at = count
        while at > 0 and _ahead(self, &moved, &best[at - 1]):
            best[at] = best[at - 1]
            at -= 1
        best[at] = moved
        count += 1
    for i in range(count):
        self.found[i] = best[i].line_item
    self.ranked_count = kept
    return count


cdef void _find_in(Engine self, int number, int block, const uint64_t *passing) noexcept nogil:
    """Adds the survivors of a block to `found`; over the impression's limit they are dropped."""
    cdef int k, line_item
    cdef uint64_t word
    for k in range(BLOCK):
        word = passing[k]
        while word:
            line_item = (block * BLOCK + k) * 64 + CTZ(word)
            word &= word - 1
            self.out.head.eligible_count += 1
            if self.looked_at >= self.terms.candidates_max:
                self._drop(line_item, -1, number, REJECT_TRUNCATED)
                continue
            PREFETCH(&self.bounds[line_item])
            self.found[self.found_count] = line_item
            self.found_count += 1
            self.looked_at += 1


cdef void _line_item(Engine self, int number, const Imp *imp, int line_item) noexcept nogil:
    cdef const LineItem *row = &self.line_items[line_item]
    cdef const Seat *seat = NULL
    cdef int16_t offered[DEALS_MAX]
    cdef int offered_count = 0, reason, creative, start
    cdef const Creative *ad
    # Only lists of seats ask for ours.
    if self.wseat_present or self.bseat_count or self.has_deal_seats:
        seat = _seat(self, row.advertiser)
    reason = _reject_line_item(self, number, imp, row, line_item, seat, offered, &offered_count)
    if reason:
        self._drop(line_item, -1, number, reason)
        return
    for creative in range(row.creatives_start, row.creatives_start + row.creatives_count):
        ad = &self.creatives[creative]
        reason = _reject_creative(self, ad, imp)
        if not reason:
            reason = _reject_history(self, row, ad)
        start = self.places_count
        if not reason:
            _open_to(self, imp, row, seat, ad, offered, offered_count)
            if self.places_count == start:
                reason = self.last_deal_reason
        if not reason and (
            self.ready_count >= READY_MAX or self.places_count > self.places_cap
        ):
            reason = REJECT_TRUNCATED
        if reason:
            self.places_count = start
            self._drop(line_item, creative, number, reason)
            continue
        if self.has_head[0]:
            PREFETCH(self.ad_rows[0] + <int64_t>creative * VECTOR)
        if self.has_head[1]:
            PREFETCH(self.ad_rows[1] + <int64_t>creative * VECTOR)
        self.ready[self.ready_count].creative = creative
        self.ready[self.ready_count].line_item = line_item
        self.ready[self.ready_count].places_start = start
        self.ready[self.ready_count].places_count = self.places_count - start
        self.ready_count += 1


cdef const Seat *_seat(Engine self, int advertiser) noexcept nogil:
    """The advertiser's own seat on this exchange; NULL: the exchange's default."""
    cdef const Advertiser *row = &self.advertisers[advertiser]
    cdef int i
    for i in range(row.seats_start, row.seats_start + row.seats_count):
        if self.seats[i].exchange == self.terms.exchange:
            return &self.seats[i]
    return NULL


cdef int _reject_line_item(
    Engine self, int number, const Imp *imp, const LineItem *row, int line_item, const Seat *seat,
    int16_t *offered, int *offered_count
) noexcept nogil:
    cdef int reason
    if row.program_count and not _fits(self, row, imp, number):
        return REJECT_TARGETING_EXPRESSION
    if line_item < self.overlay_count:
        reason = _held_back(self, row, &self.overlay[line_item])
        if reason:
            return reason
    if not _in_flight(self, row):
        return REJECT_FLIGHT
    offered_count[0] = _offered(self, imp, row, offered)
    if offered_count[0] == 0:
        if not row.flags & SNAP_OPEN_MARKET:
            return REJECT_DEAL_ONLY
        if imp.flags & IMP_PRIVATE_AUCTION:
            return REJECT_PRIVATE_AUCTION
    return _reject_seat(self, seat) or _reject_person(self, row)


cdef int _reject_seat(Engine self, const Seat *seat) noexcept nogil:
    cdef uint64_t seat_hash
    if self.wseat_present:
        seat_hash = self.terms.seat_w if seat == NULL else seat.hash_w
        if not _contains(self.wseat, self.wseat_count, seat_hash):
            return REJECT_SEAT
    if self.bseat_count:
        seat_hash = self.terms.seat_b if seat == NULL else seat.hash_b
        if _contains(self.bseat, self.bseat_count, seat_hash):
            return REJECT_SEAT
    return REJECT_NONE


cdef bint _is_blocked(Engine self) noexcept nogil:
    """Whether no seat of ours on this exchange may bid; asked only where nothing was bid."""
    cdef int i
    if not _reject_seat(self, NULL):
        return False
    for i in range(self.seats_count):
        if self.seats[i].exchange == self.terms.exchange and not _reject_seat(
            self, &self.seats[i]
        ):
            return False
    return True


cdef int _held_back(Engine self, const LineItem *row, const OverlayRow *over) noexcept nogil:
    if over.bits & OVERLAY_PAUSED:
        return REJECT_PAUSED
    if over.bits & OVERLAY_EXHAUSTED:
        return REJECT_EXHAUSTED
    if over.bits & OVERLAY_OUT_OF_STOCK:
        return REJECT_OUT_OF_STOCK
    if over.participation_e4 < PARTICIPATION_ALL and over.participation_e4 <= (
        mix64(self.facts.head.id_hash ^ row.key ^ PACING_SEED) % PARTICIPATION_ALL
    ):
        return REJECT_PACED
    return REJECT_NONE


cdef bint _in_flight(Engine self, const LineItem *row) noexcept nogil:
    cdef int i
    if row.flights_count == 0:
        return True
    for i in range(row.flights_start, row.flights_start + row.flights_count):
        if self.flights[i].start_ms <= self.now_ms < self.flights[i].end_ms:
            return True
    return False


cdef int _offered(Engine self, const Imp *imp, const LineItem *row, int16_t *out) noexcept nogil:
    cdef int i, j, count = 0
    if row.deals_count == 0 or imp.deals_count == 0:
        return 0
    for i in range(imp.deals_start, imp.deals_start + imp.deals_count):
        for j in range(row.deals_start, row.deals_start + row.deals_count):
            if self.deal_hashes[self.line_item_deals[j]] == self.facts.deals[i].hash_:
                out[count] = i
                count += 1
                break
    return count


cdef int _reject_person(Engine self, const LineItem *row) noexcept nogil:
    if row.flags & SNAP_NEEDS_PROFILE and not self.person.known:
        return REJECT_NEEDS_PROFILE
    if self.person.opt_outs_count and _contains(
        self.person.opt_outs, self.person.opt_outs_count, self.advertisers[row.advertiser].key
    ):
        return REJECT_OPTED_OUT
    if _is_capped(self, row.caps_start, row.caps_count):
        return REJECT_FREQUENCY_CAP
    return REJECT_NONE
