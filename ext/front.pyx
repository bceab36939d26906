"""Compiled twin of `rtb.server.front.Front`, which states the rules."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint32_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset

from time import monotonic_ns

from rtb.server import front as rules
from rtb.stores.board import Http

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event)
    int epoll_wait(int epfd, epoll_event *events, int maxevents, int timeout)

cdef extern from "<unistd.h>" nogil:
    int close(int fd)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_NOSIGNAL
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t recv(int fd, void *buffer, size_t size, int flags)
    ssize_t sendmsg(int fd, const msghdr *message, int flags)

cdef enum:
    EVENTS = 1024
    READ = 65536
    HEAD_MAX = 256
    DIGITS_MAX = 24

if EVENTS != rules.EVENTS_MAX or READ != rules.READ_BYTES:
    raise ImportError("the twins of the front do not read alike")

cdef Py_ssize_t HELD_BYTES_MAX = rules.HELD_BYTES_MAX
cdef int64_t HELD_NS_MAX = rules.HELD_NS_MAX
cdef Py_ssize_t SWEEP_SLICE = rules.SWEEP_SLICE
cdef bytes HEAD_OK = rules.HEAD_OK
cdef bytes HEAD_BAD = rules.HEAD_BAD
cdef bytes NO_CONTENT = rules.NO_CONTENT
cdef int LANE = Http.LANE
cdef object left_of = rules.Left
cdef object answer_bytes = rules.answer_bytes
cdef object never_later = rules.never_later

if max(len(HEAD_OK), len(HEAD_BAD)) + DIGITS_MAX > HEAD_MAX:
    raise ImportError("the head of an answer does not fit")


cdef class Connection:
    """As the twin's."""

    cdef object socket
    cdef bytes held
    cdef int64_t last_ns, since_ns

    def __init__(self, connected, int64_t now_ns):
        self.socket, self.held, self.last_ns, self.since_ns = connected, b"", now_ns, 0


cdef class Front:
    """As the twin."""

    cdef object bidder, clock, plain_bid, missing, leave, http, swift
    cdef dict connections, endpoints
    cdef list unseen
    cdef int epoll
    cdef char room[READ]
    cdef epoll_event ready[EVENTS]

    def __cinit__(self):
        self.epoll = -1

    def __init__(self, shared, leave):
        self.bidder, self.clock = shared.bidder, shared.clock
        self.plain_bid, self.missing, self.leave = shared.plain_bid, shared.missing, leave
        # Endpoints and their limits are those of the worker's start.
        self.endpoints = {
            name: (one, one.exchange.body_bytes_max) for name, one in self.bidder.endpoints.items()
        }
        self.http = self.bidder.meter.http
        self.swift = self.bidder.swift.answer if self.bidder.swift is not None else None
        self.connections, self.unseen = {}, []
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            raise OSError(errno, "epoll_create1")

    def __dealloc__(self):
        if self.epoll >= 0:
            close(self.epoll)

    def __len__(self):
        return len(self.connections)

    def fileno(self) -> int:
        """As the twin."""
        return self.epoll

    def adopt(self, connected) -> None:
        """As the twin."""
        cdef epoll_event event
        cdef int fd = connected.fileno()
        memset(&event, 0, sizeof(event))
        event.events = EPOLLIN
        event.data.fd = fd
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event):
            raise OSError(errno, "epoll_ctl")
        self.connections[fd] = Connection(connected, monotonic_ns())

    def turn(self) -> None:
        """As the twin."""
        cdef int i, count
        cdef int64_t started_ns = self.clock.arrival_ns(), turn_ns = self.clock.turn_ns
        count = epoll_wait(self.epoll, self.ready, EVENTS, 0)
        for i in range(count):
            self._read(self.ready[i].data.fd, started_ns, turn_ns)

    def sweep(self, int64_t now_ns, int64_t keep_ns) -> int:
        """As the twin."""
        cdef Connection one
        cdef int count = 0
        for fd, one in list(self.connections.items()):
            if one.held and now_ns - one.since_ns > HELD_NS_MAX:
                self._leave(fd, one.held, one.since_ns, b"")
        if not self.unseen:
            self.unseen = list(self.connections)
        some, self.unseen = self.unseen[:SWEEP_SLICE], self.unseen[SWEEP_SLICE:]
        for fd in some:
            one = self.connections.get(fd)
            if one is not None and not one.held and now_ns - one.last_ns > keep_ns:
                self._drop(fd)
                count += 1
        return count

    def close(self) -> None:
        """As the twin."""
        cdef Connection one
        for fd, one in list(self.connections.items()):
            if one.held:
                self._leave(fd, one.held, one.since_ns, b"")
            else:
                self._drop(fd)

    cdef int _read(self, int fd, int64_t started_ns, int64_t turn_ns) except -1:
        cdef Connection one = self.connections[fd]
        cdef ssize_t size = recv(fd, self.room, READ, 0)
        cdef bytes data
        if size <= 0:
            if size == 0 or (errno != EAGAIN and errno != EINTR):
                self._drop(fd)
            return 0
        data = PyBytes_FromStringAndSize(self.room, size)
        one.last_ns = started_ns
        if one.held:
            data, started_ns = one.held + data, one.since_ns
        return self._answer(fd, one, data, started_ns, turn_ns)

    cdef int _answer(
        self, int fd, Connection one, bytes data, int64_t started_ns, int64_t turn_ns
    ) except -1:
        cdef tuple plain = self.plain_bid(data), reply = None, found
        cdef Py_ssize_t start
        if plain is None:
            return self._hold(fd, one, data, started_ns)
        one.held = b""
        start = plain[1]
        found = self.endpoints.get(plain[0])
        if found is None or PyBytes_GET_SIZE(data) - start > <Py_ssize_t>found[1]:
            return self._leave(fd, data, started_ns, b"")
        self.http(LANE)
        if self.swift is not None:
            reply = self.swift(found[0], data, start, started_ns, turn_ns)
        if reply is None:
            reply = self.bidder.answer_by_steps(
                found[0], data, start, started_ns, turn_ns, never_later
            )
        return self._send(fd, reply)

    cdef int _hold(self, int fd, Connection one, bytes data, int64_t started_ns) except -1:
        cdef Py_ssize_t missing = self.missing(data)
        if 0 < missing <= HELD_BYTES_MAX - PyBytes_GET_SIZE(data):
            one.held, one.since_ns = data, started_ns
            return 0
        return self._leave(fd, data, started_ns, b"")

    cdef int _send(self, int fd, tuple reply) except -1:
        cdef char head[HEAD_MAX]
        cdef iovec parts[2]
        cdef msghdr message
        cdef bytes start, body = reply[1]
        cdef int status = reply[0]
        cdef ssize_t sent, whole
        cdef bint last = self.bidder.draining
        memset(&message, 0, sizeof(message))
        message.msg_iov, message.msg_iovlen = parts, 1
        if last or status == 204:
            body = answer_bytes(reply, True) if last else NO_CONTENT
            parts[0].iov_base, parts[0].iov_len = PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body)
            whole = parts[0].iov_len
        else:
            start = HEAD_OK if status == 200 else HEAD_BAD
            memcpy(head, PyBytes_AS_STRING(start), PyBytes_GET_SIZE(start))
            parts[0].iov_base = head
            parts[0].iov_len = PyBytes_GET_SIZE(start) + snprintf(
                head + PyBytes_GET_SIZE(start), DIGITS_MAX, b"%zd\r\n\r\n", PyBytes_GET_SIZE(body)
            )
            parts[1].iov_base, parts[1].iov_len = PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body)
            message.msg_iovlen = 2
            whole = parts[0].iov_len + parts[1].iov_len
        sent = sendmsg(fd, &message, MSG_NOSIGNAL)
        if sent == whole:
            return self._drop(fd) if last else 0
        if sent < 0 and errno != EAGAIN and errno != EINTR:
            return self._drop(fd)
        return self._leave(fd, b"", 0, answer_bytes(reply, last)[max(sent, 0):])

    cdef int _leave(self, int fd, bytes data, int64_t since_ns, bytes unsent) except -1:
        connected = self._forget(fd)
        self.leave(connected, left_of(data, since_ns, unsent))
        return 0

    cdef object _forget(self, int fd):
        cdef epoll_event event
        cdef Connection one = self.connections.pop(fd)
        epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, &event)
        return one.socket

    cdef int _drop(self, int fd) except -1:
        self._forget(fd).close()
        return 0
