# Impressions: media, native, deals.
# A part of `ext/wire.pyx`, which says how the parts work together.

# -- impressions -----------------------------------------------------------------------------------

cdef void _read_pos(Wire *wire, Imp *row, Val *val) noexcept nogil:
    cdef int32_t pos = _count(wire, val, -1)
    if pos >= 0 and row.pos == -1:
        row.pos = pos
        _target_number(wire, DIM_POSITION, b"", pos, wire.imp)


cdef const uint8_t *_format(Wire *wire, const uint8_t *p, Imp *row, bint *flex) noexcept nogil:
    """One entry of banner.format."""
    cdef Val slots[6]
    cdef Format *size
    _clear(slots, sizeof(slots))
    p = _plain_object(wire, p, T_FORMAT, slots)
    if p == NULL or wire.facts.head.formats_count >= FORMATS_MAX:
        return NULL
    size = &wire.facts.formats[wire.facts.head.formats_count]
    memset(size, 0, sizeof(Format))
    size.w = _side(wire, &slots[F_W])
    size.h = _side(wire, &slots[F_H])
    size.wmin = _side(wire, &slots[F_WMIN])
    size.wratio = _size(wire, &slots[F_WRATIO])
    size.hratio = _size(wire, &slots[F_HRATIO])
    if not (size.w and size.h):
        if size.wratio <= 0 or size.hratio <= 0:
            wire.quirks |= QUIRK_BAD_VALUE_IGNORED
            return p
        flex[0] = True
    else:
        _target_size(wire, size.w, size.h)
    wire.facts.head.formats_count += 1
    row.formats_count += 1
    return p


cdef void _own_size(Wire *wire, Imp *row, Val *slots) noexcept nogil:
    """banner.w and banner.h, unless a format is the same."""
    cdef int32_t w = _side(wire, &slots[F_W])
    cdef int32_t h = _side(wire, &slots[F_H])
    cdef Format *size
    cdef int i
    if not (w or h):
        return
    for i in range(row.formats_count):
        size = &wire.facts.formats[row.formats_start + i]
        if size.w == w and size.h == h:
            return
    if not (w and h):
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return
    if wire.facts.head.formats_count >= FORMATS_MAX:
        wire.doubt = True
        return
    size = &wire.facts.formats[wire.facts.head.formats_count]
    memset(size, 0, sizeof(Format))
    size.w = w
    size.h = h
    wire.facts.head.formats_count += 1
    row.formats_count += 1
    _target_size(wire, w, h)


cdef void _banner_range(Wire *wire, Imp *row, Val *slots) noexcept nogil:
    """The sizes that a banner without any takes, if it says so."""
    cdef int32_t wmin = _side(wire, &slots[B_WMIN])
    cdef int32_t wmax = _side(wire, &slots[B_WMAX])
    cdef int32_t hmin = _side(wire, &slots[B_HMIN])
    cdef int32_t hmax = _side(wire, &slots[B_HMAX])
    cdef Format *size
    if 0 < wmax < wmin or 0 < hmax < hmin:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return
    if not (wmin or wmax or hmin or hmax):
        return
    if wire.facts.head.formats_count >= FORMATS_MAX:
        wire.doubt = True
        return
    size = &wire.facts.formats[wire.facts.head.formats_count]
    memset(size, 0, sizeof(Format))
    size.wmin, size.wmax = wmin, wmax
    size.hmin, size.hmax = hmin, hmax
    wire.facts.head.formats_count += 1
    row.formats_count += 1


cdef const uint8_t *_banner(Wire *wire, const uint8_t *p, Imp *row, Val *pos) noexcept nogil:
    cdef Val slots[B_COUNT]
    cdef int own = -1
    cdef bint more, flex = False
    _clear(slots, sizeof(slots))
    row.formats_start = wire.facts.head.formats_count
    while True:
        p = _members(wire, p, T_BANNER, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        p = _objects(wire, p, &slots[own], &more)
        while p != NULL and more:
            p = _format(wire, p, row, &flex)
            if p != NULL:
                p = _next(wire, p, &more)
        if p == NULL:
            return NULL
    _own_size(wire, row, slots)
    if row.formats_count == 0:
        flex = True
        _banner_range(wire, row, slots)
    if flex:
        _target_known(wire, DIM_SIZE, FLEX_TOKEN, wire.imp)
    row.banner_battr = _mask64(&slots[B_BATTR])
    row.banner_btype = _mask(&slots[B_BTYPE], 0)
    row.banner_api = _mask(&slots[B_API], 0)
    row.banner_expdir = _mask(&slots[B_EXPDIR], <uint32_t>UNKNOWN_MASK)
    row.banner_mimes = _mask64(&slots[B_MIMES])
    pos[0] = slots[B_POS]
    return p


cdef const uint8_t *_durfloors(
    Wire *wire, const uint8_t *p, Val *val, int32_t *start, int32_t *count
) noexcept nogil:
    """durfloors of a video, an audio or a deal."""
    cdef Head *head = &wire.facts.head
    cdef Val slots[4]
    cdef DurFloor *row
    cdef bint more
    p = _objects(wire, p, val, &more)
    start[0] = head.durfloors_count
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        p = _plain_object(wire, p, T_DURFLOOR, slots)
        if p == NULL or head.durfloors_count >= DURFLOORS_MAX:
            return NULL
        row = &wire.facts.durfloors[head.durfloors_count]
        row.floor_micros = _floor(wire, &slots[ONE])
        row.mindur_s = _size(wire, &slots[TWO])
        row.maxdur_s = _size(wire, &slots[THREE])
        head.durfloors_count += 1
        count[0] += 1
        p = _next(wire, p, &more)
    return p


cdef const uint8_t *_rqddurs(Wire *wire, const uint8_t *p, Val *val, Av *av) noexcept nogil:
    """Exact durations; `n` of the slot counts entries that say something."""
    cdef Val item
    cdef int32_t seconds
    cdef int kept = 0
    cdef bint listed = p[0] == c'['
    if val.kind != NOTHING:
        return NULL
    val.n = 0
    if listed:
        val.kind = DONE
        p = _space(p + 1)
        if p[0] == c']':
            return p + 1
    while True:
        item.kind = NOTHING
        p = _value(wire, p, &item)
        if p == NULL:
            return NULL
        if item.kind != NOTHING:
            val.n += 1
            seconds = _integer(wire, &item, 0)
            if seconds > 0:
                if kept < RQDDURS_MAX:
                    av.rqddurs_s[kept] = seconds
                    kept += 1
                else:
                    wire.quirks |= QUIRK_LIST_TRUNCATED
        if not listed:
            break
        p = _space(p)
        if p[0] == c']':
            p += 1
            break
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    if val.n and not listed:
        val.kind = DONE
        wire.quirks |= QUIRK_SCALAR_AS_LIST
    if val.n and kept == 0:
        _spoil(wire)
    return p


cdef const uint8_t *_av(
    Wire *wire, const uint8_t *p, Av *av, bint is_video, Val *pos, Val *rewarded
) noexcept nogil:
    """A video or audio placement."""
    cdef Val slots[V_COUNT]
    cdef Val again
    cdef Val ext[I_COUNT]
    cdef Text podid
    cdef const uint8_t *table = T_AUDIO
    cdef int own = -1
    if is_video:
        table = T_VIDEO_OBJ
    _clear(slots, sizeof(slots))
    while True:
        p = _members(wire, p, table, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if own == V_RQDDURS:
            p = _rqddurs(wire, p, &slots[own], av)
        elif own == V_DURFLOORS:
            p = _durfloors(wire, p, &slots[own], &av.durfloors_start, &av.durfloors_count)
        elif _is_object(wire, &p, &slots[own]):
            _clear(ext, sizeof(ext))
            p = _plain_object(wire, p, T_VIDEO_EXT, ext)
            rewarded[0] = ext[I_VIDEO_REWARDED]
        if p == NULL:
            return NULL
    if slots[V_PROTOCOLS].kind == NOTHING and slots[V_PROTOCOL].kind != NOTHING:
        wire.quirks |= QUIRK_OLD_HOME
        again.kind = NOTHING
        _numbers(wire, _start_of(&slots[V_PROTOCOL]), &again)
        slots[V_PROTOCOLS] = again
    av.offered = 1
    av.startdelay_s = _integer(wire, &slots[V_STARTDELAY], 0)
    av.maxextended_s = _integer(wire, &slots[V_MAXEXTENDED], 0)
    av.podseq = _integer(wire, &slots[V_PODSEQ], 0)
    av.slotinpod = _integer(wire, &slots[V_SLOTINPOD], 0)
    av.skipmin_s = _count(wire, &slots[V_SKIPMIN], 0)
    av.skipafter_s = _count(wire, &slots[V_SKIPAFTER], 0)
    av.minbitrate_kbps = _count(wire, &slots[V_MINBITRATE], 0)
    av.maxbitrate_kbps = _count(wire, &slots[V_MAXBITRATE], 0)
    av.poddur_s = _count(wire, &slots[V_PODDUR], 0)
    av.maxseq = _count(wire, &slots[V_MAXSEQ], 0)
    av.mimes = _mask64(&slots[V_MIMES])
    av.battr = _mask64(&slots[V_BATTR])
    av.api = _mask(&slots[V_API], 0)
    av.protocols = _mask(&slots[V_PROTOCOLS], <uint32_t>PROTOCOL_UNKNOWN_MASK)
    av.playbackmethod = _mask(&slots[V_PLAYBACK], 0)
    av.delivery = _mask(&slots[V_DELIVERY], <uint32_t>UNKNOWN_MASK)
    podid = _text(wire, &slots[V_PODID])
    av.podid = _hash_of(wire, 0, podid) if podid.n else 0
    av.mincpmpersec_micros = _floor(wire, &slots[V_MINCPMPERSEC])
    av.skip = -1
    av.minduration_s = _size(wire, &slots[V_MINDURATION])
    av.maxduration_s = _size(wire, &slots[V_MAXDURATION])
    if av.maxduration_s and av.minduration_s > av.maxduration_s:
        _spoil(wire)
    if is_video:
        _video(wire, slots, av)
        pos[0] = slots[V_POS]
    return p


cdef void _video(Wire *wire, Val *slots, Av *av) noexcept nogil:
    """What only a video says."""
    cdef int32_t placement, linearity, skip
    av.w = _side(wire, &slots[V_W])
    av.h = _side(wire, &slots[V_H])
    skip = _integer(wire, &slots[V_SKIP], -1)
    if skip == 0 or skip == 1:
        av.skip = skip
    av.plcmt = _count(wire, &slots[V_PLCMT], 0)
    placement = _count(wire, &slots[V_PLACEMENT], 0)
    linearity = _count(wire, &slots[V_LINEARITY], 0)
    av.linearity = linearity if linearity < 255 else 255
    av.boxing = _integer(wire, &slots[V_BOXING], 1) != 0
    av.poddedupe = _mask(&slots[V_DEDUPE], 0)
    if av.w and av.h:
        _target_size(wire, av.w, av.h)
    if av.plcmt:
        _target_number(wire, DIM_PLACEMENT, b"plcmt:", av.plcmt, wire.imp)
    if placement:
        _target_number(wire, DIM_PLACEMENT, b"placement:", placement, wire.imp)


# -- native ----------------------------------------------------------------------------------------

cdef const uint8_t *_asset(Wire *wire, const uint8_t *p, Asset *row) noexcept nogil:
    """`native.read_asset`: id -1 when it has none."""
    cdef Val slots[A_COUNT]
    cdef Val inner[M_COUNT]
    cdef int own = -1, kind = 0
    _clear(slots, sizeof(slots))
    _clear(inner, sizeof(inner))
    memset(row, 0, sizeof(Asset))
    while True:
        p = _members(wire, p, T_ASSET, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if p[0] != c'{':
            p = _value(wire, p, &slots[own])
        elif kind or slots[own].kind != NOTHING:
            return NULL  # two kinds
        else:
            kind = own
            slots[own].kind = OBJECT
            p = _plain_object(wire, p, _asset_table(own), inner)
        if p == NULL:
            return NULL
    row.id = _count(wire, &slots[A_ID], -1)
    if row.id == INT32_HIGH:
        row.id = -1
    row.required = _integer(wire, &slots[A_REQUIRED], 0) != 0
    if kind == 0:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return p
    if kind == A_IMG or kind == A_DATA:
        row.type = min(_count(wire, &inner[M_TYPE], 0), 32767)
    row.len_ = _integer(wire, &inner[M_LEN], 0)
    row.w = _integer(wire, &inner[M_W], 0)
    row.h = _integer(wire, &inner[M_H], 0)
    row.wmin = _integer(wire, &inner[M_WMIN], 0)
    row.hmin = _integer(wire, &inner[M_HMIN], 0)
    row.minduration_s = _integer(wire, &inner[M_MINDURATION], 0)
    row.maxduration_s = _integer(wire, &inner[M_MAXDURATION], 0)
    row.protocols = _mask(&inner[M_PROTOCOLS], <uint32_t>PROTOCOL_UNKNOWN_MASK)
    row.mimes = _mask64(&inner[M_MIMES])
    if (
        row.len_ < 0 or row.w < 0 or row.h < 0 or row.wmin < 0 or row.hmin < 0
        or row.minduration_s < 0 or row.maxduration_s < 0
    ):
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
    elif kind == A_TITLE:
        row.kind = KIND_TITLE
    elif kind == A_IMG:
        row.kind = KIND_IMG
    else:
        row.kind = KIND_VIDEO if kind == A_VIDEO else KIND_DATA
    return p


cdef const uint8_t *_asset_table(int kind) noexcept nogil:
    if kind == A_TITLE:
        return T_TITLE
    if kind == A_IMG:
        return T_IMG
    if kind == A_VIDEO:
        return T_ASSET_VIDEO
    return T_ASSET_DATA


cdef const uint8_t *_trackers(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """Event trackers that take an image; their mask goes into the slot."""
    cdef Val slots[3]
    cdef uint64_t events = 0
    cdef uint32_t quirks
    cdef int32_t event
    cdef bint more
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        quirks = wire.quirks
        p = _plain_object(wire, p, T_TRACKER, slots)
        if p == NULL or wire.quirks != quirks:
            return NULL  # whether odd methods are looked at depends on the event
        event = _integer(wire, &slots[ONE], 0)
        if 0 < event < 32 and _mask64(&slots[TWO]) >> TRACK_BY_IMAGE & 1:
            events |= <uint64_t>1 << event
        p = _next(wire, p, &more)
    if p != NULL and val.kind == DONE:
        val.p = <const uint8_t *><uintptr_t>events
    return p


cdef const uint8_t *_native_request(
    Wire *wire, const uint8_t *p, Imp *row, Val *slots, bint *answerable, bint wrapped
) noexcept nogil:
    """A native request; inside `{"native": ...}` it is wrapped."""
    cdef Head *head = &wire.facts.head
    cdef Asset asset
    cdef int own = -1
    cdef bint more
    while True:
        p = _members(wire, p, T_NATIVE_OBJ, slots, &own)
        if p == NULL or own == 0:
            break
        if own == T_ASSETS:
            p = _objects(wire, p, &slots[own], &more)
            row.assets_start = head.assets_count
            while p != NULL and more:
                p = _asset(wire, p, &asset)
                if p == NULL:
                    return NULL
                if asset.id < 0:
                    wire.quirks |= QUIRK_BAD_VALUE_IGNORED
                    if asset.required:
                        answerable[0] = False
                else:
                    if head.assets_count >= ASSETS_MAX:
                        return NULL
                    wire.facts.assets[head.assets_count] = asset
                    head.assets_count += 1
                    row.assets_count += 1
                p = _next(wire, p, &more)
        elif own == T_TRACKERS or own == T_TRAKERS:
            p = _trackers(wire, p, &slots[own])
        elif p[0] != c'{' or wrapped:
            p = _skip(wire, p)
        else:
            p = _wrapped_request(wire, p, row, slots, answerable)
        if p == NULL:
            return NULL
    return p


cdef const uint8_t *_wrapped_request(
    Wire *wire, const uint8_t *p, Imp *row, Val *slots, bint *answerable
) noexcept nogil:
    """The value of {"native": ...}; nothing that counts may stand beside it."""
    cdef int i
    for i in range(T_COUNT):
        if slots[i].kind != NOTHING:
            return NULL
    p = _native_request(wire, p, row, slots, answerable, True)
    # Members that follow would be taken for its own: they have no business there.
    slots[0].kind = OBJECT
    p = _space(p) if p != NULL else NULL
    return p if p != NULL and p[0] == c'}' else NULL


cdef bint _native_facts(
    Wire *wire, Imp *row, Val *slots, Val *outer_ver, bint answerable
) noexcept nogil:
    """What a native request says; whether it can be answered."""
    cdef bint wrapped = slots[0].kind == OBJECT
    cdef Val *trackers = &slots[T_TRACKERS]
    cdef Text ver
    cdef int32_t plcmttype
    if not answerable or row.assets_count == 0:
        wire.facts.head.assets_count -= row.assets_count
        row.assets_start = 0
        row.assets_count = 0
        return False
    ver = _text_or(wire, &slots[T_VER], outer_ver)
    row.native_ver = 10 if wrapped else 12
    if ver.n == 3 and ver.p[0] == c'1' and ver.p[1] == c'.' and c'0' <= ver.p[2] <= c'2':
        row.native_ver = 10 + ver.p[2] - 48
    elif ver.n == 1 and ver.p[0] == c'1':
        row.native_ver = 10
    if wrapped:
        row.flags |= IMP_NATIVE_WRAPPED
    if _integer(wire, &slots[T_PRIVACY], 0) != 0:
        row.flags |= IMP_NATIVE_PRIVACY
    plcmttype = _count(wire, &slots[T_PLCMTTYPE], 0)
    row.native_plcmttype = plcmttype
    if plcmttype:
        _target_number(wire, DIM_PLACEMENT, b"native:", plcmttype, wire.imp)
    if trackers.kind == NOTHING and slots[T_TRAKERS].kind != NOTHING:
        wire.quirks |= QUIRK_OTHER_NOTATION
        trackers = &slots[T_TRAKERS]
    elif slots[T_TRAKERS].kind != NOTHING:
        wire.doubt = True
    row.native_events = <uint32_t><uintptr_t>trackers.p if trackers.kind == DONE else 0
    return True


cdef const uint8_t *_native_text(
    Wire *wire, const uint8_t *p, Val *val, Imp *row, Val *slots, bint *answerable
) noexcept nogil:
    """imp.native.request as a string: JSON inside a string."""
    cdef const uint8_t *body = wire.text
    cdef const uint8_t *end = wire.end
    cdef const uint8_t *stop
    cdef Text text
    p = _value(wire, p, val)
    if p == NULL or val.kind == NOTHING:
        return p
    if val.kind != ESCAPED:
        return NULL
    text = _unescape(wire, val.p, val.n)
    if wire.doubt:
        return NULL
    wire.text = text.p
    wire.end = text.p + text.n
    wire.bits = NATIVE_INDEX
    wire_index(wire.text, wire.end, NATIVE_INDEX)
    stop = _space(text.p)
    stop = _native_request(wire, stop, row, slots, answerable, False) if stop[0] == c'{' else NULL
    if stop == NULL or _space(stop) != wire.end:
        return NULL
    wire.text = body
    wire.end = end
    wire.bits = BODY_INDEX
    return p


cdef const uint8_t *_native(Wire *wire, const uint8_t *p, Imp *row, bint *offered) noexcept nogil:
    """imp.native: the request as a string, or plain."""
    cdef Val slots[O_COUNT]
    cdef Val request[T_COUNT]
    cdef uint32_t quirks = wire.quirks | QUIRK_BAD_VALUE_IGNORED | QUIRK_NATIVE_OBJECT
    cdef int own = -1
    cdef bint answerable = True
    _clear(slots, sizeof(slots))
    _clear(request, sizeof(request))
    while True:
        p = _members(wire, p, T_IMP_NATIVE, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if p[0] != c'{':
            p = _native_text(wire, p, &slots[own], row, request, &answerable)
        elif slots[own].kind != NOTHING:
            return NULL
        else:
            wire.quirks |= QUIRK_NATIVE_OBJECT
            slots[own].kind = OBJECT
            p = _native_request(wire, p, row, request, &answerable, False)
        if p == NULL:
            return NULL
    if slots[O_REQUEST].kind == NOTHING:
        answerable = False
    offered[0] = _native_facts(wire, row, request, &slots[O_VER], answerable)
    if not offered[0]:
        # Quirks of what the reference does not look at then must not count.
        return p if wire.quirks | quirks == quirks else NULL
    row.native_api = _mask(&slots[O_API], 0)
    row.native_battr = _mask64(&slots[O_BATTR])
    return p


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
    if _integer(wire, &slots[ONE], 0) != 0:
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
    if slots[I_MULTIPLIER].kind == NOTHING:
        wire.without_qty |= <uint32_t>1 << wire.imp
    elif not _multiplier(wire, &slots[I_MULTIPLIER], &row.multiplier):
        _spoil(wire)
    _start_ms(wire, row, &slots[I_DT])
    row.exp_s = _count(wire, &slots[I_EXP], 0)
    row.ssai = _count(wire, &slots[I_SSAI], 0)
    row.clickbrowser = _count(wire, &slots[I_CLICKBROWSER], 0)
    if _integer(wire, &slots[I_INSTL], 0) != 0:
        row.flags |= IMP_INTERSTITIAL
    if _integer(wire, &slots[I_SECURE], 0) != 0:
        row.flags |= IMP_SECURE


cdef void _placement(Wire *wire, Imp *row, Val *slots) noexcept nogil:
    """Rewarded, and the tokens of the place on the page."""
    cdef Val *rewarded = &slots[I_RWDD]
    if rewarded.kind == NOTHING:
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
