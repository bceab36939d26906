"""Latency histograms: buckets are tight, merging is exact, quantiles never flatter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtb.sim.histogram import BUCKETS, VALUE_MAX_US, Histogram, bucket_of, upper_us

durations = st.integers(0, VALUE_MAX_US)


@given(durations)
def test_a_bucket_holds_its_durations(value_us: int) -> None:
    """A duration lies in its bucket, whose end is at most 1.6 % above it."""
    bucket = bucket_of(value_us)

    assert 0 <= bucket < BUCKETS
    assert value_us <= upper_us(bucket) <= value_us * (1 + 1 / 64)
    assert bucket == 0 or upper_us(bucket - 1) < value_us


@pytest.mark.parametrize(("value_us", "bucket"), [(-5, 0), (VALUE_MAX_US + 1, BUCKETS - 1)])
def test_impossible_durations_have_a_bucket(value_us: int, bucket: int) -> None:
    """What is below nothing or above a minute goes to the ends."""
    assert bucket == bucket_of(value_us)


@given(st.lists(durations, min_size=1), st.floats(0.0, 1.0))
def test_quantiles_are_never_below_the_truth(values: list[int], share: float) -> None:
    """A quantile is at least that of the samples, at most a bucket more."""
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    rank = max(1, -(-len(values) * share // 1))
    true_us = sorted(values)[min(int(rank), len(values)) - 1]

    assert true_us <= histogram.quantile_ms(share) * 1000 + 1e-6
    assert histogram.quantile_ms(share) * 1000 <= min(true_us * 1.016 + 1, max(values)) + 1e-6


@given(st.lists(durations), st.lists(durations))
def test_sums_and_differences(first: list[int], second: list[int]) -> None:
    """Two histograms together are the histogram of both; less the first it is the second."""
    one, both = Histogram(), Histogram()
    for value in first:
        one.add(value)
    for value in first + second:
        both.add(value)
    other = both.since(one)

    assert sum(one.plus(other).counts) == len(first) + len(second)
    assert both.counts == one.plus(other).counts
    assert len(second) == other.count


def test_an_empty_histogram_has_no_latency() -> None:
    """Nothing measured is shown as 0."""
    assert 0.0 == Histogram().quantile_ms(0.99)


def test_counts_must_fit() -> None:
    """Counts of another layout are refused."""
    with pytest.raises(ValueError, match="counts"):
        Histogram([1, 2, 3])
