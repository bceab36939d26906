"""How well is a budget paced: is it spent as planned, and on what?

    python -m bench.pacing --data DIR [--quick]

Replays the campaigns of the iPinYou log (real market prices and predicted click rates, second
price), each as one day whose requests come by the hours of a real traffic curve, against the
controller of `rtb.pacing`, step by step. DIR holds `ipinyou-validation/` and `traffic-curve/`.
Everything is seeded; a fold takes fractions of what bidding the full value would spend as budgets.

What was won is compared with the best fixed multiplier in hindsight, which knows all prices before
the day begins; with PID on the same error; and with bidding the full value on a share of requests.
"""

import csv
import gzip
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench import options
from bench.record import Result
from rtb.pacing.controller import begin, step
from rtb.pacing.estimate import Observed
from rtb.pacing.goal import DEFAULT, Control, Goal, Law, Tuning
from rtb.pacing.schedule import ONE_E6, Schedule, Shape, pacing_error_e6

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

DAY_S = 86_400
HOURS = 24
STEP_S = 60
FEN_NANOS = 10_000  # a CPM of one fen: so many micros a thousand, so many nanos an impression
BUDGETS = (0.5, 0.25, 0.125, 0.0625, 0.03125)  # shares of what full value would spend
VALUE_OF_COST = 4.0  # value of all impressions, over the price of all impressions
PREDICTION_QUANTILE = 0.999  # a few rows have predictions near one: they would be all the value
SPEND_ERROR_MAX = 2.0
DELIVERED_MIN = 99.0


@dataclass(frozen=True)
class Market:
    """The impressions of a period, in the order of time.

    Shapes: (n,) int64. value and price in nanos of one impression.
    """

    time_s: Ints
    value: Ints
    price: Ints
    first_price: bool = False

    def spend_at(self, multiplier: float) -> tuple[int, int]:
        """Nanos spent and value won by a fixed multiplier without any budget."""
        bids = (self.value * multiplier).astype(np.int64)
        won = bids > self.price
        paid = bids if self.first_price else self.price
        return int(paid[won].sum()), int(self.value[won].sum())

    def oracle(self, budget: int) -> int:
        """The value won by the greatest fixed multiplier, at most 1, that keeps to a budget."""
        low, high = 0.0, 1.0
        if self.spend_at(high)[0] <= budget:
            return self.spend_at(high)[1]
        for _ in range(40):
            middle = (low + high) / 2
            if self.spend_at(middle)[0] <= budget:
                low = middle
            else:
                high = middle
        return self.spend_at(low)[1]


@dataclass(frozen=True)
class Notices:
    """How the ends of bids are told: a share of wins, and all losses, only after `late_s`.

    lost_share: of the late wins, those that are never told: their reservations expire.
    """

    late_share: float = 0.0
    lost_share: float = 0.0
    late_s: int = 0


PROMPT = Notices()


@dataclass
class Run:
    """What one replay did, after each step: nanos booked, and nanos really spent."""

    posted: list[int] = field(default_factory=list)
    spent: list[int] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    value: int = 0

    def errors_e6(self, goal: Goal, step_s: int = STEP_S) -> list[int]:
        """The pacing error after each step, of what was really spent."""
        schedule, budget = goal.schedule, goal.budget_nanos
        return [
            pacing_error_e6(
                spent,
                schedule.target_nanos(budget, schedule.start_s + (index + 1) * step_s),
                budget,
            )
            for index, spent in enumerate(self.spent)
        ]


def replay(
    market: Market,
    goal: Goal,
    tuning: Tuning = DEFAULT,
    *,
    notices: Notices = PROMPT,
    step_s: int = STEP_S,
    seed: int = 7,
) -> Run:
    """A period of the market under the controller, which alone keeps to the budget."""
    chance = np.random.default_rng(seed)
    schedule = goal.schedule
    steps = -(-(schedule.end_s - schedule.start_s) // step_s)
    edges = np.searchsorted(market.time_s, schedule.start_s + np.arange(steps + 1) * step_s)
    delay = -(-notices.late_s // step_s)
    reserved_back = np.zeros(steps + delay + 1, dtype=np.int64)
    posted_later = np.zeros(steps + delay + 1, dtype=np.int64)
    wins_later = np.zeros(steps + delay + 1, dtype=np.int64)
    run, total = Run(), 0
    seen = Observed(schedule.start_s)
    state = begin(seen, goal, tuning)
    for index in range(steps):
        state, control = step(state, seen, goal, tuning)
        part = slice(edges[index], edges[index + 1])
        value, price = market.value[part], market.price[part]
        open_ = chance.random(len(value)) * ONE_E6 < control.participation_e6
        bids = np.where(open_, value * control.multiplier_e6 // ONE_E6, 0)
        won = bids > price
        cost = np.where(won, bids if market.first_price else price, 0)
        late = (won & (chance.random(len(value)) < notices.late_share)) | ~won
        told = won & ~(late & (chance.random(len(value)) < notices.lost_share))
        for when, these in ((index, ~late), (index + delay, late)):
            reserved_back[when] += bids[these].sum()
            posted_later[when] += cost[these & told].sum()
            wins_later[when] += told[these].sum()
        total += int(cost.sum())
        run.value += int(value[won].sum())
        run.spent.append(total)
        run.controls.append(control)
        run.posted.append(seen.spent_nanos + int(posted_later[index]))
        reserved = seen.reserved_nanos + int(bids.sum())
        seen = Observed(
            now_s=min(schedule.start_s + (index + 1) * step_s, schedule.end_s),
            spent_nanos=run.posted[-1],
            pending_nanos=seen.pending_nanos + int(bids.sum() - reserved_back[index]),
            reserved_nanos=reserved,
            bids=seen.bids + int((bids > 0).sum()),
            wins=seen.wins + int(wins_later[index]),
            requests_eligible=seen.requests_eligible + len(value),
        )
    return run


# -- the data --------------------------------------------------------------------------------------


def campaigns(folder: Path, only: Sequence[str] = ()) -> Iterator[tuple[str, Ints, Floats]]:
    """(name, market price in fen, predicted click rate) of each campaign, or of some."""
    for path in sorted(folder.glob("ipinyou-validation/*.validation.txt.gz")):
        if only and path.name.split(".")[0] not in only:
            continue
        with gzip.open(path, "rt") as file:
            rows = [line.split("\t") for line in file if line.count("\t") == 2]
        prices = np.array([int(row[1]) for row in rows], dtype=np.int64)
        rates = np.array([float(row[2]) for row in rows])
        yield path.name.split(".")[0], prices, rates


def curves(folder: Path, day: int = 2) -> tuple[Floats, Floats]:
    """Shares of the hours of a weekday in the busiest region, and of its other days together."""
    with gzip.open(folder / "traffic-curve" / "traffic_share.csv.gz", "rt") as file:
        rows = list(csv.DictReader(file))
    regions: dict[str, Floats] = {}
    for row in rows:
        week = regions.setdefault(row["region_id"], np.zeros((7, HOURS)))
        week[int(row["dow"]) - 1, int(row["hour"])] += float(row["traffic_share"])
    week = max((regions[name] for name in sorted(regions)), key=lambda one: float(one.sum()))
    others = np.delete(week, day - 1, axis=0).sum(axis=0)
    return week[day - 1] / week[day - 1].sum(), others / others.sum()


def arrivals(count: int, hours: Floats, seed: int = 7) -> Ints:
    """Seconds of a day at which requests come, sorted: independent, by the shares of its hours."""
    chance = np.random.default_rng(seed)
    hour = chance.choice(HOURS, size=count, p=hours)
    return np.sort(hour * 3600 + chance.integers(0, 3600, count)).astype(np.int64)


def market_of(prices_fen: Ints, rates: Floats, hours: Floats, seed: int = 7) -> Market:
    """A campaign as a day, its rows in a seeded order."""
    order = np.random.default_rng(seed).permutation(len(prices_fen))
    price = prices_fen[order] * FEN_NANOS
    rate = np.minimum(rates, np.quantile(rates, PREDICTION_QUANTILE))[order]
    value = rate * (VALUE_OF_COST * price.sum() / rate.sum())
    return Market(arrivals(len(price), hours, seed), value.astype(np.int64), price)


def forecast(hours: Floats) -> tuple[int, ...]:
    """Shares of hours as a schedule takes them."""
    return tuple(round(share * ONE_E6) for share in hours)


# -- the question ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """One campaign, budget and way of pacing. Shares in per cent."""

    delivered: float
    curve_error: float
    won: float  # of what the oracle won


def outcome(market: Market, goal: Goal, tuning: Tuning = DEFAULT) -> Outcome:
    """How one replay did."""
    run = replay(market, goal, tuning)
    return Outcome(
        delivered=100 * run.spent[-1] / goal.budget_nanos,
        curve_error=max(run.errors_e6(goal)) / 1e4,
        won=100 * run.value / market.oracle(goal.budget_nanos),
    )


def ways(goal: Goal) -> dict[str, tuple[Goal, Tuning]]:
    """What is compared. Throttling bids the full value, on a share of requests."""
    return {
        "dual": (goal, Tuning()),
        "pid": (goal, Tuning(law=Law.PID)),
        "throttled": (replace(goal, fixed_price=True), Tuning()),
    }


def main() -> None:
    """The benchmark."""
    chosen = options.parse(__doc__)
    if chosen.data is None:
        raise SystemExit("pacing: --data DIR with ipinyou-validation and traffic-curve is needed")
    budgets = BUDGETS[1:3] if chosen.quick else BUDGETS
    result = Result(
        "pacing",
        "How well is a budget paced, and what does it buy?",
        {"budgets": list(budgets), "step_s": STEP_S},
    )
    hours, others = curves(chosen.data)
    found: dict[str, list[Outcome]] = {}
    for name, prices, rates in campaigns(chosen.data):
        market = market_of(prices, rates, hours)
        full, _ = market.spend_at(1.0)
        schedule = Schedule(0, DAY_S, Shape.CURVE, traffic=forecast(others))
        for share in budgets:
            goal = Goal(int(full * share), schedule)
            for way, (its_goal, tuning) in ways(goal).items():
                one = outcome(market, its_goal, tuning)
                found.setdefault(way, []).append(one)
                result.details[f"{name} {share:g} {way}"] = {
                    "delivered": round(one.delivered, 3),
                    "curve_error": round(one.curve_error, 3),
                    "won": round(one.won, 2),
                }
    _add(result, found)
    result.write(chosen.out)


def _add(result: Result, found: dict[str, list[Outcome]]) -> None:
    """The figures over all campaigns and budgets."""
    dual = found["dual"]
    off = max(abs(100 - one.delivered) for one in dual)
    result.add("spend_error", "budget less spend, the worst day", off, "%", SPEND_ERROR_MAX)
    worst = min(one.delivered for one in dual)
    result.add("delivered", "delivered, the worst day", worst, "%", DELIVERED_MIN, at_least=True)
    most = max(one.delivered for one in dual)
    result.add("most", "delivered, the greatest, without the ledger's stop", most, "%")
    middle = statistics.median(one.curve_error for one in dual)
    result.add("curve_error", "farthest from the curve in a day, median", middle, "%")
    farthest = max(one.curve_error for one in dual)
    result.add("curve_error_max", "farthest from the curve, the worst day", farthest, "%")
    for way, outcomes in found.items():
        won = statistics.mean(one.won for one in outcomes)
        result.add(f"won_{way}", f"value, of the best in hindsight: {way}", won, "%")
        least = min(one.won for one in outcomes)
        result.add(f"won_{way}_min", f"the same, the worst day: {way}", least, "%")


if __name__ == "__main__":
    main()
