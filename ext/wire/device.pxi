# On what, and at which place.
# A part of `ext/wire.pyx`, which says how the parts work together.

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
    if _may_move(wire, mccmnc) and wire.device_ext[E_MCCMNC].kind != NOTHING:
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
    if wire.privacy:
        _clear(wire.home, sizeof(wire.home))
        wire.geo[G_ZIP].kind = wire.geo[G_LAT].kind = wire.geo[G_LON].kind = NOTHING
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
