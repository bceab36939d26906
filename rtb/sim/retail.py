"""The seeded retailers: who they are, what they sell, and the ads that show it.

Retailers come in the order of their size: the first are national chains with open targeting, the
last sell to one town. That is why a bigger catalogue is a narrower one (`reach`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

from rtb.base.links import CONVERSION_MACRO
from rtb.catalogue.model import (
    Advertiser,
    Creative,
    FrequencyCap,
    Image,
    MediaFile,
    Native,
    Product,
    VastVersion,
)
from rtb.sim import world
from rtb.sim.draws import Weighted, unit, zipf
from rtb.sim.places import COUNTRIES, Country
from rtb.sim.shelves import BRANDS, VERTICALS, Vertical

LINE_ITEMS_PER_RETAILER: Final = 20
CREATIVES_CAPPED: Final = 0.12
# Share of a market's traffic that a line item of the largest retailer aims at, and how it falls
# with rank: tuned so that some 6, 27 and 67 line items of 1,000, 10,000 and 100,000 are scored.
REACH_FIRST: Final = 0.155
REACH_RANK: Final = 25.0
REACH_EXPONENT: Final = 0.7

# Units of a currency for one US dollar, roughly: prices of shops, not of money.
UNITS: Final = {
    "USD": 1.0, "EUR": 0.9, "GBP": 0.8, "CAD": 1.35, "AUD": 1.5, "BRL": 5.5, "JPY": 150.0,
}  # fmt: skip
_ZONES: Final = {
    "USA": "America/New_York", "GBR": "Europe/London", "DEU": "Europe/Berlin",
    "FRA": "Europe/Paris", "CAN": "America/Toronto", "ESP": "Europe/Madrid", "ITA": "Europe/Rome",
    "NLD": "Europe/Amsterdam", "BRA": "America/Sao_Paulo", "AUS": "Australia/Sydney",
    "JPN": "Asia/Tokyo",
}  # fmt: skip
_NAMES: Final = (
    "amber", "birch", "cobalt", "delta", "ember", "fable", "grove", "hazel", "indigo", "juniper",
    "kite", "linden", "maple", "noble", "olive", "piper", "quartz", "raven", "sable", "thistle",
)  # fmt: skip
_SUFFIXES: Final = ("shop", "store", "market", "outlet", "house", "direct", "company", "corner")
_AVAILABILITY: Final = Weighted(("in_stock", "out_of_stock", "preorder"), (92, 5, 3))
_VAST: Final[Weighted[VastVersion]] = Weighted(("2.0", "3.0", "4.0", "4.2"), (1, 6, 1, 2))

# Sizes in which one banner is made: what agencies deliver.
_SIZE_SETS: Final = Weighted(
    (
        "300x250 728x90 320x50", "300x250 300x600", "320x50 320x100 300x250", "728x90 970x250",
        "300x250 336x280 160x600", "300x250 728x90 160x600 320x50", "300x250", "320x480 300x250",
    ),
    (20, 14, 18, 8, 10, 14, 10, 6),
)  # fmt: skip


@dataclass(slots=True)
class Retailer:
    """One advertiser, its goods, and the share of its market that visits it."""

    rank: int
    country: Country
    vertical: Vertical
    advertiser: Advertiser
    products: list[Product] = field(default_factory=list)
    visit_share: float = 0.0

    @property
    def reach(self) -> float:
        """Share of the market's traffic that its line items aim at."""
        return float(REACH_FIRST * (1.0 + self.rank / REACH_RANK) ** -REACH_EXPONENT)

    @property
    def visitors(self) -> str:
        """Its own audience: people who were in the shop."""
        return f"{self.advertiser.id}-visitors"

    @property
    def units(self) -> float:
        """Units of its currency for a dollar."""
        return UNITS[self.advertiser.currency]


def retailers(seed: int, line_items_count: int, products_count: int) -> list[Retailer]:
    """All retailers with their products, largest first."""
    count = max(4, line_items_count // LINE_ITEMS_PER_RETAILER)
    random = Random(f"retailers {seed}")
    # Small markets have more shops a head than traffic.
    markets = Weighted(COUNTRIES.values, [share**0.7 for share in COUNTRIES.shares])
    found = [_retailer(rank, markets.pick(random), random) for rank in range(count)]
    weights = zipf(count, 0.5, 5.0)
    total = sum(weights)
    parts = [int(products_count * weight / total) for weight in weights]
    # What rounding leaves goes to the largest, one each.
    for rank in range(products_count - sum(parts)):
        parts[rank % count] += 1
    for retailer, part in zip(found, parts, strict=True):
        retailer.products = [_product(retailer, number, random) for number in range(part)]
    _set_visits(found)
    return found


def _retailer(rank: int, country: Country, random: Random) -> Retailer:
    vertical = random.choice(VERTICALS)
    name = f"{random.choice(_NAMES)}-{vertical.name}-{random.choice(_SUFFIXES)}"
    advertiser = Advertiser(
        id=f"r{rank:05d}",
        name=f"{name.replace('-', ' ').title()} {country.code}",
        domains=(f"{name}-{rank}.example",),
        seats={world.EXCHANGE: f"seat-{rank:05d}"} if random.random() < 0.3 else {},
        currency=country.currency,
        timezone=_ZONES[country.code],
        separation=vertical.name if random.random() < 0.2 else None,
        external_id=f"crm-{unit(rank, 7) * 10**8:.0f}" if random.random() < 0.1 else None,
    )
    return Retailer(rank, country, vertical, advertiser)


def _product(retailer: Retailer, number: int, random: Random) -> Product:
    path = random.choice(list(retailer.vertical.categories))
    noun = random.choice(retailer.vertical.categories[path])
    brand = random.choice(BRANDS)
    amount = retailer.vertical.price * retailer.units * random.lognormvariate(0.0, 0.6)
    currency = retailer.advertiser.currency
    reduced = f"{amount * 0.8:.2f} {currency}" if random.random() < 0.15 else None
    key = f"p{number:05d}"
    host = retailer.advertiser.domains[0]
    return Product(
        id=key,
        advertiser=retailer.advertiser.id,
        title=f"{brand} {noun}",
        price=f"{amount:.2f} {currency}",
        link=f"https://www.{host}/p/{key}",
        image_link=f"https://cdn.{host}/p/{key}.jpg",
        sale_price=reduced,
        availability=_AVAILABILITY.pick(random),
        product_type=path,
        brand=brand,
    )


VISITS_MEAN: Final = 2.0  # shops that a person has visited lately


def _set_visits(found: list[Retailer]) -> None:
    """People visit the shops of their country, the larger the more."""
    for country in COUNTRIES.values:
        local = [each for each in found if each.country is country]
        weights = zipf(len(local), 0.7, 2.0)
        for retailer, weight in zip(local, weights, strict=True):
            retailer.visit_share = 1.0 - (1.0 - weight / sum(weights)) ** VISITS_MEAN


# -- creatives ------------------------------------------------------------------------------------


class Studio:
    """Makes the creatives of one retailer; numbers run through the whole catalogue."""

    def __init__(self, seed: int) -> None:
        self.made: list[Creative] = []
        self._caps = Random(f"creative caps {seed}")

    def make(self, retailer: Retailer, medium: str, random: Random) -> tuple[str, ...]:
        """The ids of one ad in all its sizes or lengths, showing one product."""
        product = random.choice(retailer.products) if retailer.products else None
        makers = {
            "banner": self._banners,
            "native": self._natives,
            "video": self._videos,
            "audio": self._audios,
        }
        creatives = list(makers[medium](retailer, product, random))
        self.made += creatives
        return tuple(creative.id for creative in creatives)

    def _new(
        self,
        retailer: Retailer,
        product: Product | None,
        number: int,
        kind: str,
        **rest: object,
    ) -> Creative:
        host = retailer.advertiser.domains[0]
        link = product.link if product else f"https://www.{host}/"
        values: dict[str, object] = {
            "id": f"cr{len(self.made) + number:07d}",
            "advertiser": retailer.advertiser.id,
            "type": kind,
            "landing_page": f"{link}?utm_source=rtb&rtb={CONVERSION_MACRO}",
            "impression_urls": (f"https://t.{host}/i?b={{bid_id}}",),
            "categories": {"1": (retailer.vertical.ad_category,)},
            "product": product.id if product else None,
            "name": product.title if product else retailer.advertiser.name,
            "frequency_caps": self._frequency_caps(),
        }
        return Creative(**(values | rest))  # type: ignore[arg-type]

    def _frequency_caps(self) -> tuple[FrequencyCap, ...]:
        """Some ads wear out: not too often to one person, whichever line item shows them."""
        if self._caps.random() > CREATIVES_CAPPED:
            return ()
        return (FrequencyCap(self._caps.randint(3, 8), self._caps.choice(("1h", "1d"))),)

    def _banners(
        self, retailer: Retailer, product: Product | None, random: Random
    ) -> Iterator[Creative]:
        host = retailer.advertiser.domains[0]
        kind = random.random()
        if kind < 0.1 and product is not None:
            yield self._new(
                retailer, product, 0, "html",
                html='<a href="{click_url}" target="_blank"><img src="{product.image_link}" '
                'alt="{product.title}" width="{width}"></a>',
            )  # fmt: skip
            return
        for number, size in enumerate(_SIZE_SETS.pick(random).split()):
            width, height = (int(side) for side in size.split("x"))
            if kind < 0.35 and product is not None:
                yield self._new(
                    retailer, product, number, "html", width=width, height=height,
                    html=f'<div style="width:{width}px;height:{height}px"><a '
                    'href="{click_url}" target="_blank"><img src="{product.image_link}">'
                    "<b>{product.title}</b> <i>{product.price}</i></a></div>",
                    attr=(6,) if random.random() < 0.05 else (),
                )  # fmt: skip
            else:
                yield self._new(
                    retailer, product, number, "image", width=width, height=height,
                    image_url=f"https://cdn.{host}/b/{size}/{len(self.made)}.jpg",
                    alt=product.title if product else retailer.advertiser.name,
                )  # fmt: skip

    def _natives(
        self, retailer: Retailer, product: Product | None, random: Random
    ) -> Iterator[Creative]:
        host = retailer.advertiser.domains[0]
        title = product.title if product else retailer.advertiser.name
        rich = random.random() < 0.8
        yield self._new(
            # No macros of the auction: they cannot stand in native assets.
            retailer, product, 0, "native", impression_urls=(f"https://t.{host}/i",),
            native=Native(
                title=title[:25],
                icon=Image(f"https://cdn.{host}/icon.png", 80, 80) if rich else None,
                main=Image(f"https://cdn.{host}/n/{len(self.made)}.jpg", 1200, 627),
                sponsored=retailer.advertiser.name[:25],
                description=f"{title}: new this week at {retailer.advertiser.name}."[:90],
                price=product.price if product else None,
                cta=random.choice(("Shop now", "See more", "Buy today")),
            ),
        )  # fmt: skip

    def _videos(
        self, retailer: Retailer, product: Product | None, random: Random
    ) -> Iterator[Creative]:
        host = retailer.advertiser.domains[0]
        version = _VAST.pick(random)
        durations = world.DURATIONS_S.several(random, 1 + (random.random() < 0.5))
        for number, seconds in enumerate(durations):
            stem = f"https://cdn.{host}/v/{len(self.made)}-{seconds}"
            yield self._new(
                retailer, product, number, "video", duration_s=seconds, vast_version=version,
                width=1280, height=720,
                media_files=(
                    MediaFile(f"{stem}.mp4", "video/mp4", 1280, 720, 1500),
                    MediaFile(f"{stem}.webm", "video/webm", 1280, 720, 1200),
                ),
                tracking={"start": (f"https://t.{host}/start?b={{bid_id}}",)},
            )  # fmt: skip

    def _audios(
        self, retailer: Retailer, product: Product | None, random: Random
    ) -> Iterator[Creative]:
        host = retailer.advertiser.domains[0]
        for number, seconds in enumerate((15, 30)[: 1 + (random.random() < 0.6)]):
            stem = f"https://cdn.{host}/a/{len(self.made)}-{seconds}"
            yield self._new(
                retailer, product, number, "audio", duration_s=seconds, vast_version="3.0",
                media_files=(MediaFile(f"{stem}.mp3", "audio/mpeg", bitrate_kbps=128),),
            )  # fmt: skip
