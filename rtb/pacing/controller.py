"""The controller of one line item: from what was spent to the multiplier of its bids.

Only the multiplier steers, as long as it can: it multiplies the value of an impression before the
price is made, so the cheapest impressions for their worth are bought. It is the dual price of the
budget, learned from each window of time by

    multiplier <- multiplier * exp(gain * clip((target - spend) / target, -1, 1))
    target = budget left * share of the window / share left

so that what was missed or spent too soon is spread over the rest of the period. A window ends when
its target is worth some wins; the fewer, the smaller the gain. Throttling does the rest:

- where the price is fixed, spend follows participation in a line: it is set to what the plan
  needs; where the multiplier is at its least, the law above moves participation on;
- the guard: until the next step nobody may spend more than `lead` beyond the schedule, nor than
  what is left, even if all bids won. It is open for a budget that is large against its traffic,
  and is what keeps a small one from being gone in the first minute.

A state is a value, and a step a function of its arguments: no clock, no chance. Several budgets of
one line item (a day, a flight) are several states; `goal.tightest` joins what they say.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from rtb.pacing.estimate import NOTHING, Observed, Recent, Step, between
from rtb.pacing.goal import DEFAULT, Control, Goal, Law, Mode, Tuning, planned
from rtb.pacing.schedule import ONE_E6, Shape

# Bidders draw one in ten thousand requests: below, there is nothing left to steer.
STEP_E6: Final = 100
PARTICIPATION_E6_MIN: Final = STEP_E6
# A window held back more than a thousandfold says no more than that it was too much.
HELD_MIN: Final = 0.001
# Of requests that are counted one in so many, so many may have been missed by chance.
DOUBTED_SAMPLES: Final = 3


@dataclass(frozen=True, slots=True)
class State:
    """What one step leaves to the next.

    drive: the multiplier; below the least multiplier, the multiplier times participation.
    seen, mark: the last observation, and that at which the window began.
    guard: of the requests that throttling leaves until the next step, the share that the guard
        lets through.
    open_requests: of the requests of the window, those that it let through.
    """

    drive: float
    mode: Mode
    control: Control
    seen: Observed
    mark: Observed
    start_s: int
    probe_since_s: int
    opening_e6: int
    guard: float = 1.0
    open_requests: float = 0.0
    recent: Recent = NOTHING
    error: float = 0.0
    error_before: float = 0.0


def begin(
    seen: Observed,
    goal: Goal,
    tuning: Tuning = DEFAULT,
    multiplier_e6: int | None = None,
    recent: Recent = NOTHING,
) -> State:
    """A state that knows nothing, or an earlier multiplier, which spares it the probe.

    multiplier_e6: `remembered`; recent: what was known of costs then. Nothing is bid before the
    first step.
    """
    cold = multiplier_e6 is None
    first_e6 = tuning.probe_multiplier_e6 if multiplier_e6 is None else max(multiplier_e6, 1)
    opening_e6 = tuning.probe_participation_e6 if cold else ONE_E6
    least, greatest = goal.bounds()
    shown_e6 = round(min(max(first_e6 / ONE_E6, least), greatest) * ONE_E6)
    return State(
        drive=first_e6 / ONE_E6,
        mode=Mode.PROBE if cold else Mode.PACED,
        control=Control(shown_e6, 0, Mode.WAITING),
        seen=seen,
        mark=seen,
        start_s=goal.schedule.start_s,
        probe_since_s=seen.now_s,
        opening_e6=opening_e6,
        recent=recent,
    )


def remembered(state: State) -> int | None:
    """What spares the next start its probe: the multiplier, or participation where the price is
    fixed; None as long as nothing is known.
    """
    return None if state.mode is Mode.PROBE else max(round(state.drive * ONE_E6), 1)


def step(
    state: State, seen: Observed, goal: Goal, tuning: Tuning = DEFAULT
) -> tuple[State, Control]:
    """One observation further. A clock that did not move on changes nothing."""
    late_s = state.seen.now_s - seen.now_s
    if 0 <= late_s <= tuning.gap_s and state.control.mode is not Mode.WAITING:
        return state, state.control
    came = between(state.seen, seen)
    known = replace(
        state,
        seen=seen,
        recent=state.recent.after(came, state.control.participation_e6),
        open_requests=state.open_requests + came.requests * state.guard,
        probe_since_s=min(state.probe_since_s, seen.now_s),
    )
    if goal.schedule.start_s != state.start_s:
        known = _marked(known)
        known = replace(known, start_s=goal.schedule.start_s, probe_since_s=seen.now_s)
    elif abs(late_s) > tuning.gap_s:
        known = _marked(known)
    steered = _bounded(_steered(known, came, goal, tuning), goal)
    throttle = min(steered.drive / goal.bounds()[0], 1.0)
    guarded = replace(steered, guard=min(_guard(steered, came, goal, tuning) / throttle, 1.0))
    control = _control(guarded, goal, tuning)
    return replace(guarded, control=control), control


def _spend(state: State, seen: Observed, doubt_nanos: float = 0.0) -> float:
    """Spent, and what is pending as far as it will be."""
    return seen.spent_nanos + state.recent.spent_share(doubt_nanos) * max(seen.pending_nanos, 0)


# -- the multiplier --------------------------------------------------------------------------------


def _steered(state: State, came: Step, goal: Goal, tuning: Tuning) -> State:
    """The state with the drive that its window calls for."""
    now_s = state.seen.now_s
    if not goal.schedule.start_s <= now_s < goal.schedule.end_s:
        return _marked(state)
    if goal.schedule.shape is Shape.ASAP:
        return _marked(replace(state, drive=goal.bounds()[1], mode=Mode.PACED, opening_e6=ONE_E6))
    affords = _affords(state, goal, tuning)
    if affords >= 1.0 and state.recent.seconds >= tuning.blind_s:
        return _marked(replace(state, drive=goal.bounds()[1], mode=Mode.PACED, opening_e6=ONE_E6))
    if state.mode is Mode.PROBE:
        return _probed(state, affords, goal, tuning)
    if goal.fixed_price and state.recent.spent_nanos > 0:
        return _marked(_throttled(state, came, goal, tuning))
    return _paced(state, goal, tuning)


def _throttled(state: State, came: Step, goal: Goal, tuning: Tuning) -> State:
    """The state with the participation that the plan needs until the next step."""
    each = state.recent.spent_nanos / max(state.recent.open_requests, 1.0)
    expected = each * _next(state, came, replace(tuning, step_s=0))
    now_s, budget = state.seen.now_s, goal.budget_nanos
    plan = planned(goal, now_s, tuning)
    missed = budget * plan - _spend(state, state.seen)
    due = budget * (planned(goal, now_s + came.seconds, tuning) - plan)
    due += missed * min(came.seconds / tuning.catch_up_s, 1.0)
    return replace(state, drive=max(due, 0.0) / expected) if expected > 0 else state


def _affords(state: State, goal: Goal, tuning: Tuning) -> float:
    """The share of all requests until the end that what is left could pay at the highest price; 0
    while prices or traffic are not known.
    """
    if goal.cost_max_nanos <= 0 or state.recent.seconds < tuning.probe_look_s:
        return 0.0
    rest_s = goal.schedule.end_s - state.seen.now_s
    left = max(goal.budget_nanos - _spend(state, state.seen), 0.0)
    rate = state.recent.rate_most(DOUBTED_SAMPLES * tuning.sample)
    return left / (rate * rest_s * goal.cost_max_nanos)


def _probed(state: State, affords: float, goal: Goal, tuning: Tuning) -> State:
    """A cold start: upwards until something is won."""
    window = between(state.mark, state.seen)
    if affords >= tuning.probe_afford:
        opening_e6 = int(min(affords, 1.0) * ONE_E6)
        state = replace(state, drive=goal.bounds()[1], opening_e6=opening_e6)
    won = window.wins > 0 or state.seen.spent_nanos > 0
    spent = state.seen.spent_nanos >= goal.budget_nanos
    looked = state.recent.seconds >= tuning.probe_look_s
    knows = goal.cost_max_nanos <= 0 or looked or spent
    if (won and knows) or state.seen.now_s - state.probe_since_s >= tuning.probe_s:
        return _marked(replace(state, mode=Mode.PACED, opening_e6=ONE_E6))
    if won or affords >= tuning.probe_afford:
        return state  # until it is known what the budget affords, or what a win costs
    if not window.requests and not window.bids:
        return _marked(state)
    if not _has_answer(state, window, tuning):
        return state
    widest_e6 = ONE_E6 if state.recent.bids > 0 else tuning.probe_unseen_e6
    opening_e6 = min(state.opening_e6 * tuning.probe_participation_growth, widest_e6)
    return _marked(replace(state, drive=state.drive * tuning.probe_growth, opening_e6=opening_e6))


def _has_answer(state: State, window: Step, tuning: Tuning) -> bool:
    """Whether it is known that this was too little: bids without a win, or no bid at all."""
    if window.seconds >= tuning.blind_s:
        return True
    if window.bids:
        return window.bids >= tuning.probe_bids and window.seconds >= tuning.window_s
    tried = window.requests * state.control.participation_e6 / ONE_E6
    return tried >= tuning.probe_bids and window.requests > DOUBTED_SAMPLES * tuning.sample


def _paced(state: State, goal: Goal, tuning: Tuning) -> State:
    """The state after its window, when that has ended."""
    window = between(state.mark, state.seen)
    target = _window_target(state, goal, tuning)
    if window.seconds < tuning.window_s or target <= 0:
        return state if target > 0 else _marked(state)
    spend = _spend(state, state.seen) - _spend(state, state.mark)
    ahead = _spend(state, state.seen) > goal.budget_nanos * planned(goal, state.seen.now_s, tuning)
    if ahead and state.open_requests < window.requests:
        # It spent so little because the guard held it back: what would it have spent?
        held = max(state.open_requests / window.requests, HELD_MIN)
        return _moved(state, min(_error(target, spend / held), 0.0), 1.0, tuning)
    certainty = _certainty(state, window, target, spend, goal, tuning)
    if certainty <= 0:
        return state
    if _is_silent(state, window, tuning):  # no traffic says nothing of the price
        return _marked(state)
    return _moved(state, _error(target, spend), certainty, tuning)


def _is_silent(state: State, window: Step, tuning: Tuning) -> bool:
    """Whether there was no traffic, where some would have been seen."""
    if window.requests or window.bids:
        return False
    rate = state.recent.rate()
    return rate == 0 or rate * window.seconds >= DOUBTED_SAMPLES * tuning.sample


def _moved(state: State, error: float, certainty: float, tuning: Tuning) -> State:
    """The state after a window with an error, and the next one begun."""
    drive = state.drive * math.exp(_change(state, error, certainty, tuning))
    return _marked(replace(state, drive=drive, error=error, error_before=state.error))


def _error(target: float, spend: float) -> float:
    """How much of a positive target was missed (1: all) or spent beyond it (-1: as much again)."""
    return min(max((target - spend) / target, -1.0), 1.0)


def _window_target(state: State, goal: Goal, tuning: Tuning) -> float:
    """What the window should have spent of what was left when it began."""
    left = goal.budget_nanos - _spend(state, state.mark)
    before = planned(goal, state.mark.now_s, tuning)
    if before >= 1.0:
        return left
    share = (planned(goal, state.seen.now_s, tuning) - before) / (1.0 - before)
    return left * share


def _certainty(
    state: State, window: Step, target: float, spend: float, goal: Goal, tuning: Tuning
) -> float:
    """How much of the gain a window deserves, below 1; 0 while it says too little."""
    cost = state.recent.win_nanos()
    if cost <= 0:
        return 0.5 if window.seconds >= tuning.blind_s else 0.0
    few = max(goal.budget_nanos / cost * tuning.few_wins_share, 1.0)
    # Far too much is known to be so before the window would have ended.
    due = max(target, spend / 2) / cost
    if due < min(few, tuning.window_wins):
        return 0.0
    return due / (due + min(few, tuning.gain_half_wins))


def _change(state: State, error: float, certainty: float, tuning: Tuning) -> float:
    """The change of the drive's logarithm."""
    if tuning.law is Law.DUAL:
        return tuning.gain * certainty * error
    bend = error - 2 * state.error + state.error_before
    moved = tuning.pid_p * (error - state.error) + tuning.pid_d * bend
    return tuning.pid_i * error + moved


def _marked(state: State) -> State:
    """The state with a new window."""
    return replace(state, mark=state.seen, open_requests=0.0)


def _bounded(state: State, goal: Goal) -> State:
    """The state with its drive in bounds, so that it never has far to come back."""
    least, greatest = goal.bounds()
    lowest = least * PARTICIPATION_E6_MIN / ONE_E6
    return replace(state, drive=min(max(state.drive, lowest), greatest))


# -- what bidders are told -------------------------------------------------------------------------


def _control(state: State, goal: Goal, tuning: Tuning) -> Control:
    """The drive as a multiplier and a participation, the guard on top."""
    least, _ = goal.bounds()
    multiplier_e6 = max(round(max(state.drive, least) * ONE_E6), 1)
    mode = _mode(state, goal, tuning)
    if mode in (Mode.WAITING, Mode.SPENT):
        return Control(multiplier_e6, 0, mode)
    throttle = min(state.drive / least, 1.0) * state.guard
    participation_e6 = min(int(throttle * ONE_E6), state.opening_e6)
    return Control(multiplier_e6, participation_e6 // STEP_E6 * STEP_E6, mode)


def _mode(state: State, goal: Goal, tuning: Tuning) -> Mode:
    now_s = state.seen.now_s
    if not goal.schedule.start_s <= now_s < goal.schedule.end_s:
        return Mode.WAITING
    if state.seen.spent_nanos >= goal.budget_nanos:
        return Mode.SPENT
    if state.mode is Mode.PACED and planned(goal, now_s, tuning) >= 1.0:
        return Mode.FINISH
    return state.mode


def _guard(state: State, came: Step, goal: Goal, tuning: Tuning) -> float:
    """The share of requests, 0 to 1, that cannot spend too much before the next step.

    The next step is taken to be as long as this one, with as many requests, unless its length is
    known.
    """
    budget, doubt_nanos = goal.budget_nanos, goal.budget_nanos * tuning.doubt
    spend = _spend(state, state.seen, doubt_nanos)
    part, whole = goal.schedule.progress(state.seen.now_s + _next_s(came, tuning))
    ahead = max(budget * tuning.lead, state.recent.win_nanos())
    left = (budget - spend) / max(state.recent.spent_share(doubt_nanos), 1e-6)
    allowed = min(budget * (part / whole) + ahead - spend, left)
    most = state.recent.request_nanos(goal.cost_max_nanos) * _next(state, came, tuning)
    if allowed <= 0 or most <= allowed:
        return 1.0 if allowed > 0 else 0.0
    return allowed / most


def _next(state: State, came: Step, tuning: Tuning) -> float:
    """Requests until the next step: as many as in this one, or in the mean of the last hour."""
    seconds = _next_s(came, tuning)
    return max(came.requests * seconds / max(came.seconds, 1), state.recent.rate() * seconds)


def _next_s(came: Step, tuning: Tuning) -> int:
    """Seconds until the next step."""
    return min(came.seconds, tuning.step_s) if tuning.step_s else came.seconds
