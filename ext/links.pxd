# Written by ext/layouts.py from rtb/base/links.py and rtb/base/events.py. Do not edit.

from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t,
    uint8_t, uint16_t, uint32_t, uint64_t,
)

cdef enum:
    LINKS_BIDS_MAX = 256
    LINKS_CLAIMS_CHARS = 96
    LINKS_TAG_CHARS = 11
    LINKS_SLOTS_MAX = 16
    LINKS_SHEET_CHARS_MAX = 272
    LINKS_LINKS_COUNT = 14
    PLACE_WIN = 0
    PLACE_BILL = 1
    PLACE_LOSS = 2
    PLACE_IMPRESSION = 3
    PLACE_VIEW = 4
    PLACE_CLICK = 5
    PLACE_VIDEO = 6

cdef struct Claims:
    uint8_t version
    uint8_t key
    uint8_t flags
    uint8_t media
    uint32_t exchange
    uint64_t bid
    uint64_t line_item
    uint64_t creative
    uint64_t product
    uint64_t person
    uint64_t target
    int64_t price_micros
    uint64_t rate_e9

cdef struct BidRecord:
    Claims claims
    int64_t reserve_nanos
    int64_t time_ms
    uint16_t worker
    uint16_t at
    uint32_t spare

cdef struct LinkRecord:
    uint8_t version
    uint8_t count
    uint16_t spare
    uint32_t spare2
    int64_t time_ms
    uint64_t person
    uint64_t others[7]
    uint8_t ways[8]

cdef struct Sheet:
    uint64_t bid
    uint64_t chars
    uint8_t text[272]
