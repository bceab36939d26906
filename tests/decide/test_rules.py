"""The rules of the core by name, on both engines: blocks, history, deals, floors, pods."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from rtb._ext.engine import Engine as CompiledEngine
from rtb.base.hashing import token_hash
from rtb.base.money import parse_micros
from rtb.base.reasons import NoBid, Reject
from rtb.base.records import OVERLAY, Decision, Dim, Opportunity, Overlay
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.model import (
    Advertiser,
    Campaign,
    Catalogue,
    Creative,
    Deal,
    ExcludePurchased,
    Flight,
    FrequencyCap,
    Goal,
    LineItem,
    MediaFile,
    Native,
    Product,
    Segment,
    Transparency,
)
from rtb.catalogue.snapshot import Snapshot
from rtb.decide.engine import Engine as ReadableEngine
from rtb.exchanges.decode import decode
from rtb.exchanges.settings import Exchange
from rtb.profiles import codec
from rtb.server import settings
from tests.decide.worlds import NOW_MS

RATES = settings.load_rates(settings.CONFIGS / "rates.toml")
ZONES = settings.load_zones(settings.CONFIGS / "zones.toml", NOW_MS)
NOW_S = NOW_MS // 1000
DAY_S = 86_400


@pytest.fixture(params=[ReadableEngine, CompiledEngine], ids=["readable", "compiled"])
def engine(request: pytest.FixtureRequest) -> Any:
    """Each engine in turn."""
    return request.param


def image(name: str, **fields: Any) -> Creative:
    """A 300x250 image."""
    return Creative(
        **{
            "id": name, "advertiser": "a", "type": "image", "width": 300, "height": 250,
            "image_url": "https://cdn.test/x.png", "landing_page": "https://shop.test/", **fields,
        }
    )  # fmt: skip


def video(name: str, seconds: int = 15, **fields: Any) -> Creative:
    """A VAST 3.0 inline video."""
    file = MediaFile(url="https://cdn.test/v.mp4", mime="video/mp4", width=640, height=360)
    return Creative(
        **{
            "id": name, "advertiser": "a", "type": "video", "media_files": (file,),
            "duration_s": seconds, "width": 640, "height": 360,
            "landing_page": "https://shop.test/", **fields,
        }
    )  # fmt: skip


def line(name: str, *creatives: str, cpm: str = "5", **fields: Any) -> LineItem:
    """A line item with a fixed CPM."""
    values = {"id": name, "campaign": "k", "goal": Goal(type="cpm", amount=cpm), "max_cpm": "50"}
    return LineItem(creatives=creatives, **{**values, **fields})


def snapshot(*objects: Any) -> Snapshot:
    """A compiled catalogue: advertiser "a" with campaign "k", and what is given."""
    catalogue = Catalogue()
    given = {(type(each), each.id) for each in objects}
    for each in (
        Advertiser(id="a", domains=("www.shop.test",)),
        Campaign(id="k", advertiser="a"),
    ):
        if (type(each), each.id) not in given:
            catalogue.add(each)
    for each in objects:
        assert catalogue.add(each)
    return Snapshot(*compile_snapshot(catalogue), "test")


def banner(**imp: Any) -> dict[str, Any]:
    """An impression for a 300x250 banner."""
    return {"id": "1", "banner": {"format": [{"w": 300, "h": 250}]}, **imp}


def decide(
    engine: Any,
    catalogue: Snapshot,
    *imps: dict[str, Any],
    profile: codec.Profile | None = None,
    now_ms: int = NOW_MS,
    exchange: Exchange | None = None,
    overlay: np.ndarray | None = None,
    **request: Any,
) -> SimpleNamespace:
    """Decides on a request with these impressions; names instead of numbers in the answer."""
    exchange = exchange or Exchange(name="generic", path="generic", seat="house")
    body = {"id": "r", "at": 1, "imp": list(imps or (banner(),)), **request}
    opportunity, decision = Opportunity(), Decision()
    decode(json.dumps(body).encode(), exchange, opportunity)
    terms = settings.terms_of(exchange, RATES, ZONES, 1000, 1)
    record = codec.encode(profile) if profile is not None else None
    engine(catalogue).decide(opportunity, record, terms, overlay, now_ms, decision)
    data = decision.data[0]
    head = data["head"]
    bids = [
        SimpleNamespace(
            line_item=catalogue.id_of("line_items", int(bid["line_item"])),
            creative=catalogue.id_of("creatives", int(bid["creative"])),
            **{name: bid[name].item() for name in bid.dtype.names if name not in
               ("line_item", "creative")},
        )
        for bid in data["bids"][: head["bids_count"]]
    ]  # fmt: skip
    reasons = {Reject(int(d["reason"])) for d in data["drops"][: head["drops_count"]]}
    return SimpleNamespace(
        nobid=NoBid(int(head["nobid"])),
        contextual=bool(head["contextual"]),
        cur=int(head["cur"]),
        bids=bids,
        chosen=[bid for bid in bids if bid.chosen],
        reasons=reasons,
    )


def only_reason(found: SimpleNamespace) -> Reject:
    """The one reason why nothing was bid."""
    assert 1 == len(found.reasons)
    reason: Reject = next(iter(found.reasons))
    expected = NoBid.SEAT_BLOCKED if reason == Reject.SEAT else NoBid.NO_CANDIDATE
    assert expected == found.nobid
    return reason


ONE = (image("c"), line("l", "c"))


# -- blocks of the exchange -----------------------------------------------------------------------

BLOCKS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], Reject]] = {
    # name: creative fields, impression fields, request fields, reason
    "bcat": ({"categories": {"1": ("IAB7-39",)}}, {}, {"bcat": ["IAB7-39"]},
             Reject.BLOCKED_CATEGORY),
    "bcat-parent-blocks-child": ({"categories": {"1": ("IAB7-39",)}}, {}, {"bcat": ["IAB7"]},
                                 Reject.BLOCKED_CATEGORY),
    "acat": ({"categories": {"1": ("IAB7",)}}, {}, {"acat": ["IAB1"]},
             Reject.NOT_ALLOWED_CATEGORY),
    "acat-every-category": (
        {"categories": {"1": ("IAB1-2", "IAB7-1")}}, {}, {"acat": ["IAB1"]},
        Reject.NOT_ALLOWED_CATEGORY,
    ),
    "acat-a-child-allows-no-parent": (
        {"categories": {"1": ("IAB1",)}}, {}, {"acat": ["IAB1-2"]}, Reject.NOT_ALLOWED_CATEGORY,
    ),
    "acat-of-another-taxonomy": (
        {"categories": {"1": ("IAB1",)}}, {}, {"acat": ["1"], "cattax": 6},
        Reject.NOT_ALLOWED_CATEGORY,
    ),
    "acat-unknown-category": ({}, {}, {"acat": ["IAB1"]}, Reject.NOT_ALLOWED_CATEGORY),
    "badv": ({}, {}, {"badv": ["www.shop.test"]}, Reject.BLOCKED_ADVERTISER),
    "badv-root-blocks-sub-domain": ({}, {}, {"badv": ["SHOP.test"]}, Reject.BLOCKED_ADVERTISER),
    "badv-in-another-script": ({"domains": ("xn--bcher-kva.example",)}, {},
                               {"badv": ["www.BÜCHER.example"]}, Reject.BLOCKED_ADVERTISER),
    "badv-of-another-script": ({"domains": ("shop.bücher.example",)}, {},
                               {"badv": ["xn--bcher-kva.example"]}, Reject.BLOCKED_ADVERTISER),
    "bapp": ({"bundle": "com.shop"}, {}, {"bapp": ["com.shop"]}, Reject.BLOCKED_APP),
    "battr": ({"attr": (13,)}, {"banner": {"w": 300, "h": 250, "battr": [13]}}, {},
              Reject.CREATIVE_ATTRIBUTE),
    "btype": ({"btype": 3}, {"banner": {"w": 300, "h": 250, "btype": [3]}}, {},
              Reject.CREATIVE_TYPE),
    "wseat": ({}, {}, {"wseat": ["other"]}, Reject.SEAT),
    "bseat": ({}, {}, {"bseat": ["house"]}, Reject.SEAT),
    "secure": ({"image_url": "http://cdn.test/x.png", "secure": False}, {"secure": 1}, {},
               Reject.SECURE),
    "mimes": ({}, {"banner": {"w": 300, "h": 250, "mimes": ["image/gif"]}}, {}, Reject.MIME),
    "mimes-all-unknown": ({}, {"banner": {"w": 300, "h": 250, "mimes": ["a/b"]}}, {}, Reject.MIME),
    "api-unlisted-is-unsupported": ({"api": (5,)}, {}, {}, Reject.API),
    "language": ({"language": "de"}, {}, {"wlang": ["en"]}, Reject.LANGUAGE),
    "expandable": ({"expandable": (1,)}, {"banner": {"w": 300, "h": 250, "expdir": [2]}}, {},
                   Reject.EXPANDABLE),
    "status": ({"exchange_status": {"generic": "rejected"}}, {}, {}, Reject.EXCHANGE_STATUS),
    "dsa": ({}, {}, {"regs": {"ext": {"dsa": {"dsarequired": 2}}}}, Reject.TRANSPARENCY),
}  # fmt: skip


@pytest.mark.parametrize(
    ("pubrender", "adrender", "bids"),
    [(None, False, True), (None, True, True), (0, False, False), (0, True, True),
     (1, False, True), (1, True, True), (2, False, True), (2, True, False), (7, True, True)],
)  # fmt: skip
def test_one_shows_who_is_behind_the_ad(
    engine: Any, pubrender: int | None, adrender: bool, bids: bool
) -> None:
    """Where it must be shown, not nobody does, nor both."""
    shop = Advertiser(id="a", domains=("shop.test",), dsa=Transparency("Shop", "Shop", adrender))
    told = {"dsarequired": 2} | ({} if pubrender is None else {"pubrender": pubrender})
    found = decide(engine, snapshot(shop, image("c"), line("l", "c")), regs={"ext": {"dsa": told}})
    assert (NoBid.BID if bids else NoBid.NO_CANDIDATE) == found.nobid
    assert bids or {Reject.TRANSPARENCY} == found.reasons


# Lists that are there and have an entry, and nothing in them that we understand.
UNREADABLE: tuple[object, ...] = ([{}], [True], [[]], {"a": 1}, True, ["  "])


@pytest.mark.parametrize("entries", UNREADABLE, ids=str)
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("wseat", Reject.SEAT), ("acat", Reject.NOT_ALLOWED_CATEGORY),
        ("wlang", Reject.LANGUAGE), ("wlangb", Reject.LANGUAGE),
    ],
)  # fmt: skip
def test_an_unreadable_allow_list_allows_nothing(
    engine: Any, key: str, reason: Reject, entries: object
) -> None:
    """Who is allowed is not guessed where the list that says it cannot be read."""
    creative = image("c", language="de", categories={"1": ("IAB7",)})
    catalogue = snapshot(creative, line("l", "c"))

    assert reason == only_reason(decide(engine, catalogue, **{key: entries}))


@pytest.mark.parametrize("entries", [[], None, "", [None, ""]], ids=str)
def test_an_allow_list_of_nothing_is_none(engine: Any, entries: object) -> None:
    """An empty list, or nothing at all, allows all."""
    catalogue = snapshot(image("c", language="de"), line("l", "c"))
    lists = dict.fromkeys(("wseat", "acat", "wlang", "wlangb"), entries)

    assert NoBid.BID == decide(engine, catalogue, **lists).nobid


@pytest.mark.parametrize("said", ["www.bücher.example", "http://Bücher.example/x"])
@pytest.mark.parametrize("wanted", ["bücher.example", "xn--bcher-kva.example"])
def test_domains_of_any_script_are_found(engine: Any, wanted: str, said: str) -> None:
    """A domain is targeted in its own script or encoded, whichever way the request writes it."""
    targeting = {"key": "domain", "in": [wanted]}
    catalogue = snapshot(image("c"), line("l", "c", targeting=targeting))

    assert NoBid.BID == decide(engine, catalogue, site={"domain": said}).nobid
    encoded = said.replace("bücher", "xn--bcher-kva").replace("Bücher", "XN--bcher-kva")
    assert NoBid.BID == decide(engine, catalogue, site={"domain": encoded}).nobid
    assert NoBid.NO_CANDIDATE == decide(engine, catalogue, site={"domain": "ü.example"}).nobid


@pytest.mark.parametrize("name", BLOCKS)
def test_block(engine: Any, name: str) -> None:
    """What the exchange blocks is dropped for that reason, and is bid on without the block."""
    creative, imp, request, reason = BLOCKS[name]
    catalogue = snapshot(image("c", **creative), line("l", "c"))
    imp = {**imp, "id": "1"} if "banner" in imp else banner(**imp)

    assert reason == only_reason(decide(engine, catalogue, imp, **request))


@pytest.mark.parametrize(
    ("categories", "request_"),
    [
        ({"1": ("IAB1-2", "IAB7-1")}, {"acat": ["IAB1", "IAB7-1"]}),
        ({"1": ("IAB1",)}, {"acat": ["iab1", "IAB3"]}),
        ({"1": ("IAB1",), "6": ("52",)}, {"acat": ["IAB1"]}),
        ({"1": ("IAB1",), "6": ("52",)}, {"acat": ["52"], "cattax": 6}),
    ],
)
def test_what_acat_allows(
    engine: Any, categories: dict[str, tuple[str, ...]], request_: dict[str, Any]
) -> None:
    """Every category in the list's taxonomy is there, itself or as part of its tier one."""
    catalogue = snapshot(image("c", categories=categories), line("l", "c"))

    assert NoBid.BID == decide(engine, catalogue, **request_).nobid


@pytest.mark.parametrize("name", [n for n in BLOCKS if n not in ("api-unlisted-is-unsupported",
                                                                 "status")])  # fmt: skip
def test_without_the_block_it_bids(engine: Any, name: str) -> None:
    """The block was the only reason."""
    catalogue = snapshot(image("c", **BLOCKS[name][0]), line("l", "c"))

    assert NoBid.BID == decide(engine, catalogue).nobid


AV_BLOCKS: dict[str, tuple[dict[str, Any], dict[str, Any], Reject]] = {
    "protocol": ({}, {"protocols": [2]}, Reject.PROTOCOL),
    "too-long": ({}, {"maxduration": 10}, Reject.DURATION),
    "too-short": ({}, {"minduration": 20}, Reject.DURATION),
    "rqddurs-are-exact": ({}, {"rqddurs": [10, 20]}, Reject.DURATION),
    "own-skip-where-none-is-allowed": ({"skip_after_s": 5}, {"skip": 0}, Reject.SKIP),
    "attr-16-where-publisher-skips": ({"attr": (16,)}, {"skip": 1}, Reject.CREATIVE_ATTRIBUTE),
    "linearity": ({}, {"linearity": 2}, Reject.LINEARITY),
    "mimes": ({}, {"mimes": ["video/webm"]}, Reject.MIME),
    "battr": ({"attr": (13,)}, {"battr": [13]}, Reject.CREATIVE_ATTRIBUTE),
    "api": ({"api": (7,)}, {"api": [2]}, Reject.API),
    "delivery": ({}, {"delivery": [1]}, Reject.DELIVERY),
}


@pytest.mark.parametrize("name", AV_BLOCKS)
def test_video_block(engine: Any, name: str) -> None:
    """What a video placement does not take is dropped for that reason."""
    creative, av, reason = AV_BLOCKS[name]
    catalogue = snapshot(video("c", **creative), line("l", "c"))
    imp = {"id": "1", "video": {"mimes": ["video/mp4"], **av}}

    assert reason == only_reason(decide(engine, catalogue, imp))


def _file(kind: str, kbps: int | None = None, **fields: Any) -> MediaFile:
    """A rendition: its subtype, its rate."""
    values = {"width": 640, "height": 360, "bitrate_kbps": kbps, **fields}
    mime = {"m3u8": "application/x-mpegURL"}.get(kind, f"video/{kind}")
    return MediaFile(url=f"https://cdn.test/{kind}", mime=mime, **values)


RENDITIONS: dict[str, tuple[tuple[MediaFile, ...], dict[str, Any], Reject]] = {
    "the-one-that-plays-is-too-fast": (
        (_file("m3u8"), _file("webm", 900)),
        {"mimes": ["video/webm"], "maxbitrate": 800}, Reject.BITRATE,
    ),
    "another-of-its-type-fits": (
        (_file("mp4", 4000), _file("mp4", 700)),
        {"mimes": ["video/mp4"], "maxbitrate": 800}, Reject.NONE,
    ),
    "only-another-type-fits": (
        (_file("mp4", 4000), _file("webm", 700)),
        {"mimes": ["video/mp4"], "maxbitrate": 800}, Reject.BITRATE,
    ),
    "too-slow": ((_file("mp4", 300),), {"minbitrate": 301}, Reject.BITRATE),
    "a-rate-that-nobody-knows": ((_file("mp4"),), {"minbitrate": 301, "maxbitrate": 302},
                                 Reject.NONE),
    "the-one-that-streams-is-too-fast": (
        (_file("mp4", 700), _file("webm", 900, delivery="streaming")),
        {"maxbitrate": 800, "delivery": [1], "mimes": []}, Reject.DELIVERY,
    ),
    "types-that-nobody-knows": (
        (MediaFile(url="https://cdn.test/v", mime="video/x-mp4", width=640, height=360),),
        {"mimes": ["video/mp4"]}, Reject.MIME,
    ),
    "no-bars": ((_file("mp4"),), {"w": 640, "h": 480, "boxingallowed": 0}, Reject.SIZE),
    "bars-are-allowed": ((_file("mp4"),), {"w": 640, "h": 480}, Reject.NONE),
    "the-same-ratio-in-another-size": (
        (_file("mp4"),), {"w": 1280, "h": 720, "boxingallowed": 0}, Reject.NONE,
    ),
    "two-percent-off": (
        (_file("mp4"),), {"w": 640, "h": 367, "boxingallowed": 0}, Reject.NONE,
    ),
    "more-than-two-percent-off": (
        (_file("mp4"),), {"w": 640, "h": 368, "boxingallowed": 0}, Reject.SIZE,
    ),
    "a-player-without-a-size": ((_file("mp4"),), {"w": 640, "boxingallowed": 0}, Reject.NONE),
    "one-of-two-ratios-fits": (
        (_file("mp4"), _file("webm", width=640, height=480)),
        {"w": 320, "h": 240, "boxingallowed": 0, "mimes": []}, Reject.NONE,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RENDITIONS)
def test_one_rendition_fits_in_all_respects(engine: Any, name: str) -> None:
    """A player takes one file: its type, its rate, its delivery and its shape have to fit."""
    files, av, reason = RENDITIONS[name]
    catalogue = snapshot(video("c", media_files=files, width=None, height=None), line("l", "c"))
    found = decide(engine, catalogue, {"id": "1", "video": {"mimes": ["video/mp4"], **av}})

    assert {reason} == (found.reasons or {Reject.NONE})


def test_a_creative_says_the_type_that_its_files_do_not(engine: Any) -> None:
    """Where no file has a type that lists know, the creative's own counts for them."""
    file = MediaFile(url="https://cdn.test/v", mime="video/x-mp4", width=640, height=360)
    catalogue = snapshot(video("c", media_files=(file,), mime="video/mp4"), line("l", "c"))
    imp = {"id": "1", "video": {"mimes": ["video/mp4"]}}

    assert NoBid.BID == decide(engine, catalogue, imp).nobid


@pytest.mark.parametrize(("h", "bids"), [(360, True), (480, False)])
def test_a_tag_has_the_shape_that_its_creative_says(engine: Any, h: int, bids: bool) -> None:
    """Where no bars are allowed, a wrapper goes by the size of the creative."""
    tag = {"media_files": (), "vast_tag_url": "https://ads.test/vast", "mime": "video/mp4"}
    av = {"mimes": ["video/mp4"], "w": 640, "h": h, "boxingallowed": 0}
    found = decide(engine, snapshot(video("c", **tag), line("l", "c")), {"id": "1", "video": av})

    assert bids == bool(found.chosen)


def _asset(number: int, required: int, **asked: Any) -> dict[str, Any]:
    return {"id": number, "required": required, **asked}


@pytest.mark.parametrize(
    ("assets", "bids"),
    [
        ([_asset(1, 1, title={"len": 9}), _asset(1, 1, data={"type": 12})], False),
        ([_asset(1, 0, title={"len": 9}), _asset(1, 1, title={"len": 8})], False),
        ([_asset(1, 1, title={"len": 9}), _asset(1, 0, data={"type": 12})], True),
        ([_asset(1, 0, title={"len": 9}), _asset(1, 1, title={"len": 9})], True),
        ([_asset(1, 1, title={"len": 9}), _asset(2, 1, data={"type": 12})], True),
    ],
)
def test_native_assets_of_one_id(engine: Any, assets: list[dict[str, Any]], bids: bool) -> None:
    """One of an id is answered, the first: nothing is bid where another one is required too."""
    native = Native(title="T", cta="Buy")
    ad = Creative("c", "a", "native", native=native, landing_page="https://shop.test/")
    # An impression before it asks for the same ids.
    imps = [
        {"id": str(n), "native": {"request": json.dumps({"ver": "1.2", "assets": asked})}}
        for n, asked in enumerate([[_asset(1, 1, img={"type": 1})], assets])
    ]
    found = decide(engine, snapshot(ad, line("l", "c")), *imps)

    assert bids == bool(found.chosen)
    assert {Reject.NATIVE_ASSET} == found.reasons


@pytest.mark.parametrize(
    ("request_", "nobid"),
    [
        ({"wseat": ["q"]}, NoBid.SEAT_BLOCKED),
        ({"bseat": ["house", "ours"]}, NoBid.SEAT_BLOCKED),
        ({"wseat": ["ours"], "bseat": ["ours"]}, NoBid.SEAT_BLOCKED),
        ({"wseat": ["ours"]}, NoBid.NO_CANDIDATE),
        ({"wseat": ["house"]}, NoBid.BID),
        ({"wseat": ["theirs"]}, NoBid.SEAT_BLOCKED),
        ({"bseat": ["house"]}, NoBid.NO_CANDIDATE),
    ],
)
def test_a_request_that_no_seat_may_answer(
    engine: Any, request_: dict[str, Any], nobid: NoBid
) -> None:
    """It says so only where the default seat and every one of this exchange is shut out."""
    other = Advertiser(id="b", domains=("b.test",), seats={"generic": "ours", "else": "theirs"})

    assert nobid == decide(engine, snapshot(*ONE, other), **request_).nobid


def test_size_union_of_format_and_wh(engine: Any) -> None:
    """Both `format` and w/h are sizes that fit."""
    catalogue = snapshot(*ONE)
    imp = {"id": "1", "banner": {"w": 300, "h": 250, "format": [{"w": 728, "h": 90}]}}

    assert (300, 250) == tuple(
        getattr(decide(engine, catalogue, imp).chosen[0], name) for name in ("w", "h")
    )


COMMON_LISTS = (
    ["image/jpeg", "image/png", "image/gif", "text/javascript"],
    ["image/jpeg", "application/javascript"],
    ["image/gif", "Application/X-Javascript"],
    ["application/xhtml+xml"],
)


@pytest.mark.parametrize("mimes", COMMON_LISTS)
def test_markup_is_taken_by_the_lists_of_banners(engine: Any, mimes: list[str]) -> None:
    """Whoever takes a script takes the markup that it stands in."""
    page = image("c", type="html", html="<b>x</b>", image_url=None)
    imp = {"id": "1", "banner": {"w": 300, "h": 250, "mimes": mimes}}

    assert NoBid.BID == decide(engine, snapshot(page, line("l", "c")), imp).nobid


def test_responsive_creative_takes_the_first_format(engine: Any) -> None:
    """A creative without a size is bid in the size that is offered first."""
    flexible = image("c", type="html", html="<b>x</b>", width=None, height=None, image_url=None)
    found = decide(
        engine, snapshot(flexible, line("l", "c")),
        {"id": "1", "banner": {"format": [{"w": 970, "h": 250}, {"w": 300, "h": 250}]}},
    )  # fmt: skip

    assert (970, 250) == (found.chosen[0].w, found.chosen[0].h)


@pytest.mark.parametrize(
    ("range_", "fits"),
    [
        ({"wmin": 300, "wmax": 300, "hmin": 250, "hmax": 250}, True),
        ({"wmin": 200, "wmax": 400, "hmin": 100, "hmax": 300}, True),
        ({"wmin": 200}, True),
        ({"hmax": 250}, True),
        ({"wmin": 301}, False),
        ({"wmax": 299}, False),
        ({"hmin": 251}, False),
        ({"wmin": 200, "hmax": 249}, False),
        ({}, False),
    ],
)
def test_a_range_of_sizes(engine: Any, range_: dict[str, int], fits: bool) -> None:
    """What a banner of OpenRTB 2.0 to 2.5 takes where it says no size, each end with it."""
    found = decide(engine, snapshot(*ONE), {"id": "1", "banner": range_})

    assert [(300, 250)] * fits == [(one.w, one.h) for one in found.chosen]


@pytest.mark.parametrize(
    ("range_", "size"),
    [
        ({"wmin": 200, "wmax": 400, "hmin": 100, "hmax": 300}, (400, 300)),
        ({"wmin": 200, "hmax": 300}, (200, 300)),
        ({"wmin": 200, "wmax": 400}, None),
    ],
)
def test_a_responsive_creative_fills_a_range(
    engine: Any, range_: dict[str, int], size: tuple[int, int] | None
) -> None:
    """As large as it may be; without both sides it has no size to be bid in."""
    flexible = image("c", type="html", html="<b>x</b>", width=None, height=None, image_url=None)
    catalogue = snapshot(flexible, line("l", "c"))
    found = decide(engine, catalogue, {"id": "1", "banner": range_})

    assert ([size] if size else []) == [(one.w, one.h) for one in found.chosen]


# -- the person -----------------------------------------------------------------------------------

PRODUCT = Product(
    id="p", advertiser="a", title="Boots", price="9 USD", link="https://shop.test/p",
    image_link="https://cdn.test/p.png", product_type="Shoes > Boots",
)  # fmt: skip


def _bought(dim: Dim, name: str, days_ago: int) -> codec.Profile:
    hashes = {token_hash(dim, name.encode()): NOW_S - days_ago * DAY_S}
    return codec.Profile(items=hashes) if dim == Dim.ITEM else codec.Profile(categories=hashes)


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (_bought(Dim.ITEM, "a/p", 5), Reject.PURCHASED_ITEM),
        (_bought(Dim.ITEM, "a/p", 40), None),
        (_bought(Dim.ITEM, "a/other", 5), None),
        (_bought(Dim.CATEGORY, "a/Shoes > Boots", 5), Reject.PURCHASED_CATEGORY),
        (_bought(Dim.CATEGORY, "a/Shoes", 5), Reject.PURCHASED_CATEGORY),
        (_bought(Dim.CATEGORY, "b/Shoes", 5), None),
        (codec.Profile(opt_outs={token_hash(Dim.OPT_OUT, b"a")}), Reject.OPTED_OUT),
        (None, None),
    ],
    ids=["item", "item-long-ago", "other-item", "category", "parent-category", "other-shop",
         "opt-out", "stranger"],
)  # fmt: skip
def test_history(engine: Any, profile: codec.Profile | None, reason: Reject | None) -> None:
    """What a person bought lately, or refused, is left out; nothing else is."""
    bought = ExcludePurchased(item_days=30, category_days=10)
    catalogue = snapshot(PRODUCT, image("c", product="p"), line("l", "c", exclude_purchased=bought))
    found = decide(engine, catalogue, profile=profile)

    assert (reason is None) == (found.nobid == NoBid.BID)
    assert reason is None or {reason} == found.reasons


def test_out_of_stock(engine: Any) -> None:
    """A product that is sold out is not advertised, to anybody."""
    import msgspec

    sold_out = msgspec.structs.replace(PRODUCT, availability="out of stock")
    catalogue = snapshot(sold_out, image("c", product="p"), line("l", "c"))

    assert Reject.OUT_OF_STOCK == only_reason(decide(engine, catalogue))


@pytest.mark.parametrize(
    ("count", "age_s", "capped"), [(2, 100, True), (1, 100, False), (2, DAY_S + 1, False)]
)
def test_frequency_cap(engine: Any, count: int, age_s: int, capped: bool) -> None:
    """A cap of two a day holds for a day from the window's start."""
    caps = {token_hash(Dim.CAP, b"line_item/l/86400"): (NOW_S - age_s, count)}
    catalogue = snapshot(
        image("c"),
        line("l", "c", frequency_caps=(FrequencyCap(level="line_item", count=2, window="1d"),)),
    )
    found = decide(engine, catalogue, profile=codec.Profile(caps=caps))

    assert capped == (found.nobid == NoBid.NO_CANDIDATE)
    assert not capped or {Reject.FREQUENCY_CAP} == found.reasons


@pytest.mark.parametrize(
    "privacy",
    [
        {"regs": {"gdpr": 1}}, {"regs": {"gpp": "DBAA"}}, {"regs": {"us_privacy": "1YYN"}},
        {"regs": {"coppa": 1}}, {"device": {"lmt": 1}}, {"device": {"dnt": 1}},
        {"regs": {"ext": {"gpc": "1"}}},
    ],
    ids=str,
)  # fmt: skip
def test_a_no_hides_the_person(engine: Any, privacy: dict[str, Any]) -> None:
    """Under any privacy signal neither our segments nor the request's are seen."""
    sport = codec.Profile(segments=[token_hash(Dim.AUDIENCE, b"sport")])
    catalogue = snapshot(
        Segment(id="sport"),
        image("c"),
        line("l", "c", targeting={"key": "audience", "in": ["sport"]}),
        line("m", "c", targeting={"key": "data_segment", "in": ["dmp:7"]}),
    )
    data = {"user": {"data": [{"name": "dmp", "segment": [{"id": "7"}]}]}}

    assert 2 == len(decide(engine, catalogue, profile=sport, **data).bids)
    found = decide(engine, catalogue, profile=sport, **data, **privacy)
    assert found.contextual
    assert NoBid.NO_CANDIDATE == found.nobid


@pytest.mark.parametrize(
    ("key", "value"),
    [("key_value", "loyal=gold"), ("postcode", "90049"), ("city", "paris"), ("country", "FRA")],
)
def test_a_no_hides_where_somebody_lives(engine: Any, key: str, value: str) -> None:
    """Neither the user's key-values and home nor a postcode find an ad under a privacy signal."""
    catalogue = snapshot(image("c"), line("l", "c", targeting={"key": key, "in": [value]}))
    home = {"geo": {"country": "FRA", "city": "Paris"}, "ext": {"data": {"loyal": "gold"}}}
    place = {} if key in ("city", "country") else {"country": "USA", "zip": "90049"}
    open_to_it = decide(engine, catalogue, user=home, device={"geo": place})
    closed = decide(engine, catalogue, user=home, device={"geo": place}, regs={"gdpr": 1})

    assert NoBid.BID == open_to_it.nobid
    assert NoBid.NO_CANDIDATE == closed.nobid


def test_a_person_who_refused_all_is_nobody(engine: Any) -> None:
    """The general opt-out of a profile leaves a contextual decision."""
    sport = codec.Profile(segments=[token_hash(Dim.AUDIENCE, b"sport")], opt_out=True)

    assert decide(engine, snapshot(*ONE), profile=sport).contextual


@pytest.mark.parametrize(
    "targeting",
    [
        {"key": "data_segment", "in": ["dmp:7"]},
        {"key": "user_keyword", "in": ["golf"]},
        {"key": "postcode", "in": ["90049"]},
        {"key": "distance", "within_km": 100, "of": [[52.52, 13.405]]},
    ],
    ids=lambda one: one["key"],
)
def test_who_refused_all_is_not_found_by_what_others_tell(
    engine: Any, targeting: dict[str, Any]
) -> None:
    """The exchange's data of somebody and where he is are as unseen as our own."""
    catalogue = snapshot(image("c"), line("l", "c", targeting=targeting))
    told = {
        "user": {"data": [{"name": "dmp", "segment": [{"id": "7"}]}], "keywords": "golf"},
        "device": {"geo": {"country": "USA", "zip": "90049", "lat": 52.52, "lon": 13.405}},
    }
    somebody, nobody = (codec.Profile(segments=[1], opt_out=one) for one in (False, True))
    assert NoBid.BID == decide(engine, catalogue, profile=somebody, **told).nobid
    assert NoBid.NO_CANDIDATE == decide(engine, catalogue, profile=nobody, **told).nobid


@pytest.mark.parametrize("cut", [1, 31, 33, 50])
def test_a_broken_profile_is_nobody(engine: Any, cut: int) -> None:
    """Stored bytes that break their layout are not read, and do not harm."""
    record = codec.encode(codec.Profile(segments=[1, 2], items={3: 4}))
    opportunity, decision = Opportunity(), Decision()
    exchange = Exchange(name="generic", path="generic")
    decode(json.dumps({"id": "r", "imp": [banner()]}).encode(), exchange, opportunity)
    terms = settings.terms_of(exchange, RATES, ZONES, 10, 1)
    engine(snapshot(*ONE)).decide(opportunity, record[:cut], terms, None, NOW_MS, decision)

    assert 1 == decision.data["head"]["contextual"][0]
    assert NoBid.BID == decision.data["head"]["nobid"][0]


# -- line items -----------------------------------------------------------------------------------


def test_flight_is_half_open(engine: Any) -> None:
    """A flight begins at its first millisecond and ends before its last."""
    flights = (Flight(start="2026-09-01T00:00:00Z", end="2026-09-02T00:00:00Z"),)
    catalogue = snapshot(image("c"), line("l", "c", flights=flights))
    start = 1_788_220_800_000

    for now_ms, runs in (
        (start - 1, False), (start, True), (start + 86_400_000 - 1, True),
        (start + 86_400_000, False),
    ):  # fmt: skip
        assert runs == (decide(engine, catalogue, now_ms=now_ms).nobid == NoBid.BID)


def overlay(bits: int = 0, multiplier_e6: int = 1_000_000, of_10000: int = 10_000) -> np.ndarray:
    """The overlay of a catalogue with one line item."""
    return np.array([(multiplier_e6, of_10000, bits, 0)], OVERLAY)


@pytest.mark.parametrize(
    ("bit", "reason"),
    [
        (Overlay.PAUSED, Reject.PAUSED),
        (Overlay.EXHAUSTED, Reject.EXHAUSTED),
        (Overlay.OUT_OF_STOCK, Reject.OUT_OF_STOCK),
        (Overlay.OUT_OF_STOCK | Overlay.PAUSED, Reject.PAUSED),
    ],
)
def test_overlay_bits(engine: Any, bit: int, reason: Reject) -> None:
    """An overlay bit stops a line item at once, and the first that holds names the reason."""
    assert reason == only_reason(decide(engine, snapshot(*ONE), overlay=overlay(bit)))


def test_pacing_lowers_the_price(engine: Any) -> None:
    """The multiplier lowers value and price, never raises them; a deal at a fixed price stays."""
    catalogue = snapshot(*ONE)
    (half,) = decide(engine, catalogue, overlay=overlay(multiplier_e6=500_000)).bids
    (whole,) = decide(engine, catalogue, overlay=overlay(multiplier_e6=3_000_000)).bids

    assert (2_500_000, 5_000_000) == (half.price_micros, whole.price_micros)


def test_paced_below_the_floor(engine: Any) -> None:
    """A floor that only pacing keeps us from is told apart from one that is too high."""
    paced = overlay(multiplier_e6=100_000)
    one = decide(engine, snapshot(*ONE), banner(bidfloor=4.0), overlay=paced)
    other = decide(engine, snapshot(*ONE), banner(bidfloor=6.0), overlay=paced)

    assert (Reject.PACED, Reject.BELOW_FLOOR) == (only_reason(one), only_reason(other))


def test_throttle_lets_a_share_through(engine: Any) -> None:
    """Participation is drawn by request and line item: the same request is decided the same."""
    catalogue = snapshot(*ONE)
    throttled = overlay(of_10000=3_000)
    taken = [decide(engine, catalogue, overlay=throttled, id=f"r{n}").nobid for n in range(400)]
    again = [decide(engine, catalogue, overlay=throttled, id=f"r{n}").nobid for n in range(400)]

    assert taken == again
    assert 80 < taken.count(NoBid.BID) < 160
    none = decide(engine, catalogue, overlay=overlay(of_10000=0))
    assert Reject.PACED == only_reason(none)


def test_hour_of_week_is_the_users(engine: Any) -> None:
    """The hour is that of the request's offset, else of the region, the country, or UTC."""
    # 2026-09-21 14:13 UTC is a Monday.
    catalogue = snapshot(
        image("c"), line("l", "c", targeting={"key": "hour", "days": ["mon"], "hours": ["16-17"]})
    )
    for geo, runs in (
        ({"utcoffset": 120}, True), ({"country": "DEU"}, True), ({"country": "GBR"}, False),
        ({"country": "USA", "region": "CA"}, False), ({}, False),
    ):  # fmt: skip
        found = decide(engine, catalogue, device={"geo": geo})
        assert runs == (found.nobid == NoBid.BID), geo


# -- deals (OpenRTB 2.6 section 7.3) --------------------------------------------------------------

DEAL = Deal(id="d", exchange="generic")


def _deal_imp(private: int = 0, floor: float = 1.0, **deal: Any) -> dict[str, Any]:
    deals = [{"id": "d", "bidfloor": floor, **deal}]
    return banner(bidfloor=2.0, pmp={"private_auction": private, "deals": deals})


def test_deal_and_open_bid_side_by_side(engine: Any) -> None:
    """A matching deal and the open market each get their own bid: they never compete in us."""
    catalogue = snapshot(
        DEAL, image("c"), image("e"), line("deal", "c", deals=("d",)), line("open", "e", cpm="9")
    )
    found = decide(engine, catalogue, _deal_imp())

    assert [("deal", 0), ("open", -1)] == [(bid.line_item, bid.deal) for bid in found.chosen]


def test_private_auction_takes_listed_deals_only(engine: Any) -> None:
    """private_auction=1: an open line item does not bid, one with the deal does."""
    deal_only = snapshot(DEAL, image("c"), line("l", "c", deals=("d",), open_market=True))

    assert Reject.PRIVATE_AUCTION == only_reason(decide(engine, snapshot(*ONE), _deal_imp(1)))
    assert [0] == [bid.deal for bid in decide(engine, deal_only, _deal_imp(1)).chosen]


@pytest.mark.parametrize(
    ("deal", "at", "price"),
    [
        ({}, 1, "5"), ({"at": 2}, 1, "5"), ({"at": 3}, 1, "1"), ({"at": 3}, 2, "1"),
        ({"at": 1}, 2, "5"), ({"at": 3, "bidfloor": 1, "mincpmpersec": 0.2}, 1, "1"),
    ],
    ids=["as-request", "second", "fixed", "fixed-over-second", "first-over-second",
         "fixed-is-the-bidfloor"],
)  # fmt: skip
def test_deal_auction_type(engine: Any, deal: dict[str, Any], at: int, price: str) -> None:
    """deal.at overrides request.at; a fixed price is bid exactly."""
    catalogue = snapshot(DEAL, image("c"), line("l", "c", deals=("d",)))
    found = decide(engine, catalogue, _deal_imp(**deal), at=at)

    assert parse_micros(price) == found.chosen[0].price_micros


def test_fixed_price_without_a_price_is_not_guessed(engine: Any) -> None:
    """A deal of type 3 that names no bidfloor gets no bid."""
    catalogue = snapshot(DEAL, image("c"), line("l", "c", deals=("d",)))
    found = decide(engine, catalogue, _deal_imp(floor=0, at=3))

    assert Reject.FIXED_PRICE_UNKNOWN == only_reason(found)


def test_deal_restrictions_are_the_deals_only(engine: Any) -> None:
    """wseat and wadomain of a deal stop that deal, and not the open market."""
    catalogue = snapshot(DEAL, image("c"), line("l", "c", deals=("d",), open_market=True))
    for restriction, reason in (
        ({"wseat": ["x"]}, Reject.DEAL_SEAT),
        ({"wadomain": ["other.test"]}, Reject.DEAL_ADVERTISER),
    ):
        assert [-1] == [b.deal for b in decide(engine, catalogue, _deal_imp(**restriction)).chosen]
        private = decide(engine, catalogue, _deal_imp(1, **restriction))
        assert reason == only_reason(private)
    for allowed in ({"wseat": ["house"]}, {"wadomain": ["shop.test"]}):
        assert [0] == [b.deal for b in decide(engine, catalogue, _deal_imp(1, **allowed)).chosen]


# -- floors (OpenRTB 2.6 section 7.11) ------------------------------------------------------------

RANGES = [
    {"mindur": 1, "maxdur": 10, "bidfloor": 2},
    {"mindur": 11, "bidfloor": 3},
    {"mindur": 14, "maxdur": 16, "bidfloor": 4},
]
FLOORS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # name: video fields, deal fields (none = open market), floor that applies to 15 seconds
    "imp": ({}, {}, "1"),
    "mincpmpersec": ({"mincpmpersec": 0.2}, {}, "3"),
    "durfloors": ({"durfloors": RANGES[:2]}, {}, "3"),
    "durfloors-overlap": ({"durfloors": RANGES}, {}, "4"),
    "durfloors-before-per-second": ({"durfloors": RANGES, "mincpmpersec": 0.1}, {}, "4"),
    "outside-every-range": ({"durfloors": RANGES[:1]}, {}, "1"),
    "deal": ({"mincpmpersec": 0.2}, {"bidfloor": 0.5}, "0.5"),
    "deal-durfloors": ({}, {"bidfloor": 9, "durfloors": RANGES}, "4"),
    "deal-per-second": ({}, {"bidfloor": 9, "mincpmpersec": 0.1}, "1.5"),
    "deal-says-nothing": ({"mincpmpersec": 0.2}, {"bidfloor": 0}, "3"),
}


@pytest.mark.parametrize("name", FLOORS)
def test_floor_precedence(engine: Any, name: str) -> None:
    """The floor is the deal's own, else the media's by duration or second, else the imp's."""
    av, deal, floor = FLOORS[name]
    catalogue = snapshot(DEAL, video("c"), line("l", "c", cpm="20", deals=("d",) if deal else ()))
    imp: dict[str, Any] = {"id": "1", "bidfloor": 1, "video": {"mimes": ["video/mp4"], **av}}
    if deal:
        imp["pmp"] = {"deals": [{"id": "d", **deal}]}

    assert parse_micros(floor) == decide(engine, catalogue, imp).chosen[0].floor_micros


def test_floor_currencies(engine: Any) -> None:
    """imp floors are in bidfloorcur; a deal's currency is its own, USD unless said."""
    catalogue = snapshot(DEAL, image("c"), line("l", "c", deals=("d",), open_market=True))
    euro = banner(bidfloor=2, bidfloorcur="EUR")
    deal = {**euro, "pmp": {"deals": [{"id": "d", "bidfloor": 2}]}}

    assert parse_micros("2.32") == decide(engine, catalogue, euro).chosen[0].floor_micros
    assert parse_micros("2") == decide(engine, catalogue, deal).chosen[0].floor_micros
    in_euro = decide(engine, catalogue, euro, cur=["EUR"])
    assert parse_micros("2") == in_euro.chosen[0].floor_micros
    # 5 USD are 4.310345 EUR.
    assert 4_310_345 == in_euro.chosen[0].price_micros


def test_unknown_floor_currency_is_no_floor_to_guess(engine: Any) -> None:
    """A floor that cannot be converted is not ignored."""
    found = decide(engine, snapshot(*ONE), banner(bidfloor=1, bidfloorcur="XXX"))

    assert Reject.CURRENCY == only_reason(found)


def test_response_currency(engine: Any) -> None:
    """The answer is in the first listed currency with a rate; none of them means no bid."""
    catalogue = snapshot(*ONE)

    assert 0x455552 == decide(engine, catalogue, cur=["XXX", "EUR", "USD"]).cur
    assert NoBid.UNSUPPORTED_CURRENCY == decide(engine, catalogue, cur=["XXX"]).nobid
    euro = Exchange(name="generic", path="generic", default_currency="EUR", currencies=("EUR",))
    assert 0x455552 == decide(engine, catalogue, exchange=euro).cur
    assert NoBid.UNSUPPORTED_CURRENCY == decide(engine, catalogue, exchange=euro, cur=["USD"]).nobid


# -- value and price ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "cpm"),
    [
        (Goal(type="cpm", amount="5"), "5"),
        (Goal(type="cpc", amount="0.40"), "4"),
        (Goal(type="cpa", amount="8"), "4"),
        (Goal(type="roas", order_value="40", target_roas=4.0), "5"),
    ],
    ids=["cpm", "cpc", "cpa", "roas"],
)
def test_value_from_the_goal(engine: Any, goal: Goal, cpm: str) -> None:
    """With ctr 1 % and cvr 5 %: the price of a thousand impressions by goal."""
    from rtb.catalogue.model import Priors

    catalogue = snapshot(image("c"), line("l", "c", goal=goal, priors=Priors(ctr=0.01, cvr=0.05)))

    assert parse_micros(cpm) == decide(engine, catalogue, at=2).chosen[0].price_micros


def test_shading_in_first_price_only(engine: Any) -> None:
    """First price bids the shaded value, lifted to a floor it can pay; second price does not."""
    catalogue = snapshot(image("c"), line("l", "c", shade=0.6))

    assert parse_micros("3") == decide(engine, catalogue, at=1).chosen[0].price_micros
    assert parse_micros("5") == decide(engine, catalogue, at=2).chosen[0].price_micros
    lifted = decide(engine, catalogue, banner(bidfloor=4), at=1)
    assert parse_micros("4") == lifted.chosen[0].price_micros
    assert Reject.BELOW_FLOOR == only_reason(decide(engine, catalogue, banner(bidfloor=5.000001)))


def test_absent_at_is_the_exchanges_default(engine: Any) -> None:
    """Omitted `at` means what the exchange's settings say: second price by the specification."""
    catalogue = snapshot(image("c"), line("l", "c", shade=0.6))
    first = Exchange(name="generic", path="generic", auction_type_default=1)

    assert parse_micros("5") == decide(engine, catalogue, at=0).chosen[0].price_micros
    assert (
        parse_micros("3") == decide(engine, catalogue, at=0, exchange=first).chosen[0].price_micros
    )


def test_max_cpm_bounds_the_value(engine: Any) -> None:
    """No goal is worth more than the line item's maximum."""
    catalogue = snapshot(image("c"), line("l", "c", cpm="40", max_cpm="7"))

    assert parse_micros("7") == decide(engine, catalogue, at=2).chosen[0].price_micros


# -- choice ---------------------------------------------------------------------------------------


def test_short_list_is_ranked(engine: Any) -> None:
    """The best value is chosen, the next places wait behind it, the rest is not looked at."""
    items = [line(f"l{n}", "c", cpm=str(n + 1)) for n in range(7)]
    found = decide(engine, snapshot(image("c"), *items))

    assert ["l6", "l5", "l4", "l3"] == [bid.line_item for bid in found.bids]
    assert ["l6"] == [bid.line_item for bid in found.chosen]
    assert {Reject.BELOW_SHORTLIST} == found.reasons


def test_a_line_item_buys_one_impression_unless_it_repeats(engine: Any) -> None:
    """One request, two slots: one line item takes one, a repeating one takes both."""
    slots = (banner(), banner() | {"id": "2"})

    assert 1 == len(decide(engine, snapshot(*ONE), *slots).chosen)
    repeating = snapshot(image("c"), line("l", "c", repeat=True))
    assert 2 == len(decide(engine, repeating, *slots).chosen)


def test_competitors_are_kept_apart(engine: Any) -> None:
    """Two advertisers of one separation group do not stand in one request; one alone may."""
    rival = (
        Advertiser(id="b", domains=("b.test",)), Campaign(id="kb", advertiser="b"),
        image("e", advertiser="b"), line("rival", "e", cpm="4", campaign="kb", separation="cars"),
    )  # fmt: skip
    catalogue = snapshot(image("c"), line("l", "c", separation="cars"), *rival)
    found = decide(engine, catalogue, banner(), banner() | {"id": "2"})

    assert ["l"] == [bid.line_item for bid in found.chosen]
    assert Reject.SEPARATION in found.reasons


@pytest.mark.parametrize("count", [5, 7, 13])
def test_every_impression_gets_a_bid_as_long_as_there_are_line_items(
    engine: Any, count: int
) -> None:
    """The best line items can stand once each: what is left has to do for the other places."""
    lines = [line(f"l{n}", "c", cpm=str(20 - n)) for n in range(count)]
    slots = [banner() | {"id": str(n)} for n in range(count)]
    found = decide(engine, snapshot(image("c"), *lines), *slots)

    assert [f"l{n}" for n in range(count)] == [bid.line_item for bid in found.chosen]
    assert list(range(count)) == [bid.imp for bid in found.chosen]


def test_short_lists_of_many_deals_leave_room_for_all_impressions(engine: Any) -> None:
    """Lists do not grow so long that the last impressions find no room in the decision."""
    names = [f"d{n}" for n in range(6)]
    deals = [{"id": name, "bidfloor": 0.1} for name in names]
    lines = [line(f"l{n}", "c", cpm=str(30 - n), deals=tuple(names), open_market=True,
                  repeat=True) for n in range(12)]  # fmt: skip
    slots = [banner(pmp={"deals": deals}) | {"id": str(n)} for n in range(9)]
    catalogue = snapshot(image("c"), *(Deal(id=name, exchange="generic") for name in names), *lines)
    found = decide(engine, catalogue, *slots)

    assert set(range(9)) == {bid.imp for bid in found.chosen}
    assert 4 == max(bid.rank for bid in found.bids) + 1


@pytest.mark.parametrize("count", [6, 17, 40])
def test_competitors_leave_a_place_to_who_is_none(engine: Any, count: int) -> None:
    """A group of rivals that are worth more does not crowd the only one out who may stand there."""
    rivals = [
        thing
        for n in range(count)
        for thing in (
            Advertiser(id=f"r{n}", domains=("b.test",)),
            Campaign(id=f"k{n}", advertiser=f"r{n}"),
            image(f"c{n}", advertiser=f"r{n}"),
            line(f"l{n}", f"c{n}", cpm="9", campaign=f"k{n}", separation="cars"),
        )
    ]
    catalogue = snapshot(image("c"), line("other", "c", cpm="2"), *rivals)
    found = decide(engine, catalogue, banner(), banner() | {"id": "2"})

    assert [0, 1] == [bid.imp for bid in found.chosen]
    assert "other" == found.chosen[1].line_item


@pytest.mark.parametrize("count", [2, 5, 9])
def test_who_competes_with_nobody_may_fill_all_places(engine: Any, count: int) -> None:
    """Line items of one advertiser in one separation group are no rivals of each other."""
    lines = [line(f"l{n}", "c", cpm=str(30 - n), separation="cars") for n in range(20)]
    slots = [banner() | {"id": str(n)} for n in range(count)]
    found = decide(engine, snapshot(image("c"), *lines), *slots)

    assert [f"l{n}" for n in range(count)] == [bid.line_item for bid in found.chosen]


def test_rivals_leave_a_place_in_a_pod(engine: Any) -> None:
    """Of many rivals one stands in a pod, beside the one who competes with nobody."""
    rivals = [
        thing
        for n in range(20)
        for thing in (
            Advertiser(id=f"r{n}", domains=("b.test",)),
            Campaign(id=f"k{n}", advertiser=f"r{n}"),
            video(f"c{n}", advertiser=f"r{n}"),
            line(f"l{n}", f"c{n}", cpm="9", campaign=f"k{n}", separation="cars"),
        )
    ]
    pod = {"id": "1", "video": {"mimes": ["video/mp4"], "poddur": 60, "maxseq": 4}}
    found = decide(engine, snapshot(video("c"), line("other", "c", cpm="2"), *rivals), pod)

    assert 2 == len(found.chosen)
    assert "other" == found.chosen[1].line_item


# -- pods (OpenRTB 2.6 section 7.6) ---------------------------------------------------------------


def _pod_catalogue() -> Snapshot:
    seconds = {"v6": 6, "v15": 15, "v30": 30, "w15": 15}
    return snapshot(
        *(video(name, length) for name, length in seconds.items()),
        *(line(f"l-{name}", name, cpm=str(9 - n)) for n, name in enumerate(seconds)),
    )


def test_dynamic_pod_is_filled_within_its_seconds(engine: Any) -> None:
    """One imp with poddur: several bids on it, together no longer than the pod."""
    imp = {"id": "1", "video": {"mimes": ["video/mp4"], "poddur": 40, "podid": "p"}}
    found = decide(engine, _pod_catalogue(), imp)

    assert [6, 15, 15] == [bid.dur_s for bid in found.chosen]
    assert Reject.POD_FULL in found.reasons


def test_deals_share_the_dynamic_pod(engine: Any) -> None:
    """Bids on several deals fill one pod: its seconds, its slots, no creative twice."""
    deals = [{"id": name, "bidfloor": 0.1} for name in ("d", "e")]
    names = ("v6", "v15", "w15", "x15")
    catalogue = snapshot(
        DEAL,
        Deal(id="e", exchange="generic"),
        *(video(name, int(name[1:])) for name in names),
        *(
            line(f"l-{name}", name, cpm=str(9 - n), deals=("d", "e"), open_market=True)
            for n, name in enumerate(names)
        ),
    )
    av = {"mimes": ["video/mp4"], "poddur": 40, "maxseq": 2}
    found = decide(engine, catalogue, {"id": "1", "video": av, "pmp": {"deals": deals}})

    assert 2 == len(found.chosen)
    assert 2 == len({bid.creative for bid in found.chosen})
    assert 40 >= sum(bid.dur_s for bid in found.chosen)


def test_dynamic_pod_takes_at_most_maxseq(engine: Any) -> None:
    """maxseq bounds the number of bids."""
    imp = {"id": "1", "video": {"mimes": ["video/mp4"], "poddur": 90, "maxseq": 2}}

    assert 2 == len(decide(engine, _pod_catalogue(), imp).chosen)


def test_structured_pod_gets_one_creative_a_slot(engine: Any) -> None:
    """Imps that share a podid: one bid each, never the same creative twice, even repeating."""
    slots = [
        {"id": str(n), "video": {"mimes": ["video/mp4"], "podid": "p", "maxduration": 15}}
        for n in range(3)
    ]
    catalogue = snapshot(
        video("c"), video("e", 10), line("l", "c", repeat=True), line("m", "e", repeat=True)
    )
    found = decide(engine, catalogue, *slots)

    assert [0, 1] == [bid.imp for bid in found.chosen]
    assert 2 == len({bid.creative for bid in found.chosen})


def test_a_long_structured_pod_is_filled(engine: Any) -> None:
    """Seven slots and as many line items: each slot has one."""
    slots = [
        {"id": str(n), "video": {"mimes": ["video/mp4"], "podid": "p", "maxduration": 15}}
        for n in range(7)
    ]
    ads = [video(f"v{n}", 10) for n in range(7)]
    lines = [line(f"l{n}", f"v{n}", cpm=str(9 - n), repeat=True) for n in range(7)]
    found = decide(engine, snapshot(*ads, *lines), *slots)

    assert list(range(7)) == [bid.imp for bid in found.chosen]
    assert 7 == len({bid.creative for bid in found.chosen})


_ONE_FILE = (MediaFile(url="https://cdn.test/1.mp4", mime="video/mp4", width=640, height=360),)
_TWO_FILES = (
    MediaFile(url="https://cdn.test/2.mp4", mime="video/mp4", width=640, height=360),
    *_ONE_FILE,
)
POD_PAIRS: dict[str, tuple[int, dict[str, Any], dict[str, Any], int]] = {
    # name: poddedupe, one creative, another of another advertiser, how many go out
    "domain": (1, {"domains": ("x.test", "y.test")}, {"domains": ("Y.test",)}, 1),
    "only-a-parent-domain": (1, {"domains": ("x.test",)}, {"domains": ("www.x.test",)}, 2),
    "other-domains": (1, {"domains": ("x.test",)}, {"domains": ("y.test",)}, 2),
    "category": (2, {"categories": {"1": ("IAB1-2", "IAB7")}}, {"categories": {"1": ("IAB7",)}}, 1),
    "categories-of-one-tier": (
        2, {"categories": {"1": ("IAB7-1",)}}, {"categories": {"1": ("IAB7-2",)}}, 2,
    ),
    "category-that-no-bid-says": (
        2,
        {"categories": {"1": ("IAB1",), "6": ("52",)}},
        {"categories": {"1": ("IAB2",), "6": ("52",)}},
        2,
    ),
    "no-categories": (2, {}, {}, 2),
    "other-creatives": (3, {}, {}, 2),
    "file": (4, {"media_files": _ONE_FILE}, {"media_files": _TWO_FILES}, 1),
    "tag": (
        4,
        {"media_files": (), "mime": "video/mp4", "vast_tag_url": "https://ads.test/{cachebuster}"},
        {"media_files": (), "mime": "video/mp4", "vast_tag_url": "https://ads.test/{cachebuster}"},
        1,
    ),
    "other-files": (4, {"media_files": _ONE_FILE}, {"media_files": _TWO_FILES[:1]}, 2),
    "nothing": (5, {"media_files": _ONE_FILE}, {"media_files": _ONE_FILE}, 2),
}  # fmt: skip
DYNAMIC = [{"poddur": 90}]
STRUCTURED = [{"podid": "p", "slotinpod": 1}, {"podid": "p"}]


@pytest.mark.parametrize("slots", [DYNAMIC, STRUCTURED], ids=["dynamic", "structured"])
@pytest.mark.parametrize("name", POD_PAIRS)
def test_poddedupe(engine: Any, name: str, slots: list[dict[str, Any]]) -> None:
    """No two bids of a pod share what it wants once, whichever of its slots says so."""
    dedupe, one, other, count = POD_PAIRS[name]
    catalogue = snapshot(
        Advertiser(id="b", domains=("b.test",)),
        Campaign(id="kb", advertiser="b"),
        video("c", **one),
        video("d", advertiser="b", **other),
        line("l", "c", cpm="9"),
        line("m", "d", campaign="kb"),
    )
    imps = [
        {"id": str(n), "video": {"mimes": ["video/mp4"], **slot}} for n, slot in enumerate(slots)
    ]
    imps[0]["video"]["poddedupe"] = [dedupe]  # type: ignore[index]
    found = decide(engine, catalogue, *imps)

    assert count == len(found.chosen)
    assert ({Reject.SEPARATION} if count == 1 else set()) <= found.reasons


def test_an_advertiser_with_two_domains_may_stand_twice(engine: Any) -> None:
    """poddedupe 1 is about what bids say, `adomain`, and not about who pays."""
    catalogue = snapshot(
        video("c"), video("d", domains=("other.test",)), line("l", "c"), line("m", "d")
    )
    av = {"mimes": ["video/mp4"], "poddur": 90, "poddedupe": [1]}

    assert 2 == len(decide(engine, catalogue, {"id": "1", "video": av}).chosen)


def test_a_refused_bid_of_a_pod_gives_way_to_one_that_may_stand_there(engine: Any) -> None:
    """Who falls back into a pod shares no domain with those who stay."""
    catalogue = snapshot(
        *(video(name, domains=(f"{name[0]}.test",)) for name in ("x1", "x2", "y1", "y2")),
        *(line(f"l{n}", name, cpm=str(9 - n)) for n, name in enumerate(("x1", "y1", "x2", "y2"))),
    )
    av = {"mimes": ["video/mp4"], "poddur": 90, "poddedupe": [1]}
    opportunity, decision = Opportunity(), Decision()
    exchange = Exchange(name="generic", path="generic", seat="house")
    body = {"id": "r", "at": 1, "imp": [{"id": "1", "video": av}]}
    decode(json.dumps(body).encode(), exchange, opportunity)
    terms = settings.terms_of(exchange, RATES, ZONES, 1000, 1)
    core = engine(catalogue)
    core.decide(opportunity, None, terms, None, NOW_MS, decision)
    core.fall_back(opportunity, decision, 1)
    bids = decision.data[0]["bids"][:4]

    assert ["x1", "y2"] == [
        catalogue.id_of("creatives", int(bid["creative"])) for bid in bids if bid["chosen"]
    ]


# -- purity ---------------------------------------------------------------------------------------


def test_same_inputs_same_bytes(engine: Any) -> None:
    """Deciding twice, with other decisions between, gives the same record."""
    catalogue = _pod_catalogue()
    imp = {"id": "1", "video": {"mimes": ["video/mp4"], "poddur": 40}}
    ask: Callable[[], SimpleNamespace] = lambda: decide(engine, catalogue, imp)  # noqa: E731
    first = ask()
    decide(engine, catalogue, banner())

    assert first == ask()
