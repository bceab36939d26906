# Landing pages of clicks: `rtb.exchanges.response.landing_page`, for whoever writes or signs them.
# Needs: records, snapshot, tokens (mix64), buffer.pxi, and memchr, memcmp of libc.

from rtb.exchanges.response import _CACHEBUSTER_BELOW

cdef uint64_t CACHEBUSTER_BELOW = _CACHEBUSTER_BELOW
cdef Buffer PAGE
cdef int PAGE_FILLED = 0  # holes of it that the auction filled
PAGE.data = NULL
PAGE.size = PAGE.room = 0


cdef bint _page_echo(const char *text, Py_ssize_t size) except -1:
    """A value inside the page's own URL: percent-encoded for that URL and for the one around it.

    False when it holds an escape of JSON, which the twin reads.
    """
    if memchr(text, c'\\', size) != NULL:
        return False
    _put_percent(&PAGE, text, size, 2)
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
    global PAGE_FILLED
    cdef int at = 0, rest
    cdef const char *found
    PAGE.size = 0
    PAGE_FILLED = 0
    while at < count:
        found = <const char *>memchr(text + at, c'{', count - at)
        if found == NULL:
            break
        _put(&PAGE, text + at, found - (text + at))
        at = <int>(found - text)
        rest = count - at
        if _page_names(found, rest, b"{bid_id}", 8):
            _put_hex(&PAGE, number)
            at += 8
        elif _page_names(found, rest, b"{cachebuster}", 13):
            _put_digits(&PAGE, mix64(number) % CACHEBUSTER_BELOW, 10)
            at += 13
        elif _page_names(found, rest, b"{width}", 7):
            _put_digits(&PAGE, bid.w, 1)
            at += 7
        elif _page_names(found, rest, b"{height}", 8):
            _put_digits(&PAGE, bid.h, 1)
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
            _put(&PAGE, found, 1)
            at += 1
            continue
        PAGE_FILLED += 1
    _put(&PAGE, text + at, count - at)
    return True
