"""A bid request in four steps, one way: decode -> gather -> decide -> commit.

    decode  bytes to facts                                  pure, `kernels.decode`
    gather  the only I/O: one profile read, within a budget
    decide  facts, profile, snapshot, model -> decision     pure, `kernels.engine`
    commit  choose, count, encode

The fast lane and the Starlette route both end here, so they answer the same bytes. Time runs from
the first byte of the request. As it runs out a request gives up, in this order: candidates, the
profile, the bid. "No bid" is always in time.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

import numpy as np

from rtb.base.errors import InputError, OpenRTBError
from rtb.base.reasons import NoBid
from rtb.base.records import DECISION_HEAD, FACTS, HEAD, Decision, Flag, Opportunity, Terms
from rtb.catalogue.snapshot import Snapshot
from rtb.exchanges.response import no_bid
from rtb.exchanges.settings import Exchange
from rtb.server.kernels import Kernels
from rtb.server.settings import Bid, terms_of
from rtb.stores.board import FUNNEL_SAMPLE, Outcome, Stage
from rtb.stores.profiles import LocalProfiles, Lookup, RemoteProfiles

NS_PER_MS: Final = 1_000_000
NS_PER_US: Final = 1_000

Reply = tuple[int, bytes]  # HTTP status, body
Later = Callable[[Reply], None]

# The few facts of a request that the server itself looks at, in one read.
_GLANCE: Final = Struct("<Q24xii4xiIII")
_GLANCE_FIELDS: Final = ("id_hash", "id_off", "id_len", "tmax_ms", "flags", "privacy", "quirks")
_NOBID_WORD: Final = DECISION_HEAD.fields["nobid"][1] // 4  # type: ignore[index]


def _check_glance() -> None:
    """The struct above against the layout it reads."""
    facts = np.zeros(1, FACTS)
    for number, field in enumerate(_GLANCE_FIELDS, start=1):
        facts["head"][field] = number
    if _GLANCE.unpack_from(facts.view("u1").data) != tuple(range(1, len(_GLANCE_FIELDS) + 1)):
        raise AssertionError(f"the glance does not read {HEAD}")


_check_glance()


class Workspace:
    """The records of one request in flight, reused."""

    __slots__ = ("decision", "facts_bytes", "nobid", "opportunity")

    def __init__(self) -> None:
        self.opportunity = Opportunity()
        self.decision = Decision()
        self.facts_bytes = self.opportunity.facts.view("u1").data
        self.nobid = self.decision.data.view("i4").data


@dataclass(frozen=True)
class Serving:
    """One generation of what is served: swapped whole, never mixed."""

    snapshot: Snapshot
    engine: Any
    generation: int
    snapshot_hash: str
    model_hash: str

    @property
    def arrays(self) -> Mapping[str, Any]:
        return self.snapshot.arrays


class Endpoint:
    """One exchange as this worker answers it."""

    def __init__(self, number: int, exchange: Exchange) -> None:
        self.number = number
        self.exchange = exchange
        self.name = exchange.name.encode()
        self.terms = Terms()
        self.terms_late = Terms()
        self.cap_ns = (exchange.deadline_ms_max - exchange.tmax_margin_ms) * NS_PER_MS
        self.margin_ns = exchange.tmax_margin_ms * NS_PER_MS
        self.default_ns = exchange.tmax_ms_default * NS_PER_MS

    def budget_ns(self, tmax_ms: int) -> int:
        """Time for one request: min(tmax, the exchange's cap) less the network's margin."""
        tmax_ns = tmax_ms * NS_PER_MS if tmax_ms else self.default_ns
        return min(tmax_ns - self.margin_ns, self.cap_ns)


class Bidder:
    """One worker's bid path. Not thread-safe; one event loop drives it."""

    def __init__(
        self,
        settings: Bid,
        exchanges: Mapping[str, Exchange],
        kernels: Kernels,
        meter: Any,
        local: LocalProfiles | None = None,
        remote: RemoteProfiles | None = None,
        profile_budget_ms: int = 3,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // NS_PER_MS,
    ) -> None:
        self.settings = settings
        self.kernels = kernels
        self.meter = meter
        self.local, self.remote = local, remote
        self.endpoints = {
            name.encode(): Endpoint(number, exchange)
            for number, (name, exchange) in enumerate(exchanges.items())
        }
        self.serving: Serving | None = None
        self.draining = False
        self.inflight = 0
        self._monotonic_ns, self._wall_ms = monotonic_ns, wall_ms
        self._profile_budget_ns = profile_budget_ms * NS_PER_MS
        self._shed_after_ns = settings.shed_after_ms * NS_PER_MS
        self._late_ns = settings.late_ms * NS_PER_MS
        self._profile_min_ns = settings.profile_min_ms * NS_PER_MS
        self._bid_min_ns = settings.bid_min_ms * NS_PER_MS
        self._free: list[Workspace] = [Workspace()]
        self.rates = np.zeros(0)
        self.zones = np.zeros(0)

    # -- what changes while serving ---------------------------------------------------------------

    def serve(self, serving: Serving) -> None:
        """Puts a new generation in service, whole."""
        self._set_terms(self.rates, self.zones, serving.generation)
        self.serving = serving

    def price_by(self, rates: np.ndarray, zones: np.ndarray) -> None:
        """Puts new currency rates and clocks in force."""
        generation = self.serving.generation if self.serving else 0
        self._set_terms(rates, zones, generation)

    def _set_terms(self, rates: np.ndarray, zones: np.ndarray, generation: int) -> None:
        self.rates, self.zones = rates, zones
        most, late = self.settings.candidates_max, self.settings.candidates_late_max
        for endpoint in self.endpoints.values():
            exchange = endpoint.exchange
            endpoint.terms = terms_of(exchange, rates, zones, most, generation)
            endpoint.terms_late = terms_of(exchange, rates, zones, min(most, late), generation)

    # -- one request ------------------------------------------------------------------------------

    def answer(
        self,
        endpoint: Endpoint,
        data: bytes,
        start: int,
        started_ns: int,
        whole_ns: int,
        later: Later,
    ) -> Reply | None:
        """The answer to the request in `data[start:]`; None when `later` is called with it.

        started_ns: `monotonic_ns` of the first byte, from which the deadline counts.
        whole_ns: the same of the last byte; what passed since is our own queue.
        """
        now_ns = self._monotonic_ns()
        serving = self.serving
        if now_ns - whole_ns > self._shed_after_ns:
            return self._unread(endpoint, NoBid.SHED, started_ns)
        if serving is None:
            return self._unread(endpoint, NoBid.NO_SNAPSHOT, started_ns)
        work = self._free.pop() if self._free else Workspace()
        opportunity = work.opportunity
        try:
            self.kernels.decode(data, start, endpoint.exchange, opportunity)
        except InputError as error:
            self._free.append(work)
            return self._malformed(endpoint, error, started_ns)
        glance = _GLANCE.unpack_from(work.facts_bytes)
        sampled = glance[0] % FUNNEL_SAMPLE == 0
        if sampled:
            now_ns = self._timed(Stage.DECODE, now_ns)
        deadline_ns = started_ns + endpoint.budget_ns(glance[3])
        if deadline_ns - now_ns < self._bid_min_ns:
            # Too little from the start is the exchange's choice; used up on the way is our fault.
            early = deadline_ns - started_ns < self._bid_min_ns
            reason = NoBid.TMAX_TOO_SHORT if early else NoBid.TIMEOUT
            return self._finish_nobid(endpoint, work, glance, reason, started_ns)
        profile = None
        if not glance[5] and deadline_ns - now_ns >= self._profile_min_ns:
            keys = self.kernels.keys(opportunity, endpoint.name)
            if keys:
                if self.local is None:
                    return self._gather(
                        endpoint, work, glance, keys, started_ns, deadline_ns, later
                    )
                profile = self.local.find(keys)
                self.meter.lookup(Lookup.MISS if profile is None else Lookup.HIT)
                if sampled:
                    now_ns = self._timed(Stage.GATHER, now_ns)
        return self._finish(endpoint, work, glance, profile, started_ns, deadline_ns)

    def _gather(
        self,
        endpoint: Endpoint,
        work: Workspace,
        glance: tuple[int, ...],
        keys: list[bytes],
        started_ns: int,
        deadline_ns: int,
        later: Later,
    ) -> Reply | None:
        """Asks the remote store; the answer to the exchange follows from its callback."""
        assert self.remote is not None
        if self.inflight >= self.settings.inflight_max:
            self.meter.lookup(Lookup.BUSY)
            return self._finish(endpoint, work, glance, None, started_ns, deadline_ns)
        at_once: list[Reply] = []
        asked = False

        def answered(outcome: Lookup, record: bytes | None) -> None:
            self.inflight -= 1
            self.meter.lookup(outcome)
            reply = self._finish(endpoint, work, glance, record, started_ns, deadline_ns)
            if asked:
                later(reply)
            else:
                at_once.append(reply)

        self.inflight += 1
        budget_ns = self._monotonic_ns() + self._profile_budget_ns
        self.remote.find(keys, min(budget_ns, deadline_ns - self._bid_min_ns), answered)
        asked = True
        return at_once[0] if at_once else None

    def _finish(
        self,
        endpoint: Endpoint,
        work: Workspace,
        glance: tuple[int, ...],
        profile: bytes | memoryview | None,
        started_ns: int,
        deadline_ns: int,
    ) -> Reply:
        """Decides and commits, with whatever time is left."""
        now_ns = self._monotonic_ns()
        left_ns = deadline_ns - now_ns
        if left_ns < self._bid_min_ns:
            return self._finish_nobid(endpoint, work, glance, NoBid.TIMEOUT, started_ns)
        serving = self.serving
        assert serving is not None
        terms = endpoint.terms if left_ns >= self._late_ns else endpoint.terms_late
        decision = work.decision
        serving.engine.decide(work.opportunity, profile, terms, None, self._wall_ms(), decision)
        sampled = glance[0] % FUNNEL_SAMPLE == 0
        if sampled:
            now_ns = self._timed(Stage.DECIDE, now_ns)
        test = glance[4] & Flag.TEST
        if not test:
            self.meter.decision(endpoint.number, decision, sampled)
        reason = work.nobid[_NOBID_WORD]
        if reason:
            return self._finish_nobid(endpoint, work, glance, NoBid(reason), started_ns)
        body = self.kernels.encode(
            work.opportunity, decision, serving.snapshot.arrays, endpoint.exchange
        )
        self._free.append(work)
        end_ns = self._monotonic_ns()
        if sampled:
            self._timed(Stage.ENCODE, now_ns)
            self.meter.stage(Stage.TOTAL, (end_ns - started_ns) // NS_PER_US)
        if end_ns > deadline_ns:
            self._count(endpoint, Outcome.LATE, NoBid.TIMEOUT, glance[6], started_ns, end_ns)
            return no_bid(_request_id(work, glance), NoBid.TIMEOUT, endpoint.exchange)
        outcome = Outcome.TEST if test else Outcome.BID
        self._count(endpoint, outcome, NoBid.BID, glance[6], started_ns, end_ns)
        return 200, body

    # -- endings without a bid --------------------------------------------------------------------

    def _finish_nobid(
        self,
        endpoint: Endpoint,
        work: Workspace,
        glance: tuple[int, ...],
        reason: NoBid,
        started_ns: int,
    ) -> Reply:
        self._free.append(work)
        outcome = Outcome.LATE if reason == NoBid.TIMEOUT else Outcome.NOBID
        if glance[4] & Flag.TEST:
            outcome = Outcome.TEST
        self._count(endpoint, outcome, reason, glance[6], started_ns, self._monotonic_ns())
        if endpoint.exchange.no_bid == "204":
            return 204, b""
        return no_bid(_request_id(work, glance), reason, endpoint.exchange)

    def _unread(self, endpoint: Endpoint, reason: NoBid, started_ns: int) -> Reply:
        """No bid before the body was looked at: without its id there is nothing to say but 204."""
        self._count(endpoint, Outcome.SHED, reason, 0, started_ns, self._monotonic_ns())
        return 204, b""

    def _malformed(self, endpoint: Endpoint, error: InputError, started_ns: int) -> Reply:
        version = isinstance(error, OpenRTBError) and error.path == "$.openrtb"
        reason = NoBid.UNSUPPORTED_VERSION if version else NoBid.MALFORMED
        self._count(endpoint, Outcome.BAD, reason, 0, started_ns, self._monotonic_ns())
        return 400, error_body(error)

    def refuse(self, endpoint: Endpoint, started_ns: int) -> None:
        """Counts a request whose body never became readable."""
        self._count(endpoint, Outcome.BAD, NoBid.TOO_LARGE, 0, started_ns, self._monotonic_ns())

    def _count(
        self,
        endpoint: Endpoint,
        outcome: Outcome,
        reason: NoBid,
        quirks: int,
        started_ns: int,
        end_ns: int,
    ) -> None:
        duration_us = (end_ns - started_ns) // NS_PER_US
        self.meter.request(endpoint.number, outcome, reason, quirks, duration_us)

    def _timed(self, stage: Stage, since_ns: int) -> int:
        """Counts a stage's time and returns the clock."""
        now_ns = self._monotonic_ns()
        self.meter.stage(stage, (now_ns - since_ns) // NS_PER_US)
        return now_ns


def error_body(error: InputError) -> bytes:
    """What the sender of a refused request reads: what is wrong and where."""
    # Reasons are our words, but a path may hold the sender's keys.
    quoted = str(error).translate(_PLAIN)
    return b'{"error":"' + quoted.encode() + b'"}'


_PLAIN: Final = dict.fromkeys(range(32), " ") | {ord('"'): "'", ord("\\"): "/", 127: " "}


def _request_id(work: Workspace, glance: tuple[int, ...]) -> bytes:
    return work.opportunity.slice(glance[1], glance[2])
