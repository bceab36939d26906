"""The seeded catalogue: campaigns and line items of all retailers, with deals and segments."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final, Literal

from rtb.catalogue.model import (
    Budget,
    Campaign,
    Catalogue,
    Deal,
    ExcludePurchased,
    Flight,
    FrequencyCap,
    Goal,
    LineItem,
    Pacing,
    Priors,
    Segment,
)
from rtb.sim import aims, world
from rtb.sim.draws import Weighted
from rtb.sim.retail import Retailer, Studio

LINE_ITEMS_PER_CAMPAIGN: Final = 5
# Flights began before the seed's clock and outlive every demonstration: a seeded directory that
# lies about for years still bids.
_STARTED_DAYS: Final = 30
_ENDS_DAYS: Final = 3_650

MEDIA: Final = Weighted(("banner", "video", "native", "audio", "mixed"), (58, 18, 14, 5, 5))
# What a thousand impressions are worth, in dollars, and how often they are clicked.
VALUE_CPM: Final = {"banner": 2.2, "video": 11.0, "native": 3.0, "audio": 8.0, "mixed": 2.5}
# Clicks of shop ads to people who shop: some five in a thousand, two to four times a brand ad's.
CTR: Final = {"banner": 0.004, "video": 0.008, "native": 0.009, "audio": 0.002, "mixed": 0.006}
CVR: Final = 0.03
# Rare media are bought broadly: there is not enough of them to be choosy.
BREADTH: Final = {"banner": 1.0, "video": 1.3, "native": 1.3, "audio": 4.0, "mixed": 1.0}
# Who buys by performance buys what there is; brands spread it.
PACING: Final[Weighted[Pacing]] = Weighted(("asap", "even", "ahead", "traffic"), (70, 18, 6, 6))
TIGHT: Final = 0.08  # share of line items whose daily budget is gone in no time
# For so many requests it would last: some go within seconds of a demonstration, some in minutes.
TIGHT_LOG10: Final = (1.5, 3.5)
FEW: Final = 0.03  # share of line items that may show only so many impressions
FEW_IMPRESSIONS: Final = (3, 100)
FLIGHTS_BUDGETED: Final = 0.1
_GOALS: Final[Weighted[Literal["cpm", "cpc", "cpa", "roas"]]] = Weighted(
    ("cpm", "cpc", "cpa", "roas"), (35, 30, 15, 20)
)


def build(retailers: list[Retailer], seed: int, line_items_count: int, now_s: int) -> Catalogue:
    """Everything that may be advertised, `line_items_count` line items in all."""
    catalogue = Catalogue()
    for name in world.SEGMENTS:
        catalogue.add(Segment(id=name, name=name.replace("-", " ").capitalize()))
    for key in world.DEALS.values:
        catalogue.add(Deal(id=key, exchange=world.EXCHANGE, name=f"Preferred {key}"))
    today = datetime.fromtimestamp(now_s, UTC).date()
    flight = Flight(
        start=(today - timedelta(days=_STARTED_DAYS)).isoformat(),
        end=(today + timedelta(days=_ENDS_DAYS)).isoformat(),
    )
    studio = Studio(seed)
    money = Money(Random(f"budgets {seed}"))
    builder = _Builder(catalogue, studio, flight, Random(f"campaigns {seed}"), money)
    for number, retailer in enumerate(retailers):
        catalogue.add(retailer.advertiser)
        catalogue.add(Segment(id=retailer.visitors, name=f"Visitors of {retailer.advertiser.name}"))
        for product in retailer.products:
            catalogue.add(product)
        # As even as whole numbers allow, and exact in sum.
        first = number * line_items_count // len(retailers)
        builder.retailer(retailer, (number + 1) * line_items_count // len(retailers) - first)
    for creative in studio.made:
        catalogue.add(creative)
    return catalogue


class _Builder:
    """Adds campaigns and line items, numbered through the catalogue."""

    def __init__(
        self, catalogue: Catalogue, studio: Studio, flight: Flight, random: Random, money: "Money"
    ) -> None:
        self.catalogue, self.studio = catalogue, studio
        self.flight, self.random, self.money = flight, random, money

    def retailer(self, retailer: Retailer, count: int) -> None:
        """The line items of one retailer, in campaigns."""
        while count > 0:
            size = min(count, LINE_ITEMS_PER_CAMPAIGN)
            count -= size
            campaign = self._campaign(retailer)
            ads: dict[str, list[tuple[str, ...]]] = {}
            for _ in range(size):
                self._line_item(retailer, campaign, ads)

    def _campaign(self, retailer: Retailer) -> Campaign:
        random = self.random
        number = len(self.catalogue.campaigns)
        capped = random.random() < 0.25
        campaign = Campaign(
            id=f"c{number:06d}",
            advertiser=retailer.advertiser.id,
            name=f"{retailer.vertical.name.title()} {number}",
            flights=(self.money.flight(self.flight, retailer.units),),
            budget=Budget(total=_amount(random.uniform(5e3, 2e5) * retailer.units)),
            frequency_caps=(FrequencyCap(random.randint(8, 20), "7d"),) if capped else (),
        )
        self.catalogue.add(campaign)
        return campaign

    def _line_item(
        self, retailer: Retailer, campaign: Campaign, ads: dict[str, list[tuple[str, ...]]]
    ) -> None:
        random = self.random
        medium = MEDIA.pick(random)
        value = VALUE_CPM[medium] * random.lognormvariate(0.0, 0.5) * retailer.units
        priors = Priors(
            ctr=round(CTR[medium] * random.lognormvariate(0.0, 0.3), 6),
            cvr=round(CVR * random.lognormvariate(0.0, 0.3), 5),
        )
        wanted = min(1.0, retailer.reach * BREADTH[medium] * random.lognormvariate(0.0, 0.4))
        deals, open_market = self._deals()
        tree = aims.targeting(random, retailer, medium, min(1.0, wanted * (4 if deals else 1)))
        number = len(self.catalogue.line_items)
        # In this order: what a seed draws follows from it.
        goal = _goal(_GOALS.pick(random), value, priors)
        creatives = self._creatives(retailer, medium, ads)
        max_cpm = _amount(value * random.uniform(2.0, 4.0))
        ample = random.uniform(50, 2000) * retailer.units
        budget, pacing = self.money.line_item(ample, wanted * value / 1000)
        self.catalogue.add(
            LineItem(
                id=f"li{number:06d}",
                campaign=campaign.id,
                goal=goal,
                creatives=creatives,
                name=f"{medium} {number}",
                max_cpm=max_cpm,
                budget=budget,
                pacing=pacing,
                frequency_caps=self._caps(),
                targeting=tree,
                deals=deals,
                open_market=open_market,
                repeat=random.random() < 0.1,
                needs_profile=random.random() < 0.04,
                exclude_purchased=self._exclusions(),
                priors=priors,
                shade=round(random.uniform(0.6, 0.9), 3),
            )
        )

    def _creatives(
        self, retailer: Retailer, medium: str, ads: dict[str, list[tuple[str, ...]]]
    ) -> tuple[str, ...]:
        """Ads of a campaign are shared: each medium has at most two of them."""
        found: tuple[str, ...] = ()
        for each in ("banner", "native") if medium == "mixed" else (medium,):
            known = ads.setdefault(each, [])
            if len(known) < 2:
                known.append(self.studio.make(retailer, each, self.random))
            found += self.random.choice(known)
        return found

    def _deals(self) -> tuple[tuple[str, ...], bool | None]:
        """Most buy in the open market; some in deals besides, some in deals only."""
        kind = self.random.random()
        if kind > 0.10:
            return (), None
        deals = tuple(world.DEALS.several(self.random, self.random.randint(1, 4)))
        return deals, kind < 0.05

    def _caps(self) -> tuple[FrequencyCap, ...]:
        if self.random.random() < 0.5:
            return ()
        caps = [FrequencyCap(self.random.randint(2, 6), "1d")]
        if self.random.random() < 0.3:
            caps.append(FrequencyCap(self.random.randint(10, 30), "30d"))
        return tuple(caps)

    def _exclusions(self) -> ExcludePurchased:
        random = self.random
        return ExcludePurchased(
            item_days=random.choice((30, 60, 90)) if random.random() < 0.6 else 0,
            category_days=14 if random.random() < 0.15 else 0,
        )


class Money:
    """What budgets hold and how they are spent: most are ample, some run out while one looks on."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def line_item(self, ample: float, a_request: float) -> tuple[Budget, Pacing]:
        """A daily budget of `ample`, unless it is one of the tight ones, and its pacing.

        a_request: what it would spend on a request of its market if it won them all.
        """
        random = self.random
        kind = random.random()
        if kind < TIGHT:
            return Budget(daily=_amount(a_request * 10 ** random.uniform(*TIGHT_LOG10))), "asap"
        impressions = random.randint(*FEW_IMPRESSIONS) if kind < TIGHT + FEW else None
        return Budget(daily=_amount(ample), impressions=impressions), PACING.pick(random)

    def flight(self, flight: Flight, units: float) -> Flight:
        """The flight of a campaign; a few have a budget that its line items share."""
        if self.random.random() > FLIGHTS_BUDGETED:
            return flight
        total = _amount(self.random.uniform(1e3, 5e4) * units)
        return Flight(flight.start, flight.end, Budget(total=total))


def _goal(kind: Literal["cpm", "cpc", "cpa", "roas"], value: float, priors: Priors) -> Goal:
    """A goal whose impressions are worth `value` a thousand when the priors are right."""
    if kind == "cpm":
        return Goal(type=kind, amount=_amount(value))
    clicks = 1000.0 * priors.ctr
    if kind == "cpc":
        return Goal(type=kind, amount=_amount(value / clicks))
    per_action = value / (clicks * priors.cvr)
    if kind == "cpa":
        return Goal(type=kind, amount=_amount(per_action))
    return Goal(type=kind, target_roas=4.0, order_value=_amount(4.0 * per_action))


def _amount(value: float) -> str:
    """Decimal text of a sum, never nothing."""
    return f"{max(value, 0.01):.2f}"
