"""Compiled twin of `rtb.exchanges.response.encode`, which states the rules.

A `Frames` borrows one snapshot's arrays; the last one used is kept, so a swap costs one look. What
is too rare to be worth code here (ids with escapes inside markup) is left to the twin, whole.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy

from links cimport *
from records cimport *
from snapshot cimport *
from tokens cimport mix64

from rtb.base.errors import InvariantError
from rtb.base.links import escaped
from rtb.exchanges import response as rules
from rtb.openrtb.lists import AssetKind, NativeEvent
from rtb.openrtb.reading import escape

cdef uint64_t SECOND_LANE = rules._SECOND_LANE
cdef int KIND_TITLE = AssetKind.TITLE
cdef int KIND_IMG = AssetKind.IMG
cdef int KIND_VIDEO = AssetKind.VIDEO
cdef int KIND_DATA = AssetKind.DATA
cdef int KIND_LINK = AssetKind.LINK
cdef int KIND_TRACKER = AssetKind.TRACKER
cdef int EVENT_IMPRESSION = NativeEvent.IMPRESSION
cdef int EVENT_VIEWABLE = NativeEvent.VIEWABLE_MRC50

include "assets.pxi"
include "buffer.pxi"
include "landing.pxi"


# A `rtb.base.links.Link`, escaped for one place of the markup.
cdef struct Link:
    const char *head
    const char *tail
    int head_count, tail_count, slot
    int landing  # 0: none follows; else how often the percent sign of its text was encoded, plus 1


cdef struct Lanes:
    uint64_t first
    uint64_t second


cdef Buffer OUT
OUT.data = NULL
OUT.size = 0
OUT.room = 0


cdef inline int _literal(bytes text) except -1:
    return _put(&OUT, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef int _number(int64_t value) except -1:
    if value < 0:
        _put(&OUT, b"-", 1)
    return _put_digits(&OUT, <uint64_t>value if value >= 0 else <uint64_t>(-value), 1)


cdef int _price(int64_t micros) except -1:
    """The shortest exact decimal of micros."""
    cdef int64_t whole = micros // 1000000
    cdef int64_t part = micros % 1000000
    cdef char digits[7]
    cdef int i, size = 7
    _number(whole)
    if part == 0:
        return 0
    digits[0] = c'.'
    for i in range(6, 0, -1):
        digits[i] = c'0' + <char>(part % 10)
        part = part // 10
    while digits[size - 1] == c'0':
        size -= 1
    return _put(&OUT, digits, size)


cdef inline void _mix(Lanes *lanes, uint64_t part) noexcept nogil:
    lanes.first = mix64(lanes.first ^ part)
    lanes.second = mix64(lanes.second ^ part)


cdef bint _is_escaped(const char *text, Py_ssize_t size) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(size):
        if text[i] == c'\\':
            return True
    return False


cdef class Frames:
    """One snapshot's arrays, as pointers."""

    cdef object keep
    cdef LineItem *line_items
    cdef Advertiser *advertisers
    cdef Seat *seats
    cdef Creative *creatives
    cdef Piece *pieces
    cdef AdAsset *assets
    cdef const char *text

    def __cinit__(self, arrays):
        cdef uintptr_t at
        self.keep = arrays
        at = arrays["line_items"].ctypes.data
        self.line_items = <LineItem *>at
        at = arrays["advertisers"].ctypes.data
        self.advertisers = <Advertiser *>at
        at = arrays["seats"].ctypes.data
        self.seats = <Seat *>at
        at = arrays["creatives"].ctypes.data
        self.creatives = <Creative *>at
        at = arrays["pieces"].ctypes.data
        self.pieces = <Piece *>at
        at = arrays["assets"].ctypes.data
        self.assets = <AdAsset *>at
        at = arrays["text"].ctypes.data
        self.text = <const char *>at


cdef class Terms:
    """What an exchange adds to an answer."""

    cdef object keep
    cdef uint64_t token
    cdef bytes seat

    def __cinit__(self, exchange):
        self.keep = exchange
        self.token = exchange.token
        self.seat = escape(exchange.seat).encode()


cdef class LinkSet:
    """The links of one exchange and currency, by escape and place."""

    cdef object keep
    cdef list texts  # that the pointers point into
    cdef Link links[3][LINKS_LINKS_COUNT]

    def __cinit__(self, links):
        cdef int escape, place
        cdef Link *row
        cdef bytes head, tail
        self.keep = links
        self.texts = []
        for escape in range(3):
            for place in range(LINKS_LINKS_COUNT):
                row = &self.links[escape][place]
                head, tail = escaped(links[place].head, escape), escaped(links[place].tail, escape)
                self.texts += (head, tail)
                row.head, row.head_count = PyBytes_AS_STRING(head), <int>len(head)
                row.tail, row.tail_count = PyBytes_AS_STRING(tail), <int>len(tail)
                row.slot = links[place].slot
                row.landing = links[place].landing
                if row.landing and escape == ESCAPE_URL:
                    row.landing += 1


cdef Frames _frames = None
cdef dict _terms = {}
cdef dict _link_sets = {}


cdef Frames _frames_of(arrays):
    global _frames
    if _frames is None or _frames.keep is not arrays:
        _frames = Frames(arrays)
    return _frames


cdef Terms _terms_of(exchange):
    # By identity: comparing settings field by field would cost more than the answer.
    cdef Terms found = _terms.get(id(exchange))
    if found is None or found.keep is not exchange:
        if len(_terms) >= 64:
            _terms.clear()
        found = Terms(exchange)
        _terms[id(exchange)] = found
    return found


cdef LinkSet _links_of(links):
    cdef LinkSet found = _link_sets.get(id(links))
    if found is None or found.keep is not links:
        if len(_link_sets) >= 256:
            _link_sets.clear()
        found = LinkSet(links)
        _link_sets[id(links)] = found
    return found


def encode(opportunity, decision, arrays, exchange, links, sheets) -> bytes:
    """As `rtb.exchanges.response.encode`."""
    cdef uintptr_t facts_at = opportunity.address
    cdef uintptr_t decision_at = decision.address
    cdef uintptr_t sheets_at = sheets.address
    cdef bytes text = opportunity.text
    OUT.size = 0
    if not _encode(
        <const Facts *>facts_at, <const DecisionData *>decision_at, PyBytes_AS_STRING(text),
        _frames_of(arrays), _terms_of(exchange), _links_of(links), <const Sheet *>sheets_at,
    ):
        return rules.encode(opportunity, decision, arrays, exchange, links, sheets)
    return PyBytes_FromStringAndSize(OUT.data, OUT.size)


cdef bint _encode(
    const Facts *facts, const DecisionData *decision, const char *text, Frames frames, Terms terms,
    LinkSet links, const Sheet *sheets
) except -1:
    """Writes the answer; False when the twin should."""
    cdef const char *seats[BIDS_MAX]
    cdef int sizes[BIDS_MAX]
    cdef int order[BIDS_MAX]
    cdef int count = 0, i, k, first
    cdef Lanes lanes
    cdef char currency[3]
    cdef bint opened = False
    for i in range(decision.head.bids_count):
        if decision.bids[i].chosen:
            order[count] = i
            _seat(frames, terms, &decision.bids[i], &seats[count], &sizes[count])
            count += 1
    if count == 0:
        return False
    _literal(b'{"id":"')
    _put(&OUT, text + facts.head.id_off, facts.head.id_len)
    _literal(b'","seatbid":[')
    for i in range(count):
        if order[i] < 0:
            continue
        if opened:
            _literal(b",")
        opened = True
        _literal(b"{")
        if sizes[i]:
            _literal(b'"seat":"')
            _put(&OUT, seats[i], sizes[i])
            _literal(b'",')
        _literal(b'"bid":[')
        first = 1
        for k in range(i, count):
            if order[k] < 0 or sizes[k] != sizes[i] or memcmp(seats[k], seats[i], sizes[i]):
                continue
            if not first:
                _literal(b",")
            first = 0
            if not _bid(
                facts, &decision.bids[order[k]], text, frames, links, &sheets[order[k]]
            ):
                return False
            if k > i:
                order[k] = -1
        _literal(b"]}")
    _literal(b'],"bidid":"')
    lanes.first = 0
    lanes.second = SECOND_LANE
    _mix(&lanes, terms.token)
    _mix(&lanes, facts.head.id_hash)
    _put_hex(&OUT, lanes.first)
    _put_hex(&OUT, lanes.second)
    _literal(b'","cur":"')
    currency[0] = <char>(decision.head.cur >> 16 & 255)
    currency[1] = <char>(decision.head.cur >> 8 & 255)
    currency[2] = <char>(decision.head.cur & 255)
    _put(&OUT, currency, 3)
    _literal(b'"}')
    return True


cdef int _seat(
    Frames frames, Terms terms, const Bid *bid, const char **seat, int *size
) except -1:
    cdef const Advertiser *row = &frames.advertisers[frames.line_items[bid.line_item].advertiser]
    cdef int i
    for i in range(row.seats_start, row.seats_start + row.seats_count):
        if frames.seats[i].exchange == terms.token:
            seat[0] = frames.text + frames.seats[i].text_start
            size[0] = frames.seats[i].text_count
            return 0
    seat[0] = PyBytes_AS_STRING(terms.seat)
    size[0] = <int>PyBytes_GET_SIZE(terms.seat)
    return 0


cdef int _url(
    LinkSet links, const Sheet *sheet, int place, int escape, const char *page, int page_count
) except -1:
    """`rtb.base.links.Link.url`."""
    cdef const Link *link = &links.links[escape][place]
    cdef const char *text = <const char *>sheet.text
    cdef int tag = LINKS_CLAIMS_CHARS + link.slot * LINKS_TAG_CHARS
    cdef int i, k
    if sheet.chars < <uint64_t>(tag + LINKS_TAG_CHARS):
        raise InvariantError(f"signed without the tag of slot {link.slot}")
    _put(&OUT, link.head, link.head_count)
    _put(&OUT, text, LINKS_CLAIMS_CHARS)
    _put(&OUT, text + tag, LINKS_TAG_CHARS)
    if link.landing and page_count == 0:
        return 0
    _put(&OUT, link.tail, link.tail_count)
    if link.landing == 1:
        _put(&OUT, page, page_count)
    elif link.landing:
        for i in range(page_count):
            _put(&OUT, page + i, 1)
            if page[i] == c'%':
                for k in range(link.landing - 1):
                    _put(&OUT, b"25", 2)
    return 0


cdef bint _click(
    const Facts *facts, const Bid *bid, const char *request, LinkSet links, const Sheet *sheet,
    int escape, const char *page, int count
) except -1:
    """The click's link with its landing page; False when the twin should."""
    if memchr(page, c'{', count) == NULL:
        _url(links, sheet, PLACE_CLICK, escape, page, count)
        return True
    if not _fill_page(page, count, sheet.bid, bid, &facts.imps[bid.imp], facts, request):
        return False
    _url(links, sheet, PLACE_CLICK, escape, PAGE.data, <int>PAGE.size)
    return True


cdef bint _bid(
    const Facts *facts, const Bid *bid, const char *text, Frames frames, LinkSet links,
    const Sheet *sheet
) except -1:
    cdef const Imp *imp = &facts.imps[bid.imp]
    cdef const Creative *ad = &frames.creatives[bid.creative]
    cdef const Piece *piece
    cdef int i
    _literal(b'{"id":"')
    _put_hex(&OUT, sheet.bid)
    _literal(b'","impid":"')
    _put(&OUT, text + imp.id_off, imp.id_len)
    _literal(b'","price":')
    _price(bid.price_micros)
    if bid.deal >= 0:
        _literal(b',"dealid":"')
        _put(&OUT, text + facts.deals[bid.deal].id_off, facts.deals[bid.deal].id_len)
        _literal(b'"')
    _literal(b',"nurl":"')
    _url(links, sheet, PLACE_WIN, ESCAPE_NONE, NULL, 0)
    _literal(b'","burl":"')
    _url(links, sheet, PLACE_BILL, ESCAPE_NONE, NULL, 0)
    _literal(b'","lurl":"')
    _url(links, sheet, PLACE_LOSS, ESCAPE_NONE, NULL, 0)
    _literal(b'"')
    for i in range(ad.frame_start, ad.frame_start + ad.frame_count):
        piece = &frames.pieces[i]
        if piece.hole == HOLE_NONE:
            _put(&OUT, frames.text + piece.text_start, piece.text_count)
        elif piece.hole == HOLE_DSA:
            if facts.head.dsarequired > 0:
                _put(&OUT, frames.text + piece.text_start, piece.text_count)
        elif not _fill(piece, facts, bid, imp, ad, text, frames, links, sheet):
            return False
    if imp.exp_s > 0:
        _literal(b',"exp":')
        _number(imp.exp_s)
    _literal(b"}")
    return True


cdef bint _fill(
    const Piece *piece, const Facts *facts, const Bid *bid, const Imp *imp, const Creative *ad,
    const char *text, Frames frames, LinkSet links, const Sheet *sheet
) except -1:
    cdef int off, size, hole = piece.hole
    if hole == HOLE_CLICK_URL:
        return _click(
            facts, bid, text, links, sheet, piece.escape, frames.text + piece.text_start,
            piece.text_count,
        )
    elif hole == HOLE_IMPRESSION_URL:
        _url(links, sheet, PLACE_IMPRESSION, piece.escape, NULL, 0)
    elif hole == HOLE_VIEW_URL:
        _url(links, sheet, PLACE_VIEW, piece.escape, NULL, 0)
    elif hole == HOLE_VIDEO_URL:
        _url(links, sheet, PLACE_VIDEO + piece.event, piece.escape, NULL, 0)
    elif hole == HOLE_BID_ID:
        _put_hex(&OUT, sheet.bid)
    elif hole == HOLE_WIDTH:
        _number(bid.w)
    elif hole == HOLE_HEIGHT:
        _number(bid.h)
    elif hole == HOLE_CACHEBUSTER:
        _put_digits(&OUT, mix64(sheet.bid) % CACHEBUSTER_BELOW, 10)
    elif hole == HOLE_AUCTION_ID or hole == HOLE_IMP_ID:
        off = facts.head.id_off if hole == HOLE_AUCTION_ID else imp.id_off
        size = facts.head.id_len if hole == HOLE_AUCTION_ID else imp.id_len
        if _is_escaped(text + off, size):
            return False
        _put_percent(&OUT, text + off, size, 1)
    else:
        return _native(facts, bid, imp, ad, text, frames, links, sheet)
    return True


cdef bint _native(
    const Facts *facts, const Bid *bid, const Imp *imp, const Creative *ad, const char *text,
    Frames frames, LinkSet links, const Sheet *sheet
) except -1:
    cdef int i, j, earlier, first = 1
    cdef const AdAsset *ours
    cdef bint found
    cdef bint wrapped = (imp.flags & IMP_NATIVE_WRAPPED) != 0
    if wrapped:
        _literal(rb'{\"native\":')
    _literal(rb'{\"ver\":\"')
    _literal(b"1.0" if imp.native_ver == 10 else b"1.1" if imp.native_ver == 11 else b"1.2")
    _literal(rb'\",\"assets\":[')
    for i in range(imp.assets_start, imp.assets_start + imp.assets_count):
        found = False
        for j in range(ad.assets_start, ad.assets_start + ad.assets_count):
            if _fits(&facts.assets[i], &frames.assets[j]):
                found = True
                break
        if not found:
            if facts.assets[i].required:
                return False
            continue
        earlier = _first_of_id(facts, imp, i)
        if earlier != i:
            if facts.assets[i].required and not _asks_the_same(
                &facts.assets[i], &facts.assets[earlier]
            ):
                return False
            continue
        if not first:
            _literal(b",")
        first = 0
        ours = &frames.assets[j]
        _literal(rb'{\"id\":')
        _number(facts.assets[i].id)
        _literal(b",")
        _asset(ours, frames)
        _literal(b"}")
    _literal(b"]")
    for j in range(ad.assets_start, ad.assets_start + ad.assets_count):
        ours = &frames.assets[j]
        if ours.kind == KIND_LINK:
            _literal(rb',\"link\":{\"url\":\"')
            if not _click(
                facts, bid, text, links, sheet, ESCAPE_NONE, frames.text + ours.text_start,
                ours.text_count,
            ):
                return False
            _literal(rb'\"}')
            break
    _trackers(imp, ad, frames, links, sheet)
    _literal(b"}}" if wrapped else b"}")
    return True


cdef int _trackers(
    const Imp *imp, const Creative *ad, Frames frames, LinkSet links, const Sheet *sheet
) except -1:
    cdef bint events = imp.native_events >> EVENT_IMPRESSION & 1
    cdef bint viewable = imp.native_events >> EVENT_VIEWABLE & 1
    cdef int j
    _literal(rb',\"eventtrackers\":[' if events else rb',\"imptrackers\":[')
    _literal(rb'{\"event\":1,\"method\":1,\"url\":\"' if events else rb'\"')
    _url(links, sheet, PLACE_IMPRESSION, ESCAPE_NONE, NULL, 0)
    _literal(rb'\"}' if events else rb'\"')
    for j in range(ad.assets_start, ad.assets_start + ad.assets_count):
        if frames.assets[j].kind != KIND_TRACKER:
            continue
        _literal(rb',{\"event\":1,\"method\":1,\"url\":\"' if events else rb',\"')
        _put(&OUT, frames.text + frames.assets[j].text_start, frames.assets[j].text_count)
        _literal(rb'\"}' if events else rb'\"')
    if viewable:
        _literal(b"," if events else rb'],\"eventtrackers\":[')
        _literal(rb'{\"event\":2,\"method\":1,\"url\":\"')
        _url(links, sheet, PLACE_VIEW, ESCAPE_NONE, NULL, 0)
        _literal(rb'\"}')
    _literal(b"]")
    return 0


cdef int _asset(const AdAsset *ours, Frames frames) except -1:
    if ours.kind == KIND_TITLE:
        _literal(rb'\"title\":{\"text\":\"')
    elif ours.kind == KIND_IMG:
        _literal(rb'\"img\":{\"url\":\"')
    elif ours.kind == KIND_VIDEO:
        _literal(rb'\"video\":{\"vasttag\":\"')
    else:
        _literal(rb'\"data\":{\"value\":\"')
    _put(&OUT, frames.text + ours.text_start, ours.text_count)
    if ours.kind == KIND_IMG:
        _literal(rb'\",\"w\":')
        _number(ours.w)
        _literal(rb',\"h\":')
        _number(ours.h)
        _literal(b"}")
    else:
        _literal(rb'\"}')
    return 0


cdef bint _fits(const Asset *asked, const AdAsset *ours) noexcept nogil:
    """`rtb.openrtb.native.asset_fits`."""
    if asked.kind != ours.kind:
        return False
    if asked.kind == KIND_TITLE:
        return asked.len_ == 0 or ours.chars <= asked.len_
    if asked.kind == KIND_DATA:
        return asked.type == ours.type and (asked.len_ == 0 or ours.chars <= asked.len_)
    if asked.kind == KIND_IMG:
        return (
            (asked.type if asked.type else 3) == (ours.type if ours.type else 3)
            and (ours.w >= asked.wmin if asked.wmin else (asked.w == 0 or ours.w == asked.w))
            and (ours.h >= asked.hmin if asked.hmin else (asked.h == 0 or ours.h == asked.h))
            and (asked.mimes == 0 or (asked.mimes & ours.mime) != 0)
        )
    if asked.kind == KIND_VIDEO:
        return (
            ours.dur_s >= asked.minduration_s
            and (asked.maxduration_s == 0 or ours.dur_s <= asked.maxduration_s)
            and (asked.protocols == 0 or (asked.protocols >> ours.protocol & 1) != 0)
            and (asked.mimes == 0 or (asked.mimes & ours.mime) != 0)
        )
    return False
