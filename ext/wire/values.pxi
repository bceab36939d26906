# Single values: numbers and texts with their quirks.
# A part of `ext/wire.pyx`, which says how the parts work together.

# -- values ----------------------------------------------------------------------------------------

cdef int _decimal(const uint8_t *p, const uint8_t *end, Number *number) noexcept nogil:
    """A decimal as `reading` takes it from strings: 1 read, 0 none, -1 too long for us."""
    cdef int digits = 0, exponent = 0, sign = 1, places = 0
    cdef uint64_t m = 0
    cdef bint point = False
    cdef const uint8_t *start
    number.negative = p < end and p[0] == c'-'
    p += number.negative
    start = p
    while p < end:
        if p[0] == c'.' and not point:
            if p == start:
                return 0
            point = True
            start = p + 1
        elif _is_digit(p[0]):
            if m or p[0] != 48:
                digits += 1
                if digits > SIGNIFICANT_DIGITS_MAX:
                    return -1
                m = m * 10 + (p[0] - 48)
            places += point
        else:
            break
        p += 1
    if p == start:
        return 0
    if p < end:
        if p[0] | 32 != c'e':
            return 0
        p += 1
        if p < end and (p[0] == c'+' or p[0] == c'-'):
            sign = -1 if p[0] == c'-' else 1
            p += 1
        start = p
        while p < end and _is_digit(p[0]):
            if p - start > 4:
                return -1
            exponent = exponent * 10 + (p[0] - 48)
            p += 1
        if p == start or p < end:
            return 0
    if number.negative and m == 0:
        return -1  # the reference knows what becomes of -0
    number.m = m
    number.exponent = sign * exponent - places
    return 1


cdef bint _number_of(Wire *wire, Val *val, Number *number) noexcept nogil:
    """`Reader.number_of`: whether a slot holds a number."""
    cdef int read
    if val.kind == NOTHING:
        return False
    number.exponent = 0
    number.negative = 0
    if val.kind == SMALL:
        number.m = val.n
        return True
    if val.kind == FALSE or val.kind == TRUE:
        wire.quirks |= QUIRK_BOOL_AS_INT
        number.m = val.kind == TRUE
        return True
    if val.kind == OBJECT or val.kind == LIST or val.kind == ESCAPED:
        wire.quirks |= QUIRK_WRONG_TYPE_IGNORED
        return False
    read = _decimal(val.p, val.p + val.n, number)
    if read < 0:
        wire.doubt = True
        return False
    if val.kind == TEXT:
        wire.quirks |= QUIRK_NUMBER_AS_STRING if read else QUIRK_WRONG_TYPE_IGNORED
    return read


cdef int32_t _integer_slow(Wire *wire, Val *val, int32_t default) noexcept nogil:
    cdef Number number
    cdef uint64_t m
    cdef int i
    if not _number_of(wire, val, &number):
        return default
    if val.kind == REAL:
        wire.quirks |= QUIRK_FLOAT_AS_INT
    elif val.kind == TEXT:
        for i in range(<int>val.n):
            if not _is_digit(val.p[i]) and val.p[i] != c'-':
                wire.quirks |= QUIRK_FLOAT_AS_INT
                break
    m = number.m
    if m:
        i = number.exponent
        while i > 0 and m >> 32 == 0:
            m *= 10
            i -= 1
        while i < 0 and m:
            m //= 10
            i += 1
    if m > <uint64_t>INT32_HIGH:
        return INT32_LOW if number.negative else INT32_HIGH
    return -<int32_t>m if number.negative else <int32_t>m


cdef inline int32_t _integer(Wire *wire, Val *val, int32_t default) noexcept nogil:
    """`Reader.integer`: truncated, saturated."""
    if val.kind == NOTHING:
        return default
    if val.kind == SMALL:
        return <int32_t>val.n
    return _integer_slow(wire, val, default)


cdef inline bint _strict_flag(Wire *wire, Val *val) noexcept nogil:
    """`Reader.strict_flag`: set also by what cannot be read."""
    return val.kind != NOTHING and _integer(wire, val, 1) != 0


cdef inline bint _may_move(Wire *wire, Val *val) noexcept nogil:
    """Whether an old home of a slot counts (`Reader.home`); one with nothing in it is a doubt."""
    if val.kind == LIST or val.kind == OBJECT:
        wire.doubt = True
    return val.kind == NOTHING


cdef inline int32_t _count(Wire *wire, Val *val, int32_t default) noexcept nogil:
    """`Reader.count`: not below 0."""
    cdef int32_t value = _integer(wire, val, default)
    if value < 0 and value != default:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return default
    return value


cdef int64_t _micros(Wire *wire, Val *val) noexcept nogil:
    """`Reader.micros`, rounded up: -1 is IMPOSSIBLE."""
    cdef Number number
    cdef uint64_t m, divisor
    cdef int shift
    if val.kind == NOTHING:
        return 0
    if not _number_of(wire, val, &number):
        return -1
    m = number.m
    shift = number.exponent + 6
    if m == 0:
        return 0
    if number.negative:
        return -1
    while shift > 0:
        if m > <uint64_t>CPM_LIMIT:
            return -1
        m *= 10
        shift -= 1
    if shift < 0:
        if shift < -19:
            return 1  # more than nothing
        divisor = 1
        while shift < 0:
            divisor *= 10
            shift += 1
        m = (m - 1) // divisor + 1
    return <int64_t>m if m <= <uint64_t>CPM_LIMIT else -1


cdef double[23] POWERS
for _n in range(23):
    POWERS[_n] = float(10**_n)


cdef bint _real(Wire *wire, Val *val, double *out) noexcept nogil:
    """`Reader.real`: whether a slot holds a finite number."""
    cdef Number number
    cdef char text[NUMBER_BYTES_MAX + 1]
    cdef uint64_t m
    cdef int digits = 0
    if not _number_of(wire, val, &number):
        return False
    m = number.m
    if m < <uint64_t>1 << 53 and -22 <= number.exponent <= 22:
        # Both are exact, so the one rounding of the quotient is the right one.
        out[0] = <double>m
        if number.exponent < 0:
            out[0] /= POWERS[-number.exponent]
        else:
            out[0] *= POWERS[number.exponent]
        if number.negative:
            out[0] = -out[0]
        return True
    if m == 0:
        out[0] = 0.0
        return True
    while m:
        m //= 10
        digits += 1
    if digits - 1 + number.exponent > 300:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return False
    if number.exponent < -300 or val.n > NUMBER_BYTES_MAX or val.kind == SMALL:
        wire.doubt = True
        return False
    memcpy(text, val.p, val.n)
    text[val.n] = 0
    out[0] = PyOS_string_to_double(text, NULL, NULL)
    return True


cdef int32_t _side(Wire *wire, Val *val) noexcept nogil:
    """A width or height of an impression, which must be one that a screen may have."""
    cdef int32_t value = _size(wire, val)
    if value > SIDE_MAX:
        _spoil(wire)
    return value


cdef int32_t _size(Wire *wire, Val *val) noexcept nogil:
    """A ratio or duration of an impression, which must not be below 0."""
    cdef int32_t value = _integer(wire, val, 0)
    if value < 0:
        _spoil(wire)
    return value


cdef int64_t _floor(Wire *wire, Val *val) noexcept nogil:
    """A floor of an impression, which must be possible."""
    cdef int64_t micros = _micros(wire, val)
    if micros < 0:
        _spoil(wire)
        return 0
    return micros


cdef inline void _spoil(Wire *wire) noexcept nogil:
    wire.quirks |= QUIRK_BAD_VALUE_IGNORED
    wire.spoiled = True


cdef uint32_t _currency_of(Text text) noexcept nogil:
    """`money.currency_code`; 0 for anything else."""
    cdef uint32_t code = 0
    cdef uint8_t byte
    cdef int i
    if text.n != 3:
        return 0
    for i in range(3):
        byte = text.p[i] & ~32
        if not 65 <= byte <= 90:
            return 0
        code = code << 8 | byte
    return code


cdef uint32_t _currency(Wire *wire, Val *val) noexcept nogil:
    """`Reader.currency`."""
    cdef uint32_t code
    if val.kind == NOTHING:
        return USD
    if val.kind != TEXT:
        wire.doubt = True
        return 0
    code = _currency_of(_raw(wire, val))
    if code == 0:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
    return code


# -- texts -----------------------------------------------------------------------------------------

cdef Text _unescape(Wire *wire, const uint8_t *p, Py_ssize_t n) noexcept nogil:
    """What a checked string with escapes means, in the arena, with a NUL behind it."""
    cdef const uint8_t *end = p + n
    cdef const uint8_t *mark
    cdef uint8_t *to = &ARENA[wire.arena_used]
    cdef Text text
    cdef Py_ssize_t run
    cdef int unit
    cdef uint8_t byte
    text.p = to
    text.n = 0
    if n + 1 > ARENA_BYTES - wire.arena_used:
        wire.doubt = True
        return text
    while p < end:
        mark = <const uint8_t *>memchr(p, 92, end - p)
        run = (mark if mark != NULL else end) - p
        memcpy(to, p, run)
        to += run
        p += run
        if p == end:
            break
        byte = p[1]
        if byte != c'u':
            if byte == c'n':
                byte = 10
            elif byte == c't':
                byte = 9
            elif byte == c'r':
                byte = 13
            elif byte == c'b':
                byte = 8
            elif byte == c'f':
                byte = 12
            to[0] = byte
            to += 1
            p += 2
            continue
        unit = _unit(p)
        p += 6
        if 0xD800 <= unit <= 0xDBFF:
            unit = 0x10000 + ((unit - 0xD800) << 10) + (_unit(p) - 0xDC00)
            p += 6
        if unit < 0x80:
            to[0] = unit
            to += 1
            continue
        if unit < 0x800:
            to[0] = 0xC0 | unit >> 6
        else:
            if unit < 0x10000:
                to[0] = 0xE0 | unit >> 12
            else:
                to[0] = 0xF0 | unit >> 18
                to += 1
                to[0] = 0x80 | unit >> 12 & 63
            to += 1
            to[0] = 0x80 | unit >> 6 & 63
        to += 1
        to[0] = 0x80 | unit & 63
        to += 1
    to[0] = 0
    text.n = to - text.p
    wire.arena_used += text.n + 1
    return text


cdef inline Text _strip(Text text) noexcept nogil:
    """Without white space at both ends, as `str.strip(" \\t\\r\\n")`."""
    while text.n and _is_space(text.p[0]):
        text.p += 1
        text.n -= 1
    while text.n and _is_space(text.p[text.n - 1]):
        text.n -= 1
    return text


cdef Text _literal(Wire *wire, Val *val) noexcept nogil:
    """A number as text: as it was written."""
    cdef Text text
    text.p = val.p
    text.n = val.n
    if val.kind == SMALL:
        text.n = 0
        while _is_digit(text.p[text.n]):
            text.n += 1
    elif val.kind == INTEGER and (val.n > SIGNIFICANT_DIGITS_MAX or memcmp(val.p, b"-0", 2) == 0):
        wire.doubt = True  # -0, or digits that the reference might write in another way
    return text


cdef Text _raw(Wire *wire, Val *val) noexcept nogil:
    """`Reader.raw_of`: string contents as they stand."""
    cdef Text text
    text.p = val.p
    text.n = val.n
    if val.kind == TEXT or val.kind == ESCAPED:
        return text
    if SMALL <= val.kind <= REAL:
        wire.quirks |= QUIRK_STRING_AS_NUMBER
        return _literal(wire, val)
    if val.kind != NOTHING:
        wire.quirks |= QUIRK_WRONG_TYPE_IGNORED
    text.n = 0
    return text


cdef inline Text _plain(Wire *wire, Val *val) noexcept nogil:
    """What a scalar means as text, untrimmed."""
    if val.kind == ESCAPED:
        return _unescape(wire, val.p, val.n)
    return _raw(wire, val)


cdef Text _odd_text(Wire *wire, Val *val) noexcept nogil:
    return _strip(_plain(wire, val))


cdef inline Text _text(Wire *wire, Val *val) noexcept nogil:
    """`Reader.text`."""
    cdef Text text
    if val.kind == NOTHING or (
        val.kind == TEXT and val.p[0] != 32 and val.p[val.n - 1] != 32
    ):
        text.p = val.p
        text.n = val.n if val.kind != NOTHING else 0
        return text
    return _odd_text(wire, val)


cdef Text _text_or(Wire *wire, Val *val, Val *other) noexcept nogil:
    """The first of two that says something; the second is looked at only then."""
    cdef Text text = _text(wire, val)
    return text if text.n else _text(wire, other)


cdef bint _is_id(Wire *wire, Val *val, Text raw) noexcept nogil:
    """`reading.is_id` of the raw text of a slot."""
    cdef Text text
    cdef Py_ssize_t i
    if raw.n == 0 or raw.n > ID_BYTES_MAX:
        return False
    if val.kind != ESCAPED:
        return memchr(raw.p, 127, raw.n) == NULL
    text = _unescape(wire, raw.p, raw.n)
    for i in range(text.n):
        if text.p[i] < 32 or text.p[i] == 127:
            return False
    return True


cdef bint _equals(Text text, const char *word, Py_ssize_t n) noexcept nogil:
    """Whether a text is a lower-case word, whatever its case."""
    cdef Py_ssize_t i
    cdef uint8_t byte
    if text.n != n:
        return False
    for i in range(n):
        byte = text.p[i]
        if 65 <= byte <= 90:
            byte |= 32
        if byte != <uint8_t>word[i]:
            return False
    return True


cdef Text _primary(Text tag) noexcept nogil:
    """`contexts.language_of`: up to the first dash or underscore."""
    cdef Py_ssize_t i
    for i in range(tag.n):
        if tag.p[i] == c'-' or tag.p[i] == c'_':
            tag.n = i
            break
    return tag


cdef inline Text _host(Wire *wire, Text text) noexcept nogil:
    """`hosts.host_of`, but for the lowering, which hashing does; other scripts are a doubt."""
    cdef uint8_t odd = 0
    cdef Py_ssize_t i
    for i in range(text.n):
        odd |= ODD_HOST[text.p[i]]
    if not odd and 0 < text.n <= HOST_BYTES_MAX and text.p[0] != c'.' and (
        text.p[text.n - 1] != c'.'
    ):
        return text
    return _odd_host(wire, text)


cdef Text _odd_host(Wire *wire, Text text) noexcept nogil:
    """`_host` of anything that is not a plain name."""
    cdef const uint8_t *p = text.p
    cdef const uint8_t *end = text.p + text.n
    cdef const uint8_t *found = <const uint8_t *>memchr(p, c':', text.n) if text.n else NULL
    cdef const uint8_t *at
    cdef Py_ssize_t i
    while found != NULL and not (end - found >= 3 and found[1] == c'/' and found[2] == c'/'):
        found = <const uint8_t *>memchr(found + 1, c':', end - found - 1)
    if found != NULL:
        p = found + 3
    else:
        while p < end and p[0] == c'/':
            p += 1
    at = p
    while at < end and at[0] != c'/' and at[0] != c'?' and at[0] != c'#':
        at += 1
    end = at
    while at > p:
        at -= 1
        if at[0] == c'@':
            p = at + 1
            break
    at = p
    while at < end and at[0] != c':':
        at += 1
    end = at
    if end - p >= 2 and p[0] == c'*' and p[1] == c'.':
        p += 2
    while p < end and p[0] == c'.':
        p += 1
    while end > p and (end - 1)[0] == c'.':
        end -= 1
    text.p = p
    text.n = end - p
    if text.n > HOST_BYTES_MAX:
        text.n = 0
    for i in range(text.n):
        if p[i] >= 128:
            wire.doubt = True
        if _is_space(p[i]):
            text.n = 0
            break
    return text


cdef Text _blocked_host(Wire *wire, Text text) noexcept nogil:
    """`hosts.blocked_host`."""
    cdef Text host = _host(wire, text)
    cdef Text prefix
    cdef Py_ssize_t i
    cdef int dots = 0
    prefix.p = host.p
    prefix.n = 4
    if host.n > 4 and _equals(prefix, b"www.", 4):
        for i in range(host.n):
            dots += host.p[i] == c'.'
        if dots > 1:
            host.p += 4
            host.n -= 4
    return host
