"""Open-loop load over keep-alive connections: requests leave when they are due, come what may.

A real exchange does not wait for a slow bidder. So the moments are drawn ahead (a Poisson stream),
every latency counts from the moment a request was due, and requests that find no free connection
wait in line, at most until their tmax. One connection carries one request at a time.

An auction is known by its serial number, which also says which request of the pool it sends.
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

import msgspec

from rtb.base.errors import ConfigError
from rtb.sim.alarm import Alarm
from rtb.sim.auction import (
    Answer,
    Ask,
    Invalid,
    Landscape,
    Loss,
    Verdict,
    decode_answer,
    judge,
    spend_micros,
    too_late,
)
from rtb.sim.channel import Channel
from rtb.sim.pool import Pool, Target
from rtb.sim.tally import Tally
from rtb.sim.wire import Reply

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


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast, how long, how wide. `seconds` 0 goes on until stopped."""

    rate: float
    seconds: float
    connections: int
    seed: int = 1


class Heard(NamedTuple):
    """An auction that is over: what was asked under which id, what was answered, what became."""

    serial: int
    number: int  # of the request in the pool
    sent_id: str
    answer: Answer
    verdict: Verdict


class _Connection(Channel):
    """A connection that carries bid requests."""

    __slots__ = ("_load", "due_ns", "sent_ns", "serial")

    def __init__(self, load: "Load") -> None:
        super().__init__()
        self._load = load
        self.serial = -1  # of the request in flight
        self.due_ns = 0
        self.sent_ns = 0

    def opened(self) -> None:
        self._load.opened(self)

    def send(self, serial: int, due_ns: int, now_ns: int) -> None:
        """One request of the pool."""
        self.serial, self.due_ns, self.sent_ns = serial, due_ns, now_ns
        self.write(self._load.message(serial))

    def answered(self, reply: Reply) -> None:
        self._load.answered(self, reply.status, reply.body, reply.keep)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)


class Load:
    """One process's share of the load, on one event loop."""

    def __init__(
        self,
        target: Target,
        pool: Pool,
        pace: Pace,
        heard: Callable[[Heard], None] = lambda heard: None,
        tally: Tally | None = None,
    ) -> None:
        """heard: told of every auction that had bids."""
        self.target, self.pool, self.pace = target, pool, pace
        self._heard = heard
        self.tally = tally or Tally()
        self.inflight = 0
        self._random = Random(f"load {pace.seed}")
        self._landscape = Landscape(pace.seed)
        self._free: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._opening = 0
        self._waiting: deque[tuple[int, int]] = deque()  # serial, due
        self._next_serial = 0
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

    def message(self, serial: int) -> bytes:
        """The request of an auction."""
        return self.pool.message(serial % len(self.pool), serial)

    def _ask(self, serial: int) -> Ask:
        return self.pool.asks[serial % len(self.pool)]

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
        serial = self._next_serial
        self._next_serial += 1
        self.inflight += 1
        if self._free:
            self._free.pop().send(serial, due_ns, now_ns)
            return
        self._waiting.append((serial, due_ns))
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
        serial, due_ns, sent_ns = connection.serial, connection.due_ns, connection.sent_ns
        connection.serial = -1
        if keep:
            self._reuse(connection)
        else:
            connection.abort()
        if serial < 0:
            self.tally.reason("answer without a request")
            return
        self.inflight -= 1
        tally = self.tally
        tally.counts["answers"] += 1
        latency_ns = now_ns - due_ns
        tally.latency.add(latency_ns // 1000)
        tally.service.add((now_ns - sent_ns) // 1000)
        late = latency_ns > self._ask(serial).tmax_ms * NS_PER_MS
        if late:
            tally.counts["timeouts"] += 1
        if status == 204:
            tally.counts["no_bids"] += 1
        elif status == 200:
            self._judge(serial, body, late)
        else:
            tally.counts["errors"] += 1
            tally.reason(f"HTTP status {status}" if status else "not an HTTP answer")

    def _judge(self, serial: int, body: bytes, late: bool) -> None:
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
        number = serial % len(self.pool)
        sent_id = self.pool.sent_id(number, serial)
        if late:
            verdict = too_late(answer)
            tally.reason(Loss.LATE)
        else:
            self._landscape.begin(serial)
            verdict = judge(self.pool.asks[number], answer, self._landscape, sent_id)
            self._count(verdict)
        self._heard(Heard(serial, number, sent_id, answer, verdict))

    def _count(self, verdict: Verdict) -> None:
        tally = self.tally
        tally.counts["bids"] += verdict.bids > 0
        tally.counts["valid_bids"] += verdict.bids
        tally.counts["wins"] += len(verdict.won)
        tally.counts["won_micros"] += spend_micros(verdict.won)
        tally.counts["invalid"] += bool(verdict.faults)
        for word in (*verdict.losses, *verdict.faults):
            tally.reason(word)

    def lost(self, connection: _Connection) -> None:
        """A connection ended; what was in flight on it has no answer."""
        self._all.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if connection.serial >= 0:
            connection.serial = -1
            self.inflight -= 1
            if not self._stopping:
                self.tally.count("errors")
                self.tally.reason("connection lost")

    def _reuse(self, connection: _Connection) -> None:
        """Gives a connection the next request in line that is still worth sending."""
        now_ns = time.monotonic_ns()
        while self._waiting:
            serial, due_ns = self._waiting.popleft()
            if not self._expired(serial, due_ns, now_ns):
                connection.send(serial, due_ns, now_ns)
                return
        self._free.append(connection)

    def _expired(self, serial: int, due_ns: int, now_ns: int) -> bool:
        """Drops a waiting request whose time is over: the exchange has gone on without us."""
        if now_ns - due_ns <= self._ask(serial).tmax_ms * NS_PER_MS:
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
            for connection in [each for each in self._all if each.serial >= 0]:
                if now_ns - connection.sent_ns > ANSWER_NS_MAX:
                    self._give_up(connection, now_ns)
            while self._waiting and self._expired(*self._waiting[0], now_ns):
                self._waiting.popleft()
            if self._waiting and not self._opening and len(self._all) < self.pace.connections:
                self._open()

    def _give_up(self, connection: _Connection, now_ns: int) -> None:
        connection.serial = -1
        self.inflight -= 1
        self.tally.count("timeouts")
        self.tally.reason("no answer")
        self.tally.latency.add((now_ns - connection.due_ns) // 1000)
        connection.abort()

    async def _drain(self) -> None:
        """Waits for the last answers; the sweep gives up those that never come."""
        while self.inflight > 0:
            await asyncio.sleep(0.005)
