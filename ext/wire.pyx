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
from rtb.exchanges import privacy as privacy_rules
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
    D_ATTS = 18
    D_COUNT = 19
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
    E_ATTS = 4
    E_COUNT = 5
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
    X_GPP_SID = 11
    X_PUBRENDER = 12  # regs.ext.dsa
    X_COUNT = 13
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
    B_WMIN = 10
    B_WMAX = 11
    B_HMIN = 12
    B_HMAX = 13
    B_COUNT = 14
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
    bint escaped_ids  # of impressions
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

include "wire/rules.pxi"
include "wire/grammar.pxi"
include "wire/values.pxi"
include "wire/tokens.pxi"
include "wire/device.pxi"
include "wire/contexts.pxi"
include "wire/media.pxi"
include "wire/native.pxi"
include "wire/impressions.pxi"


# -- the request -----------------------------------------------------------------------------------

cdef void _currency_names(Wire *wire, Text names) noexcept nogil:
    """An entry of cur: a currency, or some between commas."""
    cdef Head *head = &wire.facts.head
    cdef const uint8_t *end = names.p + names.n
    cdef const uint8_t *comma = NULL
    cdef Text name
    cdef bint several
    cdef uint32_t code
    if names.n:
        comma = <const uint8_t *>memchr(names.p, c',', names.n)
    several = comma != NULL
    if several:
        wire.quirks |= QUIRK_OTHER_NOTATION
    while True:
        name.p = names.p
        name.n = (comma if comma != NULL else end) - names.p
        if several:
            name = _strip(name)
        if name.n or not several:
            code = _currency_of(name)
            if code == 0:
                wire.quirks |= QUIRK_BAD_VALUE_IGNORED
            elif head.cur_count == CURRENCIES_MAX:
                wire.quirks |= QUIRK_LIST_TRUNCATED
            else:
                head.cur[head.cur_count] = code
                head.cur_count += 1
        if comma == NULL:
            return
        names.p = comma + 1
        comma = <const uint8_t *>memchr(names.p, c',', end - names.p)


cdef const uint8_t *_currencies(Wire *wire, const uint8_t *p, Val *val) noexcept nogil:
    """cur: one 0 when it has entries and none is a currency."""
    cdef Head *head = &wire.facts.head
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
            _currency_names(wire, _raw(wire, &item))
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
    head.pubrender = min(_count(wire, &wire.regs_ext[X_PUBRENDER], -1), PUBRENDER_MAX) + 1
    if _strict_flag(wire, &slots[R_TEST]):
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
    if not _user_values(wire):
        return False
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
