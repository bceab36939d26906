"""The front of a worker, both twins: what it answers itself, and what it leaves to the lane."""

import random
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from rtb._ext.front import Front as FastFront
from rtb.server.bid import Reply
from rtb.server.front import HELD_BYTES_MAX, HELD_NS_MAX, Front, Left, answer_bytes
from rtb.server.head import missing, plain_bid
from tests.server.conftest import plain

BODY_BYTES_MAX = 20_000
ANSWERS: dict[bytes, Reply] = {
    b'{"bid":1}': (200, b'{"id":"1"}'),
    b'{"bid":0}': (204, b""),
    b"{": (400, b'{"error":"short"}'),
}
BODY = next(iter(ANSWERS))


class Bidder:
    """Answers by heart, and notes since when each request has been under way."""

    def __init__(self) -> None:
        exchange = SimpleNamespace(body_bytes_max=BODY_BYTES_MAX)
        self.endpoints = {b"generic": SimpleNamespace(exchange=exchange)}
        self.meter = SimpleNamespace(http=self._count)
        self.swift = None
        self.draining = False
        self.since_ns: list[int] = []
        self.counted = 0

    def answer_by_steps(
        self, endpoint: Any, data: bytes, start: int, started_ns: int, turn_ns: int, later: Any
    ) -> Reply:
        """As `Bidder.answer_by_steps`."""
        self.since_ns.append(started_ns)
        return ANSWERS.get(data[start:], (200, data[start:]))

    answer = answer_by_steps

    def _count(self, what: int) -> None:
        self.counted += 1


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.turn_ns = time.monotonic_ns()

    def arrival_ns(self) -> int:
        """As `Clock.arrival_ns`."""
        return self.turn_ns


class Line:
    """One connection to a front: the client's end, and what was left of it."""

    def __init__(self, front: type[Front]) -> None:
        self.bidder, self.clock = Bidder(), Clock()
        shared = SimpleNamespace(
            bidder=self.bidder, clock=self.clock, plain_bid=plain_bid, missing=missing
        )
        self.left: list[Left] = []
        self._kept: list[socket.socket] = []
        self.front = front(shared, self._leave)  # type: ignore[arg-type]
        self.client, served = socket.socketpair()
        self.client.setblocking(False)
        served.setblocking(False)
        self.front.adopt(served)

    def _leave(self, connected: socket.socket, left: Left) -> None:
        self._kept.append(connected)
        self.left.append(left)

    def send(self, data: bytes) -> bytes:
        """What comes back at once."""
        self.client.sendall(data)
        self.front.turn()
        return self.read()

    def read(self) -> bytes:
        """What is there to read; b"" also when the connection has ended."""
        try:
            return self.client.recv(1_000_000)
        except BlockingIOError:
            return b""

    def is_open(self) -> bool:
        """Whether the client could still read something."""
        try:
            return self.client.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True

    def close(self) -> None:
        """Closes both ends."""
        self.front.close()
        for one in (self.client, *self._kept):
            one.close()


@pytest.fixture(params=[Front, FastFront], ids=["readable", "compiled"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    """A connection to each of the twins."""
    made = Line(request.param)
    yield made
    made.close()


@pytest.mark.parametrize("body", ANSWERS)
def test_whole_requests_are_answered_one_after_the_other(line: Line, body: bytes) -> None:
    """A whole, plain request is answered, and the connection stays."""
    for _ in range(3):
        assert answer_bytes(ANSWERS[body], False) == line.send(plain(body))
    assert (1, [], 3) == (len(line.front), line.left, line.bidder.counted)


@pytest.mark.parametrize("at", range(1, len(BODY)))
def test_a_body_in_two_parts_is_answered_when_whole(line: Line, at: int) -> None:
    """Its age counts from the first part."""
    began_ns = line.clock.turn_ns
    data = plain(BODY)
    cut = len(data) - at
    first = line.send(data[:cut])
    line.clock.turn_ns += 1_000
    second = line.send(data[cut:])
    line.send(data)

    assert (b"", answer_bytes(ANSWERS[BODY], False)) == (first, second)
    assert [began_ns, began_ns + 1_000] == line.bidder.since_ns
    assert [] == line.left


@pytest.mark.parametrize(
    "data",
    [
        b"GET /n/win/x HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x16\x03\x01\x00",
        plain(BODY)[:40],
        plain(BODY) + plain(BODY),
        plain(BODY) + b"G",
        plain(BODY, "/openrtb2/nobody/bid"),
        plain(BODY).replace(b"host: x", b"host: x\r\nexpect: 100-continue"),
        plain(b" " * (BODY_BYTES_MAX + 1)),
        plain(b" " * HELD_BYTES_MAX)[:-1],
    ],
    ids=["notice", "tls", "half a head", "two at once", "more", "no exchange", "expect",
         "too large", "a long body in parts"],
)  # fmt: skip
def test_whatever_is_not_plain_is_left_with_all_its_bytes(line: Line, data: bytes) -> None:
    """The lane gets the connection as if the front had never read of it."""
    since_ns = line.clock.turn_ns

    assert b"" == line.send(data)
    assert [Left(data, since_ns, b"")] == line.left
    assert 0 == len(line.front)
    assert line.is_open()


def test_who_hangs_up_is_forgotten(line: Line) -> None:
    """Also in the middle of a request."""
    line.send(plain(BODY)[:-1])
    line.client.close()
    line.front.turn()

    assert (0, []) == (len(line.front), line.left)


def test_an_answer_that_is_not_taken_is_left_unsent(line: Line) -> None:
    """Who does not read keeps the lane waiting, and gets every byte in the end."""
    body = b"x" * BODY_BYTES_MAX
    sent = 0
    while not line.left:
        line.client.sendall(plain(body))
        line.front.turn()
        sent += 1
    read = b""
    while some := line.read():
        read += some
    (left,) = line.left

    assert answer_bytes((200, body), False) * sent == read + left.unsent
    assert (b"", 0) == (left.data, len(line.front))


@pytest.mark.parametrize("body", ANSWERS)
def test_the_last_answer_of_a_drain_says_so(line: Line, body: bytes) -> None:
    """While the worker drains each connection gets its answer, and ends."""
    line.bidder.draining = True
    answer = line.send(plain(body))

    assert answer_bytes(ANSWERS[body], True) == answer
    assert b"connection: close" in answer
    assert (0, False) == (len(line.front), line.is_open())


def test_sweep_closes_who_is_idle_and_leaves_who_is_slow(line: Line) -> None:
    """An idle connection ends; one whose body does not come gets the lane's timeouts."""
    line.send(plain(BODY)[:-1])
    now_ns = line.clock.turn_ns
    keep_ns = 10 * HELD_NS_MAX
    early = line.front.sweep(now_ns + HELD_NS_MAX, keep_ns)
    late = line.front.sweep(now_ns + HELD_NS_MAX + 1, keep_ns)

    assert (0, 0, [Left(plain(BODY)[:-1], now_ns)]) == (early, late, line.left)


def test_sweep_keeps_who_was_heard_of(line: Line) -> None:
    """A connection ends `keep_ns` after its last request, not after it was made."""
    line.clock.turn_ns += 5_000_000_000
    line.send(plain(BODY))

    assert 0 == line.front.sweep(line.clock.turn_ns + 1_000, 1_000)
    assert 1 == line.front.sweep(line.clock.turn_ns + 1_001, 1_000)
    assert (0, False) == (len(line.front), line.is_open())


@pytest.mark.parametrize("begun", [False, True])
def test_close_leaves_what_is_under_way(line: Line, begun: bool) -> None:
    """At the end of a drain idle connections close; a request that has begun is still answered."""
    if begun:
        line.send(plain(BODY)[:-1])
    line.front.close()

    assert (int(begun), begun, 0) == (len(line.left), line.is_open(), len(line.front))


@pytest.mark.parametrize("seed", range(40))
def test_twins_do_the_same_with_any_pieces(seed: int) -> None:
    """A stream of requests and odd bytes, cut anywhere, gets the same answers and is left alike."""
    chance = random.Random(seed)
    parts = [*map(plain, ANSWERS), plain(BODY, "/openrtb2/nobody/bid"), b"\r\n", b"GET / HTTP/1.1"]
    weights = [30] * len(ANSWERS) + [1, 1, 1]
    stream = plain(BODY) + b"".join(chance.choices(parts, weights, k=30))
    cuts = chance.sample(range(len(plain(BODY)), len(stream)), 3) if seed % 2 else []
    ends = [at for at in range(len(stream)) if stream.startswith((b"POST", b"GET"), at)]
    pieces = sorted({0, *cuts, *ends, len(stream)})
    both = Line(Front), Line(FastFront)
    both[1].clock.turn_ns = both[0].clock.turn_ns
    for first, last in pairwise(pieces):
        answers = [one.send(stream[first:last]) for one in both]

        assert answers[0] == answers[1]
    assert both[0].left == both[1].left
    assert both[0].bidder.since_ns == both[1].bidder.since_ns
    assert len(both[0].bidder.since_ns) > 0
    for one in both:
        one.close()
