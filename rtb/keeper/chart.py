"""From the snapshot that is served to the chart of accounts, and to what pacing aims at. Pure.

The snapshot counts micros of the advertiser's currency, the books nanos: a thousand for one. Books
are kept in whole seconds, and so are flights. Callers guarantee that the snapshot passed
`catalogue.bounds.check_arrays`.
"""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from rtb.catalogue import snapshot as layout
from rtb.catalogue.snapshot import Snapshot
from rtb.ledger.chart import Advertiser, Campaign, Chart, FlightBudget, LineItem
from rtb.pacing.schedule import Shape

NANOS_PER_MICRO: Final = 1000
# Three names and what stands between them are one name in the books (`commands.TEXT_CHARS_MAX`).
NAME_CHARS_MAX: Final = 150


class Plan(NamedTuple):
    """What pacing has to know of a line item.

    row         of the snapshot's line items
    name        its id, as text for people
    zone        time zone of its days, IANA
    currency    of all amounts, `money.currency_code`
    shape       what the target follows over a day or a flight
    expected    a bid reserves its price times its chance to win
    deals_only  it buys in deals alone
    campaign    key of the campaign, whose budgets it shares
    nanos, daily_nanos, units   its own budgets, None where it has none
    flights     in the order of time; () for one that always runs. A budget in them is shared by
                all line items that name its key.
    """

    row: int
    name: str
    zone: str
    currency: int
    shape: Shape
    expected: bool
    deals_only: bool
    campaign: int
    nanos: int | None
    daily_nanos: int | None
    units: int | None
    flights: tuple[FlightBudget, ...]


def chart_of(snapshot: Snapshot, plans: Mapping[int, Plan]) -> Chart:
    """All budgets of a snapshot; plans: as `plans_of` has them, made once for all who need them."""
    return Chart(
        advertisers=tuple(_advertisers(snapshot)),
        campaigns=tuple(_campaigns(snapshot)),
        line_items=tuple(
            LineItem(
                key, plan.name, plan.campaign, plan.nanos, plan.daily_nanos, plan.units,
                plan.flights,
            )
            for key, plan in plans.items()
        ),
    )  # fmt: skip


def plans_of(snapshot: Snapshot) -> dict[int, Plan]:
    """What pacing has to know of each line item, by key, in the order of their rows."""
    items = snapshot["line_items"]
    columns = (items[name].tolist() for name in ("key", "campaign", "advertiser", "flags"))
    budgets = snapshot["line_item_budgets"].tolist()
    campaigns = snapshot["campaign_budgets"]["key"].tolist()
    owners = list(_advertisers(snapshot))
    shared: dict[int, Shape] = {int(each): each for each in Shape}
    rows = zip(*columns, budgets, _texts(snapshot, "line_items"), _flights(snapshot), strict=True)
    found = {}
    for row, (key, campaign, owner, flags, budget, name, flights) in enumerate(rows):
        total, daily, units, _, _, pacing = budget
        found[key] = Plan(
            row,
            name,
            owners[owner].zone,
            owners[owner].currency,
            shared[pacing],
            bool(flags & layout.EXPECTED),
            not flags & layout.OPEN_MARKET,
            campaigns[campaign],
            _nanos(total),
            _nanos(daily),
            _units(units),
            flights,
        )
    return found


def _advertisers(snapshot: Snapshot) -> Iterator[Advertiser]:
    keys = snapshot["advertisers"]["key"].tolist()
    zones = _texts(snapshot, "advertiser_budgets", "zone")
    names = _texts(snapshot, "advertiser_budgets", "name")
    budgets = snapshot["advertiser_budgets"]
    columns = (budgets[name].tolist() for name in ("currency", "total_micros"))
    rows = zip(keys, names, _texts(snapshot, "advertisers"), zones, *columns, strict=True)
    for key, name, own_id, zone, currency, total in rows:
        yield Advertiser(key, name or own_id, zone, currency, _nanos(total))


def _campaigns(snapshot: Snapshot) -> Iterator[Campaign]:
    keys = snapshot["advertisers"]["key"].tolist()
    owners = snapshot["campaigns"]["advertiser"].tolist()
    rows = zip(
        snapshot["campaign_budgets"].tolist(), _texts(snapshot, "campaigns"), owners, strict=True
    )
    for (key, total, daily), name, owner in rows:
        yield Campaign(key, name, keys[owner], _nanos(total), _nanos(daily))


def _flights(snapshot: Snapshot) -> Iterator[tuple[FlightBudget, ...]]:
    """The flights of each line item. Most share them: they are made once."""
    times, limits = snapshot["flights"].tolist(), snapshot["flight_budgets"].tolist()
    starts = snapshot["line_items"]["flights_start"].tolist()
    budgets = snapshot["line_item_budgets"]
    known: dict[tuple[int, int, int], tuple[FlightBudget, ...]] = {}
    for place in zip(
        starts, budgets["flights_start"].tolist(), budgets["flights_count"].tolist(), strict=True
    ):
        start, first, count = place
        if place not in known:
            rows = zip(times[start : start + count], limits[first : first + count], strict=True)
            known[place] = tuple(
                FlightBudget(
                    key, start_ms // 1000, end_ms // 1000, _nanos(total), _units(impressions)
                )
                for (start_ms, end_ms), (key, total, impressions) in rows
            )
        yield known[place]


def _texts(snapshot: Snapshot, table: str, column: str = "id") -> Iterator[str]:
    """A text of each row, fit for a line of print."""
    rows = snapshot[table]
    starts, counts = rows[f"{column}_start"].tolist(), rows[f"{column}_count"].tolist()
    data = snapshot["text"].data
    for start, count in zip(starts, counts, strict=True):
        text = bytes(data[start : start + count]).decode(errors="replace")
        if not text.isprintable():
            text = "".join(each if each.isprintable() else "?" for each in text)
        yield text[:NAME_CHARS_MAX]


def _nanos(micros: int) -> int | None:
    return None if micros == layout.NO_LIMIT else micros * NANOS_PER_MICRO


def _units(impressions: int) -> int | None:
    return None if impressions == layout.NO_LIMIT else impressions
