# Native requests, as string or object, 1.0 and later.
# A part of `ext/wire.pyx`, which says how the parts work together.

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
