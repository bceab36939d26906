# Written by ext/layouts.py from rtb/stores/board.py. Do not edit.

from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t,
    uint8_t, uint16_t, uint32_t, uint64_t,
)

cdef enum:
    BOARD_VERSION = 4
    BOARD_EXCHANGES_MAX = 32
    BOARD_NOBIDS_MAX = 32
    BOARD_REJECTS_MAX = 128
    BOARD_QUIRKS_MAX = 16
    BOARD_KINDS_MAX = 16
    BOARD_RESULTS_MAX = 16
    BOARD_BUCKETS = 160
    BOARD_PRICE_BUCKETS = 16
    BOARD_CONSENT_NONE = 7
    BOARD_CONSENT_RECORD = 8
    BOARD_CONSENT_MAX = 16
    BOARD_UNREAD = -1
    BOARD_FUNNEL_REASONS = 64
    BOARD_FUNNEL_FIRST_REASON = 64
    BOARD_NO_LOOKUP = -1
    BOARD_FUNNEL_BID = 127
    BOARD_FUNNEL_SAMPLE = 32
    BOARD_STAGE_SAMPLE = 16
    BOARD_STAGES_COUNT = 6
    BOARD_CURRENCIES_MAX = 16
    BOARD_OUTCOMES_MAX = 64
    BOARD_LETTERS_MAX = 16
    BOARD_PACING_MODES_MAX = 8

cdef struct Column:
    uint64_t requests[32][6]
    uint64_t latency_us[32][160]
    uint64_t latency_sum_us[32]
    uint64_t nobids[32]
    uint64_t rejects[128]
    uint64_t quirks[32][16]
    uint64_t bids[32][8]
    uint64_t bid_prices[32][16]
    uint64_t bid_price_micros[32]
    uint64_t stages_us[6][160]
    uint64_t stages_sum_us[6]
    uint64_t lookups[8]
    uint64_t lookup_us[160]
    uint64_t lookup_sum_us
    uint64_t consent[16]
    uint64_t contextual[8]
    uint64_t eligible
    uint64_t scored
    uint64_t http[16]
    uint64_t notices[16][16]
    int64_t gauges[32]
