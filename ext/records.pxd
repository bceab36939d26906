# Written by ext/layouts.py from rtb/base/records.py. Do not edit.

from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t,
    uint8_t, uint16_t, uint32_t, uint64_t,
)

cdef enum:
    ASSETS_MAX = 128
    BIDS_MAX = 256
    CURRENCIES_MAX = 8
    DEALS_MAX = 128
    DROPS_MAX = 8192
    DURFLOORS_MAX = 128
    FORMATS_MAX = 256
    IDS_MAX = 16
    IMPS_MAX = 32
    RATES_MAX = 64
    RQDDURS_MAX = 16
    TOKENS_MAX = 4096
    ZONES_MAX = 512
    DIM_EXCHANGE = 1
    DIM_CHANNEL = 2
    DIM_MEDIA = 3
    DIM_SIZE = 4
    DIM_COUNTRY = 5
    DIM_REGION = 6
    DIM_CITY = 7
    DIM_POSTCODE = 8
    DIM_METRO = 9
    DIM_DEVICE_TYPE = 10
    DIM_OS = 11
    DIM_BROWSER = 12
    DIM_CONNECTION = 13
    DIM_CARRIER = 14
    DIM_LANGUAGE = 15
    DIM_PUBLISHER = 16
    DIM_DOMAIN = 17
    DIM_BUNDLE = 18
    DIM_PAGE_CATEGORY = 19
    DIM_KEYWORD = 20
    DIM_CONTENT_LANGUAGE = 21
    DIM_CONTENT_GENRE = 22
    DIM_CONTENT_RATING = 23
    DIM_AUDIENCE = 24
    DIM_DATA_SEGMENT = 25
    DIM_KEY_VALUE = 26
    DIM_HOUR_OF_WEEK = 27
    DIM_POSITION = 28
    DIM_PLACEMENT = 29
    DIM_TAG = 30
    DIM_INTERSTITIAL = 31
    DIM_REWARDED = 32
    DIM_DEAL = 33
    DIM_VENUE = 34
    DIM_MAKE = 35
    DIM_MODEL = 36
    DIM_CONTENT_CHANNEL = 37
    DIM_USER_KEYWORD = 38
    DIM_GEO_CELL = 39
    DIM_ANY_PLACE = 40
    DIM_ANY_AREA = 41
    DIM_ANY_CONTENT = 42
    DIM_ANY_DEVICE = 43
    DIM_ANY_PERSON = 44
    DIM_OS_VERSION = 50
    DIM_VIEWABILITY = 51
    DIM_DISTANCE = 52
    DIM_BCAT = 64
    DIM_ACAT = 65
    DIM_BADV = 66
    DIM_BAPP = 67
    DIM_WSEAT = 68
    DIM_BSEAT = 69
    DIM_WLANG = 70
    DIM_DEAL_WSEAT = 71
    DIM_DEAL_WADOMAIN = 72
    DIM_ITEM = 80
    DIM_CATEGORY = 81
    DIM_CAP = 82
    DIM_PERSON = 83
    DIM_OPT_OUT = 84
    DIM_AD = 96
    MEDIA_NONE = 0
    MEDIA_BANNER = 1
    MEDIA_VIDEO = 2
    MEDIA_AUDIO = 3
    MEDIA_NATIVE = 4
    PRIVACY_GDPR = 1
    PRIVACY_GPP = 2
    PRIVACY_US_PRIVACY = 4
    PRIVACY_COPPA = 8
    PRIVACY_LMT = 16
    PRIVACY_DNT = 32
    PRIVACY_GPC = 64
    FLAG_TEST = 1
    FLAG_ALLIMPS = 2
    FLAG_BLOCKS_OVERFLOW = 4
    FLAG_TOKENS_OVERFLOW = 8
    FLAG_IMPS_OVERFLOW = 16
    FLAG_HAS_GEO = 32
    FLAG_HAS_UTCOFFSET = 64
    FLAG_HAS_CUR = 128
    FLAG_DEALS_OVERFLOW = 256
    FLAG_UNUSABLE = 512
    IMP_INTERSTITIAL = 1
    IMP_SECURE = 2
    IMP_REWARDED = 4
    IMP_PRIVATE_AUCTION = 8
    IMP_HAS_VIEWABILITY = 16
    IMP_NATIVE_WRAPPED = 32
    IMP_NATIVE_PRIVACY = 64
    IMP_UNUSABLE = 128
    ID_BUYERUID = 1
    ID_USER = 2
    ID_IFA = 3
    ID_EID = 4
    QUIRK_NUMBER_AS_STRING = 1
    QUIRK_FLOAT_AS_INT = 2
    QUIRK_BOOL_AS_INT = 4
    QUIRK_STRING_AS_NUMBER = 8
    QUIRK_NATIVE_OBJECT = 16
    QUIRK_OLD_HOME = 32
    QUIRK_SCALAR_AS_LIST = 64
    QUIRK_WRONG_TYPE_IGNORED = 128
    QUIRK_BAD_VALUE_IGNORED = 256
    QUIRK_SITE_AND_APP = 512
    QUIRK_DUPLICATE_IMP_ID = 1024
    QUIRK_LIST_TRUNCATED = 2048
    QUIRK_OTHER_NOTATION = 4096
    HOLE_NONE = 0
    HOLE_BID_ID = 1
    HOLE_WIDTH = 2
    HOLE_HEIGHT = 3
    HOLE_NATIVE = 4
    HOLE_CACHEBUSTER = 5
    HOLE_AUCTION_ID = 6
    HOLE_IMP_ID = 7
    HOLE_DSA = 8
    HOLE_CLICK_URL = 9
    HOLE_IMPRESSION_URL = 10
    HOLE_VIEW_URL = 11
    HOLE_VIDEO_URL = 12
    ESCAPE_NONE = 0
    ESCAPE_HTML = 1
    ESCAPE_URL = 2
    OVERLAY_PAUSED = 1
    OVERLAY_EXHAUSTED = 2
    OVERLAY_OUT_OF_STOCK = 4
    REJECT_NONE = 0
    REJECT_TARGETING_EXPRESSION = 64
    REJECT_PAUSED = 65
    REJECT_FLIGHT = 66
    REJECT_DEAL_ONLY = 67
    REJECT_PRIVATE_AUCTION = 68
    REJECT_DEAL_SEAT = 69
    REJECT_SEAT = 70
    REJECT_NEEDS_PROFILE = 71
    REJECT_OPTED_OUT = 72
    REJECT_FREQUENCY_CAP = 73
    REJECT_TRUNCATED = 74
    REJECT_BELOW_SHORTLIST = 75
    REJECT_EXHAUSTED = 76
    REJECT_PACED = 77
    REJECT_MEDIA = 80
    REJECT_SIZE = 81
    REJECT_SECURE = 82
    REJECT_CREATIVE_TYPE = 83
    REJECT_CREATIVE_ATTRIBUTE = 84
    REJECT_MIME = 85
    REJECT_API = 86
    REJECT_PROTOCOL = 87
    REJECT_DURATION = 88
    REJECT_BITRATE = 89
    REJECT_LINEARITY = 90
    REJECT_SKIP = 91
    REJECT_LANGUAGE = 92
    REJECT_EXPANDABLE = 93
    REJECT_NATIVE_ASSET = 94
    REJECT_BLOCKED_CATEGORY = 95
    REJECT_NOT_ALLOWED_CATEGORY = 96
    REJECT_BLOCKED_ADVERTISER = 97
    REJECT_BLOCKED_APP = 98
    REJECT_DEAL_ADVERTISER = 99
    REJECT_RATING = 100
    REJECT_DELIVERY = 101
    REJECT_OUT_OF_STOCK = 102
    REJECT_PURCHASED_ITEM = 103
    REJECT_PURCHASED_CATEGORY = 104
    REJECT_TRANSPARENCY = 106
    REJECT_EXCHANGE_STATUS = 105
    REJECT_NO_VALUE = 110
    REJECT_CURRENCY = 111
    REJECT_BELOW_FLOOR = 112
    REJECT_BELOW_DEAL_FLOOR = 113
    REJECT_OVER_MAX_BID = 114
    REJECT_FIXED_PRICE_UNKNOWN = 115
    REJECT_OUTRANKED = 120
    REJECT_SEPARATION = 121
    REJECT_POD_FULL = 122
    REJECT_BUDGET = 123
    REJECT_DEADLINE = 124
    REJECT_MULTIPLIER = 125
    NOBID_BID = 0
    NOBID_NO_CANDIDATE = 1
    NOBID_MALFORMED = 2
    NOBID_UNSUPPORTED_CURRENCY = 3
    NOBID_TOO_LARGE = 4
    NOBID_TIMEOUT = 5
    NOBID_SHED = 6
    NOBID_SEAT_BLOCKED = 7
    NOBID_NO_SNAPSHOT = 8
    NOBID_DRAINING = 9
    NOBID_NO_IMPRESSION = 10
    NOBID_PAID_BIDDING_STOPPED = 11
    NOBID_UNSUPPORTED_VERSION = 12
    NOBID_TMAX_TOO_SHORT = 13

cdef struct Token:
    uint64_t hash_
    int32_t off
    int32_t len_
    uint16_t dim
    int16_t imp

cdef struct Identifier:
    int32_t off
    int32_t len_
    int32_t source_off
    int32_t source_len
    uint16_t kind
    uint16_t atype

cdef struct Format:
    int32_t w
    int32_t h
    int32_t wmin
    int32_t wratio
    int32_t hratio
    int32_t wmax
    int32_t hmin
    int32_t hmax

cdef struct DurFloor:
    int64_t floor_micros
    int32_t mindur_s
    int32_t maxdur_s

cdef struct Asset:
    int32_t id
    uint8_t kind
    uint8_t required
    int16_t type
    int32_t len_
    int32_t w
    int32_t h
    int32_t wmin
    int32_t hmin
    int32_t minduration_s
    int32_t maxduration_s
    uint32_t protocols
    uint64_t mimes

cdef struct Deal:
    uint64_t hash_
    int64_t floor_micros
    int64_t mincpmpersec_micros
    int32_t id_off
    int32_t id_len
    uint32_t floor_cur
    int32_t durfloors_start
    int32_t durfloors_count
    int16_t imp
    uint8_t at
    uint8_t guaranteed
    uint8_t has_wseat
    uint8_t has_wadomain

cdef struct Av:
    uint64_t mimes
    uint64_t battr
    uint64_t podid
    int64_t mincpmpersec_micros
    uint32_t protocols
    uint32_t api
    uint32_t playbackmethod
    uint32_t delivery
    int32_t minduration_s
    int32_t maxduration_s
    int32_t rqddurs_s[16]
    int32_t startdelay_s
    int32_t w
    int32_t h
    int32_t plcmt
    int32_t skipmin_s
    int32_t skipafter_s
    int32_t minbitrate_kbps
    int32_t maxbitrate_kbps
    int32_t maxextended_s
    int32_t poddur_s
    int32_t maxseq
    int32_t podseq
    int32_t slotinpod
    int32_t durfloors_start
    int32_t durfloors_count
    uint8_t offered
    uint8_t linearity
    int8_t skip
    uint8_t boxing
    uint32_t poddedupe

cdef struct Imp:
    int64_t floor_micros
    uint64_t banner_battr
    uint64_t banner_mimes
    uint64_t native_battr
    double viewability
    double multiplier
    double dt_ms
    int32_t id_off
    int32_t id_len
    uint32_t floor_cur
    uint32_t flags
    uint32_t media
    uint32_t banner_btype
    uint32_t banner_api
    uint32_t banner_expdir
    int32_t formats_start
    int32_t formats_count
    int32_t pos
    uint32_t native_api
    int32_t native_ver
    uint32_t native_events
    int32_t native_plcmttype
    int32_t assets_start
    int32_t assets_count
    int32_t deals_start
    int32_t deals_count
    int32_t exp_s
    int32_t ssai
    int32_t clickbrowser
    Av video
    Av audio

cdef struct Head:
    uint64_t id_hash
    double lat
    double lon
    int64_t os_version
    int32_t id_off
    int32_t id_len
    int32_t at
    int32_t tmax_ms
    uint32_t flags
    uint32_t privacy
    uint32_t quirks
    int32_t channel
    int32_t cattax
    int32_t utcoffset_min
    int32_t devicetype
    int32_t dsarequired
    int32_t pubrender
    uint32_t cur[8]
    int32_t cur_count
    int32_t imps_count
    int32_t formats_count
    int32_t tokens_count
    int32_t deals_count
    int32_t durfloors_count
    int32_t assets_count
    int32_t ids_count
    uint32_t blocks

cdef struct Facts:
    Head head
    Identifier ids[16]
    Imp imps[32]
    Deal deals[128]
    Format formats[256]
    DurFloor durfloors[128]
    Asset assets[128]
    Token tokens[4096]

cdef struct Bid:
    int64_t price_micros
    int64_t value_micros
    int64_t floor_micros
    double ctr
    double cvr
    int32_t line_item
    int32_t creative
    int32_t w
    int32_t h
    int32_t dur_s
    int32_t product
    int16_t imp
    int16_t deal
    int16_t group
    uint16_t rank
    uint8_t media
    uint8_t protocol
    uint8_t chosen
    uint8_t at

cdef struct Drop:
    int32_t line_item
    int32_t creative
    int16_t imp
    uint16_t reason

cdef struct DecisionHead:
    int32_t nobid
    uint32_t cur
    int32_t bids_count
    int32_t drops_count
    int32_t eligible_count
    int32_t scored_count
    int32_t contextual
    int32_t generation
    int32_t opted_out

cdef struct DecisionData:
    DecisionHead head
    Bid bids[256]
    Drop drops[8192]

cdef struct Rate:
    double rate
    uint32_t cur

cdef struct Zone:
    uint64_t hash_
    int32_t utcoffset_min

cdef struct TermsData:
    uint64_t exchange
    uint64_t seat_w
    uint64_t seat_b
    uint64_t seat_dw
    int32_t at_default
    uint32_t cur_default
    uint32_t currencies[8]
    int32_t currencies_count
    int32_t candidates_max
    int32_t exhaustive
    int32_t generation
    int32_t rates_count
    int32_t zones_count
    Rate rates[64]
    Zone zones[512]

cdef struct OverlayRow:
    uint32_t multiplier_e6
    uint16_t participation_e4
    uint8_t bits
    uint8_t spare
