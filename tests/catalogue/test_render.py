"""Rendering: frames are JSON for whatever people write, and markup survives what is put into it."""

import html
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.base.events import VideoEvent
from rtb.base.records import MIMES, Escape, Hole
from rtb.catalogue import render
from rtb.catalogue.model import (
    Advertiser,
    Creative,
    Image,
    MediaFile,
    Native,
    Product,
    Transparency,
    VastVersion,
)
from rtb.catalogue.render import MacroError, Piece

ADVERTISER = Advertiser("a", domains=("https://www.Shop.example/",))
PRODUCT = Product("p 1", "a", "Shoe \"9\" <b> & 'co' \\", "45.00 USD", product_type="Shoes")

FILLED = {
    Hole.BID_ID: "BID", Hole.WIDTH: "300", Hole.HEIGHT: "250", Hole.CACHEBUSTER: "CB",
    Hole.AUCTION_ID: "AUC", Hole.IMP_ID: "IMP", Hole.NATIVE: "NAT",
}  # fmt: skip
NOTICE = "https://bid.example/n/"
SHORT = {Hole.CLICK_URL: "click", Hole.IMPRESSION_URL: "imp", Hole.VIEW_URL: "view"}
PIXEL = (
    '<img src="{}" width="1" height="1" alt="" style="position:absolute;visibility:hidden">'
).format


def filled(piece: Piece) -> str:
    """What an encoder puts in the place of a piece."""
    if piece.hole is Hole.NONE:
        return piece.text.decode()
    if piece.hole in FILLED:
        return FILLED[piece.hole]
    name = SHORT.get(piece.hole) or f"video/{VideoEvent(piece.event).name}"
    url = f"{NOTICE}{name}?a=1&to={piece.text.decode()}"
    return html.escape(url) if piece.escape is Escape.HTML else url


def fill(pieces: Sequence[Piece]) -> dict[str, Any]:
    """The bid that a frame completes."""
    text = "".join(filled(piece) for piece in pieces)
    bid: dict[str, Any] = msgspec.json.decode('{"id":"1"' + text + "}")
    return bid


def markup_of(creative: Creative, product: Product | None = None) -> list[Piece]:
    """The pieces of a creative's markup, literals as the browser sees them."""
    frame = render.frame(creative, ADVERTISER, product)
    start = next(n for n, piece in enumerate(frame) if b'"adm":"' in piece.text)
    pieces = frame[start:]
    pieces[0] = Piece(pieces[0].text.split(b'"adm":"')[1], Hole.NONE)
    pieces[-1] = Piece(pieces[-1].text[:-1], Hole.NONE)
    return [
        Piece(msgspec.json.decode(b'"' + each.text + b'"').encode(), *each[1:])
        for each in pieces
        if each.text or each.hole
    ]


CLICK_PAGE = b"https%3A%2F%2Fshop.example%2F%3Fa%3D1%26b%3D2"
CLICK = Piece(CLICK_PAGE, Hole.CLICK_URL, 0, Escape.HTML)
SEEN = Piece(b"", Hole.IMPRESSION_URL, 0, Escape.HTML)


def literal(text: str) -> Piece:
    return Piece(text.encode(), Hole.NONE)


def pixels(*urls: str) -> str:
    """Our own pixel, then those of the advertiser."""
    own = PIXEL(html.escape(f"{NOTICE}imp?a=1&to="))
    return own + "".join(PIXEL(html.escape(url)) for url in urls)


def banner(**changes: Any) -> Creative:
    fields: dict[str, Any] = {
        "id": "cr", "advertiser": "a", "type": "image", "width": 300, "height": 250,
        "image_url": "https://c.example/b.png", "landing_page": "https://shop.example/?a=1&b=2",
    }  # fmt: skip
    return Creative(**fields | changes)


def page(text: str, **changes: Any) -> Creative:
    return Creative("cr", "a", "html", html=text, **changes)


def test_frame_says_all_that_exchanges_ask_for() -> None:
    """Static fields of a bid are in the frame, and what is unset is absent."""
    creative = banner(
        attr=(1, 3),
        api=(5,),
        language="en-GB",
        rating=1,
        bundle="com.shop",
        categories={"6": ("123",), "1": ("IAB18-5",)},
    )
    bid = fill(render.frame(creative, ADVERTISER, None))
    markup = bid.pop("adm")
    expected = {
        "id": "1", "adomain": ["www.shop.example"], "crid": "cr", "adid": "cr",
        "cat": ["IAB18-5"], "cattax": 1, "attr": [1, 3], "apis": [5], "language": "en", "mtype": 1,
        "w": 300, "h": 250, "qagmediarating": 1, "bundle": "com.shop",
        "iurl": "https://c.example/b.png",
    }  # fmt: skip
    assert expected == bid
    page = "https%3A%2F%2Fshop.example%2F%3Fa%3D1%26b%3D2"
    assert f'<a href="{NOTICE}click?a=1&amp;to={page}" target="_blank"' in markup


def test_flexible_creative_takes_the_size_of_the_slot() -> None:
    """Without a size of its own, width and height are holes, in the bid and in the markup."""
    bid = fill(render.frame(page("<div style='width:{width}px'>{bid_id}</div>"), ADVERTISER, None))
    assert (bid["w"], bid["h"]) == (300, 250)
    assert bid["adm"] == "<div style='width:300px'>BID</div>" + pixels()


def test_native_frame_leaves_its_markup_to_the_encoder() -> None:
    """The assets depend on the request."""
    creative = Creative("cr", "a", "native", native=Native("T"), landing_page="https://s.example/")
    bid = fill(render.frame(creative, ADVERTISER, None))
    assert (bid["adm"], bid["mtype"]) == ("NAT", 4)
    assert "w" not in bid


def test_video_frame_has_duration_and_protocol() -> None:
    """A wrapper has the protocol number of wrappers."""
    creative = Creative(
        "v", "a", "video", vast_tag_url="https://v.example/", duration_s=15, vast_version="4.2"
    )
    bid = fill(render.frame(creative, ADVERTISER, None))
    assert (bid["dur"], bid["protocol"], bid["mtype"]) == (15, 14, 2)


def test_image_counts_impression_and_click() -> None:
    """The link is our click URL, and our pixel stands before the advertiser's."""
    pieces = markup_of(banner(alt="A", impression_urls=("https://t.example/i?a=1&b={bid_id}",)))
    open_pixel, close_pixel = PIXEL("|").split("|")
    expected = [
        literal('<a href="'),
        CLICK,
        literal(
            '" target="_blank" rel="noopener"><img src="https://c.example/b.png" width="300"'
            f' height="250" alt="A" style="border:0"></a>{open_pixel}'
        ),
        SEEN,
        literal(f"{close_pixel}{open_pixel}https://t.example/i?a=1&amp;b="),
        Piece(b"", Hole.BID_ID),
        literal(close_pixel),
    ]
    assert expected == pieces


def test_html_counts_clicks_where_it_says_so() -> None:
    """Notice URLs are escaped for where they stand; our pixel comes last, once."""
    text = "<a href='{click_url}'>{width}</a><i data-u='x?u={click_url|url}&v={view_url|url}'></i>"
    creative = page(f"{text}<script>f('{{click_tracking_url|js}}')</script>{{impression_url|raw}}")
    pieces = markup_of(msgspec.structs.replace(creative, landing_page=banner().landing_page))
    holes = [piece for piece in pieces if piece.hole]
    expected = [
        CLICK,
        Piece(b"", Hole.WIDTH),
        Piece(CLICK_PAGE, Hole.CLICK_URL, 0, Escape.URL),
        Piece(b"", Hole.VIEW_URL, 0, Escape.URL),
        Piece(b"", Hole.CLICK_URL),
        Piece(b"", Hole.IMPRESSION_URL),
    ]
    assert expected == holes
    assert markup_of(page("x"))[1] == SEEN


def test_notice_urls_in_urls_of_the_advertiser_are_percent_encoded() -> None:
    """They stand within another URL there."""
    creative = banner(impression_urls=("https://t.example/?view={view_url}",))
    assert Piece(b"", Hole.VIEW_URL, 0, Escape.URL) in markup_of(creative)


def test_video_counts_impression_view_events_and_click() -> None:
    """Every event that we count has its hole, and a click leads to the landing page."""
    creative = Creative(
        "v", "a", "video", media_files=(MediaFile("https://c.example/v", "video/mp4"),),
        duration_s=15, vast_version="4.2", landing_page="https://shop.example/?a=1&b=2",
    )  # fmt: skip
    holes = [piece for piece in markup_of(creative) if piece.hole]
    expected = [
        Piece(b"", Hole.IMPRESSION_URL),
        Piece(b"", Hole.VIEW_URL),
        Piece(b"", Hole.BID_ID),
        *(Piece(b"", Hole.VIDEO_URL, int(event)) for event in VideoEvent),
        Piece(CLICK_PAGE, Hole.CLICK_URL),
    ]
    assert expected == holes


def test_wrapper_counts_clicks_that_lead_elsewhere() -> None:
    """The wrapped document has the landing page; without 4.0 there is no report of views."""
    creative = Creative("v", "a", "video", vast_tag_url="https://v.example/", duration_s=15)
    holes = [piece for piece in markup_of(creative) if piece.hole]
    expected = [
        Piece(b"", Hole.IMPRESSION_URL),
        *(Piece(b"", Hole.VIDEO_URL, int(event)) for event in VideoEvent),
        Piece(b"", Hole.CLICK_URL),
    ]
    assert expected == holes


TARGETS = [
    (None, ""),
    ("https://s.example/?a=ü&b={}", "https%3A%2F%2Fs.example%2F%3Fa%3D%C3%BC%26b%3D%7B%7D"),
    ("https://s.example/{product.id}", "https%3A%2F%2Fs.example%2Fp%25201"),
    ("https://s.example/?b={bid_id}&{x}", "https%3A%2F%2Fs.example%2F%3Fb%3D{bid_id}%26%7Bx%7D"),
]


@pytest.mark.parametrize(("landing_page", "expected"), TARGETS)
def test_click_target_leaves_what_the_auction_fills(
    landing_page: str | None, expected: str
) -> None:
    """The only braces in it are those of macros, as what is signed has them filled."""
    assert expected == render.click_target(banner(landing_page=landing_page), PRODUCT)


def test_click_url_needs_somewhere_to_lead() -> None:
    """Without a landing page, and within one, there can be no click URL."""
    with pytest.raises(MacroError, match="landing_page"):
        render.markup(page("{click_url}"), None)
    with pytest.raises(MacroError, match="landing_page"):
        render.click_target(banner(landing_page="https://s.example/{click_url}"), None)


NASTY = [
    '"', "\\", "</script>", "]]>", "\u2028", "\t\n", "é漢😀", "\x7f", '\\"', "{", "}", "{}", "${",
    "${AUCTION_PRICE}", "%%CLICK%%", "{bid}", "<!--", "'", "&amp;", "\\u0022", '","adm":"',
]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
def test_advertisers_markup_arrives_as_written(text: str) -> None:
    """Escaping for JSON is undone by reading JSON; nothing else touches the advertiser's HTML."""
    written = f"<p>{text}</p>{text}"
    assert written + pixels() == fill(render.frame(page(written), ADVERTISER, None))["adm"]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_markup_arrives_as_written(text: str) -> None:
    """For every text without macros."""
    written = text.replace("{", "(")
    assert written + pixels() == fill(render.frame(page(written), ADVERTISER, None))["adm"]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])), st.text("{}bid_width|", max_size=9))
def test_any_frame_is_json(text: str, more: str) -> None:
    """Whatever people write, the bid can be read."""
    creative = banner(id=text or "x", alt=text + more, language=None)
    assert fill(render.frame(creative, ADVERTISER, None))["crid"] == (text or "x")


def test_auction_macros_are_left_alone() -> None:
    """The exchange replaces plain text, so an encoded macro would stay unreplaced."""
    url = "https://t.example/?p=${AUCTION_PRICE}&c={cachebuster}"
    markup = fill(render.frame(banner(impression_urls=(url,)), ADVERTISER, None))["adm"]
    assert 'src="https://t.example/?p=${AUCTION_PRICE}&amp;c=CB"' in markup


def test_every_hole_has_a_macro() -> None:
    """All macros of the auction fill."""
    text = "{bid_id} {auction_id} {imp_id} {cachebuster} {width} {height}"
    bid = fill(render.frame(page(text), ADVERTISER, None))
    assert bid["adm"] == "BID AUC IMP CB 300 250" + pixels()


ESCAPES = [
    ("<b>{product.title}</b>", f"<b>{html.escape(PRODUCT.title)}</b>"),
    ("{product.title|url}", "Shoe%20%229%22%20%3Cb%3E%20%26%20%27co%27%20%5C"),
    (
        "<script>t='{product.title|js}'</script>",
        r"<script>t='Shoe \"9\" \u003cb\u003e \u0026 \u0027co\u0027 \\'</script>",
    ),
    ("{product.category}", "Shoes"),
]


@pytest.mark.parametrize(("text", "expected"), ESCAPES)
def test_product_fields_are_escaped_for_where_they_stand(text: str, expected: str) -> None:
    """A title is a feed's text: it must not become markup or script."""
    markup = render.markup(page(text), PRODUCT)
    assert expected + PIXEL("{impression_url|html}") == markup


def test_product_fields_in_urls_are_percent_encoded() -> None:
    """In a URL field the default escape is that of URLs."""
    creative = banner(image_url="https://c.example/{product.id}?t={product.title}")
    assert 'src="https://c.example/p%201?t=Shoe%20%229%22' in render.markup(creative, PRODUCT)


@pytest.mark.parametrize(
    "text", ["{product.colour}", "{product.title|sql}", "{landing_page}", "{view_url|sql}"]
)
def test_macro_that_cannot_be_filled_is_refused(text: str) -> None:
    """A wrong macro is an error at import, not a hole in an ad."""
    with pytest.raises(MacroError):
        render.markup(page(text), PRODUCT)
    with pytest.raises(MacroError):
        render.markup(page("{product.title}"), None)


def test_product_text_is_not_expanded_again() -> None:
    """A title that looks like a product macro stays a title."""
    product = Product("p", "a", "{product.price}", "1 USD")
    assert render.markup(page("{product.title}"), product).startswith("{product.price}<img ")


def test_assets_of_a_native_ad() -> None:
    """Each asset is a row: kind, type, text, size; link and trackers last."""
    native = Native(
        "{product.brand} title",
        icon=Image("https://c.example/i.jpg", 80, 80),
        main=Image("https://c.example/m.webp", 1200, 627),
        sponsored="Shop",
        cta="Buy",
        data={"3": "4.5"},
    )
    creative = Creative(
        "n",
        "a",
        "native",
        native=native,
        landing_page="https://s.example/",
        impression_urls=("https://t.example/i",),
    )
    product = Product("p", "a", "T", "1 USD", brand="Acme & Co")
    rows = [asset[:5] for asset in render.assets(creative, product)]
    expected = [
        (render.TITLE, 0, "Acme & Co title", 0, 0),
        (render.IMAGE, 1, "https://c.example/i.jpg", 80, 80),
        (render.IMAGE, 3, "https://c.example/m.webp", 1200, 627),
        (render.DATA, 1, "Shop", 0, 0),
        (render.DATA, 12, "Buy", 0, 0),
        (render.DATA, 3, "4.5", 0, 0),
        (render.LINK, 0, "https%3A%2F%2Fs.example%2F", 0, 0),
        (render.IMPRESSION, 0, "https://t.example/i", 0, 0),
    ]
    assert expected == rows


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_asset_text_survives_json_in_json(text: str) -> None:
    """An asset stands in a JSON string inside `adm`, itself a JSON string."""
    outer = msgspec.json.decode(b'"{\\"t\\":\\"' + render.asset_text(text) + b'\\"}"')
    assert text == msgspec.json.decode(outer)["t"]


def test_native_video_is_a_document_with_its_facts() -> None:
    """A video asset carries duration, types and protocol for the choice of assets."""
    creative = Creative(
        "n",
        "a",
        "native",
        native=Native("T"),
        landing_page="https://s.example/",
        media_files=(MediaFile("https://c.example/v.mp4", "video/mp4", 640, 360),),
        duration_s=10,
        vast_version="4.1",
    )
    video = next(each for each in render.assets(creative, None) if each.kind == render.VIDEO)
    assert (video.dur_s, video.mime, video.protocol) == (10, 1 << MIMES["video/mp4"], 11)
    assert "<AdServingId>n</AdServingId>" in video.text
    assert not render.has_hole(video.text)
    assert "about:blank" in video.text
    assert "https://s.example/" in video.text


SECURE = [
    (banner(), True),
    (banner(image_url="http://c.example/b.png"), False),
    (page("<img src='HTTP://c.example/x'>"), False),
    (banner(landing_page="http://shop.example/"), False),
    (page("<svg xmlns='http://www.w3.org/2000/svg'/>"), True),
]


@pytest.mark.parametrize(("creative", "expected"), SECURE)
def test_secure_means_no_url_without_tls(creative: Creative, expected: bool) -> None:
    """Names of XML namespaces are no URLs."""
    assert expected == render.is_secure(creative, None)


TYPES = [
    (banner(), 2),
    (page("<b>x</b>"), 2),
    (page("<SCRIPT>x</SCRIPT>"), 3),
    (page("<iframe src='https://x.example/'></iframe>"), 4),
    (page("<script>x</script>", btype=1), 1),
]


@pytest.mark.parametrize(("creative", "expected"), TYPES)
def test_banner_type_is_read_from_the_markup(creative: Creative, expected: int) -> None:
    """Exchanges block by it; what the advertiser says comes first."""
    assert expected == render.banner_type(creative)


@pytest.mark.parametrize(("told", "adrender"), [({}, 0), ({"adrender": True}, 1)])
def test_transparency_says_who_renders_it(told: dict[str, bool], adrender: int) -> None:
    """An exchange can tell whether anybody shows who is behind an ad: by default not the ad."""
    dsa = Transparency("Shop", "Agency", **told)
    frame = render.frame(banner(), Advertiser("a", domains=("a.test",), dsa=dsa), None)
    (piece,) = (piece for piece in frame if piece.hole is Hole.DSA)
    expected = {"dsa": {"behalf": "Shop", "paid": "Agency", "adrender": adrender}}
    assert {"ext": expected} == msgspec.json.decode(b"{" + piece.text.removeprefix(b",") + b"}")


def test_mimes_are_masks() -> None:
    """By type, else by extension; unknown is 0, which is refused where types are listed."""
    assert render.creative_mimes(banner()) == 1 << MIMES["image/png"]
    assert render.creative_mimes(banner(image_url="https://c.example/x")) == 0
    assert render.creative_mimes(page("x", mime="text/x")) == 0
    files = (MediaFile("u", "video/mp4"), MediaFile("u", "video/webm; codecs=vp9"))
    both = Creative("v", "a", "video", media_files=files)
    assert render.creative_mimes(both) == 1 << MIMES["video/mp4"] | 1 << MIMES["video/webm"]


SAME_TYPES = [
    (page("x"), "text/html"),
    (page("x"), "application/xhtml+xml"),
    (page("x"), "text/javascript"),
    (page("x"), "application/javascript"),
    (page("x"), "application/x-javascript"),
    (page("x", mime="text/javascript"), "text/html"),
    (banner(mime="image/jpg"), "image/jpeg"),
    (Creative("v", "a", "audio", media_files=(MediaFile("u", "audio/mp3"),)), "audio/mpeg"),
    (Creative("v", "a", "audio", media_files=(MediaFile("u", "audio/mpeg"),)), "audio/mp3"),
    (
        Creative("v", "a", "video", media_files=(MediaFile("u", "application/x-mpegURL"),)),
        "application/vnd.apple.mpegurl",
    ),
]


@pytest.mark.parametrize(("creative", "listed"), SAME_TYPES)
def test_a_type_has_several_names(creative: Creative, listed: str) -> None:
    """A list of types takes what is the same under another name."""
    assert render.creative_mimes(creative) & 1 << MIMES[listed]


SCRIPTS = [
    ("<script>'{product.title|js}'</script>", False),
    ("<script>'{product.title}'</script>", True),
    ("<p>{product.title}</p>", False),
    ("<script>'{product.title}'", True),
    ("<script>'{landing_page}'</script>", False),
    ("<script>'{view_url}'</script>", True),
    ("<script>'{view_url|js}'</script>", False),
]


@pytest.mark.parametrize(("text", "expected"), SCRIPTS)
def test_unsafe_script_is_noticed(text: str, expected: bool) -> None:
    """HTML escapes do not make a text safe inside a script."""
    assert expected == render.has_unsafe_script(text)


def test_versions_are_all_known() -> None:
    """Every version that the model accepts has its protocol numbers."""
    assert set(render.vast.PROTOCOLS) == set(VastVersion.__args__)
