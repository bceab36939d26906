"""The controller, step by step: its rules as tables, and any observations at all."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtb.pacing.controller import State, begin, step
from rtb.pacing.estimate import Observed
from rtb.pacing.goal import DEFAULT, Control, Goal, Law, Mode, tightest
from rtb.pacing.schedule import ONE_E6, Schedule, Shape

DAY_S = 86_400
BUDGET = 1_440_000_000  # a million nanos a minute
GOAL = Goal(BUDGET, Schedule(0, DAY_S))
# A minute of a line item on its plan: 100 requests, 100 bids, 20 wins, a tenth of bids is spent.
ON_PLAN = {"spent": 1_000_000, "reserved": 10_000_000, "bids": 100, "wins": 20, "requests": 100}


def later(seen: Observed, seconds: int = 60, pending: int = 0, **more: int) -> Observed:
    """What is observed after some seconds in which more came."""
    return Observed(
        now_s=seen.now_s + seconds,
        spent_nanos=seen.spent_nanos + more.get("spent", 0),
        pending_nanos=pending,
        reserved_nanos=seen.reserved_nanos + more.get("reserved", 0),
        bids=seen.bids + more.get("bids", 0),
        wins=seen.wins + more.get("wins", 0),
        requests_eligible=seen.requests_eligible + more.get("requests", 0),
    )


def paced(minutes: int = 60, goal: Goal = GOAL) -> State:
    """A line item that has kept to its plan."""
    seen = Observed(goal.schedule.start_s)
    state, _ = step(begin(seen, goal, multiplier_e6=300_000), seen, goal)
    for _ in range(minutes):
        seen = later(seen, **ON_PLAN)
        state, _ = step(state, seen, goal)
    return state


def test_on_plan_the_multiplier_stays() -> None:
    """Who spends what the plan wants is left alone, but for what the earlier finish asks."""
    state = paced()

    assert Mode.PACED is state.control.mode
    assert ONE_E6 == state.control.participation_e6
    assert 300_000 == pytest.approx(state.control.multiplier_e6, rel=0.1)


@pytest.mark.parametrize(
    ("spent", "wins", "direction"),
    [(0, 0, 1), (500_000, 10, 1), (1_500_000, 30, -1), (9_000_000, 180, -1)],
)
@pytest.mark.parametrize("law", Law)
def test_direction(law: Law, spent: int, wins: int, direction: int) -> None:
    """Too little spend raises the multiplier, too much lowers it, by no more than the gain."""
    tuning = replace(DEFAULT, law=law)
    before = paced()
    minute = ON_PLAN | {"spent": spent, "wins": wins}
    _, control = step(before, later(before.seen, **minute), GOAL, tuning)
    change = control.multiplier_e6 / before.control.multiplier_e6

    assert (change > 1) == (direction > 0)
    assert 0.69 < change < 1.45


KEPT = [
    ("no time", {"seconds": 0, **ON_PLAN}),
    ("a clock that went back", {"seconds": -300, **ON_PLAN}),
    ("too little time", {"seconds": 5, "requests": 10}),
    ("no traffic", {"seconds": 60}),
    ("a long gap", {"seconds": 3600, **ON_PLAN}),
    ("a clock far behind", {"seconds": -3000, **ON_PLAN}),
]


@pytest.mark.parametrize(("name", "came"), KEPT, ids=[name for name, _ in KEPT])
def test_multiplier_is_kept(name: str, came: dict[str, int]) -> None:
    """What says nothing of the price does not move it."""
    before = paced()
    _, control = step(before, later(before.seen, **came), GOAL)

    assert before.control.multiplier_e6 == control.multiplier_e6


def test_time_backwards_changes_nothing() -> None:
    """An observation that is not newer leaves the very state."""
    before = paced()
    state, control = step(before, later(before.seen, seconds=-1, **ON_PLAN), GOAL)

    assert before is state
    assert before.control is control


def test_goes_on_after_a_clock_far_ahead() -> None:
    """A clock that was a year ahead for a moment does not stop pacing for a year."""
    before = paced()
    lost, control = step(before, later(before.seen, seconds=365 * DAY_S), GOAL)
    back = replace(before.seen, now_s=before.seen.now_s + 60)
    _, again = step(lost, back, GOAL)

    assert (Mode.WAITING, 0) == (control.mode, control.participation_e6)
    assert Mode.PACED is again.mode
    assert before.control.multiplier_e6 == again.multiplier_e6


def test_cold_start_explores_upwards() -> None:
    """From a tenth of the value on, more bids and higher, until something is won."""
    seen = Observed(0)
    state, control = step(begin(seen, GOAL), seen, GOAL)
    found = [control]
    for _ in range(5):
        seen = later(seen, requests=1000)  # nothing is bid: below every floor
        state, control = step(state, seen, GOAL)
        found.append(control)
    seen = later(seen, spent=1000, reserved=9000, bids=3, wins=1, requests=1000)
    _, control = step(state, seen, GOAL)

    assert [100_000, 130_000, 169_000] == [one.multiplier_e6 for one in found[:3]]
    assert [10_000, 40_000, 160_000, 160_000] == [one.participation_e6 for one in found[:4]]
    assert {Mode.PROBE} == {one.mode for one in found}
    assert Mode.PACED is control.mode
    assert found[-1].multiplier_e6 == control.multiplier_e6


def test_probe_ends() -> None:
    """After a quarter of an hour without a win the plan takes over, and goes on upwards."""
    seen = Observed(0)
    state = begin(seen, GOAL)
    for _ in range(40):
        state, control = step(state, seen, GOAL)
        seen = later(seen, requests=1)

    assert Mode.PACED is control.mode
    assert ONE_E6 == control.multiplier_e6


def test_asap() -> None:
    """As fast as value allows, from the first moment."""
    goal = replace(GOAL, schedule=Schedule(0, DAY_S, Shape.ASAP))
    seen = Observed(0)
    _, control = step(begin(seen, goal), seen, goal)

    assert Control(ONE_E6, ONE_E6, Mode.FINISH) == control


def test_spent_and_waiting() -> None:
    """Nobody bids before the start, after the end, nor without any budget left."""
    goal = replace(GOAL, schedule=Schedule(100, 200))
    early = begin(Observed(0), goal, multiplier_e6=500_000)
    controls = [
        step(early, Observed(now_s, spent_nanos=spent), goal)[1]
        for now_s, spent in ((99, 0), (200, 0), (150, BUDGET), (150, BUDGET + 1))
    ]

    assert [(500_000, 0)] * 4 == [(one.multiplier_e6, one.participation_e6) for one in controls]
    assert [Mode.WAITING, Mode.WAITING, Mode.SPENT, Mode.SPENT] == [one.mode for one in controls]


def test_next_day_begins_with_the_multiplier_of_the_last() -> None:
    """A new period keeps what was learned, and none of the old window."""
    before = paced()
    goal = replace(GOAL, schedule=Schedule(DAY_S, 2 * DAY_S))
    seen = replace(before.seen, now_s=DAY_S, spent_nanos=0)
    state, control = step(before, seen, goal)

    assert before.control.multiplier_e6 == control.multiplier_e6
    assert Mode.PACED is control.mode
    assert seen == state.mark


def test_guard_closes_beyond_the_lead() -> None:
    """Two per cent ahead of the schedule, nothing more is bid until it has caught up."""
    before = paced()
    ahead = later(before.seen, **(ON_PLAN | {"spent": BUDGET * 3 // 100}))
    state, closed = step(before, ahead, GOAL)
    _, reopened = step(state, later(ahead, 900, requests=1500), GOAL)

    assert 0 == closed.participation_e6
    assert reopened.participation_e6 > 0


def test_guard_bounds_what_a_step_can_spend() -> None:
    """A small budget lets only so many bids out that all of them may win."""
    goal = replace(GOAL, budget_nanos=BUDGET // 100)
    seen = Observed(0)
    state, _ = step(begin(seen, goal), seen, goal)
    _, control = step(state, later(seen, reserved=100_000, bids=1, requests=100), goal)
    # A bid in a hundred: 10,000,000 for all requests, of which 298,000 are allowed.

    assert 100_000 * control.participation_e6 <= 0.03 * goal.budget_nanos * 10_000


def test_pending_counts_as_far_as_it_is_spent() -> None:
    """Bids without an end are neither all spent nor free."""
    before = paced()
    minute = ON_PLAN | {"spent": 0, "wins": 0}
    _, free = step(before, later(before.seen, **minute), GOAL)
    _, some = step(before, later(before.seen, pending=10_000_000, **minute), GOAL)
    _, most = step(before, later(before.seen, pending=30_000_000, **minute), GOAL)

    assert free.multiplier_e6 > some.multiplier_e6 > most.multiplier_e6
    assert before.control.multiplier_e6 == pytest.approx(some.multiplier_e6, rel=0.02)


def test_fixed_price_is_paced_by_participation() -> None:
    """Where the price may not move, the multiplier is one and fewer requests are bid on."""
    goal = replace(GOAL, fixed_price=True)
    seen = Observed(0)
    state, control = step(begin(seen, goal), seen, goal)
    for _ in range(60):
        bids = 1000 * control.participation_e6 // ONE_E6  # each wins, at 20,000
        seen = later(seen, spent=bids * 20_000, reserved=bids * 20_000, bids=bids, wins=bids,
                     requests=1000)  # fmt: skip
        state, control = step(state, seen, goal)

    assert ONE_E6 == control.multiplier_e6
    assert 50_000 == pytest.approx(control.participation_e6, rel=0.1)


def test_tightest() -> None:
    """Of two budgets the one that allows less counts, for each of the two controls."""
    day = Control(500_000, ONE_E6, Mode.PACED)
    flight = Control(700_000, 0, Mode.SPENT)

    assert Control(500_000, 0, Mode.SPENT) == tightest(day, flight)
    assert Control(500_000, 0, Mode.SPENT) == tightest(flight, day)


counts = st.integers(0, 2**62)
observations = st.builds(
    Observed,
    now_s=st.integers(-(2**40), 2**40) | st.integers(-1000, DAY_S + 1000),
    spent_nanos=counts,
    pending_nanos=st.integers(-5, 2**62),
    reserved_nanos=counts,
    bids=counts,
    wins=counts,
    requests_eligible=counts,
)
goals = st.builds(
    Goal,
    budget_nanos=st.integers(-1, 2**62),
    schedule=st.builds(
        Schedule,
        start_s=st.sampled_from((0, 3600)),
        end_s=st.sampled_from((0, 3601, DAY_S)),
        shape=st.sampled_from((Shape.EVEN, Shape.AHEAD, Shape.ASAP)),
    ),
    multiplier_min_e6=st.integers(-1, 2_000_000),
    multiplier_max_e6=st.integers(-1, 2_000_000),
    fixed_price=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(
    goals=st.lists(goals, min_size=1, max_size=3),
    seen=st.lists(observations, min_size=1, max_size=25),
    law=st.sampled_from(Law),
    multiplier_e6=st.none() | st.integers(-1, 10**9),
)
def test_any_observations_keep_the_bounds(
    goals: list[Goal], seen: list[Observed], law: Law, multiplier_e6: int | None
) -> None:
    """Whatever is observed, in whatever order, controls are integers within their bounds."""
    tuning = replace(DEFAULT, law=law)
    state = begin(seen[0], goals[0], tuning, multiplier_e6)
    for index, one in enumerate(seen):
        goal = goals[index % len(goals)]
        late_s = state.seen.now_s - one.now_s
        state, control = step(state, one, goal, tuning)
        if 0 <= late_s <= tuning.gap_s:
            continue  # perhaps the control of another goal
        least, greatest = goal.bounds()

        assert isinstance(control.multiplier_e6, int)
        assert round(least * ONE_E6) <= control.multiplier_e6 <= round(greatest * ONE_E6)
        assert 0 <= control.participation_e6 <= ONE_E6
        assert 0 < state.drive <= greatest
