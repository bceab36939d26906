"""What single objects of the catalogue say of money, in the numbers of the snapshot. All pure."""

from typing import Final

from rtb.base.records import Dim
from rtb.catalogue import snapshot
from rtb.catalogue.model import (
    Advertiser,
    Amount,
    Campaign,
    Flight,
    LineItem,
    Pacing,
    flight_ms,
    micros,
)
from rtb.catalogue.tokens import ad_key, hash_of

PACINGS: Final[dict[Pacing, int]] = {
    "even": snapshot.PACING_EVEN,
    "ahead": snapshot.PACING_AHEAD,
    "asap": snapshot.PACING_ASAP,
    "traffic": snapshot.PACING_TRAFFIC,
}


def campaign_row(campaign: Campaign) -> tuple[int, ...]:
    """A row of `campaign_budgets`."""
    budget = campaign.budget
    key = ad_key("campaign", campaign.id)
    return key, limit_micros(budget.total), limit_micros(budget.daily)


def line_item_row(line_item: LineItem, flights: tuple[int, int]) -> tuple[int, ...]:
    """A row of `line_item_budgets`; `flights` is its range in `flight_budgets`."""
    budget = line_item.budget
    money = limit_micros(budget.total), limit_micros(budget.daily)
    return (*money, _units(budget.impressions), *flights, PACINGS[line_item.pacing])


def flight_rows(
    line_item: LineItem, campaign: Campaign, advertiser: Advertiser
) -> list[tuple[int, int, int]]:
    """Rows of `flight_budgets`, in the order of `facts.flights_ms`; none without flights."""
    own = bool(line_item.flights)
    owner = f"line_item:{line_item.id}" if own else f"campaign:{campaign.id}"
    flights = line_item.flights if own else campaign.flights

    def start_ms(flight: Flight) -> int:
        return flight_ms(flight, advertiser.timezone)[0]

    return [
        (
            hash_of(Dim.AD, f"flight:{owner}/{start_ms(flight)}"),
            limit_micros(flight.budget.total),
            _units(flight.budget.impressions),
        )
        for flight in sorted(flights, key=start_ms)
    ]


def limit_micros(amount: Amount | None) -> int:
    """An amount as micros; NO_LIMIT for none."""
    return snapshot.NO_LIMIT if amount is None else micros(amount)


def _units(impressions: int | None) -> int:
    return snapshot.NO_LIMIT if impressions is None else impressions
