"""THE REFERENCE: a decision as an OpenRTB 2.6 answer. The compiled encoder is measured against it.

    {"id":<echo>,"seatbid":[{"seat":..,"bid":[..]}],"bidid":..,"cur":..}

One seatbid per seat, in the order in which a seat first occurs; bids in the decision's order. A bid
is its own members (id, impid, price, dealid, nurl, burl, lurl), then the creative's frame, which
the catalogue rendered at publish and whose holes are filled here, then `exp`. Ids of the request
are echoed as the raw text that came; `slotinpod` is never set, as structured pods forbid it and we
insist on no place in dynamic ones.

Everything is a function of the arguments. The number of a bid is one of them, and new for each paid
bid: the same request gives the same bytes but for that number and what is signed of it. Bids of
`test=1` are numbered by their request, and so equal.

    bid_id       the number under which the bid was signed and booked: 16 hex digits
    bidid        mix64 over exchange and request id, in two lanes of 64 bits: 32 hex digits
    cachebuster  mix64 of the bid's number as ten decimal digits
    auction_id, imp_id holes   the id percent-encoded but for A-Z a-z 0-9 - . _ ~: they stand
                 inside markup and URLs, where the raw text of a stranger is an attack
    dsa hole     the piece's own text, where the request asks for transparency
    native hole  the whole native answer, escaped to stand in the string `adm`: assets that answer
                 the request's (`openrtb.native.match_assets`), link, trackers, ours first, as
                 eventtrackers when the request takes impression events by image, else as
                 imptrackers; one for viewability where the request takes that; wrapped in
                 {"native":..} when the request was
    URL holes    the bid's notice URLs (`rtb.base.links`)
"""

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from rtb.base.errors import InvariantError
from rtb.base.hashing import mix64
from rtb.base.links import Links, Place, Sheets
from rtb.base.money import currency_name, format_micros
from rtb.base.reasons import NoBid
from rtb.base.records import Decision, Hole, ImpFlag, Opportunity
from rtb.exchanges.settings import Exchange
from rtb.openrtb.lists import AssetKind, NativeEvent
from rtb.openrtb.native import match_assets
from rtb.openrtb.reading import escape, plain

_SECOND_LANE: Final = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: any odd constant will do
_CACHEBUSTER_BELOW: Final = 10**10
_ASSET_FIELDS: Final = ("kind", "type", "chars", "w", "h", "dur_s", "mime", "protocol")
_VERSIONS: Final = {10: b"1.0", 11: b"1.1", 12: b"1.2"}

_URL_HOLES: Final = {
    Hole.CLICK_URL: Place.CLICK,
    Hole.IMPRESSION_URL: Place.IMPRESSION,
    Hole.VIEW_URL: Place.VIEW,
    Hole.VIDEO_URL: Place.VIDEO,
}

Record = np.void


class Arrays(Protocol):
    """A snapshot's arrays by name, as `rtb.catalogue.snapshot.ARRAYS` lays them out."""

    def __getitem__(self, name: str, /) -> npt.NDArray[np.void]: ...


def encode(
    opportunity: Opportunity,
    decision: Decision,
    arrays: Arrays,
    exchange: Exchange,
    links: Links,
    sheets: Sheets,
) -> bytes:
    """The body of a bid response with every chosen bid of a decision.

    links: of the exchange, in the decision's currency; sheets: the chosen bids, signed.
    Raises: InvariantError when no bid is chosen (that is a no-bid, see `no_bid`), or when a native
    ad was chosen that does not answer a required asset.
    """
    writer = _Writer(opportunity, arrays, exchange, links)
    head, bids = decision.data["head"][0], decision.data["bids"][0]
    seats: dict[bytes, list[bytes]] = {}
    for number, bid in enumerate(bids[: head["bids_count"]]):
        if bid["chosen"]:
            signed = Signed(int(sheets.data[number]["bid"]), sheets.sheet(number))
            seats.setdefault(writer.seat(bid), []).append(writer.bid(bid, signed))
    if not seats:
        raise InvariantError("no bid was chosen")
    seatbids = b",".join(_seatbid(seat, answers) for seat, answers in seats.items())
    return b'{"id":"%s","seatbid":[%s],"bidid":"%s","cur":"%s"}' % (
        writer.auction_id,
        seatbids,
        writer.response_id(),
        currency_name(int(head["cur"])).encode(),
    )


def no_bid(raw_id: bytes, reason: NoBid, exchange: Exchange) -> tuple[int, bytes]:
    """Status and body of an answer without bids.

    `raw_id` is the request's id as raw JSON string contents, b"" when it could not be read: then
    there is nothing to answer with a body, and it is 204. What is no bid request at all gets 400.
    """
    if reason in (NoBid.MALFORMED, NoBid.UNSUPPORTED_VERSION):
        return 400, b""
    if exchange.no_bid == "204" or not raw_id:
        return 204, b""
    return 200, b'{"id":"%s","seatbid":[],"nbr":%d}' % (raw_id, reason.nbr)


def mixed_id(*parts: int) -> tuple[int, int]:
    """Two lanes of 64 bits from the same numbers, each a chain of mix64."""
    first, second = 0, _SECOND_LANE
    for part in parts:
        first, second = mix64(first ^ part), mix64(second ^ part)
    return first, second


class Signed(NamedTuple):
    """A bid's number and its sheet (`rtb.base.links`)."""

    number: int
    sheet: bytes

    @property
    def id(self) -> bytes:
        """Bid.id."""
        return b"%016x" % self.number


def landing_page(
    text: bytes, number: int, bid: Record, imp: Record, opportunity: Opportunity
) -> bytes:
    """The landing page of a click, percent-encoded, with what only the auction knew filled in.

    text: as the catalogue has it (`records.Hole.CLICK_URL`); number: the bid's.
    """
    if b"{" not in text:
        return text
    values = {
        b"{bid_id}": b"%016x" % number,
        b"{cachebuster}": cachebuster(number),
        b"{width}": b"%d" % bid["w"],
        b"{height}": b"%d" % bid["h"],
        b"{auction_id}": _percent_encoded(_echo(opportunity, opportunity.facts[0]["head"], "id")),
        b"{imp_id}": _percent_encoded(_echo(opportunity, imp, "id")),
    }
    for name, value in values.items():
        text = text.replace(name, quote(value, safe="").encode())
    return text


def cachebuster(number: int) -> bytes:
    """Digits that differ from bid to bid; always as many, so that answers are equally long."""
    return b"%010d" % (mix64(number) % _CACHEBUSTER_BELOW)


def _echo(opportunity: Opportunity, row: Record, name: str) -> bytes:
    return opportunity.slice(int(row[f"{name}_off"]), int(row[f"{name}_len"]))


def _seatbid(seat: bytes, bids: list[bytes]) -> bytes:
    named = b'"seat":"%s",' % seat if seat else b""
    return b'{%s"bid":[%s]}' % (named, b",".join(bids))


class _Writer:
    """What all bids of one answer share."""

    def __init__(
        self, opportunity: Opportunity, arrays: Arrays, exchange: Exchange, links: Links
    ) -> None:
        self._links = links
        self._opportunity = opportunity
        self._facts = opportunity.facts[0]
        self._arrays = arrays
        self._exchange = exchange.token
        self._seat = escape(exchange.seat).encode()
        self.auction_id = self._echo(self._facts["head"], "id")

    def response_id(self) -> bytes:
        """BidResponse.bidid."""
        return b"%016x%016x" % mixed_id(self._exchange, int(self._facts["head"]["id_hash"]))

    def seat(self, bid: Record) -> bytes:
        """The advertiser's own seat on this exchange, else the exchange's default."""
        line_item = self._arrays["line_items"][bid["line_item"]]
        for seat in self._rows("seats", self._arrays["advertisers"][line_item["advertiser"]]):
            if seat["exchange"] == self._exchange:
                return self._text(seat)
        return self._seat

    def bid(self, bid: Record, signed: Signed) -> bytes:
        """One bid object."""
        imp = self._facts["imps"][bid["imp"]]
        creative = self._arrays["creatives"][bid["creative"]]
        out = bytearray(b'{"id":"%s"' % signed.id)
        out += b',"impid":"%s"' % self._echo(imp, "id")
        out += b',"price":%s' % format_micros(int(bid["price_micros"])).encode()
        if bid["deal"] >= 0:
            out += b',"dealid":"%s"' % self._echo(self._facts["deals"][bid["deal"]], "id")
        for name, place in ((b"nurl", Place.WIN), (b"burl", Place.BILL), (b"lurl", Place.LOSS)):
            out += b',"%s":"%s"' % (name, self._links[place].url(signed.sheet))
        for piece in self._rows("pieces", creative, "frame"):
            hole = Hole(int(piece["hole"]))
            if hole == Hole.NONE:
                out += self._text(piece)
            else:
                out += self._fill(hole, piece, bid, imp, creative, signed)
        if imp["exp_s"] > 0:
            # The exchange said how long it may take; we keep the price for that long.
            out += b',"exp":%d' % imp["exp_s"]
        return bytes(out + b"}")

    def _fill(
        self,
        hole: Hole,
        piece: Record,
        bid: Record,
        imp: Record,
        creative: Record,
        signed: Signed,
    ) -> bytes:
        if hole in _URL_HOLES:
            return self._url(hole, piece, bid, imp, signed)
        if hole == Hole.BID_ID:
            return signed.id
        if hole == Hole.WIDTH:
            return b"%d" % bid["w"]
        if hole == Hole.HEIGHT:
            return b"%d" % bid["h"]
        if hole == Hole.CACHEBUSTER:
            return cachebuster(signed.number)
        if hole == Hole.AUCTION_ID:
            return _percent_encoded(self.auction_id)
        if hole == Hole.DSA:
            return self._text(piece) if self._facts["head"]["dsarequired"] > 0 else b""
        if hole == Hole.IMP_ID:
            return _percent_encoded(self._echo(imp, "id"))
        return self._native(bid, imp, creative, signed)

    def _url(self, hole: Hole, piece: Record, bid: Record, imp: Record, signed: Signed) -> bytes:
        link = self._links[_URL_HOLES[hole] + int(piece["event"])]
        page = b""
        if hole == Hole.CLICK_URL:
            text = self._text(piece)
            page = landing_page(text, signed.number, bid, imp, self._opportunity)
        return link.url(signed.sheet, page, int(piece["escape"]))

    def _native(self, bid: Record, imp: Record, creative: Record, signed: Signed) -> bytes:
        ads = list(self._rows("assets", creative))
        start, count = int(imp["assets_start"]), int(imp["assets_count"])
        requested = self._facts["assets"][start : start + count]
        members = [
            rb"\"ver\":\"%s\"" % _VERSIONS.get(int(imp["native_ver"]), b"1.2"),
            rb"\"assets\":[%s]" % b",".join(self._assets(requested, ads)),
        ]
        pages = self._urls(ads, AssetKind.LINK)
        if pages:
            page = landing_page(pages[0], signed.number, bid, imp, self._opportunity)
            url = self._links[Place.CLICK].url(signed.sheet, page)
            members.append(rb"\"link\":{\"url\":\"%s\"}" % url)
        members += self._trackers(int(imp["native_events"]), ads, signed.sheet)
        native = b"{%s}" % b",".join(members)
        wrapped = int(imp["flags"]) & ImpFlag.NATIVE_WRAPPED
        return rb"{\"native\":%s}" % native if wrapped else native

    def _trackers(self, events: int, ads: list[Record], sheet: bytes) -> Iterator[bytes]:
        """Of impressions, ours first, then of viewability, each as the request takes it."""
        ours = self._links[Place.IMPRESSION].url(sheet)
        urls = [ours, *self._urls(ads, AssetKind.TRACKER)]
        rows = [(NativeEvent.IMPRESSION, url) for url in urls]
        if not events >> NativeEvent.IMPRESSION & 1:
            yield rb"\"imptrackers\":[%s]" % b",".join(rb"\"%s\"" % url for url in urls)
            rows = []
        if events >> NativeEvent.VIEWABLE_MRC50 & 1:
            rows.append((NativeEvent.VIEWABLE_MRC50, self._links[Place.VIEW].url(sheet)))
        if rows:
            texts = (rb"{\"event\":%d,\"method\":1,\"url\":\"%s\"}" % row for row in rows)
            yield rb"\"eventtrackers\":[%s]" % b",".join(texts)

    def _assets(self, requested: npt.NDArray[np.void], ads: list[Record]) -> Iterator[bytes]:
        offered = [{name: int(ad[name]) for name in _ASSET_FIELDS} for ad in ads]
        wanted = [{name: int(row[name]) for name in row.dtype.names} for row in requested]
        chosen = match_assets(wanted, offered)
        if chosen is None:
            raise InvariantError("a native ad was chosen that lacks a required asset")
        for request, index in zip(wanted, chosen, strict=True):
            if index >= 0:
                yield rb"{\"id\":%d,%s}" % (request["id"], self._asset(ads[index]))

    def _asset(self, ad: Record) -> bytes:
        kind, text = AssetKind(int(ad["kind"])), self._text(ad)
        if kind == AssetKind.TITLE:
            return rb"\"title\":{\"text\":\"%s\"}" % text
        if kind == AssetKind.IMG:
            return rb"\"img\":{\"url\":\"%s\",\"w\":%d,\"h\":%d}" % (text, ad["w"], ad["h"])
        if kind == AssetKind.VIDEO:
            return rb"\"video\":{\"vasttag\":\"%s\"}" % text
        return rb"\"data\":{\"value\":\"%s\"}" % text

    def _urls(self, ads: list[Record], kind: AssetKind) -> list[bytes]:
        return [self._text(ad) for ad in ads if ad["kind"] == kind]

    def _rows(self, name: str, owner: Record, prefix: str = "") -> npt.NDArray[np.void]:
        start = int(owner[f"{prefix or name}_start"])
        return self._arrays[name][start : start + int(owner[f"{prefix or name}_count"])]

    def _text(self, row: Record) -> bytes:
        start = int(row["text_start"])
        return self._arrays["text"][start : start + int(row["text_count"])].tobytes()

    def _echo(self, row: Record, name: str) -> bytes:
        return _echo(self._opportunity, row, name)


def _percent_encoded(raw: bytes) -> bytes:
    return quote(plain(raw.decode()), safe="").encode()
