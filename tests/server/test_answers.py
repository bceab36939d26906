"""What exchanges get back: for other people's requests, however they are sent."""

import gzip
import json
import re
import socket
import time
import zlib
from pathlib import Path

import jsonschema
import pytest

from rtb.base.money import format_micros
from tests.server.conftest import Node, StartNode, plain, read_answer, split_answer

SHARED = Path(__file__).parents[3] / "shared"
REQUEST = {
    "id": "r-1",
    "at": 1,
    "imp": [
        {"id": "1", "bidfloor": 0.1, "banner": {"format": [{"w": 300, "h": 250}], "pos": 1}},
        {"id": "2", "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 30}},
    ],
    "site": {"domain": "www.example.com", "cat": ["IAB1"], "keywords": "shoes"},
    "device": {"devicetype": 2, "os": "Windows", "geo": {"country": "USA"}},
}
BODY = json.dumps(REQUEST).encode()
TEST_BODY = json.dumps(REQUEST | {"test": 1}).encode()  # has the same answer every time


def _corpus(name: str) -> list[bytes]:
    path = SHARED / "corpus" / name
    if not path.exists():
        pytest.skip("the corpus lies beside the checkout, and is not there")
    return gzip.decompress(path.read_bytes()).splitlines()


def _chunked(body: bytes, size: int) -> bytes:
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return (
        b"POST /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    )


def _encoded(body: bytes, encoding: bytes) -> bytes:
    return (
        b"POST /openrtb2/generic/bid HTTP/1.1\r\nhost: x\r\ncontent-encoding: %b\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (encoding, len(body), body)
    )


def _raw_deflate(body: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(body) + engine.flush()


def _every_way(body: bytes) -> dict[str, bytes]:
    """The same request, sent in every way that HTTP knows."""
    return {
        "plain": plain(body),
        "chunked": _chunked(body, 7),
        "one-chunk": _chunked(body, len(body)),
        "gzip": _encoded(gzip.compress(body), b"gzip"),
        "deflate": _encoded(zlib.compress(body), b"deflate"),
        "raw-deflate": _encoded(_raw_deflate(body), b"deflate"),
        "route": plain(body).replace(b"host: x", b"host: x\r\nte: trailers"),
    }


def unsigned(answer: bytes) -> bytes:
    """An answer but for what tells one bid from the next: tokens, ids and cachebusters."""
    answer = re.sub(rb"(/n/[a-zA-Z/]+/)[\w-]{107}", rb"\1-", answer)
    answer = re.sub(rb"(?<![0-9a-f])(?:[0-9a-f]{16})+(?![0-9a-f])", b"-", answer)
    return re.sub(rb"(?<!\d)(?:\d{10})+(?!\d)", b"-", answer)


@pytest.mark.parametrize("test", [0, 1])
def test_every_way_of_sending_gets_the_same_bytes(node: Node, test: int) -> None:
    """Plain, chunked, compressed and split requests are answered alike, head and body.

    A bid that can be paid for is another each time; one of a test is the same to the last byte.
    """
    ways = _every_way(json.dumps(REQUEST | {"test": test}).encode())
    answers = {name: node.raw(data) for name, data in ways.items()}
    for _ in range(0 if test else 50):
        # Between two leases another line item may step in.
        answers = {name: unsigned(node.raw(data)) for name, data in ways.items()}
        if len({split_answer(answer) for answer in answers.values()}) == 1:
            break

    assert 200 == split_answer(answers["plain"])[0]
    for name, answer in answers.items():
        head, _, body = answer.partition(b"\r\n\r\n")
        expected_head, _, expected_body = answers["plain"].partition(b"\r\n\r\n")
        assert expected_body == body, name
        assert sorted(expected_head.split(b"\r\n")) == sorted(head.split(b"\r\n")), name


def test_a_split_request_gets_the_same_bytes(node: Node) -> None:
    """A request that arrives in two pieces is answered as one that arrives whole."""
    data = plain(TEST_BODY)
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(data[:100])
        time.sleep(0.05)
        connection.sendall(data[100:])
        split = split_answer(read_answer(connection))
        connection.sendall(data)
        whole = split_answer(read_answer(connection))

    assert whole == split


def test_the_deadline_counts_from_the_first_byte(start_node: StartNode) -> None:
    """A sender that takes all the time itself gets a no-bid, not a late answer."""
    node = start_node(line_items=60, patient=False)
    data = plain(BODY)
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(data[:-1])
        time.sleep(0.1)
        connection.sendall(data[-1:])

        assert 204 == split_answer(read_answer(connection))[0]


def test_lane_and_route_agree_on_the_corpus(node: Node) -> None:
    """Every corpus request gets the same answer from the lane and from the route.

    They are tests, so that answers are equal to the last byte and depend on no budget.
    """
    routed = b"host: x\r\nte: trailers"
    with (
        socket.create_connection(("127.0.0.1", node.port), timeout=30) as lane,
        socket.create_connection(("127.0.0.1", node.port), timeout=30) as route,
    ):
        requests = [*_corpus("requests.jsonl.gz"), *_corpus("malformed.jsonl.gz")]
        for body in map(_as_test, requests):
            lane.sendall(plain(body))
            route.sendall(plain(body).replace(b"host: x", routed, 1))

            assert split_answer(read_answer(lane)) == split_answer(read_answer(route)), body[:200]


def _as_test(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body) | {"test": 1}).encode()
    except (ValueError, TypeError, RecursionError):
        return body


@pytest.fixture(scope="module")
def schema() -> jsonschema.protocols.Validator:
    path = SHARED / "protocol" / "schemas" / "openrtb-2.6-202606-bid-response.schema.json"
    if not path.exists():
        pytest.skip("the schemas lie beside the checkout, and are not there")
    return jsonschema.Draft202012Validator(json.loads(path.read_text()))


def test_the_corpus_is_answered(node: Node, schema: jsonschema.protocols.Validator) -> None:
    """All corpus requests get 200 or 204; every 200 is valid and pairs with its request."""
    bids = 0
    for body in _corpus("requests.jsonl.gz"):
        status, answer = node.post(body)
        assert status in (200, 204), body[:300]
        if status == 200:
            response = json.loads(answer)
            assert [] == list(schema.iter_errors(response))
            bids += _pairs(json.loads(body), response)
    assert bids > 100


def _pairs(request: dict, response: dict) -> int:
    """Asserts that a response answers its request; returns the number of bids."""
    assert str(request["id"]) == response["id"]
    allowed = [code for code in request.get("cur") or [] if isinstance(code, str)]
    assert not allowed or response["cur"] in allowed
    imps = {str(imp["id"]): imp for imp in request["imp"]}
    count = 0
    for seatbid in response["seatbid"]:
        for bid in seatbid["bid"]:
            count += 1
            imp = imps[bid["impid"]]
            assert bid["price"] > 0
            assert not set(bid.get("cat", [])) & set(request.get("bcat") or [])
            assert {1: "banner", 2: "video", 3: "audio", 4: "native"}[bid["mtype"]] in imp
            assert bid["adomain"]
            assert bid["crid"]
            for domain in bid["adomain"]:
                parents = {".".join(domain.split(".")[n:]) for n in range(domain.count(".") + 1)}
                assert not parents & set(request.get("badv") or [])
            deals = {deal["id"]: deal for deal in (imp.get("pmp") or {}).get("deals") or []}
            if "dealid" in bid:
                assert bid["dealid"] in deals
            elif response["cur"] == (imp.get("bidfloorcur") or "USD"):
                assert bid["price"] >= float(imp.get("bidfloor") or 0)
            if (imp.get("pmp") or {}).get("private_auction") == 1:
                assert "dealid" in bid
            if bid["mtype"] == 1:
                banner = imp["banner"]
                sizes = {(f.get("w"), f.get("h")) for f in banner.get("format") or []}
                sizes.add((banner.get("w"), banner.get("h")))
                flexible = any("wratio" in f for f in banner.get("format") or [])
                assert flexible or (bid["w"], bid["h"]) in sizes
            if bid["mtype"] in (2, 3):
                assert bid["dur"] > 0
                assert bid["protocol"] > 0
    return count


def test_the_malformed_corpus_is_refused_politely(node: Node) -> None:
    """Faulty requests get 200, 204 or 400, and a 400 says what is wrong and where."""
    for body in _corpus("malformed.jsonl.gz"):
        status, answer = node.post(body)
        assert status in (200, 204, 400), body[:300]
        if status == 400:
            assert "at `$" in json.loads(answer)["error"]


def test_truncation_at_every_byte(node: Node) -> None:
    """A request cut anywhere is a 400, never anything worse."""
    assert {400} == {node.post(BODY[:size])[0] for size in range(0, len(BODY), 3)}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 20_000,
        b'{"id":"1","imp":[' + b",".join([b'{"id":"1"}'] * 9000) + b"]}",
        b'{"id":"1","imp":[{"id":"1","bidfloor":1e400,"banner":{"w":300,"h":250}}]}',
        b'{"id":"1","imp":[{"id":"1","bidfloor":NaN,"banner":{"w":300,"h":250}}]}',
        b'{"id":"\\ud800","imp":[{"id":"1","banner":{"w":300,"h":250}}]}',
        b'\xff\xfe{"id":"1"}',
        b'\xef\xbb\xbf{"id":"1","imp":[{"id":"1","banner":{"w":300,"h":250}}]}',
        b'{"id":1e999,"imp":[]}',
        b'{"id":"a\\r\\nSet-Cookie: x","imp":[{"id":"1","banner":{"w":300,"h":250}}]}',
        b"null",
        b"0",
        b'""',
        b"{}",
        b'{"openrtb":{"ver":"3.0"}}',
    ],
    ids=range(15),
)
def test_hostile_bodies(node: Node, body: bytes) -> None:
    """Hostile bodies are answered 200, 204, 400 or 413, and the next request is served."""
    answer = node.raw(plain(body))

    assert split_answer(answer)[0] in (200, 204, 400, 413)
    assert b"\r\nSet-Cookie" not in answer
    assert 200 == node.post(BODY)[0]


def test_test_requests_bid_but_do_not_count(node: Node) -> None:
    """test=1 gets a bid, and no counter of bids moves."""
    before = node.metric("rtb_bids_total")
    status, _ = node.post(json.dumps(REQUEST | {"test": 1}).encode())

    assert 200 == status
    assert before == node.metric("rtb_bids_total")


def test_no_bid_styles(node: Node) -> None:
    """An exchange that asks for a reason gets a body with nbr, others an empty 204."""
    nothing = json.dumps(REQUEST | {"cur": ["XXX"]}).encode()
    status, answer = node.post(nothing, "/openrtb2/nbr-body/bid")

    assert (204, b"") == node.post(nothing)
    assert 200 == status
    assert {"id": "r-1", "seatbid": [], "nbr": 0} == json.loads(answer)


def test_unknown_exchange_and_method(node: Node) -> None:
    """What is not there is 404, what may not be done there is 405."""
    assert 404 == node.post(BODY, "/openrtb2/nobody/bid")[0]
    assert 405 == node.get("/openrtb2/generic/bid")[0]


def test_fixed_price_deal_is_bid_exactly(node: Node) -> None:
    """A deal of type 3 is answered with its floor, to the micro."""
    deal = {"id": "deal-1", "at": 3, "bidfloor": 1.234567}
    imp = REQUEST["imp"][0] | {"pmp": {"private_auction": 1, "deals": [deal]}}  # type: ignore[index]
    for number in range(20):
        status, answer = node.post(
            json.dumps(REQUEST | {"id": f"d{number}", "imp": [imp]}).encode()
        )
        if status == 200:
            assert f'"price":{format_micros(1_234_567)}'.encode() in answer
            return
    raise AssertionError("no line item bought the deal")
