"""The board: one memory-mapped file of fixed arrays that all processes of a node see.

Every word has one writer: each worker writes its own column, and nobody else's. Readers may see a
count from just before or just after a request; sums are what they want. A worker that restarts goes
on counting where its column stands.

Latencies are log-linear histograms: `BUCKETS` buckets of microseconds, 8 to every doubling from
8 us on, so any quantile is right within 12.5 %.
"""

import mmap
from bisect import bisect_left
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from rtb.base.records import Decision, Privacy
from rtb.stores.mapped import open_mapped, replace_file

MAGIC: Final = 0x4452_414F_4252_5442  # "BTRBOARD"
VERSION: Final = 4

EXCHANGES_MAX: Final = 32  # columns of counters per exchange
NOBIDS_MAX: Final = 32
REJECTS_MAX: Final = 128
QUIRKS_MAX: Final = 16
KINDS_MAX: Final = 16
RESULTS_MAX: Final = 16
BUCKETS: Final = 160
# Upper bounds of CPM prices: from what the cheapest banners cost to what only deals do.
PRICE_BOUNDS_MICROS: Final = (
    100_000, 250_000, 500_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000, 5_000_000, 7_500_000,
    10_000_000, 15_000_000, 20_000_000, 30_000_000, 50_000_000, 100_000_000,
)  # fmt: skip
PRICE_BUCKETS: Final = 16  # one to each bound, and what is above
# Places of `consent`: those below are the bits of `Privacy`.
CONSENT_NONE: Final = 7  # nothing forbids personal data
CONSENT_RECORD: Final = 8  # the person's record does
CONSENT_MAX: Final = 16
UNREAD: Final = -1  # signals of a request that nobody could read
# Per line item and Reject from 64 on; those below are targeting and belong to no candidate.
FUNNEL_REASONS: Final = 64
FUNNEL_FIRST_REASON: Final = 64
NO_LOOKUP: Final = -1
FUNNEL_BID: Final = FUNNEL_FIRST_REASON + FUNNEL_REASONS - 1  # counts bids sent
# One request in so many adds to the funnel: it touches a cache line a candidate, and looks at all
# candidates, so that a line item that is always outbid is told, too, what else stands in its way.
FUNNEL_SAMPLE: Final = 32
# One request in so many is timed by stage; never one of those above, which take longer.
STAGE_SAMPLE: Final = 16


class Outcome(IntEnum):
    """How one request ended, as `rtb_requests_total{outcome}` says it."""

    BID = 0
    NOBID = 1
    SHED = 2
    BAD = 3
    LATE = 4
    TEST = 5


class Stage(IntEnum):
    """Parts of a request's time."""

    DECODE = 0
    GATHER = 1
    DECIDE = 2
    COMMIT = 3  # pay, record, sign
    ENCODE = 4
    TOTAL = 5


STAGES_COUNT: Final = len(Stage)


class Gauge(IntEnum):
    """Figures of the moment, set by the worker a few times a second."""

    PID = 0
    READY = 1
    GENERATION = 2
    CONNECTIONS = 3
    INFLIGHT = 4
    LOOP_LAG_US = 5
    HEARTBEAT_MS = 6
    RSS_BYTES = 7
    BREAKER = 8
    STARTED_MS = 9
    LOOP_LAG_MAX_US = 10
    INFLIGHT_MAX = 11


class Http(IntEnum):
    """What the HTTP layer did."""

    LANE = 0
    ROUTE = 1
    TIMEOUTS = 2  # connections closed for a slow head or body
    HEAD_TOO_LARGE = 3
    BODY_TOO_LARGE = 4
    IDLE_CLOSED = 5
    ACCEPTED = 6
    REFUSED = 7
    BAD_HTTP = 8


class NoticeResult(IntEnum):
    """What became of one notice, as `rtb_notices_total{result}` says it."""

    OK = 0  # of workers: recorded and answered; of the keeper: and new
    MALFORMED = 1  # from here on: `rtb.notices.notice.Refusal`
    FORGED = 2
    WRONG_KIND = 3
    UNKNOWN_EXCHANGE = 4
    EXPIRED = 5
    TARGET = 6
    NOT_RECORDED = 7  # told to come again
    BAD_PRICE = 8  # a macro, garbage, or more than was bid: quarantined
    EMPTY_PRICE = 9
    AUDIT = 10
    TEST = 11
    BAD_VALUE = 12  # a conversion whose order or value cannot be read: counted without
    DUPLICATE = 13  # from here on the keeper's: it came before
    LATE = 14  # after the bid's money was given back, or too late to tell whether it came before
    UNBOOKED = 15  # recorded, but a dead letter to the books


COLUMN: Final = np.dtype(
    [
        ("requests", "u8", (EXCHANGES_MAX, len(Outcome))),
        ("latency_us", "u8", (EXCHANGES_MAX, BUCKETS)),
        ("latency_sum_us", "u8", EXCHANGES_MAX),
        ("nobids", "u8", NOBIDS_MAX),
        ("rejects", "u8", REJECTS_MAX),
        ("quirks", "u8", (EXCHANGES_MAX, QUIRKS_MAX)),
        ("bids", "u8", (EXCHANGES_MAX, 8)),  # by Media
        ("bid_prices", "u8", (EXCHANGES_MAX, PRICE_BUCKETS)),
        ("bid_price_micros", "u8", EXCHANGES_MAX),  # sum over bids sent
        ("stages_us", "u8", (len(Stage), BUCKETS)),
        ("stages_sum_us", "u8", len(Stage)),
        ("lookups", "u8", 8),
        ("lookup_us", "u8", BUCKETS),
        ("lookup_sum_us", "u8"),
        ("consent", "u8", CONSENT_MAX),
        ("contextual", "u8", 8),
        ("eligible", "u8"),
        ("scored", "u8"),
        ("http", "u8", 16),
        ("notices", "u8", (KINDS_MAX, RESULTS_MAX)),  # by base.events.Kind; 0: unreadable
        ("gauges", "i8", 32),
    ],
    align=True,
)
# What the keeper says of itself; it alone writes here.
CURRENCIES_MAX: Final = 16
OUTCOMES_MAX: Final = 64
LETTERS_MAX: Final = 16
PACING_MODES_MAX: Final = 8
KEEPER: Final = np.dtype(
    [
        ("pid", "i8"),
        ("beat_ms", "i8"),  # the end of its last turn
        ("lag_ms", "i8"),  # how old the oldest record is that it has not read
        ("waits", "i8"),  # 1: books or journals keep it from going on
        ("records", "u8"),
        ("outcomes", "u8", OUTCOMES_MAX),  # by rtb.ledger.commands.Outcome
        ("letters", "u8", LETTERS_MAX),  # by rtb.keeper.letters.Reason
        ("pacing_modes", "i8", PACING_MODES_MAX),  # budgets by rtb.pacing.goal.Mode
        ("pacing_worst_e6", "i8"),  # error of the budget that is furthest from its plan
        ("pacing_mean_e6", "i8"),
        ("currencies", "u8", CURRENCIES_MAX),  # of the sums below; 0: none
        ("posted_nanos", "i8", CURRENCIES_MAX),
        ("pending_nanos", "i8", CURRENCIES_MAX),
        ("granted_nanos", "i8", CURRENCIES_MAX),
        ("over_nanos", "i8", CURRENCIES_MAX),
        ("export_lag_ms", "i8"),  # how old the oldest whole segment is that was not exported
        ("export_segments", "i8"),  # how many there are
        ("export_damaged", "u8"),  # records that damage has kept out of the exports
        ("notices", "u8", (KINDS_MAX, RESULTS_MAX)),  # what became of those that were recorded
        ("wins", "u8"),  # bids that were won, each once
    ]
)
_HEADER: Final = np.dtype(
    [
        ("magic", "u8"),
        ("version", "u4"),
        ("workers", "u4"),
        ("line_items", "u8"),
        ("spare", "u8", 5),
    ]
)


def bucket_of(us: int) -> int:
    """The bucket of a duration in microseconds."""
    if us < 8:
        return max(us, 0)
    exponent = us.bit_length() - 4
    return min(exponent * 8 + (us >> exponent), BUCKETS - 1)


def price_bucket_of(price_micros: int) -> int:
    """The bucket of a CPM price: the first whose bound it does not pass."""
    return bisect_left(PRICE_BOUNDS_MICROS, price_micros)


def bucket_start_us(bucket: int) -> int:
    """The shortest duration that falls into a bucket."""
    if bucket < 16:
        return bucket
    exponent = (bucket - 8) // 8
    return (bucket - exponent * 8) << exponent


class Board:
    """The file, mapped. The supervisor creates it; workers and consoles open it."""

    def __init__(self, path: Path, mapped: mmap.mmap) -> None:
        self.path = path
        self._mapped = mapped
        header = np.frombuffer(mapped, _HEADER, 1)[0]
        self.workers_count = int(header["workers"])
        self.line_items_max = int(header["line_items"])
        at = _HEADER.itemsize
        self.keeper: npt.NDArray[np.void] = np.frombuffer(mapped, KEEPER, 1, at)
        at += self.keeper.nbytes
        self.columns: npt.NDArray[np.void] = np.frombuffer(mapped, COLUMN, self.workers_count, at)
        at += self.columns.nbytes
        shape = (self.workers_count, self.line_items_max, FUNNEL_REASONS)
        self.funnel = np.frombuffer(mapped, "u4", int(np.prod(shape)), at).reshape(shape)

    @classmethod
    def create(cls, path: Path, workers_count: int, line_items_max: int) -> Self:
        """A fresh board, all zeros; replaces an older file whole."""
        each = COLUMN.itemsize + line_items_max * FUNNEL_REASONS * 4
        size = _HEADER.itemsize + KEEPER.itemsize + workers_count * each
        header = np.zeros(1, _HEADER)
        header["magic"], header["version"] = MAGIC, VERSION
        header["workers"], header["line_items"] = workers_count, line_items_max
        replace_file(path, header, size)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing board.

        Raises: StoreCorrupt when the file is not a board of this version.
        """
        return cls(path, open_mapped(path, _HEADER, MAGIC, VERSION, "board"))

    def total(self, name: str) -> npt.NDArray[Any]:
        """One counter of `COLUMN`, summed over workers."""
        return np.asarray(self.columns[name].sum(axis=0))


class Meter:
    """One worker's pen: writes its own column. Readable twin of `ext/meter.pyx`."""

    def __init__(self, board: Board, worker: int) -> None:
        self._keep = board
        self._column = board.columns[worker]
        self._funnel = board.funnel[worker]

    def request(
        self,
        exchange: int,
        outcome: int,
        nobid: int,
        quirks: int,
        duration_us: int,
        lookup: int = NO_LOOKUP,
        decision: Decision | None = None,
        sampled: bool = False,
        signals: int = UNREAD,
    ) -> None:
        """One request answered: how it ended, what its look-up and the core found.

        signals: `Privacy` of the request
        """
        if lookup != NO_LOOKUP:
            self.lookup(lookup)
        if decision is not None:
            self.decision(exchange, decision, sampled, outcome == Outcome.BID)
        if signals != UNREAD:
            refused = decision is not None and bool(decision.data[0]["head"]["opted_out"])
            self._consent(signals, refused)
        column = self._column
        column["requests"][exchange, outcome] += 1
        if nobid:
            column["nobids"][nobid] += 1
        column["latency_us"][exchange, bucket_of(duration_us)] += 1
        column["latency_sum_us"][exchange] += max(duration_us, 0)
        for bit in range(QUIRKS_MAX):
            if quirks >> bit & 1:
                column["quirks"][exchange, bit] += 1

    def _consent(self, signals: int, refused: bool) -> None:
        """What forbids personal data on a request; refused: by the person's record."""
        consent = self._column["consent"]
        for signal in Privacy:
            if signals & signal:
                consent[int(signal).bit_length() - 1] += 1
        if refused:
            consent[CONSENT_RECORD] += 1
        if not signals and not refused:
            consent[CONSENT_NONE] += 1

    def decision(self, exchange: int, decision: Decision, sampled: bool, sent: bool = True) -> None:
        """What the core found; `sampled` ones add to the funnel of line items.

        sent: whether its bids went out; those that were too late did not
        """
        column, data = self._column, decision.data[0]
        head = data["head"]
        column["eligible"] += head["eligible_count"]
        column["scored"] += head["scored_count"]
        column["contextual"][int(head["contextual"])] += 1
        for drop in data["drops"][: head["drops_count"]]:
            column["rejects"][drop["reason"]] += 1
            if sampled:
                self._funnel_add(int(drop["line_item"]), int(drop["reason"]))
        for bid in data["bids"][: head["bids_count"]]:
            if bid["chosen"] and sent:
                column["bids"][exchange, bid["media"]] += 1
                column["bid_prices"][exchange, price_bucket_of(int(bid["price_micros"]))] += 1
                column["bid_price_micros"][exchange] += bid["price_micros"]
                if sampled:
                    self._funnel_add(int(bid["line_item"]), FUNNEL_BID)

    def _funnel_add(self, line_item: int, reason: int) -> None:
        if line_item < len(self._funnel) and reason >= FUNNEL_FIRST_REASON:
            self._funnel[line_item, reason - FUNNEL_FIRST_REASON] += 1

    def stage(self, stage: int, duration_us: int) -> None:
        """The time of one stage of a sampled request."""
        self._column["stages_us"][stage, bucket_of(duration_us)] += 1
        self._column["stages_sum_us"][stage] += max(duration_us, 0)

    def lookup(self, outcome: int) -> None:
        """One profile look-up."""
        self._column["lookups"][outcome] += 1

    def looked_up(self, duration_us: int) -> None:
        """How long one profile look-up took."""
        self._column["lookup_us"][bucket_of(duration_us)] += 1
        self._column["lookup_sum_us"] += max(duration_us, 0)

    def http(self, what: int) -> None:
        """One event of the HTTP layer."""
        self._column["http"][what] += 1

    def notice(self, kind: int, result: int) -> None:
        """What became of one notice; kind 0 where that could not be read."""
        self._column["notices"][kind, result] += 1

    def gauge(self, which: int, value: int) -> None:
        """Sets a figure of the moment."""
        self._column["gauges"][which] = value
