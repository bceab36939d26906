"""Open-loop load over keep-alive connections: requests leave when they are due, come what may.

A real exchange does not wait for a slow bidder. So the moments are drawn ahead (a Poisson stream),
every latency counts from the moment a request was due, and requests that find no free connection
wait in line, at most until their tmax. One connection carries one request at a time.

The protocol reads just as much HTTP/1.1 as answers to bid requests need.
"""

import asyncio
import gc
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec

from rtb.base.errors import ConfigError
from rtb.sim.alarm import Alarm
from rtb.sim.auction import (
    Ask,
    Invalid,
    Landscape,
    Loss,
    ask_of,
    decode_answer,
    judge,
    spend_micros,
)
from rtb.sim.tally import Tally

NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
# An answer that has not come by then never will: the connection is given up.
ANSWER_NS_MAX: Final = 2 * NS_PER_S
# After a refused connection the next attempt waits, so that a dead server is not flooded.
RECONNECT_NS: Final = 50 * NS_PER_MS
_SWEEP_S: Final = 0.1
_LATE_US: Final = 1000
# Sends of one turn of the loop: a generator that is behind must still read what comes back.
_BURST_MAX: Final = 32
# An answer larger than this is a fault of the bidder; it would only fill memory.
ANSWER_BYTES_MAX: Final = 4 << 20
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the bidder listens."""

    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> "Target":
        """The parts of a URL. Raises: ConfigError unless it is plain HTTP with a path."""
        try:
            parts = urlsplit(url)
            port = parts.port or 80
        except ValueError as error:
            raise ConfigError(f"not a URL: {url!r}: {error}") from error
        if parts.scheme != "http" or not parts.hostname or not parts.path:
            raise ConfigError(f"expected http://host:port/openrtb2/<exchange>/bid, got {url!r}")
        return cls(parts.hostname, port, parts.path)

    def message(self, body: bytes) -> bytes:
        """A bid request as it goes over the wire."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n"
            "Content-Type: application/json\r\nX-OpenRTB-Version: 2.6\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True, slots=True)
class Pool:
    """Requests ready to send, replayed in turn, and what the exchange remembers of each."""

    messages: list[bytes]
    asks: list[Ask]


def pool_of(bodies: Iterable[bytes], target: Target) -> Pool:
    """Raises: ConfigError when there is none, or one is no bid request."""
    messages: list[bytes] = []
    asks: list[Ask] = []
    for row, body in enumerate(bodies, 1):
        if not body.strip():
            continue
        try:
            asks.append(ask_of(body))
        except msgspec.MsgspecError as error:
            raise ConfigError(f"request {row}: {error}") from error
        messages.append(target.message(body))
    if not messages:
        raise ConfigError("no requests to send")
    return Pool(messages, asks)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast, how long, how wide. `seconds` 0 goes on until stopped."""

    rate: float
    seconds: float
    connections: int
    seed: int = 1


class _Connection(asyncio.Protocol):
    """One connection: at most one request in flight."""

    __slots__ = ("_buffer", "_load", "due_ns", "number", "sent_ns", "transport")

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._buffer = b""
        self.transport: asyncio.Transport | None = None
        self.number = -1  # of the request in flight
        self.due_ns = 0
        self.sent_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none by class, only by what they can do.
        self.transport = cast("asyncio.Transport", transport)
        self._load.opened(self)

    def send(self, number: int, due_ns: int, now_ns: int) -> None:
        assert self.transport is not None
        self.number, self.due_ns, self.sent_ns = number, due_ns, now_ns
        self.transport.write(self._load.pool.messages[number])

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        answer = read_answer(data)
        if answer is None:
            self._buffer = data
            if len(data) > ANSWER_BYTES_MAX:
                self.abort()
            return
        self._buffer = b""
        status, body, keep = answer
        self._load.answered(self, status, body, keep)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def read_answer(data: bytes) -> tuple[int, bytes, bool] | None:
    """Status, body and whether the connection stays, of one whole answer; None until it is whole.

    What is no HTTP answer has status 0.
    """
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return (0, b"", False) if len(data) > 65_536 else None
    if not data.startswith(b"HTTP/1.") or not data[9:12].isdigit():
        return 0, b"", False
    status = int(data[9:12])
    head = data[: head_end + 2]
    keep = _CLOSE.search(head) is None
    start = head_end + 4
    if status in (204, 304):
        return status, b"", keep
    length = _LENGTH.search(head)
    if length is not None:
        end = start + int(length[1])
        return (status, data[start:end], keep) if len(data) >= end else None
    if _CHUNKED.search(head) is not None:
        body = _unchunk(data, start)
        return None if body is None else (status, body, keep)
    return status, b"", False


def _unchunk(data: bytes, at: int) -> bytes | None:
    """The body of a chunked answer; None until it is whole. Broken sizes end it."""
    parts: list[bytes] = []
    while True:
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        try:
            size = int(data[at:line_end].split(b";")[0], 16)
        except ValueError:
            return b"".join(parts)
        if size <= 0:
            return b"".join(parts) if len(data) >= line_end + 4 else None
        at = line_end + 2 + size + 2
        if len(data) < at:
            return None
        parts.append(data[line_end + 2 : at - 2])


class Load:
    """One process's share of the load, on one event loop."""

    def __init__(self, target: Target, pool: Pool, pace: Pace) -> None:
        self.target, self.pool, self.pace = target, pool, pace
        self.tally = Tally()
        self.inflight = 0
        self._random = Random(f"load {pace.seed}")
        self._landscape = Landscape(pace.seed)
        self._free: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._opening = 0
        self._waiting: deque[tuple[int, int]] = deque()  # number, due
        self._next_number = 0
        self._due_ns = 0
        self._end_ns = 0
        self._no_connects_before_ns = 0
        self._ended = asyncio.Event()
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, begin: Callable[[], None] = lambda: None) -> float:
        """Sends until the time is over or `stop`, waits for the last answers; seconds of sending.

        Calls `begin` when connections stand and the clock starts.
        """
        loop = asyncio.get_running_loop()
        await self._warm(min(self.pace.connections, 8))
        begin()
        alarm = self._alarm = Alarm(loop, self._tick)
        # Collections would stop the generator for milliseconds; a run makes no cycles to collect.
        gc.collect()
        gc.freeze()
        gc.disable()
        sweeper = asyncio.create_task(self._sweep())
        started_ns = time.monotonic_ns()
        self._due_ns = started_ns
        limit_ns = round(self.pace.seconds * NS_PER_S) if self.pace.seconds else 1 << 62
        self._end_ns = started_ns + limit_ns
        alarm.set(started_ns)
        try:
            await self._ended.wait()
            sent_for_ns = time.monotonic_ns() - started_ns
            await self._drain()
        finally:
            gc.enable()
            gc.unfreeze()
            alarm.close()
            sweeper.cancel()
            self._stopping = True
            for connection in list(self._all):
                connection.abort()
        return min(sent_for_ns, limit_ns) / NS_PER_S

    def stop(self) -> None:
        """Ends sending as if the time were over."""
        self._end_ns = 0
        self._ended.set()

    # -- sending ----------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Sends everything that is due, and sets the alarm for what comes next."""
        now_ns = time.monotonic_ns()
        gap = self._random.expovariate
        mean_ns = NS_PER_S / self.pace.rate
        for _ in range(_BURST_MAX):
            if self._due_ns > now_ns:
                break
            if self._due_ns >= self._end_ns:
                self._ended.set()
                return
            self._fire(self._due_ns, now_ns)
            self._due_ns += int(gap(1.0) * mean_ns)
            now_ns = time.monotonic_ns()
        if self._due_ns >= self._end_ns:
            # Nothing more will be due; the clock still runs to its end.
            self._due_ns = self._end_ns
        self._alarm.set(self._due_ns)

    def _fire(self, due_ns: int, now_ns: int) -> None:
        tally = self.tally
        tally.counts["requests"] += 1
        lag_us = (now_ns - due_ns) // 1000
        tally.lag.add(lag_us)
        if lag_us > _LATE_US:
            tally.counts["late_sends"] += 1
        number = self._next_number
        self._next_number = number + 1 if number + 1 < len(self.pool.messages) else 0
        self.inflight += 1
        if self._free:
            self._free.pop().send(number, due_ns, now_ns)
            return
        self._waiting.append((number, due_ns))
        room = self.pace.connections - len(self._all) - self._opening
        allowed = room > 0 and now_ns >= self._no_connects_before_ns
        if allowed and self._opening < len(self._waiting):
            self._open()

    def _open(self) -> None:
        self._opening += 1
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(
                lambda: _Connection(self), self.target.host, self.target.port
            )
            self.tally.count("connects")
        except OSError:
            self._no_connects_before_ns = time.monotonic_ns() + RECONNECT_NS
            self.tally.reason("connection refused")
        finally:
            self._opening -= 1

    async def _warm(self, count: int) -> None:
        """A few connections before the clock starts. Raises: ConfigError when nobody listens."""
        await asyncio.gather(*(self._connect_first() for _ in range(count)))
        if not self._free:
            raise ConfigError(f"nobody listens at {self.target.host}:{self.target.port}")

    async def _connect_first(self) -> None:
        self._opening += 1
        await self._connect()

    # -- receiving --------------------------------------------------------------------------------

    def opened(self, connection: _Connection) -> None:
        """A new connection takes the request that waits longest."""
        if self._stopping:
            connection.abort()
            return
        self._all.add(connection)
        self._reuse(connection)

    def answered(self, connection: _Connection, status: int, body: bytes, keep: bool) -> None:
        """One whole answer came."""
        now_ns = time.monotonic_ns()
        number, due_ns, sent_ns = connection.number, connection.due_ns, connection.sent_ns
        connection.number = -1
        if keep:
            self._reuse(connection)
        else:
            connection.abort()
        if number < 0:
            self.tally.reason("answer without a request")
            return
        self.inflight -= 1
        tally = self.tally
        tally.counts["answers"] += 1
        latency_ns = now_ns - due_ns
        tally.latency.add(latency_ns // 1000)
        tally.service.add((now_ns - sent_ns) // 1000)
        ask = self.pool.asks[number]
        late = latency_ns > ask.tmax_ms * NS_PER_MS
        if late:
            tally.counts["timeouts"] += 1
        if status == 204:
            tally.counts["no_bids"] += 1
        elif status == 200:
            self._judge(ask, body, late)
        else:
            tally.counts["errors"] += 1
            tally.reason(f"HTTP status {status}" if status else "not an HTTP answer")

    def _judge(self, ask: Ask, body: bytes, late: bool) -> None:
        tally = self.tally
        try:
            answer = decode_answer(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            tally.counts["invalid"] += 1
            tally.reason(Invalid.NOT_JSON)
            return
        if not any(seat.bid for seat in answer.seatbid):
            tally.counts["no_bids"] += 1
            if answer.nbr is not None:
                tally.reason(f"nbr {answer.nbr}")
            return
        if late:
            tally.reason(Loss.LATE)
            return
        verdict = judge(ask, answer, self._landscape)
        tally.counts["bids"] += verdict.bids > 0
        tally.counts["valid_bids"] += verdict.bids
        tally.counts["wins"] += len(verdict.won)
        tally.counts["spend_micros"] += spend_micros(verdict.won)
        tally.counts["invalid"] += bool(verdict.faults)
        for word in (*verdict.losses, *verdict.faults):
            tally.reason(word)

    def lost(self, connection: _Connection) -> None:
        """A connection ended; what was in flight on it has no answer."""
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if connection.number >= 0:
            connection.number = -1
            self.inflight -= 1
            if not self._stopping:
                self.tally.count("errors")
                self.tally.reason("connection lost")

    def _reuse(self, connection: _Connection) -> None:
        """Gives a connection the next request in line that is still worth sending."""
        now_ns = time.monotonic_ns()
        while self._waiting:
            number, due_ns = self._waiting.popleft()
            if not self._expired(number, due_ns, now_ns):
                connection.send(number, due_ns, now_ns)
                return
        self._free.append(connection)

    def _expired(self, number: int, due_ns: int, now_ns: int) -> bool:
        """Drops a waiting request whose time is over: the exchange has gone on without us."""
        if now_ns - due_ns <= self.pool.asks[number].tmax_ms * NS_PER_MS:
            return False
        self.inflight -= 1
        self.tally.count("timeouts")
        self.tally.count("unsent")
        self.tally.latency.add((now_ns - due_ns) // 1000)
        return True

    async def _sweep(self) -> None:
        """Gives up answers that never come, and requests that wait for nobody."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            now_ns = time.monotonic_ns()
            for connection in [each for each in self._all if each.number >= 0]:
                if now_ns - connection.sent_ns > ANSWER_NS_MAX:
                    self._give_up(connection, now_ns)
            while self._waiting and self._expired(*self._waiting[0], now_ns):
                self._waiting.popleft()
            if self._waiting and not self._opening and len(self._all) < self.pace.connections:
                self._open()

    def _give_up(self, connection: _Connection, now_ns: int) -> None:
        connection.number = -1
        self.inflight -= 1
        self.tally.count("timeouts")
        self.tally.reason("no answer")
        self.tally.latency.add((now_ns - connection.due_ns) // 1000)
        connection.abort()

    async def _drain(self) -> None:
        """Waits for the last answers; the sweep gives up those that never come."""
        while self.inflight > 0:
            await asyncio.sleep(0.005)
