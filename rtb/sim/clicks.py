"""What people really do with ads: the hidden truth of the world, and logs of it to learn from.

A click is a coin whose odds depend on person, place and ad; a conversion is another. The truth is
fixed, whatever the seed: effects of names (a site, an advertiser, a creative) are drawn from the
name, and people like what they are interested in. `rtb train` sees only the log.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Final

import orjson

from rtb.base.errors import ConfigError
from rtb.base.hashing import mix64
from rtb.base.records import Dim
from rtb.catalogue.model import Catalogue, Creative, LineItem, Product, product_key
from rtb.catalogue.tokens import hash_of
from rtb.sim import world
from rtb.sim.campaigns import CTR, CVR
from rtb.sim.devices import PHONE
from rtb.sim.draws import Weighted
from rtb.sim.places import DAY_SHARES, HOUR_SHARES
from rtb.sim.seed import build_catalogue, read_stamp
from rtb.sim.shelves import VERTICALS, Vertical
from rtb.sim.traffic import Traffic, Visit
from rtb.sim.world import People

# Weights of the log-odds. Interest weighs most: it is what profiles and segments can tell.
INTEREST: Final = 1.3
SUBJECT: Final = 0.6
SITE_SPREAD, ADVERTISER_SPREAD, CREATIVE_SPREAD = 0.35, 0.4, 0.25
PHONE_EFFECT: Final = 0.2
EVENING: Final = 0.15
CONVERSION_INTEREST: Final = 0.8
# People with an interest are a sixth of all: without this the mean would lie above the base rates.
_CENTRE: Final = -0.55
LOG_DAYS: Final = 14
_HOURS: Final = Weighted(range(168), [day * hour for day in DAY_SHARES for hour in HOUR_SHARES])


@dataclass(frozen=True, slots=True)
class Shown:
    """What people see of an ad."""

    creative: Creative
    vertical: Vertical

    @property
    def medium(self) -> str:
        return self.creative.media


@dataclass(frozen=True, slots=True)
class Ad(Shown):
    """A creative as one line item uses it."""

    line_item: LineItem
    campaign: str
    product: Product | None


def shown(creative: Creative) -> Shown:
    """A seeded creative: its first category tells what it is about."""
    return Shown(creative, _verticals()[creative.categories["1"][0]])


def is_seeded(creative: Creative) -> bool:
    """Whether it is about something that the seeded people know."""
    return creative.categories.get("1", ("",))[0] in _verticals()


@cache
def _verticals() -> dict[str, Vertical]:
    return {each.ad_category: each for each in VERTICALS}


def click_odds(people: People, visit: Visit, ad: Shown, hour: int) -> float:
    """The true chance that an impression is clicked; `hour` of the week, Monday 0:00 = 0."""
    base = CTR[ad.medium]
    logit = math.log(base / (1.0 - base)) + _CENTRE
    logit += SITE_SPREAD * normal(Dim.DOMAIN, visit.place.name)
    logit += ADVERTISER_SPREAD * normal(Dim.AD, f"advertiser {ad.creative.advertiser}")
    logit += CREATIVE_SPREAD * normal(Dim.AD, f"creative {ad.creative.id}")
    logit += 0.3 * (visit.place.quality - 1.0)
    if _interested(people, visit, ad):
        logit += INTEREST
    if not set(ad.vertical.page_categories).isdisjoint(visit.place.categories):
        logit += SUBJECT
    if visit.device.type == PHONE:
        logit += PHONE_EFFECT
    if hour % 24 >= 18:
        logit += EVENING
    return 1.0 / (1.0 + math.exp(-logit))


def conversion_odds(people: People, visit: Visit, ad: Shown) -> float:
    """The true chance that a click leads to an order."""
    logit = math.log(CVR / (1.0 - CVR)) + ADVERTISER_SPREAD * normal(
        Dim.AD, f"orders {ad.creative.advertiser}"
    )
    if _interested(people, visit, ad):
        logit += CONVERSION_INTEREST
    return 1.0 / (1.0 + math.exp(-logit))


def _interested(people: People, visit: Visit, ad: Shown) -> bool:
    number = VERTICALS.index(ad.vertical)
    return number in (people.interest[visit.person], people.interest2[visit.person])


@cache
def normal(dim: Dim, name: str) -> float:
    """A number that belongs to a name, standard normal over names (sum of four uniforms)."""
    state = hash_of(dim, name)
    total = 0.0
    for _ in range(4):
        state = mix64(state + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
        total += state / (1 << 64)
    return (total - 2.0) * math.sqrt(3.0)


# -- logs -----------------------------------------------------------------------------------------


def log_lines(data: Path, count: int, seed: int) -> Iterator[bytes]:
    """`count` impressions as JSON lines for `rtb train`: ads shown at random where they fit.

    Random ads are what a model learns best from: no bidder chose whom to show them to.
    Raises: ConfigError unless `data` was seeded with line items.
    """
    stamp = read_stamp(data)
    if stamp is None:
        raise ConfigError(f"{data}: not a seeded directory: run `rtb seed`")
    _, catalogue = build_catalogue(stamp.parameters, stamp.now_s)
    return _rows(catalogue, stamp.parameters.profiles or world.PEOPLE_COUNT, count, seed)


def _rows(catalogue: Catalogue, people_count: int, count: int, seed: int) -> Iterator[bytes]:
    ads = _ads(catalogue)
    traffic, people = Traffic(seed, people_count), world.people(people_count)
    random = Random(f"clicks {seed}")
    start_s = int(time.time()) // 86_400 * 86_400 - LOG_DAYS * 86_400
    written = 0
    while written < count:
        visit = traffic.visit()
        fitting = ads.get(_size_key(random, visit))
        if not fitting:
            continue
        ad = random.choice(fitting)
        hour = _HOURS.pick(random)
        # Days go by as the log does, so that a hold-out by time has a later part to predict.
        when = start_s + written * LOG_DAYS * 86_400 // count
        clicked = random.random() < click_odds(people, visit, ad, hour)
        bought = clicked and random.random() < conversion_odds(people, visit, ad)
        row = _request_side(random, people, visit, hour) | _ad_side(ad)
        row |= {"time": when, "click": int(clicked), "conversion": int(bought)}
        yield orjson.dumps(row)
        written += 1


def _ads(catalogue: Catalogue) -> dict[str, list[Ad]]:
    """All ads by what they fit: "300x250", "video", "native", "audio"."""
    found: dict[str, list[Ad]] = {}
    for line_item in catalogue.line_items.values():
        for key in line_item.creatives:
            creative = catalogue.creatives[key]
            product = catalogue.products.get(
                product_key(creative.advertiser, creative.product or "")
            )
            vertical = shown(creative).vertical
            ad = Ad(creative, vertical, line_item, line_item.campaign, product)
            fits = creative.media
            if fits == "banner":
                fits = f"{creative.width}x{creative.height}" if creative.width else "300x250"
            found.setdefault(fits, []).append(ad)
    return found


def _size_key(random: Random, visit: Visit) -> str:
    medium = "banner" if visit.medium == "multi" else visit.medium
    if medium != "banner":
        return medium
    return world.BANNER_SIZES["mobile" if visit.device.mobile else "desktop"].pick(random)


def _request_side(random: Random, people: People, visit: Visit, hour: int) -> dict[str, object]:
    """The columns that the decoder would find in the request, named by their dimensions."""
    place, city = visit.place, visit.city
    known = random.random() < world.KNOWN_SHARE * (1.0 - world.PRIVATE_SHARE)
    app = place.kind != "site"
    return {
        "exchange": world.EXCHANGE,
        "channel": "app" if app else "site",
        "country": city.country,
        "region": f"{city.country}-{city.region}",
        "device_type": visit.device.type,
        "os": visit.device.family,
        "language": city.language,
        "publisher": place.id,
        "domain": "" if app else place.domain,
        "bundle": place.bundle if app else "",
        "page_category": [f"{place.cattax}:{code}" for code in place.categories],
        "hour_of_week": hour,
        "audience": people.segments(visit.person) if known else [],
    }


def _ad_side(ad: Ad) -> dict[str, object]:
    creative = ad.creative
    row: dict[str, object] = {
        "creative": creative.id,
        "line_item": ad.line_item.id,
        "campaign": ad.campaign,
        "advertiser": creative.advertiser,
        "media": creative.media,
        "ad_media": creative.media,
    }
    if creative.width and creative.height:
        row["size"] = row["ad_size"] = f"{creative.width}x{creative.height}"
    if ad.product is not None:
        row["product"] = ad.product.id
        row["category"] = ad.product.category
    return row
