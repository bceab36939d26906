"""Notice URLs: what each kind carries, and that what is built is what is read."""

import html
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.base.errors import ConfigError
from rtb.base.events import VIDEO_NAMES, Kind, VideoEvent
from rtb.base.links import LINKS_COUNT, Place
from rtb.base.records import Escape
from rtb.notices.notice import Claims, Notice
from rtb.notices.tokens import target_hash
from rtb.notices.urls import Urls
from tests.notices import bids
from tests.notices.test_notice import ANY_CLAIMS

DEFAULTS = "c=${AUCTION_CURRENCY}&m=${AUCTION_MULTIPLIER}&w=${AUCTION_MIN_TO_WIN}&b=USD"


def parts_of(url: str) -> tuple[str, str]:
    """Path without its token, and query."""
    split = urlsplit(url)
    return split.path.rpartition("/")[0], split.query


@pytest.mark.parametrize(
    ("kind", "keys", "path", "query"),
    [
        (Kind.WIN, {}, "/n/win", "p=${AUCTION_PRICE}&" + DEFAULTS),
        (Kind.BILL, {}, "/n/bill", "p=${AUCTION_PRICE}&" + DEFAULTS),
        (
            Kind.LOSS,
            {},
            "/n/loss",
            "c=${AUCTION_CURRENCY}&w=${AUCTION_MIN_TO_WIN}&l=${AUCTION_LOSS}&b=USD",
        ),
        (Kind.LOSS, {"notice_macros": ()}, "/n/loss", ""),
        (Kind.VIEW, {}, "/n/view", ""),
        (Kind.IMPRESSION, {}, "/n/imp", ""),
        (
            Kind.IMPRESSION,
            {"settle_on": "impression", "notice_macros": ("currency",)},
            "/n/imp",
            "p=${AUCTION_PRICE}&c=${AUCTION_CURRENCY}&b=USD",
        ),
        (Kind.IMPRESSION, {"settle_on": "impression", "markup_macros": False}, "/n/imp", ""),
        (
            Kind.BILL,
            {"notice_macros": ("discount", "shown"), "price_macro": "${AUCTION_PRICE:XX}"},
            "/n/bill",
            "p=${AUCTION_PRICE:XX}&d=${AUCTION_DISCOUNT_CPM}&t=${AUCTION_IMP_TS}",
        ),
    ],
)
def test_what_a_url_carries(kind: Kind, keys: dict[str, Any], path: str, query: str) -> None:
    """Each kind asks for what the exchange can know by then, in macros that nobody encoded."""
    assert (path, query) == parts_of(bids.url_of(kind, **keys))


@pytest.mark.parametrize("event", VideoEvent)
def test_video_urls_have_the_names_of_vast(event: VideoEvent) -> None:
    """The path says the event as VAST does."""
    assert f"/n/video/{VIDEO_NAMES[event]}" == parts_of(bids.url_of(Kind.VIDEO, event))[0]


def test_links_are_constant() -> None:
    """What surrounds the token depends on exchange, kind and currency, not on the bid."""
    urls = Urls(bids.BASE, bids.exchange())
    links = urls.links("EUR")

    assert LINKS_COUNT == len(links)
    assert links == urls.links("EUR")
    assert b"https://bid.example/n/bill/" == links[Place.BILL].head
    assert links[Place.BILL].tail.endswith(b"&b=EUR")


@pytest.mark.parametrize("escape", Escape)
def test_urls_are_escaped_for_their_place(escape: Escape) -> None:
    """In HTML an ampersand is an entity; within another URL nothing is left of its own marks."""
    link = Urls(bids.BASE, bids.exchange()).links("USD")[Place.WIN]
    sheet = bids.sheet_of(bids.claims())
    plain, found = link.url(sheet).decode(), link.url(sheet, escape=escape).decode()

    undo = {Escape.NONE: str, Escape.HTML: html.unescape, Escape.URL: unquote}[escape]
    assert plain == undo(found)
    assert (escape == Escape.NONE) == (plain == found)


def test_clicks_without_a_landing_page_have_no_tail() -> None:
    """A click that redirects nowhere ends with its token."""
    link = Urls(bids.BASE, bids.exchange()).links("USD")[Place.CLICK]

    assert b"?" not in link.url(bids.sheet_of(bids.claims()))


def test_clicks_carry_their_target() -> None:
    """A click URL holds the landing page, encoded once."""
    url = bids.url_of(Kind.CLICK)

    assert "/n/click" == parts_of(url)[0]
    assert {"to": [bids.LANDING]} == parse_qs(urlsplit(url).query)
    assert url.isascii()


@pytest.mark.parametrize(
    ("keys", "prefix", "encoded"),
    [
        ({"click_macro": "%%CLICK_URL_UNESC%%"}, "%%CLICK_URL_UNESC%%", True),
        ({"click_macro": "{clickurl}", "click_url_encoded": False}, "{clickurl}", False),
        ({"click_macro": "https://c.example/r?u="}, "https://c.example/r?u=", True),
    ],
)
def test_click_macros(keys: dict[str, Any], prefix: str, encoded: bool) -> None:
    """Behind an exchange's click macro our URL stands whole, and is read when it comes back."""
    url = bids.url_of(Kind.CLICK, **keys)
    ours = url.removeprefix(prefix)

    assert url.startswith(prefix)
    assert bids.url_of(Kind.CLICK) == (unquote(ours) if encoded else ours)
    assert isinstance(bids.received(bids.sent(bids.url_of(Kind.CLICK))), Notice)


@pytest.mark.parametrize(
    "base",
    ["", "bid.example", "ftp://bid.example", "https://bid.example/", "https://a b", "https://"],
)
def test_bases_that_are_refused(base: str) -> None:
    """Where notices come in must be a URL without a slash at its end."""
    with pytest.raises(ConfigError, match="base"):
        Urls(base, bids.exchange())


@pytest.mark.parametrize(("kind", "event"), bids.ALL)
@settings(max_examples=20)
@given(claims=ANY_CLAIMS, price=st.integers(0, 10**9))
def test_what_is_built_is_read(kind: Kind, event: int, claims: Claims, price: int) -> None:
    """For every kind and any claims, the notice that arrives says what was signed."""
    made = claims._replace(
        version=1,
        key=2,
        exchange=bids.exchange().claim_key,
        bid=bids.claims().bid,
        target=target_hash(bids.LANDING, 2, bids.KEYS),
        price_micros=price,
    )
    text = f"{price // 10**6}.{price % 10**6:06d}"
    found = bids.received(bids.sent(bids.url_of(kind, event, made), PRICE=text, CURRENCY="USD"))

    assert isinstance(found, Notice)
    assert (kind, event, made, made.pack()) == (
        found.kind,
        found.detail,
        found.claims,
        found.signed,
    )
    assert (price if kind in (Kind.WIN, Kind.BILL) else -1) == found.price_micros
    assert (bids.LANDING if kind == Kind.CLICK else "") == found.target
