"""The traffic curve: how many requests an hour of the week brings, learned from those that came.

Habits follow the clock on the wall, so a slot is an hour of the week in the advertiser's zone;
`slots` says which slot each hour of a period is. Each slot keeps its requests and the seconds in
which they were counted, both fading with the seconds that are added, so a curve is 336 numbers for
ever. What a slot does not know it takes from the prior, scaled to the level of what was counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from rtb.base.errors import InvariantError

SLOTS: Final = 168
HOUR_S: Final = 3600
# Weights of a schedule are integers: requests an hour, in thousandths, for lines with few of them.
WEIGHT_SCALE: Final = 1000
# No slot counts more than this: a counter that ran wild stays a number that can be added.
REQUESTS_MAX: Final = 10**15
FLAT: Final = (1.0,) * SLOTS
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Learning:
    """How a curve learns.

    half_life_s: seconds counted in a slot after which what it knew is worth half: three weeks of
        one hour, so a season is followed and one odd week is not.
    prior_s: seconds that the prior is worth: a fifth of what one week tells.
    """

    half_life_s: int = 3 * HOUR_S
    prior_s: int = HOUR_S // 4


@dataclass(frozen=True, slots=True)
class Curve:
    """Faded counts of each slot.

    Shapes: three tuples of SLOTS floats; prior in any unit, its level does not matter.
    """

    requests: tuple[float, ...] = (0.0,) * SLOTS
    seconds: tuple[float, ...] = (0.0,) * SLOTS
    prior: tuple[float, ...] = FLAT


def with_prior(shape: Sequence[float]) -> Curve:
    """A curve that knows nothing yet but what the traffic of others looks like.

    Raises: InvariantError unless there are SLOTS finite numbers, none negative, some positive.
    """
    known = tuple(float(value) for value in shape)
    sound = len(known) == SLOTS and all(0 <= value < float("inf") for value in known)
    if not sound or not 0 < sum(known) < float("inf"):
        raise InvariantError(f"a prior of {len(known)} slots is no curve - at `curve.prior`")
    return Curve(prior=known)


def observe(
    curve: Curve, slot: int, requests: int, seconds: int, learning: Learning = Learning()
) -> Curve:
    """The curve after `requests` were counted in `seconds` of a slot; no time says nothing."""
    if seconds <= 0:
        return curve
    fade = 0.5 ** (seconds / learning.half_life_s)
    counted, lasted = list(curve.requests), list(curve.seconds)
    counted[slot] = counted[slot] * fade + min(max(requests, 0), REQUESTS_MAX)
    lasted[slot] = lasted[slot] * fade + seconds
    return replace(curve, requests=tuple(counted), seconds=tuple(lasted))


def weights(curve: Curve, learning: Learning = Learning()) -> tuple[int, ...]:
    """Expected requests an hour of each slot, times WEIGHT_SCALE: what `Schedule.traffic` takes.

    Before anything was counted these are the shares of the prior.
    """
    fitted = sum(p * s for p, s in zip(curve.prior, curve.seconds, strict=True))
    level = sum(curve.requests) / fitted if fitted > 0 else 1.0 / sum(curve.prior)
    known = zip(curve.requests, curve.seconds, curve.prior, strict=True)
    per_second = [
        (counted + level * prior * learning.prior_s) / (lasted + learning.prior_s)
        for counted, lasted, prior in known
    ]
    return tuple(round(rate * HOUR_S * WEIGHT_SCALE) for rate in per_second)


def slots(start_s: int, end_s: int, zone: ZoneInfo) -> list[int]:
    """The slot of each hour from `start_s` on, as its first moment lies; Monday 00:00 is slot 0."""
    found = []
    for time_s in range(start_s, end_s, HOUR_S):
        local = (_EPOCH + timedelta(seconds=time_s)).astimezone(zone)
        found.append(local.weekday() * 24 + local.hour)
    return found


def traffic_of(
    curve: Curve, start_s: int, end_s: int, zone: ZoneInfo, learning: Learning = Learning()
) -> tuple[int, ...]:
    """The forecast of a period, hour by hour: `Schedule.traffic` with intervals of an hour."""
    expected = weights(curve, learning)
    return tuple(expected[slot] for slot in slots(start_s, end_s, zone))


def share_e6(curve: Curve, slot: int, learning: Learning = Learning()) -> int:
    """The share of a week's requests that is expected in a slot, in millionths, rounded down."""
    expected = weights(curve, learning)
    return expected[slot] * 1_000_000 // max(sum(expected), 1)
