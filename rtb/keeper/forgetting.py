"""What the books may forget, when somebody sets the clock.

Of bids before some moment nothing is booked any more: they were booked, as far as they ever will
be. By a wall clock that is ahead bids seem older than they are, and once the books have forgotten
them, nothing takes it back: no bid and no bill would count, and the same budget be lent over and
over. So the moment goes on with time that has really passed, and no faster: what was remembered for
long enough once is so from then on, whatever the wall clock says.

A rest leaves the moment behind: a node that was down, a machine that slept; so does a time to
remember that was made shorter, and new books begin in 1970. A keeper that starts by a clock that is
ahead sees just the same. So it watches, for as long as is to be remembered, how far the wall clock
is from the moment, and catches up by the least of it: a clock that is ahead for less was right at
some time while it was watched. What was seen is kept with the books, so that keepers that start
again and again catch up as well, and a wrong clock gains nothing by them. After a rest bids are
remembered for longer until the clock was watched twice, at most, which costs room on the disk.

The bound: a clock that is ahead for `remember_s` or longer, or whenever a keeper runs in so long,
is believed.
"""

from collections.abc import Mapping
from typing import Final

_WATCHED: Final = "clock_watched_s"  # names under which the books keep what was seen
_APART: Final = "clock_apart_s"
NOTHING_NOTED: Final[Mapping[str, int]] = {}


class Forgetting:
    """The moment before which bids are forgotten; it never goes back.

    forgotten_s  as the books have it, 0 for new ones
    remember_s   no bid is forgotten sooner, unless the clock is ahead for as long
    noted        numbers of the books by name: what was `noted` with `forgotten_s`
    """

    def __init__(
        self, forgotten_s: int, remember_s: int, noted: Mapping[str, int] = NOTHING_NOTED
    ) -> None:
        self._before_ms = forgotten_s * 1000
        self._remember_ms = remember_s * 1000
        self._steady_ms: int | None = None  # of the last turn
        self._watched_ms = noted.get(_WATCHED, 0) * 1000
        # The least that the wall clock was away from the moment while it was watched.
        self._apart_ms = noted[_APART] * 1000 if _APART in noted else None

    @property
    def before_s(self) -> int:
        """The moment, in seconds of the wall clock."""
        return self._before_ms // 1000

    @property
    def noted(self) -> dict[str, int]:
        """What the next keeper has to know, to be kept with the moment; rounded down is safe."""
        apart_ms = 0 if self._apart_ms is None else self._apart_ms
        return {_WATCHED: self._watched_ms // 1000, _APART: apart_ms // 1000}

    def turn(self, now_ms: int, steady_ms: int) -> None:
        """Time passes. steady_ms: of a clock that nobody sets."""
        passed_ms = 0 if self._steady_ms is None else max(steady_ms - self._steady_ms, 0)
        self._steady_ms = steady_ms
        until_ms = now_ms - self._remember_ms
        self._before_ms = max(self._before_ms, min(self._before_ms + passed_ms, until_ms))
        self._watch(now_ms, passed_ms)

    def _watch(self, now_ms: int, passed_ms: int) -> None:
        apart_ms = now_ms - self._before_ms
        self._apart_ms = apart_ms if self._apart_ms is None else min(self._apart_ms, apart_ms)
        self._watched_ms += passed_ms
        if self._watched_ms >= self._remember_ms:
            self._before_ms += max(self._apart_ms - self._remember_ms, 0)
            self._watched_ms, self._apart_ms = 0, now_ms - self._before_ms
