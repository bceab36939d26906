"""Sends notices to the bidder when they are due, until they are answered.

A few keep-alive connections a place, one request in flight on each. Everything is bounded: how many
notices wait, how often one is tried, how long an answer may take. What was answered 2xx or 3xx is
delivered, and what is delivered stands on the invoice; the rest is counted by what became of it.
"""

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from rtb.base.errors import ConfigError
from rtb.base.events import Kind
from rtb.sim.channel import Channel
from rtb.sim.notices import Notice, Part
from rtb.sim.shop import Order
from rtb.sim.tally import Tally
from rtb.sim.wire import Place, Reply, place_of

_TICK_S: Final = 0.005
_SWEEP_MS: Final = 100
_RECONNECT_S: Final = 0.05
# Sends of one turn of the loop: bid requests must not wait for notices.
_BURST_MAX: Final = 64
_SCHEME_CHARS: Final = len("https://")
_BACKOFF_MS: Final = (100, 200, 400, 800, 1000)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is sent, and how hard it is tried.

    connections   to each place
    waiting_max   notices that wait at once, about half a kB each; more are dropped and counted
    tries_max     of one notice: with the back-off, a dead bidder has half a minute to come back
    answer_ms_max after this the connection is given up, and the notice tried again
    drain_s       after the last auction, for what is under way
    """

    connections: int = 8
    waiting_max: int = 200_000
    tries_max: int = 30
    answer_ms_max: int = 2_000
    drain_s: float = 15.0


@dataclass(frozen=True, slots=True)
class Route:
    """Where notices go: to the place that their URL names, unless `base` is another.

    base, other: "http://host:port"; "" for `base` means the URL's own, `other` is the other node's.
    """

    base: str = ""
    other: str = ""


def now_ms() -> int:
    """The clock of notices."""
    return time.monotonic_ns() // 1_000_000


class _Line(Channel):
    """A connection that carries notices."""

    __slots__ = ("_office", "notice", "sent_ms")

    def __init__(self, office: "_Office") -> None:
        super().__init__()
        self._office = office
        self.notice: Notice | None = None
        self.sent_ms = 0

    def opened(self) -> None:
        self._office.opened(self)

    def send(self, notice: Notice, message: bytes) -> None:
        """One notice."""
        self.notice, self.sent_ms = notice, now_ms()
        self.write(message)

    def answered(self, reply: Reply) -> None:
        self._office.answered(self, reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._office.lost(self)


class _Office:
    """The connections to one place, and the notices that wait for one."""

    def __init__(self, courier: "Courier", place: Place, connections: int) -> None:
        self._courier, self._place, self._most = courier, place, connections
        self.waiting: deque[tuple[Notice, bytes]] = deque()
        self.lines: set[_Line] = set()
        self._free: list[_Line] = []
        self._opening = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._host = f" HTTP/1.1\r\nHost: {place.name}\r\n\r\n".encode()

    def post(self, notice: Notice, target: str) -> None:
        """Sends a notice now, or when a connection is free."""
        message = b"GET " + target.encode() + self._host
        if self._free:
            self._send(self._free.pop(), notice, message)
            return
        self.waiting.append((notice, message))
        if self._opening < len(self.waiting) and len(self.lines) + self._opening < self._most:
            self._open()

    def _send(self, line: _Line, notice: Notice, message: bytes) -> None:
        self._courier.sent(notice)
        line.send(notice, message)

    def _open(self) -> None:
        self._opening += 1
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while not self._courier.closed:
                try:
                    await loop.create_connection(lambda: _Line(self), *self._place)
                except OSError:
                    await asyncio.sleep(_RECONNECT_S)  # nobody is there: what waits goes on waiting
                    continue
                return
        finally:
            self._opening -= 1

    def opened(self, line: _Line) -> None:
        """A new connection takes what waits longest."""
        if self._courier.closed:
            line.abort()
            return
        self.lines.add(line)
        self._reuse(line)

    def answered(self, line: _Line, reply: Reply) -> None:
        """One whole answer came."""
        notice, line.notice = line.notice, None
        if reply.keep:
            self._reuse(line)
        else:
            line.abort()
        if notice is not None:
            self._courier.answered(notice, reply)

    def lost(self, line: _Line) -> None:
        """A connection ended; what was in flight on it has no answer."""
        self.lines.discard(line)
        if line in self._free:
            self._free.remove(line)
        notice, line.notice = line.notice, None
        if notice is not None:
            self._courier.answered(notice, Reply(0))
        if self.waiting and not self._opening and not self._courier.closed:
            self._open()

    def _reuse(self, line: _Line) -> None:
        if self.waiting:
            self._send(line, *self.waiting.popleft())
        else:
            self._free.append(line)

    def sweep(self, before_ms: int) -> None:
        """Gives up connections that have waited for an answer since before this."""
        for line in [each for each in self.lines if each.notice and each.sent_ms < before_ms]:
            line.abort()

    def close(self) -> None:
        """Hangs up."""
        for task in self._tasks:
            task.cancel()
        for line in list(self.lines):
            line.abort()


class Courier:
    """All notices of one process, on its event loop.

    billed: told of every notice that bills and was accepted, once a sale
    landed: what comes of a click that was sent on to a page
    """

    def __init__(
        self,
        tally: Tally,
        billed: Callable[[Notice], None],
        route: Route = Route(),
        limits: Limits = Limits(),
        landed: Callable[[Notice, str], Iterable[Notice]] = lambda click, page: (),
    ) -> None:
        """Raises: ConfigError for places that cannot be."""
        self._tally, self._billed, self._limits = tally, billed, limits
        self._landed = landed
        self._hurries = False
        self._base = place_of(route.base)[0] if route.base else None
        self._other = place_of(route.other)[0] if route.other else None
        self._heap: list[tuple[int, int, Notice]] = []
        self._count = 0
        self._flying = 0  # handed to an office, not answered
        self._offices: dict[Place, _Office] = {}
        self._places: dict[str, Place | None] = {}  # by what URLs begin with
        self._timer: asyncio.TimerHandle | None = None
        self._swept_ms = 0
        self.closed = False

    @property
    def pending(self) -> int:
        """Notices that wait or are on their way."""
        return len(self._heap) + self._flying

    def take(self, notices: Iterable[Notice]) -> None:
        """Will send these when they are due."""
        for notice in notices:
            if self.pending >= self._limits.waiting_max:
                self._tally.count("notices_dropped")
            else:
                self._push(notice)

    def start(self) -> None:
        """Begins to send; needs a running loop."""
        self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    async def drain(self) -> None:
        """Delivers what is under way: of a wait only what is on purpose goes on."""
        begun_ms = now_ms()
        self._hurries = True
        self._heap = [
            (min(due_ms, begun_ms + notice.held_ms), count, notice)
            for count, (due_ms, _, notice) in enumerate(sorted(self._heap, key=_order))
        ]
        self._count = len(self._heap)
        heapq.heapify(self._heap)
        until_ms = begun_ms + round(self._limits.drain_s * 1000)
        while self.pending and now_ms() < until_ms:
            await asyncio.sleep(_TICK_S)
        self._tally.count("notices_dropped", self.pending)

    def close(self) -> None:
        """Sends no more."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        for office in self._offices.values():
            office.close()

    # -- sending -----------------------------------------------------------------------------------

    def _push(self, notice: Notice) -> None:
        self._count += 1
        heapq.heappush(self._heap, (notice.due_ms, self._count, notice))

    def _tick(self) -> None:
        moment_ms, sent = now_ms(), 0
        while self._heap and self._heap[0][0] <= moment_ms and sent < _BURST_MAX:
            self._dispatch(heapq.heappop(self._heap)[2])
            sent += 1
        if moment_ms - self._swept_ms > _SWEEP_MS:
            self._swept_ms = moment_ms
            for office in self._offices.values():
                office.sweep(moment_ms - self._limits.answer_ms_max)
        again_s = _TICK_S if sent < _BURST_MAX else _TICK_S / 5
        self._timer = asyncio.get_running_loop().call_later(again_s, self._tick)

    def _dispatch(self, notice: Notice) -> None:
        end = notice.url.find("/", _SCHEME_CHARS)
        place = (self._other if notice.elsewhere else self._base) or self._own(notice.url[:end])
        if place is None:
            self._tally.count("notices_unsendable")
            return
        office = self._offices.get(place)
        if office is None:
            office = self._offices[place] = _Office(self, place, self._limits.connections)
        self._flying += 1
        office.post(notice, notice.url[end:])

    def _own(self, base: str) -> Place | None:
        """The place that URLs of a base name; None where that is not plain HTTP."""
        if base not in self._places:
            try:
                self._places[base] = place_of(base)[0]
            except ConfigError:
                self._places[base] = None
        return self._places[base]

    def sent(self, notice: Notice) -> None:
        """A notice went out."""
        notice.tries += 1
        self._tally.counts["notices_sent"] += 1

    # -- answers -----------------------------------------------------------------------------------

    def answered(self, notice: Notice, reply: Reply) -> None:
        """What the bidder said to a notice; status 0: nothing that could be read."""
        self._flying -= 1
        status = reply.status
        if 200 <= status < 400:
            self._delivered(notice)
            if notice.shopper is not None:
                self._follow(notice, reply.location)
        elif 400 <= status < 500:
            self._refused(notice, status)
        elif self.closed:
            return
        elif notice.tries >= self._limits.tries_max:
            self._tally.count("notices_failed")
        else:
            self._again(notice)

    def _follow(self, click: Notice, page: str) -> None:
        found = list(self._landed(click, page))
        if self._hurries:
            for notice in found:
                notice.due_ms = min(notice.due_ms, now_ms() + notice.held_ms)
        self.take(found)

    def _refused(self, notice: Notice, status: int) -> None:
        if notice.part is Part.FORGED:
            self._tally.count("forged_refused")
        elif notice.part is not Part.ALTERED:
            self._tally.count("notices_refused")
            self._tally.reason(f"notice {notice.kind.name.lower()} status {status}")

    def _again(self, notice: Notice) -> None:
        """A notice that was not answered, or by a bidder who could not take it, is tried again."""
        self._tally.count("notices_retried")
        wait_ms = _BACKOFF_MS[min(notice.tries, len(_BACKOFF_MS)) - 1]
        notice.due_ms = now_ms() + wait_ms
        self._push(notice)

    def _delivered(self, notice: Notice) -> None:
        tally = self._tally
        tally.counts["notices_delivered"] += 1
        if notice.part is Part.FORGED:
            tally.count("forged_accepted")
        if notice.part is Part.GENUINE and notice.kind in _COUNTED:
            tally.counts[_COUNTED[notice.kind]] += 1
        sale = notice.sale
        if sale is not None and not sale.billed:
            sale.billed = True
            self._billed(notice)
        if notice.order is not None and notice.part is not Part.FORGED:
            self._ordered(notice.order)

    def _ordered(self, order: Order) -> None:
        """A conversion that the bidder took, once."""
        if order.is_told:
            return
        order.is_told = True
        self._tally.count("conversions")
        if order.value_micros:
            ordered = self._tally.ordered
            ordered[order.currency] = ordered.get(order.currency, 0) + order.value_micros


_COUNTED: Final = {
    Kind.IMPRESSION: "impressions", Kind.VIEW: "views", Kind.CLICK: "clicks",
    Kind.VIDEO: "video_events",
}  # fmt: skip


def _order(entry: tuple[int, int, Notice]) -> tuple[int, int]:
    return entry[:2]
