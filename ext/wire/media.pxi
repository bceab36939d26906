# Banner, video and audio.
# A part of `ext/wire.pyx`, which says how the parts work together.

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


cdef bint _moved(Wire *wire, Val *protocols) noexcept nogil:
    """Whether the old home of the protocols counts (`Reader.home`)."""
    if protocols.kind == NOTHING:
        return True
    if protocols.n == 1 and _mask64(protocols) == 0:
        wire.doubt = True  # the entry may be an object with nothing in it
    return protocols.n == 0


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
    if slots[V_PROTOCOL].kind != NOTHING and _moved(wire, &slots[V_PROTOCOLS]):
        wire.quirks |= QUIRK_OLD_HOME
        again.kind = NOTHING
        if _numbers(wire, _start_of(&slots[V_PROTOCOL]), &again) == NULL:
            return NULL
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
