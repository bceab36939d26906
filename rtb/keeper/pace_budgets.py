"""Which budgets are paced, and what the controller aims at in each. Pure.

A budget is paced when it has an end: a day, or flights that end. A total without flights has none:
it only has the books' stop. Budgets of a campaign and of a shared flight have one controller that
sees what all their line items do; each line item is held to the tightest of its budgets.

Impressions are paced like money that is counted in ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from rtb.catalogue import snapshot as layout
from rtb.catalogue.snapshot import Snapshot
from rtb.keeper.chart import NANOS_PER_MICRO, Plan
from rtb.ledger.accounts import DAILY
from rtb.ledger.calendar import day_bounds_s, day_of
from rtb.ledger.commands import Scope
from rtb.pacing.curve import HOUR_S, WEIGHT_SCALE, slots
from rtb.pacing.goal import Goal
from rtb.pacing.schedule import INTERVALS_MAX, Schedule, Shape

Span = tuple[int, int]
# A schedule of a day is made anew each hour, with what was learned of the traffic; others daily.
_DAYS_OF_HOURS: Final = 2


class Name(NamedTuple):
    """What a budget is called: its scope, that one's key, and whether it counts impressions."""

    scope: Scope
    key: int
    units: bool


@dataclass(frozen=True)
class Budget:
    """One that is paced.

    amount    nanos, or impressions
    spans     the flights [start, end) in which it is spent, in order; () for always
    members   the line items that spend it, by their place in the list of plans
    cost_max  of one bid
    """

    name: Name
    amount: int
    zone: str
    shape: Shape
    spans: tuple[Span, ...]
    members: tuple[int, ...]
    cost_max: int


class Aim(NamedTuple):
    """What a budget aims at in [from_s, until_s); `day` is 0 where it has no days."""

    goal: Goal
    day: int
    from_s: int
    until_s: int


class Aimed(NamedTuple):
    """All budgets of a snapshot that are paced.

    plans      of each line item, by key
    creatives  how many each of them has
    budgets    with what they aim at when this was made
    """

    plans: list[tuple[int, Plan]]
    creatives: list[int]
    budgets: list[tuple[Budget, Aim]]


def aimed_in(
    snapshot: Snapshot,
    plans: Mapping[int, Plan],
    weights: Mapping[str, Sequence[int]],
    now_s: int,
) -> Aimed:
    """See `Aimed`; plans: as `chart.plans_of` has them; weights: as in `aim_of`."""
    pairs = list(plans.items())
    creatives = snapshot["line_items"]["creatives_count"].tolist()
    return Aimed(
        pairs,
        [creatives[plan.row] for _, plan in pairs],
        [(budget, aim_of(budget, now_s, weights)) for budget in budgets_of(snapshot, pairs)],
    )


def budgets_of(snapshot: Snapshot, plans: Sequence[tuple[int, Plan]]) -> list[Budget]:
    """All budgets that have an end, but those that are to be spent at once."""
    most = (snapshot["line_items"]["max_cpm_micros"] * NANOS_PER_MICRO // 1000).tolist()
    shared: dict[Name, tuple[int, list[int]]] = {}
    campaigns: dict[int, list[int]] = {}
    for place, (key, plan) in enumerate(plans):
        campaigns.setdefault(plan.campaign, []).append(place)
        for name, amount in _own(key, plan):
            shared.setdefault(name, (amount, []))[1].append(place)
    for key, total, daily in snapshot["campaign_budgets"].tolist():
        for scope, micros in ((Scope.CAMPAIGN, total), (Scope.CAMPAIGN_DAY, daily)):
            if micros != layout.NO_LIMIT and key in campaigns:
                shared[Name(scope, key, False)] = micros * NANOS_PER_MICRO, campaigns[key]
    found = (_budget(name, *rest, plans, most) for name, rest in shared.items())
    return [one for one in found if one is not None]


def _own(key: int, plan: Plan) -> Iterable[tuple[Name, int]]:
    """The budgets that a line item has or shares with those in the same flight."""
    amounts = [
        (Name(Scope.LINE_ITEM, key, False), plan.nanos),
        (Name(Scope.LINE_ITEM_DAY, key, False), plan.daily_nanos),
        (Name(Scope.LINE_ITEM, key, True), plan.units),
    ]
    for flight in plan.flights:
        amounts.append((Name(Scope.FLIGHT, flight.key, False), flight.nanos))
        amounts.append((Name(Scope.FLIGHT, flight.key, True), flight.units))
    return [(name, amount) for name, amount in amounts if amount is not None]


def _budget(
    name: Name, amount: int, members: list[int], plans: Sequence[tuple[int, Plan]], most: list[int]
) -> Budget | None:
    its = [plans[place][1] for place in members]
    paced = [plan for plan in its if plan.shape is not Shape.ASAP]
    spans = _spans(name, its)
    if not paced or (name.scope not in DAILY and not _ends(spans)):
        return None
    cost_max = 1 if name.units else max(most[plan.row] for plan in paced)
    return Budget(name, amount, paced[0].zone, paced[0].shape, spans, tuple(members), cost_max)


def _spans(name: Name, its: list[Plan]) -> tuple[Span, ...]:
    """When a budget is spent: while any of its line items runs."""
    if not all(plan.flights for plan in its):
        return ()
    flights = {
        (flight.start_s, flight.end_s)
        for plan in its
        for flight in plan.flights
        if name.scope is not Scope.FLIGHT or flight.key == name.key
    }
    joined: list[Span] = []
    for start_s, end_s in sorted(flights):
        if joined and start_s <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end_s)
        else:
            joined.append((start_s, end_s))
    return tuple(joined)


def _ends(spans: tuple[Span, ...]) -> bool:
    """Whether flights have an end that can be aimed at."""
    return bool(spans) and spans[-1][1] - spans[0][0] <= INTERVALS_MAX * HOUR_S


# -- goals -----------------------------------------------------------------------------------------


def aim_of(budget: Budget, now_s: int, weights: Mapping[str, Sequence[int]]) -> Aim:
    """What a budget aims at now.

    weights: expected requests of each hour of the week by zone (`curve.weights`); a zone of which
        nothing is known has the same traffic at all hours.
    """
    zone = ZoneInfo(budget.zone)
    day = day_of(now_s, zone) if budget.name.scope in DAILY else 0
    spans = budget.spans
    if day:
        from_s, until_s = day_bounds_s(day, zone)
        spans = _within(spans, from_s, until_s) if spans else ((from_s, until_s),)
    else:
        until_s = max(spans[-1][1], now_s)
    if not spans:  # a day without a flight
        spans = ((until_s, until_s),)
    length_s = spans[-1][1] - spans[0][0]
    schedule = _schedule(budget, spans, zone, weights.get(budget.zone))
    edges = [edge for span in spans for edge in span if edge > now_s]
    again_s = HOUR_S if length_s < _DAYS_OF_HOURS * 24 * HOUR_S else 24 * HOUR_S
    until_s = min([now_s - now_s % HOUR_S + again_s, *edges[:1], *([until_s] if day else [])])
    goal = Goal(budget.amount, schedule, cost_max_nanos=budget.cost_max)
    return Aim(goal, day, now_s, until_s)


def _within(spans: Iterable[Span], from_s: int, until_s: int) -> tuple[Span, ...]:
    cut = ((max(start, from_s), min(end, until_s)) for start, end in spans)
    return tuple((start, end) for start, end in cut if start < end)


def _schedule(
    budget: Budget, spans: tuple[Span, ...], zone: ZoneInfo, weights: Sequence[int] | None
) -> Schedule:
    """The target: by the clock, or by the traffic and the gaps between flights."""
    start_s, end_s = spans[0][0], spans[-1][1]
    by_traffic = budget.shape is Shape.CURVE
    if not by_traffic and (len(spans) == 1 or budget.shape is not Shape.EVEN):
        return Schedule(start_s, end_s, budget.shape)
    hours = range(start_s, end_s, HOUR_S)
    expected = [WEIGHT_SCALE] * len(hours)
    if by_traffic and weights is not None:
        expected = [weights[slot] for slot in slots(start_s, end_s, zone)]
    if len(spans) > 1:
        open_e6 = _open_e6(spans, hours, end_s)
        expected = [each * open_ // 1000 for each, open_ in zip(expected, open_e6, strict=True)]
    return Schedule(start_s, end_s, Shape.CURVE, traffic=tuple(expected))


def _open_e6(spans: tuple[Span, ...], hours: range, end_s: int) -> list[int]:
    """Millionths of each hour that lie in flights."""
    found = []
    first = 0
    for hour_s in hours:
        next_s = min(hour_s + HOUR_S, end_s)
        while spans[first][1] <= hour_s:
            first += 1
        cut = _within(spans[first:], hour_s, next_s) if spans[first][0] < next_s else ()
        found.append(sum(end - start for start, end in cut) * 1_000_000 // (next_s - hour_s))
    return found
