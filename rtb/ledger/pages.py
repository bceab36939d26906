"""Pages: the bids in flight that one worker made in one second.

Nearly every bid is taken from a lease that has its money, is never won, and expires with all others
of its second. So they are kept and judged together: a page is one array, and the number in a bid's
id is the bid's place in it, which makes a look-up one index. A bid of a page is open, or it was
billed (its mark says so), or it was lost or has expired: closed without a mark. What comes later is
told the same of both.

When all of a page has expired it is *spent*: of its bids only a bitmap is left, which says that
they were seen.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

PAGE_SHIFT: Final = 16  # a bid's id without its number: second, node and worker
NUMBERS_MAX: Final = 1 << PAGE_SHIFT
NEVER_S: Final = -(1 << 62)  # before all deadlines
SECOND_SHIFT: Final = 16  # of a page's key

HELD: Final = np.dtype(
    [
        ("number", "u2"),  # in its page
        ("open", "u1"),
        ("account", "i8"),  # 0: no such bid
        ("nanos", "i8"),
        ("units", "i8"),
        ("deadline_s", "i8"),
    ],
    align=True,
)
Rows = npt.NDArray[np.void]
Held = tuple[int, int, int, int]  # account, nanos, units, deadline_s


def page_of(bid: int) -> int:
    """The key of a bid's page."""
    return bid >> PAGE_SHIFT


def number_of(bid: int) -> int:
    """A bid's place in its page."""
    return bid & NUMBERS_MAX - 1


class Page:
    """Bids of one worker and second, by their number.

    Shapes: rows (numbers,) of HELD
    expired_s: the latest deadline that was given back; open bids are all due later
    due_s: the deadlines after it
    """

    __slots__ = ("due_s", "expired_s", "rows")

    def __init__(self, expired_s: int = NEVER_S) -> None:
        self.expired_s = expired_s
        self.due_s: set[int] = set()
        self.rows: Rows = np.zeros(0, HELD)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Page)
            and self.expired_s == other.expired_s
            and np.array_equal(self.rows, other.rows)
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    def add(self, rows: Rows) -> set[int]:
        """Takes up bids that are new here; returns deadlines that are new as well."""
        count = int(rows["number"].max()) + 1
        if count > len(self.rows):
            longer = np.zeros(count, HELD)
            longer[: len(self.rows)] = self.rows
            self.rows = longer
        self.rows[rows["number"]] = rows
        self.rows["open"][rows["number"]] = rows["deadline_s"] > self.expired_s
        deadlines_s = set(np.unique(rows["deadline_s"]).tolist())
        new = {one for one in deadlines_s - self.due_s if one > self.expired_s}
        self.due_s |= new
        return new

    def can_add(
        self, numbers: npt.NDArray[np.uint64], deadlines_s: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.bool_]:
        """Which bids are neither here nor due before what has expired here."""
        known = np.zeros(len(numbers), np.bool_)
        inside = numbers < len(self.rows)
        known[inside] = self.rows["account"][numbers[inside]] != 0
        return ~known & (deadlines_s > self.expired_s)

    def knows(self, number: int) -> bool:
        """Whether a bid was ever taken up."""
        return number < len(self.rows) and self.rows.item(number)[2] != 0

    def held(self, number: int) -> Held | None:
        """The money of an open bid."""
        if number >= len(self.rows):
            return None
        _, is_open, *held = self.rows.item(number)
        return (held[0], held[1], held[2], held[3]) if is_open else None

    def close(self, number: int) -> None:
        """Ends an open bid."""
        self.rows["open"][number] = 0

    def open_rows(self) -> Rows:
        """All bids that are open."""
        found: Rows = self.rows[self.rows["open"] == 1]
        return found

    def expire(self, now_s: int) -> Rows:
        """Closes and returns the open bids that are due."""
        self.expired_s = now_s
        self.due_s = {one for one in self.due_s if one > now_s}
        due = (self.rows["open"] == 1) & (self.rows["deadline_s"] <= now_s)
        self.rows["open"][due] = 0
        found: Rows = self.rows[due]
        return found

    def bitmap(self) -> bytes:
        """Which numbers there are."""
        return np.packbits(self.rows["account"] != 0, bitorder="little").tobytes()


def is_in(bitmap: bytes, number: int) -> bool:
    """Whether a spent page had a bid."""
    at = number >> 3
    return at < len(bitmap) and bool(bitmap[at] >> (number & 7) & 1)


# -- exact sums ------------------------------------------------------------------------------------

_HALF: Final = 32
_LOW: Final = (1 << _HALF) - 1
_SMALL: Final = 1 << 40  # millions of these fit 64 bits


class Groups:
    """Rows that belong together, by key; sums over them are exact.

    Amounts are 0 to 2**56. Great ones are summed in halves, so that no sum of 64 bits can overflow.
    """

    def __init__(self, keys: npt.NDArray[np.int64]) -> None:
        self._order = np.argsort(keys, kind="stable")
        ranked = keys[self._order]
        self._starts = np.flatnonzero(np.diff(ranked, prepend=ranked[:1] - 1))
        self.keys: list[int] = ranked[self._starts].tolist()

    def sums(self, amounts: npt.NDArray[np.int64]) -> list[int]:
        """The sum of each group. Shapes: amounts (rows,); returns (groups,)."""
        ranked = amounts[self._order]
        if int(ranked.max()) < _SMALL:
            sums: list[int] = np.add.reduceat(ranked, self._starts).tolist()
            return sums
        high = np.add.reduceat(ranked >> _HALF, self._starts).tolist()
        low = np.add.reduceat(ranked & _LOW, self._starts).tolist()
        return [(one << _HALF) + other for one, other in zip(high, low, strict=True)]

    def spread(self, values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """A value of each group, for its rows. Shapes: values (groups,); returns (rows,)."""
        counts = np.diff(self._starts, append=len(self._order))
        found = np.empty(len(self._order), np.bool_)
        found[self._order] = np.repeat(values, counts)
        return found


def by_account(rows: Rows) -> Iterator[tuple[int, int, int, int]]:
    """Account, nanos, units and how many of the rows moved any of them, in order of account."""
    if not len(rows):
        return
    groups = Groups(rows["account"])
    moved = ((rows["nanos"] | rows["units"]) != 0).astype(np.int64)
    columns = (groups.sums(rows["nanos"]), groups.sums(rows["units"]), groups.sums(moved))
    yield from zip(groups.keys, *columns, strict=True)
