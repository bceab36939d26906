"""Compiled twin of `rtb.server.bid.Bidder.answer_by_steps` for the usual request.

The reference states the rules and answers whatever is not usual. Usual is a readable request in
time, without test=1, on a node that serves, may pay, and has its profiles itself. Up to the commit
nothing is done that the reference could not do again, so at any doubt the request is handed back
whole.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t, uintptr_t

from records cimport *

from rtb.base.reasons import NoBid
from rtb.base.records import Flag
from rtb.exchanges.response import no_bid
from rtb.server import bid as rules
from rtb.stores.board import FUNNEL_SAMPLE, NO_LOOKUP, STAGE_SAMPLE, Outcome
from rtb.stores.profiles import Lookup

cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_MONOTONIC
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int clock, timespec *now)

cdef uint64_t SAMPLE_FUNNEL = FUNNEL_SAMPLE
cdef uint64_t SAMPLE_STAGE = STAGE_SAMPLE
cdef uint32_t TEST = Flag.TEST
cdef int HIT = Lookup.HIT
cdef int MISS = Lookup.MISS
cdef int NONE = NO_LOOKUP
cdef int BID = Outcome.BID
cdef int NOBID = Outcome.NOBID
cdef int LATE = Outcome.LATE
cdef int TIMEOUT = NoBid.TIMEOUT
cdef int STOPPED = NoBid.PAID_BIDDING_STOPPED
cdef int NO_CANDIDATE = NoBid.NO_CANDIDATE
cdef tuple NO_CONTENT = rules.NO_CONTENT


cdef inline int64_t _now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1000000000 + now.tv_nsec


cdef class Gate:
    """What the path needs of an `Endpoint`."""

    cdef object exchange, terms, terms_whole, payment
    cdef dict links
    cdef bytes name
    cdef int number
    cdef bint is_plain
    cdef int64_t cap_ns, margin_ns, default_ns

    def __init__(self, endpoint):
        self.exchange, self.links = endpoint.exchange, endpoint.links
        self.terms, self.terms_whole = endpoint.terms, endpoint.terms_whole
        self.payment, self.name, self.number = endpoint.payment, endpoint.name, endpoint.number
        self.cap_ns, self.margin_ns = endpoint.cap_ns, endpoint.margin_ns
        self.default_ns = endpoint.default_ns
        self.is_plain = endpoint.exchange.no_bid == "204"

    cdef inline int64_t budget_ns(self, int tmax_ms) noexcept nogil:
        cdef int64_t tmax_ns = <int64_t>tmax_ms * 1000000 if tmax_ms else self.default_ns
        return min(tmax_ns - self.margin_ns, self.cap_ns)


cdef class Path:
    """One worker's. `serve` after whatever changes what is served."""

    cdef object bidder, decode, keys, find, view, caps, commit, pay, encode, count, journal
    cdef object decide, engine, arrays, overlay
    cdef object work, opportunity, decision, sheets
    cdef const Facts *facts
    cdef const DecisionData *decided
    cdef dict gates
    cdef int64_t shed_after_ns, late_ns, wall_offset_ns

    def __init__(self, bidder):
        cdef uintptr_t at
        kernels, money, settings = bidder.kernels, bidder.money, bidder.settings
        self.bidder = bidder
        self.decode, self.keys, self.encode = kernels.decode, kernels.keys, kernels.encode
        self.find, self.caps, self.view = bidder.local.find_key, money.caps, money.caps.view
        self.commit, self.pay = money.commit, money.commit.pay
        self.journal, self.count = money.journal, bidder.meter.request
        self.shed_after_ns = settings.shed_after_ms * 1000000
        # Whoever has less left than any of these gives something up, which the reference knows.
        late_ms = max(settings.late_ms, settings.bid_min_ms, settings.profile_min_ms)
        self.late_ns = late_ms * 1000000
        self.work = work = rules.Workspace()
        self.opportunity, self.decision, self.sheets = work.opportunity, work.decision, work.sheets
        at = work.opportunity.address
        self.facts = <const Facts *>at
        at = work.decision.address
        self.decided = <const DecisionData *>at
        self.gates = {}

    def serve(self) -> None:
        """Takes over what the bidder serves now."""
        serving = self.bidder.serving
        if serving is None:
            return
        self.engine, self.arrays = serving.engine, serving.arrays
        self.decide, self.overlay = serving.engine.decide, self.bidder.money.overlay
        self.gates = {one: Gate(one) for one in self.bidder.endpoints.values()}

    def set_clock(self, int64_t wall_offset_ns) -> None:
        """What the monotonic clock lacks of the wall's."""
        self.wall_offset_ns = wall_offset_ns

    def answer(
        self, endpoint, bytes data not None, Py_ssize_t start, int64_t started_ns, int64_t turn_ns
    ):
        """The answer to the request in `data[start:]`; None: ask the reference.

        started_ns, turn_ns: as the reference's
        """
        cdef const Head *head = &self.facts.head
        cdef int64_t now_ns = _now_ns(), deadline_ns, end_ns, now_ms
        cdef uint64_t person = 0
        cdef int lookup = NONE, reason
        cdef bint sampled
        cdef Gate gate = self.gates.get(endpoint)
        cdef object profile = None, links, record, key, body
        cdef list keys
        if gate is None or now_ns - turn_ns > self.shed_after_ns:
            return None
        if not self.decode(data, start, gate.exchange, self.opportunity):
            return None
        if head.flags & TEST or head.id_hash % SAMPLE_STAGE == 1 or not self.journal.writable:
            return None
        deadline_ns = started_ns + gate.budget_ns(head.tmax_ms)
        if deadline_ns - now_ns < self.late_ns:
            return None
        if not head.privacy:
            keys = self.keys(self.opportunity, gate.name)
            if keys:
                record, key = self.find(keys)
                lookup = MISS if record is None else HIT
                now_ms = (now_ns + self.wall_offset_ns) // 1000000
                profile = self.view(keys, key, record, now_ms)
                person = self.caps.person
        now_ns = _now_ns()
        if deadline_ns - now_ns < self.late_ns:
            return None
        now_ms = (now_ns + self.wall_offset_ns) // 1000000
        sampled = head.id_hash % SAMPLE_FUNNEL == 0
        self.decide(
            self.opportunity, profile, gate.terms_whole if sampled else gate.terms, self.overlay,
            now_ms, self.decision,
        )
        reason = self.decided.head.nobid
        if not reason and not self.pay(
            self.opportunity, self.decision, self.engine, gate.payment, person, 0, now_ms,
            self.sheets,
        ):
            reason = STOPPED if self.commit.stopped else NO_CANDIDATE
        if reason:
            return self._no_bid(gate, reason, started_ns, lookup, sampled)
        links = gate.links.get(self.decided.head.cur)
        if links is None:
            links = self.bidder.links_of(endpoint, self.decided.head.cur)
        body = self.encode(
            self.opportunity, self.decision, self.arrays, gate.exchange, links, self.sheets
        )
        end_ns = _now_ns()
        if end_ns > deadline_ns:
            return self._no_bid(gate, TIMEOUT, started_ns, lookup, sampled)
        self.count(
            gate.number, BID, 0, head.quirks, (end_ns - started_ns) // 1000, lookup, self.decision,
            sampled, head.privacy,
        )
        return 200, body

    cdef object _no_bid(
        self, Gate gate, int reason, int64_t started_ns, int lookup, bint sampled
    ):
        cdef const Head *head = &self.facts.head
        self.count(
            gate.number, LATE if reason == TIMEOUT else NOBID, reason, head.quirks,
            (_now_ns() - started_ns) // 1000, lookup, self.decision, sampled, head.privacy,
        )
        if gate.is_plain:
            return NO_CONTENT
        request_id = self.opportunity.slice(head.id_off, head.id_len)
        return no_bid(request_id, NoBid(reason), gate.exchange)
