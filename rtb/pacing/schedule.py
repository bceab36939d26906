"""Targets: how much of a budget should be spent by a moment of its period.

A period is [start, end) in epoch seconds. Whoever knows the advertiser's calendar gives the bounds,
so a day of 23 or 25 hours is a period like any other. A target is an exact fraction of integers: it
never falls, begins with nothing, and is the whole budget at the end, to the nano.

    EVEN    by the clock
    AHEAD   by the clock, faster at first: the rate falls in a line from `ahead` to 2 - `ahead`
    ASAP    everything at once
    CURVE   by the traffic that is expected in each interval
"""

from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate
from typing import Final

from rtb.base.errors import ConfigError, InvariantError
from rtb.base.money import ceil_div

ONE_E6: Final = 1_000_000
# A quarter more than by the clock at half time.
AHEAD_E6: Final = 1_500_000
AHEAD_E6_MAX: Final = 2_000_000  # beyond it the target would have to fall before the end
HOUR_S: Final = 3600
# Five years of hours: a flight is not longer, and a schedule is kept for every line item.
INTERVALS_MAX: Final = 5 * 366 * 24


class Shape(IntEnum):
    """What the target follows. Numbers are stored: they never change."""

    EVEN = 1
    AHEAD = 2
    ASAP = 3
    CURVE = 4


@dataclass(frozen=True, slots=True)
class Schedule:
    """The target of one period.

    ahead_e6:   how many times the even rate AHEAD begins with, 1,000,000 to AHEAD_E6_MAX
    traffic:    for CURVE: expected requests of each interval of `interval_s` from the start on, in
                any unit; the last interval counts as far as it lies in the period. Nothing but
                zeros is no forecast: then EVEN.
    Raises:     ConfigError for a factor out of bounds; InvariantError for a forecast that does not
                cover the period, has a negative interval or too many.
    """

    start_s: int
    end_s: int
    shape: Shape = Shape.EVEN
    ahead_e6: int = AHEAD_E6
    traffic: tuple[int, ...] = ()
    interval_s: int = HOUR_S
    _sums: tuple[int, ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        if not ONE_E6 <= self.ahead_e6 <= AHEAD_E6_MAX:
            raise ConfigError(f"ahead must be 1 to 2, got {self.ahead_e6} e-6 - at `pacing.ahead`")
        if self.shape is Shape.CURVE:
            object.__setattr__(self, "_sums", self._summed())

    def _summed(self) -> tuple[int, ...]:
        """Traffic times seconds before each interval, and of the whole period at the end."""
        length_s = max(self.end_s - self.start_s, 0)
        needed = ceil_div(length_s, self.interval_s) if self.interval_s > 0 else INTERVALS_MAX + 1
        if not needed <= len(self.traffic) <= INTERVALS_MAX or min(self.traffic, default=0) < 0:
            raise InvariantError(
                f"a forecast of {len(self.traffic)} intervals for a period of {length_s} s"
                " - at `schedule.traffic`"
            )
        weighed = [weight * self.interval_s for weight in self.traffic[:needed]]
        if weighed:
            weighed[-1] = self.traffic[needed - 1] * (length_s - (needed - 1) * self.interval_s)
        return tuple(accumulate(weighed, initial=0))

    def progress(self, time_s: int) -> tuple[int, int]:
        """The share of the budget that should be spent at a moment, as numerator, denominator."""
        if time_s < self.start_s:
            return 0, 1
        if time_s >= self.end_s or self.shape is Shape.ASAP:
            return 1, 1
        spent_s, length_s = time_s - self.start_s, self.end_s - self.start_s
        if self.shape is Shape.AHEAD:
            slope = self.ahead_e6 - ONE_E6
            part = self.ahead_e6 * spent_s * length_s - slope * spent_s * spent_s
            return part, ONE_E6 * length_s * length_s
        if self.shape is Shape.CURVE and self._sums[-1]:
            index, rest_s = divmod(spent_s, self.interval_s)
            return self._sums[index] + self.traffic[index] * rest_s, self._sums[-1]
        return spent_s, length_s

    def target_nanos(self, budget_nanos: int, time_s: int) -> int:
        """What should be spent of a budget at a moment, rounded down."""
        part, whole = self.progress(time_s)
        return max(budget_nanos, 0) * part // whole


def pacing_error_e6(spent_nanos: int, target_nanos: int, budget_nanos: int) -> int:
    """How far spend is from its target, in millionths of the budget, rounded up.

    Without a budget any spend at all is an error of one.
    """
    distance = abs(spent_nanos - target_nanos)
    if budget_nanos <= 0:
        return ONE_E6 if distance else 0
    return ceil_div(distance * ONE_E6, budget_nanos)
