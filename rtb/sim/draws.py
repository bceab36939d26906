"""Chance, drawn from seeds: the same seed gives the same world on every machine and day.

`random.Random` is Python's Mersenne twister, whose stream is the same in every version; numpy draws
tables of people, where one number at a time would be slow.
"""

from bisect import bisect
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from random import Random
from typing import Final, Generic, TypeVar

from rtb.base.hashing import mix64

T = TypeVar("T")

_UNIT: Final = 1.0 / (1 << 64)


class Weighted(Generic[T]):
    """Values with shares that add up to 1."""

    __slots__ = ("_bounds", "_possible", "shares", "values")

    def __init__(self, values: Iterable[T], weights: Iterable[float]) -> None:
        self.values: Sequence[T] = list(values)
        found = list(weights)
        total = sum(found)
        if len(found) != len(self.values) or total <= 0:
            raise ValueError(f"{len(self.values)} values, {len(found)} weights of {total}")
        self.shares = [weight / total for weight in found]
        self._bounds = list(accumulate(self.shares))
        self._bounds[-1] = 1.0
        self._possible = sum(share > 0 for share in self.shares)

    def pick(self, random: Random) -> T:
        """One value."""
        return self.values[bisect(self._bounds, random.random())]

    def several(self, random: Random, count: int) -> list[T]:
        """`count` different values, or all of them when there are fewer, in the order drawn."""
        found: dict[int, None] = {}
        wanted = min(count, self._possible)
        while len(found) < wanted:
            found[bisect(self._bounds, random.random())] = None
        return [self.values[number] for number in found]

    def shuffled(self, random: Random) -> list[T]:
        """All values in random order, those of greater weight rather first."""
        keys = [
            (-random.expovariate(1.0) / share if share else float("-inf"), number)
            for number, share in enumerate(self.shares)
        ]
        return [self.values[number] for _, number in sorted(keys, reverse=True)]

    def share(self, chosen: Callable[[T], bool]) -> float:
        """How much of the traffic the chosen values make up."""
        return sum(
            share for value, share in zip(self.values, self.shares, strict=True) if chosen(value)
        )


def zipf(count: int, exponent: float, shift: float = 1.0) -> list[float]:
    """Weights of ranks: `1 / (rank + shift) ** exponent`, the head of every popularity list."""
    return [(rank + shift) ** -exponent for rank in range(count)]


def unit(seed: int, number: int) -> float:
    """A number in [0, 1) that belongs to (seed, number)."""
    return mix64(mix64(seed) ^ number * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) * _UNIT
