"""Compiled twin of `rtb.profiles.identity.keys_of`, whose file states the rules.

Plain identifiers are put together here; a request with an escaped or an overlong one is given to the
twin whole.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uintptr_t
from libc.string cimport memchr, memcpy

from records cimport ID_BUYERUID, ID_EID, ID_IFA, ID_USER, IDS_MAX, Facts, Identifier

from rtb.profiles import identity as rules

cdef int KEYS_MAX = rules.KEYS_MAX
cdef int KEY_BYTES_MAX = rules.KEY_BYTES_MAX


cdef inline void _lower(char *to, const char *text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        to[i] = text[i] + 32 if 65 <= text[i] <= 90 else text[i]


cdef inline bint _nobody(const char *ifa, Py_ssize_t size) noexcept nogil:
    """Whether a device id is zeros and dashes only."""
    cdef Py_ssize_t i
    for i in range(size):
        if ifa[i] != 48 and ifa[i] != 45:
            return False
    return True


cdef bytes _key(int kind, const char *text, Py_ssize_t size, const char *source,
                Py_ssize_t source_size, bytes exchange):
    """The key of one plain identifier, or None. The caller bounds its length."""
    cdef Py_ssize_t middle = 0
    cdef bytes key
    cdef char *to
    if kind == ID_USER:
        middle = PyBytes_GET_SIZE(exchange) + 1
    elif kind == ID_EID:
        if source_size == 0 or memchr(source, 58, source_size) != NULL:
            return None
        middle = source_size + 1
    elif kind == ID_IFA:
        if _nobody(text, size):
            return None
    elif kind != ID_BUYERUID:
        return None
    key = PyBytes_FromStringAndSize(NULL, 2 + middle + size)
    to = PyBytes_AS_STRING(key)
    to[1] = 58
    if kind == ID_BUYERUID:
        to[0] = 98
    elif kind == ID_USER:
        to[0] = 117
        memcpy(to + 2, PyBytes_AS_STRING(exchange), middle - 1)
        to[1 + middle] = 58
    elif kind == ID_IFA:
        to[0] = 105
        _lower(to + 2, text, size)
        return key
    else:
        to[0] = 101
        _lower(to + 2, source, source_size)
        to[1 + middle] = 58
    memcpy(to + 2 + middle, text, size)
    return key


def keys_of(opportunity, bytes exchange not None) -> list:
    """See `rtb.profiles.identity.keys_of`."""
    cdef uintptr_t address = opportunity.address
    cdef const Facts *facts = <const Facts *>address
    cdef bytes text = opportunity.text
    cdef const char *start = PyBytes_AS_STRING(text)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
    cdef Py_ssize_t room = KEY_BYTES_MAX - PyBytes_GET_SIZE(exchange) - 4
    cdef const Identifier *row
    cdef int i, kind, count = facts.head.ids_count
    cdef list keys = []
    if count <= 0:
        return keys
    if count > IDS_MAX:
        count = IDS_MAX
    for i in range(count):
        row = &facts.ids[i]
        if (
            row.off < 0 or row.len_ < 0 or row.source_off < 0 or row.source_len < 0
            or <Py_ssize_t>row.off + row.len_ > size
            or <Py_ssize_t>row.source_off + row.source_len > size
            or <Py_ssize_t>row.len_ + row.source_len > room
            or memchr(start + row.off, 92, row.len_) != NULL
            or memchr(start + row.source_off, 92, row.source_len) != NULL
        ):
            return rules.keys_of(opportunity, exchange)
    for kind in range(ID_BUYERUID, ID_EID + 1):
        for i in range(count):
            row = &facts.ids[i]
            if row.kind != kind or row.len_ == 0:
                continue
            key = _key(kind, start + row.off, row.len_, start + row.source_off, row.source_len,
                       exchange)
            if key is not None:
                keys.append(key)
                if len(keys) == KEYS_MAX:
                    return keys
    return keys
