"""Compilation: a snapshot says what the catalogue says, line item by line item."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from rtb.base.events import VideoEvent
from rtb.base.records import Dim, Escape, Hole
from rtb.catalogue import facts, snapshot
from rtb.catalogue.bounds import check_arrays
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.index import members_of
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
    LineItem,
    Product,
    flight_ms,
)
from rtb.catalogue.snapshot import Snapshot
from rtb.catalogue.targeting import matches
from rtb.catalogue.targeting_parse import parse
from rtb.catalogue.tokens import hash_of

Make = Callable[..., Catalogue]


def small(**changes: Any) -> Catalogue:
    """One of everything; `changes` are fields of the line item."""
    banner = {"width": 300, "height": 250, "image_url": "https://c.example/b.png"}
    fields: dict[str, Any] = {"goal": Goal("cpm", amount="2"), "creatives": ("cr",)} | changes
    result = Catalogue()
    result.add(Advertiser("a", domains=("www.shop.example",), seats={"generic": "s1"}))
    result.add(Campaign("c", advertiser="a", frequency_caps=(FrequencyCap(3, "7d"),)))
    result.add(Deal("d1", exchange="north"))
    result.add(Product("p", "a", "Shoe", "45.00 USD", product_type="Shoes > Running"))
    result.add(
        Creative(
            "cr",
            "a",
            "image",
            landing_page="https://shop.example/",
            categories={"1": ("IAB18-5",)},
            product="p",
            exchange_status={"north": "rejected", "south": "approved"},
            **banner,
        )
    )
    result.add(
        Creative(
            "v",
            "a",
            "video",
            vast_tag_url="https://v.example/tag",
            duration_s=15,
            vast_version="4.2",
        )
    )
    result.add(LineItem("li", "c", **fields))
    return result


def compiled(catalogue: Catalogue, now_ms: int | None = None) -> Snapshot:
    arrays, meta = compile_snapshot(catalogue, now_ms)
    check_arrays(arrays, meta)
    return Snapshot(arrays, meta, "")


def needed(result: Snapshot, dim: Dim) -> set[int]:
    """Hashes that some line item includes in a dimension."""
    values = result["values"]
    return set(values["hash"][(values["dim"] == dim) & (values["include_row"] >= 0)].tolist())


def test_line_item_row_holds_what_people_wrote() -> None:
    """Money, rates, windows, flags and names land in their columns."""
    result = compiled(
        small(
            goal=Goal("roas", target_roas=4.0, order_value="60"),
            max_cpm="12.5",
            needs_profile=True,
            exclude_purchased=ExcludePurchased(item_days=30, category_days=2),
            frequency_caps=(FrequencyCap(5, "1d"),),
            separation="shoes",
            flights=(Flight("2026-03-01", "2026-03-31"),),
        )
    )
    row = result["line_items"][0]
    assert result.id_of("line_items", 0) == "li"
    assert int(row["key"]) == hash_of(Dim.AD, "line_item:li")
    assert int(row["bid_micros"]) == 15_000_000
    assert int(row["max_cpm_micros"]) == 12_500_000
    assert int(row["order_value_micros"]) == 60_000_000
    assert int(row["goal"]) == snapshot.GOAL_ROAS
    assert int(row["flags"]) == snapshot.OPEN_MARKET | snapshot.NEEDS_PROFILE
    assert (int(row["item_window_s"]), int(row["category_window_s"])) == (2_592_000, 172_800)
    assert int(row["separation"]) == 0
    assert result["flights"].tolist() == [(1_772_323_200_000, 1_775_001_600_000)]
    caps = [(hash_of(Dim.CAP, "line_item/li/86400"), 5, 86_400)]
    caps.append((hash_of(Dim.CAP, "campaign/c/604800"), 3, 604_800))
    assert caps == result["caps"].tolist()


def test_budgets_stand_beside_their_owners() -> None:
    """What people wrote, in micros, and -1 where they set no limit."""
    catalogue = small(
        budget=Budget("100", "10", 5_000, "expected"), pacing="traffic", frequency_caps=()
    )
    catalogue.advertisers["a"] = Advertiser(
        "a", "Ann's", domains=("x.example",), currency="EUR", timezone="Europe/Berlin",
        budget=Budget("1000"),
    )  # fmt: skip
    catalogue.campaigns["c"] = Campaign("c", "a", budget=Budget(daily="30"))
    result = compiled(catalogue)
    payer = result["advertiser_budgets"][0]
    names = [
        (int(payer[f"{name}_start"]), int(payer[f"{name}_count"])) for name in ("zone", "name")
    ]
    assert ["Europe/Berlin", "Ann's"] == [result.text(*each) for each in names]
    assert (1_000_000_000, 0x455552) == (int(payer["total_micros"]), int(payer["currency"]))
    key = hash_of(Dim.AD, "campaign:c")
    assert [(key, -1, 30_000_000)] == result["campaign_budgets"].tolist()
    item = (100_000_000, 10_000_000, 5_000, 0, 0, snapshot.PACING_TRAFFIC)
    assert [item] == result["line_item_budgets"].tolist()
    assert snapshot.OPEN_MARKET | snapshot.EXPECTED == int(result["line_items"][0]["flags"])


def test_flight_of_a_campaign_is_one_for_its_line_items() -> None:
    """Its budget has one key; a line item's own flight, even of the same days, another."""
    shared = (Flight("2026-04-01", budget=Budget("9")), Flight(end="2026-03-01"))
    catalogue = small()
    catalogue.campaigns["c"] = Campaign("c", "a", flights=shared)
    own = (Flight("2026-04-01", "2026-04-02", Budget(impressions=7)),)
    for name, flights in (("li2", ()), ("li3", own)):
        line_item = msgspec.structs.replace(catalogue.line_items["li"], id=name, flights=flights)
        catalogue.add(line_item)
    result = compiled(catalogue)
    april = flight_ms(own[0], "UTC")[0]
    rows = {
        (hash_of(Dim.AD, "flight:campaign:c/0"), -1, -1),
        (hash_of(Dim.AD, f"flight:campaign:c/{april}"), 9_000_000, -1),
        (hash_of(Dim.AD, f"flight:line_item:li3/{april}"), -1, 7),
    }
    assert rows == set(result["flight_budgets"].tolist())
    names = [result.id_of("line_items", n) for n in range(3)]
    ranges = dict(zip(names, result["line_item_budgets"]["flights_start"].tolist(), strict=True))
    assert ranges["li"] == ranges["li2"] != ranges["li3"]
    first = result["flight_budgets"][ranges["li"]]
    assert hash_of(Dim.AD, "flight:campaign:c/0") == int(first["key"])


def test_prolonged_flight_keeps_its_books() -> None:
    """Its key follows from who owns it and when it begins."""
    one, other = (
        compiled(small(flights=(Flight("2026-03-01", end),)))["flight_budgets"]["key"]
        for end in ("2026-03-31", "2026-04-30")
    )
    assert one.tolist() == other.tolist()


def test_of_two_limits_of_one_count_the_lower_holds() -> None:
    """A count stands once with a line item, so an impression adds one to it."""
    result = small(frequency_caps=(FrequencyCap(5, "1d"), FrequencyCap(2, "7d")))
    caps = (FrequencyCap(3, "24h", "line_item"), FrequencyCap(9, "1w", "line_item"))
    campaign = result.campaigns["c"]
    result.campaigns["c"] = msgspec.structs.replace(campaign, frequency_caps=caps)
    expected = [(hash_of(Dim.CAP, f"line_item/li/{days * 86_400}"), count, days * 86_400)
                for days, count in ((1, 3), (7, 2))]  # fmt: skip
    assert expected == compiled(result)["caps"].tolist()


def test_caps_of_a_creative_are_its_own() -> None:
    """Whichever line item shows it, its impressions count together, each cap once."""
    catalogue = small(creatives=("cr", "v"))
    caps = (FrequencyCap(2, "1d"), FrequencyCap(5, "lifetime", "creative"), FrequencyCap(2, "24h"))
    creative = msgspec.structs.replace(catalogue.creatives["cr"], frequency_caps=caps)
    catalogue.creatives["cr"] = creative
    result = compiled(catalogue)
    found = {
        result.id_of("creatives", n): result["caps"][start : start + count].tolist()
        for n, (start, count) in enumerate(result["creatives"][["caps_start", "caps_count"]])
    }
    expected = [
        (hash_of(Dim.CAP, "creative/cr/86400"), 2, 86_400),
        (hash_of(Dim.CAP, "creative/cr/0"), 5, 0),
    ]
    assert {"cr": expected, "v": []} == found


def test_creative_row_holds_facts_and_references() -> None:
    """Blocks find a creative by category, tier-one category, domain and parent domain."""
    result = compiled(small())
    row = result["creatives"][0]
    values = result["values"]
    ordinals = {(int(value["dim"]), int(value["hash"])): int(value["ordinal"]) for value in values}
    for dim in (Dim.BCAT, Dim.ACAT):
        found = {ordinals[dim, hash_of(dim, text)] for text in ("1:IAB18-5", "1:IAB18")}
        assert found == set(result["creative_categories"].tolist())
    for dim in (Dim.BADV, Dim.DEAL_WADOMAIN):
        found = {ordinals[dim, hash_of(dim, text)] for text in ("www.shop.example", "shop.example")}
        assert found == set(result["creative_domains"].tolist())
    assert result["creative_statuses"].tolist() == [hash_of(Dim.EXCHANGE, "north")]
    assert (int(row["w"]), int(row["h"]), int(row["media"]), int(row["secure"])) == (300, 250, 1, 1)
    product = result["products"][row["product"]]
    assert int(product["item"]) == hash_of(Dim.ITEM, "a/p")
    assert (int(product["price_micros"]), int(product["available"])) == (45_000_000, 1)
    categories = [hash_of(Dim.CATEGORY, text) for text in ("a/Shoes", "a/Shoes > Running")]
    assert categories == result["product_categories"].tolist()


def test_features_name_the_ad_side_of_models() -> None:
    """The names are those that a training log is hashed by."""
    result = compiled(small())
    row = result["creatives"][0]
    start = int(row["features_start"])
    names = [
        "advertiser:a", "campaign:c", "line_item:li", "creative:cr", "media:banner",
        "size:300x250", "product:p", "category:Shoes", "category:Shoes > Running",
        "category:1:IAB18-5", "category:1:IAB18",
    ]  # fmt: skip
    features = result["features"][start : start + int(row["features_count"])].tolist()
    assert [hash_of(Dim.AD, name) for name in names] == features


def test_frame_is_a_fragment_of_json() -> None:
    """Pieces in a row complete a bid object."""
    result = compiled(small())
    row = result["creatives"][0]
    pieces = result["pieces"][row["frame_start"] : row["frame_start"] + row["frame_count"]]
    text = "".join(result.text(int(p["text_start"]), int(p["text_count"])) for p in pieces)
    holes = [(p["hole"], p["event"], p["escape"]) for p in pieces if p["hole"] != Hole.NONE]
    assert [(Hole.CLICK_URL, 0, Escape.HTML), (Hole.IMPRESSION_URL, 0, Escape.HTML)] == holes
    bid = msgspec.json.decode('{"id":"1"' + text + "}")
    assert (bid["cid"], bid["crid"], bid["adomain"]) == ("c", "cr", ["www.shop.example"])
    assert (bid["w"], bid["h"], bid["mtype"], bid["cat"]) == (300, 250, 1, ["IAB18-5"])
    assert 'href="https%3A%2F%2Fshop.example%2F"' in bid["adm"]


def test_events_of_a_video_are_numbered() -> None:
    """A hole says which event its URL counts."""
    result = compiled(small(creatives=("v",)))
    pieces = result["pieces"]
    events = pieces[pieces["hole"] == Hole.VIDEO_URL]
    assert [int(each) for each in VideoEvent] == events["event"].tolist()
    assert {int(Escape.NONE)} == set(events["escape"].tolist())


def test_banners_imply_their_sizes_and_any_ratio() -> None:
    """A line item of banners asks for their sizes, or a format that names none."""
    result = compiled(small())
    assert needed(result, Dim.MEDIA) == {hash_of(Dim.MEDIA, "banner")}
    assert needed(result, Dim.SIZE) == {hash_of(Dim.SIZE, size) for size in ("300x250", "flex")}


def test_mixed_creatives_imply_no_size() -> None:
    """A video may answer where no banner size fits."""
    result = compiled(small(creatives=("cr", "v")))
    assert needed(result, Dim.MEDIA) == {hash_of(Dim.MEDIA, each) for each in ("banner", "video")}
    assert needed(result, Dim.SIZE) == set()


def test_deal_only_line_item_asks_for_its_deals() -> None:
    """Deals without the open market name deal and exchange; with it, neither."""
    result = compiled(small(deals=("d1",)))
    assert needed(result, Dim.DEAL) == {hash_of(Dim.DEAL, "d1")}
    assert needed(result, Dim.EXCHANGE) == {hash_of(Dim.EXCHANGE, "north")}
    assert int(result["line_items"][0]["flags"]) == 0
    both = compiled(small(deals=("d1",), open_market=True))
    assert needed(both, Dim.DEAL) == set()
    assert int(both["line_items"][0]["deals_count"]) == 1


def test_targeted_media_meets_creatives_soundly() -> None:
    """Targeting of video by a banner line item stays what it says, without a program."""
    result = compiled(small(targeting={"key": "media", "in": ["video", "banner"]}))
    assert needed(result, Dim.MEDIA) == {hash_of(Dim.MEDIA, "banner")}
    other = compiled(small(targeting={"key": "media", "is": "video"}))
    assert needed(other, Dim.MEDIA) == {hash_of(Dim.MEDIA, "video")}
    assert int(other["line_items"][0]["program_count"]) == 0


LEFT_OUT = [
    ("line_items", {"status": "paused"}, "paused"),
    ("campaigns", {"status": "archived"}, "paused"),
    ("advertisers", {"status": "paused"}, "paused"),
    ("creatives", {"status": "paused"}, "no_creative"),
    ("line_items", {"flights": (Flight(end="2020-01-01"),)}, "ended"),
]


@pytest.mark.parametrize(("kind", "change", "reason"), LEFT_OUT, ids=lambda value: str(value)[:30])
def test_what_cannot_serve_is_left_out(kind: str, change: dict[str, Any], reason: str) -> None:
    """A worker never sees what is paused or over."""
    catalogue = small()
    table = catalogue.table(kind)
    for key, entity in table.items():
        table[key] = msgspec.structs.replace(entity, **change)
    result = compiled(catalogue, now_ms=1_780_000_000_000)
    assert len(result["line_items"]) == 0
    assert result.meta["left_out"] == {reason: 1}


def test_no_flight_means_always() -> None:
    """A line item without flights has one that never ends, its campaign's if that has any."""
    assert compiled(small())["flights"].tolist() == [(0, 1 << 62)]


def test_seats_come_ready_for_lists_and_for_json() -> None:
    """A seat is found in wseat, bseat and deal.wseat, and written as JSON."""
    result = compiled(small())
    seat = result["seats"][0]
    hashes = [int(seat[name]) for name in ("exchange", "hash_w", "hash_b", "hash_dw")]
    dims = (Dim.WSEAT, Dim.BSEAT, Dim.DEAL_WSEAT)
    assert hashes == [hash_of(Dim.EXCHANGE, "generic"), *(hash_of(dim, "s1") for dim in dims)]
    assert result.text(int(seat["text_start"]), int(seat["text_count"])) == "s1"


def test_order_of_files_changes_nothing(catalogue_of: Make) -> None:
    """Equal catalogues give equal arrays, so an import that changes nothing changes no file."""
    catalogue = catalogue_of(60)
    turned = Catalogue()
    for kind in ("advertisers", "campaigns", "deals", "segments", "products", "creatives"):
        for entity in reversed(catalogue.table(kind).values()):
            turned.add(entity)
    for entity in reversed(catalogue.line_items.values()):
        turned.add(entity)
    first, meta = compile_snapshot(catalogue)
    second, other = compile_snapshot(turned)
    assert meta == other
    for name, array in first.items():
        assert array.tobytes() == second[name].tobytes(), name


def tokens_of(chance: random.Random) -> dict[Dim, set[int]]:
    """A request, as sets of tokens: on the exchange that the sample's deals are on."""
    texts = {
        Dim.COUNTRY: [chance.choice(("usa", "deu", "jpn"))],
        Dim.EXCHANGE: ["generic"],
        Dim.MEDIA: chance.sample(("banner", "video", "native"), 2),
        Dim.SIZE: ["300x250", "728x90", "320x50", "160x600", "970x250", "1280x720"],
        Dim.DEAL: ["d1"],
        Dim.AUDIENCE: [f"s{n}" for n in chance.sample(range(50), 12)],
        Dim.PAGE_CATEGORY: chance.sample(("1:IAB7", "1:IAB1"), 1),
        Dim.DEVICE_TYPE: [chance.choice("245")],
        Dim.HOUR_OF_WEEK: [str(chance.randrange(168))],
        Dim.DOMAIN: ["site3.example"],
        Dim.OS: ["ios"],
    }
    return {dim: {hash_of(dim, text) for text in values} for dim, values in texts.items()}


def passing(arrays: dict[str, npt.NDArray[Any]], tokens: dict[Dim, set[int]]) -> set[int]:
    """Positions that the index lets pass, by numpy look-ups."""
    everyone = set(range(len(arrays["line_items"])))
    result = set(everyone)
    values = arrays["values"]
    for dim in arrays["dims"]:
        wanted = values[np.isin(values["hash"], list(tokens.get(Dim(int(dim["dim"])), ())))]
        free = int(dim["free_row"])
        included = set(everyone) if free < 0 else set(members_of(arrays, free))
        for row in wanted["include_row"][wanted["include_row"] >= 0].tolist():
            included |= set(members_of(arrays, row))
        for row in wanted["exclude_row"][wanted["exclude_row"] >= 0].tolist():
            included -= set(members_of(arrays, row))
        result &= included
    return result


def test_index_of_a_catalogue_agrees_with_its_trees(catalogue_of: Make) -> None:
    """On requests that offer every size, media aside, the index drops what the trees drop."""
    catalogue = catalogue_of(300)
    arrays, meta = compile_snapshot(catalogue)
    result = Snapshot(arrays, meta, "")
    chance = random.Random(3)
    for _ in range(20):
        tokens = tokens_of(chance)
        media = tokens[Dim.MEDIA]
        expected = {
            key
            for key, line_item in catalogue.line_items.items()
            if matches(parse(line_item.targeting), tokens, {Dim.OS_VERSION: 16e6}, None)
            and any(
                hash_of(Dim.MEDIA, catalogue.creatives[each].media) in media
                for each in line_item.creatives
            )
        }
        found = {result.id_of("line_items", position) for position in passing(arrays, tokens)}
        assert expected == found


def test_expected_value_follows_the_goal() -> None:
    """Clicks and conversions are worth their rate, never more than the limit."""
    goals = [
        (Goal("cpm", amount="2"), 2_000_000),
        (Goal("cpc", amount="1"), 1_000_000),
        (Goal("cpa", amount="100"), 1_000_000),
        (Goal("cpc", amount="90"), 5_000_000),
    ]
    for goal, expected in goals:
        line_item = LineItem("li", "c", goal, ("cr",), max_cpm="5")
        assert expected == facts.expected_cpm_micros(line_item)


COMPILED_ANEW = """
import hashlib
from rtb.catalogue.compile import compile_snapshot
from rtb.catalogue.model import Advertiser, Campaign, Catalogue, Creative, Goal, LineItem
catalogue = Catalogue()
catalogue.add(Advertiser("a", domains=("s.example",)))
catalogue.add(Campaign("c", "a"))
sizes = [(w, h) for w in range(100, 800, 50) for h in (50, 90, 250, 600)]
for number, (w, h) in enumerate(sizes):
    catalogue.add(Creative(f"cr{number}", "a", "html", html="<b>x</b>", width=w, height=h))
for number in range(20):
    ids = tuple(f"cr{each}" for each in range(number, len(sizes), 3))
    catalogue.add(LineItem(f"li{number}", "c", Goal("cpm", amount="2"), ids))
arrays, meta = compile_snapshot(catalogue)
print(hashlib.sha256(b"".join(array.tobytes() for array in arrays.values())).hexdigest())
"""


def test_the_same_catalogue_gives_the_same_bytes() -> None:
    """In every process, whatever order its sets of text have: else each import would be a swap."""
    found = {
        subprocess.run(
            [sys.executable, "-c", COMPILED_ANEW],
            env=os.environ | {"PYTHONHASHSEED": str(number)},
            check=True, capture_output=True,
        ).stdout
        for number in range(4)
    }  # fmt: skip
    assert 1 == len(found)
