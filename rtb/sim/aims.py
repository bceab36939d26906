"""Whom the seeded line items want to reach: targeting trees of a wanted breadth.

A menu of conditions, each with the share of a market's traffic that satisfies it; conditions are
drawn until what is left is about as narrow as wanted. The shares come from the same tables that
traffic is drawn from, so the breadth is met on average, not by luck.
"""

from collections.abc import Callable
from random import Random
from typing import Final

from rtb.sim import world
from rtb.sim.devices import CTV, DEVICES, PC, PHONE, TABLET
from rtb.sim.draws import Weighted
from rtb.sim.places import DAY_SHARES, HOUR_SHARES, Country
from rtb.sim.publishers import Publisher
from rtb.sim.retail import Retailer
from rtb.sim.shelves import KEYWORDS, LIFESTYLES

Leaf = dict[str, object]
Condition = tuple[Leaf, float]  # and the share of the market's traffic that satisfies it

# A condition narrower than this part of what is wanted is not taken, nor more than this many.
_UNDERSHOOT: Final = 0.7
_ENOUGH: Final = 1.25
_CONDITIONS_MAX: Final = 7

_NEIGHBOURS: Final = {
    "USA": ("CAN",), "CAN": ("USA",), "DEU": ("NLD", "FRA"), "FRA": ("ESP", "ITA"),
    "ESP": ("FRA",), "ITA": ("FRA",), "NLD": ("DEU",), "GBR": ("FRA",),
}  # fmt: skip
_SENSITIVE: Final = ("IAB25", "IAB26", "IAB11", "IAB14-1", "IAB23")


def targeting(random: Random, retailer: Retailer, medium: str, wanted: float) -> Leaf | None:
    """A tree that about `wanted` of the retailer's home traffic satisfies; None targets all."""
    leaves: list[Leaf] = []
    countries = _countries(random, retailer.country)
    if countries:
        leaves.append({"key": "country", "in": countries})
    left = 1.0
    for condition in _MENU.shuffled(random):
        if left <= wanted * _ENOUGH or len(leaves) > _CONDITIONS_MAX:
            break
        drawn = condition(random, retailer, medium)
        if drawn is not None and left * drawn[1] >= wanted * _UNDERSHOOT:
            leaves.append(drawn[0])
            left *= drawn[1]
    if random.random() < 0.35:
        leaves.append({"not": _refusal(random)})
    if random.random() < 0.1:
        exchanges = [world.EXCHANGE, random.choice(("euro", "first-price"))]
        leaves.append({"key": "exchange", "in": exchanges})
    if not leaves:
        return None
    return leaves[0] if len(leaves) == 1 else {"all": leaves}


def _countries(random: Random, home: Country) -> list[str]:
    kind = random.random()
    if kind < 0.03:
        return []
    if kind < 0.10:
        return [home.code, *_NEIGHBOURS.get(home.code, ())]
    return [home.code]


# -- conditions that include ----------------------------------------------------------------------


def _region(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    regions = retailer.country.regions
    chosen = random.sample(regions, random.randint(1, max(1, len(regions) * 2 // 3)))
    values = [f"{retailer.country.code}-{region}" for region in chosen]
    return {"key": "region", "in": values}, retailer.country.share(frozenset(chosen))


def _city(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    cities = retailer.country.cities
    chosen = {city.name for city in cities.several(random, random.randint(1, 3))}
    share = cities.share(lambda city: city.name in chosen)
    return {"key": "city", "in": sorted(chosen)}, share


def _distance(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    """Around the shops, and named by region besides, as buying tools ask for; the cities of the
    table lie further apart than this."""
    cities = retailer.country.cities
    chosen = cities.several(random, random.randint(1, 2))
    points = [[city.lat, city.lon] for city in chosen]
    regions = sorted({f"{city.country}-{city.region}" for city in chosen})
    near: Leaf = {"key": "distance", "within_km": random.choice((25, 40, 60)), "of": points}
    share = cities.share(lambda city: city in chosen)
    return {"all": [{"key": "region", "in": regions}, near]}, share


def _audience(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    names = set(random.sample(list(LIFESTYLES), random.randint(1, 5)))
    if random.random() < 0.6:
        names.add(retailer.vertical.segment)
    return {"key": "audience", "in": sorted(names)}, world.audience_share(frozenset(names))


def _visitors(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    known = world.KNOWN_SHARE * (1.0 - world.PRIVATE_SHARE)
    return {"key": "audience", "is": retailer.visitors}, retailer.visit_share * known


def _category(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    extra = random.sample(("IAB12", "IAB17", "IAB19", "IAB1", "IAB9-30", "IAB13"), 2)
    codes = {*retailer.vertical.page_categories, *extra[: random.randint(0, 2)]}
    share = world.category_share(retailer.country.code, frozenset(codes))
    return {"key": "category", "in": [f"1:{code}" for code in sorted(codes)]}, share


def _domains(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    """A list of sites; some lists name apps too, so that both are reached."""
    places = list(world.place_shares(retailer.country.code))
    sites = [each for each in places if each.kind == "site"]
    apps = [each for each in places if each.kind in {"app", "tv", "audio"}]
    chosen = random.sample(sites, min(len(sites), random.randint(10, 80)))
    domains: Leaf = {"key": "domain", "in": sorted(each.domain for each in chosen)}
    if random.random() < 0.85:
        return domains, _places(retailer.country, chosen)
    chosen += random.sample(apps, min(len(apps), random.randint(10, 60)))
    bundles: Leaf = {
        "key": "bundle", "in": sorted(each.bundle for each in chosen if each.kind != "site"),
    }  # fmt: skip
    share = _places(retailer.country, chosen)
    return {"any": [domains, bundles]}, share


def _device(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    sets = ((PHONE,), (PHONE, TABLET), (PC,), (PC, TABLET), (CTV,), (CTV, PC))
    chosen = random.choice(sets)
    share = DEVICES.share(lambda device: device.type in chosen)
    return {"key": "device_type", "in": list(chosen)}, share


def _system(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    chosen = random.choice((("ios",), ("android",), ("windows", "macos"), ("ios", "macos")))
    share = DEVICES.share(lambda device: device.family in chosen)
    return {"key": "os", "in": list(chosen)}, share


def _recent(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    """New phones: a condition that no bitset holds."""
    leaf: Leaf = {
        "all": [{"key": "os", "is": "ios"}, {"key": "os_version", "at_least": "17.0"}],
    }  # fmt: skip
    new = ("17.6", "18.1", "17.5")
    return leaf, DEVICES.share(lambda device: device.family == "ios" and device.osv in new)


def _hours(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    start, stop = random.choice(((6, 23), (7, 22), (8, 24), (0, 24)))
    days = random.choice(("mon-sun", "mon-fri", "mon-sat"))
    day_share = sum(DAY_SHARES[: {"mon-sun": 7, "mon-fri": 5, "mon-sat": 6}[days]])
    share = sum(HOUR_SHARES[start:stop]) * day_share / sum(HOUR_SHARES) / sum(DAY_SHARES)
    return {"key": "hour", "days": [days], "hours": [f"{start}-{stop}"]}, share


def _keyword(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    words = set(random.sample(KEYWORDS, random.randint(2, 8)))
    share = world.keyword_share(retailer.country.code, frozenset(words))
    return {"key": "keyword", "in": sorted(words)}, share


def _data_segment(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    """Segments that requests bring along: a quarter of them, from one provider, two or three."""
    values = random.sample(world.DATA_SEGMENTS, random.randint(4, 20))
    share = 0.25 * (1.0 - (1.0 - len(values) / len(world.DATA_SEGMENTS)) ** 2.5)
    return {"key": "data_segment", "in": [f":{value}" for value in values]}, share


def _connection(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    return {"key": "connection", "in": ["wifi", "ethernet"]}, 0.72


def _position(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    return ({"key": "position", "is": "atf"}, 0.5) if medium == "banner" else None


def _viewability(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    leaf: Leaf = {"key": "viewability", "at_least": random.choice((0.5, 0.6))}
    return (leaf, 0.2) if medium in {"banner", "video"} else None


def _either(random: Random, retailer: Retailer, medium: str) -> Condition | None:
    """Known buyers anywhere, or anybody where the subject fits."""
    known = _audience(random, retailer, medium)
    about = _category(random, retailer, medium)
    device = _device(random, retailer, medium)
    assert known is not None
    assert about is not None
    assert device is not None
    there = about[1] * device[1]
    return (
        {"any": [known[0], {"all": [about[0], device[0]]}]},
        known[1] + there - known[1] * there,
    )


_Draw = Callable[[Random, Retailer, str], Condition | None]
_MENU: Final[Weighted[_Draw]] = Weighted(
    (
        _region, _city, _distance, _audience, _visitors, _category, _domains, _device, _system,
        _recent, _hours, _keyword, _data_segment, _connection, _position, _viewability, _either,
    ),
    (16, 6, 2, 20, 3, 12, 8, 12, 5, 1.5, 5, 4, 3, 2, 3, 0.5, 1.5),
)  # fmt: skip


def _places(country: Country, chosen: list[Publisher]) -> float:
    shares = world.place_shares(country.code)
    return sum(shares[each] for each in chosen)


# -- conditions that exclude ----------------------------------------------------------------------


def _refusal(random: Random) -> Leaf:
    """What brands keep away from; costs a few per cent of the traffic."""
    kind = random.randint(0, 3)
    if kind == 0:
        codes = random.sample(_SENSITIVE, random.randint(1, 4))
        return {"key": "category", "in": [f"1:{code}" for code in codes]}
    if kind == 1:
        return {"key": "audience", "is": "lapsed-buyers"}
    if kind == 2:
        return {"key": "interstitial", "is": "1"}
    sites = [each for each in world.place_shares("USA") if each.kind == "site"]
    chosen = random.sample(sites, random.randint(3, 15))
    return {"key": "domain", "in": sorted(each.domain for each in chosen)}
