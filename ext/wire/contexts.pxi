# Where, whom, and what is forbidden.
# A part of `ext/wire.pyx`, which says how the parts work together.

# -- where: site, app, dooh ------------------------------------------------------------------------

cdef int _taxonomy(Wire *wire, Val *val, int which) noexcept nogil:
    """The taxonomy of a list of categories; a guess when it did not stand before the list."""
    cdef int cattax
    if val.kind == NOTHING:
        return wire.taxonomies[which]
    cattax = _count(wire, val, 0)
    return cattax if cattax else CATTAX_DEFAULT


cdef bint _guessed_wrong(Wire *wire, Val *val, int which, int used) noexcept nogil:
    """Whether lists were read in a taxonomy (0: no list) that their owner did not name."""
    cdef int cattax = _count(wire, val, 0)
    cattax = cattax if cattax else CATTAX_DEFAULT
    if used == 0 or used == cattax:
        return False
    _again(wire, which, cattax)
    return True


cdef const uint8_t *_again(Wire *wire, int which, int cattax) noexcept nogil:
    """Gives up this pass for another one that knows a taxonomy beforehand."""
    wire.taxonomies[which] = cattax
    wire.again = True
    return NULL


cdef const uint8_t *_content(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef Val slots[N_COUNT]
    cdef Val station[3]
    cdef int own = -1, cattax = 0
    _clear(slots, sizeof(slots))
    while True:
        p = _members(wire, p, T_CONTENT, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if own == N_CAT:
            cattax = _taxonomy(wire, &slots[N_CATTAX], 2)
            p = _texts(wire, p, &slots[own], DIM_PAGE_CATEGORY, cattax)
        elif own == N_KEYWORDS:
            p = _words(wire, p, &slots[own], DIM_KEYWORD)
        elif own == N_KWARRAY:
            p = _texts(wire, p, &slots[own], DIM_KEYWORD, -1)
        elif own == N_GENRES:
            p = _texts(wire, p, &slots[own], DIM_CONTENT_GENRE, -1)
        elif own == N_DATA:
            p = _data(wire, p, &slots[own])
        elif _is_object(wire, &p, &slots[own]):
            _clear(station, sizeof(station))
            p = _plain_object(wire, p, T_OWNER, station)
            if p != NULL:
                _target_text(wire, DIM_CONTENT_CHANNEL, _text(wire, &station[ONE]), -1)
                _target_text(wire, DIM_CONTENT_CHANNEL, _text(wire, &station[TWO]), -1)
        if p == NULL:
            return NULL
    if _guessed_wrong(wire, &slots[N_CATTAX], 2, cattax):
        return NULL
    _target_text(
        wire, DIM_CONTENT_LANGUAGE,
        _primary(_text_or(wire, &slots[N_LANGUAGE], &slots[N_LANGB])), -1,
    )
    _comma_separated(wire, DIM_CONTENT_GENRE, _text(wire, &slots[N_GENRE]))
    _target_text(wire, DIM_CONTENT_RATING, _text(wire, &slots[N_RATING]), -1)
    return p


cdef const uint8_t *_ext_data(Wire *wire, const uint8_t *p) noexcept nogil:
    """The key values of an ext of which nothing else is read."""
    cdef Val slots[I_COUNT]
    cdef int own = -1
    _clear(slots, sizeof(slots))
    while True:
        # Of the table of imp.ext only `data` is asked for here.
        p = _members(wire, p, T_IMP_EXT, slots, &own)
        if p == NULL or own == 0:
            return p
        if own == I_DATA:
            p = _key_values(wire, p, &slots[own])
        else:
            p = _skip(wire, p)
        if p == NULL:
            return NULL


cdef void _domains(Wire *wire, Text host) noexcept nogil:
    """`hosts.with_parents` as tokens."""
    cdef Py_ssize_t i, last = -1
    if host.n == 0:
        return
    _target_text(wire, DIM_DOMAIN, host, -1)
    for i in range(host.n):
        if host.p[i] == c'.':
            last = i
    if _is_digit(host.p[last + 1]):
        return
    while True:
        i = 0
        while i < host.n and host.p[i] != c'.':
            i += 1
        if i >= last:
            return
        host.p += i + 1
        host.n -= i + 1
        last -= i + 1
        _target_text(wire, DIM_DOMAIN, host, -1)


cdef const uint8_t *_channel(Wire *wire, const uint8_t *p, int channel) noexcept nogil:
    cdef Val slots[C_COUNT]
    cdef Val publisher[3]
    cdef Text host
    cdef int own = -1, cattax = 0, used
    if wire.channel:
        return NULL  # two of them: which one counts is the reference's to say
    wire.channel = channel
    _clear(slots, sizeof(slots))
    _clear(publisher, sizeof(publisher))
    while True:
        p = _members(wire, p, T_CHANNEL, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if C_CAT <= own < C_CAT + 3:
            used = _taxonomy(wire, &slots[C_CATTAX], 1)
            if cattax and used != cattax:
                return _again(wire, 1, used)
            cattax = used
            p = _texts(wire, p, &slots[own], DIM_PAGE_CATEGORY, cattax)
        elif own == C_KEYWORDS:
            p = _words(wire, p, &slots[own], DIM_KEYWORD)
        elif own == C_KWARRAY:
            p = _texts(wire, p, &slots[own], DIM_KEYWORD, -1)
        elif _is_object(wire, &p, &slots[own]):
            if own == C_PUBLISHER:
                p = _plain_object(wire, p, T_OWNER, publisher)
            elif own == C_CONTENT:
                p = _content(wire, p)
            else:
                p = _ext_data(wire, p)
        if p == NULL:
            return NULL
    if _guessed_wrong(wire, &slots[C_CATTAX], 1, cattax):
        return NULL
    _target_known(wire, DIM_CHANNEL, CHANNEL_TOKENS[channel], -1)
    _target_text(wire, DIM_PUBLISHER, _text(wire, &publisher[ONE]), -1)
    host = _host(wire, _text(wire, &slots[C_DOMAIN]))
    if channel == 1 and host.n == 0:
        host = _host(wire, _text(wire, &slots[C_PAGE]))
    _domains(wire, host)
    if channel == 2:
        _target_text(wire, DIM_BUNDLE, _text(wire, &slots[C_BUNDLE]), -1)
    elif channel == 3:
        if slots[C_VENUETYPEID].kind != NOTHING and _may_move(wire, &slots[C_VENUETYPE]):
            wire.quirks |= QUIRK_OLD_HOME
            slots[C_VENUETYPE] = slots[C_VENUETYPEID]
        _texts_of(wire, &slots[C_VENUETYPE], DIM_VENUE)
    return p


# -- whom: user ------------------------------------------------------------------------------------

cdef inline void _identifier(
    Wire *wire, Identifier *rows, int *count, int kind, Val *val, Text source, int atype
) noexcept nogil:
    """Adds an id when it is one; those past the list's end are counted."""
    cdef Text raw = _raw(wire, val)
    cdef Identifier *row
    if not _is_id(wire, val, raw):
        if raw.n:
            wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return
    if count[0] < IDS_MAX:
        row = &rows[count[0]]
        row.off = <int32_t>(raw.p - wire.base)
        row.len_ = <int32_t>raw.n
        row.source_off = <int32_t>(source.p - wire.base) if source.n else 0
        row.source_len = <int32_t>source.n
        row.kind = kind
        row.atype = atype
    count[0] += 1


cdef const uint8_t *_uids(
    Wire *wire, const uint8_t *p, Val *val, Val *uids, int *count
) noexcept nogil:
    cdef bint more
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        if count[0] == UIDS_MAX:
            return NULL
        _clear(&uids[count[0] * 3], 3 * sizeof(Val))
        p = _plain_object(wire, p, T_UID, &uids[count[0] * 3])
        if p == NULL:
            return NULL
        count[0] += 1
        p = _next(wire, p, &more)
    return p


cdef const uint8_t *_eids(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """user.eids or user.ext.eids; the ids of persons are put together in `_ids`."""
    cdef Val uids[UIDS_MAX * 3]
    cdef Val slots[3]
    cdef Text source
    cdef bint more
    cdef int own, count, i, atype
    if wire.eids_count and val == &wire.user[U_EIDS]:
        return NULL  # those of the old home stood first; they go behind these
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        own = -1
        count = 0
        while True:
            p = _members(wire, p, T_EID, slots, &own)
            if p == NULL:
                return NULL
            if own == 0:
                break
            p = _uids(wire, p, &slots[own], uids, &count)
            if p == NULL:
                return NULL
        source = _raw(wire, &slots[ONE])
        if _is_id(wire, &slots[ONE], source):
            for i in range(count):
                atype = _count(wire, &uids[i * 3 + TWO], 0)
                _identifier(
                    wire, wire.eids, &wire.eids_count, ID_EID, &uids[i * 3 + ONE], source,
                    atype if atype < 65535 else 65535,
                )
        p = _next(wire, p, &more)
    return p


cdef const uint8_t *_user_ext(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef int own = -1
    while True:
        p = _members(wire, p, T_USER_EXT, wire.user_ext, &own)
        if p == NULL or own == 0:
            return p
        p = _eids(wire, p, &wire.user_ext[own])
        if p == NULL:
            return NULL


cdef const uint8_t *_user(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef int own = -1
    cdef Val *slots = wire.user
    while True:
        p = _members(wire, p, T_USER, slots, &own)
        if p == NULL or own == 0:
            return p
        if own == U_KEYWORDS:
            p = _words(wire, p, &slots[own], DIM_USER_KEYWORD)
        elif own == U_KWARRAY:
            p = _texts(wire, p, &slots[own], DIM_USER_KEYWORD, -1)
        elif own == U_DATA:
            p = _data(wire, p, &slots[own])
        elif own == U_EIDS:
            p = _eids(wire, p, &slots[own])
        elif _is_object(wire, &p, &slots[own]):
            if own == U_GEO:
                p = _plain_object(wire, p, T_GEO, wire.home)
            else:
                p = _user_ext(wire, p)
        if p == NULL:
            return NULL


cdef bint _user_values(Wire *wire) noexcept nogil:
    """user.ext.data, once it is known that nobody said no; False in doubt."""
    cdef Val *val = &wire.user_ext[X_DATA]
    cdef Val again
    again.kind = NOTHING
    if val.kind == NOTHING or wire.privacy:
        return True
    return _key_values(wire, _start_of(val), &again) != NULL


cdef void _ids(Wire *wire) noexcept nogil:
    """Identifiers in the order of the reference."""
    cdef Facts *facts = wire.facts
    cdef Val *ifa = &wire.device[D_IFA]
    cdef Text nothing, raw
    cdef Py_ssize_t i = 0
    cdef int count = 0, taken
    nothing.p = NULL
    nothing.n = 0
    _identifier(wire, facts.ids, &count, ID_BUYERUID, &wire.user[U_BUYERUID], nothing, 0)
    _identifier(wire, facts.ids, &count, ID_USER, &wire.user[U_ID], nothing, 0)
    raw = _raw(wire, ifa)
    while i < raw.n and (raw.p[i] == c'0' or raw.p[i] == c'-'):
        i += 1
    if i < raw.n:
        _identifier(wire, facts.ids, &count, ID_IFA, ifa, nothing, 0)
    if wire.user_ext[X_EIDS].kind != NOTHING:
        wire.quirks |= QUIRK_OLD_HOME
    taken = wire.eids_count if wire.eids_count < IDS_MAX - count else IDS_MAX - count
    memcpy(&facts.ids[count], wire.eids, taken * sizeof(Identifier))
    if taken < wire.eids_count:
        wire.quirks |= QUIRK_LIST_TRUNCATED
    facts.head.ids_count = count + taken


# -- privacy ---------------------------------------------------------------------------------------

cdef const uint8_t *_regs(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef int own = -1, inner
    while True:
        p = _members(wire, p, T_REGS, wire.regs, &own)
        if p == NULL or own == 0:
            return p
        if _is_object(wire, &p, &wire.regs[own]):
            inner = -1
            while True:
                p = _members(wire, p, T_REGS_EXT, wire.regs_ext, &inner)
                if p == NULL:
                    return NULL
                if inner == 0:
                    break
                if _is_object(wire, &p, &wire.regs_ext[inner]):
                    p = _plain_object(wire, p, T_DSA, wire.regs_ext)
                if p == NULL:
                    return NULL
        if p == NULL:
            return NULL


cdef bint _opts_out(Wire *wire, Val *val) noexcept nogil:
    """us_privacy: "1" and three of Y, N and - say what they say; anything else is a no."""
    cdef Text said
    cdef int i
    said.p = val.p
    said.n = val.n
    said = _strip(said)
    if said.n == 0:
        return False
    if said.n == 4 and said.p[0] == c'1':
        for i in range(1, 4):
            if said.p[i] != c'-' and said.p[i] | 32 != c'y' and said.p[i] | 32 != c'n':
                break
        else:
            return said.p[2] | 32 == c'y'
    wire.quirks |= QUIRK_BAD_VALUE_IGNORED
    return True


cdef inline void _signal(Wire *wire, Val *val, int flag, bint old) noexcept nogil:
    """One home of a signal against personal data; what cannot be read counts as one."""
    if val.kind == NOTHING:
        return
    if old:
        wire.quirks |= QUIRK_OLD_HOME
    if flag == PRIVACY_GPP:
        wire.privacy |= flag
    elif flag == PRIVACY_GPC and (val.kind == TEXT or val.kind == ESCAPED or val.kind == REAL):
        if val.n != 1 or val.p[0] != c'0':
            wire.privacy |= flag
    elif flag != PRIVACY_US_PRIVACY:
        if _integer(wire, val, 1) != 0:
            wire.privacy |= flag
    elif val.kind != TEXT and val.kind != ESCAPED and val.kind != REAL:
        wire.quirks |= QUIRK_WRONG_TYPE_IGNORED
        wire.privacy |= flag
    elif _opts_out(wire, val):
        wire.privacy |= flag


cdef bint _names_section(Wire *wire, Val *val) noexcept nogil:
    """gpp_sid: whether any section stands there, or something that cannot be read."""
    cdef const uint8_t *p = val.p
    cdef bint found = False
    cdef Val item
    if val.kind != LIST:
        wire.quirks |= QUIRK_SCALAR_AS_LIST
        return _integer(wire, val, 1) > 0
    p = _space(p + 1)
    while p[0] != c']':
        item.kind = NOTHING
        p = _space(_value(wire, p, &item))
        if item.kind != NOTHING and _integer(wire, &item, 1) > 0:
            found = True
        if p[0] == c',':
            p = _space(p + 1)
    return found


cdef void _sections(Wire *wire, Val *val, bint old) noexcept nogil:
    """One home of gpp_sid."""
    if val.kind == NOTHING:
        return
    if old:
        wire.quirks |= QUIRK_OLD_HOME
    if _names_section(wire, val):
        wire.privacy |= PRIVACY_GPP


cdef void _tracking_status(Wire *wire, Val *val) noexcept nogil:
    """One home of atts: neither "not asked" nor "authorised" is a no."""
    cdef int32_t status
    if val.kind == NOTHING:
        return
    status = _integer(wire, val, ATTS_RESTRICTED)
    if status != ATTS_NOT_ASKED and status != ATTS_AUTHORISED:
        wire.privacy |= PRIVACY_LMT


cdef inline void _home(Wire *wire, Val *val, int flag) noexcept nogil:
    """An object that is a home of signals: as anything else it may mean one."""
    if val.kind != NOTHING and val.kind != OBJECT:
        wire.privacy |= flag


cdef void _privacy(Wire *wire) noexcept nogil:
    _home(wire, &wire.root[R_REGS], PRIVACY_GDPR)
    _home(wire, &wire.regs[X_EXT], PRIVACY_GDPR)
    _home(wire, &wire.root[R_USER], PRIVACY_GDPR)
    _home(wire, &wire.user[U_EXT], PRIVACY_GDPR)
    _home(wire, &wire.root[R_DEVICE], PRIVACY_LMT)
    _home(wire, &wire.device[D_EXT], PRIVACY_LMT)
    _tracking_status(wire, &wire.device[D_ATTS])
    _tracking_status(wire, &wire.device_ext[E_ATTS])
    _sections(wire, &wire.regs[X_GPP_SID], False)
    _sections(wire, &wire.regs_ext[X_GPP_SID], True)
    _signal(wire, &wire.regs[X_GDPR], PRIVACY_GDPR, False)
    _signal(wire, &wire.regs_ext[X_GDPR], PRIVACY_GDPR, True)
    _signal(wire, &wire.user_ext[X_GDPR], PRIVACY_GDPR, True)
    _signal(wire, &wire.regs[X_COPPA], PRIVACY_COPPA, False)
    _signal(wire, &wire.regs_ext[X_COPPA], PRIVACY_COPPA, True)
    _signal(wire, &wire.device[D_LMT], PRIVACY_LMT, False)
    _signal(wire, &wire.device[D_DNT], PRIVACY_DNT, False)
    _signal(wire, &wire.regs[X_GPC], PRIVACY_GPC, False)
    _signal(wire, &wire.regs_ext[X_GPC], PRIVACY_GPC, False)
    _signal(wire, &wire.regs[X_GPP], PRIVACY_GPP, False)
    _signal(wire, &wire.regs_ext[X_GPP], PRIVACY_GPP, True)
    _signal(wire, &wire.regs[X_US_PRIVACY], PRIVACY_US_PRIVACY, False)
    _signal(wire, &wire.regs_ext[X_US_PRIVACY], PRIVACY_US_PRIVACY, True)
    _signal(wire, &wire.user_ext[X_US_PRIVACY], PRIVACY_US_PRIVACY, True)
