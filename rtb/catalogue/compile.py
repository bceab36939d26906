"""Catalogue to snapshot: objects become rows, references become indexes, targeting becomes bitsets.

Callers guarantee that `check` found no error. What is paused, archived or over is left out here, so
that a worker never spends a cycle on it. Equal catalogues give equal arrays, whatever the order of
their files: all tables are laid out by id, line items by `index.cluster`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rtb.base.errors import CatalogueError
from rtb.base.hashing import HASH_VERSION
from rtb.base.money import currency_code
from rtb.base.records import Dim
from rtb.catalogue import budgets, facts, index, render, snapshot
from rtb.catalogue.model import (
    Advertiser,
    Campaign,
    Catalogue,
    Creative,
    LineItem,
    Product,
    category_prefixes,
    micros,
    price_of,
    product_key,
)
from rtb.catalogue.targeting_parse import parse
from rtb.catalogue.tokens import ad_key, hash_of, owner_key

Arrays = dict[str, npt.NDArray[Any]]
Meta = dict[str, object]

# Offsets of text are 32-bit.
TEXT_BYTES_MAX: Final = (1 << 31) - 1
DAY_S: Final = 86_400
# The decoder's SIZE token of a format that gives a ratio only: any creative may fit it.
FLEX_SIZE: Final = "flex"
GOALS: Final = {
    "cpm": snapshot.GOAL_CPM,
    "cpc": snapshot.GOAL_CPC,
    "cpa": snapshot.GOAL_CPA,
    "roas": snapshot.GOAL_ROAS,
}


def compile_snapshot(
    catalogue: Catalogue, now_ms: int | None = None, source: str = ""
) -> tuple[Arrays, Meta]:
    """The arrays and the meta table of `snapshot.Snapshot`.

    `now_ms`: line items whose flights are all over by then are left out; None keeps them.
    Raises: CatalogueError when the catalogue does not fit the format.
    """
    return _Compiler(catalogue, now_ms).run(source)


def left_out(catalogue: Catalogue, line_item: LineItem, now_ms: int | None) -> str:
    """Why a line item is not served: "paused", "ended", "no_creative"; "" when it is."""
    campaign = catalogue.campaigns[line_item.campaign]
    advertiser = catalogue.advertisers[campaign.advertiser]
    if {line_item.status, campaign.status, advertiser.status} != {"active"}:
        return "paused"
    if not any(catalogue.creatives[each].status == "active" for each in line_item.creatives):
        return "no_creative"
    if now_ms is not None:
        flights = facts.flights_ms(line_item, campaign, advertiser)
        if all(end <= now_ms for _, end in flights):
            return "ended"
    return ""


class _Text:
    """The `text` array; equal texts are stored once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._known: dict[bytes, tuple[int, int]] = {}

    def add(self, text: bytes) -> tuple[int, int]:
        """Start and count of a text."""
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = len(self.data), len(text)
            self.data += text
            if len(self.data) > TEXT_BYTES_MAX:
                raise CatalogueError(f"texts and markup exceed {TEXT_BYTES_MAX} bytes")
        return known

    def id(self, text: str) -> tuple[int, int]:
        return self.add(text.encode())


class _Ordinals:
    """Numbers values in the order in which they are first seen."""

    def __init__(self, *dims: Dim) -> None:
        self._dims = dims
        self.numbers: dict[str, int] = {}

    def add(self, value: str) -> int:
        return self.numbers.setdefault(value.lower(), len(self.numbers))

    def entries(self) -> Iterator[index.Ordinal]:
        """Each value under each of the dimensions that share the numbers."""
        for value, number in self.numbers.items():
            for dim in self._dims:
                yield index.Ordinal(dim, hash_of(dim, value), number)


@dataclass(slots=True)
class _Ranges:
    """A flat array of which rows own ranges; equal ranges are stored once."""

    rows: list[Any] = field(default_factory=list)
    _known: dict[tuple[Any, ...], tuple[int, int]] = field(default_factory=dict)

    def add(self, rows: Iterable[Any]) -> tuple[int, int]:
        key = tuple(rows)
        if key not in self._known:
            self._known[key] = len(self.rows), len(key)
            self.rows += key
        return self._known[key]


@dataclass(slots=True)
class _Rendered:
    """What all uses of a creative share."""

    fields: dict[str, object]
    features: tuple[int, ...]
    frame: list[tuple[int, ...]]


class _Compiler:
    """One run over a catalogue. Each method lays out one table."""

    def __init__(self, catalogue: Catalogue, now_ms: int | None) -> None:
        self.catalogue = catalogue
        self.now_ms = now_ms
        self.text = _Text()
        self.programs = index.Programs()
        self.categories = _Ordinals(Dim.BCAT, Dim.ACAT)
        self.domains = _Ordinals(Dim.BADV, Dim.DEAL_WADOMAIN)
        self.deals = {deal: number for number, deal in enumerate(sorted(catalogue.deals))}
        self.separations: dict[str, int] = {}
        self.advertisers = {each: n for n, each in enumerate(sorted(catalogue.advertisers))}
        self.campaigns = {each: n for n, each in enumerate(sorted(catalogue.campaigns))}
        self.products = {each: n for n, each in enumerate(sorted(catalogue.products))}
        self.ranges = {
            name: _Ranges()
            for name in (
                "seats", "flights", "flight_budgets", "caps", "line_item_deals",
                "creative_categories", "creative_codes", "creative_domains", "creative_statuses",
                "product_categories", "renditions", "assets", "features", "pieces",
            )
        }  # fmt: skip
        self.rendered: dict[str, _Rendered] = {}
        self.creative_rows: list[tuple[Any, ...]] = []
        self.left_out: Counter[str] = Counter()

    def run(self, source: str) -> tuple[Arrays, Meta]:
        line_items = self._served()
        plans = [self._plan(each) for each in line_items]
        order = index.cluster(plans, [facts.expected_cpm_micros(each) for each in line_items])
        arrays: Arrays = {
            "advertisers": self._advertisers(),
            "campaigns": self._campaigns(),
            "products": self._products(),
            "advertiser_budgets": self._advertiser_budgets(),
            "campaign_budgets": self._campaign_budgets(),
        }
        rows = [self._line_item(line_items[n], plans[n]) for n in order.tolist()]
        arrays["line_items"] = snapshot.table_of(rows, snapshot.LINE_ITEM)
        rows = [self._line_item_budget(line_items[n]) for n in order.tolist()]
        arrays["line_item_budgets"] = snapshot.table_of(rows, snapshot.LINE_ITEM_BUDGET)
        arrays["creatives"] = snapshot.table_of(self.creative_rows, snapshot.CREATIVE)
        arrays["deals"] = np.array(
            [hash_of(Dim.DEAL, deal) for deal in self.deals], dtype=np.uint64
        )
        for name, ranges in self.ranges.items():
            arrays[name] = snapshot.table_of(ranges.rows, snapshot.ARRAYS[name])
        arrays |= self.programs.arrays()
        arrays |= index.build(plans, order, list(self._ordinals()))
        arrays["text"] = np.frombuffer(bytes(self.text.data), dtype=np.uint8)
        return arrays, self._meta(source, arrays)

    def _served(self) -> list[LineItem]:
        served = []
        for _, line_item in sorted(self.catalogue.line_items.items()):
            reason = left_out(self.catalogue, line_item, self.now_ms)
            if reason:
                self.left_out[reason] += 1
            else:
                served.append(line_item)
        return served

    def _ordinals(self) -> Iterator[index.Ordinal]:
        yield from self.categories.entries()
        yield from self.domains.entries()
        for deal, number in self.deals.items():
            yield index.Ordinal(Dim.DEAL, hash_of(Dim.DEAL, deal), number)

    def _meta(self, source: str, arrays: Arrays) -> Meta:
        # No time stands here: an import that changes nothing gives the same file.
        return {
            "format": snapshot.FORMAT_VERSION,
            "hash_version": HASH_VERSION,
            "counts": {
                name: len(arrays[name])
                for name in ("advertisers", "campaigns", "line_items", "creatives", "products")
            }
            | {"categories": len(self.categories.numbers), "domains": len(self.domains.numbers)},
            "left_out": dict(self.left_out),
            "source": source,
        }

    # -- targeting --

    def _plan(self, line_item: LineItem) -> index.Plan:
        """The plan of a line item: its expression, and what its creatives and deals imply.

        What they imply is checked again by the engine, creative by creative and deal by deal, so
        here it only sharpens the index.
        """
        plan = index.plan(parse(line_item.targeting))
        creatives = self._creatives(line_item)
        plan.need(Dim.MEDIA, frozenset(hash_of(Dim.MEDIA, each.media) for each in creatives))
        if all(each.media == "banner" and not each.flexible for each in creatives):
            sizes = {f"{each.width}x{each.height}" for each in creatives} | {FLEX_SIZE}
            plan.need(Dim.SIZE, frozenset(hash_of(Dim.SIZE, size) for size in sizes))
        if line_item.deals and not line_item.in_open_market:
            plan.need(Dim.DEAL, frozenset(hash_of(Dim.DEAL, deal) for deal in line_item.deals))
            exchanges = {self.catalogue.deals[deal].exchange for deal in line_item.deals}
            plan.need(Dim.EXCHANGE, frozenset(hash_of(Dim.EXCHANGE, each) for each in exchanges))
        return plan

    def _creatives(self, line_item: LineItem) -> list[Creative]:
        """The active creatives of a line item."""
        creatives = [self.catalogue.creatives[each] for each in line_item.creatives]
        return [each for each in creatives if each.status == "active"]

    # -- tables of few rows --

    def _advertisers(self) -> npt.NDArray[Any]:
        rows = []
        for each in self.advertisers:
            seats = self.catalogue.advertisers[each].seats
            seat_range = self.ranges["seats"].add(
                self._seat(exchange, seat) for exchange, seat in sorted(seats.items())
            )
            rows.append((owner_key(each), *self.text.id(each), *seat_range))
        return snapshot.table_of(rows, snapshot.ADVERTISER)

    def _seat(self, exchange: str, seat: str) -> tuple[int, ...]:
        hashes = [hash_of(dim, seat) for dim in (Dim.WSEAT, Dim.BSEAT, Dim.DEAL_WSEAT)]
        return (hash_of(Dim.EXCHANGE, exchange), *hashes, *self.text.add(render.json_text(seat)))

    def _campaigns(self) -> npt.NDArray[Any]:
        rows = [
            (*self.text.id(each), self.advertisers[self.catalogue.campaigns[each].advertiser])
            for each in self.campaigns
        ]
        return snapshot.table_of(rows, snapshot.CAMPAIGN)

    def _products(self) -> npt.NDArray[Any]:
        rows = []
        for key in self.products:
            product = self.catalogue.products[key]
            price, _ = price_of(product.sale_price or product.price)
            categories = self.ranges["product_categories"].add(
                hash_of(Dim.CATEGORY, f"{product.advertiser}/{prefix}")
                for prefix in category_prefixes(product.category)
            )
            available = facts.is_available(product.availability)
            item = hash_of(Dim.ITEM, key)
            rows.append((item, price, *categories, *self.text.id(product.id), available))
        return snapshot.table_of(rows, snapshot.PRODUCT)

    # -- budgets --

    def _advertiser_budgets(self) -> npt.NDArray[Any]:
        rows = []
        for each in self.advertisers:
            advertiser = self.catalogue.advertisers[each]
            zone, name = self.text.id(advertiser.timezone), self.text.id(advertiser.name)
            total = budgets.limit_micros(advertiser.budget.total)
            rows.append((total, *zone, *name, currency_code(advertiser.currency)))
        return snapshot.table_of(rows, snapshot.ADVERTISER_BUDGET)

    def _campaign_budgets(self) -> npt.NDArray[Any]:
        rows = [budgets.campaign_row(self.catalogue.campaigns[each]) for each in self.campaigns]
        return snapshot.table_of(rows, snapshot.CAMPAIGN_BUDGET)

    def _line_item_budget(self, line_item: LineItem) -> tuple[Any, ...]:
        campaign = self.catalogue.campaigns[line_item.campaign]
        advertiser = self.catalogue.advertisers[campaign.advertiser]
        flights = budgets.flight_rows(line_item, campaign, advertiser)
        return budgets.line_item_row(line_item, self.ranges["flight_budgets"].add(flights))

    # -- line items --

    def _line_item(self, line_item: LineItem, plan: index.Plan) -> tuple[Any, ...]:
        campaign = self.catalogue.campaigns[line_item.campaign]
        advertiser = self.catalogue.advertisers[campaign.advertiser]
        goal = line_item.goal
        exclude = line_item.exclude_purchased
        flights = facts.flights_ms(line_item, campaign, advertiser)
        fields: dict[str, object] = {
            "key": ad_key("line_item", line_item.id),
            "bid_micros": facts.bid_micros(goal),
            "max_cpm_micros": facts.max_cpm_micros(line_item),
            "order_value_micros": micros(goal.order_value or 0),
            "target_roas": goal.target_roas or 0.0,
            "prior_ctr": line_item.priors.ctr,
            "prior_cvr": line_item.priors.cvr,
            "shade": line_item.shade,
            "campaign": self.campaigns[campaign.id],
            "advertiser": self.advertisers[advertiser.id],
            "separation": self._separation(line_item, campaign, advertiser),
            "item_window_s": exclude.item_days * DAY_S,
            "category_window_s": exclude.category_days * DAY_S,
            "currency": currency_code(advertiser.currency),
            "goal": GOALS[goal.type],
            "flags": self._flags(line_item),
        }
        ranges = {
            "id": self.text.id(line_item.id),
            "creatives": self._creative_range(line_item, campaign),
            "flights": self.ranges["flights"].add(flights),
            "caps": self.ranges["caps"].add(facts.caps(line_item, campaign, advertiser)),
            "deals": self.ranges["line_item_deals"].add(
                sorted(self.deals[deal] for deal in line_item.deals)
            ),
            "program": self.programs.add(plan.program),
        }
        return _row(snapshot.LINE_ITEM, fields, ranges)

    def _separation(self, line_item: LineItem, campaign: Campaign, advertiser: Advertiser) -> int:
        group = line_item.separation or campaign.separation or advertiser.separation
        return self.separations.setdefault(group, len(self.separations)) if group else -1

    @staticmethod
    def _flags(line_item: LineItem) -> int:
        return (
            snapshot.OPEN_MARKET * line_item.in_open_market
            | snapshot.REPEAT * line_item.repeat
            | snapshot.NEEDS_PROFILE * line_item.needs_profile
            | snapshot.EXPECTED * (line_item.budget.mode == "expected")
        )

    # -- creatives --

    def _creative_range(self, line_item: LineItem, campaign: Campaign) -> tuple[int, int]:
        start = len(self.creative_rows)
        for creative in self._creatives(line_item):
            self.creative_rows.append(self._creative(creative, line_item, campaign))
        return start, len(self.creative_rows) - start

    def _creative(
        self, creative: Creative, line_item: LineItem, campaign: Campaign
    ) -> tuple[Any, ...]:
        rendered = self.rendered.get(creative.id)
        if rendered is None:
            rendered = self.rendered[creative.id] = self._render(creative)
        campaign_piece = self._piece(render.campaign_piece(campaign.id))
        features = (
            ad_key("advertiser", campaign.advertiser),
            ad_key("campaign", campaign.id),
            ad_key("line_item", line_item.id),
            *rendered.features,
        )
        ranges = {
            "features": self.ranges["features"].add(features),
            "frame": self.ranges["pieces"].add([campaign_piece, *rendered.frame]),
        }
        return _row(snapshot.CREATIVE, rendered.fields, ranges)

    def _render(self, creative: Creative) -> _Rendered:
        advertiser = self.catalogue.advertisers[creative.advertiser]
        key = product_key(advertiser.id, creative.product) if creative.product else ""
        product = self.catalogue.products.get(key)
        frame = [self._piece(each) for each in render.frame(creative, advertiser, product)]
        fields = facts.creative_facts(creative, advertiser, product)
        fields["product"] = self.products[key] if key else -1
        for name, value in self._creative_ranges(creative, advertiser, product).items():
            fields[f"{name}_start"], fields[f"{name}_count"] = value
        return _Rendered(fields, tuple(facts.creative_features(creative, product)), frame)

    def _piece(self, piece: render.Piece) -> tuple[int, ...]:
        return (*self.text.add(piece.text), int(piece.hole), piece.event, int(piece.escape))

    def _creative_ranges(
        self, creative: Creative, advertiser: Advertiser, product: Product | None
    ) -> dict[str, tuple[int, int]]:
        domains = render.domains_of(creative, advertiser)
        parents = [parent for domain in domains for parent in facts.domain_parents(domain)]
        refused = [
            hash_of(Dim.EXCHANGE, exchange)
            for exchange, status in sorted(creative.exchange_status.items())
            if status != "approved"
        ]
        assets = [self._asset(asset) for asset in render.assets(creative, product)]
        categories = facts.category_tokens(creative.categories)
        return {
            "id": self.text.id(creative.id),
            "categories": self.ranges["creative_categories"].add(
                sorted({self.categories.add(token) for token in categories})
            ),
            "codes": self.ranges["creative_codes"].add(self._codes(creative)),
            "domains": self.ranges["creative_domains"].add(
                sorted({self.domains.add(parent) for parent in parents})
            ),
            "adomains": self.ranges["creative_domains"].add(
                sorted({self.domains.add(domain) for domain in domains})
            ),
            "statuses": self.ranges["creative_statuses"].add(refused),
            "caps": self.ranges["caps"].add(facts.creative_caps(creative)),
            "renditions": self.ranges["renditions"].add(facts.renditions(creative, product)),
            "assets": self.ranges["assets"].add(assets),
        }

    def _codes(self, creative: Creative) -> Iterator[tuple[int, ...]]:
        told, _ = render.shown_categories(creative)
        for taxonomy, codes in creative.categories.items():
            for code in codes:
                token, *parents = facts.code_tokens(taxonomy, code)
                parent = self.categories.add(parents[0]) if parents else -1
                number = int(taxonomy)
                yield number, self.categories.add(token), parent, number == told

    def _asset(self, asset: render.Asset) -> tuple[int, ...]:
        text = self.text.add(render.asset_text(asset.text))
        size = (len(asset.text), asset.w, asset.h, asset.dur_s)
        return (*text, *size, asset.mime, asset.protocol, asset.kind, asset.type)


def _row(
    dtype: np.dtype[Any], fields: Mapping[str, object], ranges: Mapping[str, tuple[int, int]]
) -> tuple[Any, ...]:
    """A row of a table from values and ranges by name, in the order of the layout."""
    values = dict(fields)
    for name, (start, count) in ranges.items():
        values[f"{name}_start"], values[f"{name}_count"] = start, count
    return tuple(values[name] for name in dtype.names or ())
