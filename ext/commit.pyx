"""Compiled twin of `rtb.server.commit.Commit`, which states the rules.

It pays from the words of the money board itself; the digests are the signer's, the record's frame
is the journal's.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

from links cimport *
from records cimport *
from snapshot cimport *
from tokens cimport mix64

import numpy as np

from rtb.base.errors import InvariantError, StoreError
from rtb.base.events import BIDS_PER_SECOND_MAX, CLAIMS_VERSION, RATE_ONE, ClaimFlag, Kind
from rtb.openrtb.lists import AssetKind
from rtb.server import commit as rules
from rtb.stores import board_money

cdef extern from *:
    """
    #define LOAD(at) __atomic_load_n((at), __ATOMIC_ACQUIRE)
    #define STORE(at, value) __atomic_store_n((at), (value), __ATOMIC_RELEASE)
    /* Products of a price, a rate and a multiplier need more than 64 bits. */
    static inline int64_t ceil_cost(int64_t price, uint64_t rate_e9, uint64_t multiplier_e6,
                                    uint64_t share_e6, int64_t most) {
        const unsigned __int128 one = (unsigned __int128)1000000000 * 1000000;
        unsigned __int128 cost = (unsigned __int128)price * rate_e9 * multiplier_e6;
        cost = (cost + one - 1) / one;
        cost = (cost * share_e6 + 999999) / 1000000;
        return cost > (unsigned __int128)most ? most : (int64_t)cost;
    }
    """
    int64_t LOAD(const int64_t *at) noexcept nogil
    void STORE(int64_t *at, int64_t value) noexcept nogil
    int64_t ceil_cost(
        int64_t price, uint64_t rate_e9, uint64_t multiplier_e6, uint64_t share_e6, int64_t most
    ) noexcept nogil

cdef int NO_SLOT = board_money.NO_SLOT
cdef uint32_t RESERVE_ALL = board_money.RESERVE_E6_ALL
cdef int64_t GRANTED_MAX = board_money.GRANTED_MAX
cdef int VERSION = CLAIMS_VERSION
cdef uint64_t ONE = RATE_ONE
cdef int TEST = ClaimFlag.TEST
cdef int EXPECTED = ClaimFlag.EXPECTED
cdef int KIND_BID = Kind.BID
cdef int KIND_LINK = AssetKind.LINK
cdef int PER_SECOND = BIDS_PER_SECOND_MAX
cdef enum:
    RATES_KEPT = 64  # pairs of currencies of the payment used last; seldom more than ten are

include "buffer.pxi"
include "landing.pxi"

assert sizeof(Claims) == 72 and sizeof(BidRecord) == 96


cdef struct KeptRate:
    uint32_t source, target
    uint64_t rate_e9


cdef class Commit:
    """See `rtb.server.commit.Commit`."""

    cdef object purse, append, signer, keyring, caps, arrays, slots_kept
    cdef object digest_of_target  # prepared: only ever copied
    cdef object payment  # the one used last, and what it says
    cdef uint32_t exchange
    cdef uint64_t multiplier_max
    cdef KeptRate rates[RATES_KEPT]
    cdef int rates_count
    cdef int key, node, worker
    cdef int64_t not_before_s, second, number
    cdef readonly bint stopped
    # the money board: this worker's rows
    cdef const int64_t *granted
    cdef const int64_t *granted_units
    cdef const int64_t *from_ms
    cdef const int64_t *until_ms
    cdef int64_t *taken
    cdef int64_t *taken_units
    cdef int64_t *wanted
    cdef int64_t *refusals
    cdef const uint64_t *keys
    cdef const uint32_t *reserve_e6
    cdef const int64_t *admitted
    cdef const int64_t *generation
    cdef int64_t incarnation, bound
    # the snapshot
    cdef const LineItem *line_items
    cdef const Creative *creatives
    cdef const Piece *pieces
    cdef const AdAsset *assets
    cdef const char *text
    cdef const int32_t *slots
    cdef uint64_t *targets
    cdef uint8_t *is_known

    def __init__(
        self, purse, append, signer, keyring, int node, int worker, int64_t not_before_s=0,
        caps=None,
    ):
        cdef uintptr_t at
        board = purse.board
        self.purse, self.append, self.signer, self.keyring = purse, append, signer, keyring
        self.key, self.node, self.worker = keyring.current, node, worker
        self.digest_of_target = keyring.prepared(keyring.current).targets.copy
        self.not_before_s = not_before_s
        self.caps = caps
        one = purse.worker
        self.granted = <const int64_t *><uintptr_t>board.granted[one].ctypes.data
        self.granted_units = <const int64_t *><uintptr_t>board.granted_units[one].ctypes.data
        self.from_ms = <const int64_t *><uintptr_t>board.from_ms[one].ctypes.data
        self.until_ms = <const int64_t *><uintptr_t>board.until_ms[one].ctypes.data
        self.taken = <int64_t *><uintptr_t>board.taken[one].ctypes.data
        self.taken_units = <int64_t *><uintptr_t>board.taken_units[one].ctypes.data
        self.wanted = <int64_t *><uintptr_t>board.wanted[one].ctypes.data
        self.refusals = <int64_t *><uintptr_t>board.refusals[one].ctypes.data
        self.keys = <const uint64_t *><uintptr_t>board.keys.ctypes.data
        self.reserve_e6 = <const uint32_t *><uintptr_t>board.reserve_e6.ctypes.data
        at = board.keeper["incarnation"][one:].ctypes.data
        self.admitted = <const int64_t *>at
        at = board.header["generation"].ctypes.data
        self.generation = <const int64_t *>at
        self.incarnation = purse.incarnation

    def __dealloc__(self):
        free(self.targets)
        free(self.is_known)

    def serve(self, arrays) -> None:
        """See `rtb.server.commit.Commit.serve`."""
        cdef uintptr_t at
        cdef size_t count = max(len(arrays["creatives"]), 1)
        self.arrays = arrays
        at = arrays["line_items"].ctypes.data
        self.line_items = <const LineItem *>at
        at = arrays["creatives"].ctypes.data
        self.creatives = <const Creative *>at
        at = arrays["pieces"].ctypes.data
        self.pieces = <const Piece *>at
        at = arrays["assets"].ctypes.data
        self.assets = <const AdAsset *>at
        at = arrays["text"].ctypes.data
        self.text = <const char *>at
        free(self.targets)
        free(self.is_known)
        self.targets = <uint64_t *>calloc(count, sizeof(uint64_t))
        self.is_known = <uint8_t *>calloc(count, 1)
        if self.targets == NULL or self.is_known == NULL:
            raise MemoryError
        self.purse.bind(np.ascontiguousarray(arrays["line_items"]["key"], np.uint64))
        self._find_slots()

    cdef int _find_slots(self) except -1:
        cdef uintptr_t at
        self.bound = LOAD(self.generation)
        self.slots_kept = self.purse.slots()
        at = self.slots_kept.ctypes.data
        self.slots = <const int32_t *>at
        return 0

    def pay(
        self, opportunity, decision, engine, payment, uint64_t person, int flags, int64_t now_ms,
        sheets,
    ) -> int:
        """See `rtb.server.commit.Commit.pay`."""
        cdef uintptr_t at
        cdef const Facts *facts
        cdef DecisionData *out
        cdef Sheet *signed
        cdef int number, reason, count = 0
        cdef BidRecord body
        at = opportunity.address
        facts = <const Facts *>at
        at = decision.address
        out = <DecisionData *>at
        at = sheets.address
        signed = <Sheet *>at
        self.stopped = False
        if LOAD(self.generation) != self.bound:
            self._find_slots()
        if payment is not self.payment:
            self._use(payment)
        memset(&body, 0, sizeof(body))
        body.claims.version = VERSION
        body.claims.key = self.key
        body.claims.exchange = self.exchange
        body.claims.person = person
        body.worker = self.worker
        for number in range(out.head.bids_count):
            if not out.bids[number].chosen:
                continue
            body.claims.flags = flags
            self._fill(&body, out, number)
            if count and self.caps is not None and person and not flags & TEST and (
                not self.caps.allows(body.claims.line_item, body.claims.creative, now_ms)
            ):
                reason = REJECT_FREQUENCY_CAP
            else:
                reason = self._one(
                    opportunity, decision, facts, out, number, &body, now_ms, signed
                )
            if reason == REJECT_NONE:
                count += 1
            else:
                engine.fall_back(opportunity, decision, number, reason)
        return count

    cdef int _use(self, payment) except -1:
        self.payment = payment
        self.exchange = payment.exchange
        self.multiplier_max = payment.multiplier_max
        self.rates_count = 0
        return 0

    cdef int _fill(self, BidRecord *body, const DecisionData *out, int number) except -1:
        cdef const Bid *bid = &out.bids[number]
        cdef const LineItem *row = &self.line_items[bid.line_item]
        cdef const Creative *ad = &self.creatives[bid.creative]
        body.claims.media = bid.media
        body.claims.line_item = row.key
        body.claims.creative = ad.key
        body.claims.product = ad.item
        body.claims.price_micros = bid.price_micros
        body.claims.rate_e9 = ONE if row.currency == out.head.cur else self._rate(
            out.head.cur, row.currency
        )
        body.claims.target = 0
        body.claims.bid = 0
        body.reserve_nanos = 0
        body.time_ms = 0
        body.at = bid.at
        return 0

    cdef uint64_t _rate(self, uint32_t source, uint32_t target) except? 0:
        cdef int i
        for i in range(self.rates_count):
            if self.rates[i].source == source and self.rates[i].target == target:
                return self.rates[i].rate_e9
        if self.rates_count == RATES_KEPT:
            self.rates_count = 0
        i = self.rates_count
        self.rates[i].rate_e9 = rules.rate_e9(source, target, self.payment.rates)
        self.rates[i].source, self.rates[i].target = source, target
        self.rates_count = i + 1
        return self.rates[i].rate_e9

    cdef int _one(
        self, opportunity, decision, const Facts *facts, const DecisionData *out, int number,
        BidRecord *body, int64_t now_ms, Sheet *signed
    ) except -1:
        cdef int slot = NO_SLOT
        cdef bint events
        cdef bytes sheet
        if facts.imps[out.bids[number].imp].multiplier > self.multiplier_max:
            return REJECT_MULTIPLIER
        if body.claims.flags & TEST:
            body.claims.bid = mix64(facts.head.id_hash ^ <uint64_t>number) >> 32 | 1
        else:
            now_ms = max(now_ms, self.second * 1000)
            slot = self.slots[out.bids[number].line_item]
            if not self._affords(slot, body, now_ms):
                return REJECT_BUDGET
            if self.caps is not None and body.claims.person and not self.caps.bid(
                body.claims.person, body.claims.bid, body.claims.line_item, body.claims.creative,
                now_ms,
            ):
                return REJECT_FREQUENCY_CAP
        body.claims.target = self._target(
            opportunity, decision, facts, out, number, body.claims.bid
        )
        if slot != NO_SLOT:
            try:
                self.append(KIND_BID, PyBytes_FromStringAndSize(<char *>body, sizeof(BidRecord)))
            except StoreError:
                self.stopped = True
                if self.caps is not None:
                    self.caps.lost(body.claims.person, body.claims.bid, now_ms)
                return REJECT_BUDGET
            STORE(&self.taken[slot], self.taken[slot] + body.reserve_nanos)
            STORE(&self.taken_units[slot], self.taken_units[slot] + 1)
        events = body.claims.media == MEDIA_VIDEO or body.claims.media == MEDIA_AUDIO
        sheet = self.signer.sign(
            PyBytes_FromStringAndSize(<char *>&body.claims, sizeof(Claims)), events
        )
        if PyBytes_GET_SIZE(sheet) > LINKS_SHEET_CHARS_MAX:
            raise InvariantError("a sheet with more tags than there are slots")
        signed[number].bid = body.claims.bid
        signed[number].chars = <uint64_t>PyBytes_GET_SIZE(sheet)
        memcpy(signed[number].text, PyBytes_AS_STRING(sheet), PyBytes_GET_SIZE(sheet))
        return REJECT_NONE

    cdef bint _affords(self, int slot, BidRecord *body, int64_t now_ms) noexcept:
        cdef int64_t nanos
        cdef uint32_t share
        if slot == NO_SLOT or not body.claims.rate_e9 or now_ms // 1000 < self.not_before_s:
            return False
        share = self.reserve_e6[slot]
        if share != RESERVE_ALL:
            body.claims.flags |= EXPECTED
        nanos = ceil_cost(
            body.claims.price_micros, body.claims.rate_e9, self.multiplier_max * 1000000,
            share, GRANTED_MAX,
        )
        if not (
            LOAD(self.admitted) == self.incarnation
            and self.keys[slot] == body.claims.line_item
            and now_ms < LOAD(&self.until_ms[slot])
            and LOAD(&self.from_ms[slot]) <= now_ms
            and self.taken[slot] + nanos <= LOAD(&self.granted[slot])
            and self.taken_units[slot] < LOAD(&self.granted_units[slot])
        ):
            STORE(&self.wanted[slot], nanos)
            STORE(&self.refusals[slot], self.refusals[slot] + 1)
            return False
        if now_ms // 1000 != self.second:
            self.second = now_ms // 1000
            self.number = 0
        if self.number >= PER_SECOND:
            return False
        # `rtb.base.events.bid_id`
        body.claims.bid = (
            <uint64_t>self.second << 32 | <uint64_t>self.node << 24
            | <uint64_t>self.worker << 16 | <uint64_t>self.number
        )
        body.reserve_nanos = nanos
        body.time_ms = now_ms
        self.number += 1
        return True

    cdef uint64_t _target(
        self, opportunity, decision, const Facts *facts, const DecisionData *out, int number,
        uint64_t bid
    ) except? 0:
        """`rtb.server.commit.target_of`; pages that the auction does not end are hashed once."""
        cdef const Bid *row = &out.bids[number]
        cdef const char *page = NULL
        cdef int count
        cdef bytes request
        cdef uint64_t found
        if self.is_known[row.creative]:
            return self.targets[row.creative]
        count = self._landing_text(row.creative, &page)
        if count == 0:
            found = 0
        elif memchr(page, c'{', count) == NULL:
            PAGE.size = 0
            _put(&PAGE, page, count)
            found = self._target_hash()
        else:
            request = opportunity.text
            if not _fill_page(
                page, count, bid, row, &facts.imps[row.imp], facts, PyBytes_AS_STRING(request)
            ):
                return rules.target_of(
                    self.arrays, opportunity, decision, number, bid, self.keyring
                )
            found = self._target_hash()
            if PAGE_FILLED:
                return found
        self.targets[row.creative] = found
        self.is_known[row.creative] = True
        return found

    cdef int _landing_text(self, int creative, const char **page) noexcept:
        """Where the landing page of a creative stands, and its length; 0 for none."""
        cdef const Creative *ad = &self.creatives[creative]
        cdef const Piece *piece
        cdef const AdAsset *asset
        cdef int i
        for i in range(ad.frame_start, ad.frame_start + ad.frame_count):
            piece = &self.pieces[i]
            if piece.hole == HOLE_CLICK_URL and piece.text_count:
                page[0] = self.text + piece.text_start
                return piece.text_count
        for i in range(ad.assets_start, ad.assets_start + ad.assets_count):
            asset = &self.assets[i]
            if asset.kind == KIND_LINK:
                page[0] = self.text + asset.text_start
                return asset.text_count
        return 0

    cdef uint64_t _target_hash(self) except? 0:
        """`rtb.notices.tokens.target_hash` of PAGE, percent-decoded."""
        cdef Py_ssize_t size = _unquoted(PAGE.data, PAGE.size)
        cdef object state
        cdef bytes digest
        cdef uint64_t found
        if size < 0:  # not ASCII: the twin knows what is text
            page = PyBytes_FromStringAndSize(PAGE.data, PAGE.size).decode()
            return rules.target_hash(rules.unquote(page), self.key, self.keyring)
        state = self.digest_of_target()
        state.update(PyBytes_FromStringAndSize(PAGE.data, size))
        digest = state.digest()
        if PyBytes_GET_SIZE(digest) != sizeof(uint64_t):
            raise InvariantError("a target's digest of another size than its claim")
        memcpy(&found, PyBytes_AS_STRING(digest), sizeof(uint64_t))
        return found if found else 1


cdef int _nibble(char digit) noexcept nogil:
    if c'0' <= digit <= c'9':
        return digit - c'0'
    if c'a' <= (digit | 32) <= c'f':
        return (digit | 32) - c'a' + 10
    return -1


cdef Py_ssize_t _unquoted(char *text, Py_ssize_t size) noexcept nogil:
    """Percent-decodes in place; the new size. -1, and the text is as it was, if that is not ASCII.
    """
    cdef Py_ssize_t i, to = 0
    for i in range(size):
        if text[i] & 0x80 or (
            text[i] == c'%' and i + 2 < size and _nibble(text[i + 1]) >= 8
            and _nibble(text[i + 2]) >= 0
        ):
            return -1
    i = 0
    while i < size:
        if (
            text[i] == c'%' and i + 2 < size and _nibble(text[i + 1]) >= 0
            and _nibble(text[i + 2]) >= 0
        ):
            text[to] = <char>(_nibble(text[i + 1]) << 4 | _nibble(text[i + 2]))
            i += 3
        else:
            text[to] = text[i]
            i += 1
        to += 1
    return to
