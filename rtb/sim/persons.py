"""The seeded profiles: what the people of the world did in the seeded shops.

Person n of `world.people` has the record under its buyeruid; some are linked by device or by a
shared id too. Purchases, views, carts and counters are of the catalogue's own advertisers, at times
before the seed's clock.
"""

from collections.abc import Iterator
from random import Random
from typing import Final

from rtb.base.records import Dim
from rtb.catalogue.model import Catalogue, category_prefixes, product_key, window_s
from rtb.catalogue.tokens import hash_of, owner_key
from rtb.profiles import codec, identity
from rtb.sim import world
from rtb.sim.draws import Weighted, zipf
from rtb.sim.places import COUNTRIES
from rtb.sim.retail import VISITS_MEAN, Retailer
from rtb.sim.world import CITIES, People

_DAY_S: Final = 86_400
PURCHASE_DAYS_MAX: Final = 120
LINKED_DEVICE: Final = 0.5
LINKED_EID: Final = 0.3
OPTED_OUT: Final = 0.005
_SHOPS: Final = Weighted((0, 1, 2, 3, 4, 6), (14, 26, 30, 17, 8, 5))
assert (
    abs(sum(n * s for n, s in zip(_SHOPS.values, _SHOPS.shares, strict=True)) - VISITS_MEAN) < 0.1
)

Pair = tuple[bytes, bytes]


class _Shop:
    """A retailer as profiles refer to it: token hashes, made once."""

    def __init__(self, retailer: Retailer, caps: list[tuple[int, int, int]]) -> None:
        self.segment = hash_of(Dim.AUDIENCE, retailer.visitors)
        self.opt_out = owner_key(retailer.advertiser.id)
        self.items = [
            hash_of(Dim.ITEM, product_key(product.advertiser, product.id))
            for product in retailer.products
        ]
        self.categories = [
            [
                hash_of(Dim.CATEGORY, f"{product.advertiser}/{prefix}")
                for prefix in category_prefixes(product.category)
            ]
            for product in retailer.products
        ]
        self.caps = caps  # hash, count, window_s


class Persons:
    """Profiles of one catalogue. Times are epoch seconds before `now_s`."""

    def __init__(
        self,
        people: People,
        retailers: list[Retailer],
        catalogue: Catalogue,
        seed: int,
        now_s: int,
    ) -> None:
        self._people = people
        self._random = Random(f"persons {seed}")
        self._now_s = now_s
        caps = _caps_by_advertiser(catalogue)
        shops = {each.rank: _Shop(each, caps.get(each.advertiser.id, [])) for each in retailers}
        self._shops: dict[str, Weighted[_Shop]] = {}
        for country in COUNTRIES.values:
            local = [each for each in retailers if each.country is country]
            if local:
                self._shops[country.code] = Weighted(
                    (shops[each.rank] for each in local), zipf(len(local), 0.7, 2.0)
                )
        self._segments = {name: hash_of(Dim.AUDIENCE, name) for name in world.SEGMENTS}

    def pairs(self) -> Iterator[Pair]:
        """Keys and values of the profile store: records, and links to them."""
        random = self._random
        for number in range(self._people.count):
            key = identity.buyer_key(world.buyeruid(number).encode())
            yield key, codec.encode(self.profile(number))
            if random.random() < LINKED_DEVICE:
                device = identity.device_key(world.ifa(number).encode())
                assert device is not None
                yield device, codec.encode_link(key)
            if random.random() < LINKED_EID:
                shared = identity.eid_key(world.EID_SOURCE.encode(), world.eid(number).encode())
                assert shared is not None
                yield shared, codec.encode_link(key)

    def profile(self, number: int) -> codec.Profile:
        """One person. Persons come in order: chance flows from one to the next."""
        random = self._random
        found = codec.Profile(
            segments=[self._segments[name] for name in self._people.segments(number)],
            updated_s=self._now_s - int(random.random() * 3 * _DAY_S),
            opt_out=random.random() < OPTED_OUT,
        )
        market = self._shops.get(CITIES[self._people.city[number]].country)
        if market is not None:
            for shop in market.several(random, _SHOPS.pick(random)):
                found.segments.append(shop.segment)
                if shop.items:
                    self._browse(found, shop)
                if random.random() < 0.02:
                    found.opt_outs.add(shop.opt_out)
                if shop.caps and random.random() < 0.5:
                    self._see_ads(found, shop)
        found.viewed.sort(key=lambda view: -view[1])
        return found

    def _browse(self, found: codec.Profile, shop: _Shop) -> None:
        """Views some items of a shop, puts one in the cart at times, buys one at times."""
        random, now_s = self._random, self._now_s
        for _ in range(random.randint(1, 4)):
            item = min(int(random.expovariate(3.0) * len(shop.items)), len(shop.items) - 1)
            found.viewed.append((shop.items[item], now_s - int(random.random() * 14 * _DAY_S)))
        kind = random.random()
        if kind < 0.15:
            found.cart[shop.items[item]] = now_s - int(random.random() * 5 * _DAY_S)
        elif kind < 0.55:
            when = now_s - int(random.random() * PURCHASE_DAYS_MAX * _DAY_S)
            found.items[shop.items[item]] = when
            for category in shop.categories[item]:
                found.categories[category] = max(when, found.categories.get(category, 0))

    def _see_ads(self, found: codec.Profile, shop: _Shop) -> None:
        """Counts impressions of some capped line items; a few counters are full."""
        random = self._random
        for hash_, count, window in random.sample(shop.caps, min(len(shop.caps), 3)):
            start = self._now_s - random.randrange(max(1, min(window, 30 * _DAY_S)))
            full = random.random() < 0.4
            found.caps[hash_] = start, count if full else random.randint(1, count)


def _caps_by_advertiser(catalogue: Catalogue) -> dict[str, list[tuple[int, int, int]]]:
    """Caps of line items and campaigns: token, impressions allowed, window in seconds."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    for line_item in catalogue.line_items.values():
        owner = catalogue.campaigns[line_item.campaign].advertiser
        for cap in line_item.frequency_caps:
            seconds = window_s(cap.window)
            token = f"line_item/{line_item.id}/{seconds}"
            found.setdefault(owner, []).append((hash_of(Dim.CAP, token), cap.count, seconds))
    return found
