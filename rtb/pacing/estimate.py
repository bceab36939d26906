"""What a line item's own counts say: what a win costs, and how much pending money will be spent.

Bids are reserved in full and most of them lose, so neither "pending is spent" nor "pending is free"
is near the truth. The ratio of spend to reservations, fading over an hour, is: late notices bias it
only by the share of the hour that they are late.
"""

from dataclasses import dataclass
from typing import Final

# Prices and win rates of the last hour count; longer, and a change of the market is seen late.
HALF_LIFE_S: Final = 3600
# So many requests have to be seen until what most of them cost is believed.
DOUBTED_REQUESTS: Final = 10


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of one line item at a moment.

    spent_nanos:    posted in this period
    pending_nanos:  reserved now, for bids of which the end is not known
    The rest only grows, from any start: reserved_nanos (of all bids ever made), bids, wins and
    requests_eligible (requests that the line item could have bid on, throttled or not).
    """

    now_s: int
    spent_nanos: int = 0
    pending_nanos: int = 0
    reserved_nanos: int = 0
    bids: int = 0
    wins: int = 0
    requests_eligible: int = 0


def together(one: Observed, other: Observed) -> Observed:
    """What two nodes have seen of one budget, at the moment of the first."""
    return Observed(
        one.now_s,
        one.spent_nanos + other.spent_nanos,
        one.pending_nanos + other.pending_nanos,
        one.reserved_nanos + other.reserved_nanos,
        one.bids + other.bids,
        one.wins + other.wins,
        one.requests_eligible + other.requests_eligible,
    )


@dataclass(frozen=True, slots=True)
class Step:
    """What came between two observations; nothing is negative."""

    seconds: int
    spent_nanos: int
    reserved_nanos: int
    bids: int
    wins: int
    requests: int


def between(before: Observed, after: Observed) -> Step:
    """The difference; a count that fell back (a restart, a correction) counts as standing still."""
    return Step(
        seconds=max(after.now_s - before.now_s, 0),
        spent_nanos=max(after.spent_nanos - before.spent_nanos, 0),
        reserved_nanos=max(after.reserved_nanos - before.reserved_nanos, 0),
        bids=max(after.bids - before.bids, 0),
        wins=max(after.wins - before.wins, 0),
        requests=max(after.requests_eligible - before.requests_eligible, 0),
    )


@dataclass(frozen=True, slots=True)
class Recent:
    """Faded sums. `open_requests` are those of `requests` that the throttle let through.

    peak: the greatest share of them in one step that were bid on, fading as slowly. A multiplier
        that crosses a floor bids on nothing and then on all: the mean would be a surprise.
    """

    spent_nanos: float = 0.0
    reserved_nanos: float = 0.0
    bids: float = 0.0
    wins: float = 0.0
    open_requests: float = 0.0
    requests: float = 0.0
    seconds: float = 0.0
    peak: float = 0.0

    def faded(self, seconds: int) -> "Recent":
        """The sums after some time of which nothing is known."""
        fade = 0.5 ** (seconds / HALF_LIFE_S)
        return Recent(
            spent_nanos=self.spent_nanos * fade,
            reserved_nanos=self.reserved_nanos * fade,
            bids=self.bids * fade,
            wins=self.wins * fade,
            open_requests=self.open_requests * fade,
            requests=self.requests * fade,
            seconds=self.seconds * fade,
            peak=self.peak * fade,
        )

    def after(self, step: Step, participation_e6: int) -> "Recent":
        """The sums with one more step, made at a participation."""
        fade = 0.5 ** (step.seconds / HALF_LIFE_S)
        expected = max(step.requests, self.rate() * step.seconds) * participation_e6 / 1e6
        share = step.bids / max(expected, step.bids) if step.bids >= DOUBTED_REQUESTS else 0.0
        return Recent(
            spent_nanos=self.spent_nanos * fade + step.spent_nanos,
            reserved_nanos=self.reserved_nanos * fade + step.reserved_nanos,
            bids=self.bids * fade + step.bids,
            wins=self.wins * fade + step.wins,
            open_requests=self.open_requests * fade + step.requests * participation_e6 / 1e6,
            requests=self.requests * fade + step.requests,
            seconds=self.seconds * fade + step.seconds,
            peak=max(self.peak * fade, share),
        )

    def rate(self) -> float:
        """Eligible requests a second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    def rate_most(self, doubted: int) -> float:
        """The same, if so many requests more than were seen are only chance; never 0."""
        return (self.requests + doubted) / max(self.seconds, 1.0)

    def win_nanos(self) -> float:
        """What a win costs, or a bid while nothing was won; 0 when unknown."""
        if self.wins > 0 and self.spent_nanos > 0:
            return self.spent_nanos / self.wins
        return self.reserved_nanos / self.bids if self.bids > 0 else 0.0

    def request_nanos(self, cost_max_nanos: int = 0) -> float:
        """What is reserved at most for an eligible request when nothing is throttled.

        Some more requests are assumed, all of them bid on: a few without a bid may be chance.
        cost_max_nanos: what a bid is taken to cost before any was seen.
        """
        cost = self.reserved_nanos / self.bids if self.bids > 0 else cost_max_nanos
        assumed = cost * DOUBTED_REQUESTS
        mean = (self.reserved_nanos + assumed) / (self.open_requests + DOUBTED_REQUESTS)
        return max(mean, cost * self.peak)

    def spent_share(self, doubt_nanos: float = 0.0) -> float:
        """The share of reserved money that is spent in the end, 0 to 1.

        doubt_nanos: reservations of which we assume that all were spent, beside the known ones.
        """
        reserved = self.reserved_nanos + doubt_nanos
        return min((self.spent_nanos + doubt_nanos) / reserved, 1.0) if reserved > 0 else 0.0


NOTHING: Final = Recent()
