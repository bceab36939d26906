# A growing text, which is written to at its end. Needs: realloc, memcpy of libc, uint8_t, uint64_t.

cdef struct Buffer:
    char *data
    Py_ssize_t size
    Py_ssize_t room

cdef const char *HEX = b"0123456789abcdef"
cdef const char *HEX_UPPER = b"0123456789ABCDEF"


cdef int _grow(Buffer *out, Py_ssize_t more) except -1:
    cdef Py_ssize_t room = (out.size + more) * 2
    cdef char *data = <char *>realloc(out.data, room)
    if data == NULL:
        raise MemoryError
    out.data = data
    out.room = room
    return 0


cdef inline int _need(Buffer *out, Py_ssize_t more) except -1:
    return _grow(out, more) if out.size + more > out.room else 0


cdef inline int _put(Buffer *out, const char *text, Py_ssize_t size) except -1:
    _need(out, size)
    memcpy(out.data + out.size, text, size)
    out.size += size
    return 0


cdef int _put_digits(Buffer *out, uint64_t value, int least) except -1:
    """Decimal digits, at least so many."""
    cdef char digits[24]
    cdef int at = 24
    while value or 24 - at < least:
        at -= 1
        digits[at] = c'0' + <char>(value % 10)
        value = value // 10
    return _put(out, digits + at, 24 - at)


cdef int _put_hex(Buffer *out, uint64_t value) except -1:
    """Sixteen lower-case digits."""
    cdef char digits[16]
    cdef int i
    for i in range(16):
        digits[15 - i] = HEX[value & 15]
        value >>= 4
    return _put(out, digits, 16)


cdef int _put_percent(Buffer *out, const char *text, Py_ssize_t size, int times) except -1:
    """Percent-encodes all but the unreserved characters, so many times: one or two."""
    cdef Py_ssize_t i
    cdef uint8_t byte
    _need(out, (1 + 2 * times) * size)
    for i in range(size):
        byte = <uint8_t>text[i]
        if (
            48 <= byte <= 57 or 65 <= byte <= 90 or 97 <= byte <= 122
            or byte == 45 or byte == 46 or byte == 95 or byte == 126
        ):
            out.data[out.size] = <char>byte
            out.size += 1
        else:
            _put(out, b"%25", 3 if times == 2 else 1)
            out.data[out.size] = HEX_UPPER[byte >> 4]
            out.data[out.size + 1] = HEX_UPPER[byte & 15]
            out.size += 2
    return 0
