"""Compiled twin of `rtb.stores.journal`: the pen, `scan`, `find` and `crc32c`.

The pen needs no lock: each of its methods runs from start to end under the interpreter's lock.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.bytes cimport PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from rtb.base.errors import InvariantError, StoreError
from rtb.stores import journal as _twin

cdef extern from "crc32c.h" nogil:
    void crc32c_init(int hardware)
    uint32_t crc32c_byte(uint32_t state, uint8_t byte)
    uint32_t crc32c_words(uint32_t state, const uint8_t *at, size_t words)

cdef extern from *:
    """
    #include <sys/mman.h>
    #define STORE_WORD(at, word) __atomic_store_n((uint64_t *)(at), (word), __ATOMIC_RELEASE)
    """
    int madvise(void *at, size_t length, int advice) noexcept nogil
    void STORE_WORD(uint8_t *at, uint64_t word) noexcept nogil

crc32c_init(1)

cdef int64_t FRAMES_AT = _twin.FRAMES_AT
cdef uint64_t FRAME_MARK = _twin.FRAME_MARK
cdef int64_t BODY_BYTES_MAX = _twin.BODY_BYTES_MAX
cdef int KIND_MAX = _twin.KIND_MAX
cdef int64_t PAGE_BYTES = _twin.PAGE_BYTES
cdef int POPULATE_WRITE = _twin.POPULATE_WRITE
cdef enum:
    HEAD_BYTES = 16


def use_hardware(bint wanted):
    """Chooses the processor's checksum instruction, if it has one, or the tables."""
    crc32c_init(wanted)


def crc32c(data, uint32_t start=0) -> int:
    cdef const uint8_t[::1] view = data
    cdef size_t count = <size_t>view.shape[0]
    cdef size_t words = count >> 3
    cdef uint32_t state = ~start
    cdef size_t i
    if count == 0:
        return start
    state = crc32c_words(state, &view[0], words)
    for i in range(words << 3, count):
        state = crc32c_byte(state, view[i])
    return ~state


cdef inline int64_t frame_bytes(int64_t body_bytes) noexcept nogil:
    return HEAD_BYTES + ((body_bytes + 7) & -8)


cdef inline uint32_t checksum(uint64_t head, const uint8_t *frame, int64_t size,
                              uint32_t salt) noexcept nogil:
    """Of a frame whose head is `head`, whatever stands in its place."""
    cdef uint32_t state = ~salt
    head &= <uint64_t>0xFFFFFFFF00000000
    state = crc32c_words(state, <const uint8_t *>&head, 1)
    return ~crc32c_words(state, frame + 8, <size_t>((size - 8) >> 3))


cdef inline int64_t whole(const uint8_t *data, int64_t left, uint32_t salt) noexcept nogil:
    """Bytes of the frame at `data`; 0 when no whole and unharmed one starts there."""
    cdef uint64_t head
    cdef int64_t size
    if left < HEAD_BYTES:
        return 0
    memcpy(&head, data, 8)
    size = frame_bytes(<int64_t>(head >> 32 & 0xFFFF))
    if head >> 56 != FRAME_MARK or (head >> 48 & 0xFF) == 0 or size > left:
        return 0
    return size if checksum(head, data, size, salt) == <uint32_t>head else 0


cdef inline uint64_t sequence_of(const uint8_t *frame) noexcept nogil:
    cdef uint64_t sequence
    memcpy(&sequence, frame + 8, 8)
    return sequence


def scan(
    data, int64_t at, uint32_t salt, uint64_t expected, uint64_t last, uint64_t after,
    int64_t records_max, kinds=_twin.ALL_KINDS,
):
    cdef const uint8_t[::1] view = data
    cdef const uint8_t[::1] wanted = kinds
    cdef int64_t count = view.shape[0]
    cdef const uint8_t *frame
    cdef uint64_t head
    cdef int64_t size
    cdef list records = []
    if at < 0 or wanted.shape[0] <= KIND_MAX:
        raise IndexError(at)
    while at < count and expected <= last and records_max > 0:
        frame = &view[at]
        size = whole(frame, count - at, salt)
        if size == 0 or sequence_of(frame) != expected:
            break
        if expected > after:
            records_max -= 1
            memcpy(&head, frame, 8)
            if wanted[<Py_ssize_t>(head >> 48 & 0xFF)]:
                records.append((
                    expected,
                    <int>(head >> 48 & 0xFF),
                    PyBytes_FromStringAndSize(
                        <const char *>frame + HEAD_BYTES, <Py_ssize_t>(head >> 32 & 0xFFFF)
                    ),
                ))
        at += size
        expected += 1
    return records, at, expected


def find(data, int64_t at, uint32_t salt, uint64_t low, uint64_t high) -> int:
    cdef const uint8_t[::1] view = data
    cdef int64_t count = view.shape[0]
    if at < 0:
        raise IndexError(at)
    while at + HEAD_BYTES <= count:
        if whole(&view[at], count - at, salt) and low <= sequence_of(&view[at]) <= high:
            return at
        at += 8
    return -1


cdef class Pen:
    """Writes frames into mapped segments, and keeps a copy of each until the disk has it."""

    cdef readonly uint64_t last
    cdef readonly bint has_spare
    cdef Py_buffer view
    cdef Py_buffer next_view
    cdef bint has_view, stopped
    cdef uint32_t salt, next_salt
    cdef int64_t at
    cdef uint64_t first, rolls
    cdef uint8_t *fresh
    cdef uint8_t *held
    cdef int64_t fresh_bytes, held_bytes, backlog_bytes

    def __cinit__(self, int64_t backlog_bytes, uint64_t last):
        if backlog_bytes <= 0:
            raise InvariantError(f"a backlog of {backlog_bytes} bytes")
        self.fresh = <uint8_t *>malloc(<size_t>backlog_bytes)
        self.held = <uint8_t *>malloc(<size_t>backlog_bytes)
        if self.fresh is NULL or self.held is NULL:
            raise MemoryError
        self.backlog_bytes = backlog_bytes
        self.last = last
        self.first = last + 1
        self.stopped = True

    def __dealloc__(self):
        self._let_go()
        free(self.fresh)
        free(self.held)

    def append(self, int kind, body) -> int:
        cdef Py_buffer other
        if PyBytes_CheckExact(body):
            return self._append(kind, PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
        PyObject_GetBuffer(body, &other, PyBUF_SIMPLE)
        try:
            return self._append(kind, <const char *>other.buf, other.len)
        finally:
            PyBuffer_Release(&other)

    cdef uint64_t _append(self, int kind, const char *body, int64_t length) except? 0:
        cdef int64_t need = frame_bytes(length)
        cdef uint8_t *copy
        cdef uint64_t head
        if not 0 < kind <= 255 or length > BODY_BYTES_MAX:
            raise InvariantError(f"a record of kind {kind} with {length} bytes")
        if self.stopped:
            raise StoreError("the journal is stopped")
        if self.fresh_bytes + need > self.backlog_bytes:
            raise StoreError("the journal's disk is behind")
        if self.at + need > self.view.len:
            self._roll()
        copy = self.fresh + self.fresh_bytes
        head = <uint64_t>length << 32 | <uint64_t>kind << 48 | FRAME_MARK << 56
        memcpy(copy, &head, 8)
        self.last += 1
        memcpy(copy + 8, &self.last, 8)
        if length:
            memset(copy + need - 8, 0, 8)
            memcpy(copy + HEAD_BYTES, body, <size_t>length)
        self._write(copy, need)
        self.fresh_bytes += need
        return self.last

    cdef int _roll(self) except -1:
        if not self.has_spare:
            raise StoreError("the journal has no next segment")
        PyBuffer_Release(&self.view)
        self.view = self.next_view
        self.salt = self.next_salt
        self.at = FRAMES_AT
        self.first = self.last + 1
        self.rolls += 1
        self.has_spare = False
        return 0

    cdef inline void _write(self, uint8_t *copy, int64_t size) noexcept nogil:
        """Seals a frame with this segment's checksum and publishes it, head last."""
        cdef uint8_t *place = <uint8_t *>self.view.buf + self.at
        cdef uint64_t head
        memcpy(&head, copy, 8)
        head &= <uint64_t>0xFFFFFFFF00000000
        head |= checksum(head, copy, size, self.salt)
        memcpy(copy, &head, 8)
        memcpy(place + 8, copy + 8, <size_t>(size - 8))
        STORE_WORD(place, head)
        self.at += size

    def spare(self, segment, uint32_t salt):
        if self.has_spare:
            raise InvariantError("a second spare segment")
        PyObject_GetBuffer(segment, &self.next_view, PyBUF_WRITABLE)
        if self.next_view.len < FRAMES_AT + self.backlog_bytes:
            PyBuffer_Release(&self.next_view)
            raise InvariantError("a spare segment too small for any record")
        self.next_salt = salt
        self.has_spare = True

    def cut(self):
        if self.held_bytes == 0:
            self.held, self.fresh = self.fresh, self.held
            self.held_bytes, self.fresh_bytes = self.fresh_bytes, 0
        return self.last, self.rolls, self.first

    def ahead(self):
        cdef int64_t start = self.at & -PAGE_BYTES
        cdef int64_t end = self.at + self.held_bytes + PAGE_BYTES & -PAGE_BYTES
        cdef uint8_t *place = <uint8_t *>self.view.buf + start
        if not self.has_view:
            return
        end = min(end, self.view.len)
        # The thread that asks is the one that unmaps, so the pages stay while the lock is off.
        with nogil:
            madvise(place, <size_t>(end - start), POPULATE_WRITE)

    def release(self):
        self.held_bytes = 0

    def stop(self):
        self.stopped = True
        self._let_go()

    cdef void _let_go(self):
        if self.has_view:
            PyBuffer_Release(&self.view)
            self.has_view = False
        if self.has_spare:
            PyBuffer_Release(&self.next_view)
            self.has_spare = False

    def begin(self, segment, uint32_t salt):
        cdef int64_t need = FRAMES_AT + self.held_bytes + self.fresh_bytes
        if self.has_view:
            raise InvariantError("a segment begun before the last one was left")
        PyObject_GetBuffer(segment, &self.view, PyBUF_WRITABLE)
        if need > self.view.len:
            PyBuffer_Release(&self.view)
            raise InvariantError(f"a segment too small for {need} bytes")
        self.has_view = True
        self.salt = salt
        self.at = FRAMES_AT
        self.first = self.last + 1
        self._again(self.held, self.held_bytes)
        self._again(self.fresh, self.fresh_bytes)

    cdef void _again(self, uint8_t *frames, int64_t count) noexcept:
        cdef int64_t at = 0
        cdef int64_t size
        cdef uint64_t head
        while at < count:
            memcpy(&head, frames + at, 8)
            size = frame_bytes(<int64_t>(head >> 32 & 0xFFFF))
            self.first = min(self.first, sequence_of(frames + at))
            self._write(frames + at, size)
            at += size

    def go(self):
        if not self.has_view:
            raise InvariantError("a pen without a segment")
        self.held_bytes = self.fresh_bytes = 0
        self.stopped = False
