"""The connections of a worker: who accepts them, and who closes those that are idle or slow."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from rtb.server.bid import NS_PER_MS
from rtb.server.front import EVENTS_MAX, SWEEP_SLICE, Front, Left
from rtb.server.lane import LaneProtocol, Shared
from rtb.stores.board import Gauge, Http

SWEEP_S: Final = 0.25


class Acceptor:
    """Accepts connections, many a turn, for the front; and for the lane what the front leaves.

    uvloop's own server accepts one connection a turn: under load, when turns are long, new
    connections would wait for seconds. Where profiles are asked for over the network answers come
    later, and all connections are the lane's.
    """

    # A turn spends at most about a millisecond on newcomers.
    PER_TURN: Final = 64

    def __init__(
        self,
        listener: socket.socket,
        shared: Shared,
        protocol: Callable[[], LaneProtocol],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._listener = listener
        self._shared = shared
        self._protocol = protocol
        self._loop = loop
        self._opening: set[asyncio.Task[Any]] = set()
        self._front: Front | None = None
        if shared.bidder.remote is None:
            self._front = shared.front = shared.bidder.kernels.front(shared, self._take_over)

    def open(self) -> None:
        """Begins to accept."""
        self._loop.add_reader(self._listener.fileno(), self._accept)
        if self._front is not None:
            self._loop.add_reader(self._front.fileno(), self._front.turn)

    def shut(self) -> None:
        """No more connections but those that are waiting: their requests may be on the way."""
        if self._listener.fileno() < 0:
            return
        self._loop.remove_reader(self._listener.fileno())
        while self._accept():
            pass
        self._listener.close()

    def close(self) -> None:
        """No more connections; those that are idle end, once what they sent is answered."""
        self.shut()
        if self._front is not None and len(self._front):
            for _ in range(0, len(self._front), EVENTS_MAX):
                self._front.turn()
            self._front.close()

    def _accept(self) -> bool:
        """Accepts some; whether there may be more."""
        for _ in range(self.PER_TURN):
            try:
                connection, _address = self._listener.accept()
            except OSError:
                # Nobody is left, or we are out of descriptors: then others close first.
                return False
            connection.setblocking(False)
            if self._front is None:
                self._open(connection, self._protocol)
            else:
                self._admit(self._front, connection)
        return True

    def _admit(self, front: Front, connection: socket.socket) -> None:
        shared = self._shared
        if shared.open_count >= shared.settings.connections_max:
            shared.bidder.meter.http(Http.REFUSED)
            connection.close()
            return
        shared.bidder.meter.http(Http.ACCEPTED)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        front.adopt(connection)

    def _take_over(self, connection: socket.socket, left: Left) -> None:
        def protocol() -> LaneProtocol:
            made = self._protocol()
            made.left = left
            return made

        self._open(connection, protocol)

    def _open(self, connection: socket.socket, protocol: Callable[[], LaneProtocol]) -> None:
        opening = self._loop.connect_accepted_socket(protocol, connection)
        task = self._loop.create_task(opening)
        self._opening.add(task)
        task.add_done_callback(self._opened)

    def _opened(self, task: "asyncio.Task[Any]") -> None:
        self._opening.discard(task)
        # A client that is gone before its connection is open is nobody's fault.
        if not task.cancelled():
            task.exception()


class Sweeper:
    """Closes connections that are idle or slow; a few times a second, in slices."""

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> None:
        self._shared = shared
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._idle: list[LaneProtocol] = []

    def start(self) -> None:
        self._timer = self._loop.call_later(SWEEP_S, self._sweep)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        now_ns = time.monotonic_ns()
        self._close_slow(now_ns)
        self._close_idle(now_ns)
        self._gauges()
        self.start()

    def _close_slow(self, now_ns: int) -> None:
        settings = self._shared.settings
        head_ns = settings.head_timeout_ms * NS_PER_MS
        body_ns = settings.body_timeout_ms * NS_PER_MS
        for connection in list(self._shared.partial):
            since_ns = connection.body_since_ns if connection.head_done else connection.arrived_ns
            if now_ns - since_ns > (body_ns if connection.head_done else head_ns):
                connection.give_up()
                self._shared.partial.discard(connection)

    def _close_idle(self, now_ns: int) -> None:
        keep_ns = self._shared.settings.keep_alive_s * 1000 * NS_PER_MS
        if not self._idle:
            self._idle = list(self._shared.connections)
        for connection in self._idle[:SWEEP_SLICE]:
            busy = connection.in_parent or connection.waiting or connection.to_come
            if not busy and now_ns - connection.last_ns > keep_ns:
                self._shared.bidder.meter.http(Http.IDLE_CLOSED)
                connection.transport.close()
        del self._idle[:SWEEP_SLICE]
        if self._shared.front is not None:
            for _ in range(self._shared.front.sweep(now_ns, keep_ns)):
                self._shared.bidder.meter.http(Http.IDLE_CLOSED)

    def _gauges(self) -> None:
        bidder, clock = self._shared.bidder, self._shared.clock
        meter = bidder.meter
        meter.gauge(Gauge.CONNECTIONS, self._shared.open_count)
        meter.gauge(Gauge.INFLIGHT, bidder.inflight)
        meter.gauge(Gauge.INFLIGHT_MAX, bidder.settings.inflight_max)
        meter.gauge(Gauge.LOOP_LAG_US, clock.lag_us_max)
        bidder.set_clock()
        meter.gauge(Gauge.HEARTBEAT_MS, time.time_ns() // NS_PER_MS)
        clock.lag_us_max = 0
