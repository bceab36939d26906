"""Where ads are shown: sites, apps, television and audio, few of them large and most of them small.

The list is drawn once from a fixed seed, so that catalogues and traffic of all seeds speak of the
same places. Hosts lie under `.example`, where nobody lives.
"""

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final, Literal

from rtb.sim.draws import Weighted, zipf
from rtb.sim.places import COUNTRIES, COUNTRY
from rtb.sim.shelves import KEYWORDS

Kind = Literal["site", "app", "tv", "audio", "screen"]

_SEED: Final = 260_126
COUNTS: Final[dict[Kind, int]] = {"site": 420, "app": 180, "tv": 30, "audio": 24, "screen": 12}
# Half of the sites, most of the apps: read everywhere.
_WORLDWIDE: Final[dict[Kind, float]] = {
    "site": 0.4, "app": 0.75, "tv": 0.5, "audio": 0.6, "screen": 0.0,
}  # fmt: skip
_CATEGORIES: Final = Weighted(
    (
        "IAB12 IAB12-2", "IAB12", "IAB17 IAB17-44", "IAB19 IAB19-18", "IAB1 IAB1-5", "IAB9-30",
        "IAB10 IAB10-5", "IAB18 IAB18-1", "IAB8 IAB8-5", "IAB7 IAB7-1", "IAB20 IAB20-27", "IAB2",
        "IAB13 IAB13-11", "IAB6 IAB6-6", "IAB16 IAB16-3", "IAB5", "IAB14", "IAB1-1", "IAB15-10",
        "IAB4", "IAB10-4 IAB10", "IAB18-3 IAB18", "IAB17", "IAB22",
    ),
    (12, 8, 8, 7, 7, 6, 5, 5, 5, 4, 4, 4, 4, 3, 2, 2, 2, 3, 4, 2, 2, 3, 4, 3),
)  # fmt: skip
_STEMS: Final = (
    "daily", "morning", "city", "north", "harbour", "open", "prime", "bright", "union", "metro",
    "river", "golden", "rapid", "modern", "global", "cedar", "atlas", "pixel", "quiet", "royal",
)  # fmt: skip
_NOUNS: Final[dict[Kind, tuple[str, ...]]] = {
    "site": ("herald", "times", "forum", "guide", "mag", "report", "kitchen", "sport", "wire"),
    "app": ("quest", "weather", "puzzle", "chat", "runner", "notes", "radio", "scores"),
    "tv": ("tv", "cinema", "sports-tv", "kids-tv", "channel"),
    "audio": ("fm", "podcast", "tunes"),
    "screen": ("plaza", "station", "mall"),
}
_GENRES: Final = ("Comedy", "Drama", "Documentary", "Sports", "News", "Kids", "Pop", "Talk")


@dataclass(frozen=True, slots=True, eq=False)
class Publisher:
    """One place. `country` is "" where it is read everywhere; `quality` moves floors and clicks.

    There is one object for each, so they compare by identity.
    """

    number: int
    kind: Kind
    name: str
    domain: str
    bundle: str
    country: str
    language: str
    cattax: int
    categories: tuple[str, ...]
    keywords: tuple[str, ...]
    genre: str
    quality: float

    @property
    def id(self) -> str:
        return f"pub-{self.number:04d}"


def _publisher(number: int, kind: Kind, random: Random) -> Publisher:
    country = "" if random.random() < _WORLDWIDE[kind] else COUNTRIES.pick(random).code
    name = f"{random.choice(_STEMS)}-{random.choice(_NOUNS[kind])}-{number}"
    # A few have moved on to Content Taxonomy 2.0 (cattax 2), whose codes are numbers.
    modern = random.random() < 0.08
    categories = _CATEGORIES.pick(random).split()
    if modern:
        categories = [str(random.randint(1, 600)) for _ in categories]
    return Publisher(
        number=number,
        kind=kind,
        name=name,
        domain=f"{name}.example",
        bundle=f"com.{name.replace('-', '.')}"
        if random.random() < 0.6
        else str(7 * 10**8 + number),
        country=country,
        language=COUNTRY[country].language if country else "en",
        cattax=2 if modern else 1,
        categories=tuple(categories),
        keywords=tuple(random.sample(KEYWORDS, random.randint(1, 4))),
        genre=random.choice(_GENRES),
        quality=round(random.lognormvariate(0.0, 0.35), 3),
    )


@cache
def publishers() -> tuple[Publisher, ...]:
    """All of them, by number."""
    random = Random(_SEED)
    kinds = [kind for kind, count in COUNTS.items() for _ in range(count)]
    return tuple(_publisher(number, kind, random) for number, kind in enumerate(kinds))


@cache
def seen_from(country: str, kind: Kind) -> Weighted[Publisher]:
    """What people of a country use, by its share of their impressions."""
    found = [each for each in publishers() if each.kind == kind and each.country in {"", country}]
    return Weighted(found, zipf(len(found), 0.9, 3.0))
