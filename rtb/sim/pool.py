"""Requests ready to send: built once, replayed for as long as the run goes, never the same twice.

Two auctions with one id are not two auctions: a bidder may well take the second for a repetition.
So each sending gets an id of its own, the pool's with the process and a counter behind it, spliced
into bytes that are otherwise as they were. All messages keep their size.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import msgspec

from rtb.base.errors import ConfigError
from rtb.sim.auction import Ask, ask_of
from rtb.sim.wire import Place, place_of

# ".", two digits of the process, eight of the counter: 4 thousand million auctions a process.
SUFFIX_CHARS: Final = 11
_COUNT_MAX: Final = 0xFFFF_FFFF
_ID_FIRST = re.compile(rb'\s*\{\s*"id"\s*:\s*"(?:[^"\\]|\\.)*(?=")')
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]')
_OPENING: Final = (b"{", b"[")
_CLOSING: Final = (b"}", b"]")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the bidder listens."""

    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> "Target":
        """The parts of a URL. Raises: ConfigError unless it is plain HTTP with a path."""
        place, path = place_of(url)
        if not path:
            raise ConfigError(f"expected http://host:port/openrtb2/<exchange>/bid, got {url!r}")
        return cls(place.host, place.port, path)

    @property
    def exchange(self) -> str:
        """The exchange that the path names: /openrtb2/<exchange>/bid."""
        parts = self.path.split("/")
        return parts[2] if len(parts) > 3 and parts[1] == "openrtb2" else ""

    def message(self, body: bytes, more: int = 0) -> bytes:
        """A bid request as it goes over the wire; `more`: bytes that the body will get besides."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {Place(self.host, self.port).name}\r\n"
            "Content-Type: application/json\r\nX-OpenRTB-Version: 2.6\r\n"
            f"Content-Length: {len(body) + more}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True, slots=True)
class Pool:
    """Messages in two halves, cut behind the id, and what the exchange remembers of each.

    share: number of the process, part of every id; keep_ids: send what is there as it is.
    """

    heads: list[bytes]
    tails: list[bytes]
    asks: list[Ask]
    share: int = 0
    keep_ids: bool = False

    def __len__(self) -> int:
        return len(self.heads)

    def suffix(self, serial: int) -> str:
        """What the id of the auction number `serial` has behind the pool's."""
        return "" if self.keep_ids else f".{self.share:02x}{serial & _COUNT_MAX:08x}"

    def message(self, number: int, serial: int) -> bytes:
        """A message of the pool, for auction `serial`."""
        return self.heads[number] + self.suffix(serial).encode() + self.tails[number]

    def sent_id(self, number: int, serial: int) -> str:
        """The id that it goes out with."""
        return self.asks[number].id + self.suffix(serial)


def pool_of(
    bodies: Iterable[bytes], target: Target, share: int = 0, *, keep_ids: bool = False
) -> Pool:
    """Raises: ConfigError when there is none, or one is no bid request."""
    pool = Pool([], [], [], share, keep_ids)
    more = 0 if keep_ids else SUFFIX_CHARS
    for row, body in enumerate(bodies, 1):
        if not body.strip():
            continue
        try:
            pool.asks.append(ask_of(body))
        except msgspec.MsgspecError as error:
            raise ConfigError(f"request {row}: {error}") from error
        end = id_end(body)
        if end < 0:
            raise ConfigError(f"request {row}: its id is not written as one")
        message = target.message(body, more)
        cut = len(message) - len(body) + end
        pool.heads.append(message[:cut])
        pool.tails.append(message[cut:])
    if not len(pool):
        raise ConfigError("no requests to send")
    return pool


def id_end(body: bytes) -> int:
    """Where the text of a request's id ends, before its closing quote; -1 when it has none."""
    first = _ID_FIRST.match(body)
    if first is not None:  # as nearly everybody writes it
        return first.end()
    depth, key, last = 0, b"", b""
    for token in _TOKEN.finditer(body):
        text = token[0]
        if depth == 1 and key == b'"id"' and text.startswith(b'"'):
            return token.end() - 1
        depth += (text in _OPENING) - (text in _CLOSING)
        key = last if text == b":" else b""
        last = text
    return -1
