"""Faults A1 to A10: what a client may do to the HTTP layer, and what it costs others."""

import gzip
import json
import os
import socket
import threading
import time
import zlib

import pytest

from tests.server.conftest import Node, StartNode, plain, read_answer, split_answer
from tests.server.test_answers import BODY, REQUEST, TEST_BODY

SLOW = "[server]\nhead_timeout_ms = 700\nbody_timeout_ms = 400\nkeep_alive_s = 1\n"


@pytest.fixture(scope="module")
def strict(start_node: StartNode) -> Node:
    """A node with short patience."""
    return start_node(config=SLOW)


def _closed_after(connection: socket.socket, seconds: float) -> float:
    """Seconds until the peer closes."""
    connection.settimeout(seconds)
    start = time.monotonic()
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - start


HALF_HEAD = b"POST /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\n"
HALF_BODY = HALF_HEAD + b"content-length: 100\r\n\r\n{"


@pytest.mark.parametrize(
    "begun",
    [b"P", HALF_HEAD, HALF_BODY, plain(TEST_BODY) + HALF_HEAD, plain(TEST_BODY) + HALF_BODY],
    ids=["byte", "head", "body", "head behind another", "body behind another"],
)
def test_slow_clients_are_closed(strict: Node, begun: bytes) -> None:
    """A request that is begun and not ended is closed within its time."""
    with socket.create_connection(("127.0.0.1", strict.port)) as connection:
        connection.sendall(begun)

        assert _closed_after(connection, 5) < 2.5


CHUNKED = HALF_HEAD + b"transfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("size", "status"),
    [(b"ffffffffffffffff", 413), (b"7fffffffffffffff;a=b", 413), (b"20001", 413), (b"ffff", 408)],
)
@pytest.mark.parametrize("cut", [0, 5, len(CHUNKED), len(CHUNKED) + 3])
def test_a_chunk_that_does_not_end_is_answered(
    strict: Node, size: bytes, status: int, cut: int
) -> None:
    """More than may come is refused when it is announced; what does not come is a timeout."""
    whole = CHUNKED + b"2\r\n{}\r\n" + size + b"\r\n{}"
    with socket.create_connection(("127.0.0.1", strict.port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in (whole[:cut], whole[cut:]):
            connection.sendall(part)
        answer = read_answer(connection)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close\r\n" in answer


def test_chunks_of_pipelined_requests_are_their_own(node: Node) -> None:
    """What is announced by one request is not counted for the next."""
    chunked = CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(TEST_BODY), TEST_BODY)
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(chunked * 2)
        received = b""
        while received.count(b',"cur":"USD"}') < 2:
            received += connection.recv(65536)
        assert 2 == received.count(b"HTTP/1.1 200 ")
        for _ in range(130):
            connection.sendall(chunked)
            assert 200 == split_answer(read_answer(connection))[0]


def test_trickling_does_not_help(strict: Node) -> None:
    """A head that comes byte by byte is closed as late as one that does not come."""
    with socket.create_connection(("127.0.0.1", strict.port), timeout=5) as connection:
        start = time.monotonic()
        closed = False
        while not closed and time.monotonic() - start < 5:
            try:
                connection.sendall(b"x")
            except OSError:
                closed = True
            time.sleep(0.05)

    assert closed
    assert time.monotonic() - start < 3


def test_idle_connections_are_kept_then_closed(strict: Node) -> None:
    """An idle connection lives for keep_alive_s, and not for ever."""
    with socket.create_connection(("127.0.0.1", strict.port), timeout=5) as connection:
        connection.sendall(plain(BODY))
        read_answer(connection)
        time.sleep(0.6)
        connection.sendall(plain(BODY))

        assert 200 == split_answer(read_answer(connection))[0]
        assert 0.5 < _closed_after(connection, 6) < 4


def test_keep_alive_serves_many_requests(node: Node) -> None:
    """One connection carries any number of requests, through the lane and the route by turns."""
    routed = plain(TEST_BODY).replace(b"host: x", b"host: x\r\nte: trailers")
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        for number in range(40):
            connection.sendall(routed if number % 3 else plain(TEST_BODY))
            assert 200 == split_answer(read_answer(connection))[0]


def test_pipelined_requests_are_answered_in_order(node: Node) -> None:
    """Two requests in one segment get two answers, the first one first."""
    bodies = [json.dumps(REQUEST | {"id": f"p{number}", "test": 1}).encode() for number in range(3)]
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(b"".join(plain(body) for body in bodies))
        received = b""
        end = time.monotonic() + 5
        while received.count(b'"bidid"') < 3 and time.monotonic() < end:
            received += connection.recv(65536)

    assert [0, 1, 2] == sorted(range(3), key=lambda n: received.index(b'"id":"p%d"' % n))


GET = b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        (plain(TEST_BODY), 1),
        (plain(TEST_BODY) * 3, 3),
        (GET % b"/status", 1),
        (GET % b"/metrics" + plain(TEST_BODY), 2),
        (plain(TEST_BODY) + plain(TEST_BODY)[:-1], 1),
        (plain(TEST_BODY)[:-1], 0),
        (HALF_HEAD, 0),
        (b"", 0),
    ],
    ids=["one", "three", "status", "mixed", "one and a half", "most of one", "half a head", "none"],
)
def test_who_says_no_more_still_gets_answers(strict: Node, data: bytes, answers: int) -> None:
    """A client may close its side once it has asked; the connection ends behind the last answer."""
    with socket.create_connection(("127.0.0.1", strict.port), timeout=5) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while more := connection.recv(65536):
            received += more

    assert answers == received.count(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("parts", [2, 3, 9])
def test_a_plain_request_in_parts_stays_in_the_lane(node: Node, parts: int) -> None:
    """Head and body written apart, as many clients do it, is answered as if it came at once."""
    whole = plain(TEST_BODY)
    head = whole.index(b"\r\n\r\n") + 4
    step = len(whole[head:]) // (parts - 1) + 1
    pieces = [whole[:head], *(whole[at : at + step] for at in range(head, len(whole), step))]
    routed = node.metric('rtb_http_total{event="route"}')
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(3):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.01)  # a segment of its own
            assert split_answer(node.raw(whole)) == split_answer(read_answer(connection))
    # Reading metrics is a request through the route as well.
    assert node.metric('rtb_http_total{event="route"}') - routed <= 2


@pytest.mark.parametrize("second", [plain(TEST_BODY), b""], ids=["bid", "chunked"])
def test_a_second_request_whose_body_comes_later(node: Node, second: bytes) -> None:
    """Behind a whole request the head of another: its body may come in a segment of its own."""
    body = second or plain(TEST_BODY).replace(
        b"content-length: %d" % len(TEST_BODY), b"transfer-encoding: chunked"
    ).replace(TEST_BODY, b"%x\r\n%b\r\n0\r\n\r\n" % (len(TEST_BODY), TEST_BODY))
    cut = body.index(b"\r\n\r\n") + 4
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(plain(TEST_BODY) + body[:cut])
        assert 200 == split_answer(read_answer(connection))[0]
        time.sleep(0.02)
        connection.sendall(body[cut:])

        assert 200 == split_answer(read_answer(connection))[0]
        connection.sendall(plain(TEST_BODY))
        assert 200 == split_answer(read_answer(connection))[0]


def test_what_follows_a_request_in_parts(node: Node) -> None:
    """A second request behind the rest of a body gets its own answer, and cut ones get none."""
    whole = plain(TEST_BODY)
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(whole[:-40])
        time.sleep(0.05)
        connection.sendall(whole[-40:] + whole)
        received = b""
        while received.count(b'"bidid"') < 2:
            received += connection.recv(65536)
        connection.sendall(whole[:-1])
        connection.shutdown(socket.SHUT_WR)

        assert b"" == connection.recv(65536)
    assert 2 == received.count(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("request_", "statuses"),
    [
        (b"POST /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"
         b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
        (b"POST /openrtb2/generic/bid HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
         {400}),
        (b"POST /openrtb2/generic/bid HTTP/1.1\r\ncontent-length: -2\r\n\r\n{}", {400}),
        (b"POST /openrtb2/generic/bid HTTP/1.1\nhost: x\ncontent-length: 2\n\n{}", {400}),
        (b"NONSENSE\r\n\r\n", {400}),
        (b"\x16\x03\x01\x02\x00\x01\x00", {0, 400}),
        (b"GET / HTTP/9.9\r\n\r\n", {400}),
        (plain(BODY).replace(b"HTTP/1.1", b"HTTP/2.0"), {400}),
        (plain(BODY).replace(b"HTTP/1.1", b"HTTP/0.9"), {400}),
        (CHUNKED.replace(b"HTTP/1.1", b"HTTP/1.0") + b"2\r\n{}\r\n0\r\n\r\n", {400}),
        (plain(BODY, "/openrtb2/generic/bid#a"), {400}),
        (b"GET /healthz HTTP/1.1\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", {431}),
        (b"GET /healthz HTTP/1.1\r\n" + b"x: 1\r\n" * 2_000 + b"\r\n", {431}),
        (b"GET /healthz HTTP/1.1\r\n" + b"x: 1\r\n" * 500 + b"\r\n", {431}),
        (HALF_HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff0\r\n{}", {400}),
        (HALF_HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", {400}),
        (HALF_HEAD + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
         b"2\r\n{}\r\n0\r\n\r\n", {400}),
        (plain(BODY).replace(b"host: x\r\n", b""), {400}),
        (plain(BODY).replace(b"host: x\r\n", b"Host: x\r\nhost: y\r\n"), {400}),
        (b"GET /n/imp/x HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", {400}),
        (b"GET /n/imp/x HTTP/1.1\r\n\r\n", {400}),
        (b"GET /healthz HTTP/1.0\r\n\r\n", {200}),
        (b"BREW /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\n\r\n", {400, 405}),
        (b"DELETE /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\n\r\n", {405}),
    ],
    ids=["cl-te", "two-cl", "negative-cl", "bare-lf", "nonsense", "tls", "version", "http-2.0",
         "http-0.9", "te-in-1.0", "fragment", "long-header", "many-headers", "headers",
         "huge-chunk", "te-gzip", "te-gzip-2", "no-host", "two-hosts",
         "two-hosts-notice", "no-host-notice", "http-1.0", "method", "delete"],
)  # fmt: skip
def test_framing(node: Node, request_: bytes, statuses: set[int]) -> None:
    """Bad framing is refused, smuggles nothing, and hurts no one else."""
    assert split_answer(node.raw(request_))[0] in statuses
    assert 200 == node.post(TEST_BODY)[0]


@pytest.mark.parametrize(
    "wrong",
    [b"NONSENSE\r\n\r\n", plain(BODY).replace(b"HTTP/1.1", b"HTTP/2.0"),
     plain(BODY, "/openrtb2/generic/bid#a"), plain(BODY).replace(b"host: x\r\n", b"")],
    ids=["nonsense", "http-2.0", "fragment", "no-host"],
)  # fmt: skip
@pytest.mark.parametrize("behind", [b"", plain(TEST_BODY)], ids=["last", "not last"])
def test_what_stands_before_a_wrong_request_is_answered(
    node: Node, wrong: bytes, behind: bytes
) -> None:
    """Whole requests get their answers, in order; then the connection ends."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(plain(TEST_BODY) + plain(TEST_BODY) + wrong + behind)
        received = b""
        while part := connection.recv(65536):
            received += part
    assert 2 == received.count(b"HTTP/1.1 200 OK")
    assert 2 == received.count(b'"seatbid"')


def test_what_is_no_http_is_counted_and_not_logged(node: Node) -> None:
    """Nobody fills the disk with lines about bytes that are no request."""
    logged = node.log.stat().st_size
    counted = node.metric('rtb_http_total{event="bad_http"}')
    answers = {split_answer(node.raw(b"what is this?\r\n\r\n"))[0] for _ in range(20)}

    assert ({400}, 20) == (answers, node.metric('rtb_http_total{event="bad_http"}') - counted)
    assert logged == node.log.stat().st_size


def test_no_second_request_is_smuggled(node: Node) -> None:
    """A request hidden in the body of an ambiguous one is never answered."""
    hidden = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = node.raw(
        b"POST /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n"
        b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n%b" % (5 + len(hidden), hidden)
    )

    assert 1 == answer.count(b"HTTP/1.1")


def _deflated_zeros(megabytes: int) -> bytes:
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b"0" * 1_000_000
    return b"".join(engine.compress(block) for _ in range(megabytes)) + engine.flush()


def test_compression_bomb(node: Node) -> None:
    """200 MB in 200 kB is refused with 413 after the first kilobytes of it."""
    bomb = _deflated_zeros(120)
    assert len(bomb) < 131_072
    rss = _rss_kb(node)
    head = (
        b"POST /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\n"
        b"content-length: %d\r\n\r\n" % len(bomb)
    )

    assert 413 == split_answer(node.raw(head + bomb))[0]
    assert _rss_kb(node) - rss < 6_000


def _rss_kb(node: Node) -> int:
    with open(f"/proc/{node.worker_pids()[0]}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        (b"gzip", b"not gzip at all", 400),
        (b"gzip", gzip.compress(BODY)[:-9], 400),
        (b"gzip", gzip.compress(BODY) + b"tail", 400),
        (b"gzip", gzip.compress(BODY[:9]) + gzip.compress(BODY[9:]), 200),
        (b"gzip", gzip.compress(BODY) + 20 * gzip.compress(b""), 400),
        (b"deflate", b"\x00\x01\x02", 400),
        (b"br", BODY, 415),
        (b"gzip, gzip", gzip.compress(BODY), 415),
    ],
    ids=["junk", "cut", "tail", "members", "many-members", "junk-deflate", "brotli", "nested"],
)
def test_encodings(node: Node, encoding: bytes, body: bytes, status: int) -> None:
    """What is not the compression it claims to be is the sender's fault, and said; gzip may have
    members."""
    request = (
        b"POST /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\ncontent-encoding: %b\r\n"
        b"content-length: %d\r\n\r\n%b" % (encoding, len(body), body)
    )

    assert status == split_answer(node.raw(request))[0]


def test_oversized_bodies(node: Node) -> None:
    """A body over the cap is 413, whether it is declared or comes in chunks without end."""
    big = b"x" * 131_073
    declared = (
        b"POST /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n{"
    )

    assert 413 == split_answer(node.raw(plain(big)))[0]
    assert 413 == split_answer(node.raw(declared))[0]
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(
            b"POST /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        sent = 0
        try:
            while sent < 50_000_000:
                connection.sendall(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
                sent += 0x8000
        except OSError:
            pass
        assert sent < 20_000_000


def test_a_slow_reader_hurts_only_itself(node: Node) -> None:
    """Clients that never read their answers do not stop others from getting theirs."""
    deaf = []
    try:
        for _ in range(20):
            connection = socket.create_connection(("127.0.0.1", node.port), timeout=5)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.sendall(plain(BODY))
            deaf.append(connection)
        assert 200 == node.post(TEST_BODY)[0]
    finally:
        for connection in deaf:
            connection.close()


def test_many_idle_connections(node: Node) -> None:
    """Five hundred idle connections cost nothing that a bid would notice, and all are freed."""
    idle = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(500)]
    assert 200 == node.post(TEST_BODY)[0]
    for connection in idle:
        connection.close()
    node.wait_for(lambda: node.metric("rtb_connections") < 50, 10)


def test_concurrent_clients_get_their_own_answers(node: Node) -> None:
    """Twenty clients at once each get the answer to their own request."""
    wrong: list[tuple[str, str]] = []

    def ask(client: int) -> None:
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as connection:
            for number in range(15):
                name = f"c{client}-{number}"
                body = json.dumps(REQUEST | {"id": name, "test": 1}).encode()
                connection.sendall(plain(body))
                found = json.loads(split_answer(read_answer(connection))[1])["id"]
                if found != name:
                    wrong.append((name, found))

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [] == wrong


@pytest.mark.parametrize("header", [b"Upgrade: h2c", b"upgrade: websocket", b"UPGRADE:h2c"])
def test_a_wish_to_upgrade_is_ignored(node: Node, header: bytes) -> None:
    """We speak HTTP/1.1 only: the request is answered as if it had not asked for another."""
    plainly = plain(TEST_BODY)
    asked = plainly.replace(b"host: x", b"host: x\r\nconnection: Upgrade\r\n" + header)

    assert split_answer(node.raw(plainly)) == split_answer(node.raw(asked))


def test_a_path_with_a_slash_too_many(node: Node) -> None:
    """No redirect: senders of bid requests do not follow them."""
    assert 404 == node.post(BODY, "/openrtb2/generic/bid/")[0]
