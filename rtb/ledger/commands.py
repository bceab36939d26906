"""What the books can be told, and what they answer.

A command is a fact or a wish with everything that is needed to judge it; the books look nothing up.
An `Outcome` is the whole answer: refusals are outcomes, never exceptions.

Amounts are nanos of the line item's currency and units (impressions). A bid's day and flight follow
from the time in its id, its worker as well, so neither can be said wrongly.
"""

from enum import IntEnum
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

# Rows hold signed 64-bit integers; sums over rows of one account must fit as well.
AMOUNT_MAX: Final = 1 << 56
# Bids are keys of signed 64-bit columns: good until the seconds in them pass 2038.
BID_MAX: Final = 1 << 63
TEXT_CHARS_MAX: Final = 500  # of a name or a reference
TIME_MAX_S: Final = 1 << 32  # what the seconds of a bid's id can say


def worker_of(bid: int) -> int:
    """Who made a bid and holds the lease it was paid from: node << 8 | worker."""
    return bid >> 16 & 0xFFFF


class Scope(IntEnum):
    """Where a limit may stand. A line item's money moves in all six at once."""

    LINE_ITEM = 1
    LINE_ITEM_DAY = 2  # each day anew
    FLIGHT = 3
    CAMPAIGN = 4
    CAMPAIGN_DAY = 5
    ADVERTISER = 6


class Outcome(IntEnum):
    """The answer to a command. Numbers are stored and counted: they never change.

    1-31 booked, 32-47 no money, 48- refused or already known; the order inside a command's
    handler is the order of precedence.
    """

    GRANTED = 1
    GRANTED_PART = 2  # as far as the scarcest scope went
    TAKEN = 3
    TAKEN_UNGRANTED = 4  # the lease was short (a lost grant, midnight): the budget had the rest
    TAKEN_SHORT = 5  # neither lease nor budget had it all: the hold is smaller than the bid
    TAKEN_SETTLED = 6  # its bill or loss came first: only the lease is brought up to date
    POSTED = 7
    POSTED_UNSEEN = 8  # the bill of a bid whose record has not come: booked as its claims say
    POSTED_OVER = 9  # booked, partly beyond the budget
    LATE = 10  # booked after the money had been given back
    LATE_OVER = 11  # the same, partly beyond the budget
    VOIDED = 12
    VOIDED_UNSEEN = 13  # the loss of a bid whose record has not come
    EXPIRED = 14  # every hold that was due
    RETURNED = 15
    ADJUSTED = 16
    ADJUSTED_OVER = 17  # booked, partly beyond the budget
    LIMIT_SET = 18
    LIMIT_BELOW = 19  # set below what is committed: no grants until that much came back
    ENROLLED = 20
    FORGOTTEN = 21
    REPAID = 22  # overspend, from what the budget has again

    EXHAUSTED_LINE_ITEM = 33  # 32 + Scope: the scarcest one
    EXHAUSTED_LINE_ITEM_DAY = 34
    EXHAUSTED_FLIGHT = 35
    EXHAUSTED_CAMPAIGN = 36
    EXHAUSTED_CAMPAIGN_DAY = 37
    EXHAUSTED_ADVERTISER = 38

    NOTHING = 48  # nothing was due, granted, or different
    DUPLICATE = 49  # the same was booked before: 0 nanos
    DUPLICATE_OTHER_PRICE = 50  # booked before at another price: the first stands
    ALREADY_POSTED = 51  # a loss notice after the bill: the bill stands
    TOO_OLD = 52  # older than the books remember: to the dead letters
    ABOVE_BID = 53  # more than was bid: quarantined
    OTHER_LINE_ITEM = 54  # the bid was another line item's
    UNKNOWN_LINE_ITEM = 55  # never enrolled: to the dead letters until it is
    MALFORMED = 56  # an amount, id or flight out of range
    MOVED = 57  # a line item cannot change its campaign, advertiser or currency
    ABOVE_POSTED = 58  # a refund of more than was ever posted there

    @property
    def transient(self) -> bool:
        """May the same command succeed later, with nothing else changed by its sender."""
        return 32 <= self < 48 or self is Outcome.UNKNOWN_LINE_ITEM

    @property
    def alarming(self) -> bool:
        """Does it mean money beyond a budget, or a bill that was not booked."""
        return self in _ALARMING


_ALARMING: Final = frozenset(
    {
        Outcome.TAKEN_SHORT, Outcome.POSTED_OVER, Outcome.LATE, Outcome.LATE_OVER,
        Outcome.ADJUSTED_OVER, Outcome.DUPLICATE_OTHER_PRICE, Outcome.TOO_OLD, Outcome.ABOVE_BID,
        Outcome.OTHER_LINE_ITEM, Outcome.UNKNOWN_LINE_ITEM, Outcome.MALFORMED,
        Outcome.ABOVE_POSTED,
    }
)  # fmt: skip


class Reason(IntEnum):
    """Why an amount is corrected by hand or by reconciliation."""

    INVOICE = 1  # the exchange billed what we had not booked, or otherwise
    INVALID_TRAFFIC = 2  # credited by the exchange
    CORRECTION = 3


class _Command(msgspec.Struct, frozen=True, gc=False):
    """Base of all: immutable, and holding nothing that could refer back to it."""


class Flight(_Command, frozen=True):
    """A time [start, end) that may have a budget of its own, under `key`. Line items that name the
    same key share it."""

    key: int
    start_s: int
    end_s: int


class Enrol(_Command, frozen=True):
    """Opens the books of a line item, or brings its description up to date.

    flights: sorted, without overlap; time outside of them is flight 0.
    """

    time_s: int
    line_item: int
    campaign: int
    advertiser: int
    zone: str  # IANA, the advertiser's
    currency: int  # money.currency_code
    name: str  # for people: "advertiser / campaign / line item"
    flights: tuple[Flight, ...] = ()


class SetLimit(_Command, frozen=True):
    """Sets what may be spent in a scope; None: no limit. A daily limit counts each day anew."""

    time_s: int
    scope: Scope
    key: int
    nanos: int | None = None
    units: int | None = None


class Grant(_Command, frozen=True):
    """Lends a worker money of one day and flight, those that hold `at_s`; as much as there is.

    The lease is used until `expires_s`; only `Return` ends it, after its worker was fenced. Units
    may come without money, for a worker that has some left. least: nanos without which it is of no
    use, and not lent.
    """

    time_s: int
    line_item: int
    worker: int
    at_s: int
    nanos: int
    units: int
    expires_s: int
    least: int = 0


class Return(_Command, frozen=True):
    """Takes back what a worker was granted and did not take, of one line item or (0) of all.

    For leases that ran out and workers that died. The worker must be unable to take any more, and
    its journal must have been read to the end.
    """

    time_s: int
    worker: int
    line_item: int = 0


class Take(_Command, frozen=True):
    """A bid went out: its money moves from the worker's lease to a hold.

    nanos: reserved. In strict mode the cost at the full bid price; in expected mode that cost times
    the probability to win, rounded up.
    """

    bid: int
    line_item: int
    nanos: int
    deadline_s: int
    units: int = 1


TAKE: Final = np.dtype(
    [("bid", "u8"), ("line_item", "u8"), ("nanos", "i8"), ("deadline_s", "i8"), ("units", "i8")]
)


class Takes(_Command, frozen=True):
    """Many bids went out: the same as a `Take` for each in turn, but for the cost of saying it.

    Shapes: takes (n,) of TAKE
    """

    takes: npt.NDArray[np.void]


class Post(_Command, frozen=True):
    """A billing notice: what one bid costs in the end.

    nanos: the cost at the cleared price; bid_nanos: at the full price that was bid, above which
    nothing is ever booked. reserve_nanos: what the bid's record will say, for bills that come
    before it; the same as bid_nanos in strict mode, 0 when it cannot be known (expected mode).

    Bound of expected mode: a bill draws on its hold, then on the budget, and only then counts as
    overspend; so overspend is at most the sum of (bid_nanos - reserved) over the bids that were in
    flight when the budget ran out.
    """

    time_s: int  # when it arrived
    bid: int
    line_item: int
    nanos: int
    bid_nanos: int
    reserve_nanos: int
    units: int = 1


class Void(_Command, frozen=True):
    """A loss notice: the money goes back to the budget."""

    time_s: int
    bid: int
    line_item: int


class Expire(_Command, frozen=True):
    """Gives back every hold whose deadline is `now_s` or before.

    now_s: the moment up to which all journals were read, lest a hold is given back whose bill is
        written but not read.
    """

    now_s: int


class Repay(_Command, frozen=True):
    """Pays for an account's overspend from what the pool has lent meanwhile.

    Money that comes back by a command of the books does so by itself.
    """

    time_s: int
    account: int


class Forget(_Command, frozen=True):
    """Lets go of settled bids made before `before_s`: a notice for them is TOO_OLD from now on.

    Bids in flight are kept, however old.
    """

    before_s: int


class Adjust(_Command, frozen=True):
    """Books a correction on the day and flight that hold `at_s`, once for each `reference`.

    nanos, units: signed alike; negative ones are refunds.
    """

    time_s: int
    reference: str
    line_item: int
    at_s: int
    nanos: int
    units: int
    reason: Reason
    bid: int = 0


Command = (
    Enrol
    | SetLimit
    | Grant
    | Return
    | Take
    | Takes
    | Post
    | Void
    | Expire
    | Forget
    | Adjust
    | Repay
)
