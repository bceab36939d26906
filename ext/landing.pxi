# Landing pages of clicks: `rtb.exchanges.response.landing_page`, for whoever writes or signs them.
# Needs: records, snapshot, tokens (mix64), and realloc, memchr, memcmp, memcpy of libc.

cdef struct Page:
    char *data
    Py_ssize_t size
    Py_ssize_t room
    int filled  # holes that the auction filled

cdef Page PAGE
PAGE.data = NULL
PAGE.size = 0
PAGE.room = 0

cdef const char *PAGE_HEX = b"0123456789ABCDEF"
cdef const char *PAGE_HEX_LOWER = b"0123456789abcdef"
cdef uint64_t PAGE_CACHEBUSTER_BELOW = rules_of_pages._CACHEBUSTER_BELOW


cdef int _page_room(Py_ssize_t more) except -1:
    cdef Py_ssize_t room
    cdef char *data
    if PAGE.size + more <= PAGE.room:
        return 0
    room = (PAGE.size + more) * 2
    data = <char *>realloc(PAGE.data, room)
    if data == NULL:
        raise MemoryError
    PAGE.data = data
    PAGE.room = room
    return 0


cdef int _page_put(const char *text, Py_ssize_t size) except -1:
    _page_room(size)
    memcpy(PAGE.data + PAGE.size, text, size)
    PAGE.size += size
    return 0


cdef int _page_digits(uint64_t value, int least) except -1:
    """Decimal digits, at least so many."""
    cdef char digits[24]
    cdef int at = 24
    while value or 24 - at < least:
        at -= 1
        digits[at] = c'0' + <char>(value % 10)
        value = value // 10
    return _page_put(digits + at, 24 - at)


cdef int _page_hex(uint64_t value) except -1:
    cdef char digits[16]
    cdef int i
    for i in range(16):
        digits[15 - i] = PAGE_HEX_LOWER[value & 15]
        value >>= 4
    return _page_put(digits, 16)


cdef bint _page_echo(const char *text, Py_ssize_t size) except -1:
    """A value inside the page's own URL: percent-encoded for that URL and for the one around it.

    False when it holds an escape of JSON, which the twin reads.
    """
    cdef Py_ssize_t i
    cdef uint8_t byte
    if memchr(text, c'\\', size) != NULL:
        return False
    _page_room(5 * size)
    for i in range(size):
        byte = <uint8_t>text[i]
        if (
            48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122
            or byte == 45 or byte == 46 or byte == 95 or byte == 126
        ):
            _page_put(text + i, 1)
        else:
            _page_put(b"%25", 3)
            _page_put(PAGE_HEX + (byte >> 4), 1)
            _page_put(PAGE_HEX + (byte & 15), 1)
    return True


cdef inline bint _page_names(const char *text, int count, const char *name, int size) noexcept nogil:
    return count >= size and memcmp(text, name, size) == 0


cdef bint _fill_page(
    const char *text, int count, uint64_t number, const Bid *bid, const Imp *imp,
    const Facts *facts, const char *request
) except -1:
    """Writes a landing page to PAGE; False when the twin should.

    text: as the catalogue has it; number: the bid's; request: what ids are echoed from.
    """
    cdef int at = 0, rest
    cdef const char *found
    PAGE.size = 0
    PAGE.filled = 0
    while at < count:
        found = <const char *>memchr(text + at, c'{', count - at)
        if found == NULL:
            break
        _page_put(text + at, found - (text + at))
        at = <int>(found - text)
        rest = count - at
        if _page_names(found, rest, b"{bid_id}", 8):
            _page_hex(number)
            at += 8
        elif _page_names(found, rest, b"{cachebuster}", 13):
            _page_digits(mix64(number) % PAGE_CACHEBUSTER_BELOW, 10)
            at += 13
        elif _page_names(found, rest, b"{width}", 7):
            _page_digits(bid.w, 1)
            at += 7
        elif _page_names(found, rest, b"{height}", 8):
            _page_digits(bid.h, 1)
            at += 8
        elif _page_names(found, rest, b"{auction_id}", 12):
            if not _page_echo(request + facts.head.id_off, facts.head.id_len):
                return False
            at += 12
        elif _page_names(found, rest, b"{imp_id}", 8):
            if not _page_echo(request + imp.id_off, imp.id_len):
                return False
            at += 8
        else:  # a brace, or a hole that is filled when the click comes
            _page_put(found, 1)
            at += 1
            continue
        PAGE.filled += 1
    _page_put(text + at, count - at)
    return True
