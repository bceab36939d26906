# Token hashes for compiled modules; `rtb/base/hashing.py` is the readable twin and says why.

from libc.math cimport floor
from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef inline uint64_t mix64(uint64_t value) noexcept nogil:
    value ^= value >> 33
    value *= 0xFF51AFD7ED558CCDULL
    value ^= value >> 33
    value *= 0xC4CEB9FE1A85EC53ULL
    return value ^ (value >> 33)


cdef inline uint64_t token_start(int dim) noexcept nogil:
    return (0xCBF29CE484222325ULL ^ <uint64_t>dim) * 0x100000001B3ULL


cdef inline uint64_t token_feed(uint64_t state, uint8_t byte) noexcept nogil:
    if 65 <= byte <= 90:
        byte |= 32
    return (state ^ byte) * 0x100000001B3ULL


cdef inline uint64_t token_end(uint64_t state) noexcept nogil:
    state = mix64(state)
    return state if state != 0 else 1


cdef inline uint64_t token_hash(int dim, const uint8_t *value, Py_ssize_t size) noexcept nogil:
    cdef uint64_t state = token_start(dim)
    cdef Py_ssize_t i
    for i in range(size):
        state = token_feed(state, value[i])
    return token_end(state)


cdef inline uint64_t union_hash(int union_dim, uint64_t token) noexcept nogil:
    cdef uint64_t found = mix64(token ^ (<uint64_t>union_dim * 0x9E3779B97F4A7C15ULL))
    return found if found != 0 else 1


cdef inline uint64_t cell_hash(double lat, double lon) noexcept nogil:
    """The grid cell of a place as a token."""
    cdef int64_t row = <int64_t>floor(lat * 2), column = <int64_t>floor(lon * 2)
    cdef uint64_t found
    while column < 0:
        column += 720
    while column >= 720:
        column -= 720
    found = mix64(<uint64_t>((row + 720) * 4096 + column) ^ 0xD1B54A32D192ED03ULL)
    return found if found != 0 else 1
