"""Compiled twin of `rtb.stores.board.Meter`."""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from board cimport *
from records cimport *

from rtb.base.records import Privacy
from rtb.stores.board import PRICE_BOUNDS_MICROS, Outcome

cdef extern from *:
    """
    #define CLZ(x) __builtin_clzll(x)
    """
    int CLZ(uint64_t) noexcept nogil


cdef int BID = Outcome.BID
cdef int SIGNALS = max(Privacy).bit_length()
cdef int64_t[BOARD_PRICE_BUCKETS - 1] PRICE_BOUNDS = PRICE_BOUNDS_MICROS


cdef inline int price_bucket_of(int64_t price_micros) noexcept nogil:
    cdef int bucket = 0
    while bucket < BOARD_PRICE_BUCKETS - 1 and price_micros > PRICE_BOUNDS[bucket]:
        bucket += 1
    return bucket


cdef inline int bucket_of(int64_t us) noexcept nogil:
    cdef int exponent, bucket
    if us < 8:
        return <int>us if us > 0 else 0
    exponent = 63 - CLZ(<uint64_t>us) - 3
    bucket = exponent * 8 + <int>(us >> exponent)
    return bucket if bucket < BOARD_BUCKETS else BOARD_BUCKETS - 1


cdef class Meter:
    """One worker's pen: writes its own column of the board."""

    cdef object keep
    cdef Column *column
    cdef uint32_t *funnel
    cdef int64_t line_items

    def __init__(self, board, int worker):
        cdef uintptr_t at
        self.keep = board
        if not 0 <= worker < board.workers_count:
            raise IndexError(f"worker {worker} of {board.workers_count}")
        at = board.columns.ctypes.data + worker * board.columns.itemsize
        self.column = <Column *>at
        self.line_items = board.line_items_max
        at = board.funnel.ctypes.data + worker * self.line_items * BOARD_FUNNEL_REASONS * 4
        self.funnel = <uint32_t *>at

    def request(
        self, int exchange, int outcome, int nobid, int quirks, int64_t duration_us,
        int lookup=BOARD_NO_LOOKUP, decision=None, bint sampled=False, int signals=BOARD_UNREAD,
    ):
        cdef int bit
        cdef bint refused = False
        cdef uintptr_t at
        cdef Column *column = self.column
        if not 0 <= exchange < BOARD_EXCHANGES_MAX or not 0 <= outcome < 6:
            raise IndexError(f"exchange {exchange}, outcome {outcome}")
        if lookup != BOARD_NO_LOOKUP:
            column.lookups[lookup & 7] += 1
        if decision is not None:
            at = decision.address
            self._decided(exchange, at, sampled, outcome == BID)
            refused = (<DecisionData *>at).head.opted_out
        if signals != BOARD_UNREAD:
            self._consent(signals, refused)
        column.requests[exchange][outcome] += 1
        if 0 < nobid < BOARD_NOBIDS_MAX:
            column.nobids[nobid] += 1
        column.latency_us[exchange][bucket_of(duration_us)] += 1
        if duration_us > 0:
            column.latency_sum_us[exchange] += <uint64_t>duration_us
        if quirks:
            for bit in range(BOARD_QUIRKS_MAX):
                column.quirks[exchange][bit] += quirks >> bit & 1

    def decision(self, int exchange, decision, bint sampled, bint sent=True):
        if not 0 <= exchange < BOARD_EXCHANGES_MAX:
            raise IndexError(f"exchange {exchange}")
        self._decided(exchange, decision.address, sampled, sent)

    cdef inline void _consent(self, int signals, bint refused) noexcept nogil:
        cdef int bit
        if signals:
            for bit in range(SIGNALS):
                self.column.consent[bit] += signals >> bit & 1
        elif not refused:
            self.column.consent[BOARD_CONSENT_NONE] += 1
        self.column.consent[BOARD_CONSENT_RECORD] += refused

    cdef void _decided(self, int exchange, uintptr_t at, bint sampled, bint sent) noexcept:
        cdef DecisionData *data = <DecisionData *>at
        cdef Column *column = self.column
        cdef int i
        column.eligible += <uint64_t>data.head.eligible_count
        column.scored += <uint64_t>data.head.scored_count
        column.contextual[data.head.contextual & 1] += 1
        for i in range(data.head.drops_count):
            column.rejects[data.drops[i].reason & (BOARD_REJECTS_MAX - 1)] += 1
            if sampled:
                self._funnel_add(data.drops[i].line_item, data.drops[i].reason)
        for i in range(data.head.bids_count):
            if data.bids[i].chosen and sent:
                column.bids[exchange][data.bids[i].media & 7] += 1
                column.bid_prices[exchange][price_bucket_of(data.bids[i].price_micros)] += 1
                column.bid_price_micros[exchange] += <uint64_t>data.bids[i].price_micros
                if sampled:
                    self._funnel_add(data.bids[i].line_item, BOARD_FUNNEL_BID)

    cdef inline void _funnel_add(self, int line_item, int reason) noexcept nogil:
        if line_item < self.line_items and (
            BOARD_FUNNEL_FIRST_REASON <= reason < BOARD_FUNNEL_FIRST_REASON + BOARD_FUNNEL_REASONS
        ):
            self.funnel[
                <int64_t>line_item * BOARD_FUNNEL_REASONS + reason - BOARD_FUNNEL_FIRST_REASON
            ] += 1

    def stage(self, int stage, int64_t duration_us):
        if not 0 <= stage < BOARD_STAGES_COUNT:
            raise IndexError(f"stage {stage}")
        self.column.stages_us[stage][bucket_of(duration_us)] += 1
        if duration_us > 0:
            self.column.stages_sum_us[stage] += <uint64_t>duration_us

    def lookup(self, int outcome):
        self.column.lookups[outcome & 7] += 1

    def looked_up(self, int64_t duration_us):
        self.column.lookup_us[bucket_of(duration_us)] += 1
        if duration_us > 0:
            self.column.lookup_sum_us += <uint64_t>duration_us

    def http(self, int what):
        self.column.http[what & 15] += 1

    def notice(self, int kind, int result):
        if not 0 <= kind < BOARD_KINDS_MAX or not 0 <= result < BOARD_RESULTS_MAX:
            raise IndexError(f"kind {kind}, result {result}")
        self.column.notices[kind][result] += 1

    def gauge(self, int which, int64_t value):
        self.column.gauges[which & 31] = value
