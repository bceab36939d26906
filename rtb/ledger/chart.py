"""The chart of accounts: what a catalogue says of budgets, and the commands that make it so.

Keys are the 64-bit hashes under which claims name advertisers, campaigns and line items; amounts
are nanos of the advertiser's currency. The catalogue's types are not known here: who has them
fills in these.
"""

from collections.abc import Iterable, Iterator

import msgspec

from rtb.base.errors import CatalogueError
from rtb.ledger.accounts import NO_LIMIT, Line, State
from rtb.ledger.commands import Command, Enrol, Flight, Scope, SetLimit


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """Base of all."""


class Advertiser(_Entry, frozen=True):
    """Who pays; `nanos` is the credit for everything together."""

    key: int
    name: str
    zone: str
    currency: int
    nanos: int | None = None


class Campaign(_Entry, frozen=True):
    """A budget for several line items."""

    key: int
    name: str
    advertiser: int
    nanos: int | None = None
    daily_nanos: int | None = None


class FlightBudget(_Entry, frozen=True):
    """A flight [start, end) and what may be spent in it."""

    key: int
    start_s: int
    end_s: int
    nanos: int | None = None
    units: int | None = None


class LineItem(_Entry, frozen=True):
    """The spending unit; `units` are impressions over its lifetime."""

    key: int
    name: str
    campaign: int
    nanos: int | None = None
    daily_nanos: int | None = None
    units: int | None = None
    flights: tuple[FlightBudget, ...] = ()


class Chart(_Entry, frozen=True):
    """All budgets of a catalogue. What it no longer names keeps its books and its limits."""

    advertisers: tuple[Advertiser, ...] = ()
    campaigns: tuple[Campaign, ...] = ()
    line_items: tuple[LineItem, ...] = ()


def changes_to(chart: Chart, state: State, time_s: int) -> list[Command]:
    """The commands after which the books are as the chart says; none for what is so already.

    Raises: CatalogueError for a campaign or line item whose owner the chart does not name.
    """
    found: list[Command] = [one for one in enrolments(chart, time_s) if not _known(one, state)]
    for limit in _limits(chart, time_s):
        wanted = (_bound(limit.nanos), _bound(limit.units))
        now = state.limits.get((limit.scope, limit.key))
        if wanted != ((NO_LIMIT, NO_LIMIT) if now is None else (now.nanos, now.units)):
            found.append(limit)
    return found


def enrolments(chart: Chart, time_s: int) -> Iterator[Enrol]:
    """What the chart says of each line item. Raises: as `changes_to`."""
    advertisers = {one.key: one for one in chart.advertisers}
    campaigns = {one.key: one for one in chart.campaigns}
    for item in chart.line_items:
        campaign = campaigns.get(item.campaign)
        owner = advertisers.get(campaign.advertiser) if campaign is not None else None
        if campaign is None or owner is None:
            raise CatalogueError(f"no campaign and advertiser - at `line item {item.name}`")
        flights = sorted(item.flights, key=_start_s)
        yield Enrol(
            time_s, item.key, campaign.key, owner.key, owner.zone, owner.currency,
            f"{owner.name} / {campaign.name} / {item.name}",
            tuple(Flight(one.key, one.start_s, one.end_s) for one in flights),
        )  # fmt: skip


def _limits(chart: Chart, time_s: int) -> Iterator[SetLimit]:
    for owner in chart.advertisers:
        yield SetLimit(time_s, Scope.ADVERTISER, owner.key, owner.nanos)
    for campaign in chart.campaigns:
        yield SetLimit(time_s, Scope.CAMPAIGN, campaign.key, campaign.nanos)
        yield SetLimit(time_s, Scope.CAMPAIGN_DAY, campaign.key, campaign.daily_nanos)
    for item in chart.line_items:
        yield SetLimit(time_s, Scope.LINE_ITEM, item.key, item.nanos, item.units)
        yield SetLimit(time_s, Scope.LINE_ITEM_DAY, item.key, item.daily_nanos)
    yield from _flight_limits(chart.line_items, time_s)


def _flight_limits(items: Iterable[LineItem], time_s: int) -> Iterator[SetLimit]:
    shared = {one.key: one for item in items for one in item.flights}
    for flight in shared.values():
        yield SetLimit(time_s, Scope.FLIGHT, flight.key, flight.nanos, flight.units)


def _known(enrol: Enrol, state: State) -> bool:
    line = state.lines.get(enrol.line_item)
    return line is not None and line == Line(
        enrol.line_item, enrol.campaign, enrol.advertiser, enrol.zone, enrol.currency,
        enrol.flights, enrol.name, line.numbers,
    )  # fmt: skip


def _bound(amount: int | None) -> int:
    return NO_LIMIT if amount is None else amount


def _start_s(flight: FlightBudget) -> int:
    return flight.start_s
