"""The fast decoder: twin of `rtb.exchanges.decode`, which states the rules.

One pass over the bytes of a request, straight into `records.Facts`. The grammar is strict JSON,
also for values that nobody reads. Whatever is broken, rare or ambiguous is a *doubt*: `decode`
answers False, and the caller asks the reference. What it answers True to has the facts of the
reference.

    structure   a function that reads a value takes a pointer to it and returns one past it,
                or NULL: doubt
    index       one bit for each byte says where a run of plain text ends: strings are not read,
                their ends are looked up
    members     an object is read by `_members`: a table says for each key whether the value goes
                into a slot (`Val`), is a list of numbers or MIME types, or is its owner's work
    meaning     once an object is read, its slots are read in the order of the reference, with the
                same quirks; what cannot be read here sets `wire.doubt`

A body is NUL-terminated (it is a `bytes`), and NUL is in no JSON: loops end there by themselves.
Several bytes are loaded at once only where so many are left.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memchr, memcmp, memcpy, memset

from records cimport *
from tokens cimport token_end, token_feed, token_start

import random

from rtb.base.hashing import token_hash as _hash
from rtb.base.money import CPM_MICROS_MAX as RULE_CPM_MICROS_MAX
from rtb.base.money import currency_code
from rtb.base.records import MIME_UNKNOWN_BIT as RULE_MIME_UNKNOWN_BIT
from rtb.base.records import MIMES, Dim
from rtb.exchanges import contexts as context_rules
from rtb.exchanges import impressions as imp_rules
from rtb.openrtb import agents as agent_rules
from rtb.openrtb import hosts as host_rules
from rtb.openrtb import lists
from rtb.openrtb import native as native_rules
from rtb.openrtb import reading
from rtb.openrtb.countries import ALPHA3

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #define WIRE_CTZ64(x) __builtin_ctzll(x)
    #if defined(__SSE2__)
    #include <emmintrin.h>
    /* Which of 16 bytes end a run of plain text: quote, backslash, control. */
    static inline uint16_t wire_marks(const uint8_t *p, __m128i *all) {
        __m128i text = _mm_loadu_si128((const __m128i *)p);
        __m128i low = _mm_set1_epi8(0x1f);
        *all = _mm_or_si128(*all, text);
        return (uint16_t)_mm_movemask_epi8(_mm_or_si128(
            _mm_or_si128(_mm_cmpeq_epi8(text, _mm_set1_epi8('"')),
                         _mm_cmpeq_epi8(text, _mm_set1_epi8('\\\\'))),
            _mm_cmpeq_epi8(_mm_max_epu8(text, low), low)));
    }
    #endif
    /* One bit for each byte from p to end and the NUL there: does it end a run of plain text?
       Behind them 64 bits of rest. Returns whether any byte is over 127. */
    static inline int wire_index(const uint8_t *p, const uint8_t *end, uint8_t *bits) {
        uint8_t over = 0;
    #if defined(__SSE2__)
        __m128i all = _mm_setzero_si128();
        for (; end - p >= 16; p += 16, bits += 2) {
            uint16_t marks = wire_marks(p, &all);
            memcpy(bits, &marks, 2);
        }
        over = _mm_movemask_epi8(all) != 0;
    #endif
        for (; p <= end; bits++) {
            uint8_t marks = 0;
            for (int i = 0; i < 8 && p <= end; i++, p++) {
                marks |= (uint8_t)((*p < 32 || *p == '"' || *p == '\\\\') << i);
                over |= *p >> 7;
            }
            *bits = marks;
        }
        memset(bits, 255, 8);
        return over;
    }
    static inline uint64_t wire_load(const uint8_t *p) {
        uint64_t value;
        memcpy(&value, p, 8);
        return value;
    }
    /* ASCII letters of eight bytes lowered. */
    static inline uint64_t wire_lower(uint64_t text) {
        uint64_t low = text & 0x7f7f7f7f7f7f7f7fULL;
        uint64_t letters = (low + 0x3f3f3f3f3f3f3f3fULL) ^ (low + 0x2525252525252525ULL);
        return text | (~text & letters & 0x8080808080808080ULL) >> 2;
    }
    /* `tokens.token_feed` of 1 to 8 bytes in a word, without a branch that chance decides. */
    static inline uint64_t wire_feed_word(uint64_t state, uint64_t word, int64_t n) {
        word = wire_lower(word);
        for (int i = 0; i < 8; i++) {
            uint64_t next = (state ^ (word & 255)) * 0x100000001b3ULL;
            state = i < n ? next : state;
            word >>= 8;
        }
        return state;
    }
    /* The library's own: inlined, gcc clears with `rep stos`, which takes longer to begin. */
    static void *(*volatile wire_memset)(void *, int, size_t) = memset;
    """
    int WIRE_CTZ64(uint64_t) noexcept nogil
    bint wire_index(const uint8_t *p, const uint8_t *end, uint8_t *bits) noexcept nogil
    uint64_t wire_load(const uint8_t *p) noexcept nogil
    uint64_t wire_feed_word(uint64_t state, uint64_t word, int64_t n) noexcept nogil
    void *wire_memset(void *p, int value, size_t n) noexcept nogil

cdef extern from "Python.h":
    # Called for numbers of more than 15 digits only; correctly rounded, as float(Decimal) is. The
    # GIL is held throughout this module, whatever `nogil` says: that only keeps objects out.
    double PyOS_string_to_double(const char *, char **, PyObject *) noexcept nogil

cdef enum:
    # Our own limits; past them the reference reads.
    SKIP_DEPTH_MAX = 44  # below `reading.DEPTH_MAX` with every known object around it
    NUMBER_BYTES_MAX = 40
    SIGNIFICANT_DIGITS_MAX = 18
    ARENA_BYTES = 1 << 19
    BODY_BYTES_CAP = 1 << 18
    SEGMENTS_MAX = 256
    UIDS_MAX = 32
    NAMES_MAX = 64
    VERSION_BYTES_MAX = 128
    # What stands in a slot.
    NOTHING = 0  # no member, null or ""
    SMALL = 1  # 0..999,999,999, in `n`
    INTEGER = 2  # any other integer
    REAL = 3  # with fraction or exponent
    TEXT = 4  # a string as it stands
    ESCAPED = 5  # a string with escapes
    FALSE = 6
    TRUE = 7
    OBJECT = 8
    LIST = 9
    MASK = 10  # a list that was read: bits in `p`, entries in `n`
    DONE = 11  # a list that was read by its owner: entries in `n`
    # How a member is read: added to its slot.
    SLOT = 63
    NUMBERS = 64
    MIME_TYPES = 128
    OWN = 192
    KEYS_BITS = 11
    MIMES_BITS = 9
    UNKNOWN = 255
    # Slots by object; 0 is "not read".
    R_ID = 1
    R_AT = 2
    R_TMAX = 3
    R_TEST = 4
    R_ALLIMPS = 5
    R_CATTAX = 6
    R_CUR = 7
    R_BLOCKS = 8  # eight lists follow each other
    R_IMP = 16
    R_SITE = 17
    R_APP = 18
    R_DOOH = 19
    R_DEVICE = 20
    R_USER = 21
    R_REGS = 22
    R_COUNT = 23
    C_DOMAIN = 1
    C_PAGE = 2
    C_BUNDLE = 3
    C_CATTAX = 4
    C_VENUETYPE = 5
    C_VENUETYPEID = 6
    C_PUBLISHER = 7
    C_CAT = 8
    C_KEYWORDS = 11
    C_KWARRAY = 12
    C_CONTENT = 13
    C_EXT = 14
    C_COUNT = 15
    N_LANGUAGE = 1
    N_LANGB = 2
    N_GENRE = 3
    N_RATING = 4
    N_CATTAX = 5
    N_GENRES = 6
    N_CAT = 7
    N_KEYWORDS = 8
    N_KWARRAY = 9
    N_CHANNEL = 10
    N_NETWORK = 11
    N_DATA = 12
    N_COUNT = 13
    D_UA = 1
    D_OS = 2
    D_OSV = 3
    D_DEVICETYPE = 4
    D_CONNECTION = 5
    D_CARRIER = 6
    D_MCCMNC = 7
    D_LANGUAGE = 8
    D_LANGB = 9
    D_MAKE = 10
    D_MODEL = 11
    D_IFA = 12
    D_LMT = 13
    D_DNT = 14
    D_GEO = 15
    D_SUA = 16
    D_EXT = 17
    D_COUNT = 18
    G_COUNTRY = 1
    G_REGION = 2
    G_CITY = 3
    G_ZIP = 4
    G_METRO = 5
    G_LAT = 6
    G_LON = 7
    G_UTCOFFSET = 8
    G_COUNT = 9
    S_MODEL = 1
    S_PLATFORM = 2
    S_BROWSERS = 3
    S_COUNT = 4
    P_BRAND = 1
    P_VERSION = 2
    P_COUNT = 3
    E_MCCMNC = 1  # device.ext
    E_DOOH = 2
    E_IMPMULTIPLY = 3  # device.ext.dooh
    E_COUNT = 4
    U_ID = 1
    U_BUYERUID = 2
    U_KEYWORDS = 3
    U_KWARRAY = 4
    U_DATA = 5
    U_EIDS = 6
    U_GEO = 7
    U_EXT = 8
    U_COUNT = 9
    X_GDPR = 1  # regs, regs.ext, user.ext
    X_GPP = 2
    X_US_PRIVACY = 3
    X_COPPA = 4
    X_GPC = 5
    X_EXT = 6
    X_DSA = 7
    X_DATA = 8
    X_EIDS = 9
    X_DSAREQUIRED = 10  # regs.ext.dsa
    X_COUNT = 11
    I_ID = 1
    I_BIDFLOOR = 2
    I_BIDFLOORCUR = 3
    I_DT = 4
    I_EXP = 5
    I_SSAI = 6
    I_CLICKBROWSER = 7
    I_INSTL = 8
    I_SECURE = 9
    I_RWDD = 10
    I_TAGID = 11
    I_BANNER = 12
    I_VIDEO = 13
    I_AUDIO = 14
    I_NATIVE = 15
    I_METRIC = 16
    I_QTY = 17
    I_PMP = 18
    I_EXT = 19
    I_GPID = 20  # imp.ext
    I_DATA = 21
    I_PREBID = 22
    I_PREBID_REWARDED = 23  # imp.ext.prebid
    I_MULTIPLIER = 24  # imp.qty
    I_VIDEO_REWARDED = 25  # imp.video.ext
    I_COUNT = 26
    F_W = 1  # also banner.w, banner.h
    F_H = 2
    F_WMIN = 3
    F_WRATIO = 4
    F_HRATIO = 5
    B_POS = 3
    B_FORMAT = 4
    B_BATTR = 5
    B_BTYPE = 6
    B_API = 7
    B_EXPDIR = 8
    B_MIMES = 9
    B_COUNT = 10
    V_MINDURATION = 1
    V_MAXDURATION = 2
    V_STARTDELAY = 3
    V_MAXEXTENDED = 4
    V_PODSEQ = 5
    V_SLOTINPOD = 6
    V_SKIPMIN = 7
    V_SKIPAFTER = 8
    V_MINBITRATE = 9
    V_MAXBITRATE = 10
    V_PODDUR = 11
    V_MAXSEQ = 12
    V_MINCPMPERSEC = 13
    V_PODID = 14
    V_PROTOCOL = 15
    V_W = 16
    V_H = 17
    V_SKIP = 18
    V_PLCMT = 19
    V_PLACEMENT = 20
    V_LINEARITY = 21
    V_BOXING = 22
    V_POS = 23
    V_MIMES = 24
    V_BATTR = 25
    V_API = 26
    V_PROTOCOLS = 27
    V_PLAYBACK = 28
    V_DELIVERY = 29
    V_DEDUPE = 30
    V_RQDDURS = 31
    V_DURFLOORS = 32
    V_EXT = 33
    V_COUNT = 34
    L_ID = 1  # deal
    L_BIDFLOOR = 2
    L_BIDFLOORCUR = 3
    L_AT = 4
    L_GUAR = 5
    L_MINCPMPERSEC = 6
    L_WSEAT = 7
    L_WSEATS = 8
    L_WADOMAIN = 9
    L_DURFLOORS = 10
    L_COUNT = 11
    T_VER = 1  # a native request
    T_PRIVACY = 2
    T_PLCMTTYPE = 3
    T_ASSETS = 4
    T_TRACKERS = 5
    T_TRAKERS = 6  # the spec's own misspelling
    T_NATIVE = 7
    T_COUNT = 8
    A_ID = 1  # a native asset; its members' members share the rest
    A_REQUIRED = 2
    A_TITLE = 3
    A_IMG = 4
    A_VIDEO = 5
    A_DATA = 6
    A_COUNT = 7
    M_LEN = 1
    M_TYPE = 2
    M_W = 3
    M_H = 4
    M_WMIN = 5
    M_HMIN = 6
    M_MINDURATION = 7
    M_MAXDURATION = 8
    M_PROTOCOLS = 9
    M_MIMES = 10
    M_COUNT = 11
    O_REQUEST = 1  # imp.native
    O_VER = 2
    O_API = 3
    O_BATTR = 4
    O_COUNT = 5
    # Small objects.
    ONE = 1
    TWO = 2
    THREE = 3


cdef struct Val:
    const uint8_t *p  # first byte of what stands there; behind the quote of a string
    uint32_t n  # bytes of it
    uint32_t kind

cdef struct Text:
    const uint8_t *p
    Py_ssize_t n

# A decimal: m * 10**exponent.
cdef struct Number:
    uint64_t m
    int32_t exponent
    int32_t negative

cdef struct Words:
    uint64_t low
    uint64_t high

cdef struct Mime:
    uint64_t words[4]
    int32_t bit

# What agents are known by: bit n of first[b] is set when mark n may begin with byte b.
cdef struct Marks:
    uint64_t first[256]
    uint64_t second[256]
    uint8_t text[64][24]
    uint8_t size[64]

cdef struct Wire:
    const uint8_t *base  # offsets count from here
    const uint8_t *base_end
    const uint8_t *text  # that is being read: the body or a native request
    const uint8_t *end
    const uint8_t *bits  # its index
    Facts *facts
    uint32_t quirks
    uint32_t flags
    uint32_t privacy
    int doubt
    int again  # a taxonomy stood behind its list
    int targets_left
    int blocks_left
    int imps_max
    int deals_max
    int imp  # index, or -1
    int spoiled  # the impression
    int channel
    int eids_count
    int32_t taxonomies[3]  # guesses for root, channel, content
    uint64_t brands  # marks that sua.browsers hit
    uint32_t without_qty  # impressions
    Py_ssize_t arena_used
    Val root[R_COUNT]
    Val device[D_COUNT]
    Val geo[G_COUNT]
    Val home[G_COUNT]  # user.geo
    Val sua[S_COUNT]
    Val platform[P_COUNT]
    Val device_ext[E_COUNT]
    Val user[U_COUNT]
    Val user_ext[X_COUNT]
    Val regs[X_COUNT]
    Val regs_ext[X_COUNT]
    Identifier eids[IDS_MAX]  # not cleared, therefore last

# Unescaped text of one request. The GIL is held from first to last byte, so one is enough.
cdef uint8_t[ARENA_BYTES] ARENA
# One bit for each byte of a body and of a native request: where do strings end?
cdef uint8_t[(BODY_BYTES_CAP >> 3) + 16] BODY_INDEX
cdef uint8_t[(ARENA_BYTES >> 3) + 16] NATIVE_INDEX


# -- constants of the rules ------------------------------------------------------------------------

cdef int64_t CPM_LIMIT = RULE_CPM_MICROS_MAX
cdef int ID_BYTES_MAX = reading.ID_BYTES_MAX
cdef int HOST_BYTES_MAX = host_rules.HOST_BYTES_MAX
cdef int AGENT_CHARS_MAX = agent_rules.AGENT_CHARS_MAX
cdef int UTCOFFSET_MIN_MAX = context_rules._UTCOFFSET_MIN_MAX
cdef double MULTIPLIER_MAX = imp_rules.MULTIPLIER_MAX
cdef double SECONDS_BELOW = imp_rules._SECONDS_BELOW
cdef uint64_t UNKNOWN_MASK = imp_rules._UNKNOWN_MASK
cdef uint64_t PROTOCOL_UNKNOWN_MASK = native_rules.PROTOCOL_UNKNOWN_MASK
cdef uint64_t MIME_UNKNOWN = 1 << RULE_MIME_UNKNOWN_BIT
cdef int TRACK_BY_IMAGE = lists.TRACK_BY_IMAGE
cdef int CATTAX_DEFAULT = lists.CATEGORY_TAXONOMY_DEFAULT
cdef uint32_t USD = currency_code("USD")
cdef int32_t INT32_HIGH = reading.INT_MAX
cdef int32_t INT32_LOW = reading.INT_MIN
cdef int KIND_TITLE = lists.AssetKind.TITLE
cdef int KIND_IMG = lists.AssetKind.IMG
cdef int KIND_VIDEO = lists.AssetKind.VIDEO
cdef int KIND_DATA = lists.AssetKind.DATA

cdef uint64_t[5] MEDIA_TOKENS
cdef uint64_t[4] CHANNEL_TOKENS
cdef uint64_t[2] INTERSTITIAL_TOKENS
cdef uint64_t[2] REWARDED_TOKENS
cdef uint64_t FLEX_TOKEN = _hash(Dim.SIZE, b"flex")
for _name, _n in imp_rules._MEDIA.items():
    MEDIA_TOKENS[<int>_n] = _hash(Dim.MEDIA, _name.encode())
for _name, _n in context_rules._CHANNELS.items():
    CHANNEL_TOKENS[<int>_n] = _hash(Dim.CHANNEL, _name.encode())
for _n in range(2):
    INTERSTITIAL_TOKENS[_n] = _hash(Dim.INTERSTITIAL, b"%d" % _n)
    REWARDED_TOKENS[_n] = _hash(Dim.REWARDED, b"%d" % _n)

cdef int[8] BLOCK_DIMS
for _n, (_name, _dim) in enumerate(
    zip(
        ("bcat", "acat", "badv", "bapp", "wseat", "bseat", "wlang", "wlangb"),
        (DIM_BCAT, DIM_ACAT, DIM_BADV, DIM_BAPP, DIM_WSEAT, DIM_BSEAT, DIM_WLANG, DIM_WLANG),
        strict=True,
    )
):
    BLOCK_DIMS[_n] = _dim

cdef uint8_t[676][4] ALPHA3_OF
memset(ALPHA3_OF, 0, sizeof(ALPHA3_OF))
for _name, _code in ALPHA3.items():
    for _n in range(3):
        ALPHA3_OF[(ord(_name[0]) - 65) * 26 + ord(_name[1]) - 65][_n] = ord(_code[_n])

cdef uint8_t[256] ODD_HOST  # bytes that `hosts.host_of` does something about
memset(ODD_HOST, 0, sizeof(ODD_HOST))
for _n in map(ord, ":/?#@* \t\r\n"):
    ODD_HOST[<int>_n] = 1

# -- user agents: marks of both lists of a kind share one pass -------------------------------------
cdef Marks AGENT_MARKS
cdef Marks NAME_MARKS
cdef uint64_t OS_AGENTS = (1 << len(agent_rules.OS_AGENTS)) - 1
cdef uint64_t OS_NAMES = (1 << len(agent_rules.OS_NAMES)) - 1
cdef uint64_t BROWSER_AGENTS = ((1 << len(agent_rules.BROWSER_AGENTS)) - 1) << len(
    agent_rules.OS_AGENTS
)
cdef uint64_t BROWSER_BRANDS = ((1 << len(agent_rules.BROWSER_BRANDS)) - 1) << len(
    agent_rules.OS_NAMES
)
cdef uint64_t[64] AGENT_TOKENS
cdef uint64_t[64] NAME_TOKENS
cdef list _version_marks = [rule[2].encode() for rule in agent_rules.OS_AGENTS]
cdef const char *VERSION_MARKS[64]
cdef int[64] VERSION_MARK_SIZES
for _n, _mark in enumerate(_version_marks):
    VERSION_MARKS[_n] = PyBytes_AS_STRING(_mark)
    VERSION_MARK_SIZES[_n] = len(_mark)


cdef _fill_marks(Marks *marks, uint64_t *hashes, systems, browsers):
    rules = [(rule[0], Dim.OS, rule[1]) for rule in systems]
    rules += [(rule[0], Dim.BROWSER, rule[1]) for rule in browsers]
    assert len(rules) <= 64
    memset(marks, 0, sizeof(Marks))
    for bit, (text, dim, name) in enumerate(rules):
        mark = text.encode()
        assert 2 <= len(mark) <= 24
        hashes[<int>bit] = _hash(dim, name.encode())
        marks.size[<int>bit] = len(mark)
        for at, byte in enumerate(mark):
            marks.text[<int>bit][<int>at] = byte
        for byte in {mark[0], ord(mark[:1].upper())}:
            marks.first[<int>byte] |= <uint64_t>1 << <int>bit
        for byte in {mark[1], ord(mark[1:2].upper())}:
            marks.second[<int>byte] |= <uint64_t>1 << <int>bit


_fill_marks(&AGENT_MARKS, AGENT_TOKENS, agent_rules.OS_AGENTS, agent_rules.BROWSER_AGENTS)
_fill_marks(&NAME_MARKS, NAME_TOKENS, agent_rules.OS_NAMES, agent_rules.BROWSER_BRANDS)

# -- which members are read ------------------------------------------------------------------------

_GEO = {
    "country": G_COUNTRY, "region": G_REGION, "city": G_CITY, "zip": G_ZIP, "metro": G_METRO,
    "lat": G_LAT, "lon": G_LON, "utcoffset": G_UTCOFFSET,
}
_REGS = {
    "gdpr": X_GDPR, "gpp": X_GPP, "us_privacy": X_US_PRIVACY, "coppa": X_COPPA, "gpc": X_GPC,
}
_AV = {
    "minduration": V_MINDURATION, "maxduration": V_MAXDURATION, "startdelay": V_STARTDELAY,
    "maxextended": V_MAXEXTENDED, "podseq": V_PODSEQ, "slotinpod": V_SLOTINPOD,
    "skipmin": V_SKIPMIN, "skipafter": V_SKIPAFTER, "minbitrate": V_MINBITRATE,
    "maxbitrate": V_MAXBITRATE, "poddur": V_PODDUR, "maxseq": V_MAXSEQ,
    "mincpmpersec": V_MINCPMPERSEC, "podid": V_PODID, "mimes": MIME_TYPES + V_MIMES,
    "battr": NUMBERS + V_BATTR, "api": NUMBERS + V_API, "protocols": NUMBERS + V_PROTOCOLS,
    "playbackmethod": NUMBERS + V_PLAYBACK, "delivery": NUMBERS + V_DELIVERY,
    "rqddurs": OWN + V_RQDDURS, "durfloors": OWN + V_DURFLOORS,
}
_OBJECTS = {
    "root": {
        "id": R_ID, "at": R_AT, "tmax": R_TMAX, "test": R_TEST, "allimps": R_ALLIMPS,
        "cattax": R_CATTAX, "cur": OWN + R_CUR, "bcat": OWN + R_BLOCKS, "acat": OWN + R_BLOCKS + 1,
        "badv": OWN + R_BLOCKS + 2, "bapp": OWN + R_BLOCKS + 3, "wseat": OWN + R_BLOCKS + 4,
        "bseat": OWN + R_BLOCKS + 5, "wlang": OWN + R_BLOCKS + 6, "wlangb": OWN + R_BLOCKS + 7,
        "imp": OWN + R_IMP, "site": OWN + R_SITE, "app": OWN + R_APP, "dooh": OWN + R_DOOH,
        "device": OWN + R_DEVICE, "user": OWN + R_USER, "regs": OWN + R_REGS,
    },
    "channel": {
        "domain": C_DOMAIN, "page": C_PAGE, "bundle": C_BUNDLE, "cattax": C_CATTAX,
        "venuetype": C_VENUETYPE, "venuetypeid": C_VENUETYPEID, "publisher": OWN + C_PUBLISHER,
        "cat": OWN + C_CAT, "sectioncat": OWN + C_CAT + 1, "pagecat": OWN + C_CAT + 2,
        "keywords": OWN + C_KEYWORDS, "kwarray": OWN + C_KWARRAY, "content": OWN + C_CONTENT,
        "ext": OWN + C_EXT,
    },
    "content": {
        "language": N_LANGUAGE, "langb": N_LANGB, "genre": N_GENRE, "contentrating": N_RATING,
        "cattax": N_CATTAX, "genres": OWN + N_GENRES, "cat": OWN + N_CAT,
        "keywords": OWN + N_KEYWORDS, "kwarray": OWN + N_KWARRAY, "channel": OWN + N_CHANNEL,
        "network": OWN + N_NETWORK, "data": OWN + N_DATA,
    },
    "device": {
        "ua": D_UA, "os": D_OS, "osv": D_OSV, "devicetype": D_DEVICETYPE,
        "connectiontype": D_CONNECTION, "carrier": D_CARRIER, "mccmnc": D_MCCMNC,
        "language": D_LANGUAGE, "langb": D_LANGB, "make": D_MAKE, "model": D_MODEL, "ifa": D_IFA,
        "lmt": D_LMT, "dnt": D_DNT, "geo": OWN + D_GEO, "sua": OWN + D_SUA, "ext": OWN + D_EXT,
    },
    "geo": _GEO,
    "sua": {"model": S_MODEL, "platform": OWN + S_PLATFORM, "browsers": OWN + S_BROWSERS},
    "platform": {"brand": P_BRAND, "version": P_VERSION},
    "device_ext": {"mccmnc": E_MCCMNC, "dooh": OWN + E_DOOH},
    "dooh_ext": {"impmultiply": E_IMPMULTIPLY},
    "user": {
        "id": U_ID, "buyeruid": U_BUYERUID, "keywords": OWN + U_KEYWORDS,
        "kwarray": OWN + U_KWARRAY, "data": OWN + U_DATA, "eids": OWN + U_EIDS, "geo": OWN + U_GEO,
        "ext": OWN + U_EXT,
    },
    "user_ext": {
        "gdpr": X_GDPR, "us_privacy": X_US_PRIVACY, "data": OWN + X_DATA, "eids": OWN + X_EIDS,
    },
    "regs": {**_REGS, "ext": OWN + X_EXT},
    "regs_ext": {**_REGS, "dsa": OWN + X_DSA},
    "dsa": {"dsarequired": X_DSAREQUIRED},
    "imp": {
        "id": I_ID, "bidfloor": I_BIDFLOOR, "bidfloorcur": I_BIDFLOORCUR, "dt": I_DT, "exp": I_EXP,
        "ssai": I_SSAI, "clickbrowser": I_CLICKBROWSER, "instl": I_INSTL, "secure": I_SECURE,
        "rwdd": I_RWDD, "tagid": I_TAGID, "banner": OWN + I_BANNER, "video": OWN + I_VIDEO,
        "audio": OWN + I_AUDIO, "native": OWN + I_NATIVE, "metric": OWN + I_METRIC,
        "qty": OWN + I_QTY, "pmp": OWN + I_PMP, "ext": OWN + I_EXT,
    },
    "imp_ext": {"gpid": I_GPID, "data": OWN + I_DATA, "prebid": OWN + I_PREBID},
    "prebid": {"is_rewarded_inventory": I_PREBID_REWARDED},
    "qty": {"multiplier": I_MULTIPLIER},
    "video_ext": {"rewarded": I_VIDEO_REWARDED},
    "metric": {"type": ONE, "value": TWO},
    "banner": {
        "w": F_W, "h": F_H, "pos": B_POS, "format": OWN + B_FORMAT, "battr": NUMBERS + B_BATTR,
        "btype": NUMBERS + B_BTYPE, "api": NUMBERS + B_API, "expdir": NUMBERS + B_EXPDIR,
        "mimes": MIME_TYPES + B_MIMES,
    },
    "format": {"w": F_W, "h": F_H, "wmin": F_WMIN, "wratio": F_WRATIO, "hratio": F_HRATIO},
    "audio": _AV,
    "video": {
        **_AV, "protocol": V_PROTOCOL, "w": V_W, "h": V_H, "skip": V_SKIP, "plcmt": V_PLCMT,
        "placement": V_PLACEMENT, "linearity": V_LINEARITY, "boxingallowed": V_BOXING,
        "pos": V_POS, "poddedupe": NUMBERS + V_DEDUPE, "ext": OWN + V_EXT,
    },
    "durfloor": {"bidfloor": ONE, "mindur": TWO, "maxdur": THREE},
    "pmp": {"private_auction": ONE, "deals": OWN + TWO},
    "deal": {
        "id": L_ID, "bidfloor": L_BIDFLOOR, "bidfloorcur": L_BIDFLOORCUR, "at": L_AT,
        "guar": L_GUAR, "mincpmpersec": L_MINCPMPERSEC, "wseat": OWN + L_WSEAT,
        "wseats": OWN + L_WSEATS, "wadomain": OWN + L_WADOMAIN, "durfloors": OWN + L_DURFLOORS,
    },
    "imp_native": {
        "request": OWN + O_REQUEST, "ver": O_VER, "api": NUMBERS + O_API,
        "battr": NUMBERS + O_BATTR,
    },
    "native": {
        "ver": T_VER, "privacy": T_PRIVACY, "plcmttype": T_PLCMTTYPE, "assets": OWN + T_ASSETS,
        "eventtrackers": OWN + T_TRACKERS, "eventrackers": OWN + T_TRAKERS,
        "native": OWN + T_NATIVE,
    },
    "tracker": {"event": ONE, "methods": NUMBERS + TWO},
    "asset": {
        "id": A_ID, "required": A_REQUIRED, "title": OWN + A_TITLE, "img": OWN + A_IMG,
        "video": OWN + A_VIDEO, "data": OWN + A_DATA,
    },
    "title": {"len": M_LEN},
    "img": {
        "type": M_TYPE, "w": M_W, "h": M_H, "wmin": M_WMIN, "hmin": M_HMIN,
        "mimes": MIME_TYPES + M_MIMES,
    },
    "asset_video": {
        "minduration": M_MINDURATION, "maxduration": M_MAXDURATION,
        "protocols": NUMBERS + M_PROTOCOLS, "mimes": MIME_TYPES + M_MIMES,
    },
    "asset_data": {"type": M_TYPE, "len": M_LEN},
    "owner": {"id": ONE, "name": TWO},  # publisher, content.channel, content.network, segment
    "data": {"id": ONE, "name": TWO, "segment": OWN + THREE},
    "eid": {"source": ONE, "uids": OWN + TWO},
    "uid": {"id": ONE, "atype": TWO},
    "brand": {"brand": ONE},
}

# Keys are found by one multiplication: `_KEYS[n]` has a slot of its own in KEY_AT.
_LONG_KEY = "is_rewarded_inventory"  # the only one of more than 15 bytes
_KEYS = sorted({key for members in _OBJECTS.values() for key in members} - {_LONG_KEY})
assert len(_KEYS) < UNKNOWN - 1 and all(len(key) <= 15 for key in _KEYS)
cdef uint64_t KEY_FACTOR = 0
cdef uint8_t[1 << KEYS_BITS] KEY_AT
cdef Words[256] KEY_WORDS
cdef Words[17] KEY_MASKS  # by the bytes of a key
cdef int LONG_KEY = len(_KEYS)
cdef bytes _long_key = _LONG_KEY.encode()
cdef const char *LONG_KEY_TEXT = PyBytes_AS_STRING(_long_key)
cdef int LONG_KEY_SIZE = len(_long_key)

cdef uint64_t MIME_FACTOR = 0
cdef uint64_t MIME_FOLD = 0xBF58476D1CE4E5B9ULL
cdef int16_t[1 << MIMES_BITS] MIME_AT
cdef Mime[64] MIME_LIST_OF


def _perfect_factor(words: list[int], bits: int) -> int:
    """A factor whose products with the words differ in their uppermost bits."""
    chance = random.Random(1)
    while True:
        factor = chance.getrandbits(64) | 1
        if len({(word * factor & 2**64 - 1) >> 64 - bits for word in words}) == len(words):
            return factor


def _word_at(text: bytes, at: int) -> int:
    return int.from_bytes(text[at : at + 8], "little")


def _fill_keys() -> None:
    global KEY_FACTOR
    names = [key.encode() for key in _KEYS]
    # No two keys share both their first eight bytes and their length.
    hashed = [_word_at(name, 0) + len(name) & 2**64 - 1 for name in names]
    KEY_FACTOR = _perfect_factor(hashed, KEYS_BITS)
    memset(KEY_AT, UNKNOWN, sizeof(KEY_AT))
    memset(KEY_WORDS, 255, sizeof(KEY_WORDS))  # no text is all 255
    for number, name in enumerate(names):
        place = (hashed[number] * <object>KEY_FACTOR & 2**64 - 1) >> 64 - KEYS_BITS
        KEY_AT[<int>place] = number
        KEY_WORDS[<int>number].low = _word_at(name, 0)
        KEY_WORDS[<int>number].high = _word_at(name, 8)
    for n in range(17):
        KEY_MASKS[<int>n].low = (1 << 8 * min(n, 8)) - 1
        KEY_MASKS[<int>n].high = (1 << 8 * max(n - 8, 0)) - 1


cdef inline uint64_t _mime_hash(const uint64_t *words) noexcept nogil:
    cdef uint64_t folded = words[0] + words[1] * MIME_FOLD + words[2] + (words[3] << 32)
    return (folded * MIME_FACTOR) >> (64 - MIMES_BITS)


def _fill_mimes() -> None:
    global MIME_FACTOR
    names = [name.encode() for name in MIMES]
    assert len(names) <= 64 and all(len(name) <= 31 for name in names)
    hashed = [
        _word_at(name, 0) + _word_at(name, 8) * <object>MIME_FOLD + _word_at(name, 16)
        + (_word_at(name, 24) << 32) & 2**64 - 1
        for name in names
    ]
    MIME_FACTOR = _perfect_factor(hashed, MIMES_BITS)
    for number in range(1 << MIMES_BITS):
        MIME_AT[<int>number] = -1
    for number, (name, bit) in enumerate(zip(names, MIMES.values(), strict=True)):
        for i in range(4):
            MIME_LIST_OF[<int>number].words[<int>i] = _word_at(name, 8 * i)
        MIME_LIST_OF[<int>number].bit = bit
        MIME_AT[<int>_mime_hash(MIME_LIST_OF[<int>number].words)] = number


_fill_keys()
_fill_mimes()

# One table per object: code of each key, 0 for keys that it does not read. The last two entries are
# the long key and every unknown one.
cdef uint8_t[256] T_ROOT, T_CHANNEL, T_CONTENT, T_DEVICE, T_GEO, T_SUA, T_PLATFORM, T_DEVICE_EXT
cdef uint8_t[256] T_DOOH_EXT, T_USER, T_USER_EXT, T_REGS, T_REGS_EXT, T_DSA, T_IMP, T_IMP_EXT
cdef uint8_t[256] T_PREBID, T_QTY, T_VIDEO_EXT, T_METRIC, T_BANNER, T_FORMAT, T_AUDIO, T_VIDEO_OBJ
cdef uint8_t[256] T_DURFLOOR, T_PMP, T_DEAL, T_IMP_NATIVE, T_NATIVE_OBJ, T_TRACKER, T_ASSET, T_TITLE
cdef uint8_t[256] T_IMG, T_ASSET_VIDEO, T_ASSET_DATA, T_OWNER, T_DATA, T_EID, T_UID, T_BRAND


cdef _fill_table(uint8_t *table, name):
    memset(table, 0, 256)
    for key, code in _OBJECTS[name].items():
        table[<int>(LONG_KEY if key == _LONG_KEY else _KEYS.index(key))] = code


_fill_table(T_ROOT, "root")
_fill_table(T_CHANNEL, "channel")
_fill_table(T_CONTENT, "content")
_fill_table(T_DEVICE, "device")
_fill_table(T_GEO, "geo")
_fill_table(T_SUA, "sua")
_fill_table(T_PLATFORM, "platform")
_fill_table(T_DEVICE_EXT, "device_ext")
_fill_table(T_DOOH_EXT, "dooh_ext")
_fill_table(T_USER, "user")
_fill_table(T_USER_EXT, "user_ext")
_fill_table(T_REGS, "regs")
_fill_table(T_REGS_EXT, "regs_ext")
_fill_table(T_DSA, "dsa")
_fill_table(T_IMP, "imp")
_fill_table(T_IMP_EXT, "imp_ext")
_fill_table(T_PREBID, "prebid")
_fill_table(T_QTY, "qty")
_fill_table(T_VIDEO_EXT, "video_ext")
_fill_table(T_METRIC, "metric")
_fill_table(T_BANNER, "banner")
_fill_table(T_FORMAT, "format")
_fill_table(T_AUDIO, "audio")
_fill_table(T_VIDEO_OBJ, "video")
_fill_table(T_DURFLOOR, "durfloor")
_fill_table(T_PMP, "pmp")
_fill_table(T_DEAL, "deal")
_fill_table(T_IMP_NATIVE, "imp_native")
_fill_table(T_NATIVE_OBJ, "native")
_fill_table(T_TRACKER, "tracker")
_fill_table(T_ASSET, "asset")
_fill_table(T_TITLE, "title")
_fill_table(T_IMG, "img")
_fill_table(T_ASSET_VIDEO, "asset_video")
_fill_table(T_ASSET_DATA, "asset_data")
_fill_table(T_OWNER, "owner")
_fill_table(T_DATA, "data")
_fill_table(T_EID, "eid")
_fill_table(T_UID, "uid")
_fill_table(T_BRAND, "brand")


cdef inline void _clear(Val *slots, size_t size) noexcept nogil:
    """Makes slots free: nothing else of a free slot is looked at."""
    cdef size_t i
    for i in range(size // sizeof(Val)):
        slots[i].kind = NOTHING


# -- grammar ---------------------------------------------------------------------------------------

cdef inline const uint8_t *_space(const uint8_t *p) noexcept nogil:
    while p[0] <= 32 and _is_space(p[0]):
        p += 1
    return p


cdef inline bint _is_space(uint8_t byte) noexcept nogil:
    return byte == 32 or byte == 10 or byte == 13 or byte == 9


cdef inline bint _is_digit(uint8_t byte) noexcept nogil:
    return <uint8_t>(byte - 48) <= 9


cdef int _hex(uint8_t byte) noexcept nogil:
    """Value of a hexadecimal digit, or -1."""
    if _is_digit(byte):
        return byte - 48
    byte |= 32
    return byte - 87 if 97 <= byte <= 102 else -1


cdef int _unit(const uint8_t *p) noexcept nogil:
    """The UTF-16 unit of `\\uXXXX` at p, or -1."""
    cdef int i, digit, unit = 0
    if p[0] != 92 or p[1] != c'u':
        return -1
    for i in range(2, 6):
        digit = _hex(p[i])
        if digit < 0:
            return -1
        unit = unit << 4 | digit
    return unit


cdef const uint8_t *_escape(const uint8_t *p) noexcept nogil:
    """Past the escape at p, a surrogate pair being one."""
    cdef uint8_t byte = p[1]
    cdef int unit
    if byte == c'"' or byte == 92 or byte == c'/' or byte == c'n' or byte == c'r':
        return p + 2
    if byte == c't' or byte == c'b' or byte == c'f':
        return p + 2
    unit = _unit(p)
    if unit < 0:
        return NULL
    if 0xD800 <= unit <= 0xDFFF:
        if unit >= 0xDC00:
            return NULL
        unit = _unit(p + 6)
        return p + 12 if 0xDC00 <= unit <= 0xDFFF else NULL
    return p + 6


cdef inline uint64_t _marks_from(Wire *wire, const uint8_t *p) noexcept nogil:
    """The index of the 57 bytes at p; bits above are those of bytes behind them, or 0."""
    cdef Py_ssize_t at = p - wire.text
    return wire_load(wire.bits + (at >> 3)) >> (at & 7)


cdef const uint8_t *_long_string(Wire *wire, const uint8_t *p, uint32_t *kind) noexcept nogil:
    """`_string` of more than 56 bytes, or with escapes."""
    cdef uint64_t marks
    while True:
        marks = _marks_from(wire, p)
        if marks == 0:
            p += 57
            continue
        p += WIRE_CTZ64(marks)
        if p[0] == c'"':
            return p
        if p[0] != 92:
            return NULL
        kind[0] = ESCAPED
        p = _escape(p)
        if p == NULL:
            return NULL


cdef inline const uint8_t *_string(Wire *wire, const uint8_t *p, uint32_t *kind) noexcept nogil:
    """The closing quote of the string whose contents begin at p; `kind` TEXT or ESCAPED."""
    # Without a mark in 57 bytes the text goes on behind them: there is a byte to look at.
    cdef const uint8_t *mark = p + WIRE_CTZ64(_marks_from(wire, p) | <uint64_t>1 << 57)
    kind[0] = TEXT
    return mark if mark[0] == c'"' else _long_string(wire, p, kind)


cdef const uint8_t *_number(const uint8_t *p, Val *val) noexcept nogil:
    """A JSON number; `kind` SMALL, INTEGER or REAL."""
    cdef const uint8_t *start = p
    cdef uint32_t value = 0
    cdef bint integral = True
    if p[0] == c'-':
        p += 1
    if p[0] == c'0':
        p += 1
        if _is_digit(p[0]):
            return NULL
    elif _is_digit(p[0]):
        while _is_digit(p[0]):
            value = value * 10 + (p[0] - 48)
            p += 1
    else:
        return NULL
    if p[0] == c'.':
        integral = False
        p += 1
        if not _is_digit(p[0]):
            return NULL
        while _is_digit(p[0]):
            p += 1
    if p[0] | 32 == c'e':
        integral = False
        p += 1
        if p[0] == c'+' or p[0] == c'-':
            p += 1
        if not _is_digit(p[0]):
            return NULL
        while _is_digit(p[0]):
            p += 1
    if p - start > NUMBER_BYTES_MAX:
        return NULL
    val.p = start
    val.n = <uint32_t>(p - start)
    if not integral:
        val.kind = REAL
    elif start[0] != c'-' and val.n <= 9:
        val.kind = SMALL
        val.n = value
    else:
        val.kind = INTEGER
    return p


cdef const uint8_t *_word(const uint8_t *p, uint32_t *kind) noexcept nogil:
    """true, false or null."""
    if p[0] == c't' and p[1] == c'r' and p[2] == c'u' and p[3] == c'e':
        kind[0] = TRUE
        return p + 4
    if p[0] == c'n' and p[1] == c'u' and p[2] == c'l' and p[3] == c'l':
        kind[0] = NOTHING
        return p + 4
    if p[0] == c'f' and p[1] == c'a' and p[2] == c'l' and p[3] == c's' and p[4] == c'e':
        kind[0] = FALSE
        return p + 5
    return NULL


cdef inline const uint8_t *_past_key(Wire *wire, const uint8_t *p) noexcept nogil:
    """The value of the member whose key begins at p."""
    cdef uint32_t kind
    if p[0] != c'"':
        return NULL
    p = _string(wire, p + 1, &kind)
    if p == NULL:
        return NULL
    p = _space(p + 1)
    return _space(p + 1) if p[0] == c':' else NULL


cdef const uint8_t *_skip(Wire *wire, const uint8_t *p) noexcept nogil:
    """Any value, checked and forgotten."""
    cdef uint64_t objects = 0  # bit 0: the innermost open value is an object
    cdef int depth = 0
    cdef uint32_t kind
    cdef Val val
    cdef uint8_t byte
    while True:
        byte = p[0]
        if byte == c'"':
            p = _string(wire, p + 1, &kind)
            if p == NULL:
                return NULL
            p += 1
        elif byte == c'{' or byte == c'[':
            depth += 1
            if depth > SKIP_DEPTH_MAX:
                return NULL
            objects = objects << 1 | (byte == c'{')
            p = _space(p + 1)
            if p[0] != byte + 2:  # "}" and "]" stand two behind their openers
                if byte == c'{':
                    p = _past_key(wire, p)
                    if p == NULL:
                        return NULL
                continue
        else:
            p = _number(p, &val) if byte <= 57 else _word(p, &kind)
            if p == NULL:
                return NULL
        while True:
            if depth == 0:
                return p
            p = _space(p)
            if p[0] == c',':
                p = _space(p + 1)
                if objects & 1:
                    p = _past_key(wire, p)
                    if p == NULL:
                        return NULL
                break
            if p[0] != (c'}' if objects & 1 else c']'):
                return NULL
            p += 1
            objects >>= 1
            depth -= 1


cdef inline const uint8_t *_value(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """Any value into a slot, which must be free: of two equal keys the reference takes the last."""
    cdef const uint8_t *stop
    cdef uint32_t number
    cdef uint8_t byte = p[0]
    if val.kind != NOTHING:
        return NULL
    if byte == c'"':
        p += 1
        stop = _string(wire, p, &val.kind)
        if stop == NULL:
            return NULL
        val.p = p
        val.n = <uint32_t>(stop - p)
        if stop == p:
            val.kind = NOTHING
        return stop + 1
    if byte <= 57:
        # Most numbers are a few digits; the rest goes the long way.
        stop = p
        number = 0
        while _is_digit(stop[0]):
            number = number * 10 + (stop[0] - 48)
            stop += 1
        if (stop[0] == c',' or stop[0] == c'}') and 0 < stop - p <= 9 and (
            byte != 48 or stop == p + 1
        ):
            val.p = p
            val.n = number
            val.kind = SMALL
            return stop
        return _number(p, val)
    if byte == c'{' or byte == c'[':
        val.p = p
        val.kind = OBJECT if byte == c'{' else LIST
        return _skip(wire, p)
    return _word(p, &val.kind)


cdef const uint8_t *_odd_key(Wire *wire, const uint8_t *p, int *found) noexcept nogil:
    """Behind the key whose text begins at p: one that is long, escaped or near the end."""
    cdef const uint8_t *stop
    cdef uint32_t kind
    cdef Words words
    stop = _string(wire, p, &kind)
    if stop == NULL:
        return NULL
    found[0] = UNKNOWN
    if stop - p < 16:
        words.low = words.high = 0
        memcpy(&words, p, stop - p)
        found[0] = _known_key(words, <uint32_t>(stop - p))
    elif stop - p == LONG_KEY_SIZE and memcmp(p, LONG_KEY_TEXT, LONG_KEY_SIZE) == 0:
        found[0] = LONG_KEY
    return stop + 1


cdef inline int _known_key(Words words, uint32_t n) noexcept nogil:
    """The number of a key of at most 15 bytes, the rest of its words being 0; else UNKNOWN."""
    cdef int key = KEY_AT[((words.low + n) * KEY_FACTOR) >> (64 - KEYS_BITS)]
    return key if KEY_WORDS[key].low == words.low and KEY_WORDS[key].high == words.high else UNKNOWN


cdef inline const uint8_t *_key(Wire *wire, const uint8_t *p, int *found) noexcept nogil:
    """The value of the member whose key begins at p; the key's number in `found`."""
    cdef Words words
    cdef uint32_t n
    cdef int odd
    if p[0] != c'"':
        return NULL
    p += 1
    n = WIRE_CTZ64(_marks_from(wire, p) | 1 << 16)
    if n < 16 and p[n] == c'"' and wire.end - p >= 16:
        words.low = wire_load(p) & KEY_MASKS[n].low
        words.high = wire_load(p + 8) & KEY_MASKS[n].high
        found[0] = _known_key(words, n)
        p += n + 1
    else:
        p = _odd_key(wire, p, &odd)
        if p == NULL:
            return NULL
        found[0] = odd
    if p[0] != c':':
        p = _space(p)
        if p[0] != c':':
            return NULL
    return _space(p + 1)


cdef const uint8_t *_members(
    Wire *wire, const uint8_t *p, const uint8_t *table, Val *slots, int *own
) noexcept nogil:
    """Reads members of an object into slots until one is its owner's work.

    Enter with own = -1 at the "{", later behind the value of that member. Leaves with the member's
    slot in `own` and p at its value, or with own = 0 behind the "}".
    """
    cdef int key, code
    if own[0] < 0:
        p = _space(p + 1)
        if p[0] == c'}':
            own[0] = 0
            return p + 1
    else:
        p = _space(p)
        if p[0] == c'}':
            own[0] = 0
            return p + 1
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    while True:
        p = _key(wire, p, &key)
        if p == NULL:
            return NULL
        code = table[key]
        if <uint32_t>(code - 1) < NUMBERS - 1:
            p = _value(wire, p, &slots[code])
        elif code == 0:
            p = _skip(wire, p)
        elif code < MIME_TYPES:
            p = _numbers(wire, p, &slots[code & SLOT])
        elif code < OWN:
            p = _mimes(wire, p, &slots[code & SLOT])
        else:
            own[0] = code & SLOT
            return p
        if p == NULL:
            return NULL
        p = _space(p)
        if p[0] == c'}':
            own[0] = 0
            return p + 1
        if p[0] != c',':
            return NULL
        p = _space(p + 1)


cdef inline const uint8_t *_plain_object(
    Wire *wire, const uint8_t *p, const uint8_t *table, Val *slots
) noexcept nogil:
    """An object without members of its owner's."""
    cdef int own = -1
    return _members(wire, p, table, slots, &own)


cdef inline bint _is_object(Wire *wire, const uint8_t **at, Val *val) noexcept nogil:
    """Whether an object stands here; anything else is read, and counted when it says something."""
    if val.kind != NOTHING:
        at[0] = NULL
        return False
    if at[0][0] == c'{':
        val.kind = OBJECT
        return True
    at[0] = _value(wire, at[0], val)
    if val.kind != NOTHING:
        wire.quirks |= QUIRK_WRONG_TYPE_IGNORED
    return False


cdef const uint8_t *_entry(Wire *wire, const uint8_t *p, bint *more) noexcept nogil:
    """The next object of a list of objects at or behind p; entries that say nothing are passed."""
    cdef Val val
    while p[0] != c'{':
        val.kind = NOTHING
        p = _value(wire, p, &val)
        if p == NULL or val.kind != NOTHING:
            return NULL
        p = _space(p)
        if p[0] == c']':
            more[0] = False
            return p + 1
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    more[0] = True
    return p


cdef const uint8_t *_objects(
    Wire *wire, const uint8_t *p, Val *val, bint *more
) noexcept nogil:
    """Opens a list of objects: p at the first one, or behind the list."""
    more[0] = False
    if p[0] != c'[':
        p = _value(wire, p, val)
        if p == NULL or val.kind != NOTHING:
            return NULL
        return p
    if val.kind != NOTHING:
        return NULL
    val.kind = DONE
    p = _space(p + 1)
    if p[0] == c']':
        return p + 1
    return _entry(wire, p, more)


cdef inline const uint8_t *_next(Wire *wire, const uint8_t *p, bint *more) noexcept nogil:
    """Behind an object of a list: at the next one, or behind the list."""
    p = _space(p)
    if p[0] == c',':
        return _entry(wire, _space(p + 1), more)
    more[0] = False
    return p + 1 if p[0] == c']' else NULL


cdef bint _is_utf8(const uint8_t *p, const uint8_t *end) noexcept nogil:
    """Whether bytes are UTF-8: shortest form, no surrogates, up to U+10FFFF."""
    cdef uint8_t byte, low, high
    cdef int more, i
    while p < end:
        if end - p >= 8 and wire_load(p) & 0x8080808080808080ULL == 0:
            p += 8
            continue
        byte = p[0]
        p += 1
        if byte < 0x80:
            continue
        low, high = 0x80, 0xBF
        if 0xC2 <= byte <= 0xDF:
            more = 1
        elif 0xE0 <= byte <= 0xEF:
            more = 2
            if byte == 0xE0:
                low = 0xA0
            elif byte == 0xED:
                high = 0x9F
        elif 0xF0 <= byte <= 0xF4:
            more = 3
            if byte == 0xF0:
                low = 0x90
            elif byte == 0xF4:
                high = 0x8F
        else:
            return False
        if end - p < more:
            return False
        for i in range(more):
            if not low <= p[i] <= high:
                return False
            low, high = 0x80, 0xBF
        p += more
    return True


# -- values ----------------------------------------------------------------------------------------

cdef int _decimal(const uint8_t *p, const uint8_t *end, Number *number) noexcept nogil:
    """A decimal as `reading` takes it from strings: 1 read, 0 none, -1 too long for us."""
    cdef int digits = 0, exponent = 0, sign = 1, places = 0
    cdef uint64_t m = 0
    cdef bint point = False
    cdef const uint8_t *start
    number.negative = p < end and p[0] == c'-'
    p += number.negative
    start = p
    while p < end:
        if p[0] == c'.' and not point:
            if p == start:
                return 0
            point = True
            start = p + 1
        elif _is_digit(p[0]):
            if m or p[0] != 48:
                digits += 1
                if digits > SIGNIFICANT_DIGITS_MAX:
                    return -1
                m = m * 10 + (p[0] - 48)
            places += point
        else:
            break
        p += 1
    if p == start:
        return 0
    if p < end:
        if p[0] | 32 != c'e':
            return 0
        p += 1
        if p < end and (p[0] == c'+' or p[0] == c'-'):
            sign = -1 if p[0] == c'-' else 1
            p += 1
        start = p
        while p < end and _is_digit(p[0]):
            if p - start > 4:
                return -1
            exponent = exponent * 10 + (p[0] - 48)
            p += 1
        if p == start or p < end:
            return 0
    if number.negative and m == 0:
        return -1  # the reference knows what becomes of -0
    number.m = m
    number.exponent = sign * exponent - places
    return 1


cdef bint _number_of(Wire *wire, Val *val, Number *number) noexcept nogil:
    """`Reader.number_of`: whether a slot holds a number."""
    cdef int read
    if val.kind == NOTHING:
        return False
    number.exponent = 0
    number.negative = 0
    if val.kind == SMALL:
        number.m = val.n
        return True
    if val.kind == FALSE or val.kind == TRUE:
        wire.quirks |= QUIRK_BOOL_AS_INT
        number.m = val.kind == TRUE
        return True
    if val.kind == OBJECT or val.kind == LIST or val.kind == ESCAPED:
        wire.quirks |= QUIRK_WRONG_TYPE_IGNORED
        return False
    read = _decimal(val.p, val.p + val.n, number)
    if read < 0:
        wire.doubt = True
        return False
    if val.kind == TEXT:
        wire.quirks |= QUIRK_NUMBER_AS_STRING if read else QUIRK_WRONG_TYPE_IGNORED
    return read


cdef int32_t _integer_slow(Wire *wire, Val *val, int32_t default) noexcept nogil:
    cdef Number number
    cdef uint64_t m
    cdef int i
    if not _number_of(wire, val, &number):
        return default
    if val.kind == REAL:
        wire.quirks |= QUIRK_FLOAT_AS_INT
    elif val.kind == TEXT:
        for i in range(<int>val.n):
            if not _is_digit(val.p[i]) and val.p[i] != c'-':
                wire.quirks |= QUIRK_FLOAT_AS_INT
                break
    m = number.m
    if m:
        i = number.exponent
        while i > 0 and m >> 32 == 0:
            m *= 10
            i -= 1
        while i < 0 and m:
            m //= 10
            i += 1
    if m > <uint64_t>INT32_HIGH:
        return INT32_LOW if number.negative else INT32_HIGH
    return -<int32_t>m if number.negative else <int32_t>m


cdef inline int32_t _integer(Wire *wire, Val *val, int32_t default) noexcept nogil:
    """`Reader.integer`: truncated, saturated."""
    if val.kind == NOTHING:
        return default
    if val.kind == SMALL:
        return <int32_t>val.n
    return _integer_slow(wire, val, default)


cdef inline int32_t _count(Wire *wire, Val *val, int32_t default) noexcept nogil:
    """`Reader.count`: not below 0."""
    cdef int32_t value = _integer(wire, val, default)
    if value < 0 and value != default:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return default
    return value


cdef int64_t _micros(Wire *wire, Val *val) noexcept nogil:
    """`Reader.micros`: -1 is IMPOSSIBLE."""
    cdef Number number
    cdef uint64_t m, divisor, rest, half
    cdef int shift
    if val.kind == NOTHING:
        return 0
    if not _number_of(wire, val, &number):
        return -1
    m = number.m
    shift = number.exponent + 6
    if m == 0:
        return 0
    if number.negative:
        return -1
    while shift > 0:
        if m > <uint64_t>CPM_LIMIT:
            return -1
        m *= 10
        shift -= 1
    if shift < 0:
        if shift < -19:
            m = 0
        else:
            divisor = 1
            while shift < 0:
                divisor *= 10
                shift += 1
            rest = m % divisor
            m //= divisor
            half = divisor // 2
            if rest > half or (rest == half and m & 1):
                m += 1
    return <int64_t>m if m <= <uint64_t>CPM_LIMIT else -1


cdef double[23] POWERS
for _n in range(23):
    POWERS[_n] = float(10**_n)


cdef bint _real(Wire *wire, Val *val, double *out) noexcept nogil:
    """`Reader.real`: whether a slot holds a finite number."""
    cdef Number number
    cdef char text[NUMBER_BYTES_MAX + 1]
    cdef uint64_t m
    cdef int digits = 0
    if not _number_of(wire, val, &number):
        return False
    m = number.m
    if m < <uint64_t>1 << 53 and -22 <= number.exponent <= 22:
        # Both are exact, so the one rounding of the quotient is the right one.
        out[0] = <double>m
        if number.exponent < 0:
            out[0] /= POWERS[-number.exponent]
        else:
            out[0] *= POWERS[number.exponent]
        if number.negative:
            out[0] = -out[0]
        return True
    if m == 0:
        out[0] = 0.0
        return True
    while m:
        m //= 10
        digits += 1
    if digits - 1 + number.exponent > 300:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return False
    if number.exponent < -300 or val.n > NUMBER_BYTES_MAX or val.kind == SMALL:
        wire.doubt = True
        return False
    memcpy(text, val.p, val.n)
    text[val.n] = 0
    out[0] = PyOS_string_to_double(text, NULL, NULL)
    return True


cdef int32_t _size(Wire *wire, Val *val) noexcept nogil:
    """A size or duration of an impression, which must not be below 0."""
    cdef int32_t value = _integer(wire, val, 0)
    if value < 0:
        _spoil(wire)
    return value


cdef int64_t _floor(Wire *wire, Val *val) noexcept nogil:
    """A floor of an impression, which must be possible."""
    cdef int64_t micros = _micros(wire, val)
    if micros < 0:
        _spoil(wire)
        return 0
    return micros


cdef inline void _spoil(Wire *wire) noexcept nogil:
    wire.quirks |= QUIRK_BAD_VALUE_IGNORED
    wire.spoiled = True


cdef uint32_t _currency_of(Text text) noexcept nogil:
    """`money.currency_code`; 0 for anything else."""
    cdef uint32_t code = 0
    cdef uint8_t byte
    cdef int i
    if text.n != 3:
        return 0
    for i in range(3):
        byte = text.p[i] & ~32
        if not 65 <= byte <= 90:
            return 0
        code = code << 8 | byte
    return code


cdef uint32_t _currency(Wire *wire, Val *val) noexcept nogil:
    """`Reader.currency`."""
    cdef uint32_t code
    if val.kind == NOTHING:
        return USD
    if val.kind != TEXT:
        wire.doubt = True
        return 0
    code = _currency_of(_raw(wire, val))
    if code == 0:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
    return code


# -- texts -----------------------------------------------------------------------------------------

cdef Text _unescape(Wire *wire, const uint8_t *p, Py_ssize_t n) noexcept nogil:
    """What a checked string with escapes means, in the arena, with a NUL behind it."""
    cdef const uint8_t *end = p + n
    cdef const uint8_t *mark
    cdef uint8_t *to = &ARENA[wire.arena_used]
    cdef Text text
    cdef Py_ssize_t run
    cdef int unit
    cdef uint8_t byte
    text.p = to
    text.n = 0
    if n + 1 > ARENA_BYTES - wire.arena_used:
        wire.doubt = True
        return text
    while p < end:
        mark = <const uint8_t *>memchr(p, 92, end - p)
        run = (mark if mark != NULL else end) - p
        memcpy(to, p, run)
        to += run
        p += run
        if p == end:
            break
        byte = p[1]
        if byte != c'u':
            if byte == c'n':
                byte = 10
            elif byte == c't':
                byte = 9
            elif byte == c'r':
                byte = 13
            elif byte == c'b':
                byte = 8
            elif byte == c'f':
                byte = 12
            to[0] = byte
            to += 1
            p += 2
            continue
        unit = _unit(p)
        p += 6
        if 0xD800 <= unit <= 0xDBFF:
            unit = 0x10000 + ((unit - 0xD800) << 10) + (_unit(p) - 0xDC00)
            p += 6
        if unit < 0x80:
            to[0] = unit
            to += 1
            continue
        if unit < 0x800:
            to[0] = 0xC0 | unit >> 6
        else:
            if unit < 0x10000:
                to[0] = 0xE0 | unit >> 12
            else:
                to[0] = 0xF0 | unit >> 18
                to += 1
                to[0] = 0x80 | unit >> 12 & 63
            to += 1
            to[0] = 0x80 | unit >> 6 & 63
        to += 1
        to[0] = 0x80 | unit & 63
        to += 1
    to[0] = 0
    text.n = to - text.p
    wire.arena_used += text.n + 1
    return text


cdef inline Text _strip(Text text) noexcept nogil:
    """Without white space at both ends, as `str.strip(" \\t\\r\\n")`."""
    while text.n and _is_space(text.p[0]):
        text.p += 1
        text.n -= 1
    while text.n and _is_space(text.p[text.n - 1]):
        text.n -= 1
    return text


cdef Text _literal(Wire *wire, Val *val) noexcept nogil:
    """A number as text: as it was written."""
    cdef Text text
    text.p = val.p
    text.n = val.n
    if val.kind == SMALL:
        text.n = 0
        while _is_digit(text.p[text.n]):
            text.n += 1
    elif val.kind == INTEGER and (val.n > SIGNIFICANT_DIGITS_MAX or memcmp(val.p, b"-0", 2) == 0):
        wire.doubt = True  # -0, or digits that the reference might write in another way
    return text


cdef Text _raw(Wire *wire, Val *val) noexcept nogil:
    """`Reader.raw_of`: string contents as they stand."""
    cdef Text text
    text.p = val.p
    text.n = val.n
    if val.kind == TEXT or val.kind == ESCAPED:
        return text
    if SMALL <= val.kind <= REAL:
        wire.quirks |= QUIRK_STRING_AS_NUMBER
        return _literal(wire, val)
    if val.kind != NOTHING:
        wire.quirks |= QUIRK_WRONG_TYPE_IGNORED
    text.n = 0
    return text


cdef inline Text _plain(Wire *wire, Val *val) noexcept nogil:
    """What a scalar means as text, untrimmed."""
    if val.kind == ESCAPED:
        return _unescape(wire, val.p, val.n)
    return _raw(wire, val)


cdef Text _odd_text(Wire *wire, Val *val) noexcept nogil:
    return _strip(_plain(wire, val))


cdef inline Text _text(Wire *wire, Val *val) noexcept nogil:
    """`Reader.text`."""
    cdef Text text
    if val.kind == NOTHING or (
        val.kind == TEXT and val.p[0] != 32 and val.p[val.n - 1] != 32
    ):
        text.p = val.p
        text.n = val.n if val.kind != NOTHING else 0
        return text
    return _odd_text(wire, val)


cdef Text _text_or(Wire *wire, Val *val, Val *other) noexcept nogil:
    """The first of two that says something; the second is looked at only then."""
    cdef Text text = _text(wire, val)
    return text if text.n else _text(wire, other)


cdef bint _is_id(Wire *wire, Val *val, Text raw) noexcept nogil:
    """`reading.is_id` of the raw text of a slot."""
    cdef Text text
    cdef Py_ssize_t i
    if raw.n == 0 or raw.n > ID_BYTES_MAX:
        return False
    if val.kind != ESCAPED:
        return memchr(raw.p, 127, raw.n) == NULL
    text = _unescape(wire, raw.p, raw.n)
    for i in range(text.n):
        if text.p[i] < 32 or text.p[i] == 127:
            return False
    return True


cdef bint _equals(Text text, const char *word, Py_ssize_t n) noexcept nogil:
    """Whether a text is a lower-case word, whatever its case."""
    cdef Py_ssize_t i
    cdef uint8_t byte
    if text.n != n:
        return False
    for i in range(n):
        byte = text.p[i]
        if 65 <= byte <= 90:
            byte |= 32
        if byte != <uint8_t>word[i]:
            return False
    return True


cdef Text _primary(Text tag) noexcept nogil:
    """`contexts.language_of`: up to the first dash or underscore."""
    cdef Py_ssize_t i
    for i in range(tag.n):
        if tag.p[i] == c'-' or tag.p[i] == c'_':
            tag.n = i
            break
    return tag


cdef inline Text _host(Text text) noexcept nogil:
    """`hosts.host_of`, but for the lowering, which hashing does."""
    cdef uint8_t odd = 0
    cdef Py_ssize_t i
    for i in range(text.n):
        odd |= ODD_HOST[text.p[i]]
    if not odd and 0 < text.n <= HOST_BYTES_MAX and text.p[0] != c'.' and (
        text.p[text.n - 1] != c'.'
    ):
        return text
    return _odd_host(text)


cdef Text _odd_host(Text text) noexcept nogil:
    """`_host` of anything that is not a plain name."""
    cdef const uint8_t *p = text.p
    cdef const uint8_t *end = text.p + text.n
    cdef const uint8_t *found = <const uint8_t *>memchr(p, c':', text.n) if text.n else NULL
    cdef const uint8_t *at
    cdef Py_ssize_t i
    while found != NULL and not (end - found >= 3 and found[1] == c'/' and found[2] == c'/'):
        found = <const uint8_t *>memchr(found + 1, c':', end - found - 1)
    if found != NULL:
        p = found + 3
    else:
        while p < end and p[0] == c'/':
            p += 1
    at = p
    while at < end and at[0] != c'/' and at[0] != c'?' and at[0] != c'#':
        at += 1
    end = at
    while at > p:
        at -= 1
        if at[0] == c'@':
            p = at + 1
            break
    at = p
    while at < end and at[0] != c':':
        at += 1
    end = at
    if end - p >= 2 and p[0] == c'*' and p[1] == c'.':
        p += 2
    while p < end and p[0] == c'.':
        p += 1
    while end > p and (end - 1)[0] == c'.':
        end -= 1
    text.p = p
    text.n = end - p
    if text.n > HOST_BYTES_MAX:
        text.n = 0
    for i in range(text.n):
        if _is_space(p[i]):
            text.n = 0
            break
    return text


cdef Text _blocked_host(Text text) noexcept nogil:
    """`hosts.blocked_host`."""
    cdef Text host = _host(text)
    cdef Text prefix
    cdef Py_ssize_t i
    cdef int dots = 0
    prefix.p = host.p
    prefix.n = 4
    if host.n > 4 and _equals(prefix, b"www.", 4):
        for i in range(host.n):
            dots += host.p[i] == c'.'
        if dots > 1:
            host.p += 4
            host.n -= 4
    return host


# -- tokens ----------------------------------------------------------------------------------------

cdef inline void _put(Wire *wire, int dim, uint64_t hash_, Text text, int imp) noexcept nogil:
    cdef Head *head = &wire.facts.head
    cdef Token *token
    if head.tokens_count >= TOKENS_MAX:
        wire.doubt = True
        return
    token = &wire.facts.tokens[head.tokens_count]
    head.tokens_count += 1
    token.hash_ = hash_
    token.dim = dim
    token.imp = imp
    token.off = 0
    token.len_ = 0
    if wire.base <= text.p < wire.base_end:
        token.off = <int32_t>(text.p - wire.base)
        token.len_ = <int32_t>text.n


cdef inline void _target(Wire *wire, int dim, uint64_t hash_, Text text, int imp) noexcept nogil:
    """A value that can be targeted; too many of them are the reference's to count."""
    wire.targets_left -= 1
    if wire.targets_left < 0:
        wire.doubt = True
        return
    _put(wire, dim, hash_, text, imp)


cdef inline void _target_text(Wire *wire, int dim, Text text, int imp) noexcept nogil:
    if text.n:
        _target(wire, dim, _hash_of(wire, dim, text), text, imp)


cdef inline void _target_made(Wire *wire, int dim, uint64_t state, int imp) noexcept nogil:
    """A value that does not stand in the body as such: its token has no slice."""
    cdef Text text
    text.p = NULL
    text.n = 0
    _target(wire, dim, token_end(state), text, imp)


cdef inline void _target_known(Wire *wire, int dim, uint64_t hash_, int imp) noexcept nogil:
    cdef Text text
    text.p = NULL
    text.n = 0
    _target(wire, dim, hash_, text, imp)


cdef inline void _block(Wire *wire, int dim, uint64_t hash_, Text text, int imp) noexcept nogil:
    """A value of a block or allow list."""
    wire.blocks_left -= 1
    if wire.blocks_left < 0:
        wire.doubt = True
        return
    _put(wire, dim, hash_, text, imp)


cdef uint64_t _feed(Wire *wire, uint64_t state, const uint8_t *p, Py_ssize_t n) noexcept nogil:
    """Text into a token's hash."""
    cdef Py_ssize_t i
    if not wire.base <= p < wire.base_end - 8 - n:
        for i in range(n):
            state = token_feed(state, p[i])
        return state
    while n > 8:
        state = wire_feed_word(state, wire_load(p), 8)
        p += 8
        n -= 8
    return wire_feed_word(state, wire_load(p), n)


cdef inline uint64_t _hash_of(Wire *wire, int dim, Text text) noexcept nogil:
    """`token_hash`."""
    return token_end(_feed(wire, token_start(dim), text.p, text.n))


cdef uint64_t _feed_number(Wire *wire, uint64_t state, uint32_t value) noexcept nogil:
    """The decimal digits of a number."""
    cdef uint8_t digits[10]
    cdef int at = 10
    while True:
        at -= 1
        digits[at] = 48 + value % 10
        value //= 10
        if value == 0:
            return _feed(wire, state, digits + at, 10 - at)


cdef void _target_number(
    Wire *wire, int dim, const char *prefix, int value, int imp
) noexcept nogil:
    """The token of a prefix and a number."""
    cdef uint64_t state = token_start(dim)
    while prefix[0]:
        state = token_feed(state, <uint8_t>prefix[0])
        prefix += 1
    _target_made(wire, dim, _feed_number(wire, state, <uint32_t>value), imp)


cdef void _target_size(Wire *wire, int32_t w, int32_t h) noexcept nogil:
    cdef uint64_t state = token_start(DIM_SIZE)
    state = _feed_number(wire, state, <uint32_t>w)
    state = token_feed(state, c'x')
    _target_made(wire, DIM_SIZE, _feed_number(wire, state, <uint32_t>h), wire.imp)


cdef void _comma_separated(Wire *wire, int dim, Text text) noexcept nogil:
    """A token for each word between commas."""
    cdef const uint8_t *end = text.p + text.n
    cdef const uint8_t *comma
    cdef Text word
    if text.n == 0:
        return
    while True:
        comma = <const uint8_t *>memchr(text.p, c',', end - text.p)
        word.p = text.p
        word.n = (comma if comma != NULL else end) - text.p
        _target_text(wire, dim, _strip(word), -1)
        if comma == NULL:
            return
        text.p = comma + 1


# -- lists -----------------------------------------------------------------------------------------

cdef const uint8_t *_numbers(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """A list of enum numbers as a mask (`Reader.mask`) of 64 bits."""
    cdef Val item
    cdef uint64_t bits = 0
    cdef uint32_t items = 0
    cdef int32_t number
    cdef bint listed = p[0] == c'['
    if val.kind != NOTHING:
        return NULL
    if listed:
        p = _space(p + 1)
    while p[0] != c']' or not listed or items:
        if listed and _is_digit(p[0]) and (p[1] == c',' or p[1] == c']'):
            number = p[0] - 48
            items += 1
            p += 1
        else:
            item.kind = NOTHING
            p = _value(wire, p, &item)
            if p == NULL:
                return NULL
            number = -1
            if item.kind != NOTHING:
                items += 1
                number = _integer(wire, &item, -1)
            if not listed:
                if item.kind == NOTHING:
                    return p
                wire.quirks |= QUIRK_SCALAR_AS_LIST
        if 0 < number < 64:
            bits |= <uint64_t>1 << number
        if not listed:
            val.kind = MASK
            val.p = <const uint8_t *><uintptr_t>bits
            val.n = items
            return p
        p = _space(p)
        if p[0] == c',':
            p = _space(p + 1)
            if p[0] == c']':
                return NULL
        elif p[0] == c']':
            break
        else:
            return NULL
    val.kind = MASK
    val.p = <const uint8_t *><uintptr_t>bits
    val.n = items
    return p + 1


cdef inline uint64_t _mask64(Val *val) noexcept nogil:
    return <uint64_t><uintptr_t>val.p if val.kind == MASK else 0


cdef inline uint32_t _mask(Val *val, uint32_t unknown) noexcept nogil:
    """A mask of 32 bits; `unknown` when entries were given and none is in it."""
    cdef uint32_t bits = <uint32_t>_mask64(val)
    return bits if bits or not val.n or val.kind != MASK else unknown


cdef int _mime_bit(Text text) noexcept nogil:
    """The bit of a MIME type without its parameters; -1 when unknown."""
    cdef uint64_t words[4]
    cdef uint8_t *to = <uint8_t *>words
    cdef const uint8_t *found = <const uint8_t *>memchr(text.p, c';', text.n) if text.n else NULL
    cdef Py_ssize_t i
    cdef int at
    if found != NULL:
        text.n = found - text.p
        text = _strip(text)
    if text.n == 0 or text.n > 31:
        return -1
    memset(words, 0, sizeof(words))
    memcpy(to, text.p, text.n)
    for i in range(text.n):
        if 65 <= to[i] <= 90:
            to[i] |= 32
    at = MIME_AT[_mime_hash(words)]
    if at < 0 or memcmp(words, MIME_LIST_OF[at].words, sizeof(words)) != 0:
        return -1
    return MIME_LIST_OF[at].bit


cdef const uint8_t *_mimes(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """`native.mime_mask`."""
    cdef Val item
    cdef uint64_t bits = 0
    cdef uint32_t items = 0
    cdef int bit
    cdef bint listed = p[0] == c'['
    if val.kind != NOTHING:
        return NULL
    if listed:
        p = _space(p + 1)
    if not listed or p[0] != c']':
        while True:
            item.kind = NOTHING
            p = _value(wire, p, &item)
            if p == NULL:
                return NULL
            if item.kind != NOTHING:
                items += 1
                bit = _mime_bit(_text(wire, &item))
                if bit >= 0:
                    bits |= <uint64_t>1 << bit
            if not listed:
                break
            p = _space(p)
            if p[0] == c']':
                break
            if p[0] != c',':
                return NULL
            p = _space(p + 1)
    if not listed:
        if items == 0:
            return p
        wire.quirks |= QUIRK_SCALAR_AS_LIST
    val.kind = MASK
    val.p = <const uint8_t *><uintptr_t>(bits if bits or not items else MIME_UNKNOWN)
    val.n = items
    return p + 1 if listed else p


cdef void _list_text(Wire *wire, int dim, int aux, Text text) noexcept nogil:
    """One entry of a list of texts. `aux`: taxonomy of categories, index of a deal."""
    cdef uint64_t state
    cdef const uint8_t *dash
    cdef Py_ssize_t size = text.n
    if dim == DIM_BCAT or dim == DIM_ACAT or dim == DIM_PAGE_CATEGORY:
        if text.n == 0:
            return
        state = token_feed(_feed_number(wire, token_start(dim), <uint32_t>aux), c':')
        if dim != DIM_PAGE_CATEGORY:
            _block(wire, dim, token_end(_feed(wire, state, text.p, size)), text, -1)
            return
        if aux == CATTAX_DEFAULT:
            dash = <const uint8_t *>memchr(text.p, c'-', size)
            if dash != NULL:
                state = _feed(wire, state, text.p, dash - text.p)
                _target_made(wire, dim, state, -1)
                size -= dash - text.p
                text.p = dash
        _target_made(wire, dim, _feed(wire, state, text.p, size), -1)
        return
    if dim == DIM_BADV or dim == DIM_DEAL_WADOMAIN:
        text = _blocked_host(text)
    elif dim == DIM_WLANG:
        text = _primary(text)
    if text.n == 0:
        return
    if DIM_BCAT <= dim <= DIM_DEAL_WADOMAIN:
        _block(wire, dim, _hash_of(wire, dim, text), text, aux)
    else:
        _target_text(wire, dim, text, -1)


cdef const uint8_t *_texts(Wire *wire, const uint8_t *p, Val *val, int dim, int aux) noexcept nogil:
    """A list of texts (`Reader.texts`) as tokens; `n` of the slot counts what says something."""
    cdef Val item
    cdef bint listed = p[0] == c'['
    if val.kind != NOTHING:
        return NULL
    val.n = 0
    if listed:
        val.kind = DONE
        p = _space(p + 1)
        if p[0] == c']':
            return p + 1
    while True:
        item.kind = NOTHING
        p = _value(wire, p, &item)
        if p == NULL:
            return NULL
        if item.kind != NOTHING:
            val.n += 1
            _list_text(wire, dim, aux, _text(wire, &item))
        if not listed:
            break
        p = _space(p)
        if p[0] == c']':
            return p + 1
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    if val.n:
        val.kind = DONE
        wire.quirks |= QUIRK_SCALAR_AS_LIST
    return p


cdef const uint8_t *_start_of(Val *val) noexcept nogil:
    """Where the value of a slot begins, to read it once more."""
    return val.p - 1 if val.kind == TEXT or val.kind == ESCAPED else val.p


cdef void _texts_of(Wire *wire, Val *val, int dim) noexcept nogil:
    """The list that a slot holds, as tokens."""
    cdef Val again
    again.kind = NOTHING
    if val.kind != NOTHING:
        _texts(wire, _start_of(val), &again, dim, -1)


cdef const uint8_t *_words(Wire *wire, const uint8_t *p, Val *val, int dim) noexcept nogil:
    """`keywords`: a comma-separated text, or a list."""
    if p[0] == c'[':
        wire.quirks |= QUIRK_OTHER_NOTATION
        return _texts(wire, p, val, dim, -1)
    p = _value(wire, p, val)
    if p != NULL:
        _comma_separated(wire, dim, _text(wire, val))
    return p


cdef const uint8_t *_segments(
    Wire *wire, const uint8_t *p, Val *val, Text *names, int *count
) noexcept nogil:
    """data.segment: ":segment" tokens; the names are kept for their provider."""
    cdef Val slots[3]
    cdef uint64_t state
    cdef bint more
    cdef Text name
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        p = _plain_object(wire, p, T_OWNER, slots)
        if p == NULL:
            return NULL
        name = _text_or(wire, &slots[ONE], &slots[TWO])
        if name.n:
            if count[0] == SEGMENTS_MAX:
                return NULL
            names[count[0]] = name
            count[0] += 1
            state = token_feed(token_start(DIM_DATA_SEGMENT), c':')
            _target_made(wire, DIM_DATA_SEGMENT, _feed(wire, state, name.p, name.n), -1)
        p = _next(wire, p, &more)
    return p


cdef const uint8_t *_data(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """user.data or content.data."""
    cdef Text names[SEGMENTS_MAX]
    cdef Val slots[4]
    cdef uint64_t state
    cdef bint more
    cdef Text provider
    cdef int own, count, i
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        own = -1
        count = 0
        while True:
            p = _members(wire, p, T_DATA, slots, &own)
            if p == NULL:
                return NULL
            if own == 0:
                break
            p = _segments(wire, p, &slots[own], names, &count)
            if p == NULL:
                return NULL
        provider = _text_or(wire, &slots[TWO], &slots[ONE])
        if provider.n:
            state = token_start(DIM_DATA_SEGMENT)
            state = token_feed(_feed(wire, state, provider.p, provider.n), c':')
            for i in range(count):
                _target_made(
                    wire, DIM_DATA_SEGMENT, _feed(wire, state, names[i].p, names[i].n), -1
                )
        p = _next(wire, p, &more)
    return p


cdef Text _scalar(Wire *wire, Val *val) noexcept nogil:
    """A value of `ext.data` as text: numbers as written, truth by its word."""
    cdef Text text
    text.p = val.p
    text.n = 0
    if val.kind == TEXT or val.kind == ESCAPED:
        return _text(wire, val)
    if SMALL <= val.kind <= REAL:
        return _literal(wire, val)
    if val.kind == TRUE:
        text.p = <const uint8_t *>"true"
        text.n = 4
    elif val.kind == FALSE:
        text.p = <const uint8_t *>"false"
        text.n = 5
    return text


cdef void _key_value(Wire *wire, uint64_t state, Val *val) noexcept nogil:
    cdef Text text = _scalar(wire, val)
    if text.n:
        _target_made(wire, DIM_KEY_VALUE, _feed(wire, state, text.p, text.n), wire.imp)


cdef const uint8_t *_key_values(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """ext.data (`sheet.key_values`): any keys, scalars or lists of them."""
    cdef Val keys[NAMES_MAX]
    cdef Val item
    cdef uint64_t state
    cdef Text name
    cdef int count = 0, i
    if not _is_object(wire, &p, val):
        return p
    p = _space(p + 1)
    if p[0] == c'}':
        return p + 1
    while True:
        if p[0] != c'"' or count == NAMES_MAX:
            return NULL
        keys[count].kind = NOTHING
        keys[count].n = 0
        keys[count].p = p
        p = _value(wire, p, &keys[count])
        if p == NULL:
            return NULL
        for i in range(count):
            if keys[i].n == keys[count].n and memcmp(keys[i].p, keys[count].p, keys[i].n) == 0:
                return NULL
        name = _plain(wire, &keys[count])
        count += 1
        state = token_feed(_feed(wire, token_start(DIM_KEY_VALUE), name.p, name.n), c'=')
        p = _space(p)
        if p[0] != c':':
            return NULL
        p = _space(p + 1)
        item.kind = NOTHING
        if p[0] != c'[':
            p = _value(wire, p, &item)
            if p == NULL:
                return NULL
            _key_value(wire, state, &item)
        else:
            p = _space(p + 1)
            while p[0] != c']':
                item.kind = NOTHING
                p = _value(wire, p, &item)
                if p == NULL:
                    return NULL
                _key_value(wire, state, &item)
                p = _space(p)
                if p[0] == c',':
                    p = _space(p + 1)
                    if p[0] == c']':
                        return NULL
                elif p[0] != c']':
                    return NULL
            p += 1
        p = _space(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL
        p = _space(p + 1)


# -- where: site, app, dooh ------------------------------------------------------------------------

cdef int _taxonomy(Wire *wire, Val *val, int which) noexcept nogil:
    """The taxonomy of a list of categories; a guess when it did not stand before the list."""
    cdef int cattax
    if val.kind == NOTHING:
        return wire.taxonomies[which]
    cattax = _count(wire, val, 0)
    return cattax if cattax else CATTAX_DEFAULT


cdef bint _guessed_wrong(Wire *wire, Val *val, int which, int used) noexcept nogil:
    """Whether lists were read in a taxonomy (0: no list) that their owner did not name."""
    cdef int cattax = _count(wire, val, 0)
    cattax = cattax if cattax else CATTAX_DEFAULT
    if used == 0 or used == cattax:
        return False
    _again(wire, which, cattax)
    return True


cdef const uint8_t *_again(Wire *wire, int which, int cattax) noexcept nogil:
    """Gives up this pass for another one that knows a taxonomy beforehand."""
    wire.taxonomies[which] = cattax
    wire.again = True
    return NULL


cdef const uint8_t *_content(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef Val slots[N_COUNT]
    cdef Val station[3]
    cdef int own = -1, cattax = 0
    _clear(slots, sizeof(slots))
    while True:
        p = _members(wire, p, T_CONTENT, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if own == N_CAT:
            cattax = _taxonomy(wire, &slots[N_CATTAX], 2)
            p = _texts(wire, p, &slots[own], DIM_PAGE_CATEGORY, cattax)
        elif own == N_KEYWORDS:
            p = _words(wire, p, &slots[own], DIM_KEYWORD)
        elif own == N_KWARRAY:
            p = _texts(wire, p, &slots[own], DIM_KEYWORD, -1)
        elif own == N_GENRES:
            p = _texts(wire, p, &slots[own], DIM_CONTENT_GENRE, -1)
        elif own == N_DATA:
            p = _data(wire, p, &slots[own])
        elif _is_object(wire, &p, &slots[own]):
            _clear(station, sizeof(station))
            p = _plain_object(wire, p, T_OWNER, station)
            if p != NULL:
                _target_text(wire, DIM_CONTENT_CHANNEL, _text(wire, &station[ONE]), -1)
                _target_text(wire, DIM_CONTENT_CHANNEL, _text(wire, &station[TWO]), -1)
        if p == NULL:
            return NULL
    if _guessed_wrong(wire, &slots[N_CATTAX], 2, cattax):
        return NULL
    _target_text(
        wire, DIM_CONTENT_LANGUAGE,
        _primary(_text_or(wire, &slots[N_LANGUAGE], &slots[N_LANGB])), -1,
    )
    _comma_separated(wire, DIM_CONTENT_GENRE, _text(wire, &slots[N_GENRE]))
    _target_text(wire, DIM_CONTENT_RATING, _text(wire, &slots[N_RATING]), -1)
    return p


cdef const uint8_t *_ext_data(Wire *wire, const uint8_t *p) noexcept nogil:
    """The key values of an ext of which nothing else is read."""
    cdef Val slots[I_COUNT]
    cdef int own = -1
    _clear(slots, sizeof(slots))
    while True:
        # Of the table of imp.ext only `data` is asked for here.
        p = _members(wire, p, T_IMP_EXT, slots, &own)
        if p == NULL or own == 0:
            return p
        if own == I_DATA:
            p = _key_values(wire, p, &slots[own])
        else:
            p = _skip(wire, p)
        if p == NULL:
            return NULL


cdef void _domains(Wire *wire, Text host) noexcept nogil:
    """`hosts.with_parents` as tokens."""
    cdef Py_ssize_t i, last = -1
    if host.n == 0:
        return
    _target_text(wire, DIM_DOMAIN, host, -1)
    for i in range(host.n):
        if host.p[i] == c'.':
            last = i
    if host.p[last + 1] >= 128:
        wire.doubt = True  # is it a digit of some script?
    if _is_digit(host.p[last + 1]):
        return
    while True:
        i = 0
        while i < host.n and host.p[i] != c'.':
            i += 1
        if i >= last:
            return
        host.p += i + 1
        host.n -= i + 1
        last -= i + 1
        _target_text(wire, DIM_DOMAIN, host, -1)


cdef const uint8_t *_channel(Wire *wire, const uint8_t *p, int channel) noexcept nogil:
    cdef Val slots[C_COUNT]
    cdef Val publisher[3]
    cdef Text host
    cdef int own = -1, cattax = 0, used
    if wire.channel:
        return NULL  # two of them: which one counts is the reference's to say
    wire.channel = channel
    _clear(slots, sizeof(slots))
    _clear(publisher, sizeof(publisher))
    while True:
        p = _members(wire, p, T_CHANNEL, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if C_CAT <= own < C_CAT + 3:
            used = _taxonomy(wire, &slots[C_CATTAX], 1)
            if cattax and used != cattax:
                return _again(wire, 1, used)
            cattax = used
            p = _texts(wire, p, &slots[own], DIM_PAGE_CATEGORY, cattax)
        elif own == C_KEYWORDS:
            p = _words(wire, p, &slots[own], DIM_KEYWORD)
        elif own == C_KWARRAY:
            p = _texts(wire, p, &slots[own], DIM_KEYWORD, -1)
        elif _is_object(wire, &p, &slots[own]):
            if own == C_PUBLISHER:
                p = _plain_object(wire, p, T_OWNER, publisher)
            elif own == C_CONTENT:
                p = _content(wire, p)
            else:
                p = _ext_data(wire, p)
        if p == NULL:
            return NULL
    if _guessed_wrong(wire, &slots[C_CATTAX], 1, cattax):
        return NULL
    _target_known(wire, DIM_CHANNEL, CHANNEL_TOKENS[channel], -1)
    _target_text(wire, DIM_PUBLISHER, _text(wire, &publisher[ONE]), -1)
    host = _host(_text(wire, &slots[C_DOMAIN]))
    if channel == 1 and host.n == 0:
        host = _host(_text(wire, &slots[C_PAGE]))
    _domains(wire, host)
    if channel == 2:
        _target_text(wire, DIM_BUNDLE, _text(wire, &slots[C_BUNDLE]), -1)
    elif channel == 3:
        if slots[C_VENUETYPE].kind == NOTHING and slots[C_VENUETYPEID].kind != NOTHING:
            wire.quirks |= QUIRK_OLD_HOME
            slots[C_VENUETYPE] = slots[C_VENUETYPEID]
        _texts_of(wire, &slots[C_VENUETYPE], DIM_VENUE)
    return p


# -- whom: user ------------------------------------------------------------------------------------

cdef inline void _identifier(
    Wire *wire, Identifier *rows, int *count, int kind, Val *val, Text source, int atype
) noexcept nogil:
    """Adds an id when it is one; those past the list's end are counted."""
    cdef Text raw = _raw(wire, val)
    cdef Identifier *row
    if not _is_id(wire, val, raw):
        if raw.n:
            wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return
    if count[0] < IDS_MAX:
        row = &rows[count[0]]
        row.off = <int32_t>(raw.p - wire.base)
        row.len_ = <int32_t>raw.n
        row.source_off = <int32_t>(source.p - wire.base) if source.n else 0
        row.source_len = <int32_t>source.n
        row.kind = kind
        row.atype = atype
    count[0] += 1


cdef const uint8_t *_uids(
    Wire *wire, const uint8_t *p, Val *val, Val *uids, int *count
) noexcept nogil:
    cdef bint more
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        if count[0] == UIDS_MAX:
            return NULL
        _clear(&uids[count[0] * 3], 3 * sizeof(Val))
        p = _plain_object(wire, p, T_UID, &uids[count[0] * 3])
        if p == NULL:
            return NULL
        count[0] += 1
        p = _next(wire, p, &more)
    return p


cdef const uint8_t *_eids(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """user.eids or user.ext.eids; the ids of persons are put together in `_ids`."""
    cdef Val uids[UIDS_MAX * 3]
    cdef Val slots[3]
    cdef Text source
    cdef bint more
    cdef int own, count, i, atype
    if wire.user[U_EIDS].kind != NOTHING or wire.user_ext[X_EIDS].kind != NOTHING:
        return NULL  # in both homes, or twice
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        own = -1
        count = 0
        while True:
            p = _members(wire, p, T_EID, slots, &own)
            if p == NULL:
                return NULL
            if own == 0:
                break
            p = _uids(wire, p, &slots[own], uids, &count)
            if p == NULL:
                return NULL
        source = _raw(wire, &slots[ONE])
        if _is_id(wire, &slots[ONE], source):
            for i in range(count):
                atype = _count(wire, &uids[i * 3 + TWO], 0)
                _identifier(
                    wire, wire.eids, &wire.eids_count, ID_EID, &uids[i * 3 + ONE], source,
                    atype if atype < 65535 else 65535,
                )
        p = _next(wire, p, &more)
    return p


cdef const uint8_t *_user_ext(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef int own = -1
    while True:
        p = _members(wire, p, T_USER_EXT, wire.user_ext, &own)
        if p == NULL or own == 0:
            return p
        if own == X_DATA:
            p = _key_values(wire, p, &wire.user_ext[own])
        else:
            p = _eids(wire, p, &wire.user_ext[own])
        if p == NULL:
            return NULL


cdef const uint8_t *_user(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef int own = -1
    cdef Val *slots = wire.user
    while True:
        p = _members(wire, p, T_USER, slots, &own)
        if p == NULL or own == 0:
            return p
        if own == U_KEYWORDS:
            p = _words(wire, p, &slots[own], DIM_USER_KEYWORD)
        elif own == U_KWARRAY:
            p = _texts(wire, p, &slots[own], DIM_USER_KEYWORD, -1)
        elif own == U_DATA:
            p = _data(wire, p, &slots[own])
        elif own == U_EIDS:
            p = _eids(wire, p, &slots[own])
        elif _is_object(wire, &p, &slots[own]):
            if own == U_GEO:
                p = _plain_object(wire, p, T_GEO, wire.home)
            else:
                p = _user_ext(wire, p)
        if p == NULL:
            return NULL


cdef void _ids(Wire *wire) noexcept nogil:
    """Identifiers in the order of the reference."""
    cdef Facts *facts = wire.facts
    cdef Val *ifa = &wire.device[D_IFA]
    cdef Text nothing, raw
    cdef Py_ssize_t i = 0
    cdef int count = 0, taken
    nothing.p = NULL
    nothing.n = 0
    _identifier(wire, facts.ids, &count, ID_BUYERUID, &wire.user[U_BUYERUID], nothing, 0)
    _identifier(wire, facts.ids, &count, ID_USER, &wire.user[U_ID], nothing, 0)
    raw = _raw(wire, ifa)
    while i < raw.n and (raw.p[i] == c'0' or raw.p[i] == c'-'):
        i += 1
    if i < raw.n:
        _identifier(wire, facts.ids, &count, ID_IFA, ifa, nothing, 0)
    if wire.user[U_EIDS].kind == NOTHING and wire.user_ext[X_EIDS].kind != NOTHING:
        wire.quirks |= QUIRK_OLD_HOME
    taken = wire.eids_count if wire.eids_count < IDS_MAX - count else IDS_MAX - count
    memcpy(&facts.ids[count], wire.eids, taken * sizeof(Identifier))
    if taken < wire.eids_count:
        wire.quirks |= QUIRK_LIST_TRUNCATED
    facts.head.ids_count = count + taken


# -- on what: device -------------------------------------------------------------------------------

cdef uint64_t _marks(const Marks *marks, Text text, uint64_t wanted) noexcept nogil:
    """Which of the wanted marks occur in a text, whatever its case."""
    cdef uint64_t found = 0, candidates
    cdef Py_ssize_t i, j
    cdef int bit
    cdef uint8_t byte
    for i in range(text.n - 1):
        candidates = marks.first[text.p[i]] & marks.second[text.p[i + 1]] & wanted
        while candidates:
            bit = WIRE_CTZ64(candidates)
            candidates &= candidates - 1
            if marks.size[bit] > text.n - i:
                continue
            for j in range(2, marks.size[bit]):
                byte = text.p[i + j]
                if 65 <= byte <= 90:
                    byte |= 32
                if byte != marks.text[bit][j]:
                    break
            else:
                found |= <uint64_t>1 << bit
                wanted &= ~(<uint64_t>1 << bit)
    return found


cdef bint _is_grease(Text brand) noexcept nogil:
    """`agents.is_grease`: its letters are not...brand."""
    cdef uint8_t first[3]
    cdef uint8_t last[5]
    cdef Py_ssize_t i
    cdef int count = 0, j
    cdef uint8_t byte
    for i in range(brand.n):
        byte = brand.p[i]
        if 65 <= byte <= 90:
            byte |= 32
        if not 97 <= byte <= 122:
            continue
        if count < 3:
            first[count] = byte
        for j in range(4):
            last[j] = last[j + 1] if count >= 4 - j else 0
        last[4] = byte
        count += 1
    return count >= 5 and memcmp(first, "not", 3) == 0 and memcmp(last, "brand", 5) == 0


cdef const uint8_t *_sua(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef Val slots[2]
    cdef Text brand
    cdef bint more
    cdef int own = -1
    while True:
        p = _members(wire, p, T_SUA, wire.sua, &own)
        if p == NULL or own == 0:
            return p
        if own == S_PLATFORM:
            if _is_object(wire, &p, &wire.sua[own]):
                p = _plain_object(wire, p, T_PLATFORM, wire.platform)
        else:
            p = _objects(wire, p, &wire.sua[own], &more)
            while p != NULL and more:
                _clear(slots, sizeof(slots))
                p = _plain_object(wire, p, T_BRAND, slots)
                if p == NULL:
                    return NULL
                brand = _text(wire, &slots[ONE])
                if not _is_grease(brand):
                    wire.brands |= _marks(&NAME_MARKS, brand, BROWSER_BRANDS)
                p = _next(wire, p, &more)
        if p == NULL:
            return NULL


cdef const uint8_t *_device_ext(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef int own = -1
    while True:
        p = _members(wire, p, T_DEVICE_EXT, wire.device_ext, &own)
        if p == NULL or own == 0:
            return p
        if _is_object(wire, &p, &wire.device_ext[own]):
            p = _plain_object(wire, p, T_DOOH_EXT, wire.device_ext)
        if p == NULL:
            return NULL


cdef const uint8_t *_device(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef int own = -1
    cdef Val *slots = wire.device
    while True:
        p = _members(wire, p, T_DEVICE, slots, &own)
        if p == NULL or own == 0:
            return p
        if _is_object(wire, &p, &slots[own]):
            if own == D_GEO:
                p = _plain_object(wire, p, T_GEO, wire.geo)
            elif own == D_SUA:
                p = _sua(wire, p)
            else:
                p = _device_ext(wire, p)
        if p == NULL:
            return NULL


cdef int64_t _packed_version(Text text) noexcept nogil:
    """`records.pack_version`."""
    cdef int64_t parts[3]
    cdef int index = 0, digits
    cdef int64_t value
    cdef Py_ssize_t i = 0
    parts[0] = parts[1] = parts[2] = 0
    while index < 3 and i < text.n and _is_digit(text.p[i]):
        value = 0
        digits = 0
        while i < text.n and _is_digit(text.p[i]):
            if digits < 9:
                value = value * 10 + (text.p[i] - 48)
            digits += 1
            i += 1
        parts[index] = min(value, 999_999 if index == 0 else 999)
        while i < text.n and text.p[i] != c'.' and text.p[i] != c'_':
            i += 1
        i += 1
        index += 1
    return parts[0] * 1_000_000 + parts[1] * 1_000 + parts[2]


cdef Text _version_in(Text agent, int rule) noexcept nogil:
    """What stands behind the version mark of a rule, as far as it is a version."""
    cdef const char *mark = VERSION_MARKS[rule]
    cdef Py_ssize_t n = VERSION_MARK_SIZES[rule], i
    cdef Text part, version
    version.p = agent.p
    version.n = 0
    if n == 0:
        return version
    for i in range(agent.n - n + 1):
        part.p = agent.p + i
        part.n = n
        if _equals(part, mark, n):
            version.p = part.p + n
            while i + n + version.n < agent.n and (
                _is_digit(version.p[version.n]) or version.p[version.n] == c'.'
                or version.p[version.n] == c'_'
            ):
                version.n += 1
            return version
    return version


cdef Text _joined_version(Wire *wire, Val *val) noexcept nogil:
    """sua.platform.version, its parts joined by dots, in the arena."""
    cdef uint8_t *to = &ARENA[wire.arena_used]
    cdef const uint8_t *p = val.p
    cdef Val item
    cdef Text joined, part
    joined.p = to
    joined.n = 0
    if val.kind == NOTHING:
        return joined
    if val.kind != LIST or ARENA_BYTES - wire.arena_used < VERSION_BYTES_MAX:
        wire.doubt = True
        return joined
    # Claim the room now: parts with escapes go behind it.
    wire.arena_used += VERSION_BYTES_MAX
    p = _space(p + 1)
    while p[0] != c']':
        item.kind = NOTHING
        p = _space(_value(wire, p, &item))
        part = _text(wire, &item)
        if joined.n + part.n + 1 > VERSION_BYTES_MAX:
            wire.doubt = True
            return joined
        if part.n:
            if joined.n:
                to[joined.n] = c'.'
                joined.n += 1
            memcpy(to + joined.n, part.p, part.n)
            joined.n += part.n
        if p[0] == c',':
            p = _space(p + 1)
    return joined


cdef void _system(Wire *wire) noexcept nogil:
    """OS, its version, browser."""
    cdef Text agent = _text(wire, &wire.device[D_UA])
    cdef Text named = _text_or(wire, &wire.device[D_OS], &wire.platform[P_BRAND])
    cdef Text version = _text(wire, &wire.device[D_OSV])
    cdef uint64_t wanted = 0, found = 0
    cdef Py_ssize_t i
    if version.n == 0:
        version = _joined_version(wire, &wire.platform[P_VERSION])
    if agent.n > AGENT_CHARS_MAX:
        for i in range(agent.n):
            if agent.p[i] >= 128:
                wire.doubt = True  # the limit counts characters
                return
        agent.n = AGENT_CHARS_MAX
    if named.n:
        found = _marks(&NAME_MARKS, named, OS_NAMES)
        if found:
            _target_known(wire, DIM_OS, NAME_TOKENS[WIRE_CTZ64(found)], -1)
        else:
            _target_text(wire, DIM_OS, named, -1)
    if not named.n:
        wanted |= OS_AGENTS
    if not wire.brands:
        wanted |= BROWSER_AGENTS
    found = _marks(&AGENT_MARKS, agent, wanted) if wanted else 0
    if found & OS_AGENTS:
        _target_known(wire, DIM_OS, AGENT_TOKENS[WIRE_CTZ64(found)], -1)
        if version.n == 0:
            version = _version_in(agent, WIRE_CTZ64(found))
    wire.facts.head.os_version = _packed_version(version)
    if wire.brands:
        _target_known(wire, DIM_BROWSER, NAME_TOKENS[WIRE_CTZ64(wire.brands)], -1)
    elif found & BROWSER_AGENTS:
        _target_known(wire, DIM_BROWSER, AGENT_TOKENS[WIRE_CTZ64(found & BROWSER_AGENTS)], -1)


cdef void _network(Wire *wire, Text code) noexcept nogil:
    """CARRIER of a mobile network: "310005" is "310-005"."""
    cdef uint64_t state
    cdef Py_ssize_t i
    if code.n == 5 or code.n == 6:
        i = 0
        while i < code.n and _is_digit(code.p[i]):
            i += 1
        if i == code.n:
            state = token_feed(_feed(wire, token_start(DIM_CARRIER), code.p, 3), c'-')
            _target_made(wire, DIM_CARRIER, _feed(wire, state, code.p + 3, code.n - 3), -1)
            return
    _target_text(wire, DIM_CARRIER, code, -1)


cdef void _device_facts(Wire *wire) noexcept nogil:
    cdef Val *slots = wire.device
    cdef int devicetype = _count(wire, &slots[D_DEVICETYPE], 0)
    cdef int connection = _count(wire, &slots[D_CONNECTION], 0)
    cdef Val *mccmnc = &slots[D_MCCMNC]
    wire.facts.head.devicetype = devicetype
    if devicetype:
        _target_number(wire, DIM_DEVICE_TYPE, b"", devicetype, -1)
    if connection:
        _target_number(wire, DIM_CONNECTION, b"", connection, -1)
    _target_text(wire, DIM_CARRIER, _text(wire, &slots[D_CARRIER]), -1)
    if mccmnc.kind == NOTHING and wire.device_ext[E_MCCMNC].kind != NOTHING:
        wire.quirks |= QUIRK_OLD_HOME
        mccmnc = &wire.device_ext[E_MCCMNC]
    _network(wire, _text(wire, mccmnc))
    _target_text(
        wire, DIM_LANGUAGE, _primary(_text_or(wire, &slots[D_LANGUAGE], &slots[D_LANGB])), -1
    )
    _target_text(wire, DIM_MAKE, _text(wire, &slots[D_MAKE]), -1)
    _target_text(
        wire, DIM_MODEL, _text_or(wire, &slots[D_MODEL], &wire.sua[S_MODEL]), -1
    )
    _system(wire)


# -- the place -------------------------------------------------------------------------------------

cdef bint _alpha3(Text code, uint8_t *out) noexcept nogil:
    """Upper-case alpha-3 of two or three letters; False when there is none."""
    cdef uint8_t upper[3]
    cdef int i
    for i in range(<int>code.n):
        upper[i] = code.p[i] & ~32
    if code.n == 3:
        memcpy(out, upper, 3)
        return True
    memcpy(out, ALPHA3_OF[(upper[0] - 65) * 26 + upper[1] - 65], 3)
    return out[0] != 0


cdef bint _is_alpha(Text text) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(text.n):
        if not 97 <= text.p[i] | 32 <= 122:
            return False
    return True


cdef bint _country(Wire *wire, Val *val, uint8_t *out) noexcept nogil:
    """`contexts._country`: whether there is one."""
    cdef Text code = _text(wire, val)
    if code.n == 0:
        return False
    if not (code.n == 2 or code.n == 3) or not _is_alpha(code):
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return False
    if code.n == 2:
        wire.quirks |= QUIRK_OTHER_NOTATION
    return _alpha3(code, out)


cdef void _region(Wire *wire, Text region, const uint8_t *country) noexcept nogil:
    """REGION "usa-ca", from "CA", "US-CA" or "USA-CA"."""
    cdef const uint8_t *dash = NULL
    cdef uint8_t own[3]
    cdef uint64_t state
    cdef Text prefix
    cdef Py_ssize_t i
    if region.n:
        dash = <const uint8_t *>memchr(region.p, c'-', region.n)
    if dash != NULL:
        for i in range(region.n):
            if region.p[i] >= 128:
                wire.doubt = True  # letters may have odd capitals
                return
        prefix.p = region.p
        prefix.n = dash - region.p
        if 2 <= prefix.n <= 3 and _is_alpha(prefix) and _alpha3(prefix, own):
            if memcmp(own, country, 3) == 0:
                region.n -= prefix.n + 1
                region.p = dash + 1
    if region.n:
        state = token_feed(_feed(wire, token_start(DIM_REGION), country, 3), c'-')
        _target_made(wire, DIM_REGION, _feed(wire, state, region.p, region.n), -1)


cdef void _place(Wire *wire) noexcept nogil:
    cdef Head *head = &wire.facts.head
    cdef Val *place = wire.geo
    cdef Val *offset = &wire.geo[G_UTCOFFSET]
    cdef uint8_t country[3]
    cdef Text text
    cdef double lat = 0, lon = 0
    cdef bint has_lat, has_lon
    cdef int offset_min
    if wire.geo[G_COUNTRY].kind == NOTHING and wire.home[G_COUNTRY].kind != NOTHING:
        place = wire.home
    text.p = country
    text.n = 3
    if _country(wire, &place[G_COUNTRY], country):
        _target_text(wire, DIM_COUNTRY, text, -1)
        _region(wire, _text(wire, &place[G_REGION]), country)
    else:
        _text(wire, &place[G_REGION])  # counts its quirk
    _target_text(wire, DIM_CITY, _text(wire, &place[G_CITY]), -1)
    _target_text(wire, DIM_POSTCODE, _text(wire, &place[G_ZIP]), -1)
    _target_text(wire, DIM_METRO, _text(wire, &place[G_METRO]), -1)
    has_lat = _real(wire, &wire.geo[G_LAT], &lat)
    has_lon = _real(wire, &wire.geo[G_LON], &lon)
    if has_lat and has_lon:
        if not (-90 <= lat <= 90) or not (-180 <= lon <= 180) or (lat == 0 and lon == 0):
            wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        else:
            head.lat = lat
            head.lon = lon
            wire.flags |= FLAG_HAS_GEO
    if offset.kind == NOTHING:
        offset = &wire.home[G_UTCOFFSET]
    if offset.kind != NOTHING:
        offset_min = _integer(wire, offset, UTCOFFSET_MIN_MAX + 1)
        if not -UTCOFFSET_MIN_MAX <= offset_min <= UTCOFFSET_MIN_MAX:
            wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        else:
            head.utcoffset_min = offset_min
            wire.flags |= FLAG_HAS_UTCOFFSET


# -- privacy ---------------------------------------------------------------------------------------

cdef const uint8_t *_regs(Wire *wire, const uint8_t *p) noexcept nogil:
    cdef int own = -1, inner
    while True:
        p = _members(wire, p, T_REGS, wire.regs, &own)
        if p == NULL or own == 0:
            return p
        if _is_object(wire, &p, &wire.regs[own]):
            inner = -1
            while True:
                p = _members(wire, p, T_REGS_EXT, wire.regs_ext, &inner)
                if p == NULL:
                    return NULL
                if inner == 0:
                    break
                if _is_object(wire, &p, &wire.regs_ext[inner]):
                    p = _plain_object(wire, p, T_DSA, wire.regs_ext)
                if p == NULL:
                    return NULL
        if p == NULL:
            return NULL


cdef inline void _signal(Wire *wire, Val *val, int flag, bint old) noexcept nogil:
    """One home of a signal against personal data; what cannot be read counts as one."""
    if val.kind == NOTHING:
        return
    if old:
        wire.quirks |= QUIRK_OLD_HOME
    if flag == PRIVACY_GPP:
        wire.privacy |= flag
    elif flag == PRIVACY_GPC and (val.kind == TEXT or val.kind == ESCAPED or val.kind == REAL):
        if val.n != 1 or val.p[0] != c'0':
            wire.privacy |= flag
    elif flag != PRIVACY_US_PRIVACY:
        if _integer(wire, val, 1) != 0:
            wire.privacy |= flag
    elif val.kind != TEXT and val.kind != ESCAPED and val.kind != REAL:
        wire.quirks |= QUIRK_WRONG_TYPE_IGNORED
        wire.privacy |= flag
    elif val.n >= 3:
        if val.p[0] >= 128 or val.p[1] >= 128:
            wire.doubt = True
        if val.p[2] | 32 == c'y':
            wire.privacy |= flag


cdef void _privacy(Wire *wire) noexcept nogil:
    _signal(wire, &wire.regs[X_GDPR], PRIVACY_GDPR, False)
    _signal(wire, &wire.regs_ext[X_GDPR], PRIVACY_GDPR, True)
    _signal(wire, &wire.user_ext[X_GDPR], PRIVACY_GDPR, True)
    _signal(wire, &wire.regs[X_COPPA], PRIVACY_COPPA, False)
    _signal(wire, &wire.regs_ext[X_COPPA], PRIVACY_COPPA, True)
    _signal(wire, &wire.device[D_LMT], PRIVACY_LMT, False)
    _signal(wire, &wire.device[D_DNT], PRIVACY_DNT, False)
    _signal(wire, &wire.regs[X_GPC], PRIVACY_GPC, False)
    _signal(wire, &wire.regs_ext[X_GPC], PRIVACY_GPC, False)
    _signal(wire, &wire.regs[X_GPP], PRIVACY_GPP, False)
    _signal(wire, &wire.regs_ext[X_GPP], PRIVACY_GPP, True)
    _signal(wire, &wire.regs[X_US_PRIVACY], PRIVACY_US_PRIVACY, False)
    _signal(wire, &wire.regs_ext[X_US_PRIVACY], PRIVACY_US_PRIVACY, True)
    _signal(wire, &wire.user_ext[X_US_PRIVACY], PRIVACY_US_PRIVACY, True)


# -- impressions -----------------------------------------------------------------------------------

cdef void _read_pos(Wire *wire, Imp *row, Val *val) noexcept nogil:
    cdef int32_t pos = _count(wire, val, -1)
    if pos >= 0 and row.pos == -1:
        row.pos = pos
        _target_number(wire, DIM_POSITION, b"", pos, wire.imp)


cdef const uint8_t *_format(Wire *wire, const uint8_t *p, Imp *row, bint *flex) noexcept nogil:
    """One entry of banner.format."""
    cdef Val slots[6]
    cdef Format *size
    _clear(slots, sizeof(slots))
    p = _plain_object(wire, p, T_FORMAT, slots)
    if p == NULL or wire.facts.head.formats_count >= FORMATS_MAX:
        return NULL
    size = &wire.facts.formats[wire.facts.head.formats_count]
    size.w = _size(wire, &slots[F_W])
    size.h = _size(wire, &slots[F_H])
    size.wmin = _size(wire, &slots[F_WMIN])
    size.wratio = _size(wire, &slots[F_WRATIO])
    size.hratio = _size(wire, &slots[F_HRATIO])
    if not (size.w and size.h):
        if size.wratio <= 0 or size.hratio <= 0:
            wire.quirks |= QUIRK_BAD_VALUE_IGNORED
            return p
        flex[0] = True
    else:
        _target_size(wire, size.w, size.h)
    wire.facts.head.formats_count += 1
    row.formats_count += 1
    return p


cdef void _own_size(Wire *wire, Imp *row, Val *slots) noexcept nogil:
    """banner.w and banner.h, unless a format is the same."""
    cdef int32_t w = _size(wire, &slots[F_W])
    cdef int32_t h = _size(wire, &slots[F_H])
    cdef Format *size
    cdef int i
    if not (w or h):
        return
    for i in range(row.formats_count):
        size = &wire.facts.formats[row.formats_start + i]
        if size.w == w and size.h == h:
            return
    if not (w and h):
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return
    if wire.facts.head.formats_count >= FORMATS_MAX:
        wire.doubt = True
        return
    size = &wire.facts.formats[wire.facts.head.formats_count]
    memset(size, 0, sizeof(Format))
    size.w = w
    size.h = h
    wire.facts.head.formats_count += 1
    row.formats_count += 1
    _target_size(wire, w, h)


cdef const uint8_t *_banner(Wire *wire, const uint8_t *p, Imp *row, Val *pos) noexcept nogil:
    cdef Val slots[B_COUNT]
    cdef int own = -1
    cdef bint more, flex = False
    _clear(slots, sizeof(slots))
    row.formats_start = wire.facts.head.formats_count
    while True:
        p = _members(wire, p, T_BANNER, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        p = _objects(wire, p, &slots[own], &more)
        while p != NULL and more:
            p = _format(wire, p, row, &flex)
            if p != NULL:
                p = _next(wire, p, &more)
        if p == NULL:
            return NULL
    _own_size(wire, row, slots)
    if flex or row.formats_count == 0:
        _target_known(wire, DIM_SIZE, FLEX_TOKEN, wire.imp)
    row.banner_battr = _mask64(&slots[B_BATTR])
    row.banner_btype = _mask(&slots[B_BTYPE], 0)
    row.banner_api = _mask(&slots[B_API], 0)
    row.banner_expdir = _mask(&slots[B_EXPDIR], <uint32_t>UNKNOWN_MASK)
    row.banner_mimes = _mask64(&slots[B_MIMES])
    pos[0] = slots[B_POS]
    return p


cdef const uint8_t *_durfloors(
    Wire *wire, const uint8_t *p, Val *val, int32_t *start, int32_t *count
) noexcept nogil:
    """durfloors of a video, an audio or a deal."""
    cdef Head *head = &wire.facts.head
    cdef Val slots[4]
    cdef DurFloor *row
    cdef bint more
    p = _objects(wire, p, val, &more)
    start[0] = head.durfloors_count
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        p = _plain_object(wire, p, T_DURFLOOR, slots)
        if p == NULL or head.durfloors_count >= DURFLOORS_MAX:
            return NULL
        row = &wire.facts.durfloors[head.durfloors_count]
        row.floor_micros = _floor(wire, &slots[ONE])
        row.mindur_s = _size(wire, &slots[TWO])
        row.maxdur_s = _size(wire, &slots[THREE])
        head.durfloors_count += 1
        count[0] += 1
        p = _next(wire, p, &more)
    return p


cdef const uint8_t *_rqddurs(Wire *wire, const uint8_t *p, Val *val, Av *av) noexcept nogil:
    """Exact durations; `n` of the slot counts entries that say something."""
    cdef Val item
    cdef int32_t seconds
    cdef int kept = 0
    cdef bint listed = p[0] == c'['
    if val.kind != NOTHING:
        return NULL
    val.n = 0
    if listed:
        val.kind = DONE
        p = _space(p + 1)
        if p[0] == c']':
            return p + 1
    while True:
        item.kind = NOTHING
        p = _value(wire, p, &item)
        if p == NULL:
            return NULL
        if item.kind != NOTHING:
            val.n += 1
            seconds = _integer(wire, &item, 0)
            if seconds > 0:
                if kept < RQDDURS_MAX:
                    av.rqddurs_s[kept] = seconds
                    kept += 1
                else:
                    wire.quirks |= QUIRK_LIST_TRUNCATED
        if not listed:
            break
        p = _space(p)
        if p[0] == c']':
            p += 1
            break
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    if val.n and not listed:
        val.kind = DONE
        wire.quirks |= QUIRK_SCALAR_AS_LIST
    if val.n and kept == 0:
        _spoil(wire)
    return p


cdef const uint8_t *_av(
    Wire *wire, const uint8_t *p, Av *av, bint is_video, Val *pos, Val *rewarded
) noexcept nogil:
    """A video or audio placement."""
    cdef Val slots[V_COUNT]
    cdef Val again
    cdef Val ext[I_COUNT]
    cdef Text podid
    cdef const uint8_t *table = T_AUDIO
    cdef int own = -1
    if is_video:
        table = T_VIDEO_OBJ
    _clear(slots, sizeof(slots))
    while True:
        p = _members(wire, p, table, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if own == V_RQDDURS:
            p = _rqddurs(wire, p, &slots[own], av)
        elif own == V_DURFLOORS:
            p = _durfloors(wire, p, &slots[own], &av.durfloors_start, &av.durfloors_count)
        elif _is_object(wire, &p, &slots[own]):
            _clear(ext, sizeof(ext))
            p = _plain_object(wire, p, T_VIDEO_EXT, ext)
            rewarded[0] = ext[I_VIDEO_REWARDED]
        if p == NULL:
            return NULL
    if slots[V_PROTOCOLS].kind == NOTHING and slots[V_PROTOCOL].kind != NOTHING:
        wire.quirks |= QUIRK_OLD_HOME
        again.kind = NOTHING
        _numbers(wire, _start_of(&slots[V_PROTOCOL]), &again)
        slots[V_PROTOCOLS] = again
    av.offered = 1
    av.startdelay_s = _integer(wire, &slots[V_STARTDELAY], 0)
    av.maxextended_s = _integer(wire, &slots[V_MAXEXTENDED], 0)
    av.podseq = _integer(wire, &slots[V_PODSEQ], 0)
    av.slotinpod = _integer(wire, &slots[V_SLOTINPOD], 0)
    av.skipmin_s = _count(wire, &slots[V_SKIPMIN], 0)
    av.skipafter_s = _count(wire, &slots[V_SKIPAFTER], 0)
    av.minbitrate_kbps = _count(wire, &slots[V_MINBITRATE], 0)
    av.maxbitrate_kbps = _count(wire, &slots[V_MAXBITRATE], 0)
    av.poddur_s = _count(wire, &slots[V_PODDUR], 0)
    av.maxseq = _count(wire, &slots[V_MAXSEQ], 0)
    av.mimes = _mask64(&slots[V_MIMES])
    av.battr = _mask64(&slots[V_BATTR])
    av.api = _mask(&slots[V_API], 0)
    av.protocols = _mask(&slots[V_PROTOCOLS], <uint32_t>PROTOCOL_UNKNOWN_MASK)
    av.playbackmethod = _mask(&slots[V_PLAYBACK], 0)
    av.delivery = _mask(&slots[V_DELIVERY], <uint32_t>UNKNOWN_MASK)
    podid = _text(wire, &slots[V_PODID])
    av.podid = _hash_of(wire, 0, podid) if podid.n else 0
    av.mincpmpersec_micros = _floor(wire, &slots[V_MINCPMPERSEC])
    av.skip = -1
    av.minduration_s = _size(wire, &slots[V_MINDURATION])
    av.maxduration_s = _size(wire, &slots[V_MAXDURATION])
    if av.maxduration_s and av.minduration_s > av.maxduration_s:
        _spoil(wire)
    if is_video:
        _video(wire, slots, av)
        pos[0] = slots[V_POS]
    return p


cdef void _video(Wire *wire, Val *slots, Av *av) noexcept nogil:
    """What only a video says."""
    cdef int32_t placement, linearity, skip
    av.w = _size(wire, &slots[V_W])
    av.h = _size(wire, &slots[V_H])
    skip = _integer(wire, &slots[V_SKIP], -1)
    if skip == 0 or skip == 1:
        av.skip = skip
    av.plcmt = _count(wire, &slots[V_PLCMT], 0)
    placement = _count(wire, &slots[V_PLACEMENT], 0)
    linearity = _count(wire, &slots[V_LINEARITY], 0)
    av.linearity = linearity if linearity < 255 else 255
    av.boxing = _integer(wire, &slots[V_BOXING], 1) != 0
    av.poddedupe = _mask(&slots[V_DEDUPE], 0)
    if av.w and av.h:
        _target_size(wire, av.w, av.h)
    if av.plcmt:
        _target_number(wire, DIM_PLACEMENT, b"plcmt:", av.plcmt, wire.imp)
    if placement:
        _target_number(wire, DIM_PLACEMENT, b"placement:", placement, wire.imp)


# -- native ----------------------------------------------------------------------------------------

cdef const uint8_t *_asset(Wire *wire, const uint8_t *p, Asset *row) noexcept nogil:
    """`native.read_asset`: id -1 when it has none."""
    cdef Val slots[A_COUNT]
    cdef Val inner[M_COUNT]
    cdef int own = -1, kind = 0
    _clear(slots, sizeof(slots))
    _clear(inner, sizeof(inner))
    memset(row, 0, sizeof(Asset))
    while True:
        p = _members(wire, p, T_ASSET, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if p[0] != c'{':
            p = _value(wire, p, &slots[own])
        elif kind or slots[own].kind != NOTHING:
            return NULL  # two kinds
        else:
            kind = own
            slots[own].kind = OBJECT
            p = _plain_object(wire, p, _asset_table(own), inner)
        if p == NULL:
            return NULL
    row.id = _count(wire, &slots[A_ID], -1)
    if row.id == INT32_HIGH:
        row.id = -1
    row.required = _integer(wire, &slots[A_REQUIRED], 0) != 0
    if kind == 0:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return p
    if kind == A_IMG or kind == A_DATA:
        row.type = min(_count(wire, &inner[M_TYPE], 0), 32767)
    row.len_ = _integer(wire, &inner[M_LEN], 0)
    row.w = _integer(wire, &inner[M_W], 0)
    row.h = _integer(wire, &inner[M_H], 0)
    row.wmin = _integer(wire, &inner[M_WMIN], 0)
    row.hmin = _integer(wire, &inner[M_HMIN], 0)
    row.minduration_s = _integer(wire, &inner[M_MINDURATION], 0)
    row.maxduration_s = _integer(wire, &inner[M_MAXDURATION], 0)
    row.protocols = _mask(&inner[M_PROTOCOLS], <uint32_t>PROTOCOL_UNKNOWN_MASK)
    row.mimes = _mask64(&inner[M_MIMES])
    if (
        row.len_ < 0 or row.w < 0 or row.h < 0 or row.wmin < 0 or row.hmin < 0
        or row.minduration_s < 0 or row.maxduration_s < 0
    ):
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
    elif kind == A_TITLE:
        row.kind = KIND_TITLE
    elif kind == A_IMG:
        row.kind = KIND_IMG
    else:
        row.kind = KIND_VIDEO if kind == A_VIDEO else KIND_DATA
    return p


cdef const uint8_t *_asset_table(int kind) noexcept nogil:
    if kind == A_TITLE:
        return T_TITLE
    if kind == A_IMG:
        return T_IMG
    if kind == A_VIDEO:
        return T_ASSET_VIDEO
    return T_ASSET_DATA


cdef const uint8_t *_trackers(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """Event trackers that take an image; their mask goes into the slot."""
    cdef Val slots[3]
    cdef uint64_t events = 0
    cdef uint32_t quirks
    cdef int32_t event
    cdef bint more
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        quirks = wire.quirks
        p = _plain_object(wire, p, T_TRACKER, slots)
        if p == NULL or wire.quirks != quirks:
            return NULL  # whether odd methods are looked at depends on the event
        event = _integer(wire, &slots[ONE], 0)
        if 0 < event < 32 and _mask64(&slots[TWO]) >> TRACK_BY_IMAGE & 1:
            events |= <uint64_t>1 << event
        p = _next(wire, p, &more)
    if p != NULL and val.kind == DONE:
        val.p = <const uint8_t *><uintptr_t>events
    return p


cdef const uint8_t *_native_request(
    Wire *wire, const uint8_t *p, Imp *row, Val *slots, bint *answerable, bint wrapped
) noexcept nogil:
    """A native request; inside `{"native": ...}` it is wrapped."""
    cdef Head *head = &wire.facts.head
    cdef Asset asset
    cdef int own = -1
    cdef bint more
    while True:
        p = _members(wire, p, T_NATIVE_OBJ, slots, &own)
        if p == NULL or own == 0:
            break
        if own == T_ASSETS:
            p = _objects(wire, p, &slots[own], &more)
            row.assets_start = head.assets_count
            while p != NULL and more:
                p = _asset(wire, p, &asset)
                if p == NULL:
                    return NULL
                if asset.id < 0:
                    wire.quirks |= QUIRK_BAD_VALUE_IGNORED
                    if asset.required:
                        answerable[0] = False
                else:
                    if head.assets_count >= ASSETS_MAX:
                        return NULL
                    wire.facts.assets[head.assets_count] = asset
                    head.assets_count += 1
                    row.assets_count += 1
                p = _next(wire, p, &more)
        elif own == T_TRACKERS or own == T_TRAKERS:
            p = _trackers(wire, p, &slots[own])
        elif p[0] != c'{' or wrapped:
            p = _skip(wire, p)
        else:
            p = _wrapped_request(wire, p, row, slots, answerable)
        if p == NULL:
            return NULL
    return p


cdef const uint8_t *_wrapped_request(
    Wire *wire, const uint8_t *p, Imp *row, Val *slots, bint *answerable
) noexcept nogil:
    """The value of {"native": ...}; nothing that counts may stand beside it."""
    cdef int i
    for i in range(T_COUNT):
        if slots[i].kind != NOTHING:
            return NULL
    p = _native_request(wire, p, row, slots, answerable, True)
    # Members that follow would be taken for its own: they have no business there.
    slots[0].kind = OBJECT
    p = _space(p) if p != NULL else NULL
    return p if p != NULL and p[0] == c'}' else NULL


cdef bint _native_facts(
    Wire *wire, Imp *row, Val *slots, Val *outer_ver, bint answerable
) noexcept nogil:
    """What a native request says; whether it can be answered."""
    cdef bint wrapped = slots[0].kind == OBJECT
    cdef Val *trackers = &slots[T_TRACKERS]
    cdef Text ver
    cdef int32_t plcmttype
    if not answerable or row.assets_count == 0:
        wire.facts.head.assets_count -= row.assets_count
        row.assets_start = 0
        row.assets_count = 0
        return False
    ver = _text_or(wire, &slots[T_VER], outer_ver)
    row.native_ver = 10 if wrapped else 12
    if ver.n == 3 and ver.p[0] == c'1' and ver.p[1] == c'.' and c'0' <= ver.p[2] <= c'2':
        row.native_ver = 10 + ver.p[2] - 48
    elif ver.n == 1 and ver.p[0] == c'1':
        row.native_ver = 10
    if wrapped:
        row.flags |= IMP_NATIVE_WRAPPED
    if _integer(wire, &slots[T_PRIVACY], 0) != 0:
        row.flags |= IMP_NATIVE_PRIVACY
    plcmttype = _count(wire, &slots[T_PLCMTTYPE], 0)
    row.native_plcmttype = plcmttype
    if plcmttype:
        _target_number(wire, DIM_PLACEMENT, b"native:", plcmttype, wire.imp)
    if trackers.kind == NOTHING and slots[T_TRAKERS].kind != NOTHING:
        wire.quirks |= QUIRK_OTHER_NOTATION
        trackers = &slots[T_TRAKERS]
    elif slots[T_TRAKERS].kind != NOTHING:
        wire.doubt = True
    row.native_events = <uint32_t><uintptr_t>trackers.p if trackers.kind == DONE else 0
    return True


cdef const uint8_t *_native_text(
    Wire *wire, const uint8_t *p, Val *val, Imp *row, Val *slots, bint *answerable
) noexcept nogil:
    """imp.native.request as a string: JSON inside a string."""
    cdef const uint8_t *body = wire.text
    cdef const uint8_t *end = wire.end
    cdef const uint8_t *stop
    cdef Text text
    p = _value(wire, p, val)
    if p == NULL or val.kind == NOTHING:
        return p
    if val.kind != ESCAPED:
        return NULL
    text = _unescape(wire, val.p, val.n)
    if wire.doubt:
        return NULL
    wire.text = text.p
    wire.end = text.p + text.n
    wire.bits = NATIVE_INDEX
    wire_index(wire.text, wire.end, NATIVE_INDEX)
    stop = _space(text.p)
    stop = _native_request(wire, stop, row, slots, answerable, False) if stop[0] == c'{' else NULL
    if stop == NULL or _space(stop) != wire.end:
        return NULL
    wire.text = body
    wire.end = end
    wire.bits = BODY_INDEX
    return p


cdef const uint8_t *_native(Wire *wire, const uint8_t *p, Imp *row, bint *offered) noexcept nogil:
    """imp.native: the request as a string, or plain."""
    cdef Val slots[O_COUNT]
    cdef Val request[T_COUNT]
    cdef uint32_t quirks = wire.quirks | QUIRK_BAD_VALUE_IGNORED | QUIRK_NATIVE_OBJECT
    cdef int own = -1
    cdef bint answerable = True
    _clear(slots, sizeof(slots))
    _clear(request, sizeof(request))
    while True:
        p = _members(wire, p, T_IMP_NATIVE, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if p[0] != c'{':
            p = _native_text(wire, p, &slots[own], row, request, &answerable)
        elif slots[own].kind != NOTHING:
            return NULL
        else:
            wire.quirks |= QUIRK_NATIVE_OBJECT
            slots[own].kind = OBJECT
            p = _native_request(wire, p, row, request, &answerable, False)
        if p == NULL:
            return NULL
    if slots[O_REQUEST].kind == NOTHING:
        answerable = False
    offered[0] = _native_facts(wire, row, request, &slots[O_VER], answerable)
    if not offered[0]:
        # Quirks of what the reference does not look at then must not count.
        return p if wire.quirks | quirks == quirks else NULL
    row.native_api = _mask(&slots[O_API], 0)
    row.native_battr = _mask64(&slots[O_BATTR])
    return p


# -- deals -----------------------------------------------------------------------------------------

cdef const uint8_t *_deal(Wire *wire, const uint8_t *p) noexcept nogil:
    """One deal; what would make the reference leave it out is a doubt."""
    cdef Val slots[L_COUNT]
    cdef int index = wire.facts.head.deals_count, own = -1
    cdef Deal *deal
    cdef Text raw, text
    cdef int32_t at
    if index >= wire.deals_max or index >= DEALS_MAX:
        return NULL
    deal = &wire.facts.deals[index]
    memset(deal, 0, sizeof(Deal))
    _clear(slots, sizeof(slots))
    while True:
        p = _members(wire, p, T_DEAL, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if own == L_DURFLOORS:
            p = _durfloors(wire, p, &slots[own], &deal.durfloors_start, &deal.durfloors_count)
        elif own == L_WADOMAIN:
            p = _texts(wire, p, &slots[own], DIM_DEAL_WADOMAIN, index)
        else:
            p = _texts(wire, p, &slots[own], DIM_DEAL_WSEAT, index)
        if p == NULL:
            return NULL
    if slots[L_WSEATS].kind != NOTHING:
        if slots[L_WSEAT].kind != NOTHING:
            return NULL
        wire.quirks |= QUIRK_OLD_HOME
        slots[L_WSEAT] = slots[L_WSEATS]
    raw = _raw(wire, &slots[L_ID])
    deal.floor_cur = _currency(wire, &slots[L_BIDFLOORCUR])
    if deal.floor_cur == 0 or not _is_id(wire, &slots[L_ID], raw):
        return NULL
    text = _plain(wire, &slots[L_ID])
    deal.hash_ = _hash_of(wire, DIM_DEAL, text)
    deal.floor_micros = _floor(wire, &slots[L_BIDFLOOR])
    deal.mincpmpersec_micros = _floor(wire, &slots[L_MINCPMPERSEC])
    deal.id_off = <int32_t>(raw.p - wire.base)
    deal.id_len = <int32_t>raw.n
    deal.imp = wire.imp
    at = _count(wire, &slots[L_AT], 0)
    deal.at = at if at < 255 else 255
    deal.guaranteed = _integer(wire, &slots[L_GUAR], 0) != 0
    deal.has_wseat = slots[L_WSEAT].kind == DONE and slots[L_WSEAT].n > 0
    deal.has_wadomain = slots[L_WADOMAIN].kind == DONE and slots[L_WADOMAIN].n > 0
    _target(wire, DIM_DEAL, deal.hash_, text, wire.imp)
    wire.facts.head.deals_count += 1
    return p


cdef const uint8_t *_pmp(Wire *wire, const uint8_t *p, Imp *row) noexcept nogil:
    cdef Val slots[3]
    cdef int own = -1
    cdef bint more, spoiled = wire.spoiled
    _clear(slots, sizeof(slots))
    row.deals_start = wire.facts.head.deals_count
    while True:
        p = _members(wire, p, T_PMP, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        p = _objects(wire, p, &slots[own], &more)
        wire.spoiled = False
        while p != NULL and more:
            p = _deal(wire, p)
            if p == NULL or wire.spoiled:
                return NULL
            p = _next(wire, p, &more)
        wire.spoiled = spoiled
        if p == NULL:
            return NULL
    row.deals_count = wire.facts.head.deals_count - row.deals_start
    if _integer(wire, &slots[ONE], 0) != 0:
        row.flags |= IMP_PRIVATE_AUCTION
    return p


# -- one impression --------------------------------------------------------------------------------

cdef const uint8_t *_metrics(Wire *wire, const uint8_t *p, Val *val, Imp *row) noexcept nogil:
    """Viewability: the first metric that says it."""
    cdef Val slots[3]
    cdef double value = 0
    cdef bint more
    p = _objects(wire, p, val, &more)
    while p != NULL and more:
        _clear(slots, sizeof(slots))
        p = _plain_object(wire, p, T_METRIC, slots)
        if p == NULL:
            return NULL
        if not row.flags & IMP_HAS_VIEWABILITY and _equals(
            _text(wire, &slots[ONE]), b"viewability", 11
        ):
            if _real(wire, &slots[TWO], &value) and 0 <= value <= 1:
                row.viewability = value
                row.flags |= IMP_HAS_VIEWABILITY
            else:
                wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        p = _next(wire, p, &more)
    return p


cdef const uint8_t *_imp_ext(Wire *wire, const uint8_t *p, Val *slots) noexcept nogil:
    cdef int own = -1
    while True:
        p = _members(wire, p, T_IMP_EXT, slots, &own)
        if p == NULL or own == 0:
            return p
        if own == I_DATA:
            p = _key_values(wire, p, &slots[own])
        elif _is_object(wire, &p, &slots[own]):
            p = _plain_object(wire, p, T_PREBID, slots)
        if p == NULL:
            return NULL


cdef void _identity(Wire *wire, Imp *row, Val *val) noexcept nogil:
    cdef Text raw = _raw(wire, val)
    cdef Imp *other
    cdef int i
    if not _is_id(wire, val, raw):
        _spoil(wire)
        return
    row.id_off = <int32_t>(raw.p - wire.base)
    row.id_len = <int32_t>raw.n
    for i in range(wire.imp):
        other = &wire.facts.imps[i]
        if other.id_len == row.id_len and (
            memcmp(wire.base + other.id_off, raw.p, raw.n) == 0
        ):
            wire.quirks |= QUIRK_DUPLICATE_IMP_ID
            wire.spoiled = True
            return


cdef void _start_ms(Wire *wire, Imp *row, Val *val) noexcept nogil:
    cdef double value = 0
    if not _real(wire, val, &value):
        return
    if value < 0:
        wire.quirks |= QUIRK_BAD_VALUE_IGNORED
        return
    if 0 < value < SECONDS_BELOW:
        wire.quirks |= QUIRK_OTHER_NOTATION
        value *= 1000
    row.dt_ms = value


cdef bint _multiplier(Wire *wire, Val *val, double *out) noexcept nogil:
    """Whether a multiplier is possible."""
    return _real(wire, val, out) and 0 < out[0] <= MULTIPLIER_MAX


cdef void _terms(Wire *wire, Imp *row, Val *slots) noexcept nogil:
    """Floor, currency, time, multiplier, flags."""
    row.floor_micros = _floor(wire, &slots[I_BIDFLOOR])
    row.floor_cur = _currency(wire, &slots[I_BIDFLOORCUR])
    if row.floor_cur == 0:
        _spoil(wire)
    row.multiplier = 1.0
    if slots[I_MULTIPLIER].kind == NOTHING:
        wire.without_qty |= <uint32_t>1 << wire.imp
    elif not _multiplier(wire, &slots[I_MULTIPLIER], &row.multiplier):
        _spoil(wire)
    _start_ms(wire, row, &slots[I_DT])
    row.exp_s = _count(wire, &slots[I_EXP], 0)
    row.ssai = _count(wire, &slots[I_SSAI], 0)
    row.clickbrowser = _count(wire, &slots[I_CLICKBROWSER], 0)
    if _integer(wire, &slots[I_INSTL], 0) != 0:
        row.flags |= IMP_INTERSTITIAL
    if _integer(wire, &slots[I_SECURE], 0) != 0:
        row.flags |= IMP_SECURE


cdef void _placement(Wire *wire, Imp *row, Val *slots) noexcept nogil:
    """Rewarded, and the tokens of the place on the page."""
    cdef Val *rewarded = &slots[I_RWDD]
    if rewarded.kind == NOTHING:
        if slots[I_VIDEO_REWARDED].kind != NOTHING:
            rewarded = &slots[I_VIDEO_REWARDED]
        else:
            rewarded = &slots[I_PREBID_REWARDED]
        if rewarded.kind != NOTHING:
            wire.quirks |= QUIRK_OLD_HOME
    if _integer(wire, rewarded, 0) != 0:
        row.flags |= IMP_REWARDED
    _target_known(
        wire, DIM_INTERSTITIAL, INTERSTITIAL_TOKENS[(row.flags & IMP_INTERSTITIAL) != 0], wire.imp
    )
    _target_known(wire, DIM_REWARDED, REWARDED_TOKENS[(row.flags & IMP_REWARDED) != 0], wire.imp)
    _target_text(wire, DIM_TAG, _text(wire, &slots[I_TAGID]), wire.imp)
    _target_text(wire, DIM_TAG, _text(wire, &slots[I_GPID]), wire.imp)


cdef inline void _offer(Wire *wire, Imp *row, int medium) noexcept nogil:
    row.media |= <uint32_t>1 << medium
    _target_known(wire, DIM_MEDIA, MEDIA_TOKENS[medium], wire.imp)


cdef const uint8_t *_imp_members(
    Wire *wire, const uint8_t *p, Imp *row, Val *slots
) noexcept nogil:
    cdef Val banner_pos, video_pos
    cdef bint offered
    cdef int own = -1
    banner_pos.kind = NOTHING
    video_pos.kind = NOTHING
    while True:
        p = _members(wire, p, T_IMP, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if own == I_METRIC:
            p = _metrics(wire, p, &slots[own], row)
        elif _is_object(wire, &p, &slots[own]):
            if own == I_BANNER:
                p = _banner(wire, p, row, &banner_pos)
                _offer(wire, row, MEDIA_BANNER)
            elif own == I_VIDEO:
                p = _av(wire, p, &row.video, True, &video_pos, &slots[I_VIDEO_REWARDED])
                _offer(wire, row, MEDIA_VIDEO)
            elif own == I_AUDIO:
                p = _av(wire, p, &row.audio, False, NULL, NULL)
                _offer(wire, row, MEDIA_AUDIO)
            elif own == I_NATIVE:
                p = _native(wire, p, row, &offered)
                if p != NULL and offered:
                    _offer(wire, row, MEDIA_NATIVE)
            elif own == I_QTY:
                p = _plain_object(wire, p, T_QTY, slots)
            elif own == I_PMP:
                p = _pmp(wire, p, row)
            else:
                p = _imp_ext(wire, p, slots)
        if p == NULL:
            return NULL
    _read_pos(wire, row, &banner_pos)
    _read_pos(wire, row, &video_pos)
    return p


cdef const uint8_t *_imp(Wire *wire, const uint8_t *p) noexcept nogil:
    """One impression; when it is unusable its record keeps its id, and no list a row of it."""
    cdef Head *head = &wire.facts.head
    cdef Head mark = head[0]
    cdef int targets_left = wire.targets_left, blocks_left = wire.blocks_left
    cdef Imp *row = &wire.facts.imps[wire.imp]
    cdef Val slots[I_COUNT]
    cdef int32_t off, size
    _clear(slots, sizeof(slots))
    wire_memset(row, 0, sizeof(Imp))
    row.pos = -1
    wire.spoiled = False
    p = _imp_members(wire, p, row, slots)
    if p == NULL:
        return NULL
    _identity(wire, row, &slots[I_ID])
    _terms(wire, row, slots)
    _placement(wire, row, slots)
    if wire.spoiled or row.media == 0:
        off, size = row.id_off, row.id_len
        wire_memset(row, 0, sizeof(Imp))
        row.id_off = off
        row.id_len = size
        row.flags = IMP_UNUSABLE
        head.tokens_count = mark.tokens_count
        head.formats_count = mark.formats_count
        head.deals_count = mark.deals_count
        head.durfloors_count = mark.durfloors_count
        head.assets_count = mark.assets_count
        wire.targets_left = targets_left
        wire.blocks_left = blocks_left
    return p


cdef const uint8_t *_imps(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """imp[], up to the limit of the exchange; the rest is only checked."""
    cdef bint usable = False
    if p[0] != c'[' or val.kind != NOTHING:
        return NULL
    val.kind = DONE
    p = _space(p + 1)
    while True:
        if wire.imp == wire.imps_max:
            wire.flags |= FLAG_IMPS_OVERFLOW
            p = _skip(wire, p)
            if p == NULL:
                return NULL
        else:
            if p[0] != c'{':
                return NULL
            p = _imp(wire, p)
            if p == NULL:
                return NULL
            usable = usable or not wire.facts.imps[wire.imp].flags & IMP_UNUSABLE
            wire.imp += 1
        p = _space(p)
        if p[0] == c']':
            break
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    wire.facts.head.imps_count = wire.imp
    wire.imp = -1
    if not usable:
        wire.flags |= FLAG_UNUSABLE
    return p + 1


# -- the request -----------------------------------------------------------------------------------

cdef const uint8_t *_currencies(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """cur: one 0 when it has entries and none is a currency."""
    cdef Head *head = &wire.facts.head
    cdef Val item
    cdef uint32_t code
    cdef bint listed = p[0] == c'['
    if val.kind != NOTHING:
        return NULL
    val.n = 0
    if listed:
        val.kind = DONE
        p = _space(p + 1)
        if p[0] == c']':
            return p + 1
    while True:
        item.kind = NOTHING
        p = _value(wire, p, &item)
        if p == NULL:
            return NULL
        if item.kind != NOTHING:
            val.n += 1
            code = _currency_of(_raw(wire, &item))
            if code == 0:
                wire.quirks |= QUIRK_BAD_VALUE_IGNORED
            elif head.cur_count == CURRENCIES_MAX:
                wire.quirks |= QUIRK_LIST_TRUNCATED
            else:
                head.cur[head.cur_count] = code
                head.cur_count += 1
        if not listed:
            break
        p = _space(p)
        if p[0] == c']':
            p += 1
            break
        if p[0] != c',':
            return NULL
        p = _space(p + 1)
    if val.n == 0:
        return p
    val.kind = DONE
    if not listed:
        wire.quirks |= QUIRK_SCALAR_AS_LIST
    wire.flags |= FLAG_HAS_CUR
    if head.cur_count == 0:
        head.cur_count = 1
    return p


cdef const uint8_t *_root(Wire *wire, const uint8_t *p) noexcept nogil:
    """Every member of the request."""
    cdef Val *slots = wire.root
    cdef int own = -1, cattax = 0, used, dim
    while True:
        p = _members(wire, p, T_ROOT, slots, &own)
        if p == NULL:
            return NULL
        if own == 0:
            break
        if own == R_IMP:
            wire.imp = 0
            p = _imps(wire, p, &slots[own])
        elif own == R_CUR:
            p = _currencies(wire, p, &slots[own])
        elif own < R_IMP:
            dim = BLOCK_DIMS[own - R_BLOCKS]
            used = -1
            if dim == DIM_BCAT or dim == DIM_ACAT:
                used = _taxonomy(wire, &slots[R_CATTAX], 0)
                if cattax and used != cattax:
                    return _again(wire, 0, used)
                cattax = used
            p = _texts(wire, p, &slots[own], dim, used)
            if slots[own].kind == DONE and slots[own].n:
                wire.facts.head.blocks |= <uint32_t>1 << (dim - DIM_BCAT)
        elif _is_object(wire, &p, &slots[own]):
            if own == R_DEVICE:
                p = _device(wire, p)
            elif own == R_USER:
                p = _user(wire, p)
            elif own == R_REGS:
                p = _regs(wire, p)
            else:
                p = _channel(wire, p, own - R_SITE + 1)
        if p == NULL:
            return NULL
    if _guessed_wrong(wire, &slots[R_CATTAX], 0, cattax):
        return NULL
    return p


cdef void _dooh_multiplier(Wire *wire) noexcept nogil:
    """device.ext.dooh.impmultiply, for impressions without a multiplier of their own."""
    cdef Val *val = &wire.device_ext[E_IMPMULTIPLY]
    cdef double value = 0
    cdef Imp *row
    cdef int i
    if val.kind == NOTHING or not wire.without_qty:
        return
    wire.quirks |= QUIRK_OLD_HOME
    if not _multiplier(wire, val, &value):
        wire.doubt = True
        return
    for i in range(wire.facts.head.imps_count):
        row = &wire.facts.imps[i]
        if wire.without_qty >> i & 1 and not row.flags & IMP_UNUSABLE:
            row.multiplier = value


cdef bint _request_facts(Wire *wire) noexcept nogil:
    """What the request itself says; False when it has no id or no impressions."""
    cdef Head *head = &wire.facts.head
    cdef Val *slots = wire.root
    cdef Text raw = _raw(wire, &slots[R_ID])
    cdef Number number
    cdef int32_t value
    if not _is_id(wire, &slots[R_ID], raw) or slots[R_IMP].kind == NOTHING:
        return False
    head.id_off = <int32_t>(raw.p - wire.base)
    head.id_len = <int32_t>raw.n
    head.id_hash = _hash_of(wire, 0, raw)
    head.channel = wire.channel
    head.at = _count(wire, &slots[R_AT], 0)
    if _number_of(wire, &slots[R_TMAX], &number):
        value = _integer(wire, &slots[R_TMAX], 0)
        head.tmax_ms = value if value > 0 else -1
    value = _count(wire, &slots[R_CATTAX], 0)
    head.cattax = value if value else CATTAX_DEFAULT
    head.dsarequired = _count(wire, &wire.regs_ext[X_DSAREQUIRED], 0)
    if _integer(wire, &slots[R_TEST], 0) != 0:
        wire.flags |= FLAG_TEST
    if _integer(wire, &slots[R_ALLIMPS], 0) != 0:
        wire.flags |= FLAG_ALLIMPS
    return True


cdef bint _read(Wire *wire, const uint8_t *p) noexcept nogil:
    """One request from its first byte; False in doubt."""
    cdef Head *head = &wire.facts.head
    if wire_index(p, wire.end, BODY_INDEX) and not _is_utf8(p, wire.end):
        return False
    memset(head, 0, sizeof(Head))
    p = _space(p)
    if p[0] != c'{':
        return False
    p = _root(wire, p)
    if p == NULL or _space(p) != wire.end or not _request_facts(wire):
        return False
    _privacy(wire)
    _ids(wire)
    _place(wire)
    _device_facts(wire)
    _dooh_multiplier(wire)
    if wire.doubt:
        return False
    head.flags = wire.flags
    head.quirks = wire.quirks
    head.privacy = wire.privacy
    return True


# The exchange and the opportunity of the last call: a worker's are nearly always the same.
cdef object _exchange = None
cdef object _opportunity = None
cdef Facts *FACTS = NULL
cdef Py_ssize_t BODY_BYTES_MAX = 0
cdef int LIMITS[4]


cdef int _take(exchange) except -1:
    global _exchange, BODY_BYTES_MAX
    BODY_BYTES_MAX = exchange.body_bytes_max
    LIMITS[0] = exchange.imps_max
    LIMITS[1] = exchange.deals_max
    LIMITS[2] = exchange.target_tokens_max
    LIMITS[3] = exchange.block_tokens_max
    _exchange = exchange
    return 0


cdef int _bind(opportunity) except -1:
    global _opportunity, FACTS
    cdef uintptr_t address = opportunity.address
    FACTS = <Facts *>address
    _opportunity = opportunity
    return 0


def decode(bytes data not None, Py_ssize_t start, exchange, opportunity) -> bool:
    """Overwrites `opportunity` with the facts of the request in `data[start:]`.

    False: in doubt, and the facts are undefined; the reference must read the request. Slices point
    into `data`. Tokens of values that do not stand there as such ("300x250") have the slice 0, 0.
    """
    cdef Wire wire
    cdef const uint8_t *base = <const uint8_t *>PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    cdef int attempt, i
    cdef int taxonomies[3]
    cdef bint read
    if exchange is not _exchange:
        _take(exchange)
    if opportunity is not _opportunity:
        _bind(opportunity)
    if start < 0 or start > size or size - start > min(BODY_BYTES_MAX, BODY_BYTES_CAP):
        return False
    for i in range(3):
        taxonomies[i] = CATTAX_DEFAULT
    # A list may stand before its taxonomy: once more then, for each owner of such lists.
    for attempt in range(4):
        wire_memset(&wire, 0, sizeof(Wire) - sizeof(wire.eids))
        wire.base = base
        wire.text = base + start
        wire.base_end = wire.end = base + size
        wire.bits = BODY_INDEX
        wire.facts = FACTS
        wire.imp = -1
        wire.imps_max = LIMITS[0]
        wire.deals_max = LIMITS[1]
        wire.targets_left = LIMITS[2]
        wire.blocks_left = LIMITS[3]
        for i in range(3):
            wire.taxonomies[i] = taxonomies[i]
        read = _read(&wire, base + start)
        if read or not wire.again:
            break
        for i in range(3):
            taxonomies[i] = wire.taxonomies[i]
    if read:
        opportunity.text = data
    return read
