# Written by ext/layouts.py from rtb/catalogue/snapshot.py and rtb/profiles/record.py. Do not edit.

from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t,
    uint8_t, uint16_t, uint32_t, uint64_t,
)

cdef enum:
    SNAP_FORMAT_VERSION = 3
    SNAP_BLOCK_WORDS = 8
    SNAP_CACHE_LINE = 64
    SNAP_OPEN_MARKET = 1
    SNAP_REPEAT = 2
    SNAP_NEEDS_PROFILE = 4
    SNAP_EXPECTED = 8
    SNAP_GOAL_CPM = 1
    SNAP_GOAL_CPC = 2
    SNAP_GOAL_CPA = 3
    SNAP_GOAL_ROAS = 4
    SNAP_PACING_EVEN = 1
    SNAP_PACING_AHEAD = 2
    SNAP_PACING_ASAP = 3
    SNAP_PACING_TRAFFIC = 4
    SNAP_NO_LIMIT = -1
    SNAP_STACK_MAX = 32
    SNAP_OP_IN = 1
    SNAP_OP_ALL = 2
    SNAP_OP_ANY = 3
    SNAP_OP_NOT = 4
    SNAP_OP_AT_LEAST = 5
    SNAP_OP_AT_MOST = 6
    SNAP_OP_WITHIN_KM = 7
    SNAP_OP_CONST = 8
    PROFILE_VERSION = 1
    PROFILE_OPT_OUT = 1
    PROFILE_COUNTS_ONLY = 2
    PROFILE_UNCOUNTED = 4
    PROFILE_SEGMENTS_MAX = 512
    PROFILE_ENTRIES_MAX = 512
    PROFILE_OPT_OUTS_MAX = 64
    PROFILE_RECORD_BYTES_MAX = 45600
    PROFILE_LINK_BYTES = 4
    PROFILE_COUNTS_VERSION = 1
    PROFILE_BIDS_MAX = 64
    PROFILE_LINKS_MAX = 32
    PROFILE_CROWD = 128

cdef struct LineItem:
    int32_t creatives_start
    int32_t creatives_count
    int32_t program_start
    int32_t program_count
    int32_t flights_start
    int32_t flights_count
    int32_t deals_start
    int32_t deals_count
    int32_t caps_start
    int32_t caps_count
    int32_t advertiser
    int32_t separation
    int32_t item_window_s
    int32_t category_window_s
    uint32_t currency
    uint8_t goal
    uint8_t flags
    int64_t bid_micros
    int64_t max_cpm_micros
    int64_t order_value_micros
    double target_roas
    double prior_ctr
    double prior_cvr
    double shade
    uint64_t key
    int32_t id_start
    int32_t id_count
    int32_t campaign
    uint8_t padding_[48]

cdef struct Advertiser:
    uint64_t key
    int32_t id_start
    int32_t id_count
    int32_t seats_start
    int32_t seats_count

cdef struct Campaign:
    int32_t id_start
    int32_t id_count
    int32_t advertiser

cdef struct Seat:
    uint64_t exchange
    uint64_t hash_w
    uint64_t hash_b
    uint64_t hash_dw
    int32_t text_start
    int32_t text_count

cdef struct Flight:
    int64_t start_ms
    int64_t end_ms

cdef struct Cap:
    uint64_t hash_
    int32_t count
    int32_t window_s

cdef struct Creative:
    uint64_t attr
    uint64_t mime
    uint64_t language
    uint32_t api
    int32_t w
    int32_t h
    int32_t product
    int32_t categories_start
    int32_t categories_count
    int32_t domains_start
    int32_t domains_count
    int32_t statuses_count
    uint8_t media
    uint8_t btype
    uint8_t secure
    uint8_t expand
    uint64_t key
    uint64_t item
    uint64_t bundle
    int32_t dur_s
    int32_t skip_s
    int32_t renditions_start
    int32_t renditions_count
    int32_t assets_start
    int32_t assets_count
    int32_t statuses_start
    uint8_t available
    uint8_t protocol
    uint8_t linearity
    uint8_t rating
    uint8_t dsa
    int32_t caps_count
    int32_t caps_start
    int32_t codes_start
    int32_t codes_count
    int32_t adomains_start
    int32_t adomains_count
    int32_t features_start
    int32_t features_count
    int32_t frame_start
    int32_t frame_count
    int32_t id_start
    int32_t id_count
    uint8_t padding_[16]

cdef struct Product:
    uint64_t item
    int64_t price_micros
    int32_t categories_start
    int32_t categories_count
    int32_t id_start
    int32_t id_count
    uint8_t available

cdef struct Code:
    int32_t taxonomy
    int32_t ordinal
    int32_t parent
    int32_t told

cdef struct Rendition:
    uint64_t url
    uint64_t mime
    int32_t bitrate_kbps
    int32_t w
    int32_t h
    uint8_t delivery

cdef struct AdAsset:
    int32_t text_start
    int32_t text_count
    int32_t chars
    int32_t w
    int32_t h
    int32_t dur_s
    uint64_t mime
    int16_t protocol
    uint8_t kind
    uint8_t type

cdef struct Piece:
    int32_t text_start
    int32_t text_count
    uint16_t hole
    uint8_t event
    uint8_t escape

cdef struct DimRow:
    int32_t dim
    int32_t free_row
    int32_t has_excludes
    int32_t per_imp

cdef struct Value:
    uint64_t hash_
    int32_t dim
    int32_t include_row
    int32_t exclude_row
    int32_t ordinal

cdef struct Row:
    int64_t start
    int64_t summary
    int32_t count
    int32_t sparse

cdef struct Op:
    int32_t op
    int32_t dim
    int32_t start
    int32_t count

cdef struct ProfileHeader:
    uint16_t magic
    uint8_t version
    uint8_t flags
    uint16_t segments_count
    uint16_t items_count
    uint16_t categories_count
    uint16_t caps_count
    uint16_t viewed_count
    uint16_t cart_count
    uint32_t updated_s
    uint16_t opt_outs_count
    uint16_t spare
    uint64_t spare2

cdef struct ProfileEntry:
    uint64_t hash_
    uint32_t time_s
    uint32_t value
