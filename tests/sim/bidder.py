"""A small bidder for tests of the exchange: signs its bids, and reads what it hears of them."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

import msgspec

from rtb.base.events import RATE_ONE, Kind, VideoEvent, bid_id
from rtb.base.links import CONVERSION_MACRO, Place
from rtb.base.records import Media
from rtb.exchanges import prices
from rtb.exchanges.settings import Exchange
from rtb.notices.notice import Claims, Notice, Refused, Terms
from rtb.notices.reading import read
from rtb.notices.tokens import Keyring, Signer, conversion_token, target_hash
from rtb.notices.urls import Urls

KEYS = Keyring(1, {1: b"a secret for tests only"})
LANDING = f"https://shop.example/shoes?a=1&b=2&rtb={CONVERSION_MACRO}"
TIME_S = 1_800_000_000
PIXEL = b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\nContent-Length: 3\r\n\r\nGIF"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
FOUND = b"HTTP/1.1 302 Found\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
BROKEN = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n"


def settings(settle_on: str = "burl") -> Exchange:
    """The exchange, as the bidder knows it."""
    return msgspec.convert({"name": "generic", "path": "generic", "settle_on": settle_on}, Exchange)


@dataclass
class Bidder:
    """What it heard. `hang_up`: whether a notice gets no answer; it is read all the same."""

    base: str = "http://bid.example"
    settle_on: str = "burl"
    price: float = 4.5
    media: Media = Media.BANNER
    hang_up: Callable[[int], bool] = lambda number: False
    status: Callable[[int], bytes | None] = lambda number: None
    notices: list[Notice] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    bids: int = 0
    heard: int = 0

    def __post_init__(self) -> None:
        self.exchange = settings(self.settle_on)
        self.terms = {
            self.exchange.claim_key: Terms(self.exchange, prices.reader(self.exchange, {}))
        }

    def url_of(self, sheet: bytes, kind: Kind, event: int = 0) -> str:
        """One URL of a signed bid."""
        link = Urls(self.base, self.exchange).links("USD")[Place[kind.name] + event]
        text = quote(LANDING, safe="").encode() if kind is Kind.CLICK else b""
        return link.url(sheet, text).decode()

    def bid(self, impid: str = "1") -> dict[str, object]:
        """A bid whose notices all lead here."""
        number, self.bids = self.bids, self.bids + 1
        made = Claims(
            key=1, media=self.media, exchange=self.exchange.claim_key,
            bid=bid_id(TIME_S, 0, 1, number), line_item=5, creative=6,
            target=target_hash(LANDING, 1, KEYS), price_micros=round(self.price * 1e6),
            rate_e9=RATE_ONE,
        )  # fmt: skip
        sheet = Signer(KEYS).sign(made.pack(), events=True)
        return {
            "id": f"{made.bid:016x}", "impid": impid, "price": self.price, "crid": "c",
            "mtype": int(self.media), "adm": self.markup(sheet), "dur": 4,
            "nurl": self.url_of(sheet, Kind.WIN), "burl": self.url_of(sheet, Kind.BILL),
            "lurl": self.url_of(sheet, Kind.LOSS),
        }  # fmt: skip

    def markup(self, sheet: bytes) -> str:
        """The ad, with everything of ours in it."""
        click, pixel = self.url_of(sheet, Kind.CLICK), self.url_of(sheet, Kind.IMPRESSION)
        view = self.url_of(sheet, Kind.VIEW)
        if self.media is Media.BANNER:
            pixel, click, view = (each.replace("&", "&amp;") for each in (pixel, click, view))
            return f'<a href="{click}"><img src="{pixel}"><i data-view="{view}"></a>'
        events = "".join(
            f"<Tracking><![CDATA[{self.url_of(sheet, Kind.VIDEO, event)}]]></Tracking>"
            for event in VideoEvent
        )
        return f"<Impression><![CDATA[{pixel}]]></Impression>{events}<C><![CDATA[{click}]]></C>"

    def answer(self, request: bytes) -> bytes:
        """A bid on every impression."""
        asked = msgspec.json.decode(request)
        bids = [self.bid(imp["id"]) for imp in asked["imp"]]
        body = msgspec.json.encode(
            {"id": asked["id"], "bidid": "r", "cur": "USD", "seatbid": [{"bid": bids, "seat": "s"}]}
        )
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)

    def hear(self, target: bytes) -> bytes | None:
        """What a notice is answered with; None: nothing."""
        self.heard += 1
        found = read(target, TIME_S * 1000, KEYS, self.terms)
        status = self.status(self.heard)
        if status is not None:
            return status
        if isinstance(found, Refused):
            self.refused[found.reason.name] += 1
            return FORBIDDEN
        self.notices.append(found)
        if self.hang_up(self.heard):
            return None
        if found.kind is Kind.CLICK:
            return FOUND % page_of(found).encode()
        return PIXEL if found.kind is Kind.IMPRESSION else NO_CONTENT

    def booked(self, kind: Kind = Kind.BILL) -> dict[int, int]:
        """CPM micros by bid of the notices with a good price."""
        return {
            each.claims.bid: each.price_micros
            for each in self.notices
            if each.kind is kind and each.price_micros >= 0
        }


def page_of(click: Notice) -> str:
    """Where a click is sent."""
    token = conversion_token(click.signed, KEYS).decode()
    return click.target.replace(CONVERSION_MACRO, token)


class Connection(asyncio.Protocol):
    """Bid requests and notices on one port."""

    def __init__(self, bidder: Bidder) -> None:
        self._bidder, self._buffer = bidder, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = 0
        if head.startswith(b"POST"):
            length = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
        if len(rest) < length:
            return
        self._buffer = rest[length:]
        target = head.split(b" ", 2)[1]
        bidder = self._bidder
        reply = bidder.answer(rest[:length]) if length else bidder.hear(target)
        if reply is None:
            self.transport.abort()  # type: ignore[attr-defined]
        else:
            self.transport.write(reply)  # type: ignore[attr-defined]


class Served:
    """Bidders in a thread of their own, each on a port."""

    def __init__(self, *bidders: Bidder) -> None:
        self._bidders = bidders
        self._loop = asyncio.new_event_loop()
        self._connections: list[Connection] = []
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> "Served":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    async def _open(self) -> None:
        for bidder in self._bidders:
            server = await self._loop.create_server(
                lambda each=bidder: self._connected(each), "127.0.0.1", 0
            )
            bidder.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            self._servers.append(server)

    def _connected(self, bidder: Bidder) -> Connection:
        self._connections.append(Connection(bidder))
        return self._connections[-1]

    def __exit__(self, *fault: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.transport.abort()
        await asyncio.sleep(0)  # aborted transports close their sockets in the loop's next turn
