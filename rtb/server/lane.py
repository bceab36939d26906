"""The fast lane: answers a whole, plain bid request or notice from the buffer it arrived in.

`LaneProtocol` is uvicorn's protocol with a door in front. What `server.head` accepts is answered
in `data_received`, with no task, no scope and no copy of the body. A plain request whose head is
whole and whose body comes in parts is held until it is whole. Anything else goes to the parent, and
the Starlette route (`server.app`) answers it. Both call `server.bid`, so both answer the same
bytes; the route is the reference.

It also holds what uvicorn does not bound: bytes and number of headers, and with its sweeper
(`server.connections`) time for a head and a body; and it tells a request's age apart from the time
it took.
"""

import asyncio
import re
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from rtb.server.bid import NS_PER_MS, Bidder, Reply
from rtb.server.chunks import ChunkSizes
from rtb.server.front import HEAD_END, Front, Left, answer_bytes
from rtb.server.head import HEAD_BYTES_MAX, plain_notice
from rtb.server.notices import Answer, NoticeDesk
from rtb.server.settings import Server
from rtb.stores.board import Http

if TYPE_CHECKING:
    from asyncio import Transport

PHRASES: Final = {int(status): status.phrase.encode() for status in HTTPStatus}
# We upgrade to nothing, so a wish to upgrade is ignored (RFC 9110 section 7.8); the parser would
# take what follows the head for another protocol.
VERSIONS: Final = ("1.1", "1.0")
UPGRADE: Final = re.compile(rb"\r\nupgrade(?=:)", re.IGNORECASE)
TOO_LARGE_HEAD: Final = b"\r\n".join(
    (
        b"HTTP/1.1 431 Request Header Fields Too Large",
        b"content-length: 0",
        b"connection: close",
        b"",
        b"",
    )
)
TOO_LARGE_BODY: Final = (
    b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)
TOO_SLOW: Final = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
# What may pile up behind a request that waits for its profile: a pipelining client's own doing.
BACKLOG_BYTES_MAX: Final = 262_144
HTTP_LANE = int(Http.LANE)  # a number costs nothing, an enum's member a look-up


class Clock:
    """When the requests of this turn of the loop arrived, as well as a process can know.

    The loop reads all ready sockets one after the other; the last of a turn waited for the others.
    When a turn begins right after the one before, its requests arrived at some time during that
    one, so they count as old as its start: under overload the age is never underestimated.

    Overload is judged by the turn itself: what it still holds after `shed_after_ms` of work is
    answered unread. So every turn serves a full share, however many requests it holds, and the
    next one begins soon. (Shedding by age alone starves: one long turn makes all of the next old.)
    """

    __slots__ = ("_ended_ns", "_loop", "lag_us_max", "started_ns", "turn_ns")

    # Turns that follow within this time leave the loop no idle moment.
    ADJACENT_NS: Final = 100_000

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ended_ns = 0
        self.turn_ns = 0  # start of this turn, or of the last one
        self.started_ns = 0  # earliest arrival of this turn's requests; 0: no turn is being read
        self.lag_us_max = 0

    def arrival_ns(self) -> int:
        """The time to count a request's age from."""
        if not self.started_ns:
            now_ns = time.monotonic_ns()
            busy = now_ns - self._ended_ns < self.ADJACENT_NS
            self.started_ns = self.turn_ns if busy else now_ns
            self.turn_ns = now_ns
            self._loop.call_soon(self._end)
        return self.started_ns

    def _end(self) -> None:
        self._ended_ns = time.monotonic_ns()
        self.started_ns = 0
        self.lag_us_max = max(self.lag_us_max, (self._ended_ns - self.turn_ns) // 1000)


class Shared:
    """What all connections of a worker share."""

    def __init__(
        self,
        settings: Server,
        bidder: Bidder,
        notices: NoticeDesk,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.settings = settings
        self.bidder = bidder
        self.notices = notices
        self.clock = Clock(loop)
        self.plain_bid, self.missing = bidder.kernels.plain_bid, bidder.kernels.missing
        self.body_bytes_max = max(
            (each.exchange.body_bytes_max for each in bidder.endpoints.values()), default=0
        )
        self.held_bytes_max = HEAD_BYTES_MAX + self.body_bytes_max
        self.connections: set[LaneProtocol] = set()
        self.front: Front | None = None  # what it holds is not in `connections`
        # Connections with a request of which only a part is here, for the sweeper.
        self.partial: set[LaneProtocol] = set()
        # uvicorn wants a class; this one knows its worker.
        self.protocol: type[LaneProtocol] = type("WorkerLane", (LaneProtocol,), {"shared": self})

    @property
    def open_count(self) -> int:
        """Connections that are open."""
        return len(self.connections) + (len(self.front) if self.front is not None else 0)


class LaneProtocol(HttpToolsProtocol):
    """One connection."""

    shared: Shared  # set on the subclass of each worker, see `Shared.protocol`

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.last_ns = time.monotonic_ns()
        self.left: Left | None = None  # by the front: what it had read and not written
        self.arrived_ns = 0  # first byte of the request that the parent works on
        self.waiting = False  # for a profile
        self.backlog = b""
        self.held: list[bytes] = []  # of a plain request whose body is not all here
        self.held_ns = 0  # its first byte
        self.to_come = 0  # bytes of it
        self.in_parent = False  # the parent has begun a request, and not ended it
        self.head_done = False
        self.head_bytes = 0
        self.body_since_ns = 0
        self.pipelined = 0
        self.body_begins = False  # in the segment that is read now
        self.chunks: ChunkSizes | None = None
        self.ended = False  # the client sends nothing more
        self.refused = False  # what came behind the last whole request is no request

    # -- connection -------------------------------------------------------------------------------

    def connection_made(self, transport: "Transport") -> None:  # type: ignore[override]
        shared = self.shared
        meter = shared.bidder.meter
        if self.left is None:
            if shared.open_count >= shared.settings.connections_max:
                meter.http(Http.REFUSED)
                self.transport = transport
                transport.abort()
                return
            meter.http(Http.ACCEPTED)
        shared.connections.add(self)
        super().connection_made(transport)
        if self.left is not None:
            self._take_over(self.left)

    def _take_over(self, left: Left) -> None:
        """Goes on where the front stopped."""
        if left.unsent:
            self.transport.write(left.unsent)
            if self.shared.bidder.draining:
                self.transport.close()
        if left.data:
            self.held_ns = left.since_ns
            self.data_received(left.data)
            if not self.held:
                self.held_ns = 0

    def connection_lost(self, exc: Exception | None) -> None:
        self.shared.connections.discard(self)
        self.shared.partial.discard(self)
        if self.flow is not None:
            super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has said all may still wait for answers; then the connection stays open
        for as long as they take."""
        self.ended = True
        is_whole = self.pipelined > 1 or self not in self.shared.partial
        return self.waiting or (self.in_parent and is_whole)

    def _end(self) -> None:
        """Closes behind the last answer to a client that sends nothing more."""
        if self.ended and not self.waiting and not self.in_parent:
            self.transport.close()

    def shutdown(self) -> None:
        """Graceful shutdown: idle connections close, busy ones after their answer."""
        if not self.waiting and not self.to_come:
            super().shutdown()

    # -- bytes ------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        shared = self.shared
        if self.in_parent or self.waiting:
            self._more(data)
            return
        if self.to_come:
            self._hold(data)
            if self.to_come > 0:
                return
            data = self._whole()
        plain = shared.plain_bid(data)
        if plain is not None:
            bidder = shared.bidder
            endpoint = bidder.endpoints.get(plain[0])
            if endpoint is not None and len(data) - plain[1] <= endpoint.exchange.body_bytes_max:
                self.last_ns = started_ns = shared.clock.arrival_ns()
                if self.held_ns:
                    started_ns, self.held_ns = self.held_ns, 0
                bidder.meter.http(HTTP_LANE)
                reply = bidder.answer(
                    endpoint, data, plain[1], started_ns, shared.clock.turn_ns, self._later
                )
                if reply is None:
                    self.waiting = True
                else:
                    self._send(reply)
                return
        elif data.startswith(b"GET /n/"):
            target = plain_notice(data)
            if target is not None:
                self._notice(target)
                return
        elif 0 < (missing := shared.missing(data)) <= shared.held_bytes_max - len(data):
            self.to_come = missing + len(data)
            self._hold(data)
            return
        self._to_parent(data)

    def _hold(self, data: bytes) -> None:
        """Keeps a part of a plain request; the sweeper knows since when."""
        if not self.held:
            self.last_ns = self.shared.clock.arrival_ns()
            self.held_ns = self.held_ns or self.last_ns
            self.head_done, self.body_since_ns = True, self.held_ns
            self.shared.partial.add(self)
        self.held.append(data)
        self.to_come -= len(data)

    def _whole(self) -> bytes:
        """All parts of it, and whatever came behind it."""
        data = b"".join(self.held)
        self.held.clear()
        self.to_come = 0
        self.shared.partial.discard(self)
        return data

    def _notice(self, target: bytes) -> None:
        shared = self.shared
        self.last_ns = shared.clock.arrival_ns()
        shared.bidder.meter.http(HTTP_LANE)
        answer = shared.notices.answer(target, time.time_ns() // NS_PER_MS, self._noted)
        if answer is None:
            self.waiting = True
        else:
            self._send_answer(answer)

    def _noted(self, answer: Answer) -> None:
        """The answer to a notice that waited for the disk."""
        self.waiting = False
        if not self.transport.is_closing():
            self._send_answer(answer)
            self._go_on()

    def _send_answer(self, answer: Answer) -> None:
        last = self.shared.bidder.draining
        lines = [b"HTTP/1.1 %d %b" % (answer.status, PHRASES[answer.status])]
        lines += [b"%b: %b" % header for header in answer.headers]
        if answer.status != 204:
            lines.append(b"content-length: %d" % len(answer.body))
        if last:
            lines.append(b"connection: close")
        self.transport.write(b"\r\n".join(lines) + HEAD_END + answer.body)
        if last:
            self.transport.close()

    def _send(self, reply: Reply) -> None:
        last = self.shared.bidder.draining
        self.transport.write(answer_bytes(reply, last))
        if last:
            self.transport.close()

    def _later(self, reply: Reply) -> None:
        """The answer of a request that waited for its profile."""
        self.waiting = False
        if self.transport.is_closing():
            return
        self._send(reply)
        self._go_on()

    def _go_on(self) -> None:
        """Answers what came behind the request that waited."""
        if self.transport.is_closing():
            return
        backlog, self.backlog = self.backlog, b""
        if backlog:
            self.data_received(backlog)
        self._end()

    def _more(self, data: bytes) -> None:
        if self.in_parent:
            self._to_parent(data)
            return
        self.backlog += data
        if len(self.backlog) > BACKLOG_BYTES_MAX:
            self.transport.abort()

    # -- the parent's requests --------------------------------------------------------------------

    def _to_parent(self, data: bytes) -> None:
        if self.refused:
            return
        if not self.in_parent:
            self.in_parent = True
            self.head_done = False
            self.head_bytes = 0
            self.body_since_ns = 0
            self.arrived_ns = self.held_ns or self.shared.clock.arrival_ns()
            self.held_ns = 0
            self.last_ns = self.arrived_ns
            self.shared.partial.add(self)
        if not self.head_done:
            self.head_bytes += len(data)
            # A head that is not over by now is too long, whatever the body would have been.
            if self.head_bytes > self.shared.settings.head_bytes_max and not self._head_ends(data):
                self._refuse_head()
                return
            head, end, body = data.partition(HEAD_END)
            data = UPGRADE.sub(rb"\r\nx-upgrade", head) + end + body
            self.body_begins = bool(end)
        else:
            body, self.body_begins = data, False
        super().data_received(data)
        if self.chunks is not None and self.chunks.feed(body):
            self._refuse(TOO_LARGE_BODY, Http.BODY_TOO_LARGE)

    def _head_ends(self, data: bytes) -> bool:
        limit = self.shared.settings.head_bytes_max
        return self.head_bytes == len(data) and 0 <= data.find(b"\r\n\r\n") <= limit

    def _refuse_head(self) -> None:
        self._refuse(TOO_LARGE_HEAD, Http.HEAD_TOO_LARGE)

    def _refuse(self, answer: bytes, event: Http) -> None:
        """Ends a connection with an answer that the route knows nothing of."""
        self.shared.bidder.meter.http(event)
        answered = self.cycle is not None and self.cycle.response_started
        if answered or self.transport.get_write_buffer_size():
            self.transport.abort()  # whoever does not read either would keep it for ever
        elif not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def give_up(self) -> None:
        """Ends a connection whose request does not end."""
        self._refuse(TOO_SLOW, Http.TIMEOUTS)

    def send_400_response(self, msg: str) -> None:
        self.shared.bidder.meter.http(Http.BAD_HTTP)
        if self.transport.is_closing():
            return
        self.refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            cycle.keep_alive = False  # its answer is due first, and is the last
            self.shared.partial.discard(self)
        else:
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.pipelined += 1
        if self.pipelined > 1:  # behind another: `_to_parent` saw the first one begin
            self.head_done, self.head_bytes = False, 0
            self.arrived_ns = self.shared.clock.arrival_ns()
            self.shared.partial.add(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self.shared.settings.headers_max and not self.transport.is_closing():
            self._refuse_head()

    def on_headers_complete(self) -> None:
        self.head_done = True
        self.body_since_ns = time.monotonic_ns()
        # Of a body whose first byte cannot be told, the sizes cannot be followed either.
        if self.body_begins and self.pipelined == 1 and _is_chunked(self.headers):
            self.chunks = ChunkSizes(self.shared.body_bytes_max)
        if self.transport.is_closing() or self.refused:
            return
        wrong = self._wrong_head()
        if wrong:
            self.send_400_response(wrong)
            return
        self.scope["rtb.arrived_ns"] = self.arrived_ns  # type: ignore[typeddict-unknown-key]
        self.shared.bidder.meter.http(Http.ROUTE)
        super().on_headers_complete()
        if self.shared.bidder.draining and self.cycle is not None:
            self.cycle.keep_alive = False

    def _wrong_head(self) -> str:
        """What the parser lets pass and RFC 9112 does not (2.3, 3.2, 6.1); "" where it does."""
        version = self.parser.get_http_version()
        if version not in VERSIONS:
            return f"HTTP/{version} is not spoken here"
        if version == "1.0" and _is_chunked(self.headers):
            return "transfer-encoding in HTTP/1.0"
        return "a fragment in the request target" if b"#" in self.url else ""

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None and not self.refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self.shared.partial.discard(self)
        self.chunks = None
        if self.cycle is not None and not self.refused:
            self.shared.clock.arrival_ns()
            self.cycle.scope["rtb.turn_ns"] = self.shared.clock.turn_ns  # type: ignore[typeddict-unknown-key]
            super().on_message_complete()

    def on_response_complete(self) -> None:
        # With another request behind it, `cycle` is of that one, whose body may well be under way.
        is_last = self.pipelined <= 1
        self.pipelined -= 1
        self.last_ns = time.monotonic_ns()
        more_body = is_last and self.cycle is not None and self.cycle.more_body
        super().on_response_complete()
        # uvicorn's keep-alive timer is not needed: the sweeper looks after idle connections.
        self._unset_keepalive_if_required()
        if more_body and not self.transport.is_closing():
            # Answered before the body was over (too large): the rest of it is not worth reading.
            self.transport.close()
        if self.pipelined <= 0:
            self.pipelined = 0
            self.in_parent = False
            self._end()


def _is_chunked(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" for name, _ in headers)
