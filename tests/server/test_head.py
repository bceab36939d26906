"""The lane's gate: both twins accept the same plain requests, and nothing that is not plain."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtb._ext.head import missing as compiled_missing
from rtb._ext.head import plain_bid as compiled
from rtb.server.head import missing as readable_missing
from rtb.server.head import plain_bid as readable

BODY = b'{"id":"1"}'
LINE = b"POST /openrtb2/generic/bid HTTP/1.1\r\n"


def request(*headers: bytes, line: bytes = LINE, body: bytes = BODY, length: int = -1) -> bytes:
    """A request with these headers before its content-length."""
    size = b"%d" % (len(body) if length < 0 else length)
    lines = b"".join(header + b"\r\n" for header in headers)
    return line + b"host: x\r\n" + lines + b"content-length: " + size + b"\r\n\r\n" + body


PLAIN = {
    "smallest": request(),
    "usual": request(
        b"Content-Type: application/json; charset=utf-8", b"Connection: Keep-Alive",
        b"x-openrtb-version: 2.6", b"Accept-Encoding: gzip", b"User-Agent: a\tb",
    ),
    "empty-body": request(body=b""),
    "upper-host": request().replace(b"host", b"HOST"),
    "dash-in-name": request(line=b"POST /openrtb2/nbr-body/bid HTTP/1.1\r\n"),
}  # fmt: skip
ODD = {
    "chunked": request(b"Transfer-Encoding: chunked"),
    "gzip": request(b"Content-Encoding: gzip"),
    "expect": request(b"Expect: 100-continue"),
    "upgrade": request(b"Connection: Upgrade"),
    "close": request(b"Connection: close"),
    "http-1.0": request(line=b"POST /openrtb2/generic/bid HTTP/1.0\r\n"),
    "get": request(line=b"GET /openrtb2/generic/bid HTTP/1.1\r\n"),
    "query": request(line=b"POST /openrtb2/generic/bid?x=1 HTTP/1.1\r\n"),
    "absolute": request(line=b"POST http://h/openrtb2/generic/bid HTTP/1.1\r\n"),
    "no-name": request(line=b"POST /openrtb2//bid HTTP/1.1\r\n"),
    "upper-name": request(line=b"POST /openrtb2/Generic/bid HTTP/1.1\r\n"),
    "protobuf": request(b"Content-Type: application/x-protobuf"),
    "two-lengths": request(b"Content-Length: 10"),
    "split": request(length=11),
    "pipelined": request() + request(),
    "trailing-byte": request() + b"x",
    "no-length": LINE + b"host: x\r\n\r\n" + BODY,
    "negative-length": LINE + b"host: x\r\ncontent-length: -1\r\n\r\n",
    "plus-length": LINE + b"host: x\r\ncontent-length: +10\r\n\r\n" + BODY,
    "list-length": LINE + b"host: x\r\ncontent-length: 10, 10\r\n\r\n" + BODY,
    "huge-length": LINE + b"host: x\r\ncontent-length: 99999999\r\n\r\n" + BODY,
    "no-host": request().replace(b"host: x\r\n", b""),
    "two-hosts": request(b"Host: x"),
    "bare-lf": request().replace(b"\r\n", b"\n"),
    "folded": request(b"x: a\r\n b"),
    "space-before-colon": request(b"host : x"),
    "control": request(b"x: a\x01b"),
    "nul": request(b"x: a\x00b"),
    "bare-cr": request(b"x: a\rb"),
    "many-headers": request(*[b"x-%d: 1" % n for n in range(60)]),
    "long-head": request(b"x: " + b"a" * 5000),
    "no-colon": request(b"nonsense"),
    "cut-head": request()[:40],
    "cut-body": request()[:-9],
    "empty": b"",
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("plain_bid", [readable, compiled], ids=["readable", "compiled"])
def test_plain_requests_pass(plain_bid, name: str) -> None:  # type: ignore[no-untyped-def]
    """A whole plain request is found, with its exchange and where its body begins."""
    found = plain_bid(PLAIN[name])

    assert found is not None
    assert found[0] == (b"nbr-body" if name == "dash-in-name" else b"generic")
    assert (b"" if name == "empty-body" else BODY) == PLAIN[name][found[1] :]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("plain_bid", [readable, compiled], ids=["readable", "compiled"])
def test_odd_requests_go_to_the_parent(plain_bid, name: str) -> None:  # type: ignore[no-untyped-def]
    """Whatever needs understanding of HTTP is left to the parser that has it."""
    assert plain_bid(ODD[name]) is None


@pytest.mark.parametrize("missing", [readable_missing, compiled_missing])
def test_what_is_still_to_come(missing) -> None:  # type: ignore[no-untyped-def]
    """Bytes of the body, once the head is whole; nothing where the request is not plain."""
    whole = request()
    head = len(whole) - len(BODY)

    assert [0] * (head - 1) == [missing(whole[:at]) for at in range(1, head)]
    assert [*range(len(BODY), -1, -1)] == [
        missing(whole[:at]) for at in range(head, len(whole) + 1)
    ]
    found = {name: missing(odd) for name, odd in ODD.items()}
    assert {"split": 1, "cut-body": 9} == {name: count for name, count in found.items() if count}


@given(st.data())
def test_twins_agree_on_damaged_requests(data: st.DataObject) -> None:
    """Any bytes put anywhere are read alike by both."""
    whole = bytearray(data.draw(st.sampled_from([*PLAIN.values(), *ODD.values()])))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(whole)))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b":", b" ", b"\x00", b"\xff", b"9", b"a"])
        )

    assert readable(bytes(whole)) == compiled(bytes(whole))
    assert readable_missing(bytes(whole)) == compiled_missing(bytes(whole))


@given(st.binary(max_size=300))
@example(LINE)
@example(LINE + b"\r\n")
@example(LINE + b"content-length:\r\n\r\n")
def test_twins_agree_on_bytes(data: bytes) -> None:
    """Arbitrary bytes behind a good request line never confuse either."""
    assert readable(data) == compiled(data)
    assert readable(LINE + data) == compiled(LINE + data)
    assert readable_missing(LINE + data) == compiled_missing(LINE + data)
