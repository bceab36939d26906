"""What the books may forget, when somebody sets the clock.

Of bids before some moment nothing is booked any more: they were booked, as far as they ever will
be. By a wall clock that is days ahead the bids of now are older than that, and once the books have
forgotten them, nothing takes it back: no bid and no bill would count, and the same budget be lent
over and over. So the moment goes on only with time that has really passed. It may go twice as fast,
to catch up after a rest, and never comes nearer to the wall clock than what is to be remembered:
a clock that is ahead does harm only when it has been so for as long as that.

New books have nothing to forget, and nothing by which to tell that the clock is wrong. They forget
from the beginning of time on, until they have been open for as long as they are to remember.
"""

from typing import Final

# As fast as time, what a node was down for would be remembered longer for ever.
CATCH_UP: Final = 2


class Forgetting:
    """The moment before which bids are forgotten; it never goes back.

    forgotten_s  as the books have it, 0 for new ones
    remember_s   no bid is forgotten sooner
    """

    def __init__(self, forgotten_s: int, remember_s: int) -> None:
        self._before_ms = forgotten_s * 1000
        self._remember_ms = remember_s * 1000
        self._steady_ms: int | None = None  # of the last turn

    @property
    def before_s(self) -> int:
        """The moment, in seconds of the wall clock."""
        return self._before_ms // 1000

    def turn(self, now_ms: int, steady_ms: int) -> None:
        """Time passes. To be told often: nothing is saved up while the clock goes right.

        steady_ms: of a clock that nobody sets
        """
        passed_ms = 0 if self._steady_ms is None else max(steady_ms - self._steady_ms, 0)
        self._steady_ms = steady_ms
        until_ms = now_ms - self._remember_ms
        most_ms = self._before_ms + CATCH_UP * passed_ms
        new_ms = CATCH_UP * self._remember_ms  # new books are before it: 1970, and no bid is
        if self._before_ms < new_ms <= most_ms:
            most_ms = until_ms
        self._before_ms = max(self._before_ms, min(most_ms, until_ms))
