"""A signed bid, an exchange that reads its notices, and what they say of it."""

from typing import Any
from urllib.parse import quote

from rtb.base.events import CLAIMS, RATE_ONE, Kind, VideoEvent, bid_id
from rtb.base.links import Links, Place, Sheets
from rtb.base.money import currency_name
from rtb.base.records import Decision, Media
from rtb.exchanges import prices
from rtb.exchanges.settings import Exchange
from rtb.notices.notice import Claims, Notice, Refused, Terms
from rtb.notices.reading import read
from rtb.notices.tokens import Keyring, Signer, target_hash
from rtb.notices.urls import Urls

BASE = "https://bid.example"
LANDING = "https://shop.example/ä?x=1&y=a b"
NOW_S = 1_800_000_000
NOW_MS = NOW_S * 1000
KEYS = Keyring(2, {1: b"the secret of last month", 2: b"the secret of this month"})
BID_MICROS = 2_000_000

# Every URL that a bid has.
ALL = [(kind, 0) for kind in (Kind.WIN, Kind.BILL, Kind.LOSS, Kind.IMPRESSION, Kind.CLICK)] + [
    (Kind.VIEW, 0),
    *((Kind.VIDEO, int(event)) for event in VideoEvent),
]


def exchange(**keys: Any) -> Exchange:
    """An exchange that differs from the generic one in some keys."""
    return Exchange(**{"name": "x", "path": "x"} | keys)


def terms_of(*exchanges: Exchange) -> dict[int, Terms]:
    return {each.claim_key: Terms(each, prices.reader(each, {})) for each in exchanges}


def claims(**values: int) -> Claims:
    """The claims of a bid of two a thousand, made a minute ago."""
    bid = bid_id(NOW_S - 60, 3, 1, 77)
    made = Claims(
        key=2,
        media=Media.VIDEO,
        exchange=exchange().claim_key,
        bid=bid,
        line_item=1 << 63,
        creative=12,
        product=13,
        person=14,
        target=target_hash(LANDING, 2, KEYS),
        price_micros=BID_MICROS,
        rate_e9=RATE_ONE,
    )
    return made._replace(**values)


def sheet_of(made: Claims, keys: Keyring = KEYS) -> bytes:
    """Claims signed for every kind."""
    return Signer(keys).sign(made.pack(), events=True)


def url_of(kind: Kind, event: int = 0, made: Claims | None = None, **keys: Any) -> str:
    """The URL of one kind, as it stands in the answer."""
    link = Urls(BASE, exchange(**keys)).links("USD")[Place[kind.name] + event]
    text = quote(LANDING, safe="").encode() if kind == Kind.CLICK else b""
    return link.url(sheet_of(made or claims()), text).decode()


def links_of(exchange: Exchange, decision: Decision) -> Links:
    """The links of an answer."""
    return Urls(BASE, exchange).links(currency_name(int(decision.data["head"]["cur"][0])))


def signed(decision: Decision) -> Sheets:
    """Every chosen bid of a decision, signed; their numbers count up."""
    sheets = Sheets()
    bids = decision.data["bids"][0, : decision.data["head"]["bids_count"][0]]
    for number, bid in enumerate(bids):
        if bid["chosen"]:
            made = claims(bid=bid_id(NOW_S, 3, 1, number), price_micros=int(bid["price_micros"]))
            sheets.put(number, made.bid, sheet_of(made))
    return sheets


def sent(url: str, **values: str) -> bytes:
    """The request target of a URL whose macros an exchange has replaced, all unknown ones by ''."""
    for name in ("PRICE", "CURRENCY", "MULTIPLIER", "MIN_TO_WIN", "LOSS", "DISCOUNT_CPM", "IMP_TS"):
        url = url.replace(f"${{AUCTION_{name}}}", values.get(name, ""))
    return url.removeprefix(BASE).encode()


def received(target: bytes, now_ms: int = NOW_MS, **keys: Any) -> Notice | Refused:
    """What a worker reads."""
    return read(target, now_ms, KEYS, terms_of(exchange(**keys)))


def arrived(kind: Kind, keys: dict[str, Any] | None = None, **values: str) -> Notice:
    """A notice of one kind whose macros have values, which must be genuine."""
    found = received(sent(url_of(kind, **keys or {}), **values), **keys or {})
    assert isinstance(found, Notice), found
    return found


assert CLAIMS.itemsize == len(claims().pack())
