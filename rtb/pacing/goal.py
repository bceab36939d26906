"""What a line item wants, what its bidders are told, and the numbers of the law between them."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from rtb.pacing.schedule import ONE_E6, Schedule


class Mode(IntEnum):
    """What the controller is doing. Numbers are stored: they never change."""

    WAITING = 0  # outside of the period
    PROBE = 1  # looking for the price at which anything is won
    PACED = 2
    FINISH = 3  # the plan has been reached: what is left goes as fast as value allows
    SPENT = 4  # the budget is gone


class Law(IntEnum):
    """How an error becomes a change of the multiplier."""

    DUAL = 1
    PID = 2  # incremental, so it cannot wind up and may be switched to at any moment


@dataclass(frozen=True, slots=True)
class Tuning:
    """Every number of the controller, with its reason."""

    law: Law = Law.DUAL
    # A window that misses its target altogether changes the bid by a third at most.
    gain: float = 0.3
    # A window ends when its target is worth so many wins; at `gain_half_wins` the gain is half of
    # it: below, chance is larger than the error. A budget of few wins may not wait for many: for
    # it both are this share of its wins, and one at least.
    window_wins: float = 4.0
    gain_half_wins: float = 16.0
    few_wins_share: float = 0.01
    # It does not end before so many seconds, in which most notices come in.
    window_s: int = 20
    # Without any cost known, a window is as long as it takes bids to be answered.
    blind_s: int = 60
    # PID on the same error, per window.
    pid_p: float = 0.2
    pid_i: float = 0.1
    pid_d: float = 0.05
    # A cold start: one bid in a hundred at a tenth of the value; upwards after so many bids or
    # `blind_s` without a win, for a quarter of an hour at most.
    probe_multiplier_e6: int = 100_000
    probe_participation_e6: int = 10_000
    probe_participation_growth: int = 4
    # Who could pay the highest price for so large a share of all requests has nothing to look for:
    # the full value, on that share, is never ahead of the plan. Traffic is believed after a while.
    probe_afford: float = 0.1
    probe_look_s: int = 5
    # Before a first bid was seen the guard knows no cost: then one request in six is the most.
    probe_unseen_e6: int = 160_000
    probe_growth: float = 1.3
    probe_bids: int = 20
    probe_s: int = 900
    # The plan is done when this share of the schedule is: the rest makes good what was missed.
    finish: float = 0.99
    # Where participation steers, what was missed is made good in so many seconds.
    catch_up_s: int = 600
    # How far spend may run ahead of the schedule, as a share of the budget: the promised error.
    lead: float = 0.02
    # Reservations, as a share of the budget, that the guard takes for spent until it knows better.
    doubt: float = 0.01
    # Requests are counted one in so many: before three were seen, none may be chance.
    sample: int = 1
    # The next step comes after so many seconds; 0: as many as the last.
    step_s: int = 0
    # After such a gap the window says nothing of the multiplier; nor do clocks so far apart.
    gap_s: int = 900


DEFAULT: Final = Tuning()


@dataclass(frozen=True, slots=True)
class Goal:
    """What a line item wants of one period.

    multiplier_max_e6: 1,000,000 bids the value as it is; nobody is made to bid more.
    fixed_price: the price may not move (a deal at a fixed price): participation steers.
    cost_max_nanos: what no bid is above, of which the guard is sure before it has seen one; 0: not
        known.
    """

    budget_nanos: int
    schedule: Schedule
    multiplier_min_e6: int = 10_000
    multiplier_max_e6: int = ONE_E6
    fixed_price: bool = False
    cost_max_nanos: int = 0

    def bounds(self) -> tuple[float, float]:
        """Least and greatest multiplier; 0 < least <= greatest."""
        if self.fixed_price:
            return 1.0, 1.0
        least = max(self.multiplier_min_e6, 1) / ONE_E6
        return least, max(self.multiplier_max_e6 / ONE_E6, least)


@dataclass(frozen=True, slots=True)
class Control:
    """What bidders do until the next step.

    multiplier_e6: of the value, in millionths. participation_e6: millionths of eligible requests
    that are bid on.
    """

    multiplier_e6: int
    participation_e6: int
    mode: Mode


def planned(goal: Goal, time_s: int, tuning: Tuning = DEFAULT) -> float:
    """The share of the budget that the controller aims at: the schedule, done a little earlier."""
    part, whole = goal.schedule.progress(time_s)
    return min(part / whole / tuning.finish, 1.0)


def tightest(first: Control, second: Control) -> Control:
    """What both budgets of a line item allow."""
    return Control(
        min(first.multiplier_e6, second.multiplier_e6),
        min(first.participation_e6, second.participation_e6),
        first.mode if first.participation_e6 <= second.participation_e6 else second.mode,
    )
