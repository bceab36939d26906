"""Counts of several places put together, and into a person's record.

The rules stand in `rtb.stores.caps`.
"""

from typing import Any

import numpy as np

from rtb.base.errors import ProfileError
from rtb.profiles import codec
from rtb.profiles.codec import Count
from rtb.profiles.record import COUNTS_ONLY, ENTRIES_MAX, ENTRY, HEADER, MAGIC, VERSION
from rtb.profiles.reducers import COUNT_MAX, MS_PER_S
from rtb.stores.caps_board import IN_FLIGHT, LOST
from rtb.stores.caps_people import Found, Known
from rtb.stores.profiles import Record


def stronger(before: Found | None, one: Found) -> Found:
    """What two workers know of a bid: shown, for the first time, beats lost beats in flight."""
    if before is None:
        return one
    if before.sequence > 0 and one.sequence > 0:
        return min(before, one, key=lambda found: found.time_ms)
    return max(before, one, key=lambda found: (found.sequence > 0, found.sequence == LOST))


def split(profile: Record | None) -> tuple[Any, dict[int, tuple[int, int]], bytes, bytes]:
    """Header, caps, and what lies before and behind them; of nobody where it is no record."""
    if profile is not None:
        try:
            codec.check(profile)
        except ProfileError:
            profile = None
    if profile is None:
        head = np.zeros(1, HEADER)
        head["magic"], head["version"], head["flags"] = MAGIC, VERSION, COUNTS_ONLY
        return head, {}, b"", b""
    data = bytes(profile)
    head = np.frombuffer(data, HEADER, 1).copy()
    row = head[0]
    start = HEADER.itemsize + 8 * int(row["segments_count"])
    start += 16 * (int(row["items_count"]) + int(row["categories_count"]))
    end = start + 16 * int(row["caps_count"])
    caps = {int(h): (int(t), int(n)) for h, t, n in np.frombuffer(data[start:end], ENTRY).tolist()}
    return head, caps, data[HEADER.itemsize : start], data[end:]


def base(
    own: dict[int, tuple[int, int]], people: list[Known], found: list[Found], now_ms: int
) -> tuple[dict[int, tuple[int, int]], set[int]]:
    """Start and count by cap, from the record and the store; and the bids that are in them.

    Windows that were over before the first impression on the board are left out. A cap that is
    counted at two places has the sum.
    """
    since_ms = min([now_ms, *(one.time_ms for one in found if one.sequence > IN_FLIGHT)])
    counts, counted = own, set()
    for one in (known.stored for known in people):
        if one is None:
            continue
        counted.update(one.bids)
        for hash_, count in one.counts.items():
            if count.shown and is_open(count.start_s, count.window_s, since_ms):
                join(counts, hash_, count, now_ms)
    return counts, counted


def join(counts: dict[int, tuple[int, int]], hash_: int, count: Count, now_ms: int) -> None:
    """Adds a count to that of another place; of windows of which one is over the later stands."""
    before = counts.get(hash_)
    if before is None or not before[1]:
        if before is not None or len(counts) < ENTRIES_MAX:
            counts[hash_] = count.start_s, count.shown
        return
    start_s, shown = before
    if is_open(min(start_s, count.start_s), count.window_s, now_ms):
        counts[hash_] = max(start_s, count.start_s), min(shown + count.shown, COUNT_MAX)
    elif count.start_s > start_s:
        counts[hash_] = count.start_s, count.shown


def is_open(start_s: int, window_s: int, now_ms: int) -> bool:
    """Whether a window is not over; a lifetime never is."""
    return not window_s or now_ms < (start_s + window_s) * MS_PER_S
