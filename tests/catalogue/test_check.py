"""Rules: each impossible catalogue is refused, at the field that is wrong."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from rtb.base.money import currency_code
from rtb.catalogue.check import Finding, Outside, Owner, check, sound_part
from rtb.catalogue.model import (
    Advertiser,
    Budget,
    Campaign,
    Catalogue,
    Creative,
    Deal,
    ExcludePurchased,
    Flight,
    FrequencyCap,
    Goal,
    Image,
    LineItem,
    MediaFile,
    Native,
    Priors,
    Product,
    Segment,
)
from rtb.catalogue.tokens import ad_key, owner_key

SEGMENT_TREE = {"not": {"key": "audience", "in": ["s", "nobody"]}}


def sound() -> Catalogue:
    """A catalogue of one of everything, without a fault."""
    result = Catalogue()
    for entity in (
        Advertiser("a", domains=("shop.example",)),
        Advertiser("b", domains=("other.example",)),
        Campaign("c", advertiser="a"),
        Deal("d", exchange="x"),
        Segment("s"),
        Product("p", "a", "Shoe", "45.00 USD"),
        Creative(
            "image",
            "a",
            "image",
            width=300,
            height=250,
            image_url="https://c.example/b.png",
            landing_page="https://shop.example/",
            categories={"1": ("IAB1",)},
        ),
        Creative("html", "a", "html", html="<b>x</b>", categories={"1": ("IAB1",)}),
        Creative(
            "native",
            "a",
            "native",
            native=Native("T", main=Image("https://c.example/m.png", 1200, 627)),
            landing_page="https://shop.example/",
            categories={"1": ("IAB1",)},
        ),
        Creative(
            "video",
            "a",
            "video",
            media_files=(MediaFile("https://c.example/v.mp4", "video/mp4", 640, 360),),
            duration_s=15,
            landing_page="https://shop.example/",
            categories={"1": ("IAB1",)},
        ),
        Creative("alien", "b", "html", html="x", categories={"1": ("IAB1",)}),
        LineItem("li", "c", Goal("cpm", amount="2"), ("image", "video")),
    ):
        assert result.add(entity)
    return result


def test_sound_catalogue_has_no_findings() -> None:
    """Nothing is said of what is right."""
    assert list(check(sound())) == []


FAULTS = [
    ("advertisers", "a", {"id": ""}, "id"),
    ("advertisers", "a", {"id": " a"}, "id"),
    ("advertisers", "a", {"id": "a/b"}, "id"),
    ("advertisers", "a", {"id": "x" * 129}, "id"),
    ("advertisers", "a", {"name": "bell\x07"}, "name"),
    ("advertisers", "a", {"currency": "EURO"}, "currency"),
    ("advertisers", "a", {"timezone": "Mars/Olympus"}, "timezone"),
    ("advertisers", "a", {"timezone": "../../etc/passwd"}, "timezone"),
    ("advertisers", "a", {"domains": ("a b",)}, "domains[0]"),
    ("advertisers", "a", {"seats": {"x": ""}}, "seats"),
    ("advertisers", "a", {"frequency_caps": (FrequencyCap(0, "1d"),)}, "frequency_caps[0].count"),
    ("advertisers", "a", {"frequency_caps": (FrequencyCap(1, "1y"),)}, "frequency_caps[0].window"),
    ("advertisers", "a", {"budget": Budget(daily="5")}, "budget.daily"),
    ("advertisers", "a", {"budget": Budget(total="1e10")}, "budget.total"),
    ("deals", "d", {"exchange": ""}, "exchange"),
    ("segments", "s", {"name": "x\x00"}, "name"),
    ("campaigns", "c", {"advertiser": "z"}, "advertiser"),
    ("campaigns", "c", {"budget": Budget(daily="-1")}, "budget.daily"),
    ("campaigns", "c", {"budget": Budget(daily="9" * 25)}, "budget.daily"),
    ("campaigns", "c", {"budget": Budget(total="1e-999999")}, "budget.total"),
    ("campaigns", "c", {"budget": Budget(impressions=9)}, "budget.impressions"),
    ("campaigns", "c", {"budget": Budget(mode="expected")}, "budget.mode"),
    ("campaigns", "c", {"flights": (Flight(budget=Budget(daily="5")),)}, "flights[0].budget.daily"),
    ("campaigns", "c", {"frequency_caps": (FrequencyCap(1, "1d", "advertiser"),)},
     "frequency_caps[0].level"),
    ("products", "a/p", {"title": " "}, "title"),
    ("products", "a/p", {"title": "x" * 5001}, "title"),
    ("products", "a/p", {"price": "45$"}, "price"),
    ("products", "a/p", {"price": "-1 USD"}, "price"),
    ("products", "a/p", {"price": "NaN USD"}, "price"),
    ("products", "a/p", {"price": "1e30 USD"}, "price"),
    ("products", "a/p", {"sale_price": "cheap"}, "sale_price"),
    ("products", "a/p", {"link": "javascript:alert(1)"}, "link"),
    ("products", "a/p", {"availability": "perhaps"}, "availability"),
    ("products", "a/p", {"advertiser": "z"}, "advertiser"),
    ("line_items", "li", {"campaign": "z"}, "campaign"),
    ("line_items", "li", {"goal": Goal("cpm", amount="-2")}, "goal.amount"),
    ("line_items", "li", {"goal": Goal("cpm", amount="0")}, "goal.amount"),
    ("line_items", "li", {"goal": Goal("cpm", amount="two")}, "goal.amount"),
    ("line_items", "li", {"goal": Goal("cpm", amount="100001")}, "goal.amount"),
    ("line_items", "li", {"goal": Goal("cpm", amount="1e30")}, "goal.amount"),
    ("line_items", "li", {"goal": Goal("cpm")}, "goal.amount"),
    ("line_items", "li", {"goal": Goal("cpc", amount="1")}, "max_cpm"),
    ("line_items", "li", {"goal": Goal("roas", target_roas=4.0), "max_cpm": "9"}, "goal"),
    ("line_items", "li",
     {"goal": Goal("roas", target_roas=0.0, order_value="1"), "max_cpm": "9"}, "goal.target_roas"),
    ("line_items", "li",
     {"goal": Goal("roas", target_roas=float("nan"), order_value="1"), "max_cpm": "9"},
     "goal.target_roas"),
    ("line_items", "li", {"goal": Goal("cpm", amount="1", order_value="2")}, "goal"),
    ("line_items", "li", {"max_cpm": 0}, "max_cpm"),
    ("line_items", "li", {"creatives": ()}, "creatives"),
    ("line_items", "li", {"creatives": ("image", "image")}, "creatives"),
    ("line_items", "li", {"creatives": ("image", "z")}, "creatives[1]"),
    ("line_items", "li", {"creatives": ("alien",)}, "creatives[0]"),
    ("line_items", "li", {"deals": ("z",)}, "deals[0]"),
    ("line_items", "li", {"deals": ("d", "d")}, "deals"),
    ("line_items", "li", {"open_market": False}, "open_market"),
    ("line_items", "li", {"targeting": {"key": "country", "in": ["US"]}}, "targeting.in[0]"),
    ("line_items", "li", {"targeting": SEGMENT_TREE}, "targeting.not.in[1]"),
    ("line_items", "li", {"flights": (Flight("2026-02-01", "2026-01-01"),)}, "flights[0]"),
    ("line_items", "li", {"flights": (Flight("2026-02-01"), Flight("soon"))}, "flights[1]"),
    ("line_items", "li", {"flights": (Flight("2026-02-01"), Flight(end="2026-02-01"))},
     "flights[0]"),
    ("line_items", "li", {"budget": Budget(impressions=-1)}, "budget.impressions"),
    ("line_items", "li", {"flights": (Flight(end="9999-12-31"),)}, "flights[0]"),
    ("line_items", "li", {"priors": Priors(ctr=0.0)}, "priors.ctr"),
    ("line_items", "li", {"priors": Priors(cvr=1.5)}, "priors.cvr"),
    ("line_items", "li", {"shade": 0.0}, "shade"),
    ("line_items", "li", {"shade": float("inf")}, "shade"),
    ("line_items", "li", {"exclude_purchased": ExcludePurchased(item_days=-1)},
     "exclude_purchased.item_days"),
    ("creatives", "image", {"advertiser": "z"}, "advertiser"),
    ("creatives", "image", {"frequency_caps": (FrequencyCap(1, "1d", "campaign"),)},
     "frequency_caps[0].level"),
    ("creatives", "image", {"product": "z"}, "product"),
    ("creatives", "image", {"width": 0}, "width"),
    ("creatives", "image", {"height": -250}, "height"),
    ("creatives", "image", {"image_url": None}, "image_url"),
    ("creatives", "image", {"landing_page": None}, "landing_page"),
    ("creatives", "image", {"image_url": "data:image/png;base64,AA"}, "image_url"),
    ("creatives", "image", {"image_url": "//c.example/x.png"}, "image_url"),
    ("creatives", "image", {"landing_page": "JavaScript:alert(1)"}, "landing_page"),
    ("creatives", "image", {"landing_page": "https://user:pw@bank.example/"}, "landing_page"),
    ("creatives", "image", {"landing_page": "https://x.example/\n"}, "landing_page"),
    ("creatives", "image", {"landing_page": 'https://x.example/"onload=1'}, "landing_page"),
    ("creatives", "image", {"secure": True, "image_url": "http://c.example/b.png"}, "image_url"),
    ("creatives", "image", {"impression_urls": ("ftp://x.example/",)}, "impression_urls[0]"),
    ("creatives", "image", {"attr": (0,)}, "attr"),
    ("creatives", "image", {"api": (32,)}, "api"),
    ("creatives", "image", {"expandable": (7,)}, "expandable"),
    ("creatives", "image", {"categories": {"1": ("IAB 1",)}}, "categories.1[0]"),
    ("creatives", "image", {"categories": {"x": ("IAB1",)}}, "categories.x[0]"),
    ("creatives", "image", {"domains": ("",)}, "domains[0]"),
    ("creatives", "image", {"language": "english"}, "language"),
    ("creatives", "image", {"landing_page": "https://x.example/{product.id}"}, "product"),
    ("creatives", "image", {"landing_page": "https://x.example/{view_url}"}, "landing_page"),
    ("creatives", "html", {"html": ""}, "html"),
    ("creatives", "html", {"width": 300}, "width"),
    ("creatives", "html", {"secure": True, "html": "<img src='http://x.example'>"}, "secure"),
    ("creatives", "html", {"html": "x" * (256 * 1024 + 1)}, "html"),
    ("creatives", "native", {"native": None}, "native"),
    ("creatives", "native", {"native": Native(" ")}, "native.title"),
    ("creatives", "native", {"native": Native("T", data={"one": "x"})}, "native.data"),
    ("creatives", "native", {"native": Native("T {bid_id}")}, "native"),
    ("creatives", "native", {"native": Native("T", icon=Image("https://c.example/i", 0, 1))},
     "native.icon.width"),
    ("creatives", "native", {"native": Native("T", main=Image("blob:x", 1, 1))},
     "native.main.url"),
    ("creatives", "video", {"duration_s": 0}, "duration_s"),
    ("creatives", "video", {"media_files": ()}, "media_files"),
    ("creatives", "video", {"vast_tag_url": "https://v.example/"}, "media_files"),
    ("creatives", "video", {"tracking": {"ended": ()}}, "tracking.ended"),
    ("creatives", "video", {"tracking": {"progress": ()}}, "tracking.progress"),
    ("creatives", "video", {"tracking": {"progress@soon": ()}}, "tracking.progress@soon"),
    ("creatives", "video", {"skip_after_s": -1}, "skip_after_s"),
    ("creatives", "video", {"media_files": (MediaFile("https://c.example/v", "video/mp4"),)},
     "width"),
    ("creatives", "video",
     {"media_files": (MediaFile("https://c.example/v", "video/mp4", 1, 1, 0),)},
     "media_files[0].bitrate_kbps"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "key", "change", "field"), FAULTS, ids=lambda value: str(value)[:40]
)
def test_fault_is_found_at_its_field(
    kind: str, key: str, change: dict[str, Any], field: str
) -> None:
    """Each rule names the field that breaks it."""
    catalogue = sound()
    table = catalogue.table(kind)
    table[key] = msgspec.structs.replace(table[key], **change)
    errors = [each for each in check(catalogue) if each.severity == "error" and each.kind == kind]
    assert field in {each.field for each in errors}


WARNINGS = [
    ("products", "a/p", {"price": "45.00 EUR"}, "price"),
    ("line_items", "li", {"max_cpm": 12}, "max_cpm"),
    ("creatives", "image", {"image_url": "http://c.example/b.png"}, "image_url"),
    ("creatives", "image", {"image_url": "https://c.example/b"}, "mime"),
    ("creatives", "image", {"categories": {}}, "categories"),
    ("creatives", "video", {"landing_page": None}, "landing_page"),
    (
        "creatives",
        "video",
        {"media_files": (), "vast_tag_url": "https://ads.example/tag"},
        "mime",
    ),
    ("creatives", "html", {"html": "<a href='{clik_url}'>x</a>"}, "html"),
    ("creatives", "image", {"landing_page": "https://x.example/${AUCTION_ID}"}, "landing_page"),
    (
        "creatives",
        "html",
        {"html": "<script>'{product.title}'</script>", "product": "p"},
        "html",
    ),
    (
        "creatives",
        "html",
        {
            "html": "<a href='{landing_page}'>x</a>",
            "landing_page": "https://x.example/?r={conversion_token}",
        },
        "html",
    ),
]


@pytest.mark.parametrize(
    ("kind", "key", "change", "field"), WARNINGS, ids=lambda value: str(value)[:40]
)
def test_doubtful_things_are_only_warned_of(
    kind: str, key: str, change: dict[str, Any], field: str
) -> None:
    """What can be served, but perhaps not as meant, does not stop an import."""
    catalogue = sound()
    table = catalogue.table(kind)
    table[key] = msgspec.structs.replace(table[key], **change)
    found = [(each.field, each.severity) for each in check(catalogue)]
    assert found == [(field, "warning")]


def test_braces_of_scripts_and_styles_are_no_macros() -> None:
    """Only what nearly is a macro of ours is thought to be one that was mistyped."""
    catalogue = sound()
    script = (
        "<style>a{color_x:red}</style><script>f({user.id});t(`{my_name}{click_url|js}`)</script>"
    )
    changed = {"html": script, "landing_page": "https://shop.example/"}
    catalogue.creatives["html"] = msgspec.structs.replace(catalogue.creatives["html"], **changed)
    assert [] == list(check(catalogue))


def test_a_currency_without_a_rate_is_warned_of() -> None:
    """Where rates are known: what counts in another currency could hardly bid."""
    found = list(check(sound(), Outside(currencies={"eur"})))
    assert [("a", "currency"), ("b", "currency")] == [(each.key, each.field) for each in found]
    assert {"warning"} == {each.severity for each in found}
    assert [] == list(check(sound(), Outside(currencies={"usd"})))


@pytest.mark.parametrize(
    ("booked", "found"),
    [
        (("k", "a", "USD"), ("line_items", "li", "campaign")),
        (("c", "b", "USD"), ("campaigns", "c", "advertiser")),
        (("c", "a", "EUR"), ("advertisers", "a", "currency")),
    ],
)
@pytest.mark.parametrize("line_item", ["li", "gone"])
def test_money_in_the_books_cannot_move(
    booked: tuple[str, str, str], found: tuple[str, str, str], line_item: str
) -> None:
    """A line item keeps its campaign, a campaign its advertiser, and he his currency, whichever of
    their line items are in the books."""
    campaign, advertiser, currency = booked
    owner = Owner(ad_key("campaign", campaign), owner_key(advertiser), currency_code(currency), "x")
    catalogue, outside = sound(), Outside(owners={ad_key("line_item", line_item): owner})
    errors = [(each.kind, each.key, each.field) for each in check(catalogue, outside)]

    assert ([found] if line_item == "li" or found[0] != "line_items" else []) == errors
    assert bool(errors) == ("li" not in sound_part(catalogue, outside).line_items)


def test_money_that_stays_may_go_on() -> None:
    """The same owner as in the books is no fault, whatever the case of letters."""
    owner = Owner(ad_key("campaign", "C"), owner_key("A"), currency_code("usd"), "x")
    assert [] == list(check(sound(), Outside(owners={ad_key("line_item", "LI"): owner})))


def test_backslashes_and_line_breaks_are_text() -> None:
    """A script may hold "\\b", which JSON writes like an escaped control character."""
    catalogue = sound()
    html = "<script>\r\n\tif (/\\bshop\\f/.test(x)) y()</script>"
    catalogue.creatives["html"] = msgspec.structs.replace(catalogue.creatives["html"], html=html)
    assert list(check(catalogue)) == []


def test_half_a_surrogate_is_no_text() -> None:
    """Python may hold it, UTF-8 may not."""
    catalogue = sound()
    segment = Segment("s", name="\ud800")
    catalogue.segments["s"] = segment
    expected = [Finding("segments", "s", "", "half a surrogate pair: not a text")]
    assert expected == list(check(catalogue))


def test_ids_that_differ_in_case_are_told_apart() -> None:
    """Their hashes are the same, so one would spend the other's budget."""
    catalogue = sound()
    catalogue.add(msgspec.structs.replace(catalogue.line_items["li"], id="LI"))
    found = [(each.kind, each.key, each.field) for each in check(catalogue)]
    assert [("line_items", "LI", "id")] == found
    assert ["li"] == list(sound_part(catalogue).line_items)


def test_flights_in_a_row_are_none_that_overlap() -> None:
    """The end of a flight is not in it."""
    catalogue = sound()
    flights = (Flight("2026-02-01"), Flight("2026-01-01", "2026-01-31", Budget("9", None, 10)))
    catalogue.campaigns["c"] = msgspec.structs.replace(catalogue.campaigns["c"], flights=flights)
    assert [] == list(check(catalogue))


def test_landing_page_of_a_native_ad_may_name_the_bid() -> None:
    """Its click URL is made for each bid, unlike the other assets."""
    catalogue = sound()
    page = "https://shop.example/?b={bid_id}"
    native = msgspec.structs.replace(catalogue.creatives["native"], landing_page=page)
    catalogue.creatives["native"] = native
    assert [] == list(check(catalogue))


PARTS: list[tuple[Callable[[Catalogue], object], set[str], tuple[str, ...]]] = [
    (lambda c: c.creatives.pop("video"), set(), ("image",)),
    (
        lambda c: c.creatives.update(
            image=msgspec.structs.replace(c.creatives["image"], width=-1),
            video=msgspec.structs.replace(c.creatives["video"], duration_s=None),
        ),
        {"creatives/image", "creatives/video", "line_items/li"},
        (),
    ),
    (
        lambda c: c.advertisers.update(a=Advertiser("a", currency="?")),
        {
            "advertisers/a", "campaigns/c", "products/a/p", "creatives/image", "creatives/html",
            "creatives/native", "creatives/video", "line_items/li",
        },
        (),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "lost", "creatives"), PARTS)
def test_sound_part_leaves_out_what_hangs_on_errors(
    damage: Callable[[Catalogue], object], lost: set[str], creatives: tuple[str, ...]
) -> None:
    """A line item goes on with what is left of its creatives, and goes with the last of them."""
    catalogue = sound()
    damage(catalogue)
    part = sound_part(catalogue)
    assert not [each for each in check(part) if each.severity == "error"]
    kinds = ("advertisers", "campaigns", "products", "creatives", "line_items")
    missing = {
        f"{kind}/{key}"
        for kind in kinds
        for key in catalogue.table(kind)
        if key not in part.table(kind)
    }
    assert lost == missing
    if creatives:
        assert creatives == part.line_items["li"].creatives


def test_line_item_that_loses_its_deals_does_not_go_to_the_open_market() -> None:
    """Deal-only means deal-only, also in part."""
    catalogue = sound()
    catalogue.line_items["li"] = LineItem(
        "li", "c", Goal("cpm", amount="2"), ("image",), deals=("gone",)
    )
    assert "li" not in sound_part(catalogue).line_items


def test_id_with_spaces_hides_nothing() -> None:
    """An odd id is one finding, beside those of the other rules."""
    catalogue = sound()
    catalogue.add(Campaign(" c", advertiser="nobody"))
    found = [(each.key, each.field) for each in check(catalogue)]
    assert [(" c", "id"), (" c", "advertiser")] == found
