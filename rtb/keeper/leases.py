"""How much to lend to whom: what workers spend lately, and what they were refused.

Each worker is lent a few impressions of every line item ahead, at the most that one may cost, so
that the first request is not answered in vain. From then on a lease is enough for `lease_ms` of a
worker's spending and is renewed when half of it is left, so steady spending never waits. A worker
that was refused says what it wanted, and gets that; if it comes back before the lease is old, twice
as much as before. Nobody gets more than a share of what is left, so the last of a budget goes out
in small pieces, and one impression to one worker.

Money and impressions of a lease fit together. Whoever has money but no impressions, or the other
way round, keeps one of them from all others and can do nothing with it. So where impressions are
scarce no more money goes with them than they can cost, and no more of them than it can pay for; and
what does not make one impression is not lent at all.

A lease is not taken from a worker for being slow, but when somebody else wants the money and the
budget has no more: then those that are older than `idle_ms`, and unused for as long, are closed.
So a budget of one impression is always with someone, and moves to where the traffic is.

Integers throughout. Arrays are (workers, slots).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from rtb.base.money import ceil_div
from rtb.stores.board_money import GRANTED_MAX, MoneyBoard

_MICRO: Final = 1_000_000
_ALL: Final = slice(None)
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """Times and shares, each with its reason.

    lease_ms       2,000: of spending; what a killed worker keeps from others until its next start
    renew_percent  50: a second of spending is left when the next lease is asked for, and a turn of
                   the keeper takes a tenth of that
    parts          2: of the money that is left a lease is at most one in (this x workers), so that
                   what others spend sooner is not with this one. Impressions are counted and often
                   few: of them it is one in `workers`, rounded up, or the last ones would go out
                   one by one
    idle_ms        500: a lease that was not used for so long is given to whoever is refused while
                   the budget has no more; ten turns, so that it is not a pause between two bids
    rate_ms        1,000: over which spending is averaged
    hunger_ms      1,000: a refusal that is older is not waited upon any more
    silence_ms     1,000: a worker that has not answered for so long may be dead
    first_units    64: impressions that are lent ahead, of what the budget's share allows: at a
                   thousand requests a second enough until a turn has seen what is spent. A slow
                   spender is renewed to half of them: two seconds of its own would be a few
                   impressions, and a grant, its row and its words on the board for each few bids
    ample_units    4,096: lent ahead instead, as far as all who may be lent so much of a budget have
                   together no more than one in `ample_parts` of what is left
    ample_parts    1,000: who has a large budget, or none, loses nothing of a first burst, and no
                   other misses so small a part
    grants_max     2,000: in one batch, so that a thousand hungry line items do not hold up records
    """

    lease_ms: int = 2_000
    renew_percent: int = 50
    parts: int = 2
    idle_ms: int = 500
    rate_ms: int = 1_000
    hunger_ms: int = 1_000
    silence_ms: int = 1_000
    first_units: int = 64
    ample_units: int = 4_096
    ample_parts: int = 1_000
    grants_max: int = 2_000


class Need(NamedTuple):
    """One worker and line item: nanos and units that it has left, spends, wanted, and had last.

    rate: nanos a ms; rate_units: millionths of a unit a ms
    refused: it could not bid for `wanted` nanos; quick: it used up its last lease early
    """

    left: int
    left_units: int
    rate: int
    rate_units: int
    refused: bool
    wanted: int
    quick: bool
    last: int
    last_units: int


class Lent(NamedTuple):
    """Nanos and units to lend."""

    nanos: int
    units: int


def can_serve(need: Need, room: Lent) -> bool:
    """Would what is left in the budget make one more impression for this worker?"""
    return need.left + room.nanos >= _cost(need) and need.left_units + room.units >= 1


def ahead(need: Need, room: Lent, borrowers: int, limits: Limits) -> Need:
    """The need of a worker that has not asked yet: more, where the budget has plenty.

    borrowers: workers times line items that may be lent of it ahead
    """
    cost, parts = max(_cost(need), 1), limits.ample_parts * max(borrowers, 1)
    units = min(limits.ample_units, room.units // parts, room.nanos // (parts * cost)) // 2
    if units <= need.last_units:
        return need
    return need._replace(last=units * cost, last_units=units)


def least(need: Need) -> int:
    """Nanos without which a lease makes no impression."""
    return max(_cost(need) - need.left, 0)


def _cost(need: Need) -> int:
    """Nanos of one impression: what was wanted, or what one cost lately."""
    if need.refused:
        return need.wanted
    lately = need.rate * _MICRO // need.rate_units if need.rate_units else 0
    return max(lately or need.last // max(need.last_units, 1), 1)


def lend(need: Need, room: Lent, workers: int, limits: Limits) -> Lent | None:
    """What to lend; None where there is no need, or too little for an impression.

    room: money and units that the budget has left; workers: that may want some of it.
    """
    if not can_serve(need, room):
        return None
    cost, workers = max(_cost(need), 1), max(workers, 1)
    again = 2 if need.refused and need.quick else 0
    few, few_nanos = _few(need, limits)
    aim_units = max(need.rate_units * limits.lease_ms // _MICRO, again * need.last_units, few)
    units = _one(need.left_units, aim_units, 1, room.units, ceil_div(room.units, workers))
    held = need.left_units + max(units, 0)
    scarce = held < aim_units
    aim = max(need.rate * limits.lease_ms, again * need.last, few_nanos)
    aim = min(aim, held * cost) if scarce else aim
    share = room.nanos // (limits.parts * workers)
    nanos = max(_one(need.left, aim, _cost(need), room.nanos, share), 0)
    if need.left + nanos < aim:  # in whole impressions: a rest would be of use to nobody
        nanos = max((need.left + nanos) // cost * cost - need.left, least(need), 0)
    if scarce:
        units = min(units, max((need.left + nanos) // cost, 1) - need.left_units)
    units = max(units, 0)
    return Lent(nanos, units) if nanos or units else None


def _few(need: Need, limits: Limits) -> tuple[int, int]:
    """Units that are lent to whoever spends at all, and nanos at what a unit cost lately."""
    if not need.rate_units:
        return 0, 0
    units = limits.first_units // 2
    return units, units * need.rate * _MICRO // need.rate_units


def _one(left: int, target: int, least: int, room: int, share: int) -> int:
    """How much to add to what is left: up to the target, at most a share, at least one bid's."""
    return min(max(min(target - left, share), least - left), room)


class Demand:
    """What the board told of each worker and line item, from turn to turn."""

    def __init__(self, board: MoneyBoard, limits: Limits) -> None:
        self._board = board
        self._limits = limits
        shape = board.taken.shape
        self._taken, self._taken_units = board.taken.copy(), board.taken_units.copy()
        self._refusals, self._served = board.refusals.copy(), board.refusals.copy()
        self._rate, self._rate_units = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._last, self._last_units = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._lent_ms, self._used_ms = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._refused_ms = np.zeros(shape, np.int64)
        self._seen_ms = 0
        self._ahead = np.zeros(shape, np.int64)  # nanos of one impression, to be lent ahead

    def expect(self, workers: slice, slots: list[int], nanos: list[int]) -> None:
        """Nobody has bid yet, but may; nanos: the most that an impression of each slot costs."""
        self._ahead[workers, slots] = nanos

    def expected(self, worker: int, slot: int) -> bool:
        """Whether what a worker needs of a slot is not asked for yet."""
        at = (worker, slot)
        return bool(self._ahead[at] > 0 and self._refusals[at] == self._served[at])

    def let_go(self, worker: int, slot: int) -> None:
        """Lends nothing ahead."""
        self._ahead[worker, slot] = 0

    def all_ahead(self, worker: int) -> bool:
        """Whether a worker has all that it is to be lent before it asks."""
        return not self._ahead[worker].any()

    def observe(self, now_ms: int) -> None:
        """Looks at what was taken and refused since the last time."""
        board, limits = self._board, self._limits
        elapsed = min(max(now_ms - self._seen_ms, 1), limits.rate_ms)
        taken, units = board.taken.copy(), board.taken_units.copy()
        new_units = np.maximum(units - self._taken_units, 0)  # a start counts from 0
        new = np.maximum(taken - self._taken, 0)
        self._rate += (new // elapsed - self._rate) * elapsed // limits.rate_ms
        rate_units = new_units * _MICRO // elapsed
        self._rate_units += (rate_units - self._rate_units) * elapsed // limits.rate_ms
        self._rate, self._rate_units = np.maximum(self._rate, 0), np.maximum(self._rate_units, 0)
        self._used_ms[new_units > 0] = now_ms
        refusals = board.refusals.copy()
        self._refused_ms[refusals != self._refusals] = now_ms
        self._taken, self._taken_units, self._refusals = taken, units, refusals
        self._seen_ms = now_ms

    def hungry(self, now_ms: int) -> list[tuple[int, int, Need]]:
        """(worker, slot, need) of those that were refused, or will soon have spent what they
        have."""
        limits = self._limits
        refused = (self._refusals != self._served) & (now_ms - self._refused_ms <= limits.hunger_ms)
        ahead = limits.lease_ms * limits.renew_percent // 100
        left, left_units = self._left()
        low = (self._rate > 0) & (left < self._rate * ahead)
        few = (self._rate_units > 0) & (left_units < self._rate_units * ahead // _MICRO)
        at = np.nonzero(refused | low | few | (self._ahead > 0))
        needs = self._needs(at, left[at], left_units[at], now_ms)
        return list(zip(at[0].tolist(), at[1].tolist(), needs, strict=True))

    def _needs(
        self, at: tuple[npt.NDArray[np.intp], ...], left: Words, left_units: Words, now_ms: int
    ) -> Iterator[Need]:
        """What workers need for line items; at: (workers, slots)."""
        ahead, waits = self._ahead[at], self._refusals[at] != self._served[at]
        expected = (ahead > 0) & ~waits
        units = self._limits.first_units // 2
        columns = (
            left,
            left_units,
            np.where(expected, 0, self._rate[at]),
            np.where(expected, 0, self._rate_units[at]),
            expected | waits,
            np.where(expected, ahead, self._board.wanted[at]),
            expected | (now_ms - self._lent_ms[at] <= self._limits.lease_ms),
            np.where(expected, units * ahead, self._last[at]),
            np.where(expected, units, self._last_units[at]),
        )
        return map(Need, *(one.tolist() for one in columns))

    def lent(self, worker: int, slot: int, lent: Lent, now_ms: int) -> None:
        """Takes note of a lease; what was refused before has been answered."""
        at = (worker, slot)
        self._served[at] = self._refusals[at]
        self._ahead[at] = 0
        self._last[at], self._last_units[at] = lent
        self._lent_ms[at] = now_ms

    def forget(self, worker: int, slots: Mask) -> None:
        """After a lease has ended; what was refused meanwhile still waits."""
        for array in (self._last, self._last_units, self._lent_ms):
            array[worker, slots] = 0

    def begin(self, worker: int) -> None:
        """A new process wants nothing yet."""
        self._served[worker] = self._refusals[worker]
        self._rate[worker] = self._rate_units[worker] = 0

    def idle(self, slots: list[int], now_ms: int) -> Mask:
        """Which leases on these slots have something left that nobody has used lately."""
        found: Mask = np.zeros(self._taken.shape, np.bool_)
        lent_ms, used_ms = self._lent_ms[:, slots], self._used_ms[:, slots]
        # A clock that was set back says nothing of how long ago it was: then it was long ago.
        old = np.abs(now_ms - np.maximum(lent_ms, used_ms)) >= self._limits.idle_ms
        left, left_units = self._left(slots)
        some = (left > 0) | (left_units > 0)
        found[:, slots] = old & some & (self._board.until_ms[:, slots] > 0)
        return found

    def left_on(self, slot: int) -> Lent:
        """What all workers together still have of a line item."""
        left, left_units = self._left(slot)
        return Lent(int(left.sum()), int(left_units.sum()))

    def _left(self, slots: int | list[int] | slice = _ALL) -> tuple[Words, Words]:
        """Nanos and units that each worker has of some line items."""
        board, at = self._board, (slice(None), slots)
        return board.granted[at] - self._taken[at], board.granted_units[at] - self._taken_units[at]


def has_headroom(granted: int, lent: Lent) -> bool:
    """Cumulative words have an end; a line item that comes near it waits for the next start."""
    return granted + lent.nanos <= GRANTED_MAX
