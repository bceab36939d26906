"""Events made part of what we know of a person: (record, events) -> record. Pure.

Impressions are counted for frequency caps. The rules:

1. A bid's impression counts once. The record remembers the bids it has counted; a duplicate of one
   that it no longer remembers counts again, for a cap that holds too early is the lesser fault.
2. An impression whose bid is older than that memory is not counted; the books do not take it
   either.
3. A window begins with the first impression that no window holds, and ends its length later. Starts
   are whole seconds, rounded up: a window never ends early.
4. Impressions are met in about the order of time. One that belongs to a window that was over before
   the present one began changes nothing; one from just before its start counts in it, and does not
   move the start back.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from rtb.base.errors import ProfileError
from rtb.base.events import bid_time_s
from rtb.profiles.codec import Count, Counts, Link, decode_counts, encode_counts
from rtb.profiles.record import BIDS_MAX, LINKS_MAX

MS_PER_S: Final = 1000
COUNT_MAX: Final = 0xFFFF_FFFF
TIME_S_MAX: Final = 0xFFFF_FFFF

Cap = tuple[int, int]  # its hash, its window in seconds (0: lifetime)


@dataclass(frozen=True)
class Memory:
    """How long a person's counts are remembered.

    remember_s  90,000: for so long after a bid its duplicates are known; as the books do. And for
                so long a link is kept that has no counts at either end
    idle_s      400 days: a lifetime's count that was not added to for so long is dropped, for
                identifiers of people live no longer
    """

    remember_s: int = 90_000
    idle_s: int = 400 * 86_400


MEMORY: Final = Memory()


class Impression(NamedTuple):
    """One that was shown: for which bid, when it was told, and the caps that it counts for."""

    bid: int
    time_ms: int
    caps: tuple[Cap, ...]


class Together(NamedTuple):
    """One whom a person came together with; follow: whose counts are to be looked at too."""

    person: int
    time_ms: int
    follow: bool


def folded(start_s: int, count: int, window_s: int, time_ms: int) -> tuple[int, int]:
    """Start and count of a window after one more impression; count 0: there is no window yet."""
    time_s = min(-(-time_ms // MS_PER_S), TIME_S_MAX)
    if count == 0 or (window_s and time_ms >= (start_s + window_s) * MS_PER_S):
        return time_s, 1
    if window_s and time_s + window_s <= start_s:
        return start_s, count
    return start_s, min(count + 1, COUNT_MAX)


def count_impressions(
    record: bytes | memoryview | None,
    shown: Iterable[Impression],
    memory: Memory = MEMORY,
    together: Iterable[Together] = (),
) -> bytes | None:
    """A person's counts after impressions and links; None when they change nothing.

    A record that cannot be read is begun anew.
    """
    found = _opened(record)
    linked = [_link(found, one) for one in together]
    now_s = 0
    for one in sorted(shown, key=lambda one: (one.time_ms, one.bid)):
        time_s = one.time_ms // MS_PER_S
        if one.bid in found.bids or bid_time_s(one.bid) + memory.remember_s < time_s:
            continue
        _add(found, one)
        now_s = max(now_s, time_s)
    if not now_s and not any(linked):
        return None
    found.counts = {h: one for h, one in found.counts.items() if now_s < _end_s(one, memory)}
    found.bids = _remembered(found.bids, now_s, memory)
    return encode_counts(found)


def _link(found: Counts, one: Together) -> bool:
    """Whether a link is news."""
    before = found.links.get(one.person)
    if before is not None and (before.follow or not one.follow):
        return False
    made_s = min(one.time_ms // MS_PER_S, TIME_S_MAX) if before is None else before.made_s
    found.links[one.person] = Link(made_s, one.follow)
    found.crowd = found.crowd or len(found.links) > LINKS_MAX
    return True


def unlinked(record: bytes | memoryview, persons: Iterable[int]) -> bytes | None:
    """Counts without links to these persons; None when nothing is left."""
    found = _opened(record)
    for person in persons:
        found.links.pop(person, None)
    if found.counts or found.bids or found.links:
        return encode_counts(found)
    return None


def links_of(record: bytes | memoryview | None) -> list[int]:
    """Whom a person came together with."""
    return list(_opened(record).links)


def followed(record: bytes | memoryview) -> list[int]:
    """Whose counts are to be looked at with a person's; a crowd leads nowhere."""
    found = _opened(record)
    return [] if found.crowd else [one for one, link in found.links.items() if link.follow]


def is_looked_at(record: bytes | memoryview) -> bool:
    """Whether a request of the person needs its counts: it has some, or leads to others."""
    found = _opened(record)
    follow = any(link.follow for link in found.links.values())
    return bool(found.counts or found.bids or found.crowd or follow)


def _opened(record: bytes | memoryview | None) -> Counts:
    if record is not None:
        try:
            return decode_counts(record)
        except ProfileError:
            pass
    return Counts()


def _add(found: Counts, one: Impression) -> None:
    last_s = min(one.time_ms // MS_PER_S, TIME_S_MAX)
    for hash_, window_s in one.caps:
        before = found.counts.get(hash_, Count(0, window_s, 0, 0))
        start_s, count = folded(before.start_s, before.shown, window_s, one.time_ms)
        found.counts[hash_] = Count(start_s, window_s, count, max(last_s, before.last_s))
    found.bids.append(one.bid)


def _end_s(one: Count, memory: Memory) -> int:
    return one.start_s + one.window_s if one.window_s else one.last_s + memory.idle_s


def _remembered(bids: list[int], now_s: int, memory: Memory) -> list[int]:
    return [bid for bid in bids if bid_time_s(bid) + memory.remember_s >= now_s][-BIDS_MAX:]


def spent_s(record: bytes | memoryview, memory: Memory = MEMORY) -> int:
    """From when on nothing in a person's counts matters; 0 for counts that cannot be read."""
    found = _opened(record)
    ends = [_end_s(one, memory) for one in found.counts.values()]
    ends += [bid_time_s(bid) + memory.remember_s + 1 for bid in found.bids]
    ends += [link.made_s + memory.remember_s + 1 for link in found.links.values()]
    return max(ends, default=0)
