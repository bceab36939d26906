"""Durations counted in buckets whose width grows with them: any quantile, known to 1.6 %.

The idea is HdrHistogram's: each power of two is cut in `STEPS` equal buckets. Counts of several
processes or intervals add and subtract, which quantiles of samples never do.
"""

from collections.abc import Sequence
from typing import Final, Self

import numpy as np
import numpy.typing as npt

_STEP_BITS: Final = 6
STEPS: Final = 1 << _STEP_BITS
# Microseconds up to 2^26, a minute: what takes longer counts as that.
_TOP_BITS: Final = 26
BUCKETS: Final = (_TOP_BITS - _STEP_BITS + 1) * STEPS
VALUE_MAX_US: Final = (1 << _TOP_BITS) - 1


def bucket_of(value_us: int) -> int:
    """The bucket of a duration; negative ones are 0."""
    if value_us < STEPS:
        return max(value_us, 0)
    if value_us > VALUE_MAX_US:
        return BUCKETS - 1
    shift = value_us.bit_length() - _STEP_BITS - 1
    return (shift << _STEP_BITS) + (value_us >> shift)


def upper_us(bucket: int) -> int:
    """The longest duration of a bucket."""
    if bucket < 2 * STEPS:
        return bucket
    shift = (bucket >> _STEP_BITS) - 1
    return (((bucket & STEPS - 1) + STEPS + 1) << shift) - 1


_UPPER_US: Final = np.array([upper_us(bucket) for bucket in range(BUCKETS)], np.int64)


class Histogram:
    """Counts by bucket, and the longest duration exactly."""

    __slots__ = ("counts", "max_us")

    def __init__(self, counts: Sequence[int] | None = None, max_us: int = 0) -> None:
        # A list: adding one to it costs a fifth of what it costs in an array.
        self.counts = list(counts) if counts is not None else [0] * BUCKETS
        if len(self.counts) != BUCKETS:
            raise ValueError(f"expected {BUCKETS} counts, got {len(self.counts)}")
        self.max_us = max_us

    def add(self, value_us: int) -> None:
        """One duration."""
        self.counts[bucket_of(value_us)] += 1
        if value_us > self.max_us:
            self.max_us = value_us

    def array(self) -> npt.NDArray[np.int64]:
        """Counts, shape (BUCKETS,)."""
        return np.array(self.counts, np.int64)

    def plus(self, other: Self) -> "Histogram":
        """Both together."""
        total = self.array() + other.array()
        return Histogram(total.tolist(), max(self.max_us, other.max_us))

    def since(self, earlier: Self) -> "Histogram":
        """What came after an earlier copy; its maximum is known to the bucket only."""
        fresh = self.array() - earlier.array()
        seen = np.flatnonzero(fresh)
        most = int(_UPPER_US[seen[-1]]) if len(seen) else 0
        return Histogram(fresh.tolist(), min(most, self.max_us))

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile_ms(self, share: float) -> float:
        """The duration within which this share of all stayed; 0 when there are none.

        The upper end of the bucket, never above the longest: a latency is never flattered.
        """
        bounds = np.cumsum(self.array())
        if not bounds[-1]:
            return 0.0
        rank = min(max(int(np.ceil(share * bounds[-1])), 1), int(bounds[-1]))
        bucket = int(np.searchsorted(bounds, rank))
        return min(int(_UPPER_US[bucket]), self.max_us) / 1000.0
