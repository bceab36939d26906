"""Which caps an impression counts for: by the keys of its line item and its creative.

Keys outlive snapshots, and so does what is shown: an impression of a line item that left the
catalogue still counts for its advertiser's caps. So a table takes over from the one before it what
its own snapshot no longer names.
"""

from collections.abc import Mapping
from typing import Any, Final, Self

import numpy as np
import numpy.ma  # isin asks for it; to find it then would take a tenth of a second beside requests
import numpy.typing as npt

from rtb.profiles.reducers import Impression
from rtb.stores.profiles import Shown

# Line items and creatives that left the catalogue and are still known; the rest is forgotten.
RETIRED_MAX: Final = 100_000
# Answers that are remembered: as many as there are creatives in use at a time.
PAIRS_MAX: Final = 100_000

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


class CapsTable:
    """Ranges of caps by key, sorted, for a binary search.

    keys (n,) uint64 ascending; starts, counts (n,) int64 into hashes (m,) uint64, windows_s (m,)
    and limits (m,) int64: how many impressions a window has. None of them is written to after it
    was made.
    """

    def __init__(
        self, keys: U64, starts: I64, counts: I64, hashes: U64, windows_s: I64, limits: I64
    ) -> None:
        self.keys, self.starts, self.counts = keys, starts, counts
        self.hashes, self.windows_s, self.limits = hashes, windows_s, limits
        self._known: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {}

    @classmethod
    def empty(cls) -> Self:
        """No caps at all."""
        none = np.zeros(0, np.int64)
        return cls(np.zeros(0, np.uint64), none, none, np.zeros(0, np.uint64), none, none)

    @classmethod
    def of(cls, arrays: Mapping[str, Any], before: "CapsTable | None" = None) -> Self:
        """The caps of a snapshot's arrays, and what only the table before it knows."""
        caps = arrays["caps"]
        rows = [arrays[name] for name in ("line_items", "creatives")]
        columns = zip(*map(_ranges, rows), strict=True)
        keys, starts, counts = (np.concatenate(column) for column in columns)
        hashes, windows_s = caps["hash"].astype(np.uint64), caps["window_s"].astype(np.int64)
        limits = caps["count"].astype(np.int64)
        if before is not None:
            named = np.concatenate([part["key"] for part in rows])
            old = before._only(np.flatnonzero(~np.isin(before.keys, named))[:RETIRED_MAX])
            keys, counts = np.concatenate([keys, old.keys]), np.concatenate([counts, old.counts])
            starts = np.concatenate([starts, old.starts + len(hashes)])
            hashes = np.concatenate([hashes, old.hashes])
            windows_s = np.concatenate([windows_s, old.windows_s])
            limits = np.concatenate([limits, old.limits])
        keys, first = np.unique(keys, return_index=True)
        return cls(keys, starts[first], counts[first], hashes, windows_s, limits)

    def _only(self, rows: I64) -> "CapsTable":
        """A table of these rows, and of nobody else's caps."""
        counts = self.counts[rows]
        ends = np.cumsum(counts)
        starts = ends - counts
        places = np.repeat(self.starts[rows] - starts, counts) + np.arange(counts.sum())
        return CapsTable(
            self.keys[rows], starts, counts, self.hashes[places], self.windows_s[places],
            self.limits[places],
        )  # fmt: skip

    def of_key(self, key: int) -> list[tuple[int, int]]:
        """Hash and window of each cap of a line item or of a creative."""
        part = self._range(key)
        return list(zip(self.hashes[part].tolist(), self.windows_s[part].tolist(), strict=True))

    def limits_of(self, key: int) -> list[tuple[int, int]]:
        """Hash and limit of each cap of a line item or of a creative."""
        part = self._range(key)
        return list(zip(self.hashes[part].tolist(), self.limits[part].tolist(), strict=True))

    def _range(self, key: int) -> slice:
        at = int(np.searchsorted(self.keys, np.uint64(key)))
        if at == len(self.keys) or int(self.keys[at]) != key:
            return slice(0, 0)
        return slice(int(self.starts[at]), int(self.starts[at] + self.counts[at]))

    def caps(self, line_item: int, creative: int) -> tuple[tuple[int, int], ...]:
        """All that an impression of both counts for."""
        pair = line_item, creative
        found = self._known.get(pair)
        if found is None:
            if len(self._known) >= PAIRS_MAX:
                self._known.clear()
            found = self._known[pair] = (*self.of_key(line_item), *self.of_key(creative))
        return found

    def add(
        self, shown: Shown, person: int, bid: int, time_ms: int, line_item: int, creative: int
    ) -> bool:
        """Puts an impression to those of its person, if it has caps; returns whether it has."""
        caps = self.caps(line_item, creative)
        if caps:
            shown.setdefault(person, []).append(Impression(bid, time_ms, caps))
        return bool(caps)


def _ranges(rows: npt.NDArray[np.void]) -> tuple[U64, I64, I64]:
    """Keys, starts and counts of the rows that have caps."""
    if "caps_count" not in (rows.dtype.names or ()):
        rows = rows[:0]  # a kind of row that no cap is set on
        none = np.zeros(0, np.int64)
        return rows["key"].astype(np.uint64), none, none
    capped = rows[rows["caps_count"] > 0]
    return (
        capped["key"].astype(np.uint64),
        capped["caps_start"].astype(np.int64),
        capped["caps_count"].astype(np.int64),
    )
