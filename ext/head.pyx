"""Compiled twin of `rtb.server.head`, which states the rules."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp

from rtb.server import head as rules

cdef bytes _prefix = rules.PREFIX
cdef bytes _suffix = rules.SUFFIX
cdef int PREFIX_SIZE = len(_prefix)
cdef int SUFFIX_SIZE = len(_suffix)
cdef const char *PREFIX = _prefix
cdef const char *SUFFIX = _suffix
cdef int HEAD_BYTES_MAX = rules.HEAD_BYTES_MAX
cdef int HEADERS_MAX = rules.HEADERS_MAX
cdef list _unusual = sorted(rules.UNUSUAL)

# One table for all byte questions.
cdef enum:
    TOKEN = 1
    NAME = 2
    BAD_VALUE = 4
cdef uint8_t[256] KIND
for _byte in range(256):
    KIND[_byte] = 0
    if _byte in rules._TOKEN:
        KIND[_byte] |= TOKEN
    if _byte in rules._NAME:
        KIND[_byte] |= NAME
    if (_byte < 32 and _byte != 9) or _byte == 127:
        KIND[_byte] |= BAD_VALUE


cdef inline bint _is(const char *text, Py_ssize_t size, const char *lower, int lower_size) noexcept:
    """Whether a text equals a lower-case word, whatever its case."""
    cdef int i
    cdef uint8_t byte
    if size != lower_size:
        return False
    for i in range(lower_size):
        byte = <uint8_t>text[i]
        if 65 <= byte <= 90:
            byte |= 32
        if byte != <uint8_t>lower[i]:
            return False
    return True


cdef bint _is_unusual(const char *name, Py_ssize_t size) except -1:
    # Every unusual header starts with one of these; most headers end the question here.
    cdef uint8_t first = <uint8_t>name[0] | 32
    cdef bytes word
    if first not in (c't', c'c', c'e', c'u', c'p', c'k', c'h'):
        return False
    for word in _unusual:
        if _is(name, size, PyBytes_AS_STRING(word), <int>PyBytes_GET_SIZE(word)):
            return True
    return False


cdef struct Head:
    Py_ssize_t name_end, body, length


cdef bint _head(const char *text, Py_ssize_t size, Head *head) except -1:
    """Whether a text begins with a whole plain head; what it says."""
    cdef Py_ssize_t limit = min(size, HEAD_BYTES_MAX)
    cdef Py_ssize_t at, name_end, line_end, colon, start, stop, i
    cdef long length = -1
    cdef int headers = 0
    cdef int hosts = 0
    cdef const char *found
    if size < PREFIX_SIZE + SUFFIX_SIZE or memcmp(text, PREFIX, PREFIX_SIZE) != 0:
        return False
    name_end = PREFIX_SIZE
    while name_end < limit and KIND[<uint8_t>text[name_end]] & NAME:
        name_end += 1
    at = name_end + SUFFIX_SIZE
    if name_end == PREFIX_SIZE or at + 2 > limit or memcmp(text + name_end, SUFFIX, SUFFIX_SIZE):
        return False
    while True:
        # `at` is at the CRLF that ends a line.
        if at + 4 > limit or text[at] != c'\r' or text[at + 1] != c'\n':
            return False
        at += 2
        if text[at] == c'\r':
            if text[at + 1] != c'\n':
                return False
            at += 2
            break
        headers += 1
        if headers > HEADERS_MAX:
            return False
        colon = at
        while colon < limit and KIND[<uint8_t>text[colon]] & TOKEN:
            colon += 1
        if colon == at or colon >= limit or text[colon] != c':':
            return False
        found = <const char *>memchr(text + colon, c'\r', limit - colon)
        if found == NULL:
            return False
        line_end = found - text
        start = colon + 1
        for i in range(start, line_end):
            if KIND[<uint8_t>text[i]] & BAD_VALUE:
                return False
        stop = line_end
        while start < stop and (text[start] == c' ' or text[start] == c'\t'):
            start += 1
        while stop > start and (text[stop - 1] == c' ' or text[stop - 1] == c'\t'):
            stop -= 1
        if _is(text + at, colon - at, b"content-length", 14):
            if length >= 0 or not 0 < stop - start <= 7:
                return False
            length = 0
            for i in range(start, stop):
                if not c'0' <= text[i] <= c'9':
                    return False
                length = length * 10 + (text[i] - c'0')
        elif _is(text + at, colon - at, b"content-type", 12):
            if stop - start < 16 or not _is(text + start, 16, b"application/json", 16):
                return False
        elif _is(text + at, colon - at, b"connection", 10):
            if not _is(text + start, stop - start, b"keep-alive", 10):
                return False
        elif _is(text + at, colon - at, b"host", 4):
            hosts += 1
        elif _is_unusual(text + at, colon - at):
            return False
        at = line_end
    head.name_end, head.body, head.length = name_end, at, length
    return length >= 0 and hosts == 1


def plain_bid(bytes data not None):
    """See `rtb.server.head.plain_bid`."""
    cdef const char *text = PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef Head head
    if not _head(text, size, &head) or head.body + head.length != size:
        return None
    return PyBytes_FromStringAndSize(text + PREFIX_SIZE, head.name_end - PREFIX_SIZE), head.body


def missing(bytes data not None) -> int:
    """See `rtb.server.head.missing`."""
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef Head head
    if not _head(PyBytes_AS_STRING(data), size, &head):
        return 0
    return max(head.body + head.length - size, 0)
