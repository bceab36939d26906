# Short lists, and which of them go out together.


cdef void _insert(
    Engine self, Group *group, const Entry *entry, int limit, int rivals, int number
) noexcept nogil:
    """Keeps the short list sorted; a line item holds one place, a separation group some; what falls
    off is outranked.
    """
    cdef int i, position
    cdef int separation = self.line_items[entry.line_item].separation
    if group.count == limit and not _better(entry, &group.entries[limit - 1]):
        self._drop(entry.line_item, entry.creative, number, REJECT_OUTRANKED)
        return
    for i in range(group.count):
        if group.entries[i].line_item == entry.line_item:
            if not _better(entry, &group.entries[i]):
                self._drop(entry.line_item, entry.creative, number, REJECT_OUTRANKED)
                return
            self._drop(
                group.entries[i].line_item, group.entries[i].creative, number, REJECT_OUTRANKED
            )
            for position in range(i, group.count - 1):
                group.entries[position] = group.entries[position + 1]
            group.count -= 1
            break
    if separation >= 0 and rivals < limit:
        position = _crowded(self, group, separation, rivals)
        if position >= 0:
            if not _better(entry, &group.entries[position]):
                self._drop(entry.line_item, entry.creative, number, REJECT_OUTRANKED)
                return
            self._drop(
                group.entries[position].line_item, group.entries[position].creative, number,
                REJECT_OUTRANKED,
            )
            for position in range(position, group.count - 1):
                group.entries[position] = group.entries[position + 1]
            group.count -= 1
    if group.count == limit:
        self._drop(
            group.entries[limit - 1].line_item, group.entries[limit - 1].creative, number,
            REJECT_OUTRANKED,
        )
        group.count -= 1
    position = group.count
    while position > 0 and _better(entry, &group.entries[position - 1]):
        group.entries[position] = group.entries[position - 1]
        position -= 1
    group.entries[position] = entry[0]
    group.count += 1


cdef int _crowded(Engine self, const Group *group, int separation, int rivals) noexcept nogil:
    """Where the last of a separation group stands that has all its places, or -1."""
    cdef int i, last = -1, count = 0
    for i in range(group.count):
        if self.line_items[group.entries[i].line_item].separation == separation:
            last = i
            count += 1
    return last if count >= rivals else -1


cdef inline const Av *_av(Engine self, int imp, int creative) noexcept nogil:
    cdef int media = self.creatives[creative].media
    if media == MEDIA_VIDEO:
        return &self.facts.imps[imp].video
    if media == MEDIA_AUDIO:
        return &self.facts.imps[imp].audio
    return NULL


cdef bint _share(
    Engine self, const Creative *one, const Creative *other, uint32_t pod
) noexcept nogil:
    """Whether two creatives share what a pod wants once: as their bids say it."""
    cdef int i, j
    if pod & DEDUPE_DOMAIN:
        for i in range(one.adomains_start, one.adomains_start + one.adomains_count):
            for j in range(other.adomains_start, other.adomains_start + other.adomains_count):
                if self.creative_domains[i] == self.creative_domains[j]:
                    return True
    if pod & DEDUPE_CATEGORY:
        for i in range(one.codes_start, one.codes_start + one.codes_count):
            if not self.creative_codes[i].told:
                continue
            for j in range(other.codes_start, other.codes_start + other.codes_count):
                if self.creative_codes[j].told and (
                    self.creative_codes[i].ordinal == self.creative_codes[j].ordinal
                ):
                    return True
    if pod & DEDUPE_FILE:
        for i in range(one.renditions_start, one.renditions_start + one.renditions_count):
            for j in range(
                other.renditions_start, other.renditions_start + other.renditions_count
            ):
                if self.renditions[i].url == self.renditions[j].url:
                    return True
    return False


cdef int _between(
    Engine self, int imp, int line_item, int creative, int other_imp, int other_line_item,
    int other_creative
) noexcept nogil:
    """Why two bids may not stand in one answer, or REJECT_NONE."""
    cdef const Av *av = _av(self, imp, creative)
    cdef const Av *other_av = _av(self, other_imp, other_creative)
    cdef const LineItem *ours = &self.line_items[line_item]
    cdef const LineItem *theirs = &self.line_items[other_line_item]
    cdef uint32_t pod = 0
    cdef bint dynamic
    if av != NULL and other_av != NULL:
        dynamic = imp == other_imp and av.poddur_s > 0
        if dynamic or (imp != other_imp and av.podid and av.podid == other_av.podid):
            pod = 1 | av.poddedupe | other_av.poddedupe
    if imp == other_imp and not pod:
        return REJECT_NONE
    if line_item == other_line_item and (pod or not ours.flags & SNAP_REPEAT):
        return REJECT_SEPARATION
    if pod:
        if self.creatives[creative].key == self.creatives[other_creative].key:
            return REJECT_SEPARATION
        if _share(self, &self.creatives[creative], &self.creatives[other_creative], pod):
            return REJECT_SEPARATION
    if (
        ours.separation >= 0 and ours.separation == theirs.separation
        and ours.advertiser != theirs.advertiser
    ):
        return REJECT_SEPARATION
    return REJECT_NONE


cdef int _conflict(Engine self, const Group *group, const Entry *entry) noexcept nogil:
    """Why this candidate may not stand beside those chosen, or REJECT_NONE."""
    cdef int i, reason
    cdef const Group *other_group
    cdef const Entry *other
    for i in range(self.taken_count):
        other_group = &self.groups[self.taken[i].group]
        other = &other_group.entries[self.taken[i].entry]
        reason = _between(
            self, group.imp, entry.line_item, entry.creative,
            other_group.imp, other.line_item, other.creative,
        )
        if reason:
            return reason
    return REJECT_NONE


cdef void _fall_back(Engine self, int refused, int reason) noexcept nogil:
    """Gives the place of a bid to the next of its short list who may stand beside the others."""
    cdef Bid *gone = &self.out.bids[refused]
    cdef int number
    gone.chosen = 0
    self._drop(gone.line_item, gone.creative, gone.imp, reason)
    for number in range(refused + 1, self.out.head.bids_count):
        if self.out.bids[number].group != gone.group:
            return
        if not self.out.bids[number].chosen and _may_go_out(self, &self.out.bids[number]):
            self.out.bids[number].chosen = 1
            return


cdef bint _may_go_out(Engine self, const Bid *bid) noexcept nogil:
    cdef const Av *av = _av(self, bid.imp, bid.creative)
    cdef const Av *other_av
    cdef const Bid *other
    cdef int number, count = 0
    cdef int64_t seconds = 0
    for number in range(self.out.head.bids_count):
        other = &self.out.bids[number]
        if not other.chosen:
            continue
        if _between(
            self, bid.imp, bid.line_item, bid.creative,
            other.imp, other.line_item, other.creative,
        ):
            return False
        other_av = _av(self, other.imp, other.creative)
        if other.imp == bid.imp and other_av != NULL and other_av.poddur_s > 0:
            count += 1
            seconds += other.dur_s
    if av == NULL or av.poddur_s <= 0:
        return True
    return not (av.maxseq > 0 and count >= av.maxseq) and seconds + bid.dur_s <= av.poddur_s


cdef int _choose(Engine self) noexcept nogil:
    """Marks what goes out, then writes the short lists; returns how many go out."""
    cdef int g, e, count, reason, pod_count = 0
    cdef int64_t seconds = 0
    cdef Group *group
    cdef Entry *entry
    cdef const Av *av
    cdef bint dynamic
    self.taken_count = 0
    for g in range(self.groups_count):
        group = &self.groups[g]
        count = 0
        # A pod is one stretch of time, whatever deals its bids name.
        if g == 0 or self.groups[g - 1].imp != group.imp:
            seconds = pod_count = 0
        for e in range(group.count):
            entry = &group.entries[e]
            av = _av(self, group.imp, entry.creative)
            dynamic = av != NULL and av.poddur_s > 0
            if count and not dynamic:
                break
            reason = _conflict(self, group, entry)
            if not reason and dynamic:
                if (av.maxseq > 0 and pod_count >= av.maxseq) or (
                    seconds + self.creatives[entry.creative].dur_s > av.poddur_s
                ):
                    reason = REJECT_POD_FULL
            if reason:
                self._drop(entry.line_item, entry.creative, group.imp, reason)
                continue
            entry.chosen = 1
            self.taken[self.taken_count].group = g
            self.taken[self.taken_count].entry = e
            self.taken_count += 1
            count += 1
            if dynamic:
                seconds += self.creatives[entry.creative].dur_s
                pod_count += 1
        _write(self, g)
    return self.taken_count


cdef void _write(Engine self, int g) noexcept nogil:
    cdef const Group *group = &self.groups[g]
    cdef const Entry *entry
    cdef const Creative *ad
    cdef Bid *bid
    cdef int e
    for e in range(group.count):
        entry = &group.entries[e]
        ad = &self.creatives[entry.creative]
        bid = &self.out.bids[self.out.head.bids_count]
        self.out.head.bids_count += 1
        bid.price_micros = entry.price
        bid.value_micros = entry.value
        bid.floor_micros = entry.floor
        bid.ctr = entry.ctr
        bid.cvr = entry.cvr
        bid.line_item = entry.line_item
        bid.creative = entry.creative
        bid.w = entry.w
        bid.h = entry.h
        bid.dur_s = ad.dur_s
        bid.product = ad.product
        bid.imp = group.imp
        bid.deal = group.deal
        bid.group = g
        bid.rank = e
        bid.media = ad.media
        bid.protocol = ad.protocol
        bid.chosen = entry.chosen
        bid.at = entry.at
