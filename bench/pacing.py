"""How well is a budget paced: is it spent as planned, and on what?

    python -m bench.pacing --data DIR [--quick]

Replays the campaigns of the iPinYou log (real market prices and predicted click rates, second
price), each as one day whose requests come by the hours of a real traffic curve, against the
controller of `rtb.pacing`, step by step. DIR holds `ipinyou-validation/` and `traffic-curve/`.
Everything is seeded; a fold takes fractions of what bidding the full value would spend as budgets.

What was won is compared with the best fixed multiplier in hindsight, which knows all prices before
the day begins; with PID on the same error; and with bidding the full value on a share of requests.

Then, as a keeper does it, with a step a second and requests counted by sample: how long does a line
item that nobody knows wait until nothing but its plan holds it back? And what do a keeper's rounds
cost, on the seeded catalogue?
"""

import csv
import gc
import gzip
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench import options
from bench import state as bench_state
from bench.record import Result
from rtb.keeper.chart import chart_of, plans_of
from rtb.keeper.pace import Pacers
from rtb.keeper.pace_budgets import aimed_in
from rtb.keeper.publish import Slots
from rtb.ledger.accounts import State
from rtb.ledger.changes import Changes
from rtb.ledger.chart import changes_to
from rtb.ledger.machine import apply
from rtb.pacing.controller import begin, step
from rtb.pacing.estimate import Observed
from rtb.pacing.goal import DEFAULT, Control, Goal, Law, Mode, Tuning
from rtb.pacing.schedule import ONE_E6, Schedule, Shape, pacing_error_e6
from rtb.stores import artifacts
from rtb.stores.board import FUNNEL_BID, FUNNEL_FIRST_REASON, FUNNEL_SAMPLE, Board
from rtb.stores.board_money import SLOTS_STEP, MoneyBoard

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
    steps_max: int | None = None,
    seed: int = 7,
) -> Run:
    """A period of the market, or its first steps, under the controller alone."""
    chance = np.random.default_rng(seed)
    schedule = goal.schedule
    steps = -(-(schedule.end_s - schedule.start_s) // step_s)
    steps = min(steps, steps_max or steps)
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
            requests_eligible=seen.requests_eligible + _counted(len(value), tuning, chance),
        )
    return run


def _counted(requests: int, tuning: Tuning, chance: np.random.Generator) -> int:
    """Requests as they are counted: one in `tuning.sample`."""
    if tuning.sample == 1:
        return requests
    return int(chance.binomial(requests, 1 / tuning.sample)) * tuning.sample


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


# (requests a second, budget as a share of what full value would spend in a day)
STARTS = {"busy": (200.0, 0.25), "large": (20.0, 20.0), "rare": (0.1, 2.0), "small": (0.1, 0.3)}
START_S_MAX = 3600


def start_s(requests_per_s: float, share: float, seed: int = 7) -> int:
    """Seconds until a line item that nobody knows was held back by its plan alone.

    All requests have one floor, at half of their value.
    """
    chance = np.random.default_rng(seed)
    count = int(requests_per_s * START_S_MAX)
    times = np.sort(chance.integers(0, START_S_MAX, count)).astype(np.int64)
    value = np.full(count, 2_000_000)
    market = Market(times, value, value // 2, first_price=True)
    budget = int(requests_per_s * DAY_S * 2_000_000 * share)
    goal = Goal(budget, Schedule(0, DAY_S), cost_max_nanos=2_000_000)
    tuning = replace(DEFAULT, sample=FUNNEL_SAMPLE, step_s=1)
    run = replay(market, goal, tuning, step_s=1, steps_max=START_S_MAX)
    wanted = 1.0 if share >= 1 else 0.5
    for index, control in enumerate(run.controls):
        if control.multiplier_e6 >= wanted * ONE_E6 and control.mode is not Mode.PROBE:
            return index
    return START_S_MAX


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
    for name, (rate, of_full) in STARTS.items():
        result.add(f"start_{name}", f"a cold start, {name}", start_s(rate, of_full), "s", 900)
    for name, share_bidding in (("idle", 0.0), ("bidding", 0.2)):
        cpu, longest = keeper_cost(
            bench_state.state(profiles=1_000), share_bidding, 5 if chosen.quick else 15
        )
        said = f"of a core, 10,000 line items, {share_bidding:.0%} of them bidding"
        result.add(f"cost_{name}", said, 100 * cpu, "%", 15)
        result.add(f"turn_{name}", f"longest turn, {name}", longest, "ms", 20)
    result.write(chosen.out)


def keeper_cost(data: Path, share_bidding: float, seconds: int) -> tuple[float, float]:
    """What pacing costs a keeper of 20 turns a second: share of a core, ms of the longest turn.

    In every second a share of the line items bid, and a third of all have a request counted.
    """
    path = artifacts.current(data / "snapshots", "snapshot")
    if path is None:
        raise SystemExit(f"pacing: no snapshot in {data}")
    snapshot = artifacts.open_snapshot(path, verify=False)
    count = len(snapshot["line_items"])
    books = State()
    now_s = int(time.time())
    plans = plans_of(snapshot)
    for command in changes_to(chart_of(snapshot, plans), books, now_s):
        apply(books, command, Changes())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        board = Board.create(folder / "board", 2, 2 * count)
        places = -(-count // SLOTS_STEP) * SLOTS_STEP
        money = MoneyBoard.create(folder / "money", 2, places)
        slots = Slots(money)
        slots.assign(snapshot["line_items"]["key"].tolist())
        pacers = Pacers(board, money, folder / "memory", folder / "report")
        aimed = aimed_in(snapshot, plans, pacers.weights, now_s)
        pacers.serve(aimed, books, slots.slot, now_s * 1000)
        chance = np.random.default_rng(7)
        gc.collect()
        gc.freeze()  # a whole collection is the keeper's, not pacing's
        spent_s: list[float] = []
        for turn in range(-400, seconds * 20):  # until all had their first step
            if turn % 20 == 0:
                bidding = chance.random(places) < share_bidding
                money.taken[0, bidding] += 1_000_000
                money.taken_units[0, bidding] += 1
                board.funnel[0, :count, FUNNEL_BID - FUNNEL_FIRST_REASON] += (
                    chance.random(count) < 1 / 3
                )
            began = time.process_time()
            pacers.turn(books, now_s * 1000 + 50 * turn)
            if turn >= 0:
                spent_s.append(time.process_time() - began)
    return sum(spent_s) / seconds, 1000 * max(spent_s)


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
