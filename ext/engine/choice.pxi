# Short lists, and which of them go out together.


cdef void _insert(
    Engine self, Group *group, const Entry *entry, int limit, int number
) noexcept nogil:
    """Keeps the short list sorted; a line item holds one place; what falls off is outranked."""
    cdef int i, position
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


cdef const Av *_av(Engine self, const Group *group, const Entry *entry) noexcept nogil:
    cdef int media = self.creatives[entry.creative].media
    if media == MEDIA_VIDEO:
        return &self.facts.imps[group.imp].video
    if media == MEDIA_AUDIO:
        return &self.facts.imps[group.imp].audio
    return NULL


cdef int _conflict(Engine self, const Group *group, const Entry *entry) noexcept nogil:
    """Why this candidate may not stand beside those chosen, or REJECT_NONE."""
    cdef int i
    cdef const Group *other_group
    cdef const Entry *other
    cdef const Av *av
    cdef const Av *other_av
    cdef const LineItem *ours = &self.line_items[entry.line_item]
    cdef const LineItem *theirs
    cdef uint32_t pod
    cdef bint dynamic
    for i in range(self.taken_count):
        other_group = &self.groups[self.taken[i].group]
        other = &other_group.entries[self.taken[i].entry]
        av = _av(self, group, entry)
        other_av = _av(self, other_group, other)
        pod = 0
        if av != NULL and other_av != NULL:
            dynamic = group.imp == other_group.imp and av.poddur_s > 0
            if dynamic or (
                group.imp != other_group.imp and av.podid and av.podid == other_av.podid
            ):
                pod = 1 | av.poddedupe
        if group.imp == other_group.imp and not pod:
            continue
        theirs = &self.line_items[other.line_item]
        if entry.line_item == other.line_item and (pod or not ours.flags & SNAP_REPEAT):
            return REJECT_SEPARATION
        if pod:
            if self.creatives[entry.creative].key == self.creatives[other.creative].key:
                return REJECT_SEPARATION
            if pod & DEDUPE_ADVERTISER and ours.advertiser == theirs.advertiser:
                return REJECT_SEPARATION
        if (
            ours.separation >= 0 and ours.separation == theirs.separation
            and ours.advertiser != theirs.advertiser
        ):
            return REJECT_SEPARATION
    return REJECT_NONE


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
            av = _av(self, group, entry)
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
