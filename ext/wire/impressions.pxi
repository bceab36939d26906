# Deals, and an impression with all that it offers.
# A part of `ext/wire.pyx`, which says how the parts work together.

# -- deals -----------------------------------------------------------------------------------------

cdef const uint8_t *_deal(Wire *wire, const uint8_t *p, int first) noexcept nogil:
    """One deal of those from `first` on; what would make the reference leave it out is a doubt."""
    cdef Val slots[L_COUNT]
    cdef int index = wire.facts.head.deals_count, own = -1
    cdef Deal *deal
    cdef Text raw, text
    cdef int32_t at
    cdef int i
    if index >= wire.deals_max or index >= DEALS_MAX:
        return NULL
    deal = &wire.facts.deals[index]
    memset(deal, 0, sizeof(Deal))
    _clear(slots, sizeof(slots))
    while True:
        p = _members(wire, p, T_DEAL, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if own == L_DURFLOORS:
            p = _durfloors(wire, p, &slots[own], &deal.durfloors_start, &deal.durfloors_count)
        elif own == L_WADOMAIN:
            p = _texts(wire, p, &slots[own], DIM_DEAL_WADOMAIN, index)
        else:
            p = _texts(wire, p, &slots[own], DIM_DEAL_WSEAT, index)
        if p == NULL:
            return NULL
    if slots[L_WSEATS].kind != NOTHING:
        if slots[L_WSEAT].kind != NOTHING:
            return NULL
        wire.quirks |= QUIRK_OLD_HOME
        slots[L_WSEAT] = slots[L_WSEATS]
    raw = _raw(wire, &slots[L_ID])
    deal.floor_cur = _currency(wire, &slots[L_BIDFLOORCUR])
    if deal.floor_cur == 0 or not _is_id(wire, &slots[L_ID], raw):
        return NULL
    text = _plain(wire, &slots[L_ID])
    deal.hash_ = _hash_of(wire, DIM_DEAL, text)
    for i in range(first, index):
        if wire.facts.deals[i].hash_ == deal.hash_:
            return NULL  # listed twice, or spelled in other capitals
    deal.floor_micros = _floor(wire, &slots[L_BIDFLOOR])
    deal.mincpmpersec_micros = _floor(wire, &slots[L_MINCPMPERSEC])
    deal.id_off = <int32_t>(raw.p - wire.base)
    deal.id_len = <int32_t>raw.n
    deal.imp = wire.imp
    at = _count(wire, &slots[L_AT], 0)
    deal.at = at if at < 255 else 255
    deal.guaranteed = _integer(wire, &slots[L_GUAR], 0) != 0
    deal.has_wseat = slots[L_WSEAT].kind == DONE and slots[L_WSEAT].n > 0
    deal.has_wadomain = slots[L_WADOMAIN].kind == DONE and slots[L_WADOMAIN].n > 0
    _target(wire, DIM_DEAL, deal.hash_, text, wire.imp)
    wire.facts.head.deals_count += 1
    return p


cdef const uint8_t *_pmp(Wire *wire, const uint8_t *p, Imp *row) noexcept nogil:
    cdef Val slots[3]
    cdef int own = -1
    cdef bint more, spoiled = wire.spoiled
    _clear(slots, sizeof(slots))
    row.deals_start = wire.facts.head.deals_count
    while True:
        p = _members(wire, p, T_PMP, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        p = _objects(wire, p, &slots[own], &more)
        wire.spoiled = False
        while p != NULL and more:
            p = _deal(wire, p, row.deals_start)
            if p == NULL or wire.spoiled:
                return NULL
            p = _next(wire, p, &more)
        wire.spoiled = spoiled
        if p == NULL:
            return NULL
    row.deals_count = wire.facts.head.deals_count - row.deals_start
    if _strict_flag(wire, &slots[ONE]):
        row.flags |= IMP_PRIVATE_AUCTION
    return p


# -- one impression --------------------------------------------------------------------------------

cdef const uint8_t *_metrics(Wire *wire, const uint8_t *p, Val *val, Imp *row) noexcept nogil:
    """Viewability: the first metric that says it."""
    cdef Val slots[3]
    cdef double value = 0
    cdef bint more
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        p = _plain_object(wire, p, T_METRIC, slots)
        if p == NULL:
            return NULL
        if not row.flags & IMP_HAS_VIEWABILITY and _equals(
            _text(wire, &slots[ONE]), b"viewability", 11
        ):
            if _real(wire, &slots[TWO], &value) and 0 <= value <= 1:
                row.viewability = value
                row.flags |= IMP_HAS_VIEWABILITY
            else:
                wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        p = _next(wire, p, &more)
    return p


cdef const uint8_t *_imp_ext(Wire *wire, const uint8_t *p, Val *slots) noexcept nogil:
    cdef int own = -1
    while True:
        p = _members(wire, p, T_IMP_EXT, slots, &own)
        if p == NULL or own == 0:
            return p
        if own == I_DATA:
            p = _key_values(wire, p, &slots[own])
        elif _is_object(wire, &p, &slots[own]):
            p = _plain_object(wire, p, T_PREBID, slots)
        if p == NULL:
            return NULL


cdef void _identity(Wire *wire, Imp *row, Val *val) noexcept nogil:
    cdef Text raw = _raw(wire, val)
    cdef Imp *other
    cdef int i
    if not _is_id(wire, val, raw):
        _spoil(wire)
        return
    row.id_off = <int32_t>(raw.p - wire.base)
    row.id_len = <int32_t>raw.n
    wire.escaped_ids |= val.kind == ESCAPED
    if wire.escaped_ids and wire.imp:
        wire.doubt = True  # spelled in two ways, two of them may be the same
    for i in range(wire.imp):
        other = &wire.facts.imps[i]
        if other.id_len == row.id_len and (
            memcmp(wire.base + other.id_off, raw.p, raw.n) == 0
        ):
            wire.quirks |= QUIRK_DUPLICATE_IMP_ID
            wire.spoiled = True
            return


cdef void _start_ms(Wire *wire, Imp *row, Val *val) noexcept nogil:
    cdef double value = 0
    if not _real(wire, val, &value):
        return
    if value < 0:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return
    if 0 < value < SECONDS_BELOW:
        wire.quirks |= QUIRK_OTHER_NOTATION
        value *= 1000
    row.dt_ms = value


cdef bint _multiplier(Wire *wire, Val *val, double *out) noexcept nogil:
    """Whether a multiplier is possible."""
    return _real(wire, val, out) and 0 < out[0] <= MULTIPLIER_MAX


cdef void _terms(Wire *wire, Imp *row, Val *slots) noexcept nogil:
    """Floor, currency, time, multiplier, flags."""
    row.floor_micros = _floor(wire, &slots[I_BIDFLOOR])
    row.floor_cur = _currency(wire, &slots[I_BIDFLOORCUR])
    if row.floor_cur == 0:
        _spoil(wire)
    row.multiplier = 1.0
    if _may_move(wire, &slots[I_MULTIPLIER]):
        wire.without_qty |= <uint32_t>1 << wire.imp
    elif not _multiplier(wire, &slots[I_MULTIPLIER], &row.multiplier):
        _spoil(wire)
    _start_ms(wire, row, &slots[I_DT])
    row.exp_s = _count(wire, &slots[I_EXP], 0)
    row.ssai = _count(wire, &slots[I_SSAI], 0)
    row.clickbrowser = _count(wire, &slots[I_CLICKBROWSER], 0)
    if _integer(wire, &slots[I_INSTL], 0) != 0:
        row.flags |= IMP_INTERSTITIAL
    if _strict_flag(wire, &slots[I_SECURE]):
        row.flags |= IMP_SECURE


cdef void _placement(Wire *wire, Imp *row, Val *slots) noexcept nogil:
    """Rewarded, and the tokens of the place on the page."""
    cdef Val *rewarded = &slots[I_RWDD]
    if _may_move(wire, rewarded):
        if slots[I_VIDEO_REWARDED].kind != NOTHING:
            rewarded = &slots[I_VIDEO_REWARDED]
        else:
            rewarded = &slots[I_PREBID_REWARDED]
        if rewarded.kind != NOTHING:
            wire.quirks |= QUIRK_OLD_HOME
    if _integer(wire, rewarded, 0) != 0:
        row.flags |= IMP_REWARDED
    _target_known(
        wire, DIM_INTERSTITIAL, INTERSTITIAL_TOKENS[(row.flags & IMP_INTERSTITIAL) != 0], wire.imp
    )
    _target_known(wire, DIM_REWARDED, REWARDED_TOKENS[(row.flags & IMP_REWARDED) != 0], wire.imp)
    _target_text(wire, DIM_TAG, _text(wire, &slots[I_TAGID]), wire.imp)
    _target_text(wire, DIM_TAG, _text(wire, &slots[I_GPID]), wire.imp)


cdef inline void _offer(Wire *wire, Imp *row, int medium) noexcept nogil:
    row.media |= <uint32_t>1 << medium
    _target_known(wire, DIM_MEDIA, MEDIA_TOKENS[medium], wire.imp)


cdef const uint8_t *_imp_members(
    Wire *wire, const uint8_t *p, Imp *row, Val *slots
) noexcept nogil:
    cdef Val banner_pos, video_pos
    cdef bint offered
    cdef int own = -1
    banner_pos.kind = NOTHING
    video_pos.kind = NOTHING
    while True:
        p = _members(wire, p, T_IMP, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if own == I_METRIC:
            p = _metrics(wire, p, &slots[own], row)
        elif _is_object(wire, &p, &slots[own]):
            if own == I_BANNER:
                p = _banner(wire, p, row, &banner_pos)
                _offer(wire, row, MEDIA_BANNER)
            elif own == I_VIDEO:
                p = _av(wire, p, &row.video, True, &video_pos, &slots[I_VIDEO_REWARDED])
                _offer(wire, row, MEDIA_VIDEO)
            elif own == I_AUDIO:
                p = _av(wire, p, &row.audio, False, NULL, NULL)
                _offer(wire, row, MEDIA_AUDIO)
            elif own == I_NATIVE:
                p = _native(wire, p, row, &offered)
                if p != NULL and offered:
                    _offer(wire, row, MEDIA_NATIVE)
            elif own == I_QTY:
                p = _plain_object(wire, p, T_QTY, slots)
            elif own == I_PMP:
                p = _pmp(wire, p, row)
            else:
                p = _imp_ext(wire, p, slots)
        if p == NULL:
            return NULL
    _read_pos(wire, row, &banner_pos)
    _read_pos(wire, row, &video_pos)
    return p


cdef const uint8_t *_imp(Wire *wire, const uint8_t *p) noexcept nogil:
    """One impression; when it is unusable its record keeps its id, and no list a row of it."""
    cdef Head *head = &wire.facts.head
    cdef Head mark = head[0]
    cdef int targets_left = wire.targets_left, blocks_left = wire.blocks_left
    cdef Imp *row = &wire.facts.imps[wire.imp]
    cdef Val slots[I_COUNT]
    cdef int32_t off, size
    _clear(slots, sizeof(slots))
    wire_memset(row, 0, sizeof(Imp))
    row.pos = -1
    wire.spoiled = False
    p = _imp_members(wire, p, row, slots)
    if p == NULL:
        return NULL
    _identity(wire, row, &slots[I_ID])
    _terms(wire, row, slots)
    _placement(wire, row, slots)
    if wire.spoiled or row.media == 0:
        off, size = row.id_off, row.id_len
        wire_memset(row, 0, sizeof(Imp))
        row.id_off = off
        row.id_len = size
        row.flags = IMP_UNUSABLE
        head.tokens_count = mark.tokens_count
        head.formats_count = mark.formats_count
        head.deals_count = mark.deals_count
        head.durfloors_count = mark.durfloors_count
        head.assets_count = mark.assets_count
        wire.targets_left = targets_left
        wire.blocks_left = blocks_left
    return p


cdef const uint8_t *_imps(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """imp[], up to the limit of the exchange; the rest is only checked."""
    cdef bint usable = False
    if p[0] != c'[' or val.kind != NOTHING:
        return NULL
    val.kind = DONE
    p = _space(p + 1)
    while True:
        if wire.imp == wire.imps_max:
            wire.flags |= FLAG_IMPS_OVERFLOW
            wire.quirks |= QUIRK_LIST_TRUNCATED
            p = _skip(wire, p)
            if p == NULL:
                return NULL
        else:
            if p[0] != c'{':
                return NULL
            p = _imp(wire, p)
            if p == NULL:
                return NULL
            usable = usable or not wire.facts.imps[wire.imp].flags & IMP_UNUSABLE
            wire.imp += 1
        p = _space(p)
        if p[0] == c']':
            break
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    wire.facts.head.imps_count = wire.imp
    wire.imp = -1
    if not usable:
        wire.flags |= FLAG_UNUSABLE
    return p + 1
