# Where, whom, on what, and what is forbidden.
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
    if host.p[last + 1] >= 128:
        wire.doubt = True  # is it a digit of some script?
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
    host = _host(_text(wire, &slots[C_DOMAIN]))
    if channel == 1 and host.n == 0:
        host = _host(_text(wire, &slots[C_PAGE]))
    _domains(wire, host)
    if channel == 2:
        _target_text(wire, DIM_BUNDLE, _text(wire, &slots[C_BUNDLE]), -1)
    elif channel == 3:
        if slots[C_VENUETYPE].kind == NOTHING and slots[C_VENUETYPEID].kind != NOTHING:
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
    if wire.user[U_EIDS].kind != NOTHING or wire.user_ext[X_EIDS].kind != NOTHING:
        return NULL  # in both homes, or twice
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
        if own == X_DATA:
            p = _key_values(wire, p, &wire.user_ext[own])
        else:
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
    if wire.user[U_EIDS].kind == NOTHING and wire.user_ext[X_EIDS].kind != NOTHING:
        wire.quirks |= QUIRK_OLD_HOME
    taken = wire.eids_count if wire.eids_count < IDS_MAX - count else IDS_MAX - count
    memcpy(&facts.ids[count], wire.eids, taken * sizeof(Identifier))
    if taken < wire.eids_count:
        wire.quirks |= QUIRK_LIST_TRUNCATED
    facts.head.ids_count = count + taken


# -- on what: device -------------------------------------------------------------------------------

cdef uint64_t _marks(const Marks *marks, Text text, uint64_t wanted) noexcept nogil:
    """Which of the wanted marks occur in a text, whatever its case."""
    cdef uint64_t found = 0, candidates
    cdef Py_ssize_t i, j
    cdef int bit
    cdef uint8_t byte
    for i in range(text.n - 1):
        candidates = marks.first[text.p[i]] & marks.second[text.p[i + 1]] & wanted
        while candidates:
            bit = WIRE_CTZ64(candidates)
            candidates &= candidates - 1
            if marks.size[bit] > text.n - i:
                continue
            for j in range(2, marks.size[bit]):
                byte = text.p[i + j]
                if 65 <= byte <= 90:
                    byte |= 32
                if byte != marks.text[bit][j]:
                    break
            else:
                found |= <uint64_t>1 << bit
                wanted &= ~(<uint64_t>1 << bit)
    return found


cdef bint _is_grease(Text brand) noexcept nogil:
    """`agents.is_grease`: its letters are not...brand."""
    cdef uint8_t first[3]
    cdef uint8_t last[5]
    cdef Py_ssize_t i
    cdef int count = 0, j
    cdef uint8_t byte
    for i in range(brand.n):
        byte = brand.p[i]
        if 65 <= byte <= 90:
            byte |= 32
        if not 97 <= byte <= 122:
            continue
        if count < 3:
            first[count] = byte
        for j in range(4):
            last[j] = last[j + 1] if count >= 4 - j else 0
        last[4] = byte
        count += 1
    return count >= 5 and memcmp(first, "not", 3) == 0 and memcmp(last, "brand", 5) == 0


cdef const uint8_t *_sua(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef Val slots[2]
    cdef Text brand
    cdef bint more
    cdef int own = -1
    while True:
        p = _members(wire, p, T_SUA, wire.sua, &own)
        if p == NULL or own == 0:
            return p
        if own == S_PLATFORM:
            if _is_object(wire, &p, &wire.sua[own]):
                p = _plain_object(wire, p, T_PLATFORM, wire.platform)
        else:
            p = _objects(wire, p, &wire.sua[own], &more)
            while p != NULL and more:
                _clear(slots, sizeof(slots))
                p = _plain_object(wire, p, T_BRAND, slots)
                if p == NULL:
                    return NULL
                brand = _text(wire, &slots[ONE])
                if not _is_grease(brand):
                    wire.brands |= _marks(&NAME_MARKS, brand, BROWSER_BRANDS)
                p = _next(wire, p, &more)
        if p == NULL:
            return NULL


cdef const uint8_t *_device_ext(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef int own = -1
    while True:
        p = _members(wire, p, T_DEVICE_EXT, wire.device_ext, &own)
        if p == NULL or own == 0:
            return p
        if _is_object(wire, &p, &wire.device_ext[own]):
            p = _plain_object(wire, p, T_DOOH_EXT, wire.device_ext)
        if p == NULL:
            return NULL


cdef const uint8_t *_device(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef int own = -1
    cdef Val *slots = wire.device
    while True:
        p = _members(wire, p, T_DEVICE, slots, &own)
        if p == NULL or own == 0:
            return p
        if _is_object(wire, &p, &slots[own]):
            if own == D_GEO:
                p = _plain_object(wire, p, T_GEO, wire.geo)
            elif own == D_SUA:
                p = _sua(wire, p)
            else:
                p = _device_ext(wire, p)
        if p == NULL:
            return NULL


cdef int64_t _packed_version(Text text) noexcept nogil:
    """`records.pack_version`."""
    cdef int64_t parts[3]
    cdef int index = 0, digits
    cdef int64_t value
    cdef Py_ssize_t i = 0
    parts[0] = parts[1] = parts[2] = 0
    while index < 3 and i < text.n and _is_digit(text.p[i]):
        value = 0
        digits = 0
        while i < text.n and _is_digit(text.p[i]):
            if digits < 9:
                value = value * 10 + (text.p[i] - 48)
            digits += 1
            i += 1
        parts[index] = min(value, 999_999 if index == 0 else 999)
        while i < text.n and text.p[i] != c'.' and text.p[i] != c'_':
            i += 1
        i += 1
        index += 1
    return parts[0] * 1_000_000 + parts[1] * 1_000 + parts[2]


cdef Text _version_in(Text agent, int rule) noexcept nogil:
    """What stands behind the version mark of a rule, as far as it is a version."""
    cdef const char *mark = VERSION_MARKS[rule]
    cdef Py_ssize_t n = VERSION_MARK_SIZES[rule], i
    cdef Text part, version
    version.p = agent.p
    version.n = 0
    if n == 0:
        return version
    for i in range(agent.n - n + 1):
        part.p = agent.p + i
        part.n = n
        if _equals(part, mark, n):
            version.p = part.p + n
            while i + n + version.n < agent.n and (
                _is_digit(version.p[version.n]) or version.p[version.n] == c'.'
                or version.p[version.n] == c'_'
            ):
                version.n += 1
            return version
    return version


cdef Text _joined_version(Wire *wire, Val *val) noexcept nogil:
    """sua.platform.version, its parts joined by dots, in the arena."""
    cdef uint8_t *to = &ARENA[wire.arena_used]
    cdef const uint8_t *p = val.p
    cdef Val item
    cdef Text joined, part
    joined.p = to
    joined.n = 0
    if val.kind == NOTHING:
        return joined
    if val.kind != LIST or ARENA_BYTES - wire.arena_used < VERSION_BYTES_MAX:
        wire.doubt = True
        return joined
    # Claim the room now: parts with escapes go behind it.
    wire.arena_used += VERSION_BYTES_MAX
    p = _space(p + 1)
    while p[0] != c']':
        item.kind = NOTHING
        p = _space(_value(wire, p, &item))
        part = _text(wire, &item)
        if joined.n + part.n + 1 > VERSION_BYTES_MAX:
            wire.doubt = True
            return joined
        if part.n:
            if joined.n:
                to[joined.n] = c'.'
                joined.n += 1
            memcpy(to + joined.n, part.p, part.n)
            joined.n += part.n
        if p[0] == c',':
            p = _space(p + 1)
    return joined


cdef void _system(Wire *wire) noexcept nogil:
    """OS, its version, browser."""
    cdef Text agent = _text(wire, &wire.device[D_UA])
    cdef Text named = _text_or(wire, &wire.device[D_OS], &wire.platform[P_BRAND])
    cdef Text version = _text(wire, &wire.device[D_OSV])
    cdef uint64_t wanted = 0, found = 0
    cdef Py_ssize_t i
    if version.n == 0:
        version = _joined_version(wire, &wire.platform[P_VERSION])
    if agent.n > AGENT_CHARS_MAX:
        for i in range(agent.n):
            if agent.p[i] >= 128:
                wire.doubt = True  # the limit counts characters
                return
        agent.n = AGENT_CHARS_MAX
    if named.n:
        found = _marks(&NAME_MARKS, named, OS_NAMES)
        if found:
            _target_known(wire, DIM_OS, NAME_TOKENS[WIRE_CTZ64(found)], -1)
        else:
            _target_text(wire, DIM_OS, named, -1)
    if not named.n:
        wanted |= OS_AGENTS
    if not wire.brands:
        wanted |= BROWSER_AGENTS
    found = _marks(&AGENT_MARKS, agent, wanted) if wanted else 0
    if found & OS_AGENTS:
        _target_known(wire, DIM_OS, AGENT_TOKENS[WIRE_CTZ64(found)], -1)
        if version.n == 0:
            version = _version_in(agent, WIRE_CTZ64(found))
    wire.facts.head.os_version = _packed_version(version)
    if wire.brands:
        _target_known(wire, DIM_BROWSER, NAME_TOKENS[WIRE_CTZ64(wire.brands)], -1)
    elif found & BROWSER_AGENTS:
        _target_known(wire, DIM_BROWSER, AGENT_TOKENS[WIRE_CTZ64(found & BROWSER_AGENTS)], -1)


cdef void _network(Wire *wire, Text code) noexcept nogil:
    """CARRIER of a mobile network: "310005" is "310-005"."""
    cdef uint64_t state
    cdef Py_ssize_t i
    if code.n == 5 or code.n == 6:
        i = 0
        while i < code.n and _is_digit(code.p[i]):
            i += 1
        if i == code.n:
            state = token_feed(_feed(wire, token_start(DIM_CARRIER), code.p, 3), c'-')
            _target_made(wire, DIM_CARRIER, _feed(wire, state, code.p + 3, code.n - 3), -1)
            return
    _target_text(wire, DIM_CARRIER, code, -1)


cdef void _device_facts(Wire *wire) noexcept nogil:
    cdef Val *slots = wire.device
    cdef int devicetype = _count(wire, &slots[D_DEVICETYPE], 0)
    cdef int connection = _count(wire, &slots[D_CONNECTION], 0)
    cdef Val *mccmnc = &slots[D_MCCMNC]
    wire.facts.head.devicetype = devicetype
    if devicetype:
        _target_number(wire, DIM_DEVICE_TYPE, b"", devicetype, -1)
    if connection:
        _target_number(wire, DIM_CONNECTION, b"", connection, -1)
    _target_text(wire, DIM_CARRIER, _text(wire, &slots[D_CARRIER]), -1)
    if mccmnc.kind == NOTHING and wire.device_ext[E_MCCMNC].kind != NOTHING:
        wire.quirks |= QUIRK_OLD_HOME
        mccmnc = &wire.device_ext[E_MCCMNC]
    _network(wire, _text(wire, mccmnc))
    _target_text(
        wire, DIM_LANGUAGE, _primary(_text_or(wire, &slots[D_LANGUAGE], &slots[D_LANGB])), -1
    )
    _target_text(wire, DIM_MAKE, _text(wire, &slots[D_MAKE]), -1)
    _target_text(
        wire, DIM_MODEL, _text_or(wire, &slots[D_MODEL], &wire.sua[S_MODEL]), -1
    )
    _system(wire)


# -- the place -------------------------------------------------------------------------------------

cdef bint _alpha3(Text code, uint8_t *out) noexcept nogil:
    """Upper-case alpha-3 of two or three letters; False when there is none."""
    cdef uint8_t upper[3]
    cdef int i
    for i in range(<int>code.n):
        upper[i] = code.p[i] & ~32
    if code.n == 3:
        memcpy(out, upper, 3)
        return True
    memcpy(out, ALPHA3_OF[(upper[0] - 65) * 26 + upper[1] - 65], 3)
    return out[0] != 0


cdef bint _is_alpha(Text text) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(text.n):
        if not 97 <= text.p[i] | 32 <= 122:
            return False
    return True


cdef bint _country(Wire *wire, Val *val, uint8_t *out) noexcept nogil:
    """`contexts._country`: whether there is one."""
    cdef Text code = _text(wire, val)
    if code.n == 0:
        return False
    if not (code.n == 2 or code.n == 3) or not _is_alpha(code):
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return False
    if code.n == 2:
        wire.quirks |= QUIRK_OTHER_NOTATION
    return _alpha3(code, out)


cdef void _region(Wire *wire, Text region, const uint8_t *country) noexcept nogil:
    """REGION "usa-ca", from "CA", "US-CA" or "USA-CA"."""
    cdef const uint8_t *dash = NULL
    cdef uint8_t own[3]
    cdef uint64_t state
    cdef Text prefix
    cdef Py_ssize_t i
    if region.n:
        dash = <const uint8_t *>memchr(region.p, c'-', region.n)
    if dash != NULL:
        for i in range(region.n):
            if region.p[i] >= 128:
                wire.doubt = True  # letters may have odd capitals
                return
        prefix.p = region.p
        prefix.n = dash - region.p
        if 2 <= prefix.n <= 3 and _is_alpha(prefix) and _alpha3(prefix, own):
            if memcmp(own, country, 3) == 0:
                region.n -= prefix.n + 1
                region.p = dash + 1
    if region.n:
        state = token_feed(_feed(wire, token_start(DIM_REGION), country, 3), c'-')
        _target_made(wire, DIM_REGION, _feed(wire, state, region.p, region.n), -1)


cdef void _place(Wire *wire) noexcept nogil:
    cdef Head *head = &wire.facts.head
    cdef Val *place = wire.geo
    cdef Val *offset = &wire.geo[G_UTCOFFSET]
    cdef uint8_t country[3]
    cdef Text text
    cdef double lat = 0, lon = 0
    cdef bint has_lat, has_lon
    cdef int offset_min
    if wire.geo[G_COUNTRY].kind == NOTHING and wire.home[G_COUNTRY].kind != NOTHING:
        place = wire.home
    text.p = country
    text.n = 3
    if _country(wire, &place[G_COUNTRY], country):
        _target_text(wire, DIM_COUNTRY, text, -1)
        _region(wire, _text(wire, &place[G_REGION]), country)
    else:
        _text(wire, &place[G_REGION])  # counts its quirk
    _target_text(wire, DIM_CITY, _text(wire, &place[G_CITY]), -1)
    _target_text(wire, DIM_POSTCODE, _text(wire, &place[G_ZIP]), -1)
    _target_text(wire, DIM_METRO, _text(wire, &place[G_METRO]), -1)
    has_lat = _real(wire, &wire.geo[G_LAT], &lat)
    has_lon = _real(wire, &wire.geo[G_LON], &lon)
    if has_lat and has_lon:
        if not (-90 <= lat <= 90) or not (-180 <= lon <= 180) or (lat == 0 and lon == 0):
            wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        else:
            head.lat = lat
            head.lon = lon
            wire.flags |= FLAG_HAS_GEO
    if offset.kind == NOTHING:
        offset = &wire.home[G_UTCOFFSET]
    if offset.kind != NOTHING:
        offset_min = _integer(wire, offset, UTCOFFSET_MIN_MAX + 1)
        if not -UTCOFFSET_MIN_MAX <= offset_min <= UTCOFFSET_MIN_MAX:
            wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        else:
            head.utcoffset_min = offset_min
            wire.flags |= FLAG_HAS_UTCOFFSET


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
    elif val.kind == ESCAPED:
        wire.privacy |= flag
    elif val.n >= 3:
        if val.p[0] >= 128 or val.p[1] >= 128:
            wire.doubt = True
        if val.p[2] | 32 == c'y':
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
