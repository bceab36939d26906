"""A seeded catalogue of any size, shaped like a retailer's: for tests of compile and artefacts."""

import random
from collections.abc import Callable

import pytest

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
    Product,
    Segment,
)

COUNTRIES = ("USA", "DEU", "GBR", "FRA", "JPN", "BRA", "IND", "CAN")
SIZES = ((300, 250), (728, 90), (320, 50), (160, 600), (970, 250))
FLIGHT_BUDGET = Budget(total="900", impressions=400_000)
PATHS = ("Shoes > Running", "Shoes > Boots", "Home > Kitchen", "Toys")


def catalogue_of(line_items: int, seed: int = 7) -> Catalogue:
    """A catalogue with that many line items, a creative or three each, and some products."""
    chance = random.Random(seed)
    result = Catalogue(
        segments={f"s{n}": Segment(f"s{n}") for n in range(50)},
        deals={f"d{n}": Deal(f"d{n}", exchange="generic") for n in range(5)},
    )
    advertisers = max(1, line_items // 50)
    for n in range(advertisers):
        result.add(
            Advertiser(
                f"a{n}",
                f"Shop {n}",
                domains=(f"shop{n}.example",),
                seats={"generic": f"seat-{n}"},
                timezone="Europe/Berlin",
            )
        )
        flights = (Flight("2026-01-01", "2026-06-30"), Flight("2026-07-01", "2026-12-31"))
        budget = Budget(total="5000", daily="200")
        result.add(Campaign(f"c{n}", advertiser=f"a{n}", flights=flights, budget=budget))
        for m in range(4):
            result.add(_product(f"a{n}", f"p{m}", chance))
        for m in range(8):
            result.add(_creative(f"a{n}", f"cr{n}-{m}", m, chance))
    for n in range(line_items):
        result.add(_line_item(f"li{n}", n % advertisers, chance))
    return result


def _product(advertiser: str, product: str, chance: random.Random) -> Product:
    return Product(
        product,
        advertiser=advertiser,
        title=f'Item "{product}" & co',
        price=f"{chance.randrange(100, 9999) / 100:.2f} USD",
        product_type=chance.choice(PATHS),
        link=f"https://shop.example/{product}",
        image_link=f"https://cdn.example/{product}.jpg",
    )


def _creative(advertiser: str, name: str, number: int, chance: random.Random) -> Creative:
    categories = {"1": (chance.choice(("IAB1-2", "IAB19", "IAB18-5")),)}
    page = f"https://{advertiser}.example/x?a=1&b=2"
    if number == 0:
        return Creative(
            name,
            advertiser=advertiser,
            type="video",
            width=1280,
            height=720,
            duration_s=15,
            media_files=(MediaFile("https://cdn.example/v.mp4", mime="video/mp4"),),
            landing_page=page,
            categories=categories,
        )
    if number == 1:
        return Creative(
            name,
            advertiser=advertiser,
            type="native",
            native=Native("A title", main=Image("https://cdn.example/m.png", 1200, 627)),
            landing_page=page,
            product="p1",
        )
    width, height = SIZES[number % len(SIZES)]
    return Creative(
        name,
        advertiser=advertiser,
        type="image",
        width=width,
        height=height,
        image_url=f"https://cdn.example/{name}.png",
        landing_page=page,
        categories=categories,
        product=f"p{number % 4}",
        frequency_caps=(FrequencyCap(2, "1h"),),
    )


def _line_item(name: str, advertiser: int, chance: random.Random) -> LineItem:
    creatives = [f"cr{advertiser}-{m}" for m in chance.sample(range(8), chance.randrange(1, 4))]
    goals = (
        Goal("cpm", amount="2.50"),
        Goal("cpc", amount="0.40"),
        Goal("cpa", amount="20"),
        Goal("roas", target_roas=4.0, order_value="60"),
    )
    return LineItem(
        name,
        campaign=f"c{advertiser}",
        goal=chance.choice(goals),
        max_cpm="12.00",
        creatives=tuple(creatives),
        # Half of them in flights of their own, the others in those of their campaign.
        flights=(Flight("2026-01-01", "2026-12-31", FLIGHT_BUDGET),) if advertiser % 2 else (),
        budget=Budget(daily="50"),
        frequency_caps=(FrequencyCap(5, "1d"),),
        targeting=targeting_of(chance),
        deals=("d1",) if chance.random() < 0.05 else (),
        exclude_purchased=ExcludePurchased(item_days=30),
        separation=f"g{chance.randrange(20)}",
        needs_profile=chance.random() < 0.1,
    )


def targeting_of(chance: random.Random) -> dict[str, object]:
    """A country or two, and a few conditions as people combine them."""
    countries = chance.sample(COUNTRIES, chance.choice((1, 1, 2)))
    parts: list[object] = [{"key": "country", "in": countries}]
    if chance.random() < 0.4:
        segments = [f"s{n}" for n in chance.sample(range(50), 3)]
        parts.append({"key": "audience", "in": segments})
    if chance.random() < 0.3:
        parts.append({"not": {"key": "category", "in": ["IAB7", "IAB24"]}})
    if chance.random() < 0.3:
        parts.append({"key": "device_type", "in": ["phone", "tablet"]})
    if chance.random() < 0.2:
        parts.append({"key": "hour", "days": ["mon-fri"], "hours": ["8-20"]})
    if chance.random() < 0.1:
        site = f"site{chance.randrange(9)}.example"
        modern = {"all": [{"key": "os", "is": "ios"}, {"key": "os_version", "at_least": "15.0"}]}
        parts.append({"any": [{"key": "domain", "in": ["news.example", site]}, modern]})
    return {"all": parts}


@pytest.fixture(scope="session", name="catalogue_of")
def catalogue_of_fixture() -> Callable[..., Catalogue]:
    """`catalogue_of(line_items, seed=7)`."""
    return catalogue_of
