"""The records that cross packages: what an exchange asks (`Opportunity`) and what we decided.

Both are flat: one fixed structure each, as a numpy dtype with C alignment, so that the compiled
decoder writes the very bytes that the readable decoder writes, the engine reads them without
touching a Python object, and a journal can keep them. `ext/records.pxd` mirrors the layouts;
`tests/base/test_records.py` compares them byte by byte.

Text stays text: a `*_off, *_len` pair is a slice of `Opportunity.text`, which holds **raw JSON
string contents** (still escaped), so that an id is echoed byte for byte.

Everything is normalised by the decoder: old homes of fields, quirks and defaults are gone here.
"""

from enum import IntEnum, IntFlag
from types import SimpleNamespace
from typing import Final

import numpy as np

# -- capacities: what one request may hold. Config may lower, never raise them. -------------------
IMPS_MAX: Final = 32  # a page has ten slots, a pod twenty; more is abuse (fault A5)
FORMATS_MAX: Final = 256
TOKENS_MAX: Final = 4096  # block lists dominate: 1,000 domains and 100 categories are real
DEALS_MAX: Final = 128
DURFLOORS_MAX: Final = 128
ASSETS_MAX: Final = 128
IDS_MAX: Final = 16
CURRENCIES_MAX: Final = 8
RQDDURS_MAX: Final = 16
BIDS_MAX: Final = 256
RATES_MAX: Final = 64  # currencies of a rates file
ZONES_MAX: Final = 512  # countries and regions with a clock of their own
DROPS_MAX: Final = 8192


class Dim(IntEnum):
    """Namespaces of tokens. 1..63 can be targeted, and double as `Reject` numbers."""

    EXCHANGE = 1
    CHANNEL = 2  # "site", "app", "dooh"
    MEDIA = 3  # "banner", "video", "audio", "native" (impression)
    SIZE = 4  # "300x250" (impression)
    COUNTRY = 5  # ISO 3166-1 alpha-3
    REGION = 6  # "usa-ca": country, dash, region
    CITY = 7
    POSTCODE = 8
    METRO = 9
    DEVICE_TYPE = 10  # the number of the list
    OS = 11
    BROWSER = 12
    CONNECTION = 13
    CARRIER = 14
    LANGUAGE = 15  # device language, primary subtag
    PUBLISHER = 16  # publisher.id
    DOMAIN = 17  # site.domain and every parent of it
    BUNDLE = 18
    PAGE_CATEGORY = 19  # "cattax:code", and "1:IAB1" besides "1:IAB1-2"
    KEYWORD = 20
    CONTENT_LANGUAGE = 21
    CONTENT_GENRE = 22
    CONTENT_RATING = 23
    AUDIENCE = 24  # our segments, from the profile
    DATA_SEGMENT = 25  # "provider:segment" and ":segment" from user.data
    KEY_VALUE = 26  # "key=value"
    HOUR_OF_WEEK = 27  # "0".."167", Monday 00:00 = 0, in the user's zone; made by decide
    POSITION = 28  # impression: pos
    PLACEMENT = 29  # "plcmt:1", "placement:4", "native:2" (impression)
    TAG = 30  # impression: tagid and gpid
    INTERSTITIAL = 31  # impression: "0", "1"
    REWARDED = 32  # impression: "0", "1"
    DEAL = 33  # impression: deal ids
    VENUE = 34  # dooh.venuetype
    MAKE = 35
    MODEL = 36
    CONTENT_CHANNEL = 37  # content.channel / network name or id
    USER_KEYWORD = 38
    # made by the compiler for its index, and by decide from what the request says
    GEO_CELL = 39  # half a degree of latitude and longitude, see `hashing.cell_hash`
    ANY_PLACE = 40  # "one of these sites or apps": values of several dimensions, see `UNIONS`
    ANY_AREA = 41
    ANY_CONTENT = 42
    ANY_DEVICE = 43
    ANY_PERSON = 44
    # numbers: compared, never hashed; only in expressions
    OS_VERSION = 50  # packed, see `pack_version`
    VIEWABILITY = 51  # 0..1, imp.metric
    DISTANCE = 52  # km from a point
    # 64..: not for targeting
    BCAT = 64  # "cattax:code"
    ACAT = 65
    BADV = 66
    BAPP = 67
    WSEAT = 68
    BSEAT = 69
    WLANG = 70
    DEAL_WSEAT = 71  # Token.imp holds the deal's index
    DEAL_WADOMAIN = 72  # Token.imp holds the deal's index
    ITEM = 80  # "advertiser/product id"
    CATEGORY = 81  # "advertiser/category path"
    CAP = 82  # "level/id/window_s"
    PERSON = 83
    OPT_OUT = 84  # "advertiser id"
    AD = 96  # ad-side model features: "creative:..", "line_item:.."


# Dimensions whose tokens may belong to one impression; they see the request's tokens too.
PER_IMP_DIMS: Final = frozenset(
    {
        Dim.MEDIA, Dim.SIZE, Dim.KEY_VALUE, Dim.POSITION, Dim.PLACEMENT, Dim.TAG,
        Dim.INTERSTITIAL, Dim.REWARDED, Dim.DEAL,
    }
)  # fmt: skip
# Dimensions that say something about a person: unseen when any `Privacy` bit is set.
PERSONAL_DIMS: Final = frozenset({Dim.AUDIENCE, Dim.DATA_SEGMENT, Dim.USER_KEYWORD, Dim.POSTCODE})


# Unions: an alternative between values of these dimensions is indexed as one dimension.
UNIONS: Final[dict[Dim, Dim]] = {
    Dim.PUBLISHER: Dim.ANY_PLACE, Dim.DOMAIN: Dim.ANY_PLACE, Dim.BUNDLE: Dim.ANY_PLACE,
    Dim.CONTENT_CHANNEL: Dim.ANY_PLACE, Dim.VENUE: Dim.ANY_PLACE,
    Dim.COUNTRY: Dim.ANY_AREA, Dim.REGION: Dim.ANY_AREA, Dim.CITY: Dim.ANY_AREA,
    Dim.POSTCODE: Dim.ANY_AREA, Dim.METRO: Dim.ANY_AREA,
    Dim.PAGE_CATEGORY: Dim.ANY_CONTENT, Dim.KEYWORD: Dim.ANY_CONTENT,
    Dim.CONTENT_GENRE: Dim.ANY_CONTENT, Dim.CONTENT_RATING: Dim.ANY_CONTENT,
    Dim.CONTENT_LANGUAGE: Dim.ANY_CONTENT,
    Dim.DEVICE_TYPE: Dim.ANY_DEVICE, Dim.OS: Dim.ANY_DEVICE, Dim.BROWSER: Dim.ANY_DEVICE,
    Dim.MAKE: Dim.ANY_DEVICE, Dim.MODEL: Dim.ANY_DEVICE, Dim.CARRIER: Dim.ANY_DEVICE,
    Dim.CONNECTION: Dim.ANY_DEVICE,
    Dim.AUDIENCE: Dim.ANY_PERSON, Dim.DATA_SEGMENT: Dim.ANY_PERSON,
    Dim.USER_KEYWORD: Dim.ANY_PERSON,
}  # fmt: skip


class Media(IntEnum):
    """`bid.mtype` (OpenRTB 2.6 section 4.2.3)."""

    NONE = 0
    BANNER = 1
    VIDEO = 2
    AUDIO = 3
    NATIVE = 4


class Privacy(IntFlag):
    """Signals that forbid personal data on a request. Any of them: contextual decision only."""

    GDPR = 1
    GPP = 2
    US_PRIVACY = 4
    COPPA = 8
    LMT = 16
    DNT = 32
    GPC = 64


class Flag(IntFlag):
    """Facts about a request that are one bit."""

    TEST = 1
    ALLIMPS = 2
    BLOCKS_OVERFLOW = 4  # a block list did not fit: no bid is safe
    TOKENS_OVERFLOW = 8  # targeting tokens did not fit: the rest is unknown
    IMPS_OVERFLOW = 16  # more impressions than the limit: the rest is not bid on
    HAS_GEO = 32  # lat, lon are usable
    HAS_UTCOFFSET = 64
    HAS_CUR = 128
    DEALS_OVERFLOW = 256
    UNUSABLE = 512  # valid JSON, but nothing in it can be bid on


class ImpFlag(IntFlag):
    """Facts about an impression that are one bit."""

    INTERSTITIAL = 1
    SECURE = 2
    REWARDED = 4
    PRIVATE_AUCTION = 8
    HAS_VIEWABILITY = 16
    NATIVE_WRAPPED = 32  # native 1.0: answer in {"native": ...}
    NATIVE_PRIVACY = 64
    UNUSABLE = 128  # impossible values: never bid on it, others go on


class IdKind(IntEnum):
    """Which identifier of a person: the order is the order of trust for a look-up."""

    BUYERUID = 1
    USER = 2  # user.id, meaningful per exchange
    IFA = 3
    EID = 4  # source + id


class Overlay(IntFlag):
    """What keeps a line item from bidding though the catalogue lets it (`OVERLAY.bits`)."""

    PAUSED = 1
    EXHAUSTED = 2  # no budget for one more impression
    OUT_OF_STOCK = 4


class Quirk(IntFlag):
    """Deviations that were accepted, and are counted per exchange."""

    NUMBER_AS_STRING = 1
    FLOAT_AS_INT = 2
    BOOL_AS_INT = 4
    STRING_AS_NUMBER = 8  # a number where a string belongs
    NATIVE_OBJECT = 16
    OLD_HOME = 32  # a field in its place of an older version
    SCALAR_AS_LIST = 64
    WRONG_TYPE_IGNORED = 128
    BAD_VALUE_IGNORED = 256
    SITE_AND_APP = 512
    DUPLICATE_IMP_ID = 1024
    LIST_TRUNCATED = 2048
    OTHER_NOTATION = 4096  # alpha-2 for alpha-3, seconds for milliseconds, a misspelled key


def _struct(*fields: tuple[str, object] | tuple[str, object, int]) -> np.dtype:
    return np.dtype(list(fields), align=True)


TOKEN = _struct(
    ("hash", "u8"),
    ("off", "i4"),
    ("len", "i4"),
    ("dim", "u2"),
    ("imp", "i2"),  # -1: the request's; else index of the imp (or of the deal, for DEAL_*)
)
IDENTIFIER = _struct(
    ("off", "i4"),
    ("len", "i4"),
    ("source_off", "i4"),  # eid source
    ("source_len", "i4"),
    ("kind", "u2"),
    ("atype", "u2"),
)
# A size; else, w and h 0, a ratio from `wmin` on; else a range, 0: open.
FORMAT = _struct(
    ("w", "i4"),
    ("h", "i4"),
    ("wmin", "i4"),
    ("wratio", "i4"),
    ("hratio", "i4"),
    ("wmax", "i4"),
    ("hmin", "i4"),
    ("hmax", "i4"),
)
DURFLOOR = _struct(
    ("floor_micros", "i8"),
    ("mindur_s", "i4"),  # 0: open
    ("maxdur_s", "i4"),  # 0: open
)
ASSET = _struct(
    ("id", "i4"),
    ("kind", "u1"),  # 1 title 2 img 3 video 4 data
    ("required", "u1"),
    ("type", "i2"),  # img or data type
    ("len", "i4"),  # title, data: most characters; 0 = open
    ("w", "i4"),
    ("h", "i4"),
    ("wmin", "i4"),
    ("hmin", "i4"),
    ("minduration_s", "i4"),
    ("maxduration_s", "i4"),
    ("protocols", "u4"),
    ("mimes", "u8"),  # 0: all
)
DEAL = _struct(
    ("hash", "u8"),  # token_hash(Dim.DEAL, id)
    ("floor_micros", "i8"),
    ("mincpmpersec_micros", "i8"),
    ("id_off", "i4"),
    ("id_len", "i4"),
    ("floor_cur", "u4"),
    ("durfloors_start", "i4"),
    ("durfloors_count", "i4"),
    ("imp", "i2"),
    ("at", "u1"),  # 0: as the request
    ("guaranteed", "u1"),
    ("has_wseat", "u1"),
    ("has_wadomain", "u1"),
)
# Video or audio placement; absent when `offered` is 0. Masks: bit n = list value n.
AV = _struct(
    ("mimes", "u8"),
    ("battr", "u8"),
    ("podid", "u8"),  # token-like hash, 0 = none
    ("mincpmpersec_micros", "i8"),
    ("protocols", "u4"),  # 0: unknown, all accepted
    ("api", "u4"),
    ("playbackmethod", "u4"),
    ("delivery", "u4"),
    ("minduration_s", "i4"),
    ("maxduration_s", "i4"),  # 0: open
    ("rqddurs_s", "i4", RQDDURS_MAX),  # 0-terminated
    ("startdelay_s", "i4"),
    ("w", "i4"),
    ("h", "i4"),
    ("plcmt", "i4"),
    ("skipmin_s", "i4"),
    ("skipafter_s", "i4"),
    ("minbitrate_kbps", "i4"),
    ("maxbitrate_kbps", "i4"),
    ("maxextended_s", "i4"),  # 0 none, -1 any
    ("poddur_s", "i4"),  # > 0: a dynamic pod
    ("maxseq", "i4"),
    ("podseq", "i4"),
    ("slotinpod", "i4"),
    ("durfloors_start", "i4"),
    ("durfloors_count", "i4"),
    ("offered", "u1"),
    ("linearity", "u1"),  # 0: all
    ("skip", "i1"),  # -1 unknown, 0, 1
    ("boxing", "u1"),
    ("poddedupe", "u4"),  # mask of the list
)
IMP = _struct(
    ("floor_micros", "i8"),
    ("banner_battr", "u8"),
    ("banner_mimes", "u8"),  # 0: all
    ("native_battr", "u8"),
    ("viewability", "f8"),
    ("multiplier", "f8"),  # qty; 1.0 by default
    ("dt_ms", "f8"),
    ("id_off", "i4"),
    ("id_len", "i4"),
    ("floor_cur", "u4"),
    ("flags", "u4"),  # ImpFlag
    ("media", "u4"),  # mask: bit Media
    ("banner_btype", "u4"),
    ("banner_api", "u4"),
    ("banner_expdir", "u4"),  # 0: unknown; else the directions allowed
    ("formats_start", "i4"),
    ("formats_count", "i4"),
    ("pos", "i4"),  # of the first media that says so; -1 unknown
    ("native_api", "u4"),
    ("native_ver", "i4"),  # 10, 11, 12
    ("native_events", "u4"),  # event trackers offered by image: bit event
    ("native_plcmttype", "i4"),
    ("assets_start", "i4"),
    ("assets_count", "i4"),
    ("deals_start", "i4"),
    ("deals_count", "i4"),
    ("exp_s", "i4"),
    ("ssai", "i4"),
    ("clickbrowser", "i4"),
    ("video", AV),
    ("audio", AV),
)
HEAD = _struct(
    ("id_hash", "u8"),  # of the raw id: the seed of everything random about this request
    ("lat", "f8"),
    ("lon", "f8"),
    ("os_version", "i8"),  # pack_version, 0 unknown
    ("id_off", "i4"),
    ("id_len", "i4"),
    ("at", "i4"),  # 1 first price, 2 second price, other values as received; 0 = absent
    ("tmax_ms", "i4"),  # 0 = absent
    ("flags", "u4"),  # Flag
    ("privacy", "u4"),  # Privacy
    ("quirks", "u4"),  # Quirk
    ("channel", "i4"),  # 0 none, 1 site, 2 app, 3 dooh
    ("cattax", "i4"),  # of bcat, acat
    ("utcoffset_min", "i4"),
    ("devicetype", "i4"),
    ("dsarequired", "i4"),
    ("pubrender", "i4"),  # regs.ext.dsa.pubrender + 1; 0 = absent
    ("cur", "u4", CURRENCIES_MAX),
    ("cur_count", "i4"),
    ("imps_count", "i4"),
    ("formats_count", "i4"),
    ("tokens_count", "i4"),
    ("deals_count", "i4"),
    ("durfloors_count", "i4"),
    ("assets_count", "i4"),
    ("ids_count", "i4"),
    ("blocks", "u4"),  # which block lists are present: bit (dim - Dim.BCAT)
)
FACTS = _struct(
    ("head", HEAD),
    ("ids", IDENTIFIER, IDS_MAX),
    ("imps", IMP, IMPS_MAX),
    ("deals", DEAL, DEALS_MAX),
    ("formats", FORMAT, FORMATS_MAX),
    ("durfloors", DURFLOOR, DURFLOORS_MAX),
    ("assets", ASSET, ASSETS_MAX),
    ("tokens", TOKEN, TOKENS_MAX),
)

# What we decided. Bids lie in answer order; `group` numbers the competitions (one per impression
# and deal, one per impression for the open market), `rank` the order inside each.
BID = _struct(
    ("price_micros", "i8"),  # CPM, in DecisionHead.cur
    ("value_micros", "i8"),  # expected value CPM, in DecisionHead.cur
    ("floor_micros", "i8"),  # the floor that applied, in DecisionHead.cur
    ("ctr", "f8"),
    ("cvr", "f8"),
    ("line_item", "i4"),
    ("creative", "i4"),
    ("w", "i4"),
    ("h", "i4"),
    ("dur_s", "i4"),
    ("product", "i4"),  # -1 none
    ("imp", "i2"),
    ("deal", "i2"),  # index in Opportunity deals; -1 open market
    ("group", "i2"),
    ("rank", "u2"),
    ("media", "u1"),
    ("protocol", "u1"),
    ("chosen", "u1"),
    ("at", "u1"),  # 1, 2, 3: the auction this price is for
)
DROP = _struct(("line_item", "i4"), ("creative", "i4"), ("imp", "i2"), ("reason", "u2"))
DECISION_HEAD = _struct(
    ("nobid", "i4"),  # NoBid
    ("cur", "u4"),
    ("bids_count", "i4"),
    ("drops_count", "i4"),
    ("eligible_count", "i4"),  # line items that passed the index, summed over impressions
    ("scored_count", "i4"),
    ("contextual", "i4"),  # 1: decided without personal data
    ("generation", "i4"),  # of the snapshot
    ("opted_out", "i4"),  # 1: the record of this person refuses every use
)
DECISION = _struct(
    ("head", DECISION_HEAD),
    ("bids", BID, BIDS_MAX),
    ("drops", DROP, DROPS_MAX),
)

# What the exchange's settings and the node add to a request: the same for many requests.
RATE = _struct(("rate", "f8"), ("cur", "u4"))  # value of one unit in the rates file's base
ZONE = _struct(("hash", "u8"), ("utcoffset_min", "i4"))  # token of a COUNTRY or REGION
TERMS = _struct(
    ("exchange", "u8"),  # token_hash(Dim.EXCHANGE, name)
    ("seat_w", "u8"),  # token_hash(Dim.WSEAT, default seat)
    ("seat_b", "u8"),
    ("seat_dw", "u8"),
    ("at_default", "i4"),
    ("cur_default", "u4"),
    ("currencies", "u4", CURRENCIES_MAX),  # that we may answer in; none = every one with a rate
    ("currencies_count", "i4"),
    ("candidates_max", "i4"),  # of one impression
    ("exhaustive", "i4"),  # 1: candidates without a chance are looked at too, to say why
    ("generation", "i4"),
    ("rates_count", "i4"),
    ("zones_count", "i4"),
    ("rates", RATE, RATES_MAX),
    ("zones", ZONE, ZONES_MAX),  # sorted by hash
)

# What changes faster than the catalogue, a row a line item of the snapshot. The node keeps it up to
# date while requests are decided; a decision sees one version of each row.
OVERLAY = _struct(
    ("multiplier_e6", "u4"),  # of its value, for pacing; over a million counts as a million
    ("participation_e4", "u2"),  # of ten thousand requests it takes part in so many
    ("bits", "u1"),  # Overlay
    ("spare", "u1"),
)
MULTIPLIER_E6_ONE: Final = 1_000_000
PARTICIPATION_E4_ALL: Final = 10_000

# MIME types that masks know, by bit. Names that share a bit are names of one type.
MIMES: Final[dict[str, int]] = {
    "image/jpeg": 1, "image/jpg": 1, "image/png": 2, "image/gif": 3, "image/webp": 4,
    "image/svg+xml": 5, "image/avif": 6,
    "text/html": 8, "application/xhtml+xml": 8, "text/javascript": 9,
    "application/javascript": 9, "application/x-javascript": 9,
    "video/mp4": 16, "video/webm": 17, "video/ogg": 18, "video/x-flv": 19, "video/3gpp": 20,
    "video/quicktime": 21, "video/mpeg": 22, "video/x-ms-wmv": 23,
    "application/x-mpegurl": 24, "application/vnd.apple.mpegurl": 24, "application/dash+xml": 25,
    "video/h264": 26, "video/mp2t": 27,
    "audio/mp4": 32, "audio/mpeg": 33, "audio/mp3": 33, "audio/ogg": 34, "audio/aac": 35,
    "audio/wav": 36, "audio/webm": 37, "audio/mpg": 40, "audio/x-m4a": 41, "audio/flac": 38,
}  # fmt: skip
MIME_UNKNOWN_BIT: Final = 63  # set when a list names only types that we do not know


class Hole(IntEnum):
    """What fills a gap in a pre-rendered bid (`catalogue.snapshot.PIECE`)."""

    NONE = 0  # literal text
    BID_ID = 1
    WIDTH = 2
    HEIGHT = 3
    NATIVE = 4  # the assets of the native answer
    CACHEBUSTER = 5
    AUCTION_ID = 6
    IMP_ID = 7
    DSA = 8  # not a gap: its text stands where the request asks for transparency (regs.ext.dsa)
    # Notice URLs; how they are escaped for their place is the piece's `escape`.
    # The text of a CLICK_URL is the landing page, percent-encoded; without one nothing redirects. A
    # brace does not survive that: `{bid_id}` in it is what an auction fills before it is signed, in
    # the words of `catalogue.render.HOLES`.
    CLICK_URL = 9
    IMPRESSION_URL = 10
    VIEW_URL = 11
    VIDEO_URL = 12  # the piece's `event` is a `rtb.base.events.VideoEvent`


class Escape(IntEnum):
    """How what fills a hole is written for where it stands (`catalogue.snapshot.PIECE`)."""

    NONE = 0  # JSON string contents, as all of a frame is
    HTML = 1  # an attribute of a tag: "&" as an entity
    URL = 2  # percent-encoded, to stand within another URL


class Opportunity:
    """One bid request as facts, decoded from any dialect.

    `facts` is a numpy array of dtype FACTS, shape (1,); `text` is what slices point into. The
    object is reused by its worker: decoders overwrite it, nobody keeps it past the answer.
    """

    __slots__ = ("address", "facts", "text")

    def __init__(self) -> None:
        self.facts = np.zeros(1, dtype=FACTS)
        self.address = self.facts.ctypes.data  # for compiled code; valid while we live
        self.text = b""

    def slice(self, off: int, length: int) -> bytes:
        """The raw JSON text of a slice."""
        return self.text[off : off + length]


class Decision:
    """The answer of the core for one Opportunity: dtype DECISION, shape (1,). Reused likewise."""

    __slots__ = ("address", "data")

    def __init__(self) -> None:
        self.data = np.zeros(1, dtype=DECISION)
        self.address = self.data.ctypes.data


class Terms:
    """One exchange's terms: dtype TERMS, shape (1,). Replaced whole when they change."""

    __slots__ = ("address", "data")

    def __init__(self) -> None:
        self.data = np.zeros(1, dtype=TERMS)
        self.address = self.data.ctypes.data


def as_values(record: np.void) -> SimpleNamespace:
    """A structured row as plain Python values with the same names; nested rows likewise."""
    values = {}
    for name in record.dtype.names or ():
        value = record[name]
        values[name] = (
            as_values(value)
            if isinstance(value, np.void)
            else value.tolist()
            if value.dtype.names is None
            else value
        )
    return SimpleNamespace(**values)


def pack_version(text: str) -> int:
    """A dotted version as one comparable integer: "17.4.1" -> 17_004_001. 0 when unreadable.

    At most three numeric parts count; each saturates at 999 (the first at 999,999).
    """
    parts = [0, 0, 0]
    for index, part in enumerate(text.replace("_", ".").split(".")[:3]):
        digits = ""
        for char in part:
            if char not in "0123456789":
                break
            digits += char
        if not digits:
            break
        parts[index] = min(int(digits[:9]), 999_999 if index == 0 else 999)
    return parts[0] * 1_000_000 + parts[1] * 1_000 + parts[2]
