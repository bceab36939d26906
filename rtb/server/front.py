"""In front of the lane: connections that send nothing but whole, plain bid requests.

A loop's transports are made for everything that a connection can do; an exchange's does one thing.
The front keeps such connections in an epoll of its own, which the loop watches as one descriptor,
and does for each what an answer takes: one read, one write. At the first thing that is not a plain
bid request, or cannot be answered by one write, it leaves the connection to the lane for good, with
all that was read of it. So it needs no rule of HTTP that the lane does not have.

`ext/front.pyx` is the compiled twin of `Front`.
"""

import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from rtb.stores.board import Http

if TYPE_CHECKING:
    from rtb.server.bid import Reply
    from rtb.server.lane import Shared

READ_BYTES: Final = 65_536
EVENTS_MAX: Final = 1_024
# A body in a few segments is waited for here. A longer one would be put together again with each of
# them, and a slow one needs the lane's timeouts.
HELD_BYTES_MAX: Final = 16_384
HELD_NS_MAX: Final = 250_000_000
# Idle connections looked at in one sweep: all 20,000 are seen within half a minute.
SWEEP_SLICE: Final = 200

HEAD_OK: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    b"x-openrtb-version: 2.6\r\ncontent-length: "
)
HEAD_BAD: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
    b"x-openrtb-version: 2.6\r\ncontent-length: "
)
NO_CONTENT: Final = b"HTTP/1.1 204 No Content\r\nx-openrtb-version: 2.6\r\n\r\n"
HEAD_END: Final = b"\r\n\r\n"
# While a worker drains, every answer is the last one of its connection, and says so.
LAST: Final = b"\r\nconnection: close"


class Left(NamedTuple):
    """A connection that the lane takes over.

    data: read and not answered, whose first byte came at `since_ns`; unsent: of the last answer
    """

    data: bytes = b""
    since_ns: int = 0
    unsent: bytes = b""


Leave = Callable[[socket.socket, Left], None]


def answer_bytes(reply: "Reply", last: bool) -> bytes:
    """A whole HTTP answer; last: nothing follows it on its connection."""
    status, body = reply
    if status == 204:
        return NO_CONTENT[: -len(HEAD_END)] + LAST + HEAD_END if last else NO_CONTENT
    head = HEAD_OK if status == 200 else HEAD_BAD
    return b"%b%d%b%b%b" % (head, len(body), LAST if last else b"", HEAD_END, body)


def never_later(reply: "Reply") -> None:
    """A front stands only where profiles are the node's own, and every answer comes at once."""
    raise AssertionError("an answer came later")


class Connection:
    """One exchange's."""

    __slots__ = ("held", "last_ns", "since_ns", "socket")

    def __init__(self, connected: socket.socket, now_ns: int) -> None:
        self.socket = connected
        self.last_ns = now_ns  # something came
        self.held = b""  # of a request whose body is not all here
        self.since_ns = 0  # its first byte


class Front:
    """The exchanges' connections of one worker."""

    def __init__(self, shared: "Shared", leave: Leave) -> None:
        """leave: takes a connection over; it is no longer the front's then."""
        self._shared, self._leave = shared, leave
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}
        self._unseen: list[int] = []  # by the sweep

    def __len__(self) -> int:
        return len(self._connections)

    def fileno(self) -> int:
        """Readable when `turn` has something to do."""
        return self._epoll.fileno()

    def adopt(self, connected: socket.socket) -> None:
        """Takes a connection that was just accepted and does not block."""
        fd = connected.fileno()
        self._connections[fd] = Connection(connected, time.monotonic_ns())
        self._epoll.register(fd, select.EPOLLIN)

    def turn(self) -> None:
        """Answers what came."""
        started_ns = self._shared.clock.arrival_ns()
        for fd, _events in self._epoll.poll(0, EVENTS_MAX):
            self._read(fd, self._connections[fd], started_ns)

    def sweep(self, now_ns: int, keep_ns: int) -> int:
        """Leaves slow bodies to the lane, closes who was idle for `keep_ns`; how many those are."""
        slow = [
            fd
            for fd, one in self._connections.items()
            if one.held and now_ns - one.since_ns > HELD_NS_MAX
        ]
        for fd in slow:
            one = self._forget(fd)
            self._leave(one.socket, Left(one.held, one.since_ns))
        if not self._unseen:
            self._unseen = list(self._connections)
        some = [self._connections.get(fd) for fd in self._unseen[:SWEEP_SLICE]]
        del self._unseen[:SWEEP_SLICE]
        idle = [one for one in some if one and not one.held and now_ns - one.last_ns > keep_ns]
        for one in idle:
            self._drop(one.socket.fileno())
        return len(idle)

    def close(self) -> None:
        """Ends idle connections; whose request is under way is the lane's to answer."""
        for fd, one in list(self._connections.items()):
            if one.held:
                self._forget(fd)
                self._leave(one.socket, Left(one.held, one.since_ns))
            else:
                self._drop(fd)

    def _read(self, fd: int, one: Connection, started_ns: int) -> None:
        try:
            data = one.socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self._drop(fd)
            return
        one.last_ns = started_ns
        if one.held:
            data, started_ns = one.held + data, one.since_ns
        self._answer(fd, one, data, started_ns)

    def _answer(self, fd: int, one: Connection, data: bytes, started_ns: int) -> None:
        shared = self._shared
        bidder = shared.bidder
        plain = shared.plain_bid(data)
        if plain is None:
            self._hold(fd, one, data, started_ns)
            return
        one.held = b""
        endpoint = bidder.endpoints.get(plain[0])
        if endpoint is None or len(data) - plain[1] > endpoint.exchange.body_bytes_max:
            self._forget(fd)
            self._leave(one.socket, Left(data, started_ns))
            return
        bidder.meter.http(Http.LANE)
        turn_ns = shared.clock.turn_ns
        reply = bidder.answer(endpoint, data, plain[1], started_ns, turn_ns, never_later)
        assert reply is not None
        self._send(fd, one, answer_bytes(reply, bidder.draining))

    def _hold(self, fd: int, one: Connection, data: bytes, started_ns: int) -> None:
        missing = self._shared.missing(data)
        if 0 < missing <= HELD_BYTES_MAX - len(data):
            one.held, one.since_ns = data, started_ns
        else:
            self._forget(fd)
            self._leave(one.socket, Left(data, started_ns))

    def _send(self, fd: int, one: Connection, answer: bytes) -> None:
        try:
            sent = one.socket.send(answer, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._drop(fd)
            return
        if sent < len(answer):
            self._forget(fd)
            self._leave(one.socket, Left(unsent=answer[sent:]))
        elif self._shared.bidder.draining:
            self._drop(fd)

    def _forget(self, fd: int) -> Connection:
        self._epoll.unregister(fd)
        return self._connections.pop(fd)

    def _drop(self, fd: int) -> None:
        self._forget(fd).socket.close()
