# Native assets of one id: an answer names its assets by id, so it has one of each.


cdef inline int _first_of_id(const Facts *facts, const Imp *imp, int asset) noexcept nogil:
    """The first asset that a native request asks for by the id of this one."""
    cdef int i
    for i in range(imp.assets_start, asset):
        if facts.assets[i].id == facts.assets[asset].id:
            return i
    return asset


cdef inline bint _asks_the_same(const Asset *one, const Asset *other) noexcept nogil:
    """Whether what answers one of two assets of an id answers the other, required or not."""
    cdef Asset copy = one[0]
    copy.required = other.required
    return memcmp(&copy, other, sizeof(Asset)) == 0
