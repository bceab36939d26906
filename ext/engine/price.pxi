# From probabilities to a value, from a value to a price, and the floors in between.


cdef void _price(Engine self, int number, const Imp *imp) noexcept nogil:
    cdef int i
    cdef const Ready *ready
    cdef const LineItem *row
    cdef double ctr, cvr
    self.out.head.scored_count += self.ready_count
    if self.has_head[0] or self.has_head[1]:
        _score(self, number)
    for i in range(self.ready_count):
        ready = &self.ready[i]
        row = &self.line_items[ready.line_item]
        ctr = self.scores[0][i] if self.has_head[0] else row.prior_ctr
        cvr = self.scores[1][i] if self.has_head[1] else row.prior_cvr
        _enter(self, number, imp, ready, ctr, cvr)


cdef void _close(Engine self, int number, const Imp *imp) noexcept nogil:
    """Hands over the impression's short lists, while there is room for them."""
    cdef int i
    for i in range(imp.deals_count + 1):
        if self.imp_groups[i].count == 0 or self.groups_closed:
            continue
        if self.entries_written + self.imp_groups[i].count > BIDS_MAX:
            self.groups_closed = 1
            continue
        self.entries_written += self.imp_groups[i].count
        memcpy(&self.groups[self.groups_count], &self.imp_groups[i], sizeof(Group))
        self.groups[self.groups_count].imp = number
        self.groups[self.groups_count].deal = (
            imp.deals_start + i if i < imp.deals_count else -1
        )
        self.groups_count += 1


cdef void _score(Engine self, int number) noexcept nogil:
    cdef int i, head
    if self.scored_for != number:
        self.scored_for = number
        _queries(self, number)
    for i in range(self.ready_count):
        self.score_creatives[i] = self.ready[i].creative
    for head in range(2):
        if self.has_head[head]:
            self.score(
                self.ad_rows[head], self.query[head], self.score_creatives, self.ready_count,
                self.bias[head], self.slope[head], self.shift[head], self.scores[head],
            )


cdef void _queries(Engine self, int number) noexcept nogil:
    """The request's side of the model, for one impression."""
    cdef uint64_t hashes[256]
    cdef int count = 2, i, owner, head
    cdef const Token *token
    hashes[0] = self.terms.exchange
    hashes[1] = self.hour_token
    for owner in range(2):
        for i in range(self.facts.head.tokens_count):
            token = &self.facts.tokens[i]
            if token.dim < 64 and IS_FEATURE[token.dim] and (
                token.imp == (-1 if owner == 0 else number)
            ) and count < FEATURES_MAX:
                hashes[count] = token.hash_
                count += 1
    for i in range(self.person.segments_count):
        if count < FEATURES_MAX:
            hashes[count] = self.person.segments[i]
            count += 1
    for head in range(2):
        if self.has_head[head]:
            self.request_vector(
                self.tables[head], self.bits[head], hashes, count, self.query[head]
            )


cdef double _value_micros(Engine self, const LineItem *row, double ctr, double cvr) noexcept nogil:
    cdef double value, bid = <double>row.bid_micros
    if row.goal == SNAP_GOAL_CPM:
        value = bid
    elif row.goal == SNAP_GOAL_CPC:
        value = ctr * bid * 1000.0
    elif row.goal == SNAP_GOAL_CPA:
        value = ctr * cvr * bid * 1000.0
    else:
        value = ctr * cvr * <double>row.order_value_micros / row.target_roas * 1000.0
    if not isfinite(value) or value <= 0.0:
        return 0.0
    if value > <double>row.max_cpm_micros:
        return <double>row.max_cpm_micros
    return value


cdef int64_t _timed_floor(
    Engine self, int start, int count, int64_t mincpmpersec, int dur_s
) noexcept nogil:
    """The highest of the duration floors that hold, else by the second; -1: none said."""
    cdef int64_t best = -1
    cdef const DurFloor *entry
    cdef int i
    if dur_s <= 0:
        return -1
    for i in range(start, start + count):
        entry = &self.facts.durfloors[i]
        if dur_s >= entry.mindur_s and (entry.maxdur_s == 0 or dur_s <= entry.maxdur_s):
            if entry.floor_micros > best:
                best = entry.floor_micros
    if best >= 0:
        return best
    return mincpmpersec * dur_s if mincpmpersec > 0 else -1


cdef int64_t _floor(
    Engine self, const Imp *imp, const Av *av, const Deal *deal, int dur_s, uint32_t *currency
) noexcept nogil:
    cdef int64_t floor
    if deal != NULL:
        floor = _timed_floor(
            self, deal.durfloors_start, deal.durfloors_count, deal.mincpmpersec_micros, dur_s
        )
        if floor < 0 and deal.floor_micros > 0:
            floor = deal.floor_micros
        if floor >= 0:
            currency[0] = deal.floor_cur
            return floor
    currency[0] = imp.floor_cur
    if av != NULL:
        floor = _timed_floor(
            self, av.durfloors_start, av.durfloors_count, av.mincpmpersec_micros, dur_s
        )
        if floor >= 0:
            return floor
    return imp.floor_micros


cdef int64_t _down(Engine self, int64_t micros, uint32_t currency) noexcept nogil:
    """The most that a price allows in the answer's currency."""
    cdef double product = <double>micros * self._ratio(currency, self.currency)
    return <int64_t>(CPM_LIMIT if product > CPM_LIMIT else floor(product))


cdef int64_t _up(Engine self, int64_t micros, uint32_t currency) noexcept nogil:
    """A floor in the answer's currency, rounded up."""
    cdef double ratio = self._rate(currency) / self._rate(self.currency) * A_LITTLE_LESS
    cdef double product = <double>micros * ratio
    return <int64_t>(CPM_LIMIT + 1.0 if product > CPM_LIMIT else ceil(product))


cdef void _enter(
    Engine self, int number, const Imp *imp, const Ready *ready, double ctr, double cvr
) noexcept nogil:
    cdef const LineItem *row = &self.line_items[ready.line_item]
    cdef const Creative *ad = &self.creatives[ready.creative]
    cdef const Av *av = NULL
    cdef const Deal *deal
    cdef double ratio, value, paced
    cdef int64_t floor, price, most
    cdef bint is_over
    cdef uint32_t currency
    cdef int k, place, at, reason, limit, rivals, slot
    cdef Entry entry
    if row.currency != self.last_currency:
        self.last_currency = row.currency
        self.last_ratio = self._ratio(row.currency, self.currency)
    ratio = self.last_ratio
    if ratio == 0.0:
        self._drop(ready.line_item, ready.creative, number, REJECT_CURRENCY)
        return
    value = _value_micros(self, row, ctr, cvr) * ratio
    if value <= 0.0 or value > CPM_LIMIT:
        self._drop(ready.line_item, ready.creative, number, REJECT_NO_VALUE)
        return
    most = row.max_cpm_micros
    if row.currency != self.currency:
        most = _down(self, most, row.currency)
    paced = value
    if ready.line_item < self.overlay_count:
        paced = value * min(self.overlay[ready.line_item].multiplier_e6, MULTIPLIER_ONE) / (
            <double>MULTIPLIER_ONE
        )
    if ad.media == MEDIA_VIDEO:
        av = &imp.video
    elif ad.media == MEDIA_AUDIO:
        av = &imp.audio
    limit = _shortlist_max(self, imp)
    rivals = _rivals_max(self, imp) if self.separates else limit
    entry.value = <int64_t>rint(paced)
    entry.ctr = ctr
    entry.cvr = cvr
    entry.tie = mix64(self.facts.head.id_hash ^ ad.key)
    entry.line_item = ready.line_item
    entry.creative = ready.creative
    entry.chosen = 0
    entry.w = ad.w
    entry.h = ad.h
    if ad.media == MEDIA_BANNER:
        _format(self, ad, imp, &entry.w, &entry.h)
    for k in range(ready.places_count):
        place = self.places[ready.places_start + k]
        deal = &self.facts.deals[place] if place >= 0 else NULL
        at = _auction_type(self, deal)
        if at == 3:
            # The agreed price is bidfloor, whatever the deal says by duration.
            floor = deal.floor_micros
            currency = deal.floor_cur
            if floor <= 0:
                self._drop(
                    ready.line_item, ready.creative, number, REJECT_FIXED_PRICE_UNKNOWN
                )
                continue
        else:
            floor = _floor(self, imp, av, deal, ad.dur_s, &currency)
        if floor and currency != self.currency:
            if self._ratio(currency, self.currency) == 0.0:
                self._drop(ready.line_item, ready.creative, number, REJECT_CURRENCY)
                continue
            floor = _up(self, floor, currency)
        price = 0
        reason = REJECT_NONE
        is_over = <double>floor > value or floor > most
        if at == 3:
            if is_over:
                reason = REJECT_OVER_MAX_BID
            else:
                price = floor
        else:
            price = min(<int64_t>rint(paced * row.shade if at == 1 else paced), most)
            if price < floor and <double>floor <= paced and not is_over:
                price = floor
            if price < floor and not is_over:
                reason = REJECT_PACED
            elif price < floor:
                reason = REJECT_BELOW_FLOOR if deal == NULL else REJECT_BELOW_DEAL_FLOOR
            elif price <= 0:
                reason = REJECT_NO_VALUE
        if reason:
            self._drop(ready.line_item, ready.creative, number, reason)
            continue
        entry.price = price
        entry.floor = floor
        entry.at = at
        slot = place - imp.deals_start if place >= 0 else imp.deals_count
        _insert(self, &self.imp_groups[slot], &entry, limit, rivals, number)


cdef int _auction_type(Engine self, const Deal *deal) noexcept nogil:
    cdef int at = self.facts.head.at if self.facts.head.at else self.terms.at_default
    if deal != NULL and deal.at:
        at = deal.at
    if at == 3 and deal == NULL:
        return 2
    return at
