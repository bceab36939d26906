# Tokens and lists: what can be targeted, and what is blocked.
# A part of `ext/wire.pyx`, which says how the parts work together.

# -- tokens ----------------------------------------------------------------------------------------

cdef inline void _put(Wire *wire, int dim, uint64_t hash_, Text text, int imp) noexcept nogil:
    cdef Head *head = &wire.facts.head
    cdef Token *token
    if head.tokens_count >= TOKENS_MAX:
        wire.doubt = True
        return
    token = &wire.facts.tokens[head.tokens_count]
    head.tokens_count += 1
    token.hash_ = hash_
    token.dim = dim
    token.imp = imp
    token.off = 0
    token.len_ = 0
    if wire.base <= text.p < wire.base_end:
        token.off = <int32_t>(text.p - wire.base)
        token.len_ = <int32_t>text.n


cdef inline void _target(Wire *wire, int dim, uint64_t hash_, Text text, int imp) noexcept nogil:
    """A value that can be targeted; too many of them are the reference's to count."""
    wire.targets_left -= 1
    if wire.targets_left < 0:
        wire.doubt = True
        return
    _put(wire, dim, hash_, text, imp)


cdef inline void _target_text(Wire *wire, int dim, Text text, int imp) noexcept nogil:
    if text.n:
        _target(wire, dim, _hash_of(wire, dim, text), text, imp)


cdef inline void _target_made(Wire *wire, int dim, uint64_t state, int imp) noexcept nogil:
    """A value that does not stand in the body as such: its token has no slice."""
    cdef Text text
    text.p = NULL
    text.n = 0
    _target(wire, dim, token_end(state), text, imp)


cdef inline void _target_known(Wire *wire, int dim, uint64_t hash_, int imp) noexcept nogil:
    cdef Text text
    text.p = NULL
    text.n = 0
    _target(wire, dim, hash_, text, imp)


cdef inline void _block(Wire *wire, int dim, uint64_t hash_, Text text, int imp) noexcept nogil:
    """A value of a block or allow list."""
    wire.blocks_left -= 1
    if wire.blocks_left < 0:
        wire.doubt = True
        return
    _put(wire, dim, hash_, text, imp)


cdef uint64_t _feed(Wire *wire, uint64_t state, const uint8_t *p, Py_ssize_t n) noexcept nogil:
    """Text into a token's hash."""
    cdef Py_ssize_t i
    if not wire.base <= p < wire.base_end - 8 - n:
        for i in range(n):
            state = token_feed(state, p[i])
        return state
    while n > 8:
        state = wire_feed_word(state, wire_load(p), 8)
        p += 8
        n -= 8
    return wire_feed_word(state, wire_load(p), n)


cdef inline uint64_t _hash_of(Wire *wire, int dim, Text text) noexcept nogil:
    """`token_hash`."""
    return token_end(_feed(wire, token_start(dim), text.p, text.n))


cdef uint64_t _feed_number(Wire *wire, uint64_t state, uint32_t value) noexcept nogil:
    """The decimal digits of a number."""
    cdef uint8_t digits[10]
    cdef int at = 10
    while True:
        at -= 1
        digits[at] = 48 + value % 10
        value //= 10
        if value == 0:
            return _feed(wire, state, digits + at, 10 - at)


cdef void _target_number(
    Wire *wire, int dim, const char *prefix, int value, int imp
) noexcept nogil:
    """The token of a prefix and a number."""
    cdef uint64_t state = token_start(dim)
    while prefix[0]:
        state = token_feed(state, <uint8_t>prefix[0])
        prefix += 1
    _target_made(wire, dim, _feed_number(wire, state, <uint32_t>value), imp)


cdef void _target_size(Wire *wire, int32_t w, int32_t h) noexcept nogil:
    cdef uint64_t state = token_start(DIM_SIZE)
    state = _feed_number(wire, state, <uint32_t>w)
    state = token_feed(state, c'x')
    _target_made(wire, DIM_SIZE, _feed_number(wire, state, <uint32_t>h), wire.imp)


cdef void _comma_separated(Wire *wire, int dim, Text text) noexcept nogil:
    """A token for each word between commas."""
    cdef const uint8_t *end = text.p + text.n
    cdef const uint8_t *comma
    cdef Text word
    if text.n == 0:
        return
    while True:
        comma = <const uint8_t *>memchr(text.p, c',', end - text.p)
        word.p = text.p
        word.n = (comma if comma != NULL else end) - text.p
        _target_text(wire, dim, _strip(word), -1)
        if comma == NULL:
            return
        text.p = comma + 1


# -- lists -----------------------------------------------------------------------------------------

cdef const uint8_t *_numbers(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """A list of enum numbers as a mask (`Reader.mask`) of 64 bits."""
    cdef Val item
    cdef uint64_t bits = 0
    cdef uint32_t items = 0
    cdef int32_t number
    cdef bint listed = p[0] == c'['
    if val.kind != NOTHING:
        return NULL
    if listed:
        p = _space(p + 1)
    while p[0] != c']' or not listed or items:
        if listed and _is_digit(p[0]) and (p[1] == c',' or p[1] == c']'):
            number = p[0] - 48
            items += 1
            p += 1
        else:
            item.kind = NOTHING
            p = _value(wire, p, &item)
            if p == NULL:
                return NULL
            number = -1
            if (item.kind == TEXT or item.kind == ESCAPED) and (
                memchr(item.p, c',', item.n) != NULL
            ):
                return NULL  # some between commas
            if item.kind != NOTHING:
                items += 1
                number = _integer(wire, &item, -1)
            if not listed:
                if item.kind == NOTHING:
                    return p
                wire.quirks |= QUIRK_SCALAR_AS_LIST
        if 0 < number < 64:
            bits |= <uint64_t>1 << number
        if not listed:
            val.kind = MASK
            val.p = <const uint8_t *><uintptr_t>bits
            val.n = items
            return p
        p = _space(p)
        if p[0] == c',':
            p = _space(p + 1)
            if p[0] == c']':
                return NULL
        elif p[0] == c']':
            break
        else:
            return NULL
    val.kind = MASK
    val.p = <const uint8_t *><uintptr_t>bits
    val.n = items
    return p + 1


cdef inline uint64_t _mask64(Val *val) noexcept nogil:
    return <uint64_t><uintptr_t>val.p if val.kind == MASK else 0


cdef inline uint32_t _mask(Val *val, uint32_t unknown) noexcept nogil:
    """A mask of 32 bits; `unknown` when entries were given and none is in it."""
    cdef uint32_t bits = <uint32_t>_mask64(val)
    return bits if bits or not val.n or val.kind != MASK else unknown


cdef int _mime_bit(Text text) noexcept nogil:
    """The bit of a MIME type without its parameters; -1 when unknown."""
    cdef uint64_t words[4]
    cdef uint8_t *to = <uint8_t *>words
    cdef const uint8_t *found = <const uint8_t *>memchr(text.p, c';', text.n) if text.n else NULL
    cdef Py_ssize_t i
    cdef int at
    if found != NULL:
        text.n = found - text.p
        text = _strip(text)
    if text.n == 0 or text.n > 31:
        return -1
    memset(words, 0, sizeof(words))
    memcpy(to, text.p, text.n)
    for i in range(text.n):
        if 65 <= to[i] <= 90:
            to[i] |= 32
    at = MIME_AT[_mime_hash(words)]
    if at < 0 or memcmp(words, MIME_LIST_OF[at].words, sizeof(words)) != 0:
        return -1
    return MIME_LIST_OF[at].bit


cdef const uint8_t *_mimes(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """`native.mime_mask`."""
    cdef Val item
    cdef uint64_t bits = 0
    cdef uint32_t items = 0
    cdef int bit
    cdef bint listed = p[0] == c'['
    if val.kind != NOTHING:
        return NULL
    if listed:
        p = _space(p + 1)
    if not listed or p[0] != c']':
        while True:
            item.kind = NOTHING
            p = _value(wire, p, &item)
            if p == NULL:
                return NULL
            if item.kind != NOTHING:
                items += 1
                bit = _mime_bit(_text(wire, &item))
                if bit >= 0:
                    bits |= <uint64_t>1 << bit
            if not listed:
                break
            p = _space(p)
            if p[0] == c']':
                break
            if p[0] != c',':
                return NULL
            p = _space(p + 1)
    if not listed:
        if items == 0:
            return p
        wire.quirks |= QUIRK_SCALAR_AS_LIST
    val.kind = MASK
    val.p = <const uint8_t *><uintptr_t>(bits if bits or not items else MIME_UNKNOWN)
    val.n = items
    return p + 1 if listed else p


cdef void _list_text(Wire *wire, int dim, int aux, Text text) noexcept nogil:
    """One entry of a list of texts. `aux`: taxonomy of categories, index of a deal."""
    cdef uint64_t state
    cdef const uint8_t *dash
    cdef Py_ssize_t size = text.n
    if dim == DIM_BCAT or dim == DIM_ACAT or dim == DIM_PAGE_CATEGORY:
        if text.n == 0:
            return
        state = token_feed(_feed_number(wire, token_start(dim), <uint32_t>aux), c':')
        if dim != DIM_PAGE_CATEGORY:
            _block(wire, dim, token_end(_feed(wire, state, text.p, size)), text, -1)
            return
        if aux == CATTAX_DEFAULT:
            dash = <const uint8_t *>memchr(text.p, c'-', size)
            if dash != NULL:
                state = _feed(wire, state, text.p, dash - text.p)
                _target_made(wire, dim, state, -1)
                size -= dash - text.p
                text.p = dash
        _target_made(wire, dim, _feed(wire, state, text.p, size), -1)
        return
    if dim == DIM_BADV or dim == DIM_DEAL_WADOMAIN:
        text = _blocked_host(wire, text)
    elif dim == DIM_WLANG:
        text = _primary(text)
    if text.n == 0:
        return
    if DIM_BCAT <= dim <= DIM_DEAL_WADOMAIN:
        _block(wire, dim, _hash_of(wire, dim, text), text, aux)
    else:
        _target_text(wire, dim, text, -1)


cdef void _list_entry(Wire *wire, int dim, int aux, Text text) noexcept nogil:
    """An entry of a list of texts: one, or in block lists of codes some between commas."""
    cdef const uint8_t *end = text.p + text.n
    cdef const uint8_t *comma = NULL
    cdef Text part
    if text.n and (DIM_BCAT <= dim <= DIM_BAPP or dim == DIM_WLANG):
        comma = <const uint8_t *>memchr(text.p, c',', text.n)
    if comma == NULL:
        _list_text(wire, dim, aux, text)
        return
    wire.quirks |= QUIRK_OTHER_NOTATION
    while True:
        part.p = text.p
        part.n = (comma if comma != NULL else end) - text.p
        _list_text(wire, dim, aux, _strip(part))
        if comma == NULL:
            return
        text.p = comma + 1
        comma = <const uint8_t *>memchr(text.p, c',', end - text.p)


cdef const uint8_t *_texts(Wire *wire, const uint8_t *p, Val *val, int dim, int aux) noexcept nogil:
    """A list of texts (`Reader.texts`) as tokens; `n` of the slot counts what says something."""
    cdef Val item
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
            _list_entry(wire, dim, aux, _text(wire, &item))
        if not listed:
            break
        p = _space(p)
        if p[0] == c']':
            return p + 1
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    if val.n:
        val.kind = DONE
        wire.quirks |= QUIRK_SCALAR_AS_LIST
    return p


cdef const uint8_t *_start_of(Val *val) noexcept nogil:
    """Where the value of a slot begins, to read it once more."""
    return val.p - 1 if val.kind == TEXT or val.kind == ESCAPED else val.p


cdef void _texts_of(Wire *wire, Val *val, int dim) noexcept nogil:
    """The list that a slot holds, as tokens."""
    cdef Val again
    again.kind = NOTHING
    if val.kind != NOTHING:
        _texts(wire, _start_of(val), &again, dim, -1)


cdef const uint8_t *_words(Wire *wire, const uint8_t *p, Val *val, int dim) noexcept nogil:
    """`keywords`: a comma-separated text, or a list."""
    if p[0] == c'[':
        wire.quirks |= QUIRK_OTHER_NOTATION
        return _texts(wire, p, val, dim, -1)
    p = _value(wire, p, val)
    if p != NULL:
        _comma_separated(wire, dim, _text(wire, val))
    return p


cdef const uint8_t *_segments(
    Wire *wire, const uint8_t *p, Val *val, Text *names, int *count
) noexcept nogil:
    """data.segment: ":segment" tokens; the names are kept for their provider."""
    cdef Val slots[3]
    cdef uint64_t state
    cdef bint more
    cdef Text name
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        p = _plain_object(wire, p, T_OWNER, slots)
        if p == NULL:
            return NULL
        name = _text_or(wire, &slots[ONE], &slots[TWO])
        if name.n:
            if count[0] == SEGMENTS_MAX:
                return NULL
            names[count[0]] = name
            count[0] += 1
            state = token_feed(token_start(DIM_DATA_SEGMENT), c':')
            _target_made(wire, DIM_DATA_SEGMENT, _feed(wire, state, name.p, name.n), -1)
        p = _next(wire, p, &more)
    return p


cdef const uint8_t *_data(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """user.data or content.data."""
    cdef Text names[SEGMENTS_MAX]
    cdef Val slots[4]
    cdef uint64_t state
    cdef bint more
    cdef Text provider
    cdef int own, count, i
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        own = -1
        count = 0
        while True:
            p = _members(wire, p, T_DATA, slots, &own)
            if p == NULL:
                return NULL
            if own == 0:
                break
            p = _segments(wire, p, &slots[own], names, &count)
            if p == NULL:
                return NULL
        provider = _text_or(wire, &slots[TWO], &slots[ONE])
        if provider.n:
            state = token_start(DIM_DATA_SEGMENT)
            state = token_feed(_feed(wire, state, provider.p, provider.n), c':')
            for i in range(count):
                _target_made(
                    wire, DIM_DATA_SEGMENT, _feed(wire, state, names[i].p, names[i].n), -1
                )
        p = _next(wire, p, &more)
    return p


cdef Text _scalar(Wire *wire, Val *val) noexcept nogil:
    """A value of `ext.data` as text: numbers as written, truth by its word."""
    cdef Text text
    text.p = val.p
    text.n = 0
    if val.kind == TEXT or val.kind == ESCAPED:
        return _text(wire, val)
    if SMALL <= val.kind <= REAL:
        return _literal(wire, val)
    if val.kind == TRUE:
        text.p = <const uint8_t *>"true"
        text.n = 4
    elif val.kind == FALSE:
        text.p = <const uint8_t *>"false"
        text.n = 5
    return text


cdef void _key_value(Wire *wire, uint64_t state, Val *val) noexcept nogil:
    cdef Text text = _scalar(wire, val)
    if text.n:
        _target_made(wire, DIM_KEY_VALUE, _feed(wire, state, text.p, text.n), wire.imp)


cdef const uint8_t *_key_values(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """ext.data (`sheet.key_values`): any keys, scalars or lists of them."""
    cdef Val keys[NAMES_MAX]
    cdef Val item
    cdef uint64_t state
    cdef Text name
    cdef int count = 0, i
    if not _is_object(wire, &p, val):
        return p
    p = _space(p + 1)
    if p[0] == c'}':
        return p + 1
    while True:
        if p[0] != c'"' or count == NAMES_MAX:
            return NULL
        keys[count].kind = NOTHING
        keys[count].n = 0
        keys[count].p = p
        p = _value(wire, p, &keys[count])
        if p == NULL or keys[count].kind == ESCAPED:
            return NULL  # spelled in two ways, two of them may be the same
        for i in range(count):
            if keys[i].n == keys[count].n and memcmp(keys[i].p, keys[count].p, keys[i].n) == 0:
                return NULL
        name = _plain(wire, &keys[count])
        count += 1
        state = token_feed(_feed(wire, token_start(DIM_KEY_VALUE), name.p, name.n), c'=')
        p = _space(p)
        if p[0] != c':':
            return NULL
        p = _space(p + 1)
        item.kind = NOTHING
        if p[0] != c'[':
            p = _value(wire, p, &item)
            if p == NULL:
                return NULL
            _key_value(wire, state, &item)
        else:
            p = _space(p + 1)
            while p[0] != c']':
                item.kind = NOTHING
                p = _value(wire, p, &item)
                if p == NULL:
                    return NULL
                _key_value(wire, state, &item)
                p = _space(p)
                if p[0] == c',':
                    p = _space(p + 1)
                    if p[0] == c']':
                        return NULL
                elif p[0] != c']':
                    return NULL
            p += 1
        p = _space(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
