"""Is what lies in the buffer one whole, plain bid request? The lane's gate, readable twin.

A request is *plain* when the fast lane can answer it without understanding HTTP any further: one
`POST /openrtb2/<name>/bid HTTP/1.1` with one `host`, a `content-length` body that is complete, and
nothing behind it. Everything else (chunked, compressed, pipelined, upgrades, odd headers,
anything malformed) is None here, and the parent protocol and the Starlette route deal with it. So
this function may refuse freely, and must accept only what every HTTP parser reads the same way.

The GET of a notice is plain likewise, when nothing follows its head; expressions are quick enough
for the few that come.

`ext/head.pyx` is the compiled twin of `plain_bid` and `missing`.
"""

import re
from typing import Final

PREFIX: Final = b"POST /openrtb2/"
SUFFIX: Final = b"/bid HTTP/1.1"
# Longer heads are real, but rare enough for the reference path.
HEAD_BYTES_MAX: Final = 4096
HEADERS_MAX: Final = 48
# Headers that change what the body is or what the connection does.
UNUSUAL: Final = frozenset(
    {b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"te", b"trailer",
     b"proxy-connection", b"keep-alive", b"http2-settings"}
)  # fmt: skip
_TOKEN: Final = frozenset(
    b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
_NOTICE: Final = re.compile(
    rb"GET (/n/[!-~]+) HTTP/1\.1\r\n"
    rb"((?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n){0,48})\r\n"
)
_NOTICE_UNUSUAL: Final = re.compile(
    rb"^(?:%b|content-length):|^connection:(?![ \t]*keep-alive[ \t]*\r)" % b"|".join(UNUSUAL),
    re.IGNORECASE | re.MULTILINE,
)
_HOST: Final = re.compile(rb"^host:", re.IGNORECASE | re.MULTILINE)
_NAME: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")


def plain_bid(data: bytes) -> tuple[bytes, int] | None:
    """(exchange path name, offset of the body) of one whole plain bid request, else None."""
    name, body, length = _head(data)
    return (name, body) if name and body + length == len(data) else None


def missing(data: bytes) -> int:
    """How much is still to come of one plain bid request whose head is whole; 0: this is none.

    Many clients write head and body apart, and long bodies come in several segments.
    """
    name, body, length = _head(data)
    return max(body + length - len(data), 0) if name else 0


def _head(data: bytes) -> tuple[bytes, int, int]:
    """Exchange path name, offset and length of the body; no name: not a plain head."""
    if not data.startswith(PREFIX):
        return b"", 0, 0
    end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
    if end < 0:
        return b"", 0, 0
    request_line, *lines = data[:end].split(b"\r\n")
    name = request_line[len(PREFIX) : -len(SUFFIX)]
    if not request_line.endswith(SUFFIX) or not name or not _NAME.issuperset(name):
        return b"", 0, 0
    length = _content_length(lines) if len(lines) <= HEADERS_MAX else None
    return (b"", 0, 0) if length is None else (name, end + 4, length)


def plain_notice(data: bytes) -> bytes | None:
    """The target of one whole plain GET of a notice, without a body, else None."""
    if len(data) > HEAD_BYTES_MAX:
        return None
    found = _NOTICE.fullmatch(data)
    if found is None or _NOTICE_UNUSUAL.search(found[2]) is not None:
        return None
    return found[1] if len(_HOST.findall(found[2])) == 1 else None


def _content_length(lines: list[bytes]) -> int | None:
    """The length that plain headers declare; None when any header is not plain."""
    length: int | None = None
    hosts = 0
    for line in lines:
        field, colon, value = line.partition(b":")
        if not colon or not field or not _TOKEN.issuperset(field):
            return None
        if any((byte < 32 and byte != 9) or byte == 127 for byte in value):
            return None
        field, value = field.lower(), value.strip(b" \t")
        if field in UNUSUAL:
            return None
        if field == b"connection" and value.lower() != b"keep-alive":
            return None
        if field == b"content-type" and not value.lower().startswith(b"application/json"):
            return None
        if field == b"content-length":
            if length is not None or not 0 < len(value) <= 7 or not value.isdigit():
                return None
            length = int(value)
        hosts += field == b"host"
    return length if hosts == 1 else None
