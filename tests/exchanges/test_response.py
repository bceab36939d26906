"""The encoder: whole answers of hand-made decisions, against the schema and byte for byte."""

import html
import json
from collections.abc import Callable
from urllib.parse import parse_qs, quote, unquote, urlsplit

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest

from rtb.base.errors import InvariantError
from rtb.base.events import Kind, VideoEvent
from rtb.base.hashing import token_hash
from rtb.base.money import currency_code
from rtb.base.reasons import NoBid
from rtb.base.records import Decision, Dim, Escape, Hole, Opportunity
from rtb.catalogue import snapshot
from rtb.exchanges.decode import decode
from rtb.exchanges.response import encode, mixed_id, no_bid
from rtb.exchanges.settings import Exchange
from rtb.notices.notice import Notice
from rtb.openrtb.reading import escape
from tests.notices import bids

Arrays = dict[str, npt.NDArray[np.void]]
STATIC = ',"adomain":["shop.example"],"cid":"c1","crid":"cr1","cat":["IAB18"],"mtype":1'


Gap = tuple[Hole, str, int, int]  # with text, event and escape


class Catalogue:
    """Builds the arrays that an answer needs, one creative at a time."""

    def __init__(self) -> None:
        self._text = bytearray()
        self._rows: dict[str, list[np.void]] = {}

    def add(self, name: str, **values: object) -> int:
        """Adds a row, `text` of it into the text array; its index."""
        row = np.zeros(1, dtype=snapshot.ARRAYS[name])[0]
        text = values.pop("text", None)
        if isinstance(text, str):
            values |= {"text_start": len(self._text), "text_count": len(text.encode())}
            self._text += text.encode()
        for key, value in values.items():
            row[key] = value
        self._rows.setdefault(name, []).append(row)
        return len(self._rows[name]) - 1

    def creative(self, key: int, *frame: "str | Hole | Gap", **values: object) -> int:
        """A creative whose frame is these pieces."""
        start = len(self._rows.get("pieces", []))
        for piece in frame:
            if isinstance(piece, Hole):
                self.add("pieces", hole=piece)
            elif isinstance(piece, tuple):
                hole, text, event, escape = piece
                self.add("pieces", hole=hole, text=text, event=event, escape=escape)
            else:
                self.add("pieces", text=piece)
        return self.add("creatives", key=key, frame_start=start, frame_count=len(frame), **values)

    def arrays(self) -> Arrays:
        """The arrays as a snapshot would hold them."""
        arrays = {name: np.zeros(0, dtype=dtype) for name, dtype in snapshot.ARRAYS.items()}
        for name, rows in self._rows.items():
            arrays[name] = np.array(rows, dtype=snapshot.ARRAYS[name])
        arrays["text"] = np.frombuffer(bytes(self._text), dtype=np.uint8)
        return arrays


def decision(*bids: dict, cur: str = "USD") -> Decision:
    """A decision with these bids, all chosen unless they say otherwise."""
    made = Decision()
    made.data["head"][0]["cur"] = currency_code(cur)
    made.data["head"][0]["bids_count"] = len(bids)
    for index, values in enumerate(bids):
        for key, value in {"deal": -1, "chosen": 1, "price_micros": 1_000_000, **values}.items():
            made.data["bids"][0][index][key] = value
    return made


@pytest.fixture
def catalogue() -> Catalogue:
    """One advertiser without seats and one line item."""
    made = Catalogue()
    made.add("advertisers", key=1)
    made.add("line_items", key=11, advertiser=0)
    return made


@pytest.fixture
def opportunity(generic: Exchange) -> Callable[..., Opportunity]:
    """Decodes a request object."""

    def made(body: object) -> Opportunity:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        result = Opportunity()
        decode(text, generic, result)
        return result

    return made


@pytest.fixture
def check(response_schema: dict) -> Callable[[bytes], dict]:
    """Parses an answer after validating it against the 2.6 schema."""
    validator = jsonschema.validators.validator_for(response_schema)(response_schema)

    def parsed(body: bytes) -> dict:
        answer = json.loads(body)
        assert [] == [error.message for error in validator.iter_errors(answer)]
        return answer

    return parsed


def answered(asked: Opportunity, chosen: Decision, arrays: Arrays, exchange: Exchange) -> bytes:
    """The answer, every chosen bid signed."""
    signed = bids.links_of(exchange, chosen), bids.signed(chosen)
    return encode(asked, chosen, arrays, exchange, *signed)


REQUEST = {
    "id": "auction-1",
    "imp": [
        {"id": "1", "banner": {"w": 300, "h": 250}, "exp": 30},
        {"id": "2", "banner": {"w": 728, "h": 90}, "pmp": {"deals": [{"id": "deal/7"}]}},
    ],
}


def test_banner(catalogue: Catalogue, opportunity, check, generic: Exchange):
    """One bid has everything that exchanges reject bids for lacking."""
    frame = (STATIC + ',"w":', Hole.WIDTH, ',"h":', Hole.HEIGHT, ',"adm":"<b>\\"hi\\"</b>"')
    catalogue.creative(22, *frame)
    chosen = decision({"w": 300, "h": 250, "price_micros": 1_234_500})
    answer = check(answered(opportunity(REQUEST), chosen, catalogue.arrays(), generic))
    assert ("auction-1", "USD") == (answer["id"], answer["cur"])
    (seatbid,) = answer["seatbid"]
    assert "seat" not in seatbid
    (bid,) = seatbid["bid"]
    members = ("impid", "price", "w", "h", "mtype")
    assert ["1", 1.2345, 300, 250, 1] == [bid[name] for name in members]
    assert '<b>"hi"</b>' == bid["adm"]
    assert 30 == bid["exp"]
    assert "dealid" not in bid


@pytest.mark.parametrize(
    ("micros", "text"),
    [(1, b"0.000001"), (500_000, b"0.5"), (2_000_000, b"2"), (100_000_000_000, b"100000")],
)
def test_price_is_exact(
    catalogue: Catalogue, opportunity, generic: Exchange, micros: int, text: bytes
):
    """A price leaves as the decimal that its micros are, never as a float's idea of it."""
    catalogue.creative(22, STATIC)
    chosen = decision({"price_micros": micros})
    body = answered(opportunity(REQUEST), chosen, catalogue.arrays(), generic)
    assert b',"price":%s,' % text in body


def test_deal_and_order(catalogue: Catalogue, opportunity, check, generic: Exchange):
    """A deal bid names its deal; bids that were not chosen stay out."""
    catalogue.creative(22, STATIC)
    chosen = decision({"imp": 1, "deal": 0, "group": 1}, {"imp": 0, "chosen": 0}, {"imp": 1})
    answer = check(answered(opportunity(REQUEST), chosen, catalogue.arrays(), generic))
    bids = answer["seatbid"][0]["bid"]
    assert [("2", "deal/7"), ("2", None)] == [(bid["impid"], bid.get("dealid")) for bid in bids]
    assert 2 == len({bid["id"] for bid in bids})


def test_seats(catalogue: Catalogue, opportunity, check, exchanges: dict[str, Exchange]):
    """An advertiser's seat on this exchange comes before the exchange's default; one each."""
    exchange = exchanges["first-price"]
    catalogue.add("seats", exchange=token_hash(Dim.EXCHANGE, b"elsewhere"), text="no")
    catalogue.add("seats", exchange=exchange.token, text="own\\/seat")
    catalogue.add("advertisers", key=2, seats_start=0, seats_count=2)
    catalogue.add("line_items", key=12, advertiser=1)
    catalogue.creative(22, STATIC)
    chosen = decision({"line_item": 0}, {"line_item": 1, "imp": 1}, {"line_item": 0, "imp": 1})
    answer = check(answered(opportunity(REQUEST), chosen, catalogue.arrays(), exchange))
    seats = [(seatbid["seat"], len(seatbid["bid"])) for seatbid in answer["seatbid"]]
    assert [("rtb-first", 2), ("own/seat", 1)] == seats


def test_currency(catalogue: Catalogue, opportunity, check, generic: Exchange):
    """The currency of the decision is always said: omitted would mean USD."""
    catalogue.creative(22, STATIC)
    answer = answered(opportunity(REQUEST), decision({}, cur="EUR"), catalogue.arrays(), generic)
    assert "EUR" == check(answer)["cur"]


def test_ids_are_echoed_raw(catalogue: Catalogue, opportunity, generic: Exchange):
    """Ids of the exchange come back byte for byte, escapes and all."""
    catalogue.creative(22, STATIC)
    body = rb'{"id":"a\/\u00e9","imp":[{"id":"\"1\"","banner":{"w":1,"h":1}}]}'
    answer = answered(opportunity(body), decision({}), catalogue.arrays(), generic)
    assert answer.startswith(rb'{"id":"a\/\u00e9","seatbid":')
    assert rb'"impid":"\"1\""' in answer


def test_holes(catalogue: Catalogue, opportunity, check, generic: Exchange):
    """Ids in markup are percent-encoded: a stranger's text never becomes markup."""
    catalogue.creative(
        22,
        STATIC + ',"adm":"a=',
        Hole.AUCTION_ID,
        "&i=",
        Hole.IMP_ID,
        "&b=",
        Hole.BID_ID,
        "&c=",
        Hole.CACHEBUSTER,
        '"',
    )
    body = {"id": '"><script>', "imp": [{"id": "é &/x-._~", "banner": {"w": 1, "h": 1}}]}
    answer = check(answered(opportunity(body), decision({}), catalogue.arrays(), generic))
    bid = answer["seatbid"][0]["bid"][0]
    auction, imp, bid_id, buster = (part.partition("=")[2] for part in bid["adm"].split("&"))
    assert "%22%3E%3Cscript%3E" == auction
    assert "%C3%A9%20%26%2Fx-._~" == imp
    assert bid["id"] == bid_id
    assert buster.isdecimal()


def test_ids(catalogue: Catalogue, opportunity, generic: Exchange, exchanges: dict[str, Exchange]):
    """A bid's id is the number under which it is booked; the answer's is the request's."""
    catalogue.creative(22, STATIC)
    arrays = catalogue.arrays()

    def ids(body: dict, exchange: Exchange) -> tuple[str, str]:
        answer = json.loads(answered(opportunity(body), decision({}), arrays, exchange))
        return answer["seatbid"][0]["bid"][0]["id"], answer["bidid"]

    bid, response = ids(REQUEST, generic)
    assert (f"{bids.signed(decision({})).data[0]['bid']:016x}", 32) == (bid, len(response))
    assert (bid, response) == ids(REQUEST, generic)
    assert response != ids({**REQUEST, "id": "auction-2"}, generic)[1]
    assert response != ids(REQUEST, exchanges["euro"])[1]


def test_notice_urls(catalogue: Catalogue, opportunity, check, generic: Exchange):
    """Every bid says where its win, bill and loss are told; each URL reads as its kind."""
    catalogue.creative(22, STATIC)
    chosen = decision({}, {"imp": 1})
    answer = check(answered(opportunity(REQUEST), chosen, catalogue.arrays(), generic))

    for bid in answer["seatbid"][0]["bid"]:
        for name, kind in (("nurl", Kind.WIN), ("burl", Kind.BILL), ("lurl", Kind.LOSS)):
            found = bids.received(bids.sent(bid[name], PRICE="0"))
            assert isinstance(found, Notice)
            assert (kind, bid["id"]) == (found.kind, f"{found.claims.bid:016x}")


URLS = (
    (Hole.IMPRESSION_URL, Kind.IMPRESSION, 0),
    (Hole.VIEW_URL, Kind.VIEW, 0),
    (Hole.VIDEO_URL, Kind.VIDEO, VideoEvent.COMPLETE),
    (Hole.CLICK_URL, Kind.CLICK, 0),
)


@pytest.mark.parametrize(("hole", "kind", "event"), URLS, ids=[one[0].name for one in URLS])
@pytest.mark.parametrize("escape", Escape)
def test_url_holes(
    catalogue: Catalogue, opportunity, check, generic: Exchange, hole: Hole, kind: Kind, event: int,
    escape: Escape,
):  # fmt: skip
    """A URL in the markup, escaped for its place, is the notice of its kind and event."""
    text = quote(bids.LANDING, safe="") if hole == Hole.CLICK_URL else ""
    frame = (STATIC + ',"adm":"', (hole, text, int(event), int(escape)), '"')
    catalogue.creative(22, *frame)
    answer = check(answered(opportunity(REQUEST), decision({}), catalogue.arrays(), generic))
    found = answer["seatbid"][0]["bid"][0]["adm"]

    undo = {Escape.NONE: str, Escape.HTML: html.unescape, Escape.URL: unquote}[escape]
    notice = bids.received(bids.sent(undo(found)))
    assert isinstance(notice, Notice)
    assert (kind, event) == (notice.kind, notice.detail)
    assert (bids.LANDING if text else "") == notice.target


def test_landing_page_that_the_auction_ends(
    catalogue: Catalogue, opportunity, check, generic: Exchange
):
    """What only the auction knows is filled in before the page is encoded into the click."""
    text = quote("https://shop.example/?b=", safe="") + "{bid_id}" + quote("&a=", safe="")
    hole = (Hole.CLICK_URL, text + "{auction_id}", 0, 0)
    catalogue.creative(22, STATIC + ',"adm":"', hole, '"')
    body = {**REQUEST, "id": "a/b"}
    answer = check(answered(opportunity(body), decision({}), catalogue.arrays(), generic))
    bid = answer["seatbid"][0]["bid"][0]

    (page,) = parse_qs(urlsplit(bid["adm"]).query)["to"]
    assert f"https://shop.example/?b={bid['id']}&a=a%2Fb" == page


def test_mixed_id_lanes_differ():
    """The two halves of an id are independent, and order of the parts matters."""
    assert mixed_id(1, 2) != mixed_id(2, 1)
    first, second = mixed_id(1, 2)
    assert first != second


ASSETS = [
    {"id": 10, "required": 1, "title": {"len": 25}},
    {"id": 20, "required": 1, "img": {"type": 3, "wmin": 300, "hmin": 200}},
    {"id": 30, "data": {"type": 2}},
    {"id": 40, "data": {"type": 12}},
    {"id": 50, "video": {"mimes": ["video/mp4"], "minduration": 1, "maxduration": 60}},
]


def twice(text: str) -> str:
    return escape(escape(text))


@pytest.fixture
def native_ad(catalogue: Catalogue) -> Catalogue:
    """A native creative with title, picture, description, video, link and tracker."""
    catalogue.add("assets", kind=1, chars=9, text=twice('"A" title'))
    catalogue.add("assets", kind=2, type=3, w=1200, h=627, text=twice("https://x.example/a.png"))
    catalogue.add("assets", kind=4, type=2, chars=4, text=twice("desc"))
    catalogue.add("assets", kind=3, dur_s=15, mime=1 << 16, protocol=2, text=twice("<VAST/>"))
    catalogue.add("assets", kind=5, text=quote(bids.LANDING, safe=""))
    catalogue.add("assets", kind=6, text=twice("https://t.example/i"))
    frame = (STATIC + ',"adm":"', Hole.NATIVE, '"')
    catalogue.creative(22, *frame, assets_start=0, assets_count=6, media=4)
    return catalogue


def native_request(wrapped: bool, **members: object) -> dict:
    inner: dict[str, object] = {"assets": ASSETS, **members}
    text = json.dumps({"native": inner} if wrapped else inner)
    return {"id": "n", "imp": [{"id": "1", "native": {"request": text}}]}


@pytest.mark.parametrize("wrapped", [True, False])
def test_native(native_ad: Catalogue, opportunity, check, generic: Exchange, wrapped: bool):
    """The answer has the request's asset ids, version and wrapping; what we lack is left out."""
    body = native_request(wrapped)
    answer = check(answered(opportunity(body), decision({}), native_ad.arrays(), generic))
    native = json.loads(answer["seatbid"][0]["bid"][0]["adm"])
    assert wrapped is ("native" in native)
    native = native.get("native", native)
    assert ("1.0" if wrapped else "1.2") == native["ver"]
    click = bids.received(bids.sent(native["link"]["url"]))
    assert isinstance(click, Notice)
    assert bids.LANDING == click.target
    ours, theirs = native["imptrackers"]
    assert "https://t.example/i" == theirs
    assert is_of(Kind.IMPRESSION, ours)
    assert [
        {"id": 10, "title": {"text": '"A" title'}},
        {"id": 20, "img": {"url": "https://x.example/a.png", "w": 1200, "h": 627}},
        {"id": 30, "data": {"value": "desc"}},
        {"id": 50, "video": {"vasttag": "<VAST/>"}},
    ] == native["assets"]


def test_native_event_trackers(native_ad: Catalogue, opportunity, generic: Exchange):
    """Where impression events are taken by image, trackers are event trackers, ours first."""
    events = [{"event": 1, "methods": [1]}, {"event": 2, "methods": [1]}]
    body = native_request(False, eventtrackers=events)
    answer = json.loads(answered(opportunity(body), decision({}), native_ad.arrays(), generic))
    native = json.loads(answer["seatbid"][0]["bid"][0]["adm"])
    ours, theirs, view = native["eventtrackers"]
    assert {"event": 1, "method": 1, "url": "https://t.example/i"} == theirs
    assert (1, 1, 2, 1) == (ours["event"], ours["method"], view["event"], view["method"])
    assert is_of(Kind.IMPRESSION, ours["url"])
    assert is_of(Kind.VIEW, view["url"])
    assert "imptrackers" not in native


def test_native_viewability_alone(native_ad: Catalogue, opportunity, generic: Exchange):
    """A request may take viewability as an event and impressions as plain trackers."""
    body = native_request(False, eventtrackers=[{"event": 2, "methods": [1]}])
    answer = json.loads(answered(opportunity(body), decision({}), native_ad.arrays(), generic))
    native = json.loads(answer["seatbid"][0]["bid"][0]["adm"])

    assert 2 == len(native["imptrackers"])
    assert [2] == [one["event"] for one in native["eventtrackers"]]


def is_of(kind: Kind, url: str) -> bool:
    """Whether a URL is a genuine notice of a kind."""
    found = bids.received(bids.sent(url))
    return isinstance(found, Notice) and kind == found.kind


def test_native_assets_of_one_id_are_answered_once(
    native_ad: Catalogue, opportunity, generic: Exchange
):
    """An answer names its assets by id: two of one id would be one of them to nobody knows whom."""
    assets = [{"id": 1, "required": 1, "title": {}}, {"id": 1, "data": {"type": 2}}]
    body = native_request(False, assets=[*assets, {"id": 1, "required": 1, "title": {}}])
    answer = json.loads(answered(opportunity(body), decision({}), native_ad.arrays(), generic))
    native = json.loads(answer["seatbid"][0]["bid"][0]["adm"])
    assert [{"id": 1, "title": {"text": '"A" title'}}] == native["assets"]

    assets[1]["required"] = 1
    body = native_request(False, assets=assets)
    with pytest.raises(InvariantError, match="required asset"):
        answered(opportunity(body), decision({}), native_ad.arrays(), generic)


def test_native_without_a_required_asset_is_a_bug(
    native_ad: Catalogue, opportunity, generic: Exchange
):
    """The core must not have chosen it: an answer that breaks the request never leaves."""
    body = native_request(False, assets=[{"id": 1, "required": 1, "data": {"type": 3}}])
    with pytest.raises(InvariantError, match="required asset"):
        answered(opportunity(body), decision({}), native_ad.arrays(), generic)


def test_no_chosen_bid_is_a_bug(catalogue: Catalogue, opportunity, generic: Exchange):
    """An answer without bids is a no-bid and has its own door."""
    with pytest.raises(InvariantError, match="no bid"):
        answered(opportunity(REQUEST), decision({"chosen": 0}), catalogue.arrays(), generic)


@pytest.mark.parametrize(
    ("path", "raw_id", "reason", "expected"),
    [
        ("generic", b"r", NoBid.NO_CANDIDATE, (204, b"")),
        ("nbr-body", b"r", NoBid.NO_CANDIDATE, (200, b'{"id":"r","seatbid":[],"nbr":0}')),
        ("nbr-body", b"r", NoBid.TIMEOUT, (200, b'{"id":"r","seatbid":[],"nbr":15}')),
        ("nbr-body", rb"a\/b", NoBid.SHED, (200, rb'{"id":"a\/b","seatbid":[],"nbr":1}')),
        ("nbr-body", b"", NoBid.SHED, (204, b"")),
        ("nbr-body", b"r", NoBid.MALFORMED, (400, b"")),
        ("generic", b"", NoBid.UNSUPPORTED_VERSION, (400, b"")),
    ],
)
def test_no_bid(
    exchanges: dict[str, Exchange],
    path: str,
    raw_id: bytes,
    reason: NoBid,
    expected: tuple[int, bytes],
):
    """No bid is said as the exchange wants it; what is no bid request gets 400."""
    assert expected == no_bid(raw_id, reason, exchanges[path])


def test_no_bid_body_is_valid(exchanges: dict[str, Exchange], check):
    """A no-bid with a reason is an answer by the schema."""
    for reason in NoBid:
        status, body = no_bid(b"r", reason, exchanges["nbr-body"])
        if status == 200:
            assert reason.nbr == check(body)["nbr"]
