"""The generator against a small HTTP server that misbehaves in one way at a time."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.errors import ConfigError
from rtb.sim.load import Heard, Load, Pace
from rtb.sim.pool import Target, id_end, pool_of
from rtb.sim.tally import Tally
from rtb.sim.wire import read_answer

REQUEST = b'{"id":"r1","tmax":60,"cur":["USD"],"at":1,"imp":[{"id":"1","bidfloor":0.5}]}'
# Who waits longer for a connection than tmax is not sent at all: on a busy machine that is soon.
PATIENT = REQUEST.replace(b":60,", b":9000,")
BID = (
    b'{"id":"r1","cur":"USD","seatbid":[{"bid":[{"id":"b","impid":"1","price":500,'
    b'"adm":"<a>","mtype":1}]}]}'
)

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


def http(status: int, body: bytes = b"", head: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%s\r\n%s" % (status, len(body), head, body)


async def run(
    reply: Reply,
    rate: float = 300.0,
    seconds: float = 0.3,
    wide: int = 8,
    request: bytes = PATIENT,
) -> Tally:
    """The tally of a short load on a server that answers every request with `reply`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                await reply(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, RuntimeError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        target = Target("127.0.0.1", port, "/openrtb2/generic/bid")
        load = Load(target, pool_of([request], target, keep_ids=True), Pace(rate, seconds, wide))
        await load.run()
        assert 0 == load.inflight
    return load.tally


async def test_bids_are_auctioned() -> None:
    """Every answer with a bid over any rival wins its impression."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(http(200, BID))

    counts = (await run(reply)).counts

    assert counts["requests"] > 30
    assert counts["requests"] == counts["answers"] == counts["bids"] == counts["wins"]
    assert 0 == counts["errors"] + counts["timeouts"] + counts["invalid"]
    assert counts["requests"] * 500_000 == counts["won_micros"]


async def test_no_bids() -> None:
    """An empty 204 is a no-bid, and so is a body that says why."""
    numbers = iter(range(10**6))

    async def reply(writer: asyncio.StreamWriter) -> None:
        empty = next(numbers) % 2
        writer.write(b"HTTP/1.1 204 X\r\n\r\n" if empty else http(200, b'{"id":"r1","nbr":2}'))

    tally = await run(reply)

    assert tally.counts["requests"] == tally.counts["no_bids"]
    assert tally.reasons["nbr 2"] > 10


async def test_errors_and_nonsense() -> None:
    """A failing bidder is counted, not believed."""
    answers = [http(500, b"oops"), http(200, b"<html>"), b"SSH-2.0-x\r\n\r\n"]
    numbers = iter(range(10**6))

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(answers[next(numbers) % 3])

    tally = await run(reply)

    assert tally.counts["requests"] == tally.counts["answers"]
    assert {"HTTP status 500", "not a bid response", "not an HTTP answer"} == set(tally.reasons)
    assert tally.counts["requests"] == tally.counts["errors"] + tally.counts["invalid"]


async def test_late_answers_are_timeouts() -> None:
    """A bid after tmax is worth nothing, and the requests that wait behind it are charged too."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.08)
        writer.write(http(200, BID))

    tally = await run(reply, rate=100, wide=2, request=REQUEST)

    assert tally.counts["requests"] == tally.counts["timeouts"]
    assert 0 == tally.counts["wins"]
    assert tally.counts["unsent"] > 0
    # Two connections carry 25 a second; the rest queues, and its latency shows it.
    assert tally.latency.quantile_ms(0.5) > 60


async def test_a_broken_connection_is_an_error() -> None:
    """A bidder that hangs up is counted, and a new connection goes on."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.close()

    tally = await run(reply)

    assert tally.counts["errors"] > 10
    assert tally.counts["errors"] == tally.reasons["connection lost"]
    assert tally.counts["connects"] > 8


async def test_closing_after_each_answer_is_allowed() -> None:
    """`connection: close` costs a connection a request, not an error."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(http(200, BID, b"connection: close\r\n"))
        await writer.drain()
        writer.close()

    counts = (await run(reply)).counts

    assert counts["wins"] > 30
    # On a machine that stalls an answer may come too late to win.
    assert counts["answers"] - counts["timeouts"] <= counts["wins"] <= counts["answers"]
    assert 0 == counts["errors"]


async def test_answers_in_pieces() -> None:
    """Slow and chunked answers are put together."""
    body = b"%x\r\n%s\r\n%x;x=y\r\n%s\r\n0\r\n\r\n" % (10, BID[:10], len(BID) - 10, BID[10:])
    whole = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n" + body

    async def reply(writer: asyncio.StreamWriter) -> None:
        for start in range(0, len(whole), 60):
            writer.write(whole[start : start + 60])
            await writer.drain()

    counts = (await run(reply, rate=100)).counts

    assert counts["requests"] == counts["wins"] > 5


async def test_nobody_listens() -> None:
    """A port where nobody listens is told before any time is spent."""
    target = Target("127.0.0.1", 1, "/x")

    with pytest.raises(ConfigError, match="nobody listens"):
        await Load(target, pool_of([REQUEST], target), Pace(10, 1, 4)).run()


@pytest.mark.parametrize("url", ["https://a/b", "a.example", "http://a:99999/b", "http://h"])
def test_wrong_urls(url: str) -> None:
    """Only plain HTTP with a path is spoken."""
    with pytest.raises(ConfigError):
        Target.of(url)


async def test_no_id_is_sent_twice() -> None:
    """A pool of one request makes auctions of their own, and answers must name the right one."""
    told: list[Heard] = []
    sent: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                sent.append((await reader.readexactly(length)).split(b'"')[3])
                writer.write(http(200, BID.replace(b'"r1"', b'"%s"' % sent[-1], 1)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1], "/p")
        load = Load(target, pool_of([REQUEST], target, 3), Pace(200, 0.2, 4), told.append)
        await load.run()

    assert len(sent) == len(set(sent)) == load.tally.counts["wins"] == len(told) > 5
    assert {"r1.0300000000", "r1.0300000001"} <= {name.decode() for name in sent}
    assert [f"r1.03{each.serial:08x}" for each in told] == [each.sent_id for each in told]


@pytest.mark.parametrize(
    ("body", "end"),
    [
        (b'{"id":"r1","imp":[]}', 9),
        (b' { "id" : "a\\"b" }', 15),
        (b'{"imp":[{"id":"x"}],"site":{"id":"y"},"id":"z"}', 45),
        (b'{"x":"id","id":"z"}', 17),
        (b'{"imp":[{"id":"x"}]}', -1),
    ],
)
def test_where_the_id_is(body: bytes, end: int) -> None:
    """Ids of impressions and sites are not the request's, wherever that stands."""
    assert end == id_end(body)


def test_messages_keep_their_size() -> None:
    """Every sending has the length that its head promises."""
    target = Target.of("http://h:8080/openrtb2/adx/bid")
    pool = pool_of([REQUEST], target)
    sizes = {len(pool.message(0, serial)) for serial in (0, 1, 0xFFFFFFFF)}

    assert 1 == len(sizes)
    head, _, body = pool.message(0, 7).partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(body) in head
    assert "adx" == target.exchange
    assert "r1.0000000007" == pool.sent_id(0, 7)


def test_pools_hold_requests_only() -> None:
    """A line that is no request is named; blank lines are skipped."""
    target = Target.of("http://h:8080/p")
    pool = pool_of([b"\n", REQUEST], target, keep_ids=True)

    assert (1, target.message(REQUEST)) == (len(pool), pool.message(0, 5))
    with pytest.raises(ConfigError, match="request 2"):
        pool_of([REQUEST, b"{}"], target)
    with pytest.raises(ConfigError, match="no requests"):
        pool_of([], target)


@given(st.binary(max_size=200))
def test_any_bytes_are_read(data: bytes) -> None:
    """Whatever a server sends is an answer, part of one, or none: never a fault of ours."""
    for found in (read_answer(data), read_answer(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n")):
        assert found is None or 0 <= found[0] <= 999


@given(st.integers(0, len(http(200, BID)) - 1))
def test_a_part_is_no_answer(length: int) -> None:
    """An answer counts when its last byte is there."""
    assert read_answer(http(200, BID)[:length]) is None
    assert (200, BID, True, "") == read_answer(http(200, BID))
    moved = b"HTTP/1.1 302 Found\r\nLocation:  https://a.example/?b \r\nContent-Length: 0\r\n\r\n"
    assert (302, b"", True, "https://a.example/?b") == read_answer(moved)
