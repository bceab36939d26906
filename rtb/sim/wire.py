"""Just as much HTTP/1.1 as an exchange needs to read what a bidder answers. Pure."""

import re
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from rtb.base.errors import ConfigError

# An answer larger than this is a fault of the bidder; it would only fill memory.
ANSWER_BYTES_MAX: Final = 4 << 20
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_LOCATION = re.compile(rb"\r\nlocation:[ \t]*([!-~]*)[ \t]*\r\n", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close[ \t]*\r\n", re.IGNORECASE)


class Reply(NamedTuple):
    """One whole answer; `keep`: the connection stays; `location`: where a redirect leads."""

    status: int
    body: bytes = b""
    keep: bool = False
    location: str = ""


class Place(NamedTuple):
    """Where somebody listens."""

    host: str
    port: int

    @property
    def name(self) -> str:
        """As the Host header says it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def place_of(url: str) -> tuple[Place, str]:
    """Where a URL leads, and the request target there. Raises: ConfigError unless plain HTTP."""
    try:
        parts = urlsplit(url)
        port = parts.port or 80
    except ValueError as error:
        raise ConfigError(f"not a URL: {url!r}: {error}") from error
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"expected http://host:port, got {url!r}")
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    return Place(parts.hostname, port), target


def read_answer(data: bytes) -> Reply | None:
    """One whole answer; None until it is whole. What is no HTTP answer has status 0."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return Reply(0) if len(data) > 65_536 else None
    if not data.startswith(b"HTTP/1.") or not data[9:12].isdigit():
        return Reply(0)
    status = int(data[9:12])
    head = data[: head_end + 2]
    keep = _CLOSE.search(head) is None
    start = head_end + 4
    if status in (204, 304):
        return Reply(status, keep=keep)
    location = _location(head) if 300 <= status < 400 else ""
    length = _LENGTH.search(head)
    if length is not None:
        end = start + int(length[1])
        return Reply(status, data[start:end], keep, location) if len(data) >= end else None
    if _CHUNKED.search(head) is not None:
        body = _unchunk(data, start)
        return None if body is None else Reply(status, body, keep, location)
    return Reply(status, location=location)


def _location(head: bytes) -> str:
    found = _LOCATION.search(head)
    return found[1].decode() if found is not None else ""


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
