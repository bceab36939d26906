# The rules as tables: constants, user agents, and which members are read.
# A part of `ext/wire.pyx`, which says how the parts work together.

# -- constants of the rules ------------------------------------------------------------------------

cdef int64_t CPM_LIMIT = RULE_CPM_MICROS_MAX
cdef int ID_BYTES_MAX = reading.ID_BYTES_MAX
cdef int HOST_BYTES_MAX = host_rules.HOST_BYTES_MAX
cdef int AGENT_CHARS_MAX = agent_rules.AGENT_CHARS_MAX
cdef int UTCOFFSET_MIN_MAX = context_rules._UTCOFFSET_MIN_MAX
cdef int32_t SIDE_MAX = imp_rules.SIDE_MAX
cdef double MULTIPLIER_MAX = imp_rules.MULTIPLIER_MAX
cdef double SECONDS_BELOW = imp_rules._SECONDS_BELOW
cdef uint64_t UNKNOWN_MASK = imp_rules._UNKNOWN_MASK
cdef uint64_t PROTOCOL_UNKNOWN_MASK = native_rules.PROTOCOL_UNKNOWN_MASK
cdef uint64_t MIME_UNKNOWN = 1 << RULE_MIME_UNKNOWN_BIT
cdef int TRACK_BY_IMAGE = lists.TRACK_BY_IMAGE
cdef int ATTS_NOT_ASKED = privacy_rules.ATTS_NOT_ASKED
cdef int ATTS_RESTRICTED = privacy_rules.ATTS_RESTRICTED
cdef int ATTS_AUTHORISED = privacy_rules.ATTS_AUTHORISED
cdef int CATTAX_DEFAULT = lists.CATEGORY_TAXONOMY_DEFAULT
cdef int PUBRENDER_MAX = privacy_rules.PUBRENDER_MAX
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
for _n in (*map(ord, ":/?#@* \t\r\n"), *range(128, 256)):
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
    "gpp_sid": X_GPP_SID,
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
        "lmt": D_LMT, "dnt": D_DNT, "atts": D_ATTS, "geo": OWN + D_GEO, "sua": OWN + D_SUA,
        "ext": OWN + D_EXT,
    },
    "geo": _GEO,
    "sua": {"model": S_MODEL, "platform": OWN + S_PLATFORM, "browsers": OWN + S_BROWSERS},
    "platform": {"brand": P_BRAND, "version": P_VERSION},
    "device_ext": {"mccmnc": E_MCCMNC, "atts": E_ATTS, "dooh": OWN + E_DOOH},
    "dooh_ext": {"impmultiply": E_IMPMULTIPLY},
    "user": {
        "id": U_ID, "buyeruid": U_BUYERUID, "keywords": OWN + U_KEYWORDS,
        "kwarray": OWN + U_KWARRAY, "data": OWN + U_DATA, "eids": OWN + U_EIDS, "geo": OWN + U_GEO,
        "ext": OWN + U_EXT,
    },
    "user_ext": {
        "gdpr": X_GDPR, "us_privacy": X_US_PRIVACY, "data": X_DATA, "eids": OWN + X_EIDS,
    },
    "regs": {**_REGS, "ext": OWN + X_EXT},
    "regs_ext": {**_REGS, "dsa": OWN + X_DSA},
    "dsa": {"dsarequired": X_DSAREQUIRED, "pubrender": X_PUBRENDER},
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
        "mimes": MIME_TYPES + B_MIMES, "wmin": B_WMIN, "wmax": B_WMAX, "hmin": B_HMIN,
        "hmax": B_HMAX,
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
