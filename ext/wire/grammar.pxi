# Strict JSON: structure, strings, numbers, members of objects.
# A part of `ext/wire.pyx`, which says how the parts work together.

# -- grammar ---------------------------------------------------------------------------------------

cdef inline const uint8_t *_space(const uint8_t *p) noexcept nogil:
    while p[0] <= 32 and _is_space(p[0]):
        p += 1
    return p


cdef inline bint _is_space(uint8_t byte) noexcept nogil:
    return byte == 32 or byte == 10 or byte == 13 or byte == 9


cdef inline bint _is_digit(uint8_t byte) noexcept nogil:
    return <uint8_t>(byte - 48) <= 9


cdef int _hex(uint8_t byte) noexcept nogil:
    """Value of a hexadecimal digit, or -1."""
    if _is_digit(byte):
        return byte - 48
    byte |= 32
    return byte - 87 if 97 <= byte <= 102 else -1


cdef int _unit(const uint8_t *p) noexcept nogil:
    """The UTF-16 unit of `\\uXXXX` at p, or -1."""
    cdef int i, digit, unit = 0
    if p[0] != 92 or p[1] != c'u':
        return -1
    for i in range(2, 6):
        digit = _hex(p[i])
        if digit < 0:
            return -1
        unit = unit << 4 | digit
    return unit


cdef const uint8_t *_escape(const uint8_t *p) noexcept nogil:
    """Past the escape at p, a surrogate pair being one."""
    cdef uint8_t byte = p[1]
    cdef int unit
    if byte == c'"' or byte == 92 or byte == c'/' or byte == c'n' or byte == c'r':
        return p + 2
    if byte == c't' or byte == c'b' or byte == c'f':
        return p + 2
    unit = _unit(p)
    if unit < 0:
        return NULL
    if 0xD800 <= unit <= 0xDFFF:
        if unit >= 0xDC00:
            return NULL
        unit = _unit(p + 6)
        return p + 12 if 0xDC00 <= unit <= 0xDFFF else NULL
    return p + 6


cdef inline uint64_t _marks_from(Wire *wire, const uint8_t *p) noexcept nogil:
    """The index of the 57 bytes at p; bits above are those of bytes behind them, or 0."""
    cdef Py_ssize_t at = p - wire.text
    return wire_load(wire.bits + (at >> 3)) >> (at & 7)


cdef const uint8_t *_long_string(Wire *wire, const uint8_t *p, uint32_t *kind) noexcept nogil:
    """`_string` of more than 56 bytes, or with escapes."""
    cdef uint64_t marks
    while True:
        marks = _marks_from(wire, p)
        if marks == 0:
            p += 57
            continue
        p += WIRE_CTZ64(marks)
        if p[0] == c'"':
            return p
        if p[0] != 92:
            return NULL
        kind[0] = ESCAPED
        p = _escape(p)
        if p == NULL:
            return NULL


cdef inline const uint8_t *_string(Wire *wire, const uint8_t *p, uint32_t *kind) noexcept nogil:
    """The closing quote of the string whose contents begin at p; `kind` TEXT or ESCAPED."""
    # Without a mark in 57 bytes the text goes on behind them: there is a byte to look at.
    cdef const uint8_t *mark = p + WIRE_CTZ64(_marks_from(wire, p) | <uint64_t>1 << 57)
    kind[0] = TEXT
    return mark if mark[0] == c'"' else _long_string(wire, p, kind)


cdef const uint8_t *_number(const uint8_t *p, Val *val) noexcept nogil:
    """A JSON number; `kind` SMALL, INTEGER or REAL."""
    cdef const uint8_t *start = p
    cdef uint32_t value = 0
    cdef bint integral = True
    if p[0] == c'-':
        p += 1
    if p[0] == c'0':
        p += 1
        if _is_digit(p[0]):
            return NULL
    elif _is_digit(p[0]):
        while _is_digit(p[0]):
            value = value * 10 + (p[0] - 48)
            p += 1
    else:
        return NULL
    if p[0] == c'.':
        integral = False
        p += 1
        if not _is_digit(p[0]):
            return NULL
        while _is_digit(p[0]):
            p += 1
    if p[0] | 32 == c'e':
        integral = False
        p += 1
        if p[0] == c'+' or p[0] == c'-':
            p += 1
        if not _is_digit(p[0]):
            return NULL
        while _is_digit(p[0]):
            p += 1
    if p - start > NUMBER_BYTES_MAX:
        return NULL
    val.p = start
    val.n = <uint32_t>(p - start)
    if not integral:
        val.kind = REAL
    elif start[0] != c'-' and val.n <= 9:
        val.kind = SMALL
        val.n = value
    else:
        val.kind = INTEGER
    return p


cdef const uint8_t *_word(const uint8_t *p, uint32_t *kind) noexcept nogil:
    """true, false or null."""
    if p[0] == c't' and p[1] == c'r' and p[2] == c'u' and p[3] == c'e':
        kind[0] = TRUE
        return p + 4
    if p[0] == c'n' and p[1] == c'u' and p[2] == c'l' and p[3] == c'l':
        kind[0] = NOTHING
        return p + 4
    if p[0] == c'f' and p[1] == c'a' and p[2] == c'l' and p[3] == c's' and p[4] == c'e':
        kind[0] = FALSE
        return p + 5
    return NULL


cdef inline const uint8_t *_past_key(Wire *wire, const uint8_t *p) noexcept nogil:
    """The value of the member whose key begins at p."""
    cdef uint32_t kind
    if p[0] != c'"':
        return NULL
    p = _string(wire, p + 1, &kind)
    if p == NULL:
        return NULL
    p = _space(p + 1)
    return _space(p + 1) if p[0] == c':' else NULL


cdef const uint8_t *_skip(Wire *wire, const uint8_t *p) noexcept nogil:
    """Any value, checked and forgotten."""
    cdef uint64_t objects = 0  # bit 0: the innermost open value is an object
    cdef int depth = 0
    cdef uint32_t kind
    cdef Val val
    cdef uint8_t byte
    while True:
        byte = p[0]
        if byte == c'"':
            p = _string(wire, p + 1, &kind)
            if p == NULL:
                return NULL
            p += 1
        elif byte == c'{' or byte == c'[':
            depth += 1
            if depth > SKIP_DEPTH_MAX:
                return NULL
            objects = objects << 1 | (byte == c'{')
            p = _space(p + 1)
            if p[0] != byte + 2:  # "}" and "]" stand two behind their openers
                if byte == c'{':
                    p = _past_key(wire, p)
                    if p == NULL:
                        return NULL
                continue
        else:
            p = _number(p, &val) if byte <= 57 else _word(p, &kind)
            if p == NULL:
                return NULL
        while True:
            if depth == 0:
                return p
            p = _space(p)
            if p[0] == c',':
                p = _space(p + 1)
                if objects & 1:
                    p = _past_key(wire, p)
                    if p == NULL:
                        return NULL
                break
            if p[0] != (c'}' if objects & 1 else c']'):
                return NULL
            p += 1
            objects >>= 1
            depth -= 1


cdef inline const uint8_t *_value(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """Any value into a slot, which must be free: of two equal keys the reference takes the last."""
    cdef const uint8_t *stop
    cdef uint32_t number
    cdef uint8_t byte = p[0]
    if val.kind != NOTHING:
        return NULL
    if byte == c'"':
        p += 1
        stop = _string(wire, p, &val.kind)
        if stop == NULL:
            return NULL
        val.p = p
        val.n = <uint32_t>(stop - p)
        if stop == p:
            val.kind = NOTHING
        return stop + 1
    if byte <= 57:
        # Most numbers are a few digits; the rest goes the long way.
        stop = p
        number = 0
        while _is_digit(stop[0]):
            number = number * 10 + (stop[0] - 48)
            stop += 1
        if (stop[0] == c',' or stop[0] == c'}') and 0 < stop - p <= 9 and (
            byte != 48 or stop == p + 1
        ):
            val.p = p
            val.n = number
            val.kind = SMALL
            return stop
        return _number(p, val)
    if byte == c'{' or byte == c'[':
        val.p = p
        val.kind = OBJECT if byte == c'{' else LIST
        return _skip(wire, p)
    val.p = p  # a slot may be read once more from where it stands
    return _word(p, &val.kind)


cdef const uint8_t *_odd_key(Wire *wire, const uint8_t *p, int *found) noexcept nogil:
    """Behind the key whose text begins at p: one that is long or near the end."""
    cdef const uint8_t *stop
    cdef uint32_t kind
    cdef Words words
    stop = _string(wire, p, &kind)
    if stop == NULL or kind == ESCAPED:
        return NULL  # escaped it may be any key, which is the reference's to say
    found[0] = UNKNOWN
    if stop - p < 16:
        words.low = words.high = 0
        memcpy(&words, p, stop - p)
        found[0] = _known_key(words, <uint32_t>(stop - p))
    elif stop - p == LONG_KEY_SIZE and memcmp(p, LONG_KEY_TEXT, LONG_KEY_SIZE) == 0:
        found[0] = LONG_KEY
    return stop + 1


cdef inline int _known_key(Words words, uint32_t n) noexcept nogil:
    """The number of a key of at most 15 bytes, the rest of its words being 0; else UNKNOWN."""
    cdef int key = KEY_AT[((words.low + n) * KEY_FACTOR) >> (64 - KEYS_BITS)]
    return key if KEY_WORDS[key].low == words.low and KEY_WORDS[key].high == words.high else UNKNOWN


cdef inline const uint8_t *_key(Wire *wire, const uint8_t *p, int *found) noexcept nogil:
    """The value of the member whose key begins at p; the key's number in `found`."""
    cdef Words words
    cdef uint32_t n
    cdef int odd
    if p[0] != c'"':
        return NULL
    p += 1
    n = WIRE_CTZ64(_marks_from(wire, p) | 1 << 16)
    if n < 16 and p[n] == c'"' and wire.end - p >= 16:
        words.low = wire_load(p) & KEY_MASKS[n].low
        words.high = wire_load(p + 8) & KEY_MASKS[n].high
        found[0] = _known_key(words, n)
        p += n + 1
    else:
        p = _odd_key(wire, p, &odd)
        if p == NULL:
            return NULL
        found[0] = odd
    if p[0] != c':':
        p = _space(p)
        if p[0] != c':':
            return NULL
    return _space(p + 1)


cdef const uint8_t *_members(
    Wire *wire, const uint8_t *p, const uint8_t *table, Val *slots, int *own
) noexcept nogil:
    """Reads members of an object into slots until one is its owner's work.

    Enter with own = -1 at the "{", later behind the value of that member. Leaves with the member's
    slot in `own` and p at its value, or with own = 0 behind the "}".
    """
    cdef int key, code
    if own[0] < 0:
        p = _space(p + 1)
        if p[0] == c'}':
            own[0] = 0
            return p + 1
    else:
        p = _space(p)
        if p[0] == c'}':
            own[0] = 0
            return p + 1
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    while True:
        p = _key(wire, p, &key)
        if p == NULL:
            return NULL
        code = table[key]
        if <uint32_t>(code - 1) < NUMBERS - 1:
            p = _value(wire, p, &slots[code])
        elif code == 0:
            p = _skip(wire, p)
        elif code < MIME_TYPES:
            p = _numbers(wire, p, &slots[code & SLOT])
        elif code < OWN:
            p = _mimes(wire, p, &slots[code & SLOT])
        else:
            own[0] = code & SLOT
            return p
        if p == NULL:
            return NULL
        p = _space(p)
        if p[0] == c'}':
            own[0] = 0
            return p + 1
        if p[0] != c',':
            return NULL
        p = _space(p + 1)


cdef inline const uint8_t *_plain_object(
    Wire *wire, const uint8_t *p, const uint8_t *table, Val *slots
) noexcept nogil:
    """An object without members of its owner's."""
    cdef int own = -1
    return _members(wire, p, table, slots, &own)


cdef inline bint _is_object(Wire *wire, const uint8_t **at, Val *val) noexcept nogil:
    """Whether an object stands here; anything else is read, and counted when it says something."""
    if val.kind != NOTHING:
        at[0] = NULL
        return False
    if at[0][0] == c'{':
        val.kind = OBJECT
        return True
    at[0] = _value(wire, at[0], val)
    if val.kind != NOTHING:
        wire.quirks |= QUIRK_WRONG_TYPE_IGNORED
    return False


cdef const uint8_t *_entry(Wire *wire, const uint8_t *p, bint *more) noexcept nogil:
    """The next object of a list of objects at or behind p; entries that say nothing are passed."""
    cdef Val val
    while p[0] != c'{':
        val.kind = NOTHING
        p = _value(wire, p, &val)
        if p == NULL or val.kind != NOTHING:
            return NULL
        p = _space(p)
        if p[0] == c']':
            more[0] = False
            return p + 1
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    more[0] = True
    return p


cdef const uint8_t *_objects(
    Wire *wire, const uint8_t *p, Val *val, bint *more
) noexcept nogil:
    """Opens a list of objects: p at the first one, or behind the list."""
    more[0] = False
    if p[0] != c'[':
        p = _value(wire, p, val)
        if p == NULL or val.kind != NOTHING:
            return NULL
        return p
    if val.kind != NOTHING:
        return NULL
    val.kind = DONE
    p = _space(p + 1)
    if p[0] == c']':
        return p + 1
    return _entry(wire, p, more)


cdef inline const uint8_t *_next(Wire *wire, const uint8_t *p, bint *more) noexcept nogil:
    """Behind an object of a list: at the next one, or behind the list."""
    p = _space(p)
    if p[0] == c',':
        return _entry(wire, _space(p + 1), more)
    more[0] = False
    return p + 1 if p[0] == c']' else NULL


cdef bint _is_utf8(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Whether bytes are UTF-8: shortest form, no surrogates, up to U+10FFFF."""
    cdef uint8_t byte, low, high
    cdef int more, i
    while p < end:
        if end - p >= 8 and wire_load(p) & 0x8080808080808080ULL == 0:
            p += 8
            continue
        byte = p[0]
        p += 1
        if byte < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= byte <= 0xDF:
            more = 1
        elif 0xE0 <= byte <= 0xEF:
            more = 2
            if byte == 0xE0:
                low = 0xA0
            elif byte == 0xED:
                high = 0x9F
        elif 0xF0 <= byte <= 0xF4:
            more = 3
            if byte == 0xF0:
                low = 0x90
            elif byte == 0xF4:
                high = 0x8F
        else:
            return False
        if end - p < more:
            return False
        for i in range(more):
            if not low <= p[i] <= high:
                return False
            low, high = 0x80, 0xBF
        p += more
    return True
