"""How long the money of a bid is held, when somebody sets the clock.

A hold ends at a moment of the wall clock: its bid's, and the time that its exchange allows. If that
clock is set forward, all bids in flight would be over at once, and what they hold would be lent
again before their bills have come. So what it was set forward by is taken off the time by which
holds end, until no bid from before can be in flight. What is bid meanwhile is held longer for it.

Set back, the clock ends holds late by as much, which costs nobody anything but time. A clock that
is slewed, as it should be, is not set.
"""

from typing import Final

# Nothing slews a clock by as much between two turns; deadlines are in seconds anyway.
SET_MS: Final = 1_000


class Deadlines:
    """The time by which holds end.

    hold_ms  no bid is held longer
    """

    def __init__(self, hold_ms: int) -> None:
        self._hold_ms = hold_ms
        self._apart_ms: int | None = None  # the wall clock and the steady one
        self._ahead_ms = 0  # set forward by so much since
        self._until_ms = 0  # steady

    def now_ms(self, now_ms: int, steady_ms: int) -> int:
        """Holds with a deadline up to this moment are over; steady_ms: of a clock nobody sets."""
        apart_ms = now_ms - steady_ms
        moved_ms = 0 if self._apart_ms is None else apart_ms - self._apart_ms
        self._apart_ms = apart_ms
        if abs(moved_ms) >= SET_MS:
            self._ahead_ms = max(self._ahead_ms + moved_ms, 0)
            self._until_ms = steady_ms + self._hold_ms
        if steady_ms >= self._until_ms:
            self._ahead_ms = 0
        return now_ms - self._ahead_ms
