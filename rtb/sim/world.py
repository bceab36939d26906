"""The world that catalogue, profiles and traffic share: who there is, and how often it is met.

It is one and the same whatever the seed: seeds choose among its people and places. What a line item
targets is therefore met by requests as often as `Shares` says, and a seeded catalogue answers the
traffic of any seed.
"""

from functools import cache
from typing import Final
from uuid import UUID

import numpy as np
import numpy.typing as npt

from rtb.sim import devices
from rtb.sim.draws import Weighted, unit, zipf
from rtb.sim.places import COUNTRIES, City
from rtb.sim.publishers import Kind, Publisher, seen_from
from rtb.sim.shelves import KEYWORDS, LIFESTYLES, VERTICALS

Ints = npt.NDArray[np.int64]

_SEED: Final = 260_126
EXCHANGE: Final = "generic"
# How often a request names a person of ours and allows to know them.
KNOWN_SHARE: Final = 0.70
PRIVATE_SHARE: Final = 0.10
PEOPLE_COUNT: Final = 100_000
# Popularity of people: a few are met all day, most rarely.
PEOPLE_EXPONENT: Final = 0.8

BANNER_SIZES: Final = {
    "desktop": Weighted(
        ("300x250", "728x90", "300x600", "160x600", "970x250", "336x280", "970x90", "250x250"),
        (35, 24, 13, 12, 8, 4, 3, 1),
    ),
    "mobile": Weighted(
        ("300x250", "320x50", "320x100", "336x280", "300x50", "320x480", "250x250"),
        (42, 34, 11, 5, 4, 3, 1),
    ),
}
DURATIONS_S: Final = Weighted((6, 10, 15, 20, 30, 45), (12, 8, 34, 14, 30, 2))

DEALS_COUNT: Final = 160
DEAL_SHARE: Final = 0.10  # of requests that offer any
DATA_PROVIDERS: Final = ("lotus-data", "crowdly", "panelworks")
DATA_SEGMENTS: Final = tuple(f"{1000 + number}" for number in range(120))
CARRIERS: Final = ("Novatel", "Blue Mobile", "Airlink", "TeleUno", "Citycell")


def deal_id(number: int) -> str:
    """A deal that exists on `EXCHANGE`."""
    return f"deal-{number:04d}"


DEALS: Final = Weighted(
    (deal_id(number) for number in range(DEALS_COUNT)), zipf(DEALS_COUNT, 0.8, 2.0)
)
SEGMENTS: Final = tuple([each.segment for each in VERTICALS] + list(LIFESTYLES))


class People:
    """`count` people as columns; person n is buyeruid `u<n>` and always lives and shops alike.

    Shapes: city, an index into `CITIES`, device into `devices.DEVICES`, interest and interest2 into
    `VERTICALS`: (count,); lifestyles: (count, lifestyles) bool.
    """

    def __init__(self, count: int) -> None:
        draw = np.random.default_rng([_SEED, count])
        self.count = count
        self.city: Ints = _choice(draw, _CITY_SHARES, count)
        self.device: Ints = _choice(draw, devices.DEVICES.shares, count)
        self.interest: Ints = draw.integers(0, len(VERTICALS), count)
        step: Ints = draw.integers(1, len(VERTICALS), count)
        self.interest2: Ints = (self.interest + step) % len(VERTICALS)
        rates = np.array(list(LIFESTYLES.values()))
        self.lifestyles: npt.NDArray[np.bool_] = draw.random((count, len(rates))) < rates
        weights = np.array(zipf(count, PEOPLE_EXPONENT, 20.0))
        self._bounds = np.cumsum(weights / weights.sum())

    def draw(self, uniforms: npt.NDArray[np.float64]) -> Ints:
        """People by popularity, one for each number in [0, 1)."""
        found: Ints = np.minimum(np.searchsorted(self._bounds, uniforms), self.count - 1)
        return found

    def segments(self, number: int) -> list[str]:
        """General audiences of a person, interests first; retailers' own come on top."""
        names = [VERTICALS[column[number]].segment for column in (self.interest, self.interest2)]
        return names + [
            name for name, member in zip(LIFESTYLES, self.lifestyles[number], strict=True) if member
        ]


def buyeruid(number: int) -> str:
    """The exchange's name for person `number`, matched to ours."""
    return f"u{number}"


def ifa(number: int) -> str:
    """The advertising identifier of a person's device."""
    halves = [int(unit(_SEED + part, number) * (1 << 53)) for part in (1, 3)]
    return str(UUID(int=halves[0] << 75 | halves[1] << 22 | number, version=4))


def eid(number: int) -> str:
    """A shared identifier of a person at `EID_SOURCE`."""
    return f"{int(unit(_SEED + 2, number) * (1 << 62)):016X}"


EID_SOURCE: Final = "id-graph.example"

CITIES: Final[tuple[City, ...]] = tuple(
    city for country in COUNTRIES.values for city in country.cities.values
)
_CITY_SHARES: Final = [
    share * part
    for country, share in zip(COUNTRIES.values, COUNTRIES.shares, strict=True)
    for part in country.cities.shares
]


def _choice(draw: np.random.Generator, shares: list[float], count: int) -> Ints:
    bounds = np.cumsum(shares)
    found: Ints = np.minimum(np.searchsorted(bounds, draw.random(count)), len(shares) - 1)
    return found


@cache
def people(count: int = PEOPLE_COUNT) -> People:
    """The people, drawn once a process."""
    return People(count)


def audience_share(segments: frozenset[str]) -> float:
    """Share of requests whose person is known and belongs to one of the general audiences."""
    interests = sum(name.startswith("inmarket-") for name in segments)
    outside = max(0.0, 1.0 - 2.0 * interests / len(VERTICALS))
    for name in sorted(segments):
        outside *= 1.0 - LIFESTYLES.get(name, 0.0)
    return (1.0 - outside) * KNOWN_SHARE * (1.0 - PRIVATE_SHARE)


@cache
def place_shares(country: str) -> dict[Publisher, float]:
    """Publishers of a country's traffic, sites and apps together, with their shares."""
    kinds: dict[Kind, float] = {"site": 0.55, "app": 0.29, "tv": 0.13, "audio": 0.03}
    return {
        publisher: weight * share
        for kind, weight in kinds.items()
        for publisher, share in zip(
            seen_from(country, kind).values, seen_from(country, kind).shares, strict=True
        )
    }


@cache
def category_share(country: str, codes: frozenset[str]) -> float:
    """Share of a country's traffic on pages of any of these categories."""
    shares = place_shares(country)
    return sum(shares[each] for each in shares if not codes.isdisjoint(each.categories))


def keyword_share(country: str, words: frozenset[str]) -> float:
    """Share of a country's traffic on places with any of these keywords."""
    by_word, shares = _by_keyword(country), place_shares(country)
    # Sums of floats depend on their order: a dict has one, a set has another in every process.
    found = dict.fromkeys(each for word in sorted(words) for each in by_word[word])
    return sum(shares[each] for each in found)


@cache
def _by_keyword(country: str) -> dict[str, list[Publisher]]:
    return {
        word: [each for each in place_shares(country) if word in each.keywords] for word in KEYWORDS
    }
